package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// scene answers by "METHOD /path"; what it does not name is a session of /d, at rest.
type scene struct {
	mu      sync.Mutex
	answer  map[string]func(*http.Request) (*http.Response, error)
	asked   []string
	prompts []prompt
}

func (s *scene) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	at := r.Method + " " + r.URL.Path
	s.mu.Lock()
	s.asked = append(s.asked, at+"?"+r.URL.RawQuery)
	if strings.HasSuffix(at, "/prompt_async") {
		var p prompt
		_ = json.NewDecoder(r.Body).Decode(&p)
		s.prompts = append(s.prompts, p)
	}
	f := s.answer[at]
	s.mu.Unlock()
	switch {
	case f != nil:
		return f(r)
	case strings.HasSuffix(at, "/message"):
		return reply(200, "[]"), nil
	case at == "GET /permission", at == "GET /question":
		return reply(200, "[]"), nil
	case at == "GET /session/status":
		return reply(200, "{}"), nil
	case strings.HasSuffix(at, "/prompt_async"):
		return reply(204, ""), nil
	case strings.HasPrefix(at, "GET /session/"):
		return reply(200, `{"id":"`+r.URL.Path[len("/session/"):]+`","directory":"/d"}`), nil
	}
	return reply(200, "true"), nil
}

func (s *scene) count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.asked {
		if strings.HasPrefix(at, prefix) {
			n++
		}
	}
	return n
}

func always(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return reply(status, body), nil }
}

func over(t *testing.T, s *scene, cfg Config) *Client {
	t.Helper()
	cfg.URL, cfg.Transport = "http://h", s
	oc, err := New(cfg)
	require.NoError(t, err)
	return oc
}

// launched has a child work in a scene, until the test is over.
func launched(t *testing.T, s *scene) (*Client, *subagent.BackgroundManager, subagent.Task) {
	t.Helper()
	return launchedBy(t, over(t, s, Config{}))
}

func launchedBy(t *testing.T, oc *Client) (*Client, *subagent.BackgroundManager, subagent.Task) {
	t.Helper()
	m, err := subagent.New(oc, subagent.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "ses_p", Agent: "build", Prompt: "x", NoNotice: true})
	require.NoError(t, err)
	synctest.Wait()
	return oc, m, task
}

// conversation answers GET …/message of a list of messages, and those written since, as
// the server does.
func (s *scene) conversation(before []string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		s.mu.Lock()
		messages := slices.Clone(before)
		for i, p := range s.prompts {
			parts, _ := json.Marshal(p.Parts)
			messages = append(messages, fmt.Sprintf(`{"info":{"id":"msg_w%d","role":"user"},"parts":%s}`, i, parts))
		}
		s.mu.Unlock()
		end, limit := len(messages), len(messages)
		_, _ = fmt.Sscan(r.URL.Query().Get("limit"), &limit)
		if b := r.URL.Query().Get("before"); b != "" {
			_, _ = fmt.Sscan(b, &end)
		}
		begin := max(end-limit, 0)
		res := reply(200, "["+strings.Join(messages[begin:end], ",")+"]")
		if begin > 0 {
			res.Header.Set("X-Next-Cursor", fmt.Sprint(begin))
		}
		return res, nil
	}
}

func steps(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf(`{"info":{"id":"msg_%d","role":"assistant","parentID":"msg_n","finish":"tool-calls","time":{"created":1,"completed":2}},"parts":[]}`, i))
	}
	return all
}

const (
	userAsPlan = `{"info":{"id":"msg_u","role":"user","agent":"plan","model":{"providerID":"p","modelID":"m"}},"parts":[{"type":"text","text":"hi"}]}`
	toldBefore = `{"info":{"id":"msg_n","role":"user","agent":"plan","model":{"providerID":"p","modelID":"m"}},"parts":[{"type":"text","text":"t","metadata":{"subagent":{"notification":"nt_1"}}}]}`
)

// A notification whose reply was lost, and which the parent answered in 20 steps.
func TestNotifyDoubled(t *testing.T) {
	s := &scene{}
	s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_p/message": s.conversation(append([]string{userAsPlan, toldBefore}, steps(20)...))}
	d, err := over(t, s, Config{}).Notify(t.Context(), subagent.Notification{ID: "nt_1", Parent: "ses_p", Text: "x", Wake: true})
	require.NoError(t, err)
	require.Equal(t, subagent.Accepted, d)
	require.Empty(t, s.prompts, "what is there already is written again")
}

