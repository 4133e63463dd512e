package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

func statusesOf(t *testing.T, body string, of ...subagent.SessionID) (map[subagent.SessionID]subagent.HostStatus, error) {
	t.Helper()
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/status": always(200, body)}}
	return over(t, s, Config{}).host.Statuses(t.Context(), of)
}

// Many sessions of others that wait to try again, each with a long word why, hide no
// session of ours.
func TestLongStatuses(t *testing.T) {
	all := map[string]any{"ses_mine": map[string]any{"type": "busy"}}
	for i := range 600 {
		all[fmt.Sprint("ses_", i)] = map[string]any{"type": "retry", "attempt": 3, "message": strings.Repeat("<html>", 1200), "next": 1}
	}
	body, _ := json.Marshal(all)
	require.Greater(t, len(body), 4*maxReply)
	found, err := statusesOf(t, string(body), "ses_mine", "ses_7", "ses_rests")
	require.NoError(t, err, "%d bytes", len(body))
	require.Equal(t, map[subagent.SessionID]subagent.HostStatus{"ses_mine": subagent.HostBusy, "ses_7": subagent.HostRetrying, "ses_rests": subagent.HostIdle}, found, "and nobody else's is kept")
}

// An answer that is not whole says nothing: who is not in it would be taken for one that
// rests.
func TestStatusesAreWholeOrNone(t *testing.T) {
	const busy = `"ses_1":{"type":"busy"}`
	for name, body := range map[string]string{
		"nothing": "", "null": "null", "a list": "[]", "a number": "7", "a page": "<html>",
		"cut at once": "{", "cut after one": "{" + busy, "cut after a comma": "{" + busy + ",", "cut in one": "{" + busy[:15],
		"no status": `{"ses_1":7}`, "followed by more": "{" + busy + "}{}", "a list's end": "{" + busy + "]",
	} {
		_, err := statusesOf(t, body, "ses_1", "ses_2")
		var said *subagent.SessionError
		require.ErrorAs(t, err, &said, name)
		require.Equal(t, subagent.ClassUnavailable, said.Class, name)
		require.ErrorContains(t, err, errForeign.Error(), name)
		require.NotContains(t, err.Error(), "nil", name)
	}
}

// A line that is cut in an answer is told as what it is, and is not the server's word.
func TestStatusesOfACutLine(t *testing.T) {
	for _, text := range []string{"", "{", `{"ses_1":{"type":"bu`, `{"ses_1":{"type":"busy"}`, `{"ses_1":{"type":"busy"}}`} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/status": func(*http.Request) (*http.Response, error) {
			res := reply(200, "")
			res.Body = io.NopCloser(io.MultiReader(strings.NewReader(text), iotest.ErrReader(errors.New("connection reset"))))
			return res, nil
		}}}
		_, err := over(t, s, Config{}).host.Statuses(t.Context(), []subagent.SessionID{"ses_1"})
		require.EqualError(t, err, "status: unavailable: connection reset", text)
	}
}

// What is read has an end: of one session, and of all.
func TestStatusesAreBounded(t *testing.T) {
	for name, c := range map[string]struct{ begin, piece, rule string }{
		"one status":  {`{"ses_1":{"type":"retry","message":"`, strings.Repeat("x", 1<<10), "1048576 bytes for one session"},
		"blanks":      {`{`, strings.Repeat(" ", 1<<10), "1048576 bytes for one session"},
		"all of them": {`{"ses_0":{"type":"busy"}`, `,"ses_1":{"type":"retry","message":"` + strings.Repeat("x", 1<<19) + `"}`, "33554432 bytes"},
	} {
		s := &scene{}
		body := &endless{begin: c.begin, piece: c.piece}
		s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/status": func(*http.Request) (*http.Response, error) {
			res := reply(200, "")
			res.Body = body
			return res, nil
		}}
		_, err := over(t, s, Config{}).host.Statuses(t.Context(), []subagent.SessionID{"ses_1"})
		require.ErrorIs(t, err, errTooLarge, name)
		require.ErrorContains(t, err, c.rule, name)
	}
}

// endless is a body that goes on until it is no longer read, and at most for 100 MiB.
type endless struct {
	begin, piece string
	left         string
	read         int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == "" {
		e.left, e.begin = e.begin+e.piece, ""
	}
	n := copy(p, e.left)
	e.left = e.left[n:]
	if e.read += n; e.read > 100<<20 {
		panic("read without end")
	}
	return n, nil
}

func (e *endless) Close() error { return nil }

// A directory that hangs leaves the others their say, within the time of the poll.
func TestStatusesBesideAHangingDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"GET /session/status": func(r *http.Request) (*http.Response, error) {
				if r.URL.Query().Get("directory") == "/b" {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return reply(200, `{"ses_9":{"type":"busy","message":{"code":1}}}`), nil
			},
		}}
		oc := over(t, s, Config{})
		oc.host.sessions["ses_1"], oc.host.sessions["ses_2"] = &session{dir: "/a"}, &session{dir: "/b"}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		all, err := oc.host.Statuses(ctx, []subagent.SessionID{"ses_1", "ses_2"})
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "too late to count")
		require.Equal(t, map[subagent.SessionID]subagent.HostStatus{"ses_1": subagent.HostIdle, "ses_2": subagent.HostUnreachable}, all)
	})
}

// Nor does a session that was not made here, and can't be read, cost all others theirs.
func TestStatusesBesideAHangingSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"GET /session/ses_1": hang, "GET /session/ses_3": hang, "GET /session/status": always(200, `{"ses_2":{"type":"busy"}}`),
		}}
		oc := over(t, s, Config{})
		oc.host.sessions["ses_2"] = &session{dir: "/a"}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		all, err := oc.host.Statuses(ctx, []subagent.SessionID{"ses_1", "ses_2", "ses_3"})
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "too late to count")
		require.Equal(t, map[subagent.SessionID]subagent.HostStatus{"ses_1": subagent.HostUnreachable, "ses_2": subagent.HostBusy, "ses_3": subagent.HostUnreachable}, all)
	})
}

// However many such sessions there are, time is left to ask for those that are known.
func TestStatusesBesideManyHangingSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/status": func(*http.Request) (*http.Response, error) {
			time.Sleep(100 * time.Millisecond)
			return reply(200, `{"ses_known":{"type":"busy"}}`), nil
		}}}
		want := map[subagent.SessionID]subagent.HostStatus{"ses_known": subagent.HostBusy}
		for i := range 20 {
			id := subagent.SessionID(fmt.Sprint("ses_", i))
			s.answer["GET /session/"+string(id)] = hang
			want[id] = subagent.HostUnreachable
		}
		oc := over(t, s, Config{})
		oc.host.sessions["ses_known"] = &session{dir: "/a"}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		all, err := oc.host.Statuses(ctx, slices.Sorted(maps.Keys(want)))
		require.NoError(t, err)
		require.NoError(t, ctx.Err())
		require.Equal(t, want, all)
	})
}
