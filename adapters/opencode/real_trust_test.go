package opencode_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

func after(d time.Duration) { <-time.NewTimer(d).C }

// The server mends a conversation that is too long: it tells of the error, shortens
// the conversation and goes on. The turn is not over.
func TestRealOverflowIsMended(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	const script = "SCRIPT: error 413 x1; say after all"
	hand := s.createSession(parent.Directory, object{"parentID": parent.ID})
	s.prompt(hand, script+" by hand")
	s.waitIdle(hand)
	last := s.messages(hand)
	require.Equal(t, "stop", last[len(last)-1].Info.Finish, "by hand the server goes on by itself")

	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	ended := wait(t, m, launch(t, m, parent, script))
	require.Equal(t, subagent.Completed, ended.Status, "%v", ended.Reason)
}

// A parent whose last turn had more than 20 steps is told as the agent and with the
// model that it had.
func TestRealNotificationAfterALongTurn(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	steps := make([]string, 21)
	for i := range steps {
		steps[i] = fmt.Sprintf(`tool read {"filePath":"opencode.json","offset":%d}`, i)
	}
	s.call(http.MethodPost, "/session/"+parent.ID+"/prompt_async", parent.Directory, object{
		"agent": "plan", "model": object{"providerID": "fake", "modelID": "other"},
		"parts": []object{{"type": "text", "text": "SCRIPT: " + strings.Join(steps, " || ") + " || say I delegate"}},
	}, nil)
	s.waitIdle(parent)
	before := len(s.messages(parent))
	require.Greater(t, before, 21)
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	launch(t, m, parent, "SCRIPT: say one", tell)
	s.waitUntil("the parent is told", func() bool { texts, _ := notified(s.messages(parent)); return len(texts) == 1 })
	s.waitIdle(parent)
	var told struct {
		Info struct {
			Agent string
			Model struct{ ModelID string }
		}
	}
	s.call(http.MethodGet, "/session/"+parent.ID+"/message/"+s.messages(parent)[before].Info.ID, parent.Directory, nil, &told)
	require.Equal(t, "plan other", told.Info.Agent+" "+told.Info.Model.ModelID)
}

// A parent's agent that is not there any more: the server says 204 and stores nothing.
// The notification is then not accepted.
func TestRealNotificationForALostAgent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	config := filepath.Join(s.Dir, "opencode.json")
	plain, err := os.ReadFile(config)
	require.NoError(t, err)
	var c map[string]any
	require.NoError(t, json.Unmarshal(plain, &c))
	c["agent"] = object{"boss": object{"mode": "primary", "prompt": "You delegate."}}
	with, err := json.Marshal(c)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, with, 0o600))
	s.restart()
	parent := s.createSession(s.Dir, nil)
	s.call(http.MethodPost, "/session/"+parent.ID+"/prompt_async", parent.Directory, object{
		"agent": "boss", "parts": []object{{"type": "text", "text": "SCRIPT: say I delegate"}},
	}, nil)
	s.waitIdle(parent)
	require.NoError(t, os.WriteFile(config, plain, 0o600))
	s.restart()
	m, _ := manage(t, s, opencode.Config{}, subagent.Config{})
	task := wait(t, m, launch(t, m, parent, "SCRIPT: say one", tell))
	require.Equal(t, subagent.Completed, task.Status, "%v", task.Reason)
	after(5 * time.Second)
	texts, _ := notified(s.messages(parent))
	owed := m.Pending(subagent.SessionID(parent.ID))
	require.False(t, len(texts) == 0 && m.Stats().Notices.Owed == 0, "the transcript does not have it, and it is owed no more: %+v", owed)
}

// Without Run, a turn that is over within the first poll and was rejected something ends.
func TestRealRejectionWithoutEvents(t *testing.T) {
	t.Parallel()
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	client, err := opencode.New(opencode.Config{URL: s.URL, Permissions: []opencode.Rule{{Permission: "bash", Pattern: "*", Action: "ask"}}})
	require.NoError(t, err)
	warm, err := subagent.New(client, subagent.Config{})
	require.NoError(t, err)
	defer warm.Close()
	wait(t, warm, launch(t, warm, parent, "SCRIPT: say warm"))
	task := launch(t, warm, parent, `SCRIPT: tool bash {"command":"pwd","description":"where"} || say done`)
	var asked []struct{ ID string }
	s.waitUntil("it asks", func() bool {
		s.call(http.MethodGet, "/permission", parent.Directory, nil, &asked)
		return len(asked) == 1
	})
	s.call(http.MethodPost, "/permission/"+asked[0].ID+"/reply", parent.Directory, object{"reply": "reject"}, nil)
	ended := wait(t, warm, task)
	require.True(t, ended.Status.Terminal())
}
