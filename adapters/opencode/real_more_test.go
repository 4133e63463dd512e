package opencode_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// A child that asks for a permission waits, and is seen to. Once it is granted the
// child goes on; a rejection ends its turn.
func TestRealPermission(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{Permissions: []opencode.Rule{{Permission: "bash", Pattern: "*", Action: "ask"}}}, subagent.Config{})
	for reply, check := range map[string]func(subagent.Task){
		"once": func(task subagent.Task) { require.Equal(t, "done", task.Result.Text, "%v", task.Reason) },
		"reject": func(task subagent.Task) {
			wantClass(t, task, subagent.ClassPermission, "rejected")
		},
	} {
		task := launch(t, m, parent, `SCRIPT: tool bash {"command":"pwd","description":"where"} || say done`)
		asks := until(t, s, m, task.ID, "it asks", func(task subagent.Task) bool { return task.Status == subagent.InputNeeded })
		require.Equal(t, "bash: pwd", asks.Progress.Waiting)
		until(t, s, m, task.ID, "the call is told of as well", func(task subagent.Task) bool { return task.Progress.OpenTools == 1 })
		var asked []struct{ ID, SessionID string }
		s.call(http.MethodGet, "/permission", parent.Directory, nil, &asked)
		require.Len(t, asked, 1)
		require.EqualValues(t, asks.Session, asked[0].SessionID)
		s.call(http.MethodPost, "/permission/"+asked[0].ID+"/reply", parent.Directory, object{"reply": reply}, nil)
		check(wait(t, m, task))
	}
}

// Tools of a launch are rules beside those of the client, which a prompt's own field
// for them would put out of force; what they allow comes before those, and what they deny
// after.
func TestRealToolsOfALaunch(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{Permissions: []opencode.Rule{{Permission: "edit", Pattern: "*", Action: "ask"}}}, subagent.Config{})
	ended := wait(t, m, launch(t, m, parent, "SCRIPT: say done", func(in *subagent.LaunchInput) {
		in.Tools = map[string]bool{"bash": false, "webfetch": true}
	}))
	require.Equal(t, "done", ended.Result.Text, "%v", ended.Reason)
	var made struct{ Permission []opencode.Rule }
	s.call(http.MethodGet, "/session/"+string(ended.Session), parent.Directory, nil, &made)
	require.Equal(t, []opencode.Rule{
		{Permission: "webfetch", Pattern: "*", Action: "allow"},
		{Permission: "question", Pattern: "*", Action: "deny"},
		{Permission: "edit", Pattern: "*", Action: "ask"},
		{Permission: "bash", Pattern: "*", Action: "deny"},
	}, made.Permission)
}

// A session that was made elsewhere keeps its rules when it is prompted with tools that are
// switched off, which come after them.
func TestRealToolsOfATrackedSession(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	parent := s.createSession(dir, nil)
	theirs := opencode.Rule{Permission: "edit", Pattern: "*", Action: "deny"}
	session := s.createSession(dir, object{"permission": []opencode.Rule{theirs}})
	s.prompt(session, "SCRIPT: say before")
	s.waitIdle(session)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{Tools: map[string]bool{"bash": false, "webfetch": true}})
	task, err := m.Track(t.Context(), subagent.TrackInput{Parent: parentOf(parent), Session: parentOf(session), Agent: "build"})
	require.NoError(t, err)
	wait(t, m, task)
	task, err = m.Resume(t.Context(), task.ID, subagent.ResumeInput{Prompt: "SCRIPT: say after"})
	require.NoError(t, err)
	require.Equal(t, "after", wait(t, m, task).Result.Text)
	var now struct{ Permission []opencode.Rule }
	s.call(http.MethodGet, "/session/"+session.ID, dir, nil, &now)
	require.Equal(t, []opencode.Rule{theirs, {Permission: "bash", Pattern: "*", Action: "deny"}}, now.Permission)
}

// Cancels that come before, while and after a prompt is taken: no turn is left.
func TestRealCancelRaces(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	parent := s.createSession(s.Dir, nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{Keys: subagent.KeyLimits{Default: 4}})
	wait(t, m, launch(t, m, parent, "SCRIPT: say warm"))
	for i := range 25 {
		task := launch(t, m, parent, fmt.Sprintf("SCRIPT: say turn %d; hang", i))
		pause := time.NewTimer(time.Duration(rand.IntN(60)) * time.Millisecond)
		<-pause.C
		ended, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, subagent.Cancelled, ended.Status)
		require.Empty(t, s.status(s.Dir), "after turn %d was cancelled", i)
	}
	require.NoError(t, s.LLM.WaitIdle(t.Context()))
}

