package opencode_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent/subagenttest/scriptedllm"
)

// rawSession, rawMessage, rawPart and rawStatus are what the server says, as far as
// tests look at it.
type rawSession struct {
	ID, ParentID, Directory, Title string
}

type rawMessage struct {
	Info struct {
		ID, Role, ParentID, Finish string
		Time                       struct{ Created, Completed float64 }
		Error                      *struct {
			Name string
			Data struct{ Message string }
		}
	}
	Parts []rawPart
}

type rawPart struct {
	Type, Text, Tool string
	Synthetic        bool
	State            struct {
		Status, Output, Error string
		Input                 json.RawMessage
	}
}

type rawStatus struct {
	Type, Message string
	Attempt       int
}

// text is what the message says.
func (m rawMessage) text() string {
	var b strings.Builder
	for _, p := range m.Parts {
		if p.Type == "text" {
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

// tools are the parts that call tools.
func (m rawMessage) tools() (found []rawPart) {
	for _, p := range m.Parts {
		if p.Type == "tool" {
			found = append(found, p)
		}
	}
	return found
}

// createSession makes a session in a directory; body may be nil.
func (s *server) createSession(dir string, body any) (made rawSession) {
	s.t.Helper()
	if body == nil {
		body = object{}
	}
	s.call(http.MethodPost, "/session", dir, body, &made)
	return made
}

// prompt sends a text and returns once it is stored.
func (s *server) prompt(to rawSession, text string) {
	s.t.Helper()
	body := object{"parts": []object{{"type": "text", "text": text}}}
	s.call(http.MethodPost, "/session/"+to.ID+"/prompt_async", to.Directory, body, nil)
}

// abort stops a session's turn.
func (s *server) abort(of rawSession) {
	s.t.Helper()
	s.call(http.MethodPost, "/session/"+of.ID+"/abort", of.Directory, nil, nil)
}

// messages are all that a session has, the oldest first.
func (s *server) messages(of rawSession) (found []rawMessage) {
	s.t.Helper()
	s.call(http.MethodGet, "/session/"+of.ID+"/message", of.Directory, nil, &found)
	return found
}

// children are the sessions that name this one as their parent.
func (s *server) children(of rawSession) (found []rawSession) {
	s.t.Helper()
	s.call(http.MethodGet, "/session/"+of.ID+"/children", of.Directory, nil, &found)
	return found
}

// status is of a directory's sessions, without those that are idle.
func (s *server) status(dir string) (found map[string]rawStatus) {
	s.t.Helper()
	s.call(http.MethodGet, "/session/status", dir, nil, &found)
	return found
}

// waitIdle returns when a session is idle, and was a moment ago: what a turn leaves
// behind may come a little later than its end.
func (s *server) waitIdle(of rawSession) {
	s.t.Helper()
	idle := 0
	s.waitUntil("session "+of.ID+" is idle", func() bool {
		if _, busy := s.status(of.Directory)[of.ID]; busy {
			idle = 0
			return false
		}
		idle++
		return idle > 5
	})
}

// waitAsked returns the first call of the model that plays a step of the script in a
// user's message that has this text. Tests that share a model need texts of their own.
func (s *server) waitAsked(text string, step int) scriptedllm.Request {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	found, err := s.LLM.WaitFor(ctx, func(r scriptedllm.Request) bool {
		return r.Step == step && !r.Title && slices.ContainsFunc(r.Messages, func(m scriptedllm.Message) bool {
			return m.Role == scriptedllm.RoleUser && strings.Contains(m.Text, text)
		})
	})
	require.NoError(s.t, err, "the model was not asked for step %d of %q", step, text)
	return found
}

// waitUntil asks about 20 times a second, for a minute.
func (s *server) waitUntil(what string, is func() bool) {
	s.t.Helper()
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-patience.C:
			s.t.Fatalf("waited a minute until %s", what)
		}
	}
}

// call asks for something in a directory and decodes the answer. The test ends if
// the server does not answer well, or not within half a minute.
func (s *server) call(method, path, dir string, body, answer any) {
	s.t.Helper()
	a, err := s.try(method, path, dir, body)
	require.NoError(s.t, err)
	require.NoError(s.t, a.decode(answer), "%s %s", method, path)
}

// try asks, and leaves the answer to be judged.
func (s *server) try(method, path, dir string, body any) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if dir != "" {
		path += "?directory=" + url.QueryEscape(dir)
	}
	return ask(ctx, s.Password, method, s.URL+path, body)
}

type answer struct {
	status int
	body   []byte
}

// decode wants an answer that is well; into may be nil.
func (a answer) decode(into any) error {
	if a.status/100 != 2 {
		return fmt.Errorf("status %d: %s", a.status, a.body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(a.body, into)
}

// direct keeps no connections, which a server that was killed would leave broken.
var direct = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func ask(ctx context.Context, password, method, url string, body any) (answer, error) {
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		sent = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if password != "" {
		req.SetBasicAuth("opencode", password)
	}
	resp, err := direct.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, data}, err
}
