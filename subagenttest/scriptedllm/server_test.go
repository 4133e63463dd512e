package scriptedllm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// running are the goroutines in which the server's code is.
func running() string {
	buf := make([]byte, 1<<20)
	var found []string
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "scriptedllm.(*exchange)") || strings.Contains(g, "scriptedllm.(*reply)") {
			found = append(found, g)
		}
	}
	return strings.Join(found, "\n\n")
}

// Whatever holds an answer up ends when the client goes away, and the server says so.
func TestClientGoesAway(t *testing.T) {
	for _, script := range []string{"hang", "say so far; hang", "sleep 1h", "slow 9 1h", "slow 1000 1ms; hang"} {
		for _, wire := range wires {
			t.Run(script+"/"+wire.name, func(t *testing.T) {
				t.Parallel()
				s := New(t, Config{})
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					got, _, err := ask(ctx, s, wire.host, wire.stream, user("SCRIPT: "+script))
					if err == nil && got.whole {
						t.Error("the answer is complete")
					}
				})
				r, err := s.WaitFor(t.Context(), func(r Request) bool { return r.Step == 0 })
				require.NoError(t, err)
				require.False(t, r.Gone)
				require.Zero(t, r.Ended)
				require.Equal(t, 1, s.Open())
				cancel()
				wg.Wait()
				r, err = s.WaitFor(t.Context(), func(r Request) bool { return r.Gone })
				require.NoError(t, err)
				require.False(t, r.Ended.IsZero())
				require.NoError(t, s.WaitIdle(t.Context()))
			})
		}
	}
}

func TestClose(t *testing.T) {
	s := NewUnstarted(Config{})
	require.NoError(t, s.Start("127.0.0.1:0"))
	require.ErrorContains(t, s.Start(""), "started before")
	const each = 5
	var wg sync.WaitGroup
	for range each {
		for _, wire := range wires {
			wg.Go(func() {
				if got, _, err := ask(t.Context(), s, wire.host, wire.stream, user("SCRIPT: say a; hang")); err == nil && got.whole {
					t.Error("the answer is complete")
				}
			})
		}
	}
	n := each * len(wires)
	_, err := s.WaitFor(t.Context(), func(r Request) bool { return r.N == n-1 })
	require.NoError(t, err)
	require.Equal(t, n, s.Open())
	waiting := make(chan error)
	wg.Go(func() {
		_, err := s.WaitFor(t.Context(), func(r Request) bool { return r.N == n })
		waiting <- err
	})
	wg.Go(s.Close)
	require.ErrorIs(t, <-waiting, ErrClosed)
	s.Close()
	wg.Wait()
	require.Zero(t, s.Open())
	// net/http says that a connection is closed a moment before its goroutine, which comes
	// back from the panic that broke it, is gone.
	for end := time.Now().Add(10 * time.Second); running() != "" && time.Now().Before(end); {
		runtime.Gosched()
	}
	require.Empty(t, running())
	for _, r := range s.Requests() {
		require.False(t, r.Gone, "the server went away, and not the client")
	}
	require.ErrorIs(t, s.Start(""), ErrClosed)
	NewUnstarted(Config{}).Close()
}

func TestDrop(t *testing.T) {
	s := New(t, Config{})
	for _, wire := range wires {
		got, status, err := ask(t.Context(), s, wire.host, wire.stream, user("SCRIPT: say before; drop; say after"))
		require.Equal(t, 200, status, wire.name)
		require.False(t, wire.stream && got.whole, wire.name)
		require.Equal(t, !wire.stream, errors.Is(err, io.ErrUnexpectedEOF), wire.name)
		require.NotContains(t, got.text, "after", wire.name)
	}
	require.NoError(t, s.WaitIdle(t.Context()))
	for _, r := range s.Requests() {
		require.False(t, r.Gone)
	}
}

// An error after the first output of a stream is in the stream.
func TestErrorInTheStream(t *testing.T) {
	s := New(t, Config{})
	for _, wire := range wires {
		got, status, err := ask(t.Context(), s, wire.host, wire.stream, user("SCRIPT: say before; error 503"))
		require.NoError(t, err)
		if !wire.stream {
			require.Equal(t, 503, status, wire.name)
			continue
		}
		require.Equal(t, 200, status, wire.name)
		require.Equal(t, "before", got.text, wire.name)
		require.Equal(t, "scripted 503", got.failed, wire.name)
		require.NotEqual(t, "completed", got.reason, wire.name)
	}
}

