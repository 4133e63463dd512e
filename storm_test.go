package subagent_test

import (
	"errors"
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var (
	stormSeeds = flag.Int("storm.seeds", 600, "how many seeds TestStorm runs, over its modes")
	stormSeed  = flag.Uint64("storm.seed", 0, "run only this seed of each mode")
)

// stormModes are the ways a storm is driven.
var stormModes = []struct {
	name string
	run  func(*storm)
}{
	// One operation at a time, everything checked after each; then the faults
	// stop and all must settle.
	{"stepped", func(s *storm) { s.stepped(); s.settle() }},
	// Operations overlap; then the faults stop and all must settle.
	{"free", func(s *storm) { s.free(); s.settle() }},
	// Operations overlap and the faults never stop: nothing unsafe happens, and
	// Close comes to an end.
	{"chaos", func(s *storm) { s.free() }},
}

// TestStorm drives managers through random lives over hosts and parents that do
// everything wrong that the fakes know, and checks what must hold whatever
// happens. A seed that fails is named with the command that runs it again.
func TestStorm(t *testing.T) {
	for _, mode := range stormModes {
		t.Run(mode.name, func(t *testing.T) {
			first, last := uint64(1), uint64(max(*stormSeeds/len(stormModes), 1))
			if *stormSeed != 0 {
				first, last = *stormSeed, *stormSeed
			}
			for seed := first; seed <= last; seed++ {
				if err := weather(t, seed, mode.run); err != nil {
					t.Fatalf("seed %d: %v\n\nagain: go test -run 'TestStorm/%s' -storm.seed=%d -count=20 .", seed, err, mode.name, seed)
				}
			}
		})
	}
}

// weather runs one seed in a bubble of its own. What is wrong comes out as an
// error, after the bubble was brought to rest, so that nothing masks it.
func weather(t *testing.T, seed uint64, run func(*storm)) (err error) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorm(t, seed)
		run(s)
		err = errors.Join(s.end(), s.err())
	})
	return err
}

// end closes the manager, lets go of every call and checks the rest.
func (s *storm) end() error {
	began := time.Now()
	closeErr := s.m.Close()
	if took, most := time.Since(began), 2*s.grace+200*time.Millisecond; took > most {
		s.wrong("Close took %v, more than %v", took, most)
	}
	s.check()
	s.client.Let()
	s.parent.Let()
	for _, l := range s.leases {
		l.Release()
	}
	s.ops.Wait()
	time.Sleep(time.Hour)
	synctest.Wait()
	if s.calm.Load() && !s.closed && closeErr != nil && len(s.loose()) == 0 && s.m.Stats().Unstopped == 0 {
		s.wrong("Close said %v though everything is at rest", closeErr)
	}
	s.checkFakes()
	return nil
}

func (s *storm) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) < 10 {
		s.errs = append(s.errs, fmt.Errorf(format, args...))
	}
}

func (s *storm) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}
