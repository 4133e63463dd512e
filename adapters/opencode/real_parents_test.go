package opencode_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// parentOf is a real session as the manager names it.
func parentOf(s rawSession) subagent.SessionID { return subagent.SessionID(s.ID) }

// deposits has parents that are busy told after a second.
var deposits = subagent.MailboxPolicy{BusyMax: time.Second}

// Six children of one parent that end together are one final notification and one turn.
func TestRealSixChildren(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{
		Keys: subagent.KeyLimits{Default: 6}, Mailbox: subagent.MailboxPolicy{Gather: 10 * time.Second, GatherMax: soon},
	})
	words := []string{"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}
	for _, word := range words {
		launch(t, m, parent, "SCRIPT: say "+word, tell)
	}
	s.waitUntil("the parent has answered", func() bool { _, turns := notified(s.messages(parent)); return turns == 1 })
	s.waitIdle(parent)
	texts, turns := notified(s.messages(parent))
	require.Len(t, texts, 1)
	require.Equal(t, 1, turns)
	for _, word := range words {
		require.Contains(t, texts[0], "| "+word)
	}
	require.Equal(t, 1, m.Stats().Notices.Deliveries[subagent.Accepted])
}

// A parent that stays busy is told after BusyMax, while it works. The turn goes on with
// what it is told, in its next step or in one more, so that none is begun for it; nothing
// is there twice.
func TestRealDeposit(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	for name, script := range map[string]string{
		"in a tool":        `SCRIPT: tool bash {"command":"sleep 8","description":"wait"} || say own words`,
		"in its last step": "SCRIPT: sleep 8s; say own words",
	} {
		parent := s.createSession(dir, nil)
		m, _ := manage(t, s, opencode.Config{}, subagent.Config{Mailbox: deposits})
		s.prompt(parent, script)
		s.waitUntil("the parent is busy", func() bool { return s.status(dir)[parent.ID].Type == "busy" })
		launch(t, m, parent, "SCRIPT: say one", tell)
		s.waitUntil("the parent has it", func() bool { texts, _ := notified(s.messages(parent)); return len(texts) == 1 })
		require.Equal(t, "busy", s.status(dir)[parent.ID].Type, name)
		s.waitUntil("its turn was asked for", func() bool { return !m.Pending(parentOf(parent)).Wake })
		s.waitIdle(parent)
		messages := s.messages(parent)
		texts, _ := notified(messages)
		require.Len(t, texts, 1, name)
		notice, answers := "", []string{}
		for _, msg := range messages {
			if msg.Info.Role == "user" && msg.Parts[0].Synthetic {
				notice = msg.Info.ID
			}
		}
		for _, msg := range messages {
			if msg.Info.ParentID == notice {
				answers = append(answers, msg.text())
			}
		}
		require.Len(t, answers, 1, "%s: one step has it in view, and no turn is begun for it", name)
		owed := m.Pending(parentOf(parent))
		require.Zero(t, len(owed.Notices), name)
	}
}

// The same, for a turn that is stopped before it comes to that: the turn that was put off
// begins when the parent rests, with the text where it was.
func TestRealDepositThenWake(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	parent := s.createSession(dir, nil)
	m, client := manage(t, s, opencode.Config{}, subagent.Config{Mailbox: deposits})
	s.call(http.MethodPost, "/session/"+parent.ID+"/prompt_async", dir, object{
		"agent": "plan", "model": object{"providerID": "fake", "modelID": "other"}, "variant": "high",
		"parts": []object{{"type": "text", "text": "SCRIPT: say so far; hang"}},
	}, nil)
	s.waitUntil("the parent is busy", func() bool { return s.status(dir)[parent.ID].Type == "busy" })
	launch(t, m, parent, "SCRIPT: say one", tell)
	s.waitUntil("the parent has it", func() bool { texts, _ := notified(s.messages(parent)); return len(texts) == 1 })
	s.waitUntil("and its turn is put off", func() bool { return m.Pending(parentOf(parent)).Wake })
	s.abort(parent)
	answer := func() (found rawMessage) {
		for _, msg := range s.messages(parent) {
			if msg.Info.Finish == "stop" {
				found = msg
			}
		}
		return found
	}
	s.waitUntil("the parent has answered", func() bool { return answer().Info.ID != "" })
	s.waitIdle(parent)
	messages := s.messages(parent)
	texts, _ := notified(messages)
	require.Len(t, texts, 2)
	require.Contains(t, texts[0], "| one")
	require.NotContains(t, texts[1], "| one", "it only says where to look")
	require.Len(t, messages, 5, "prompt, what was stopped, notification, what asks for its turn, answer")
	var as struct {
		Info struct{ Agent, ModelID, Variant string }
	}
	s.call(http.MethodGet, "/session/"+parent.ID+"/message/"+answer().Info.ID, dir, nil, &as)
	require.Equal(t, "plan other high", as.Info.Agent+" "+as.Info.ModelID+" "+as.Info.Variant)
	s.waitUntil("nothing is owed", func() bool { return !m.Pending(parentOf(parent)).Wake })

	n := subagent.Notification{ID: "nt_1", Parent: parentOf(parent), Text: "told", Handover: subagent.HandDeposit}
	d, err := client.Notify(t.Context(), n)
	require.NoError(t, err)
	require.Equal(t, subagent.Accepted, d)
	there, err := client.Received(t.Context(), n)
	require.NoError(t, err)
	require.True(t, there)
	n.Handover, n.Wake = subagent.HandWake, true
	there, err = client.Received(t.Context(), n)
	require.NoError(t, err)
	require.False(t, there, "it has had no turn")
	for range 2 {
		d, err = client.Notify(t.Context(), n)
		require.NoError(t, err)
		require.Equal(t, subagent.Accepted, d)
		s.waitIdle(parent)
		require.Len(t, s.messages(parent), 8, "one turn more, however often it is asked for")
	}
}