func TestNotifyAsBefore(t *testing.T) {
	for _, wake := range []bool{true, false} {
		s := &scene{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_p/message": s.conversation(append([]string{userAsPlan}, steps(20)...))}
		_, err := over(t, s, Config{}).Notify(t.Context(), subagent.Notification{ID: "nt_2", Parent: "ses_p", Text: "x", Wake: wake})
		require.NoError(t, err)
		require.Equal(t, "plan", s.prompts[0].Agent)
		require.Equal(t, &model{Provider: "p", Model: "m"}, s.prompts[0].Model)
		require.Equal(t, wake, !s.prompts[0].NoReply, "whether a turn begins")
	}
}

// A page of a parent's messages that is too large to be read is read in smaller ones.
func TestNotifyLargePage(t *testing.T) {
	big := `{"info":{"id":"msg_%d","role":"assistant","time":{"created":1,"completed":2}},"parts":[{"type":"tool","metadata":{"x":"` + strings.Repeat("x", 2<<20) + `"}}]}`
	messages := []string{userAsPlan}
	for i := range 19 {
		messages = append(messages, fmt.Sprintf(big, i))
	}
	s := &scene{}
	s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_p/message": s.conversation(messages)}
	d, err := over(t, s, Config{}).Notify(t.Context(), subagent.Notification{ID: "nt_2", Parent: "ses_p", Text: "x"})
	require.NoError(t, err)
	require.Equal(t, subagent.Accepted, d)
}

// A proxy in front of a server that is just down is not the server: its 404 says nothing
// of a session.
func TestNotFoundOfAProxy(t *testing.T) {
	page := always(404, "<html><body>default backend - 404</body></html>")
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_p": page}}
	oc := over(t, s, Config{})
	d, err := oc.Notify(t.Context(), subagent.Notification{ID: "nt_1", Parent: "ses_p", Text: "x"})
	require.NotEqual(t, subagent.Gone, d, "what it is owed is dropped; %v", err)
}

func TestNotFoundOfAProxyInATurn(t *testing.T) {
	page := always(404, "404 page not found")
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": page}}
	oc := over(t, s, Config{})
	oc.host.sessions["ses_1"] = &session{dir: "/d", turn: newTurn("m1")}
	out, err := oc.host.Output(t.Context(), "ses_1", "m1")
	require.False(t, err == nil && errors.Is(out.Err, subagent.ErrSessionGone), "a whole turn is taken for gone")
}

// Notices for parents that live elsewhere are not dropped because nobody was set to
// tell them.
func TestOutsideParentIsNotGone(t *testing.T) {
	d, err := over(t, &scene{}, Config{Outside: true}).Notify(t.Context(), subagent.Notification{ID: "nt_1", Parent: "chat-7", Text: "x"})
	require.NotEqual(t, subagent.Gone, d, "%v: what it is owed is dropped, and can't be drained", err)
}

// An event that names no session is of none. It stopped all tasks without a parent.
func TestEventsOfNoSession(t *testing.T) {
	h := child(t)
	for _, properties := range []string{`{}`, `null`, `{"info":null}`, `{"sessionID":"","info":{"id":""}}`} {
		require.Empty(t, h.hear(event{Type: "session.deleted", Properties: json.RawMessage(properties)}), properties)
	}
}

// A reply that is of another session, or of none, is no answer.
func TestReplyOfNoSession(t *testing.T) {
	for _, body := range []string{`{}`, `null`, `{"id":"ses_other","directory":"/x"}`} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_p": always(200, body)}}
		oc := over(t, s, Config{})
		_, err := oc.ParentOf(t.Context(), "ses_p")
		require.Error(t, err, "%s makes it a root: its depth counts from there", body)
		d, err := oc.Notify(t.Context(), subagent.Notification{ID: "nt_1", Parent: "ses_p", Text: "x"})
		require.False(t, d == subagent.Accepted && err == nil, "%s: whether it rests was asked of no directory", body)
	}
}

