package subagent_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// hostileError panics in every method that errors.Is and errors.As look for.
type hostileError struct{}

func (hostileError) Error() string { panic("Error") }
func (hostileError) Is(error) bool { panic("Is") }
func (hostileError) As(any) bool   { panic("As") }

var processCases = map[string]func(*testing.T){
	"create returns a typed nil": func(t *testing.T) {
		fails(t, &reviewClient{create: func(context.Context, subagent.CreateRequest) (subagent.SessionID, error) {
			var err *subagent.SessionError // the classic: declared as the concrete type, returned as error
			return "", err
		}})
	},
	"prompt returns a typed nil": func(t *testing.T) {
		fails(t, &reviewClient{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			var err *subagent.SessionError
			return subagent.Result{Text: "ok"}, err
		}})
	},
	"func returns a typed nil": func(t *testing.T) {
		fails(t, subagent.Func(func(context.Context, subagent.Turn) (subagent.Result, error) {
			var err *subagent.SessionError
			return subagent.Result{Text: "ok"}, err
		}))
	},
	"prompt returns an error whose As panics": func(t *testing.T) {
		fails(t, &reviewClient{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			return subagent.Result{}, hostileError{}
		}})
	},
	"release returns an error whose Is panics": func(t *testing.T) {
		fails(t, &reviewClient{release: func(context.Context, subagent.SessionID) error { return hostileError{} }})
	},
	// A configuration that New accepts. The second pause overflows, and rand.N panics
	// under the lock in the goroutine of the delivery.
	"backoff overflows": func(t *testing.T) {
		box := &told{answer: func(subagent.Notification, int) (subagent.Delivery, error) {
			return subagent.Unknown, errors.New("no line")
		}}
		m := reviewNew(t, &reviewClient{}, subagent.Config{Notifier: box, Mailbox: subagent.MailboxPolicy{
			Backoff: 1<<62 + 1, BackoffMax: math.MaxInt64,
		}})
		reviewLaunch(t, m, reviewAsks("p", "1s"))
		reviewPass(1<<62 + time.Hour)
		_ = m.Close()
	},
}

// fails runs one task of a client to its end, whatever that is, and closes.
func fails(t *testing.T, c subagent.SessionClient) {
	m := reviewNew(t, c, subagent.Config{})
	task := reviewLaunch(t, m, reviewAsks("p", "work"))
	reviewPass(time.Minute)
	require.True(t, reviewGet(t, m, task.ID).Status.Terminal())
	_ = m.Close()
}

// Guarantee 10 says that a panic in the host's code fails one task and nothing
// else. Methods of an error are the host's code too: failure and capabilities.release
// call errors.As and errors.Is outside guard, in goroutines of the manager.
func TestReviewErrorsOfTheHostTakeTheProcessDown(t *testing.T) {
	for name := range processCases {
		t.Run(name, func(t *testing.T) { survives(t, name) })
	}
}

// The same in Launch's own goroutine: a panic of the host comes out of the library.
func TestReviewTypedNilFromParentOf(t *testing.T) {
	m := reviewNew(t, &reviewClient{parentOf: func(subagent.SessionID) (subagent.SessionID, error) {
		var err *subagent.SessionError
		return "", err
	}}, subagent.Config{})
	defer m.Close()
	require.NotPanics(t, func() {
		_, err := m.Launch(t.Context(), reviewAsks("p", "work"))
		require.ErrorIs(t, err, subagent.ErrLineage)
	})
}

// An attempt survives runtime.Goexit in Create and Prompt. A delivery does not: the
// mailbox says for ever that a call is out, and its parent is never told again.
func TestReviewGoexitInNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &told{answer: func(_ subagent.Notification, call int) (subagent.Delivery, error) {
			if call == 0 {
				runtime.Goexit()
			}
			return subagent.Accepted, nil
		}}
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{Notifier: box})
		defer m.Close()
		reviewLaunch(t, m, reviewAsks("p", "1s"))
		reviewPass(time.Hour)
		owed := m.Pending("p")
		require.False(t, owed.InFlight, "no call is out")
		require.Len(t, box.all(), 2, "as after a panic, it is sent again")
	})
}

// The same in Render, called by Drain: in flight for ever, and no ack to end it.
func TestReviewGoexitInRender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{Mailbox: subagent.MailboxPolicy{
			Render: func(subagent.Notification) string {
				if first {
					first = false
					runtime.Goexit()
				}
				return "text"
			},
		}, Notifier: nil})
		defer m.Close()
		reviewLaunch(t, m, reviewAsks("p", "1s"))
		reviewPass(time.Minute)
		go func() { m.Drain("p") }()
		synctest.Wait()
		_, _, ok := m.Drain("p")
		require.True(t, ok, "nobody has it, and nobody can acknowledge it")
	})
}

// And in Abort: the call is counted as out for ever, the task waits for its whole
// grace although both calls are over, and Close lists a call that is not there.
func TestReviewGoexitInAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &reviewClient{prompt: takes, abort: func(context.Context, subagent.SessionID) error { runtime.Goexit(); return nil }}
		m := reviewNew(t, c, subagent.Config{})
		task := reviewLaunch(t, m, reviewAsks("p", "1h"))
		synctest.Wait()
		_, _ = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		reviewPass(time.Minute)
		calls := m.Stats().Calls
		err := m.Close()
		require.Zero(t, calls, "Prompt has returned and Abort's goroutine is gone; Close says %v", err)
	})
}