func TestErrorsAreCounted(t *testing.T) {
	s := New(t, Config{})
	statuses := func(prompt string, answers int) (all []int) {
		for range 5 {
			conversation := []Message{user(prompt)}
			for range answers {
				conversation = append(conversation, Message{Role: RoleAssistant, Text: "x"}, user("and"))
			}
			_, status, err := ask(t.Context(), s, chatHost{}, false, conversation...)
			require.NoError(t, err)
			all = append(all, status)
		}
		return all
	}
	const script = "SCRIPT: error 429 x2 ra 3; error 500 x1; say a || error 404 x1; say b || error 401"
	require.Equal(t, []int{429, 429, 500, 200, 200}, statuses(script, 0))
	require.Equal(t, []int{404, 200, 200, 200, 200}, statuses(script, 1))
	require.Equal(t, []int{401, 401, 401, 401, 401}, statuses(script, 2))
	require.Equal(t, []int{429, 429, 500, 200, 200}, statuses("again\n"+script, 0), "another prompt counts anew")
	require.Equal(t, 0, s.Requests()[0].Try)
	require.Equal(t, 2, s.Requests()[2].Try)
	require.Empty(t, s.Requests()[0].Fault, "that was no fault of the host")
}

// The clock of a bubble is enough: nothing here needs the network.
func TestFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewUnstarted(Config{})
		defer s.Close()
		began := time.Now()
		_ = transcript(s, chatHost{}.request("", true, []Message{user("SCRIPT: slow 60 1m; sleep 1h")}))
		require.Equal(t, 2*time.Hour, time.Since(began))

		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Hour, func() { cancel(errors.New("enough")) })
		_, err := s.WaitFor(ctx, func(r Request) bool { return r.N == 1 })
		require.EqualError(t, err, "scriptedllm: wait for a request: enough")
	})
}

// Handler has its own ways to end: the request's context, and Close.
func TestHandlerElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewUnstarted(Config{})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		r := chatHost{}.request("", true, []Message{user("SCRIPT: say a; say b")})
		require.Contains(t, transcript(s, r.WithContext(gone)), "<the connection breaks>")
		require.True(t, s.Requests()[0].Gone)

		var wg sync.WaitGroup
		for _, script := range []string{"say a; hang", "sleep 9000h", "slow 9 9000h"} {
			wg.Go(func() {
				r := chatHost{}.request("", true, []Message{user("SCRIPT: " + script)})
				if !strings.Contains(transcript(s, r), "<the connection breaks>") {
					t.Errorf("%s: the answer is complete", script)
				}
			})
		}
		synctest.Wait()
		require.Equal(t, 3, s.Open())
		began := time.Now()
		s.Close()
		require.Zero(t, s.Open())
		wg.Wait()
		require.Zero(t, time.Since(began))
	})
}

