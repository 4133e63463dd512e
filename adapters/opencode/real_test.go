package opencode_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// The tests in this file have a real opencode server do the work; see server_test.go.

// soon bounds what must come; on two busy cores a first turn takes seconds.
const soon = time.Minute

// manage makes a manager over a server, with its events, and ends both with the test:
// after that no turn of a child goes on.
func manage(t testing.TB, s *server, oc opencode.Config, cfg subagent.Config) (*subagent.BackgroundManager, *opencode.Client) {
	t.Helper()
	oc.URL, oc.Password = s.URL, s.Password
	oc.Blocking.Poll = cmp.Or(oc.Blocking.Poll, 500*time.Millisecond) // what takes some polls is seen sooner
	client, err := opencode.New(oc)
	require.NoError(t, err)
	m, err := subagent.New(client, cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- client.Run(ctx, m.HandleEvent) }()
	t.Cleanup(func() {
		require.NoError(t, m.Close())
		cancel()
		require.ErrorIs(t, <-over, context.Canceled)
	})
	return m, client
}

// launch has a parent delegate a prompt.
func launch(t testing.TB, m *subagent.BackgroundManager, parent rawSession, prompt string, set ...func(*subagent.LaunchInput)) subagent.Task {
	t.Helper()
	in := subagent.LaunchInput{Parent: subagent.SessionID(parent.ID), Agent: "build", Prompt: prompt, NoNotice: true}
	for _, f := range set {
		f(&in)
	}
	task, err := m.Launch(t.Context(), in)
	require.NoError(t, err)
	return task
}

func tell(in *subagent.LaunchInput) { in.NoNotice = false }

func wait(t testing.TB, m *subagent.BackgroundManager, task subagent.Task) subagent.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	ended, err := m.Wait(ctx, task.ID)
	require.NoError(t, err, "%s goes on: %+v", ended.ID, ended.Progress)
	return ended
}

// until waits for a task to be as it should.
func until(t testing.TB, s *server, m *subagent.BackgroundManager, id subagent.TaskID, what string, is func(subagent.Task) bool) (task subagent.Task) {
	t.Helper()
	s.waitUntil(what, func() bool {
		var err error
		task, err = m.Get(id)
		require.NoError(t, err)
		return is(task)
	})
	return task
}

// wantClass checks how a task failed.
func wantClass(t testing.TB, task subagent.Task, class subagent.Class, says string) {
	t.Helper()
	require.Equal(t, subagent.Failed, task.Status, "%v", task.Reason)
	require.ErrorIs(t, task.Reason, subagent.SessionFailed)
	var said *subagent.SessionError
	require.ErrorAs(t, task.Reason, &said)
	require.Equal(t, class, said.Class)
	require.ErrorContains(t, task.Reason, says)
}

// rests checks that nothing of a session goes on, in the server or at its model.
func rests(t testing.TB, s *server, task subagent.Task, dir string) {
	t.Helper()
	require.NotContains(t, s.status(dir), string(task.Session))
	require.Nil(t, task.Attempts[0].Unstopped)
}

func TestRealConforms(t *testing.T) {
	s := shared(t)
	dir := s.newDir(t)
	parent := s.createSession(dir, nil)
	subagenttest.TestClient(t, func(t *testing.T) subagenttest.Subject {
		client, err := opencode.New(opencode.Config{URL: s.URL, Blocking: subagent.BlockingConfig{Poll: 500 * time.Millisecond}})
		require.NoError(t, err)
		go client.Run(t.Context(), client.HandleEvent)
		return subagenttest.Subject{
			Client: client,
			Request: subagent.CreateRequest{
				Task: "bg_1", Attempt: 1, Agent: "build", Parent: subagent.SessionID(parent.ID),
			},
			Quick: "SCRIPT: say hello", Long: "SCRIPT: slow 10000 100ms", Fail: "SCRIPT: error 400", Blank: `SCRIPT: say " "`,
			Working: func(id subagent.SessionID) bool { _, busy := s.status(dir)[string(id)]; return busy },
			Settle:  30 * time.Second,
		}
	})
}