// What is known of a turn's steps is of no use when the turn is over.
func TestTurnIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mark string
		s := &scene{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
			"GET /session/ses_1/message": func(*http.Request) (*http.Response, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				mark = s.prompts[0].Parts[0].Metadata[metaKey].Prompt
				return reply(200, `[{"info":{"id":"msg_u","role":"user"},"parts":[{"type":"text","text":"x","metadata":{"subagent":{"prompt":"`+mark+`"}}}]},
					{"info":{"id":"msg_a","role":"assistant","finish":"stop","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"done"}]}]`), nil
			},
		}
		oc, m, task := launched(t, s)
		oc.host.mu.Lock()
		mark = oc.host.sessions["ses_1"].turn.mark
		oc.host.mu.Unlock()
		tell := func(kind, properties string) {
			for _, e := range oc.host.hear(event{Type: kind, Properties: json.RawMessage(properties)}) {
				m.HandleEvent(e)
			}
		}
		tell("message.part.updated", strings.Replace(ours, `"m1"`, `"`+mark+`"`, 1))
		for i := range 1000 {
			tell("message.updated", fmt.Sprintf(`{"sessionID":"ses_1","info":{"id":"msg_%d","role":"assistant","time":{"created":5}}}`, i))
			tell("message.part.updated", fmt.Sprintf(`{"sessionID":"ses_1","part":{"id":"prt_%d","messageID":"msg_%d","type":"step-finish"}}`, i, i))
		}
		tell("session.idle", `{"sessionID":"ses_1"}`)
		ended, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, subagent.Completed, ended.Status, "%v", ended.Reason)
		oc.host.mu.Lock()
		defer oc.host.mu.Unlock()
		if turn := oc.host.sessions["ses_1"].turn; turn != nil {
			require.Zero(t, len(turn.steps)+len(turn.counted), "kept until Close, for each task")
		}
	})
}

// A prompt that is refused as the session has a turn takes nothing from that turn.
func TestRefusedPromptEndsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
		}}
		oc, _, _ := launched(t, s)
		before := oc.host.sessions["ses_1"].turn
		require.NotNil(t, before)
		_, err := oc.Prompt(t.Context(), "ses_1", subagent.Prompt{Text: "p"})
		require.Error(t, err)
		require.Same(t, before, oc.host.sessions["ses_1"].turn)
	})
}

