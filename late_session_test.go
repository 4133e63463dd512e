package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// sameSession is a host that gives every session the same id, the first one late.
func sameSession() *stub {
	first := true
	return &stub{create: func(context.Context, CreateRequest) (SessionID, error) {
		if first {
			first = false
			time.Sleep(time.Minute)
		}
		return "ses_same", nil
	}}
}

// The id of a session that came too late is taken until the session was given up:
// what stops and releases it must not hit another child's.
func TestLateSessionKeepsItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sameSession()
		c.abort = func(context.Context, SessionID) error { time.Sleep(3 * time.Second); return nil }
		m := newManager(t, c, Config{Task: TaskLimits{Start: time.Second}})
		late := launch(t, m, work("p"))
		pass(time.Minute + time.Second)
		require.ErrorIs(t, get(t, m, late.ID).Reason, StartTimeout)

		refused := launch(t, m, work("p"))
		synctest.Wait()
		require.ErrorIs(t, get(t, m, refused.ID).Reason, SessionFailed, "the late one is being stopped")
		require.Zero(t, c.prompts.Load())

		pass(10 * time.Second)
		_, released := c.released.Load(SessionID("ses_same"))
		require.True(t, released)
		next := launch(t, m, work("p"))
		synctest.Wait()
		require.Equal(t, Completed, get(t, m, next.ID).Status, "the id is free again")
	})
}

// A task that is stopped between its session and its prompt is not prompted.
func TestStoppedAttemptIsNotPrompted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		m := newManager(t, c, Config{})
		c.create = func(_ context.Context, r CreateRequest) (SessionID, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.byID[r.Task].cur.cancel(nil) // as an Abort does that came and went before the call
			return c.id(), nil
		}
		task := launch(t, m, work("p"))
		synctest.Wait()
		require.True(t, get(t, m, task.ID).Status.Terminal())
		require.Zero(t, c.prompts.Load())
	})
}