// Five children under a limit of two: never more at work, and all answers are their own.
func TestRealParallel(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{Keys: subagent.KeyLimits{Default: 2}})
	var tasks []subagent.Task
	for _, n := range []string{"one", "two", "three", "four", "five"} {
		tasks = append(tasks, launch(t, m, parent, "SCRIPT: slow 3 100ms; say "+n))
	}
	most := 0
	s.waitUntil("all have ended", func() bool {
		most = max(most, len(s.status(parent.Directory)))
		return len(m.List(subagent.Filter{Statuses: []subagent.Status{subagent.Completed}})) == len(tasks)
	})
	require.Equal(t, 2, most)
	for i, n := range []string{"one", "two", "three", "four", "five"} {
		ended := wait(t, m, tasks[i])
		require.True(t, strings.HasSuffix(ended.Result.Text, n), "%q does not end on %q", ended.Result.Text, n)
	}
	require.Len(t, s.children(parent), 5)
}

// A child uses tools in two steps: what it did and said is on the record.
func TestRealTools(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, client := manage(t, s, opencode.Config{}, subagent.Config{})
	ended := wait(t, m, launch(t, m, parent,
		`SCRIPT: think hm; tool bash {"command":"pwd","description":"where"} || tool bash {"command":"exit 3","description":"fail"}; usage 7 3 || say there`))
	require.Equal(t, subagent.Completed, ended.Status, "%v", ended.Reason)
	require.Equal(t, "there", ended.Result.Text)
	require.Equal(t, subagent.Usage{InputTokens: 27, OutputTokens: 13}, ended.Result.Usage)
	require.Equal(t, 2, ended.Progress.ToolCalls)
	require.Zero(t, ended.Progress.OpenTools)
	require.Equal(t, "bash", ended.Progress.LastTool)
	require.Equal(t, 3, ended.Progress.Steps)
	require.Equal(t, ended.Result.Usage, ended.Progress.Usage)

	said, err := client.Transcript(t.Context(), ended.Session, subagent.TranscriptQuery{Limit: 3})
	require.NoError(t, err)
	require.Len(t, said, 3)
	require.Equal(t, "hm", said[0].Thoughts)
	require.Equal(t, "there", said[2].Text)
	require.Equal(t, map[string]any{"command": "pwd", "description": "where"}, said[0].Tools[0].Input)
	above, err := client.ParentOf(t.Context(), ended.Session)
	require.NoError(t, err)
	require.EqualValues(t, parent.ID, above)
}

// A model that refuses for good ends the task, and says why.
func TestRealModelErrors(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	bad := launch(t, m, parent, "SCRIPT: error 400")
	out := launch(t, m, parent, "SCRIPT: error 401")
	nobody := launch(t, m, parent, "SCRIPT: say x", func(in *subagent.LaunchInput) { in.Agent = "nobody" })
	nothing := launch(t, m, parent, "SCRIPT: say x", func(in *subagent.LaunchInput) { in.Model = "fake/nope" })
	wantClass(t, wait(t, m, bad), subagent.ClassInvalid, "scripted 400")
	wantClass(t, wait(t, m, out), subagent.ClassAuth, "scripted 401")
	wantClass(t, wait(t, m, nobody), subagent.ClassAgentNotFound, `Agent not found: "nobody"`)
	wantClass(t, wait(t, m, nothing), subagent.ClassModelNotFound, "Model not found: fake/nope")
	for _, task := range []subagent.Task{bad, out, nobody, nothing} {
		rests(t, s, wait(t, m, task), parent.Directory)
	}
}

