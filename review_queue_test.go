package subagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// The oldest task of all needs room in two limits. It waits at one; when that has
// room the other has none, so it goes and waits there, and a younger one takes what it
// left: for as long as both have work, at 200 younger ones here. Config and README
// promise first come, first served "per model, provider, agent, parent, and over all".
func TestReviewTwoLimitsStarveTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{
			Keys:  subagent.KeyLimits{Providers: map[string]int{"p": 1}, Agents: map[string]int{"a": 1}},
			Spawn: subagent.SpawnLimits{LivePerRoot: subagent.Off},
		})
		defer m.Close()
		ask := func(agent, model string) subagent.Task {
			return reviewLaunch(t, m, subagent.LaunchInput{Parent: "x", Agent: agent, Model: model, Prompt: "1s"})
		}
		ask("b", "p/n")
		time.Sleep(500 * time.Millisecond)
		ask("a", "r/x")
		oldest := ask("a", "p/m")
		for range 100 {
			ask("b", "p/n")
			ask("a", "r/x")
		}
		reviewPass(80 * time.Second)
		younger := len(m.List(subagent.Filter{Statuses: []subagent.Status{subagent.Completed}})) - 2
		require.Equal(t, subagent.Completed, reviewGet(t, m, oldest.ID).Status, "%d younger tasks have run and it has not started", younger)
	})
}

// Acquire "waits in the same queues as tasks, by the same rules". A task of an agent
// with a model of its own waits in the queue of that model; a Holder of the same agent
// does not, and takes no place under the model's and the provider's limits.
func TestReviewAcquireForgetsTheAgentsModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{
			Keys:   subagent.KeyLimits{Models: map[string]int{"p/m": 1}},
			Agents: map[string]subagent.Agent{"explore": {Model: "p/m"}},
		})
		defer m.Close()
		task := reviewLaunch(t, m, subagent.LaunchInput{Parent: "x", Agent: "explore", Prompt: "1h"})
		require.Equal(t, "model:p/m", task.Key.String())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lease, err := m.Acquire(ctx, subagent.Holder{Parent: "x", Agent: "explore"})
		if err == nil {
			lease.Release()
		}
		require.ErrorIs(t, err, context.DeadlineExceeded, "the one place of p/m is taken by a task of the same agent")
	})
}

// Reserve: "Its errors are those of Launch", and one of these is ctx's own.
func TestReviewReserveIgnoresItsContext(t *testing.T) {
	m := reviewNew(t, &reviewClient{}, subagent.Config{})
	defer m.Close()
	reviewLaunch(t, m, reviewAsks("p", "work")) // now "p" is known
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Launch(ctx, reviewAsks("p", "work"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = m.Reserve(ctx, "p")
	require.ErrorIs(t, err, context.Canceled)
}
