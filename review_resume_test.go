package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// the count of a parentless root.
func TestReviewParentlessRootCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Spawn: SpawnLimits{LivePerRoot: 2}})
		in := taking("", "1s")
		in.NoNotice = true
		top := launch(t, m, in)
		synctest.Wait()
		session := get(t, m, top.ID).Session
		launch(t, m, taking(session, "1h"))
		pass(time.Minute)
		resume(t, m, top.ID, "1h") // 2 live: it, and what it left running
		_, err := m.Launch(t.Context(), taking(session, "1h"))
		require.ErrorIs(t, err, ErrSpawnLimit)
	})
}

// the counts of the last run's time in the queue.
func TestReviewPassesCarryOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		m.mu.Lock()
		m.byID[one.ID].passes, m.byID[one.ID].late = maxPasses, maxPasses // as by 64 others
		m.mu.Unlock()
		resume(t, m, one.ID, "1h")
		m.mu.Lock()
		defer m.mu.Unlock()
		require.Zero(t, m.byID[one.ID].passes)
		require.Zero(t, m.byID[one.ID].late)
	})
}
