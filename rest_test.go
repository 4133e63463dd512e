package subagent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A turn that begins behind its Abort, and that only an Abort would stop, is no child
// at rest: its lease is held for the grace, and then it is listed.
func TestOvertakenPromptIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		defer close(stop)
		var turns atomic.Int64
		c := &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) {
			time.Sleep(time.Second) // on its way to the host
			turns.Add(1)
			<-stop
			return Result{}, errors.New("stopped")
		}}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		task := launch(t, m, work("p"))
		synctest.Wait()
		next := launch(t, m, work("p"))
		began := time.Now()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
		require.ErrorIs(t, ended.Attempts[0].Unstopped, errStillOut)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.EqualValues(t, 2, c.aborts.Load(), "at once, and while the call stays out")
		require.EqualValues(t, 1, turns.Load(), "no other turn begins meanwhile")
		require.Equal(t, 1, m.Stats().Unstopped)
		synctest.Wait()
		require.Equal(t, Running, get(t, m, next.ID).Status)
	})
}

// asked is a context that calls a function when it is first asked for its error.
type asked struct {
	context.Context
	once sync.Once
	f    func()
}

func (a *asked) Err() error {
	a.once.Do(a.f)
	return a.Context.Err()
}

// A task that is stopped when its session is there and its prompt has not gone out is
// not prompted.
func TestStoppedBeforeItsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		c := &stub{}
		c.create = func(ctx context.Context, req CreateRequest) (SessionID, error) {
			m.mu.Lock()
			a := m.byID[req.Task].cur
			m.mu.Unlock()
			a.ctx = &asked{Context: ctx, f: func() { // between the two calls
				go func() { _, _ = m.Cancel(context.Background(), req.Task, CancelOptions{}) }()
				<-ctx.Done()
			}}
			return c.id(), nil
		}
		m = newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		ended, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Zero(t, c.prompts.Load())
		require.ErrorIs(t, ended.Reason, ByUser)
		require.NoError(t, ended.Attempts[0].Unstopped)
		require.NoError(t, m.Close())
	})
}

// A turn that was left running and ends with an error is aborted once, to make sure,
// and is listed no more.
func TestLeftRunningEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) {
			time.Sleep(time.Minute)
			return Result{}, errors.New("no luck")
		}}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
		require.NoError(t, err)
		require.Equal(t, 1, m.Stats().Unstopped)
		require.Zero(t, c.aborts.Load())
		pass(2 * time.Minute)
		require.Zero(t, m.Stats().Unstopped)
		require.Zero(t, m.Stats().Calls)
		require.NoError(t, get(t, m, task.ID).Attempts[0].Unstopped)
		require.EqualValues(t, 1, c.aborts.Load())
		require.NoError(t, m.Close())
	})
}

// Shutdown stops what was left running as any other child: the Abort comes before the
// context ends.
func TestShutdownAbortsWhatWasLeftRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		before := int64(-1) // Aborts that had returned when the context ended
		var returned atomic.Int64
		c.prompt = func(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
			<-ctx.Done()
			before = returned.Load()
			return Result{}, &SessionError{Op: "prompt", Class: ClassAborted}
		}
		c.abort = func(context.Context, SessionID) error {
			time.Sleep(time.Second)
			returned.Add(1)
			return nil
		}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
		require.NoError(t, err)
		require.NoError(t, m.Close())
		require.EqualValues(t, 1, before)
		require.NoError(t, get(t, m, task.ID).Attempts[0].Unstopped)
	})
}

// A cancel takes no longer than the grace, however short it is.
func TestCancelIsBoundedByTheGrace(t *testing.T) {
	for _, grace := range []time.Duration{settleWait / 10, settleWait, settleWait * 3 / 2, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			defer close(let)
			c := &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { <-let; return Result{}, errors.New("late") }}
			m := newManager(t, c, Config{AbortGrace: grace})
			task := launch(t, m, work("p"))
			synctest.Wait()
			began := time.Now()
			_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			require.ErrorIs(t, err, ErrUnstopped)
			require.Equal(t, grace, time.Since(began))
		})
	}
}