// intruder does something just before a call that writes into a session goes out.
type intruder struct{ do func() }

func (i *intruder) RoundTrip(r *http.Request) (*http.Response, error) {
	if do := i.do; do != nil && strings.HasSuffix(r.URL.Path, "/prompt_async") {
		i.do = nil
		do()
	}
	return http.DefaultTransport.RoundTrip(r)
}

// A user who prompts the parent in the moment in which it is told, or woken: the answer is
// to the user and has the notification in view; nothing is there twice, and the parent
// stays as the user has it.
func TestRealUserIsQuicker(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	for _, how := range []subagent.Handover{subagent.HandOffer, subagent.HandDeposit, subagent.HandWake} {
		for _, script := range []string{"SCRIPT: sleep 2s; say to the user", "SCRIPT: say to the user"} {
			parent := s.createSession(dir, nil)
			s.prompt(parent, "SCRIPT: say before")
			s.waitUntil("it has answered", func() bool { return len(s.messages(parent)) == 2 })
			s.waitIdle(parent)
			user := &intruder{}
			client, err := opencode.New(opencode.Config{URL: s.URL, Transport: user})
			require.NoError(t, err)
			n := subagent.Notification{ID: "nt_1", Parent: parentOf(parent), Text: "told of one", Handover: how, Wake: how != subagent.HandDeposit}
			if how == subagent.HandWake {
				put := n
				put.Handover, put.Wake = subagent.HandDeposit, false
				d, err := client.Notify(t.Context(), put)
				require.NoError(t, err)
				require.Equal(t, subagent.Accepted, d)
			}
			user.do = func() {
				s.call(http.MethodPost, "/session/"+parent.ID+"/prompt_async", dir, object{
					"agent": "plan", "model": object{"providerID": "fake", "modelID": "other"},
					"parts": []object{{"type": "text", "text": script}},
				}, nil)
			}
			d, err := client.Notify(t.Context(), n)
			require.NoError(t, err)
			require.Equal(t, subagent.Accepted, d)
			s.waitIdle(parent)
			messages := s.messages(parent)
			texts, _ := notified(messages)
			require.Equal(t, 1, strings.Count(strings.Join(texts, "\n"), "told of one"))
			steps := 0
			for _, msg := range messages[2:] {
				var as struct {
					Info struct {
						Role, Agent, ModelID string
						Model                struct{ ModelID string }
					}
				}
				s.call(http.MethodGet, "/session/"+parent.ID+"/message/"+msg.Info.ID, dir, nil, &as)
				if msg.Info.Role == "assistant" {
					steps++
				} else if msg.text() != n.Text || how != subagent.HandWake { // that stands before the user's
					require.Equal(t, "plan other", as.Info.Agent+" "+as.Info.Model.ModelID, "%v, %s", how, script)
				}
			}
			require.Positive(t, steps, "%v, %s", how, script)
			require.LessOrEqual(t, steps, 2, "the answer to the user, and one more if the notification came in meanwhile")
		}
	}
}

// A task that is resumed is prompted in its own session, and its second result is what it
// made of the second prompt.
func TestRealResume(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	first := wait(t, m, launch(t, m, parent, "SCRIPT: say first"))
	require.Equal(t, "first", first.Result.Text, "%v", first.Reason)
	_, err := m.Resume(t.Context(), first.ID, subagent.ResumeInput{Prompt: `SCRIPT: tool bash {"command":"pwd","description":"where"} || say " "`, NoNotice: true})
	require.NoError(t, err)
	blank := wait(t, m, first)
	require.NotEqual(t, subagent.Completed, blank.Status, "the answer to the first prompt is none to the second")
	_, err = m.Resume(t.Context(), first.ID, subagent.ResumeInput{Prompt: "SCRIPT: slow 3 100ms; say third"})
	require.NoError(t, err)
	third := wait(t, m, first)
	require.Equal(t, first.Session, third.Session)
	require.Equal(t, 3, third.Run)
	require.True(t, strings.HasSuffix(third.Result.Text, "third"), third.Result.Text)
	require.NotContains(t, third.Result.Text, "first")
	require.Len(t, s.children(parent), 1)
	s.waitUntil("the parent is told of it", func() bool { texts, _ := notified(s.messages(parent)); return len(texts) == 1 })
}