// The first prompt in a directory is cancelled while the server loads it. By itself the
// server would then interrupt every later one there.
func TestRealCancelOfTheFirst(t *testing.T) {
	t.Parallel()
	s := shared(t)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	for _, after := range []time.Duration{100, 200, 300, 400} {
		parent := s.createSession(s.newDir(t), nil)
		first := launch(t, m, parent, "SCRIPT: hang")
		until(t, s, m, first.ID, "it runs", func(task subagent.Task) bool { return task.Status == subagent.Running })
		pause := time.NewTimer(after * time.Millisecond)
		<-pause.C
		_, err := m.Cancel(t.Context(), first.ID, subagent.CancelOptions{})
		require.NoError(t, err)
		next := wait(t, m, launch(t, m, parent, "SCRIPT: say hello"))
		require.Equal(t, "hello", next.Result.Text, "after %v: %v", after, next.Reason)
	}
}

// Children work in their parent's directory, or in one of their own; both are watched.
func TestRealDirectories(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	other := s.newDir(t)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	pwd := `SCRIPT: tool bash {"command":"pwd","description":"where"} || sleep 1s; say done`
	here := launch(t, m, parent, pwd)
	there := launch(t, m, parent, pwd, func(in *subagent.LaunchInput) { in.Dir = other })
	for task, dir := range map[subagent.TaskID]string{here.ID: parent.Directory, there.ID: other} {
		task, err := m.Get(task)
		require.NoError(t, err)
		ended := wait(t, m, task)
		require.Equal(t, "done", ended.Result.Text, "%v", ended.Reason)
		require.Equal(t, 1, ended.Progress.ToolCalls)
		messages := s.messages(rawSession{ID: string(ended.Session), Directory: dir})
		require.Equal(t, dir+"\n", messages[1].tools()[0].State.Output)
	}
}

// notified are the notifications in a transcript, and the turns that followed each.
func notified(messages []rawMessage) (texts []string, turns int) {
	for _, m := range messages {
		switch {
		case m.Info.Role == "user" && m.Parts[0].Synthetic:
			texts = append(texts, m.text())
		case m.Info.Role == "assistant" && len(texts) > 0 && m.Info.Time.Completed != 0:
			turns++
		}
	}
	return texts, turns
}

// A parent that rests is told once of both its children, and takes one turn, as the
// agent and with the model that it had.
func TestRealNotification(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	s.call(http.MethodPost, "/session/"+parent.ID+"/prompt_async", parent.Directory, object{
		"agent": "plan", "model": object{"providerID": "fake", "modelID": "other"}, "variant": "high",
		"parts": []object{{"type": "text", "text": "SCRIPT: say I delegate"}},
	}, nil)
	s.waitIdle(parent)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{Mailbox: subagent.MailboxPolicy{Gather: 3 * time.Second, GatherMax: soon}})
	launch(t, m, parent, "SCRIPT: say one", tell)
	launch(t, m, parent, "SCRIPT: say two", tell)
	s.waitUntil("the parent has answered", func() bool { _, turns := notified(s.messages(parent)); return turns == 1 })
	s.waitIdle(parent)
	messages := s.messages(parent)
	texts, turns := notified(messages)
	require.Len(t, texts, 1)
	require.Equal(t, 1, turns)
	require.Contains(t, texts[0], "| one")
	require.Contains(t, texts[0], "| two")
	var answer struct {
		Info struct{ Agent, ModelID, Variant string }
	}
	s.call(http.MethodGet, "/session/"+parent.ID+"/message/"+messages[3].Info.ID, parent.Directory, nil, &answer)
	require.Equal(t, "plan", answer.Info.Agent)
	require.Equal(t, "other", answer.Info.ModelID)
	require.Equal(t, "high", answer.Info.Variant)
	require.Zero(t, m.Stats().Notices.Owed)
}

// Without Wake a notification waits in the transcript for the next turn.
func TestRealSilentNotification(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	long := launch(t, m, parent, "SCRIPT: hang", tell)
	launch(t, m, parent, "SCRIPT: say one", tell)
	s.waitUntil("the parent has it", func() bool { texts, _ := notified(s.messages(parent)); return len(texts) == 1 })
	s.waitIdle(parent)
	_, turns := notified(s.messages(parent))
	require.Zero(t, turns, "another child is still at work")
	_, err := m.Cancel(t.Context(), long.ID, subagent.CancelOptions{})
	require.NoError(t, err)
}

