package opencode_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// What a launch says reaches the session and its prompt, each in its place.
func TestRealEveryField(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	ended := wait(t, m, launch(t, m, parent, "SCRIPT: say done", func(in *subagent.LaunchInput) {
		in.Agent, in.Model, in.Variant, in.System, in.Description = "plan", "fake/other", "high", "be brief", "look"
	}))
	require.Equal(t, "done", ended.Result.Text, "%v", ended.Reason)
	var made struct{ Title, ParentID, Directory string }
	s.call(http.MethodGet, "/session/"+string(ended.Session), parent.Directory, nil, &made)
	require.Equal(t, "look (@plan)", made.Title)
	require.Equal(t, parent.ID, made.ParentID)
	require.Equal(t, parent.Directory, made.Directory)
	var messages []struct {
		Info struct {
			Agent, System string
			Model         struct{ ProviderID, ModelID, Variant string }
		}
	}
	s.call(http.MethodGet, "/session/"+string(ended.Session)+"/message", parent.Directory, nil, &messages)
	prompt := messages[0].Info
	require.Equal(t, []string{"plan", "be brief", "fake", "other", "high"}, []string{prompt.Agent, prompt.System, prompt.Model.ProviderID, prompt.Model.ModelID, prompt.Model.Variant})
}

// A message into a turn that goes on is answered in it, by the agent that was asked; one to
// a session that rests is refused.
func TestRealSteer(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, client := manage(t, s, opencode.Config{}, subagent.Config{})
	task := launch(t, m, parent, "SCRIPT: slow 20 100ms", func(in *subagent.LaunchInput) { in.Agent, in.System = "plan", "be brief" })
	task = until(t, s, m, task.ID, "it speaks", func(task subagent.Task) bool { return !task.Progress.LastActivity.IsZero() })
	require.NoError(t, client.Steer(t.Context(), task.Session, "SCRIPT: say as you wish"))
	ended := wait(t, m, task)
	require.Equal(t, "as you wish", ended.Result.Text, "%v", ended.Reason)
	var messages []struct {
		Info struct{ Role, Agent, System string }
	}
	s.call(http.MethodGet, "/session/"+string(task.Session)+"/message", parent.Directory, nil, &messages)
	for _, message := range messages {
		require.Equal(t, "plan", message.Info.Agent)
		require.Equal(t, message.Info.Role == "user", message.Info.System == "be brief")
	}
	require.Error(t, client.Steer(t.Context(), task.Session, "too late"))
}

// Open todos hold a turn if it is said that somebody goes on with them.
func TestRealTodos(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	const script = `SCRIPT: tool todowrite {"todos":[{"id":"1","content":"all","status":"pending","priority":"high"}]} || say done`
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	require.Equal(t, "done", wait(t, m, launch(t, m, parent, script)).Result.Text)

	m, _ = manage(t, s, opencode.Config{HoldTodos: true}, subagent.Config{})
	task := launch(t, m, parent, script)
	until(t, s, m, task.ID, "the turn is over", func(task subagent.Task) bool { return task.Progress.Steps == 2 })
	pause := time.NewTimer(4 * time.Second)
	<-pause.C
	held, err := m.Get(task.ID)
	require.NoError(t, err)
	require.Equal(t, subagent.Running, held.Status)
	s.prompt(rawSession{ID: string(held.Session), Directory: parent.Directory},
		`SCRIPT: tool todowrite {"todos":[{"id":"1","content":"all","status":"completed","priority":"high"}]} || say really done`)
	ended := wait(t, m, task)
	require.Equal(t, subagent.Completed, ended.Status, "%v", ended.Reason)
}

// Sessions that are kept are there after Close, and rest.
func TestRealKeep(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	m, _ := manage(t, s, opencode.Config{Keep: true}, subagent.Config{})
	over := wait(t, m, launch(t, m, parent, "SCRIPT: say done"))
	runs := launch(t, m, parent, "SCRIPT: hang")
	until(t, s, m, runs.ID, "it runs", func(task subagent.Task) bool { return task.Status == subagent.Running })
	require.NoError(t, m.Close())
	var left []string
	for _, c := range s.children(parent) {
		left = append(left, c.ID)
	}
	require.Len(t, left, 2)
	require.Contains(t, left, string(over.Session))
	require.Empty(t, s.status(parent.Directory))
}