// A child's own child ends after it: the session above the child is told, and the child is
// not woken.
func TestRealGrandchildOfAnEndedChild(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{Keys: subagent.KeyLimits{Default: 2}})
	child := launch(t, m, parent, "SCRIPT: slow 20 100ms; say I delegated", tell)
	child = until(t, s, m, child.ID, "it runs", func(task subagent.Task) bool { return task.Status == subagent.Running })
	grandchild := launch(t, m, rawSession{ID: string(child.Session)}, "SCRIPT: sleep 8s; say deep", tell)
	require.Equal(t, subagent.Completed, wait(t, m, child).Status)
	require.Equal(t, subagent.Running, until(t, s, m, grandchild.ID, "it works", func(subagent.Task) bool { return true }).Status)
	require.Equal(t, "deep", wait(t, m, grandchild).Result.Text)
	var texts []string
	s.waitUntil("the parent is told", func() bool {
		texts, _ = notified(s.messages(parent))
		return strings.Contains(strings.Join(texts, "\n"), "| deep")
	})
	s.waitIdle(parent)
	require.Contains(t, texts[len(texts)-1], "All your background tasks have ended", "the last one is final")
	told, _ := notified(s.messages(rawSession{ID: string(child.Session), Directory: parent.Directory}))
	require.Empty(t, told)
}

// A session that somebody else made and prompted becomes a task: while its turn goes on,
// and when that is over. Its end is told like any other's, and it can be stopped.
func TestRealTracked(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	parent := s.createSession(dir, nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	track := func(session rawSession) subagent.Task {
		task, err := m.Track(t.Context(), subagent.TrackInput{Parent: parentOf(parent), Session: parentOf(session), Agent: "build", Description: "theirs"})
		require.NoError(t, err)
		return task
	}
	works, rests, hangs := s.createSession(dir, nil), s.createSession(dir, nil), s.createSession(dir, nil)
	s.prompt(rests, "SCRIPT: say before")
	s.waitIdle(rests)
	s.prompt(rests, "SCRIPT: say rested")
	s.prompt(works, `SCRIPT: slow 10 100ms; tool bash {"command":"sleep 4","description":"wait"} || tool bash {"command":"pwd","description":"where"} || say worked`)
	s.prompt(hangs, "SCRIPT: say so far; hang")
	s.waitUntil("one has answered", func() bool { _, busy := s.status(dir)[rests.ID]; return !busy && len(s.messages(rests)) == 4 })
	s.waitUntil("the others are at work", func() bool { return len(s.status(dir)) == 2 })
	working, rested, hanging := track(works), track(rests), track(hangs)
	require.Equal(t, "rested", wait(t, m, rested).Result.Text)
	ended := wait(t, m, working)
	require.True(t, strings.HasSuffix(ended.Result.Text, "worked"), "%q, %v", ended.Result.Text, ended.Reason)
	require.Positive(t, ended.Progress.ToolCalls)
	until(t, s, m, hanging.ID, "it runs", func(task subagent.Task) bool { return task.Status == subagent.Running })
	stopped, err := m.Cancel(t.Context(), hanging.ID, subagent.CancelOptions{})
	require.NoError(t, err)
	require.Equal(t, subagent.Cancelled, stopped.Status)
	rests2 := s.status(dir)
	require.NotContains(t, rests2, hangs.ID)
	s.waitUntil("the parent is told", func() bool {
		texts, _ := notified(s.messages(parent))
		all := strings.Join(texts, "\n")
		return strings.Contains(all, "| rested") && strings.Contains(all, "theirs")
	})
}

// A user who stops the parent's turn stops its children, if the host says so; that the
// manager stops a child does not.
func TestRealInterruptedParent(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	parent := s.createSession(dir, nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{Interrupted: subagent.InterruptedStopAll})
	one, two := launch(t, m, parent, "SCRIPT: say one; hang"), launch(t, m, parent, "SCRIPT: say two; hang")
	for _, id := range []subagent.TaskID{one.ID, two.ID} {
		until(t, s, m, id, "it speaks", func(task subagent.Task) bool { return !task.Progress.LastActivity.IsZero() })
	}
	_, err := m.Cancel(t.Context(), one.ID, subagent.CancelOptions{})
	require.NoError(t, err)
	s.abort(parent) // which rests
	s.prompt(parent, "SCRIPT: say I wait; hang")
	s.waitAsked("I wait", 0)
	now, err := m.Get(two.ID)
	require.NoError(t, err)
	require.Equal(t, subagent.Running, now.Status, "%v", now.Reason)
	s.abort(parent)
	require.ErrorIs(t, wait(t, m, two).Reason, subagent.ByUser)
}