// Parts of a message are lines, and those of Anthropic messages of their own.
func TestPartsOfMessages(t *testing.T) {
	s := New(t, Config{})
	_, got, _ := send(t, s, "POST", "/v1/chat/completions",
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"},{"type":"text","text":"SCRIPT: say b"}]}]}`)
	require.Equal(t, "b", str(got, "choices", 0, "message", "content"))
	_, got, _ = send(t, s, "POST", "/v1/messages", `{"system":"good","messages":[{"role":"user","content":[
		{"type":"text","text":"SCRIPT: say c || say d"},{"type":"tool_result","tool_use_id":"t","content":"r"},{"type":"text","text":"x"},{"type":"text","text":"y"}]}]}`)
	require.Equal(t, "c", str(got, "content", 0, "text"))
	require.Equal(t, []Message{
		{Role: RoleUser, Text: "SCRIPT: say c || say d"}, {Role: RoleTool, Text: "r", For: "t"}, {Role: RoleUser, Text: "x\ny"},
	}, s.Requests()[1].Messages)
	_, got, _ = send(t, s, "POST", "/v1/responses", `{"instructions":"good","input":"SCRIPT: say e"}`)
	require.Equal(t, "e", str(got, "output", 0, "content", 0, "text"))
	require.Equal(t, "good", s.Requests()[2].System)
}

// send sends anything to a server and returns what it answers.
func send(t *testing.T, s *Server, method, path, body string, header ...string) (int, any, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if len(data) == 0 {
		return res.StatusCode, nil, res.Header
	}
	return res.StatusCode, unmarshal(data), res.Header
}

// What a host gets wrong is told in the API's own shape.
func TestBadRequests(t *testing.T) {
	s := New(t, Config{MaxBody: 1000})
	paths := map[string][]any{ // with the place of the error's kind
		"/v1/chat/completions":                           {"error", "type"},
		"/v1/responses":                                  {"error", "type"},
		"/v1/messages":                                   {"error", "type"},
		"/v1beta/models/m:generateContent":               {"error", "status"},
		"/v1beta/models/m:streamGenerateContent":         {0, "error", "status"},
		"/v1beta/models/m:streamGenerateContent?alt=sse": {"error", "status"},
	}
	for path, kind := range paths {
		message := append(append([]any{}, kind[:len(kind)-1]...), "message")
		for body, want := range map[string]string{
			"{":                       "the body is not what the API takes: unexpected end of JSON input",
			"[]":                      "the body is not what the API takes",
			"{}":                      "the request has no message",
			strings.Repeat(" ", 1001): "the body is larger than Config.MaxBody, 1000 bytes",
			`{"messages":[{"role":"x","content":"a"}],"input":[{"role":"x"}],"contents":[{"role":"x","parts":[]}]}`:                  `message 0 has the role "x", which nobody has`,
			`{"messages":[{"role":"user","content":"SCRIPT: x"}],"input":"SCRIPT: x","contents":[{"parts":[{"text":"SCRIPT: x"}]}]}`: `scriptedllm: step 1, operation 1, "x": no such operation`,
		} {
			status, got, _ := send(t, s, "POST", path, body)
			wantStatus := 400
			if len(body) > 1000 {
				wantStatus = 413
			}
			require.Equal(t, wantStatus, status, path)
			require.Contains(t, str(got, message...), want, path)
			require.Contains(t, []string{"invalid_request_error", "request_too_large", "INVALID_ARGUMENT"}, str(got, kind...), path)
			last := s.Requests()[len(s.Requests())-1]
			require.Equal(t, str(got, message...), last.Fault)
			require.Equal(t, -1, last.Step)
			require.Contains(t, last.String(), want)
		}
		status, got, _ := send(t, s, "POST", path, "x", "Content-Encoding", "gzip")
		require.Equal(t, 415, status)
		require.Contains(t, str(got, message...), `the encoding "gzip"`)
	}
	status, got, _ := send(t, s, "POST", "/v1/responses", `{"previous_response_id":"r","input":"x"}`)
	require.Equal(t, 400, status)
	require.Contains(t, str(got, "error", "message"), "no conversation is kept here")
	for path, message := range map[string][]any{"/chat/completions": {"error", "message"}, "/v1beta/models/m:what": {"error", "message"}, "/v1/messages/x": {"error", "message"}} {
		status, got, _ = send(t, s, "POST", path, "{}")
		require.Equal(t, 404, status)
		require.Contains(t, str(got, message...), "no such call: POST "+path)
	}
}

func TestProbes(t *testing.T) {
	s := New(t, Config{Models: []string{"a", "b"}})
	status, got, _ := send(t, s, "GET", "/v1/models", "")
	require.Equal(t, 200, status)
	require.Equal(t, "b", str(got, "data", 1, "id"))
	require.Equal(t, "list", str(got, "object"))
	_, got, _ = send(t, s, "GET", "/v1/models", "", "anthropic-version", "2023-06-01")
	require.Equal(t, "model", str(got, "data", 0, "type"))
	_, got, _ = send(t, s, "GET", "/v1beta/models", "")
	require.Equal(t, "models/a", str(got, "models", 0, "name"))
	status, got, _ = send(t, s, "HEAD", "/", "")
	require.Equal(t, 200, status)
	require.Nil(t, got)
	_, got, _ = send(t, s, "POST", "/v1/messages/count_tokens", `{"messages":[]}`)
	require.Equal(t, 3, num(got, "input_tokens"))
	_, got, _ = send(t, s, "POST", "/v1beta/models/m:countTokens", `{"contents":[]}`)
	require.Equal(t, 3, num(got, "totalTokens"))
	require.Len(t, s.Requests(), 6)
	for i, r := range s.Requests() {
		require.Equal(t, i, r.N)
		require.Empty(t, r.API)
		require.Equal(t, -1, r.Step)
	}
}

// Secrets are not kept, and neither are more requests than asked for.
func TestRequestsAreKeptWithCare(t *testing.T) {
	s := New(t, Config{Keep: 3})
	for range 5 {
		_, _, header := send(t, s, "POST", "/v1beta/models/m:generateContent?key=sk-1", `{"contents":[{"parts":[{"text":"hi"}]}]}`,
			"Authorization", "Bearer sk-1", "X-Api-Key", "sk-1", "X-Goog-Api-Key", "sk-1", "Cookie", "sk-1", "X-Session-Affinity", "s")
		require.NotEmpty(t, header.Get("X-Request-Id"))
	}
	require.NoError(t, s.WaitIdle(t.Context()))
	all := s.Requests()
	require.Len(t, all, 3)
	require.Equal(t, 2, all[0].N)
	for _, values := range all[0].Header {
		require.NotContains(t, strings.Join(values, ""), "sk-1")
	}
	require.NotContains(t, all[0].String()+all[0].Path, "sk-1")
	require.Equal(t, hidden, all[0].Header.Get("X-Goog-Api-Key"))
	require.Equal(t, "s", all[0].Header.Get("X-Session-Affinity"))
	all[0].Messages[0].Text = "changed"
	require.Equal(t, "hi", s.Requests()[0].Messages[0].Text)
}

func TestStartsOnLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.org:0", "[::]:0"} {
		require.ErrorContains(t, NewUnstarted(Config{}).Start(addr), "not an address of the loopback interface", addr)
	}
	require.ErrorContains(t, NewUnstarted(Config{}).Start("x"), "missing port")
	s := New(t, Config{})
	require.ErrorContains(t, NewUnstarted(Config{}).Start(strings.TrimPrefix(s.URL, "http://")), "in use")
}