// A parent that is busy is told when it rests, and not in the middle of its turn.
func TestRealBusyParent(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	s.prompt(parent, "SCRIPT: say busy; slow 40 100ms || say more")
	s.waitUntil("the parent is busy", func() bool { return s.status(parent.Directory)[parent.ID].Type == "busy" })
	wait(t, m, launch(t, m, parent, "SCRIPT: say one", tell))
	s.waitUntil("the parent has answered", func() bool { _, turns := notified(s.messages(parent)); return turns == 1 })
	messages := s.messages(parent)
	require.Len(t, messages, 4, "its own prompt and answer, then the notification and its answer")
	texts, _ := notified(messages[2:])
	require.Len(t, texts, 1)
	require.Greater(t, messages[2].Info.Time.Created, messages[1].Info.Time.Completed)
}

// A parent that is deleted is told nothing, its children stop, and all is accounted for.
func TestRealDeletedParent(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	task := launch(t, m, parent, "SCRIPT: hang", tell)
	task = until(t, s, m, task.ID, "it runs", func(task subagent.Task) bool { return task.Status == subagent.Running })
	s.waitUntil("its prompt has arrived", func() bool { return s.status(parent.Directory)[string(task.Session)].Type == "busy" })
	s.call(http.MethodDelete, "/session/"+parent.ID, parent.Directory, nil, nil)
	ended := wait(t, m, task)
	require.ErrorIs(t, ended.Reason, subagent.SessionDeleted, "the server deletes what is below a session too")
	require.Nil(t, ended.Attempts[0].Unstopped)
	s.waitUntil("nothing is owed", func() bool { return m.Stats().Notices.Owed == 0 })
	_, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: subagent.SessionID(parent.ID), Agent: "build", Prompt: "x"})
	require.Error(t, err)
}

// A child delegates itself: its own child works below it, and it is told in its own
// session once its turn is over.
func TestRealGrandchild(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, client := manage(t, s, opencode.Config{}, subagent.Config{Keys: subagent.KeyLimits{Default: 1}, Agents: map[string]subagent.Agent{"build": {}, "general": {}}})
	child := launch(t, m, parent, `SCRIPT: say I delegate; slow 30 100ms`)
	child = until(t, s, m, child.ID, "it runs", func(task subagent.Task) bool { return task.Status == subagent.Running })
	grandchild := wait(t, m, launch(t, m, rawSession{ID: string(child.Session)}, "SCRIPT: say deep", func(in *subagent.LaunchInput) { in.Agent = "general" }))
	require.Equal(t, "deep", grandchild.Result.Text, "%v", grandchild.Reason)
	require.Equal(t, 2, grandchild.Depth)
	require.EqualValues(t, parent.ID, grandchild.Root)
	above, err := client.ParentOf(t.Context(), grandchild.Session)
	require.NoError(t, err)
	require.Equal(t, child.Session, above)
	require.Equal(t, subagent.Completed, wait(t, m, child).Status)
}

// A parent that is no session of the server may delegate if it is said that there are
// such.
func TestRealOutsideParent(t *testing.T) {
	t.Parallel()
	s := shared(t)
	m, _ := manage(t, s, opencode.Config{Outside: true}, subagent.Config{})
	ended := wait(t, m, launch(t, m, rawSession{ID: "chat-7"}, "SCRIPT: say hello"))
	require.Equal(t, "hello", ended.Result.Text, "%v", ended.Reason)
	strict, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	_, err := strict.Launch(t.Context(), subagent.LaunchInput{Parent: "chat-7", Agent: "build", Prompt: "x"})
	require.ErrorIs(t, err, subagent.ErrSessionGone)
}

// The example does as it says.
func TestRealFanout(t *testing.T) {
	t.Parallel()
	s := shared(t)
	cmd := exec.Command("go", "run", "./examples/fanout", "-url", s.URL, "-dir", s.newDir(t),
		`SCRIPT: tool bash {"command":"pwd","description":"where"} || say first`, "SCRIPT: say second", "SCRIPT: slow 5 50ms", "SCRIPT: error 400")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, want := range []string{"question 1 completed after", "1 tool calls: first", "question 4 failed after", "All your background tasks have ended: 3 completed, 1 failed.", "[assistant]"} {
		require.Contains(t, string(out), want)
	}
	require.Equal(t, 1, strings.Count(string(out), "[user]"), "one notification:\n%s", out)
	require.Equal(t, 1, strings.Count(string(out), "[assistant]"), "one turn:\n%s", out)
}
