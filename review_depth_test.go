package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// a move that takes a tree below the limit on depth.
func TestReviewMoveDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Spawn: SpawnLimits{Depth: 2}})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, one.ID).Session, "1h"))
		pass(time.Minute)
		other := launch(t, m, taking("q", "1h"))
		synctest.Wait()
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", Parent: get(t, m, other.ID).Session})
		if err == nil {
			require.LessOrEqual(t, get(t, m, below.ID).Depth, 2)
		}
	})
}
