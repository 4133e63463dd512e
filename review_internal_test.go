package subagent

import (
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
