package opencode_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

var (
	netSeeds = flag.Int("net.seeds", 60, "random mixes of network faults")
	netSeed  = flag.Uint64("net.seed", 0, "only this mix; 0: all")
)

// honest are the faults of calls after which the client may know what it did: none of
// them answers in the server's words what the server did not say, is held back
// longer than a call lasts, or is of a size that takes real time.
func honest() (names []string) {
	for _, name := range sortedNames(httpFaults) {
		if !slices.Contains([]string{"204", "null", "late", "endless", "endless list"}, name) {
			names = append(names, name)
		}
	}
	return names
}

// netStorm is one mix. Its plans are called from many goroutines.
type netStorm struct {
	mu      sync.Mutex
	rng     *rand.Rand
	calls   []string // names of faults of calls
	oneIn   int
	log     []string // what went wrong, for tests that fail
	streams []string // the two faults of streams
}

func newNetStorm(seed uint64) *netStorm {
	s := &netStorm{rng: rand.New(rand.NewPCG(seed, 1))}
	all := honest()
	s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	s.calls, s.oneIn = all[:1+s.rng.IntN(6)], 2+s.rng.IntN(12)
	names := sortedNames(streamMenu)
	s.streams = []string{names[s.rng.IntN(len(names))], names[s.rng.IntN(len(names))]}
	return s
}

func (s *netStorm) pick(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

// onCall is the plan for calls.
func (s *netStorm) onCall(op string, nth int) fault {
	if op == "events" || s.pick(s.oneIn) > 0 {
		return nil
	}
	name := s.calls[s.pick(len(s.calls))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprint(op, " ", nth, ": ", name))
	return httpFaults[name]
}

// onStream is the plan for streams: its two faults, one on top of the other, or none.
func (s *netStorm) onStream(int) streamFault {
	if s.pick(4) == 0 {
		return nil
	}
	return both(streamMenu[s.streams[0]], streamMenu[s.streams[1]])
}

// launches are the children of one mix, by how they should end; "" if not well.
func (s *netStorm) launches(w *netWorld) map[subagent.TaskID]string {
	scripts := maps.Clone(goodScripts)
	scripts["error 400"], scripts["say a; vanish"], scripts["say b; error 401"] = "", "", ""
	names := sortedNames(scripts)
	ids := map[subagent.TaskID]string{}
	for range 2 + s.pick(8) {
		script := names[s.pick(len(names))]
		ids[w.launch(script)] = scripts[script]
		time.Sleep(time.Duration(s.pick(20000)) * time.Millisecond)
	}
	return ids
}

// Whatever goes wrong: each task ends once, each parent is told of each once, no
// prompt is doubled, what completed says what the server said, what failed did so
// where its making or its prompt failed, and nothing goes on.
func TestNetStorm(t *testing.T) {
	for seed := uint64(1); seed <= uint64(*netSeeds); seed++ {
		if *netSeed != 0 && seed != *netSeed {
			continue
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				s := newNetStorm(seed)
				w := newNetWorld(t, f)
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("%s; 1 in %d, first %q", s.streams, s.oneIn, s.log[:min(len(s.log), 20)])
					}
				})
				f.faults(s.onCall)
				f.streamFaults(s.onStream)
				ids := s.launches(w)
				w.settle()
				if err := w.end(); err != nil {
					require.ErrorIs(t, err, subagent.ErrUnstopped)
				}
				w.check(false)
				s.judge(w, ids)
			})
		})
	}
}

func (s *netStorm) judge(w *netWorld, ids map[subagent.TaskID]string) {
	for id, text := range ids {
		task := w.ended(id)
		child := w.f.find(string(task.Session))
		switch {
		case task.Status == subagent.Completed:
			require.Equal(w.t, text, task.Result.Text)
			require.NotEmpty(w.t, text)
		case text != "":
			require.True(w.t, child == nil || child.turns == 0, "the server had an answer: %v", task.Reason)
		}
	}
}
