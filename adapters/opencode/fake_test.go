package opencode_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// visitor calls a fake without the adapter.
type visitor struct {
	t    *testing.T
	f    *fakeOpencode
	http *http.Client
}

func newVisitor(t *testing.T, f *fakeOpencode) *visitor {
	transport := f.net.transport()
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{t, f, &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// try makes a call and returns what came back.
func (v *visitor) try(method, path, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.f.url()+path, strings.NewReader(body))
	require.NoError(v.t, err)
	resp, err := v.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), err
}

func (v *visitor) call(code int, method, path, body string) string {
	v.t.Helper()
	got, text, err := v.try(method, path, body)
	require.NoError(v.t, err)
	require.Equal(v.t, code, got, text)
	return text
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

// create opens a session and returns its id.
func (v *visitor) create(body string) string {
	v.t.Helper()
	return decode[struct{ ID string }](v.t, v.call(200, "POST", "/session?directory=/d", body)).ID
}

func (v *visitor) prompt(id, text string) {
	v.t.Helper()
	body, err := json.Marshal(fields{"parts": []any{fields{"type": "text", "text": text}}})
	require.NoError(v.t, err)
	v.call(204, "POST", "/session/"+id+"/prompt_async", string(body))
}

// said is a message as a client reads it.
type said struct {
	Info struct {
		ID, Role, ParentID, Finish string
		Time                       struct{ Completed int64 }
		Error                      *struct{ Name string }
	}
	Parts []struct {
		Type, Text string
		Metadata   fields
	}
}

func (v *visitor) messages(id, query string) []said {
	v.t.Helper()
	return decode[[]said](v.t, v.call(200, "GET", "/session/"+id+"/message?"+query, ""))
}

// told is what a stream says of one session, twins left out.
func (v *visitor) listen(ctx context.Context) func(session string) []string {
	req, err := http.NewRequestWithContext(ctx, "GET", v.f.url()+"/global/event", nil)
	require.NoError(v.t, err)
	resp, err := (&http.Client{Transport: v.http.Transport}).Do(req)
	require.NoError(v.t, err)
	var all []fields
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e struct{ Payload fields }
			if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok && json.Unmarshal(data, &e) == nil {
				all = append(all, e.Payload)
			}
		}
	}()
	return func(session string) (told []string) {
		<-done
		for _, e := range all {
			props, _ := e["properties"].(fields)
			id, _ := props["sessionID"].(string)
			if id == session && e["type"] != "sync" {
				told = append(told, short(e["type"].(string), props))
			}
		}
		return told
	}
}

// short is the least that tells events apart.
func short(kind string, props fields) string {
	at := func(path ...string) string {
		var v any = props
		for _, name := range path {
			m, _ := v.(fields)
			v = m[name]
		}
		s, _ := v.(string)
		return s
	}
	kind = strings.TrimPrefix(strings.TrimPrefix(kind, "session."), "message.")
	detail := at("status", "type") + at("info", "role") + at("part", "type") + at("error", "name") + at("delta")
	if finish := at("info", "finish"); finish != "" {
		detail += "." + finish
	}
	return strings.TrimSpace(kind + " " + detail + " " + at("part", "state", "status"))
}
