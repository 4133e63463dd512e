package subagent

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What the storm has found, in small. Each fails until the core is mended.

// A Notify, or a Render, whose goroutine is ended (a t.FailNow in a host's test does
// that) leaves the mailbox sending for ever: nothing is sent again, Drain gives
// nothing, and no later ending is told.
func TestFoundGoexitInNotify(t *testing.T) {
	for name, cfg := range map[string]func(*inbox, func()) Config{
		"notify": func(box *inbox, exit func()) Config {
			return Config{Notifier: NotifierFunc(func(ctx context.Context, n Notification) (Delivery, error) {
				exit()
				return box.Notify(ctx, n)
			})}
		},
		"render": func(box *inbox, exit func()) Config {
			return Config{Notifier: box, Mailbox: MailboxPolicy{Render: func(Notification) string { exit(); return "told" }}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, first := &inbox{}, true
				m := newManager(t, &stub{}, cfg(box, func() {
					if first {
						first = false
						runtime.Goexit()
					}
				}))
				launch(t, m, work("root"))
				pass(10 * time.Minute)
				launch(t, m, work("root"))
				pass(10 * time.Minute)
				require.False(t, m.Pending("root").InFlight, "no call is out")
				told := 0
				for _, n := range box.all() {
					told += len(n.Notices)
				}
				require.Equal(t, 2, told)
			})
		})
	}
}

// An Abort whose goroutine is ended counts as out for ever.
func TestFoundGoexitInAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{
			prompt: func(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
				<-ctx.Done()
				return Result{}, ctx.Err()
			},
			abort: func(context.Context, SessionID) error { runtime.Goexit(); return nil },
		}, Config{})
		task := launch(t, m, work("root"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
		pass(time.Hour)
		require.Zero(t, m.Stats().Calls, "no call is out")
	})
}

// A Release of a session that came too late, out when the manager is closed, is not
// listed by Close, though its goroutine goes on.
func TestFoundLateReleaseIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		m, err := New(&deafRelease{let: let}, Config{Task: TaskLimits{Start: time.Second}})
		require.NoError(t, err)
		launch(t, m, work("root"))
		pass(time.Minute)
		var list *UnstoppedError
		require.True(t, errors.As(m.Close(), &list), "a Release is out")
		require.Equal(t, "release", list.Calls[0].Op)
	})
}

// deafRelease makes sessions late, and never comes back from their Release.
type deafRelease struct {
	stub
	let chan struct{}
}

func (d *deafRelease) Create(context.Context, CreateRequest) (SessionID, error) {
	time.Sleep(5 * time.Second)
	return "late", nil
}

func (d *deafRelease) Release(context.Context, SessionID) error {
	<-d.let
	return nil
}

// A delivery that Close has given up while it was in Render calls Notify when Render
// comes back: a call of the host begins after Close has returned. (The storm has seen
// the same without Render, in one instant: a Drain given back as Close gives up.)
func TestFoundNotifyBeginsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, box := make(chan struct{}), &inbox{}
		m, err := New(&stub{}, Config{Notifier: box, Mailbox: MailboxPolicy{Render: func(Notification) string { <-let; return "told" }}})
		require.NoError(t, err)
		launch(t, m, work("root"))
		pass(time.Minute)
		require.ErrorIs(t, m.Close(), ErrUnstopped)
		close(let)
		synctest.Wait()
		require.Empty(t, box.all(), "Notify was called after Close had returned")
	})
}

// A Prompt that reaches its host only after its Abort has, and does not come back when
// its context ends: the Abort's word is taken, the lease goes back, and nothing marks
// the task while its turn goes on. (Once the Prompt returns, Abort is called again.)
func TestFoundTurnBehindItsAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		m := newManager(t, &stub{
			prompt: func(context.Context, SessionID, Prompt) (Result, error) {
				<-let // on its way for a second, say, and then in its turn
				return Result{}, errors.New("the line was cut")
			},
			abort: func(context.Context, SessionID) error { return nil }, // nothing runs yet
		}, Config{})
		task := launch(t, m, work("root"))
		synctest.Wait()
		_, _ = m.Cancel(t.Context(), task.ID, CancelOptions{})
		pass(time.Minute)
		require.NotEmpty(t, get(t, m, task.ID).Attempts)
		require.Error(t, get(t, m, task.ID).Attempts[0].Unstopped, "the Prompt is out, and its turn goes on")
	})
}
