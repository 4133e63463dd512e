package subagent

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The oldest task needs room under a provider's limit and an agent's. Each time one
// of them has room, a younger task has the other. After 64 such times a place is kept
// for it under both; when it has started, or is cancelled, all goes on as before.
func TestClaim(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		t.Run(fmt.Sprint("cancelled ", cancelled), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				second := func(context.Context, SessionID, Prompt) (Result, error) {
					time.Sleep(time.Second)
					return Result{Text: "ok"}, nil
				}
				m := newManager(t, &stub{prompt: second}, Config{
					Keys:  KeyLimits{Providers: map[string]int{"p": 1}, Agents: map[string]int{"a": 1}},
					Spawn: SpawnLimits{LivePerRoot: Off},
				})
				ask := func(agent, model string) Task {
					return launch(t, m, LaunchInput{Parent: "x", Agent: agent, Model: model, Prompt: "work"})
				}
				ask("b", "p/n")
				pass(500 * time.Millisecond) // from here on the two limits have room in turn
				ask("a", "r/x")
				oldest := ask("a", "p/m")
				for range 100 {
					ask("b", "p/n")
					ask("a", "r/x")
				}
				waiting := func() bool { return get(t, m, oldest.ID).Status == Pending }
				claimant := func() *ticket {
					m.mu.Lock()
					defer m.mu.Unlock()
					return m.claimant
				}
				completed := func() int { return m.Stats().Tasks[Completed] }
				for claimant() == nil && waiting() {
					pass(100 * time.Millisecond)
				}
				c := claimant()
				require.NotNil(t, c)
				require.Equal(t, oldest.ID, c.taker.(*task).id)
				m.mu.Lock()
				late := c.late
				m.mu.Unlock()
				require.EqualValues(t, maxPasses, late)
				before := completed()
				if cancelled {
					_, err := m.Cancel(t.Context(), oldest.ID, CancelOptions{})
					require.NoError(t, err)
				} else {
					pass(2 * time.Second)
					require.False(t, waiting())
					require.LessOrEqual(t, completed()-before, 4, "those that ran meanwhile had begun before")
				}
				require.Nil(t, claimant())
				pass(200 * time.Second)
				require.Zero(t, m.Stats().Tasks[Pending], "nobody is kept out any more")
			})
		})
	}
}
