package subagent

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A place that is kept for a claimant is open to who has the turn in its own queue, also
// where an older ticket of another queue, which has to leave it free, waits before that one.
func TestClaimYieldsBehindAnotherQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{
			Fair: true, PerParent: 2, Models: map[string]int{"m/x": 1}, Agents: map[string]int{"a": 1},
		}})
		ask := func(parent SessionID, agent, model, prompt string) Task {
			return launch(t, m, LaunchInput{Parent: parent, Agent: agent, Model: model, Prompt: prompt})
		}
		ask("o", "z", "m/x", "holds x")
		ask("h", "a", "m/other", "holds a")
		ask("u", "z", "m/y", "u is")
		ask("u", "z", "m/y", "at its cap")
		ask("c", "z", "m/x", "c's first")
		older := ask("c", "a", "m/x", "older")
		require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 4))
		ask("d", "z", "m/w", "elsewhere")
		ask("u", "z", "m/x", "younger")
		s.end("holds x")
		claimant := almost(m, older)
		s.end("c's first") // x has room for the older one, a has none
		require.Equal(t, claimant, claimantOf(m))
		require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 1))
		s.end("u is") // the younger one has its turn, and waits behind the one elsewhere
		s.end("at its cap", "holds a")
		require.Equal(t, []string{"younger"}, s.now(), "one place is free, and nothing runs")
		require.NoError(t, m.CheckBooks(nil, nil))
		s.end("younger", "older", "elsewhere")
		require.Nil(t, claimantOf(m))
	})
}
