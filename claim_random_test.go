package subagent

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// standing names a queue whose next ticket would find room, and which was left standing.
func standing(m *BackgroundManager) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, q := range m.queues() {
		t := q.candidate()
		if t == nil {
			continue
		}
		head := q.all.first()
		room := !(head != t && head.aside() && head.passes >= maxPasses)
		for share := range leaseShares {
			s := m.shareLocked(t, share)
			room = room && (s == nil || !s.fullFor(t))
		}
		if room {
			return k.String()
		}
	}
	return ""
}

// Whatever limits, turns and claims come together, nobody waits who would find room, and
// all that was launched comes to run.
func TestNobodyWaitsForNothing(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crowdLife(t, seed) })
	}
	t.Run("that stood still", func(t *testing.T) { crowdLife(t, 2652) })
}

func crowdLife(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		r, s := rand.New(rand.NewPCG(seed, 1)), newStage()
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		some := func() int { return []int{Off, 1, 1, 2, 3}[r.IntN(5)] }
		m := newManager(t, Func(s.run), Config{
			Spawn: SpawnLimits{LivePerRoot: Off},
			Keys: KeyLimits{
				Default: 1 + r.IntN(2), Fair: r.IntN(3) > 0, PerParent: some(), Global: some(),
				Providers: map[string]int{"m": some()}, Agents: map[string]int{"a": some(), "b": some()},
			}})
		var all []Task
		for i := range 120 {
			switch now := s.now(); {
			case i < 12 || r.IntN(5) < 2:
				all = append(all, launch(t, m, LaunchInput{
					Parent: SessionID(pick("p", "q", "r", "s")), Agent: pick("a", "b", "c"), Model: pick("m/x", "m/y", "n/x"), Prompt: fmt.Sprint(i),
				}))
			case len(now) > 0 && r.IntN(3) < 2:
				s.let(now[r.IntN(len(now))])
			case r.IntN(4) == 0:
				key := []Key{{Kind: GlobalKey}, {Kind: ParentKey}, {ModelKey, "m/x"}, {ProviderKey, "m"}, {AgentKey, "a"}}[r.IntN(5)]
				require.NoError(t, m.SetLimit(key, some()))
			case r.IntN(8) == 0:
				_, _ = m.Cancel(t.Context(), all[r.IntN(len(all))].ID, CancelOptions{})
			default:
				if waiting := m.List(Filter{Statuses: []Status{Pending}}); len(waiting) > 0 {
					almost(m, waiting[r.IntN(len(waiting))])
				}
			}
			synctest.Wait()
			require.Empty(t, standing(m), "after step %d", i)
			require.NoError(t, m.CheckBooks(nil, nil))
		}
		for now := s.now(); len(now) > 0; now = s.now() {
			s.let(now[r.IntN(len(now))])
			synctest.Wait()
			require.Empty(t, standing(m))
		}
		require.Empty(t, m.limits())
		require.Nil(t, claimantOf(m))
	})
}
