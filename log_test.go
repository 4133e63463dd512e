package subagent

import (
	"context"
	"errors"
	"fmt"
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

// logged is a handler that keeps what it gets: the level, the message, the attributes.
type logged struct{ lines []string }

func (h *logged) Enabled(context.Context, slog.Level) bool { return true }
func (h *logged) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *logged) WithGroup(string) slog.Handler            { return h }
func (h *logged) Handle(_ context.Context, r slog.Record) error {
	s := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "task" && a.Key != "notification" || a.Value.String() == "" {
			s += " " + a.String()
		}
		return true
	})
	h.lines = append(h.lines, s)
	return nil
}

// A line says of what agent the task is, and of one that did not go well what kind of
// error it was; there is a line for each delivery that failed. No line holds a prompt,
// a result, the text of a notification or that of an error.
func TestLogLines(t *testing.T) {
	const prompt, result, text, told = "PROMPT", "RESULT", "TEXT", "TOLD"
	for name, c := range map[string]struct {
		err  error
		want []string // the last line of the task, and those of the deliveries
	}{
		"completed": {nil, []string{"INFO task parent=p agent=worker key=model:m/x attempt=1 from=running to=completed"}},
		"failed": {&SessionError{Op: "prompt", Class: ClassQuota, Err: errors.New(told)}, []string{
			"WARN task parent=p agent=worker key=model:m/x attempt=1 from=stopping to=failed reason=session_error error=quota",
		}},
		"interrupted": {errors.New(told), []string{
			"WARN task parent=p agent=worker key=model:m/x attempt=1 from=stopping to=interrupted reason=prompt_failed error=*errors.errorString",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, box := &logged{}, &answering{answer: func(_ Notification, call int) (Delivery, error) {
					return []Delivery{Unknown, Busy, Unknown, Unknown, Accepted}[call-1], []error{errors.New(told), nil, nil, hostileError{}, nil}[call-1]
				}}
				m := newManager(t, &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) {
					return Result{Text: result}, c.err
				}}, Config{Logger: slog.New(log), Notifier: box, Mailbox: MailboxPolicy{Render: func(Notification) string { return text }}})
				in := work("p")
				in.Model, in.Prompt = "m/x", prompt
				launch(t, m, in)
				pass(time.Hour)
				require.Len(t, box.all(), 5)
				want := append(c.want,
					"WARN notification not delivered parent=p try=1 error=*errors.errorString",
					"WARN notification not delivered parent=p try=3",
					"WARN notification not delivered parent=p try=4 error=*subagent.PanicError",
				)
				require.Greater(t, len(log.lines), len(want))
				last := log.lines[len(log.lines)-len(want):]
				require.Equal(t, want, last)
				for _, secret := range []string{prompt, result, text, told} {
					require.NotContains(t, strings.Join(log.lines, "\n"), secret)
				}
			})
		})
	}
}

// An error that panics when it is looked at has a type all the same.
func TestErrorKind(t *testing.T) {
	for want, err := range map[string]error{
		"*subagent.SessionError": typedNil(),
		"subagent.hostileError":  hostileError{},
		"rate_limited":           fmt.Errorf("later: %w", &SessionError{Class: ClassRateLimited}),
		"*errors.errorString":    errors.New("told"),
	} {
		require.Equal(t, want, errorKind(err))
	}
}

// A call that comes back when Close has given it up is not logged any more.
func TestNothingIsLoggedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, log := make(chan struct{}), &logged{}
		box := NotifierFunc(func(context.Context, Notification) (Delivery, error) { <-let; return Unknown, nil })
		m := newManager(t, timed(), Config{Logger: slog.New(log), Notifier: box})
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.ErrorIs(t, m.Close(), ErrUnstopped)
		n := len(log.lines)
		close(let)
		pass(time.Minute)
		require.Len(t, log.lines, n)
	})
}

// A log that is overrun says how many lines it lost, and where.
func TestLogLinesDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, log := make(chan struct{}), &logged{}
		m := newManager(t, timed(), Config{Logger: slog.New(slow{log, let}), Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}})
		for range 4000 { // three lines each, and one is out
			launch(t, m, taking("p", "1s"))
		}
		pass(time.Minute)
		close(let)
		synctest.Wait()
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.Len(t, log.lines, 1+maxLines+1+3)
		require.Equal(t, "WARN log lines dropped lines=1999", log.lines[1+maxLines])
	})
}

// slow is a log that waits.
type slow struct {
	*logged
	let chan struct{}
}

func (h slow) Handle(ctx context.Context, r slog.Record) error {
	<-h.let
	return h.logged.Handle(ctx, r)
}
