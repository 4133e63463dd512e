package subagent_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A storm is one seed's random life of a manager: storm_ops_test.go drives it,
// storm_ledger_test.go keeps account of it, storm_check_test.go begins what is checked.

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
	// Operations overlap, and so do the calls that shut the manager down.
	{"free", func(s *storm) { s.free(); s.shutDown() }},
	// Operations overlap; then the faults stop and all must settle in time.
	{"liveness", func(s *storm) { s.free(); s.settle() }},
	// Operations overlap and the faults never stop: nothing unsafe happens, and
	// Close comes to an end.
	{"chaos", (*storm).free},
}

// TestStorm drives managers through random lives over hosts and parents that do
// everything wrong that the fakes know, and checks what must hold whatever
// happens. A seed that fails is named with the command that runs it again; one that
// crashes the process leaves that command in a file, storm-MODE in os.TempDir.
func TestStorm(t *testing.T) {
	for _, mode := range stormModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			crumb := filepath.Join(os.TempDir(), "storm-"+mode.name)
			first, last := uint64(1), uint64(max(*stormSeeds/len(stormModes), 1))
			if *stormSeed != 0 {
				first, last = *stormSeed, *stormSeed
			}
			for seed := first; seed <= last; seed++ {
				again := fmt.Sprintf("go test -run 'TestStorm/%s' -storm.seed=%d -count=20 .", mode.name, seed)
				_ = os.WriteFile(crumb, []byte(again+"\n"), 0o600)
				if err := weather(t, seed, mode.name, mode.run); err != nil {
					t.Fatalf("seed %d: %v\n\nagain: %s", seed, err, again)
				}
			}
			_ = os.Remove(crumb)
		})
	}
}

// weather runs one seed in a bubble of its own. What is wrong comes out as an
// error, after the bubble was brought to rest, so that nothing masks it.
func weather(t *testing.T, seed uint64, mode string, run func(*storm)) (err error) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorm(t, seed, mode)
		run(s)
		s.end()
		err = s.err()
	})
	return err
}

// wrong notes a broken promise. The first few say enough.
func (s *storm) wrong(format string, args ...any) {
	s.errMu.Lock()
	defer s.errMu.Unlock()
	if len(s.errs) < 6 {
		at := time.Since(s.born).Round(time.Microsecond)
		s.errs = append(s.errs, fmt.Errorf("%v: %w", at, fmt.Errorf(format, args...)))
	}
}

func (s *storm) err() error {
	s.errMu.Lock()
	defer s.errMu.Unlock()
	return errors.Join(s.errs...)
}

// rest waits until nothing moves, and checks everything.
func (s *storm) rest() {
	synctest.Wait()
	s.check()
}