// A directory that the server would take from one of its own is refused before it is
// asked.
func TestDirIsAbsolute(t *testing.T) {
	for dir, ok := range map[string]bool{
		"relative": false, "~": false, "./x": false, "..": false, "C:x": false, `\x`: false, "file:///x": false, "1:/x": false, "x/C:/y": false, "a\n/b": false,
		"": true, "/": true, "/a b": true, `C:\x`: true, "c:/x": true, `\\server\share`: true,
	} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`)}}
		_, err := over(t, s, Config{}).Create(t.Context(), subagent.CreateRequest{Agent: "build", Dir: dir})
		if ok {
			require.NoError(t, err, dir)
			continue
		}
		var said *subagent.SessionError
		require.ErrorAs(t, err, &said, dir)
		require.Equal(t, subagent.ClassInvalid, said.Class)
		var in *subagent.InputError
		require.ErrorAs(t, err, &in)
		require.Equal(t, subagent.InputError{Field: "Dir", Value: strconv.Quote(dir), Rule: "must be an absolute path on the server's machine"}, *in)
		require.Empty(t, s.asked)
	}
}

// Who has parents that are no sessions of the server is told what to set.
func TestForeignParentNamesTheSetting(t *testing.T) {
	_, err := over(t, &scene{}, Config{}).ParentOf(t.Context(), "main")
	require.EqualError(t, err, `lineage: invalid: "main" is no session id of an opencode server, see opencode.Config.Outside: subagent: session gone`)
}

// The sessions of all directories are asked for, each of its own.
func TestStatusesOfAllDirectories(t *testing.T) {
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
		"GET /session/status": func(r *http.Request) (*http.Response, error) {
			return reply(200, map[string]string{"/a": `{"ses_1":{"type":"busy"}}`, "/b": `{"ses_2":{"type":"retry"}}`, "/c": `{}`}[r.URL.Query().Get("directory")]), nil
		},
	}}
	oc := over(t, s, Config{})
	for id, dir := range map[subagent.SessionID]string{"ses_1": "/a", "ses_2": "/b", "ses_3": "/c"} {
		oc.host.sessions[id] = &session{dir: dir}
	}
	all, err := oc.host.Statuses(t.Context(), []subagent.SessionID{"ses_1", "ses_2", "ses_3"})
	require.NoError(t, err)
	require.Equal(t, map[subagent.SessionID]subagent.HostStatus{"ses_1": subagent.HostBusy, "ses_2": subagent.HostRetrying, "ses_3": subagent.HostIdle}, all)
}

// A directory is loaded before the first prompt in it, once; and again when the server
// may be another process.
func TestDirectoryIsLoadedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
			"GET /global/event": func(r *http.Request) (*http.Response, error) {
				res := reply(200, "")
				res.Body = io.NopCloser(open{stop})
				return res, nil
			},
		}}
		oc, _, _ := launched(t, s)
		s.mu.Lock()
		load := slices.Index(s.asked, "GET /config/providers?directory=%2Fd")
		prompted := slices.Index(s.asked, "POST /session/ses_1/prompt_async?directory=%2Fd")
		s.mu.Unlock()
		require.GreaterOrEqual(t, load, 0, "%q", s.asked)
		require.Less(t, load, prompted)
		oc.host.warmUp(t.Context(), "/d")
		require.Equal(t, 1, s.count("GET /config/providers"), "it is loaded")

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = oc.Run(ctx, func(subagent.SessionEvent) {}) }()
		synctest.Wait()
		asked := s.count("GET /session/status")
		close(stop)
		time.Sleep(firstPause) // and some of them are over
		synctest.Wait()
		require.Greater(t, s.count("GET /global/event"), 1, "the stream was opened again")
		require.Greater(t, s.count("GET /session/status"), asked, "what was missed is looked for, and not with the next poll")
		oc.host.warmUp(t.Context(), "/d")
		require.Equal(t, 2, s.count("GET /config/providers"), "the server may have been started again")
	})
}

// open is a body without an end, until it is closed.
type open struct{ closed chan struct{} }

func (o open) Read([]byte) (int, error) {
	<-o.closed
	return 0, io.EOF
}

// Only the server's own reply says that a prompt was taken.
func TestPromptIsTakenByNobodyElse(t *testing.T) {
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
		"POST /session/ses_1/prompt_async": always(200, "<html>please log in</html>"),
	}}
	err := over(t, s, Config{}).host.post(t.Context(), "prompt", "ses_1", "/d", prompt{})
	var said *subagent.SessionError
	require.ErrorAs(t, err, &said)
	require.Equal(t, subagent.ClassUnavailable, said.Class)
}

// A prompt for which there was no connection is not looked for, and leaves no doubt.
func TestPromptWithoutConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
			"POST /session/ses_1/prompt_async": func(*http.Request) (*http.Response, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			},
		}}
		_, m, task := launched(t, s)
		time.Sleep(5 * time.Second)
		ended, err := m.Get(task.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, subagent.ErrNotSent)
		require.NoError(t, ended.Attempts[0].Unstopped)
	})
}

// After a gap only the directories are asked in which a turn goes on.
func TestResumeAsksForWhatRuns(t *testing.T) {
	s := &scene{}
	oc := over(t, s, Config{})
	for i := range 50 { // whose turns were over weeks ago, in worktrees that are gone
		id := subagent.SessionID(fmt.Sprint("ses_", i))
		oc.host.sessions[id] = &session{dir: fmt.Sprint("/worktree/", i)}
	}
	oc.host.sessions["ses_7"].turn = newTurn("m")
	oc.host.resume(t.Context())
	require.Equal(t, 2, s.count("GET /permission")+s.count("GET /question"), "calls for directories in which nothing runs; each starts an instance there")
}

// What was answered in a gap is not shown as waited for.
func TestAnsweredInAGap(t *testing.T) {
	s := &scene{}
	oc := over(t, s, Config{})
	oc.host.sessions["ses_1"] = &session{dir: "/d", turn: newTurn("m1")}
	for _, w := range append(heardOurs, wire{"permission.asked", asked}) {
		oc.host.hear(event{Type: w.kind, Properties: json.RawMessage(w.properties)})
	}
	require.NotEmpty(t, oc.host.resume(t.Context()), "the task stays input_required until its next words, which may be an hour away")
}

// A stream that is cut right after it was opened, again and again, is opened ever less
// often.
func TestFlappingStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"GET /global/event": always(200, "data: {\"payload\":{\"type\":\"server.connected\",\"properties\":{}}}\n\n"),
		}}
		oc := over(t, s, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_ = oc.Run(ctx, func(subagent.SessionEvent) {})
		require.Less(t, s.count("GET /global/event"), 300, "times in ten minutes")
	})
}

// A proxy that has no route for a moment does not end the events for good.
func TestStreamComesBackAfter404(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"GET /global/event": func(r *http.Request) (*http.Response, error) {
				if n.Add(1) == 2 {
					return reply(404, "404 page not found"), nil
				}
				return reply(200, "data: {}\n\n"), nil
			},
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := over(t, s, Config{}).Run(ctx, func(subagent.SessionEvent) {})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// Slow answers about permissions do not cost the stream.
func TestResumeOutlastsTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beats := func() io.ReadCloser {
			r, w := io.Pipe()
			go func() {
				for {
					if _, err := io.WriteString(w, "data: {\"payload\":{\"type\":\"server.heartbeat\"}}\n\n"); err != nil {
						return
					}
					time.Sleep(10 * time.Second)
				}
			}()
			return r
		}
		slow := func(*http.Request) (*http.Response, error) {
			time.Sleep(20 * time.Second)
			return reply(200, "[]"), nil
		}
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"GET /permission": slow, "GET /question": slow,
			"GET /global/event": func(r *http.Request) (*http.Response, error) {
				body := beats()
				context.AfterFunc(r.Context(), func() { body.Close() })
				return &http.Response{StatusCode: 200, Body: body}, nil
			},
		}}
		oc := over(t, s, Config{})
		oc.host.sessions["ses_1"] = &session{dir: "/d", turn: newTurn("m1")}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_ = oc.Run(ctx, func(subagent.SessionEvent) {})
		time.Sleep(time.Minute) // until nothing beats any more
		require.LessOrEqual(t, s.count("GET /global/event"), 2, "a stream that beats every 10 s is cut for its silence")
	})
}

// Numbers of the server are numbers of JavaScript.
func TestNumbers(t *testing.T) {
	for _, number := range []string{"10.5", "1e3", "1e21", "-1", "1.0"} {
		var all []message
		err := json.Unmarshal([]byte(`[{"info":{"role":"assistant","finish":"stop","time":{"created":1795266106879,"completed":2},"tokens":{"input":`+number+`}},"parts":[{"type":"text","text":"x"}]}]`), &all)
		require.NoError(t, err)
		require.False(t, all[0].unread, "one such message, and the answer can never be read: the turn has no end")
	}
}

// An answer that can never be read is decided at some time.
func TestUnreadableAnswerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"POST /session":              always(200, `{"id":"ses_1","directory":"/d"}`),
			"GET /session/ses_1/message": always(200, `[{"info":{"role":"assistant","time":{"created":"yesterday"}}}]`),
		}}
		_, m, task := launched(t, s)
		m.HandleEvent(subagent.SessionEvent{Session: "ses_1", Kind: subagent.EventBusy})
		m.HandleEvent(subagent.SessionEvent{Session: "ses_1", Kind: subagent.EventIdle})
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		_, err := m.Wait(ctx, task.ID)
		require.NoError(t, err, "%d reads", s.count("GET /session/ses_1/message"))
	})
}

// Providers that say "stop" beside tool calls: the server goes on, or has stopped
// because of a rejection. The turn did not end well.
func TestStopBesideACall(t *testing.T) {
	var steps []message
	require.NoError(t, json.Unmarshal([]byte(`[{"info":{"role":"assistant","finish":"stop","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"I look"},
		{"type":"tool","callID":"c1","state":{"status":"error","error":"The user rejected permission to use this specific tool call."}}]}]`), &steps))
	out := child(t).answer("ses_1", steps)
	require.True(t, out.Unfinished, "it is taken for a whole answer: %q", out.Text)
}

// Foreign output: a user who talks to the child in the moment it is done.
func TestForeignAnswer(t *testing.T) {
	var steps []message
	require.NoError(t, json.Unmarshal([]byte(`[
		{"info":{"id":"msg_2","parentID":"msg_1","role":"assistant","finish":"stop","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"42"}]},
		{"info":{"id":"msg_3","role":"user","time":{"created":3}},"parts":[{"type":"text","text":"thanks"}]},
		{"info":{"id":"msg_4","parentID":"msg_3","role":"assistant","finish":"stop","time":{"created":4,"completed":5}},"parts":[{"type":"text","text":"You are welcome."}]}]`), &steps))
	require.Equal(t, "42", child(t).answer("ses_1", steps).Text)
}

// A cursor that leads nowhere is found out before 500 calls, and what was read is not
// all kept.
func TestEndlessPages(t *testing.T) {
	page := `[{"info":{"id":"msg_1","role":"assistant"},"parts":[{"type":"tool","metadata":{"x":"` + strings.Repeat("x", 1<<12) + `"}}]}]`
	var most uint64
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
		"GET /session/ses_1/message": func(*http.Request) (*http.Response, error) {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
			res := reply(200, page)
			res.Header.Set("X-Next-Cursor", "same")
			return res, nil
		},
	}}
	_, err := over(t, s, Config{}).host.Output(t.Context(), "ses_1", "m1")
	require.LessOrEqual(t, s.count("GET /session/ses_1/message"), 3, "calls, all with the same cursor, for one look; %d MiB; %v", most>>20, err)
}

// Pages of nothing, each with another cursor, are not read until the time is up.
func TestEmptyPages(t *testing.T) {
	calls := 0
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
		"GET /session/ses_1/message": func(*http.Request) (*http.Response, error) {
			if calls++; calls > 1000 {
				return nil, errors.New("read without end")
			}
			res := reply(200, "[]")
			res.Header.Set("X-Next-Cursor", fmt.Sprint(calls))
			return res, nil
		},
	}}
	_, err := over(t, s, Config{}).host.Output(t.Context(), "ses_1", "m1")
	require.NoError(t, err)
	require.Equal(t, 1, calls)
}

// To look for a prompt among n messages costs as much as n, not n*n: the whole search is
// bounded by Config.Timeout, and what does not fit is read again without end. What is
// counted is what is sent and what is put together from it.
func TestLongTurnIsRead(t *testing.T) {
	look := func(n int) (sent, allocated int64) {
		messages := []string{`{"info":{"id":"msg_u","role":"user"},"parts":[{"type":"text","text":"x","metadata":{"subagent":{"prompt":"m1"}}}]}`}
		for i := range n {
			messages = append(messages, fmt.Sprintf(`{"info":{"id":"msg_%d","role":"assistant","parentID":"msg_n","finish":"tool-calls","time":{"created":1,"completed":2}},"parts":[{"type":"tool","metadata":{"output":%q}}]}`, i, strings.Repeat("x", 30<<10)))
		}
		s := &scene{}
		page := s.conversation(messages)
		s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": func(r *http.Request) (*http.Response, error) {
			res, err := page(r)
			text, _ := io.ReadAll(res.Body)
			res.Body = io.NopCloser(bytes.NewReader(text))
			sent += int64(len(text))
			return res, err
		}}
		host := over(t, s, Config{}).host
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := host.Output(t.Context(), "ses_1", "m1")
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		return sent, int64(after.TotalAlloc - before.TotalAlloc)
	}
	sent, allocated := look(200)
	sentLong, allocatedLong := look(1600)
	t.Logf("%d and %d KiB sent, %d and %d KiB allocated, for 200 and 1600 messages", sent>>10, sentLong>>10, allocated>>10, allocatedLong>>10)
	require.Positive(t, sent)
	require.Less(t, sentLong, 12*sent, "eight times as many messages")
	require.Less(t, allocatedLong, 12*allocated, "eight times as many messages")
}

// Secrets in what a server or a line says.
func TestEchoedSecrets(t *testing.T) {
	for name, c := range map[string]struct {
		password string
		reply    *http.Response
		err      error
		secret   string
	}{
		"read from a file":         {"hunter2\n", reply(403, "no such password: hunter2"), nil, "hunter2"},
		"base64, by the transport": {"hunter2", nil, errors.New("refused header Authorization: Basic b3BlbmNvZGU6aHVudGVyMg=="), "b3BlbmNvZGU6aHVudGVyMg=="},
		"escaped in a URL":         {"hunter 2/3", reply(403, "for /?password=hunter%202%2F3"), nil, "hunter%202%2F3"},
		"in JSON":                  {"hunter\"2\x01&é", reply(403, `{"why":"is not hunter\"2\u0001&é"}`), nil, "hunter"},
		"in JSON for HTML":         {`hunter"2\x&é`, reply(403, `{"why":"is not hunter\"2\\x\u0026é"}`), nil, "hunter"},
		"quoted":                   {"hunter\"2\x01é", nil, fmt.Errorf("refused header %q", "hunter\"2\x01é"), "hunter"},
		"quoted in ASCII":          {"hunter2é", nil, fmt.Errorf("refused header %+q", "hunter2é"), "hunter"},
		"cut in the middle":        {"hunter2secret", reply(403, strings.Repeat("\n", maxError-12)+"hunter2secret"), nil, "hunter2secre"},
	} {
		t.Run(name, func(t *testing.T) {
			oc, err := New(Config{URL: "http://h", Password: c.password, Transport: transport(func(*http.Request) (*http.Response, error) { return c.reply, c.err })})
			require.NoError(t, err)
			_, err = oc.ParentOf(t.Context(), "ses_1")
			require.Error(t, err)
			require.NotContains(t, err.Error(), c.secret)
		})
	}
}

// Hostile texts in errors.
func TestHostileTexts(t *testing.T) {
	for name, text := range map[string]string{"C1": "a\u009b31mb", "bidi": "a\u202eb", "line separator": "a\u2028b", "zero width": "a\u200bb", "no UTF-8": "a\x9bb"} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1": always(500, text)}}
		_, err := over(t, s, Config{}).ParentOf(t.Context(), "ses_1")
		require.Error(t, err)
		require.NotContains(t, err.Error(), text[1:len(text)-1], name)
	}
}

// A peer that is no HTTP server.
func TestLongTransportError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, strings.Repeat("\x1b[31m", 100<<10)+"\r\n\r\n")
			}()
		}
	}()
	var lines bytes.Buffer
	oc, err := New(Config{URL: "http://" + l.Addr().String(), Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	require.NoError(t, err)
	_, err = oc.ParentOf(t.Context(), "ses_1")
	require.Error(t, err)
	require.Less(t, len(err.Error()), 1000)
}

// An id is part of paths, errors and logs.
func TestHostileID(t *testing.T) {
	for _, id := range []string{"ses_\x1b[31m", "ses/../../global/dispose", "ses_" + strings.Repeat("x", 1<<20)} {
		body, _ := json.Marshal(map[string]string{"id": id, "directory": "/d"})
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"POST /session": always(200, string(body))}}
		made, err := over(t, s, Config{}).Create(t.Context(), subagent.CreateRequest{Agent: "build", Task: "bg_1"})
		require.Error(t, err, "%.40q", made)
	}
}

// A rule of the host that denies a tool holds for a launch that asks for it.
func TestToolsDoNotOverrule(t *testing.T) {
	rules := rulesOf([]Rule{{"bash", "*", "deny"}}, map[string]bool{"bash": true})
	last := rules[len(rules)-1]
	require.Equal(t, "deny", last.Action, "%v: the last rule that matches holds", rules)
}

// Definite refusals of a create need no search for what was made.
func TestRefusedCreateMadeNothing(t *testing.T) {
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"POST /session": always(400, `{"_tag":"BadRequest"}`)}}
	_, err := over(t, s, Config{}).Create(t.Context(), subagent.CreateRequest{Agent: "build", Task: "bg_1", Parent: "ses_p"})
	require.Error(t, err)
	require.Zero(t, s.count("GET /session/ses_p/children"))
}

// Deep nesting, nulls and wrong types in events panic nothing.
func TestHostileEvents(t *testing.T) {
	h := child(t)
	for _, w := range heardOurs {
		h.hear(event{Type: w.kind, Properties: json.RawMessage(w.properties)})
	}
	deep := strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000)
	for kind := range meanings {
		for _, p := range []string{``, `null`, `[]`, `7`, `"x"`, `{"sessionID":"ses_1"}`, `{"sessionID":"ses_1","part":null,"info":null,"error":null,"status":null,"tool":null,"questions":null}`,
			`{"sessionID":"ses_1","part":{"type":"tool","messageID":"msg_2","state":{"input":` + deep + `}}}`,
			`{"sessionID":"ses_1","questions":[null],"patterns":[null],"error":{"data":null}}`, `{"sessionID":"ses_1","part":{"type":"text","metadata":{"subagent":[[]]}}}`} {
			h.hear(event{Type: kind, Properties: json.RawMessage(p)})
		}
	}
}

// TestRefusals has a redirect without a Location, which net/http does not follow
// anyway. This one it would.
func TestRedirect(t *testing.T) {
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
		"GET /session/ses_1": func(*http.Request) (*http.Response, error) {
			res := reply(307, "")
			res.Header.Set("Location", "http://elsewhere/session/ses_2")
			return res, nil
		},
	}}
	_, err := over(t, s, Config{Password: "hunter2"}).ParentOf(t.Context(), "ses_1")
	require.ErrorContains(t, err, "refused")
	require.Zero(t, s.count("GET /session/ses_2"))
}
