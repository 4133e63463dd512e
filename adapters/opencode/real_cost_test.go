package opencode_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// counting counts the requests of a client.
type counting struct{ requests atomic.Int64 }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	return http.DefaultTransport.RoundTrip(r)
}

// What the manager and the client add to a child's turn: HTTP calls beyond the two that
// make it, at most 2; and time, against the same calls made by hand in the same run.
// Time is printed and not judged here: a busy machine is not the client's fault.
func TestRealAddedCost(t *testing.T) {
	const turns, script = 20, "SCRIPT: sleep 250ms; say done" // a model that is faster than most
	s := shared(t)
	parent := s.createSession(s.newDir(t), nil)
	count := &counting{}
	m, _ := manage(t, s, opencode.Config{Transport: count, Blocking: subagent.BlockingConfig{Poll: 3 * time.Second}}, subagent.Config{})
	hand := byHand(t, s)
	wait(t, m, launch(t, m, parent, script)) // the first turn in a directory is slow
	hand.turn(parent, script)

	var ours, theirs []time.Duration
	before := count.requests.Load()
	for i := range 2 * turns {
		began := time.Now()
		if i%4 == 1 || i%4 == 2 { // neither always comes first: the server works on for a while
			require.Equal(t, "done", wait(t, m, launch(t, m, parent, script)).Result.Text)
			ours = append(ours, time.Since(began))
		} else {
			require.Equal(t, "done", hand.turn(parent, script))
			theirs = append(theirs, time.Since(began))
		}
	}
	extra := float64(count.requests.Load()-before)/turns - 2
	slices.Sort(ours)
	slices.Sort(theirs)
	t.Logf("one turn: %v, by hand %v: ratio %.3f (target 1.05); HTTP calls beyond create and prompt: %.2f (target 2)",
		ours[turns/2], theirs[turns/2], float64(ours[turns/2])/float64(theirs[turns/2]), extra)
	require.LessOrEqual(t, extra, 2.0)
}

// handmade makes the calls of a turn as a program would that is written for it.
type handmade struct {
	*server
	idle chan string // ids of sessions that have come to rest
}

func byHand(t *testing.T, s *server) *handmade {
	h := &handmade{server: s, idle: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/global/event", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	over := make(chan struct{})
	go func() {
		defer close(over)
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var e struct {
				Payload struct {
					Type       string
					Properties struct{ SessionID string }
				}
			}
			if ok && json.Unmarshal([]byte(data), &e) == nil && e.Payload.Type == "session.idle" {
				h.idle <- e.Payload.Properties.SessionID
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		res.Body.Close()
		<-over
	})
	return h
}

func (h *handmade) turn(parent rawSession, script string) string {
	var child rawSession
	h.do(http.MethodPost, "/session", parent.Directory, object{"title": "by hand", "parentID": parent.ID}, &child)
	h.do(http.MethodPost, "/session/"+child.ID+"/prompt_async", child.Directory,
		object{"agent": "build", "parts": []object{{"type": "text", "text": script}}}, nil)
	for id := range h.idle {
		if id == child.ID {
			break
		}
	}
	var messages []rawMessage
	h.do(http.MethodGet, "/session/"+child.ID+"/message", child.Directory, nil, &messages)
	return messages[len(messages)-1].text()
}

// do is a call over a connection that is kept, as the client's are.
func (h *handmade) do(method, path, dir string, body, answer any) {
	h.t.Helper()
	sent, err := json.Marshal(body)
	require.NoError(h.t, err)
	req, err := http.NewRequest(method, h.URL+path+"?directory="+url.QueryEscape(dir), bytes.NewReader(sent))
	require.NoError(h.t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	require.NoError(h.t, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	require.NoError(h.t, err)
	if answer != nil {
		require.NoError(h.t, json.Unmarshal(data, answer), "%s", data)
	}
}
