package subagent

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// onTransition is a log handler that is called with where a task went, and why.
type onTransition func(to, reason string)

func (f onTransition) Enabled(context.Context, slog.Level) bool { return true }
func (f onTransition) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f onTransition) WithGroup(string) slog.Handler            { return f }
func (f onTransition) Handle(_ context.Context, r slog.Record) error {
	said := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		said[a.Key] = a.Value.String()
		return true
	})
	f(said["to"], said["reason"])
	return nil
}

// A log that blocks holds up no task, no deadline and no Close, which lists it; what
// happened meanwhile is logged afterwards, in order.
func TestLogThatBlocksHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		var logged []string
		handler := onTransition(func(to, _ string) {
			<-let
			logged = append(logged, to)
		})
		m := newManager(t, timed(), Config{
			Logger: slog.New(handler), Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: time.Second},
		})
		runs, waits := launch(t, m, taking("p", "5s")), launch(t, m, taking("p", "5s"))
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, runs.ID).Status)
		require.ErrorIs(t, get(t, m, waits.ID).Reason, QueueTimeout)
		began := time.Now()
		var unstopped *UnstoppedError
		require.ErrorAs(t, m.Close(), &unstopped)
		require.Equal(t, []UnstoppedCall{{Op: "log"}}, unstopped.Calls)
		require.LessOrEqual(t, time.Since(began), 20*time.Second)
		require.Empty(t, logged)
		close(let)
		synctest.Wait()
		require.Equal(t, []string{"starting", "running", "failed", "completed"}, logged)
	})
}

// The goroutine of the timer, which all deadlines wait for, calls no log.
func TestTimerCallsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stack atomic.Value // of the line that the timer gave rise to
		handler := onTransition(func(_, reason string) {
			if reason == string(QueueTimeout) {
				stack.Store(string(debug.Stack()))
			}
		})
		m := newManager(t, timed(), Config{
			Logger: slog.New(handler), Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: time.Second},
		})
		launch(t, m, taking("p", "5s"))
		launch(t, m, taking("p", "5s"))
		pass(time.Minute)
		require.Contains(t, stack.Load(), "Handle")
		require.False(t, strings.Contains(stack.Load().(string), "onTimer"), stack.Load())
	})
}
