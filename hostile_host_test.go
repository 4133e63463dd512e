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

// hostileError panics in every method that errors.Is, errors.As and a reader call.
type hostileError struct{}

func (hostileError) Error() string { panic("Error") }
func (hostileError) Is(error) bool { panic("Is") }
func (hostileError) As(any) bool   { panic("As") }

// typedNil is what a function returns that declares its error by a concrete type: an
// error that is not nil, with nothing in it.
func typedNil() error {
	var err *SessionError
	return err
}

// The methods of an error are code of the host: one that panics fails its task, or its
// delivery, and nothing else.
func TestErrorsOfTheHost(t *testing.T) {
	create := func(err error) SessionClient {
		return &stub{create: func(context.Context, CreateRequest) (SessionID, error) { return "", err }}
	}
	prompt := func(err error) SessionClient {
		return &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { return Result{Text: "ok"}, err }}
	}
	loop := func(err error) SessionClient {
		return Func(func(context.Context, Turn) (Result, error) { return Result{Text: "ok"}, err })
	}
	for _, c := range []struct {
		name   string
		client SessionClient
		status Status
		code   ReasonCode
	}{
		{"create, typed nil", create(typedNil()), Failed, SessionFailed},
		{"create, hostile", create(hostileError{}), Failed, Panicked},
		{"prompt, typed nil", prompt(typedNil()), Interrupted, PromptFailed},
		{"prompt, hostile", prompt(hostileError{}), Failed, Panicked},
		{"func, typed nil", loop(typedNil()), Interrupted, PromptFailed},
		{"func, hostile", loop(hostileError{}), Failed, Panicked},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &inbox{}
				m := newManager(t, c.client, Config{Notifier: box, Keys: KeyLimits{Default: 1}})
				for range 2 {
					task := launch(t, m, work("p"))
					ended, err := m.Wait(t.Context(), task.ID)
					require.NoError(t, err)
					require.Equal(t, c.status, ended.Status)
					require.ErrorIs(t, ended.Reason, c.code)
					require.NotEmpty(t, ended.Reason.Error())
				}
				pass(time.Minute)
				require.Len(t, toldTo("p", box.all()), 2)
				require.NoError(t, m.Close())
			})
		})
	}
}

// A session whose release failed with an error that panics is listed with the panic.
func TestHostileErrorOfRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{release: func(context.Context, SessionID) error { return hostileError{} }}, Config{})
		_, err := m.Do(t.Context(), work("p"))
		require.NoError(t, err)
		var unstopped *UnstoppedError
		require.ErrorAs(t, m.Close(), &unstopped)
		require.Len(t, unstopped.Calls, 1)
		var panicked *PanicError
		require.ErrorAs(t, unstopped.Calls[0].Err, &panicked)
		require.Equal(t, "release", panicked.Op)
	})
}

// An error of the lineage refuses the launch, whatever it is made of.
func TestHostileErrorsOfParentOf(t *testing.T) {
	for _, err := range []error{typedNil(), hostileError{}} {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, &ancestry{parent: func(context.Context, SessionID) (SessionID, error) { return "", err }}, Config{})
			before := inventory(m)
			_, err := m.Launch(t.Context(), work("p"))
			require.ErrorIs(t, err, ErrLineage)
			require.Equal(t, before, inventory(m))
		})
	}
}

// A delivery whose receiver panics, ends its goroutine, or returns an error that
// panics, is sent again.
func TestHostileReceiver(t *testing.T) {
	for name, first := range map[string]func() error{
		"panic":         func() error { panic("notify") },
		"Goexit":        func() error { runtime.Goexit(); return nil },
		"hostile error": func() error { return hostileError{} },
		"typed nil":     typedNil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &answering{answer: func(_ Notification, call int) (Delivery, error) {
					if call == 1 {
						return Accepted, first()
					}
					return Accepted, nil
				}}
				m := newManager(t, timed(), Config{Notifier: box})
				launch(t, m, taking("p", "1s"))
				pass(time.Hour)
				require.Zero(t, m.Pending("p"))
				got := box.all()
				require.Len(t, got, 2)
				require.Equal(t, got[0], got[1])
				require.Equal(t, map[Delivery]int{Unknown: 1, Accepted: 1}, m.Stats().Notices.Deliveries)
			})
		})
	}
}

// A Render that ends the goroutine of a drain leaves what it was for where it was; the
// next try has the manager's own text.
func TestGoexitInRender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		m := newManager(t, timed(), Config{Mailbox: MailboxPolicy{Render: func(Notification) string {
			calls++
			runtime.Goexit()
			return ""
		}}})
		task := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		go m.Drain("p")
		synctest.Wait()
		require.Equal(t, 1, calls)
		require.False(t, m.Pending("p").InFlight, "nobody has it")
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		require.Equal(t, task.ID, n.Notices[0].Task)
		require.Contains(t, n.Text, "All your background tasks have ended")
		ack(true)
		require.Zero(t, m.Pending("p"))
	})
}

// An Abort that ends its goroutine is over, and has failed.
func TestGoexitInAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang, abort: func(context.Context, SessionID) error { runtime.Goexit(); return nil }}, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		began := time.Now()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
		require.Zero(t, time.Since(began), "both calls are over")
		require.Zero(t, m.Stats().Calls)
		var panicked *PanicError
		require.True(t, errors.As(ended.Attempts[0].Unstopped, &panicked))
		require.Equal(t, "abort", panicked.Op)
		var unstopped *UnstoppedError
		require.ErrorAs(t, m.Close(), &unstopped)
		require.Len(t, unstopped.Calls, 1)
		require.Empty(t, unstopped.Calls[0].Op, "no call is out")
	})
}

type goexitErr struct{}

func (goexitErr) Error() string { runtime.Goexit(); return "" }

// An error whose method ends the goroutine ends the attempt too.
func TestGoexitInPromptError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { return Result{}, goexitErr{} }}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		one := launch(t, m, work("p"))
		two := launch(t, m, work("p"))
		pass(time.Hour)
		require.True(t, get(t, m, one.ID).Status.Terminal(), "%v", get(t, m, one.ID).Status)
		require.True(t, get(t, m, two.ID).Status.Terminal(), "%v", get(t, m, two.ID).Status)
	})
}

// Also beside a session that was made: it is stopped and given up.
func TestGoexitInCreateError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{create: func(context.Context, CreateRequest) (SessionID, error) { return "made", goexitErr{} }}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		require.ErrorIs(t, get(t, m, task.ID).Reason, Panicked)
		require.EqualValues(t, 1, c.aborts.Load())
		_, released := c.released.Load(SessionID("made"))
		require.True(t, released)
		require.Zero(t, c.prompts.Load())
	})
}
