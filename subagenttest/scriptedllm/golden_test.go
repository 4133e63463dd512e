package scriptedllm

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the transcripts in testdata")

// wires are the APIs with each of their modes.
var wires = []struct {
	name   string
	host   host
	stream bool
}{
	{"chat", chatHost{}, false},
	{"chat-stream", chatHost{}, true},
	{"responses", responsesHost{}, false},
	{"responses-stream", responsesHost{}, true},
	{"anthropic", anthropicHost{}, false},
	{"anthropic-stream", anthropicHost{}, true},
	{"gemini", geminiHost{}, false},
	{"gemini-stream", geminiHost{sse: true}, true},
	{"gemini-array", geminiHost{}, true},
}

// What goes over the wire, to the byte. Time and ids are fake.
func TestTranscripts(t *testing.T) {
	prompts := []string{
		`SCRIPT: think hm; say héllo <b>; say " world"; tool read {"path": "ä"}; tool mcp__srv::go; usage 7 3`,
		`SCRIPT: slow 2 1h`,
		`SCRIPT: error 429 ra 2`,
		`SCRIPT: error 529`,
		`SCRIPT: say part; error 500`,
		`SCRIPT: say part; drop`,
		`SCRIPT: sleep 1ms`,
		`SCRIPT: say a || sloow`,
		"no script",
	}
	for _, wire := range wires {
		t.Run(wire.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewUnstarted(Config{})
				defer s.Close()
				n := 0
				s.newID = func() string { n++; return fmt.Sprintf("id%d", n) }
				var all strings.Builder
				for _, prompt := range prompts {
					r := wire.host.request("", wire.stream, []Message{{Role: RoleUser, Text: prompt}})
					fmt.Fprintf(&all, "=== %s\n%s %s\n\n%s\n", prompt, r.Method, r.URL.RequestURI(), transcript(s, r))
				}
				compare(t, wire.name, all.String())
			})
		})
	}
}

// transcript is the answer as text, also one that breaks off.
func transcript(s *Server, r *http.Request) string {
	w := httptest.NewRecorder()
	end := ""
	func() {
		defer func() {
			if recover() == http.ErrAbortHandler {
				end = "<the connection breaks>\n"
			}
		}()
		s.Handler().ServeHTTP(w, r)
	}()
	var header strings.Builder
	_ = w.Result().Header.Write(&header)
	body := strings.ReplaceAll(w.Body.String(), "\r", "\\r")
	if !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	return fmt.Sprintf("%d\n%s\n%s%s", w.Code, strings.ReplaceAll(header.String(), "\r\n", "\n"), body, end)
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "go test -run TestTranscripts -update . writes what is right now")
}
