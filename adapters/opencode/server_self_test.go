package opencode_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests in this file are of the server that the others use.

func TestServerPlaysScripts(t *testing.T) {
	s := shared(t)
	session := s.createSession(s.Dir, object{"title": "mine"})
	s.prompt(session, `SCRIPT: tool bash {"command":"pwd; touch made","description":"look"} || say all; say " done"`)
	s.waitIdle(session)

	messages := s.messages(session)
	require.Len(t, messages, 3, "the prompt, and a message for each step")
	tools := messages[1].tools()
	require.Len(t, tools, 1)
	require.Equal(t, "completed", tools[0].State.Status)
	require.Equal(t, s.Dir+"\n", tools[0].State.Output)
	require.FileExists(t, filepath.Join(s.Dir, "made"))
	require.Equal(t, "all done", messages[2].text())
	require.Equal(t, "stop", messages[2].Info.Finish)
}

func TestServerHasDirectories(t *testing.T) {
	s := shared(t)
	dirs := []string{s.newDir(t), s.newDir(t)}
	parent := s.createSession(dirs[0], nil)
	child := s.createSession(dirs[0], object{"parentID": parent.ID})
	other := s.createSession(dirs[1], nil)
	require.Equal(t, dirs[1], other.Directory)
	require.Equal(t, []rawSession{child}, s.children(parent))

	s.prompt(child, "SCRIPT: say I hang; hang")
	s.waitAsked("say I hang", 0)
	require.Equal(t, map[string]rawStatus{child.ID: {Type: "busy"}}, s.status(dirs[0]))
	require.Empty(t, s.status(dirs[1]))
	s.abort(child)
	s.waitIdle(child)
	require.Equal(t, "MessageAbortedError", s.messages(child)[1].Info.Error.Name)
}

func TestServerComesBack(t *testing.T) {
	s := startServer(t, password("secret"))
	a, err := s.try(http.MethodGet, "/session/status", s.Dir, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.status)
	stranger := *s
	stranger.Password = ""
	a, err = stranger.try(http.MethodGet, "/session/status", s.Dir, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, a.status)

	session := s.createSession(s.Dir, object{"title": "kept"})
	s.prompt(session, "SCRIPT: hang")
	s.waitAsked("hang", 0)
	s.kill()
	_, err = s.try(http.MethodGet, "/global/health", "", nil)
	require.Error(t, err)
	require.NoError(t, s.LLM.WaitIdle(t.Context()))

	s.restart()
	var found rawSession
	s.call(http.MethodGet, "/session/"+session.ID, s.Dir, nil, &found)
	require.Equal(t, session, found)
	require.Empty(t, s.status(s.Dir))
	s.prompt(session, "SCRIPT: say hello again")
	s.waitIdle(session)
	messages := s.messages(session)
	require.Equal(t, "hello again", messages[len(messages)-1].text())
}

// The server has all that the adapter calls. A newer one that has not is noticed here.
func TestServerHasWhatTheAdapterCalls(t *testing.T) {
	s := shared(t)
	var doc struct{ Paths map[string]map[string]any }
	s.call(http.MethodGet, "/doc", "", nil, &doc)
	for _, used := range [][2]string{
		{"post", "/session"},
		{"get", "/session/{sessionID}"},
		{"patch", "/session/{sessionID}"},
		{"delete", "/session/{sessionID}"},
		{"post", "/session/{sessionID}/prompt_async"},
		{"get", "/session/{sessionID}/message"},
		{"post", "/session/{sessionID}/abort"},
		{"get", "/session/status"},
		{"get", "/session/{sessionID}/children"},
		{"get", "/session/{sessionID}/todo"},
		{"get", "/config/providers"},
		{"get", "/permission"},
		{"get", "/question"},
		{"get", "/global/event"},
	} {
		require.Contains(t, doc.Paths[used[1]], used[0], "%s %s", used[0], used[1])
	}
}

// Nobody's settings are used, and nothing is written outside the test's folders.
func TestServerHasItsOwnHome(t *testing.T) {
	s := shared(t)
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	var paths map[string]string
	s.call(http.MethodGet, "/path", s.Dir, nil, &paths)
	require.NotEmpty(t, paths["state"])
	for _, name := range []string{"home", "state", "config"} {
		require.Contains(t, paths[name], s.host.root, name)
		require.NotEqual(t, home, paths[name], name)
	}
}
