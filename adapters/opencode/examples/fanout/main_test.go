package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// stub is a server whose sessions answer as soon as they are prompted, children with
// finish and text, after a time in which their model is tried again.
type stub struct {
	finish, text string
	retries      bool
	deaf         bool // the parent, which is the first session, can't be written to

	mu       sync.Mutex
	dirs     []string
	messages map[string]string // by session
	retry    map[string]bool
	events   *io.PipeWriter
}

func (s *stub) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch at := r.Method + " " + path[len(path)-1]; {
	case at == "POST session":
		s.dirs = append(s.dirs, r.URL.Query().Get("directory"))
		return reply(200, fmt.Sprintf(`{"id":"ses_%d","directory":"/d"}`, len(s.dirs)-1))
	case at == "POST prompt_async":
		return s.prompted(path[1], r.Body)
	case at == "GET message":
		return reply(200, "["+s.messages[path[1]]+"]")
	case at == "GET status":
		all := map[string]any{}
		for id := range s.retry {
			all[id] = map[string]string{"type": "retry"}
		}
		body, _ := json.Marshal(all)
		return reply(200, string(body))
	case at == "GET event":
		body, w := io.Pipe()
		s.events = w
		context.AfterFunc(r.Context(), func() { body.Close() })
		return &http.Response{StatusCode: 200, Body: body}, nil
	case at == "GET permission", at == "GET question":
		return reply(200, "[]")
	}
	return reply(200, `{"id":"ses_0","directory":"/d"}`)
}

// prompted is called under mu.
func (s *stub) prompted(id string, body io.Reader) (*http.Response, error) {
	if id == "ses_0" && s.deaf {
		return reply(500, `{"name":"UnknownError","data":{"message":"no disk"}}`)
	}
	var p struct{ Parts json.RawMessage }
	_ = json.NewDecoder(body).Decode(&p)
	finish, text := s.finish, s.text
	if id == "ses_0" {
		finish, text = "stop", "I see"
	}
	answer := fmt.Sprintf(`{"info":{"id":"msg_u","role":"user","agent":"a","model":{"providerID":"p","modelID":"m"}},"parts":%s},
		{"info":{"id":"msg_a","role":"assistant","finish":%q,"time":{"created":1,"completed":2}},"parts":[{"type":"text","text":%q}]}`, p.Parts, finish, text)
	if !s.retries || id == "ses_0" {
		s.messages[id] = answer
		return reply(204, "")
	}
	s.retry[id] = true
	go s.try(id, answer)
	return reply(204, "")
}

// try tells twice of a model that is busy, before it answers.
func (s *stub) try(id, answer string) {
	for range 2 {
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		w := s.events
		s.mu.Unlock()
		fmt.Fprintf(w, "data: {\"payload\":{\"type\":\"session.status\",\"properties\":{\"sessionID\":%q,\"status\":{\"type\":\"retry\",\"message\":\"too busy\"}}}}\n\n", id)
	}
	time.Sleep(5 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.retry, id)
	s.messages[id] = answer
}

func reply(status int, body string) (*http.Response, error) {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// fanOut runs the example over a stub, for an hour at most.
func fanOut(t *testing.T, s *stub) (out string, err error) {
	t.Helper()
	s.messages, s.retry = map[string]string{}, map[string]bool{}
	var said bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	err = run(ctx, &said, options{url: "http://h", dir: "here", agent: "build", limit: 2, questions: []string{"one?", "two?"}, transport: s})
	synctest.Wait()
	return said.String(), err
}

func TestFanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stub{finish: "stop", text: "yes"}
		out, err := fanOut(t, s)
		require.NoError(t, err)
		require.Contains(t, out, "question 2 completed after")
		require.Contains(t, out, "[assistant]\nI see")
		here, err := filepath.Abs("here")
		require.NoError(t, err)
		require.Equal(t, here, s.dirs[0], "not what the server takes for it")
	})
}

// A model that is tried again is shown, once.
func TestFanOutShowsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := fanOut(t, &stub{finish: "stop", text: "yes", retries: true})
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(out, "question 1 waits to call its model again: too busy\n"), out)
		require.Contains(t, out, "question 1 completed after")
	})
}

// Who waits for children that have all failed is told so by the exit code.
func TestFanOutWithoutSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := fanOut(t, &stub{finish: "length", text: "It is"})
		require.ErrorContains(t, err, "no child has completed")
		require.Contains(t, out, "question 1 failed after")
		require.Contains(t, out, "[assistant]\nI see", "the parent is told all the same")
	})
}

// A parent that can't be told is shown, and is an error when it is given up.
func TestFanOutToADeafParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := fanOut(t, &stub{finish: "stop", text: "yes", deaf: true})
		require.ErrorContains(t, err, "the parent can't be told: notify ses_0: unavailable: status 500: no disk")
		require.Equal(t, 1, strings.Count(out, "can't be told yet: notify ses_0: unavailable: status 500: no disk"), out)
	})
}