// A model that refuses for a while, or drops the line, is asked again by the server:
// the task shows it and goes on.
func TestRealRetries(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	once := launch(t, m, parent, rand.Text()+"\nSCRIPT: error 429 x1 ra 3; say after all") // counted by the text
	down := launch(t, m, parent, "SCRIPT: error 500")
	cut := launch(t, m, parent, "SCRIPT: say half; drop")
	for _, retry := range []struct {
		id  subagent.TaskID
		why string
	}{ // the one that will be over first
		{once.ID, "scripted 429"}, {down.ID, "scripted 500"}, {cut.ID, ""},
	} {
		shown := until(t, s, m, retry.id, "a retry shows", func(task subagent.Task) bool { return task.Progress.Retrying != "" })
		require.Contains(t, shown.Progress.Retrying, retry.why)
		require.Equal(t, subagent.Running, shown.Status)
	}
	ended := wait(t, m, once)
	require.Equal(t, "after all", ended.Result.Text, "%v", ended.Reason)
	require.Empty(t, ended.Progress.Retrying)
	for _, task := range []subagent.Task{down, cut} {
		ended, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, subagent.Cancelled, ended.Status)
		rests(t, s, ended, parent.Directory)
	}
}

// A child that is cancelled rests when Cancel returns: in the server, in the tool that
// it was in, and at its model. What it had said is kept.
func TestRealCancel(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	parent := s.createSession(s.Dir, nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	said := launch(t, m, parent, "SCRIPT: say so far; slow 10000 50ms")
	used := launch(t, m, parent, `SCRIPT: tool bash {"command":"touch begun; sleep 60; touch survived","description":"sleep"}`)
	hung := launch(t, m, parent, "SCRIPT: hang")
	until(t, s, m, used.ID, "the tool runs", func(task subagent.Task) bool { return task.Progress.OpenTools == 1 })
	s.waitUntil("all are at work", func() bool { return len(s.status(s.Dir)) == 3 })
	begun := until(t, s, m, said.ID, "it begins to speak", func(task subagent.Task) bool { return !task.Progress.LastActivity.IsZero() })
	until(t, s, m, said.ID, "it has spoken for a second", func(task subagent.Task) bool {
		return task.Progress.LastActivity.Sub(begun.Progress.LastActivity) > time.Second
	})
	for _, task := range []subagent.Task{said, used, hung} {
		began := time.Now()
		ended, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, subagent.Cancelled, ended.Status)
		require.Less(t, time.Since(began), 5*time.Second)
		rests(t, s, ended, s.Dir)
		if task.ID == said.ID {
			require.Contains(t, ended.Result.Text, "so far")
			require.True(t, ended.Result.Partial)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.NoError(t, s.LLM.WaitIdle(ctx), "no call of the model goes on")
}

// A session that is deleted under its task: the task ends, and so does the turn, which
// the server by itself would go on with.
func TestRealDelete(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	parent := s.createSession(s.Dir, nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	task := launch(t, m, parent, "SCRIPT: slow 10000 50ms")
	task = until(t, s, m, task.ID, "it is at work", func(task subagent.Task) bool { return task.Progress.LastActivity != time.Time{} })
	s.call(http.MethodDelete, "/session/"+string(task.Session), s.Dir, nil, nil)
	ended := wait(t, m, task)
	require.ErrorIs(t, ended.Reason, subagent.SessionDeleted)
	require.Nil(t, ended.Attempts[0].Unstopped)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.NoError(t, s.LLM.WaitIdle(ctx), "no call of the model goes on")
	require.NoError(t, m.Close())
	require.Empty(t, s.children(parent), "what was kept is released")
}

// A server that is killed in the middle of a turn and comes back: the turn is lost and
// is said to be; the next one works.
func TestRealRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, password("secret"))
	parent := s.createSession(s.Dir, nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	lost := launch(t, m, parent, "SCRIPT: say so far; hang")
	s.waitAsked("say so far", 0)
	s.restart()
	ended := wait(t, m, lost)
	require.Equal(t, subagent.Interrupted, ended.Status)
	require.ErrorIs(t, ended.Reason, subagent.PromptFailed)
	require.ErrorContains(t, ended.Reason, "not complete")
	again := wait(t, m, launch(t, m, parent, "SCRIPT: say back"))
	require.Equal(t, "back", again.Result.Text, "%v", again.Reason)
}
