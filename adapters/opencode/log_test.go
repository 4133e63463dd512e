package opencode

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) with(word string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// worker has a child work in a scene that is logged, until the test is over.
func worker(t *testing.T, s *scene, l *lines) (*Client, *subagent.BackgroundManager, subagent.Task) {
	t.Helper()
	return launchedBy(t, over(t, s, Config{Logger: l.logger()}))
}

// An hour in which no answer can be read is one line, and so is the next hour if one was
// read between them.
func TestOutageIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		s, l := &scene{}, &lines{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
			"GET /session/ses_1/message": func(*http.Request) (*http.Response, error) {
				if works.Load() {
					return reply(200, "[]"), nil
				}
				return reply(503, "x"), nil
			},
		}
		oc, _, _ := worker(t, s, l)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Greater(t, s.count("GET /session/ses_1/message"), 100)
		require.Equal(t, 1, l.with("an answer was not read"))
		works.Store(true)
		_, err := oc.host.Output(t.Context(), "ses_1", "m")
		require.NoError(t, err)
		works.Store(false)
		_, _ = oc.host.Output(t.Context(), "ses_1", "m")
		synctest.Wait()
		require.Equal(t, 2, l.with("an answer was not read"))
	})
}

// A child that is cancelled in the middle of a look at its answer is no outage.
func TestCancelIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &scene{}, &lines{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
			"GET /session/ses_1/message": func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			},
		}
		_, m, task := worker(t, s, l)
		m.HandleEvent(subagent.SessionEvent{Session: "ses_1", Kind: subagent.EventBusy})
		m.HandleEvent(subagent.SessionEvent{Session: "ses_1", Kind: subagent.EventIdle})
		synctest.Wait()
		require.Equal(t, 1, s.count("GET /session/ses_1/message"), "it is looked at")
		_, _ = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		synctest.Wait()
		require.Zero(t, l.with("context canceled"), "%s", &l.text)
	})
}

// A server that says nothing at all is one: that a call took too long calls nothing off.
func TestStalledServerIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &scene{}, &lines{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := over(t, s, Config{Logger: l.logger()}).host.Output(ctx, "ses_1", "m")
		require.Error(t, err)
		require.Equal(t, 1, l.with("an answer was not read"))
	})
}

// A stream that does not last is one line, until there was a good one.
func TestStreamOutageIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lasts atomic.Bool
		s, l := &scene{}, &lines{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){
			"GET /global/event": func(*http.Request) (*http.Response, error) {
				if lasts.Load() { // and beats once, before it is silent
					time.Sleep(silence / 2)
					lasts.Store(false)
					res := reply(200, "")
					res.Body = &beat{}
					return res, nil
				}
				return reply(200, "data: {}\n\n"), nil
			},
		}
		oc := over(t, s, Config{Logger: l.logger()})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		go func() { _ = oc.Run(ctx, func(subagent.SessionEvent) {}) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Greater(t, s.count("GET /global/event"), 100)
		require.Equal(t, 1, l.with(noStream))
		lasts.Store(true)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		require.Equal(t, 2, l.with(noStream))
		<-ctx.Done()
		synctest.Wait()
		require.Equal(t, 2, l.with("level="), "and nothing else:\n%s", &l.text)
	})
}

// beat is a stream that lasts, and then is cut.
type beat struct{ beats int }

func (b *beat) Read(p []byte) (int, error) {
	time.Sleep(silence / 2)
	if b.beats++; b.beats > 5 {
		return 0, context.DeadlineExceeded
	}
	return copy(p, "data: {}\n\n"), nil
}

func (b *beat) Close() error { return nil }

// Who is not let in hears so, also after another outage.
func TestNotLetInIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		s, l := &scene{}, &lines{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /global/event": func(*http.Request) (*http.Response, error) {
			if down.Swap(false) {
				return reply(503, ""), nil
			}
			return reply(401, ""), nil
		}}
		err := over(t, s, Config{Logger: l.logger()}).Run(t.Context(), func(subagent.SessionEvent) {})
		require.ErrorContains(t, err, "status 401")
		require.Equal(t, 1, l.with("status 503"))
		require.Equal(t, 1, l.with("does not let in"))
	})
}

// Each directory that can't be loaded is one line, as is each session with a message
// that can't be understood.
func TestOutagesAreOfTheirOwn(t *testing.T) {
	s, l := &scene{}, &lines{}
	bad := always(200, `[{"info":{"role":"assistant","time":{"created":"yesterday"}}}]`)
	s.answer = map[string]func(*http.Request) (*http.Response, error){
		"GET /config/providers": always(500, "x"), "GET /permission": always(500, "x"), "GET /session/ses_1/message": bad, "GET /session/ses_2/message": bad,
	}
	oc := over(t, s, Config{Logger: l.logger()})
	oc.host.sessions["ses_1"] = &session{dir: "/a", turn: newTurn("m")}
	for range 3 {
		oc.host.warmUp(t.Context(), "/a")
		oc.host.warmUp(t.Context(), "/b")
		oc.host.resume(t.Context())
		for _, id := range []subagent.SessionID{"ses_1", "ses_2"} {
			_, err := oc.host.Output(t.Context(), id, "m")
			require.NoError(t, err)
		}
	}
	require.Equal(t, 2, l.with("a directory was not loaded"))
	require.Equal(t, 1, l.with("what is asked was not read"))
	require.Equal(t, 1, l.with("an answer can't be read\" error=\"prompt ses_1"))
	require.Equal(t, 1, l.with("an answer can't be read\" error=\"prompt ses_2"))
}
