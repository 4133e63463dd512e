package opencode_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

const fakePassword = "pa55 & wörd"

func withPassword(cfg *opencode.Config) { cfg.Password = fakePassword }

// Nobody but the server is ever called, whatever it says, and nobody else hears the
// password.
func TestNetRedirectsAreRefused(t *testing.T) {
	for _, op := range []string{"events", "get", "create", "prompt", "status", "messages", "abort", "delete", "permissions"} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.password = fakePassword
				f.faults(once(op, 1, redirect(code)))
				f.streamFaults(always(cutAfter(5))) // often, so that what is asked after a gap is asked
				w := newNetWorld(t, f, withPassword)
				id := w.launch("work 1m; say hello") // longer than the longest pause between streams
				w.settle()
				time.Sleep(time.Minute)
				_ = w.m.Close()
				w.leave()
				require.True(t, w.ended(id).Status.Terminal())
				require.Equal(t, []string{fakeHost}, f.net.addresses())
				require.Empty(t, f.leaked)
				require.Positive(t, f.called(op), op)
			})
		}
	}
}

// A server that does not know the client ends Run, which says so, and fails what is
// launched. The password is in no error and no line of the log.
func TestNetWrongPassword(t *testing.T) {
	for _, code := range []int{401, 403} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.password = fakePassword
			said := instead(code, "text/plain", "not you, "+fakePassword)
			f.faults(func(string, int) fault { return said })
			var log bytes.Buffer
			w := newNetWorld(t, f, withPassword, func(cfg *opencode.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			time.Sleep(time.Minute)
			err := <-w.ran
			w.ran <- err
			require.Error(t, err)
			require.Equal(t, 1, f.called("events"))
			_, refused := w.m.Launch(t.Context(), subagent.LaunchInput{Parent: subagent.SessionID(w.parent.id), Agent: "build", Prompt: "x"})
			require.ErrorIs(t, refused, subagent.ErrLineage)
			for _, text := range []string{err.Error(), refused.Error(), log.String()} {
				require.NotEmpty(t, text)
				require.NotContains(t, text, "pa55")
			}
			w.close()
		})
	}
}

// The password that is asked for is the one that is sent.
func TestNetPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.password = fakePassword
		newNetWorld(t, f, withPassword).goWell()
	})
}

// A reply of a gigabyte is given up, and never held: not by one call, nor by many.
func TestNetMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("moves gigabytes through a pipe")
	}
	const children = 10 // more than calls that look after single sessions at a time
	const pages = 3     // that are read of a conversation until one holds a single message
	for name, c := range map[string]struct {
		calls  func(string, int) fault
		stream func(int) streamFault
	}{
		"messages":       {once("messages", pages*children, httpFaults["endless"]), nil},
		"list":           {once("messages", pages*children, httpFaults["endless list"]), nil},
		"status":         {once("status", 8, httpFaults["endless"]), nil},
		"create":         {once("create", children, httpFaults["endless"]), nil},
		"refused":        {once("prompt", children, endlessError), nil},
		"permissions":    {once("permissions", 8, httpFaults["endless list"]), nil},
		"line of stream": {nil, func(nth int) streamFault { return map[bool]streamFault{true: monstrous}[nth <= 3] }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.faults(c.calls)
				if c.stream != nil {
					f.streamFaults(c.stream)
				}
				peak.Store(0)
				watched.Store(true)
				defer watched.Store(false)
				before := heap()
				w := newNetWorld(t, f)
				for range children {
					w.launch("work 1m; say hello")
				}
				w.settle()
				w.close()
				w.check(false)
				require.Less(t, peak.Load()-before, int64(maxGrowth))
			})
		})
	}
}

// maxGrowth is what a client may hold in memory for replies that it gives up: one large
// one, and of each other what it takes to see that it is large, twice while that grows.
const maxGrowth = 64 << 20

// endlessError is an error whose text does not end.
func endlessError(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.WriteHeader(500)
	writeMuch(func(b []byte) error { _, err := w.Write(b); return err }, strings.Repeat("x", 64), huge)
}
