package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A pending task that is cancelled leaves its queue, but not the heap of deadlines:
// the record and an entry stay there until its queue wait would have passed.
func TestReviewCancelledTaskLeavesItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: 24 * time.Hour}})
		launch(t, m, work("p"))
		synctest.Wait()
		for range 100 {
			task := launch(t, m, work("p"))
			_, err := m.Cancel(t.Context(), task.ID, CancelOptions{Silent: true})
			require.NoError(t, err)
		}
		require.Zero(t, inventory(m)["deadlines"])
	})
}

// An ending that comes together with the end of a wait's context wins, in WaitAny as
// in Wait.
func TestWaitAnyAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, work("p"))
		pending := launch(t, m, work("p"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := m.WaitAny(ctx, Filter{IDs: []TaskID{pending.ID}})
			done <- err
		}()
		synctest.Wait()
		m.mu.Lock() // so that the wait, which its context ends, looks again when the task has ended
		cancel()
		m.stopLocked(m.byID[pending.ID], because(ByUser, nil), false)
		m.unlock()
		require.NoError(t, <-done)
	})
}

// A launch that is on its way while the manager is closed is refused: what was asked
// before counts for nothing.
func TestCloseWithinAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		m = newManager(t, &stub{}, Config{Admit: func(context.Context, LaunchInput, Lineage) error { return m.Close() }})
		_, err := m.Launch(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrClosed)
		require.Empty(t, m.List(Filter{}))
	})
}
