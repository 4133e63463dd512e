package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// storm is one seed's world: a manager, a host and parents that misbehave, and
// the ledger of what was seen.
type storm struct {
	seed   uint64
	rng    *rand.Rand // the driver's own
	born   time.Time
	cfg    subagent.Config
	faults float64 // how often a call goes wrong
	ties   bool    // durations come from few values, so that instants and time-outs meet
	single bool    // one operation at a time
	calm   atomic.Bool

	m      *subagent.BackgroundManager
	client *subagenttest.Client
	parent *subagenttest.Parent
	ops    sync.WaitGroup

	errMu sync.Mutex
	errs  []error

	audiences []*audience // do not change once the storm has begun

	setMu sync.Mutex // one SetLimit at a time, so that it is known which came last
	mu    sync.Mutex // guards the ledger; never held during a verb that changes anything
	ledger
}

// outsideTB keeps the fakes from failing the test from inside the bubble: the
// storm asks them itself.
type outsideTB struct{ testing.TB }

func (outsideTB) Cleanup(func())        {}
func (outsideTB) Errorf(string, ...any) {}

func newStorm(t *testing.T, seed uint64, mode string) *storm {
	s := &storm{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), born: time.Now(),
		ties: seed%3 == 0, single: mode == "stepped", ledger: newLedger(),
	}
	s.faults = []float64{0, 0.1, 0.4}[s.rng.IntN(3)]
	s.client = subagenttest.NewClient(outsideTB{t}, s.hostScript)
	s.parent = subagenttest.NewParent(outsideTB{t})
	s.parent.Script = s.parentScript
	s.cfg = s.config()
	s.epochs = []epoch{{s.born, settings(s.cfg.Keys)}}
	m, err := subagent.New(host{s.client, s}, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.m = m
	s.theirs()
	s.listen()
	return s
}

// some is n with the given odds, else otherwise.
func (s *storm) some(odds float64, n, otherwise int) int {
	if s.rng.Float64() < odds {
		return n
	}
	return otherwise
}

// config draws a manager. What the checks need to know is filled in, so that it
// need not be looked up as a default.
func (s *storm) config() subagent.Config {
	n := func(most int) int { return 1 + s.rng.IntN(most) }
	const off = subagent.Off
	c := subagent.Config{
		Notifier: receiver{s.parent, s},
		Admit:    s.admit,
		Keys: subagent.KeyLimits{
			Default: n(3), Global: s.some(0.3, n(4), off), PerParent: s.some(0.4, n(3), off), Starts: s.some(0.3, n(2), off),
			Models:    map[string]int{"x/one": s.some(0.5, n(2), 0), "y/one": s.some(0.2, off, 0)},
			Providers: map[string]int{"x": s.some(0.5, n(3), 0)},
			Agents:    map[string]int{"b": s.some(0.5, n(2), 0)},
		},
		Spawn: subagent.SpawnLimits{
			Depth: max(n(4), n(4)), LivePerRoot: s.some(0.3, 3+n(4), 64), TotalPerRoot: s.some(0.15, 5+n(9), off), QueueDepth: s.some(0.2, n(4), off),
		},
		Task: subagent.TaskLimits{QueueWait: off, Start: time.Minute, ResultBytes: 64 << 10},
		Mailbox: subagent.MailboxPolicy{
			Tries: n(4), Gather: 100 * time.Millisecond, GatherMax: time.Second, Timeout: time.Duration(5*n(6)) * time.Second,
			Backoff: 500 * time.Millisecond, BackoffMax: 30 * time.Second, WakeEach: s.rng.IntN(4) == 0, TextBytes: 2 << 10,
		},
		AbortGrace: time.Duration(2*n(5)) * time.Second,
		Retention:  subagent.Retention{Age: off, Count: off, Bytes: off},
	}
	c.Keys.Fair = s.rng.IntN(2) == 0
	if s.rng.IntN(3) == 0 {
		c.Task.QueueWait = time.Duration(n(40)) * time.Second
	}
	if s.rng.IntN(2) == 0 {
		c.Task.Start = time.Duration(n(5)) * time.Second
	}
	if s.rng.IntN(4) == 0 {
		c.Mailbox.Gather = []time.Duration{off, time.Millisecond, time.Second, 3 * time.Second}[s.rng.IntN(4)]
		c.Mailbox.GatherMax = max(c.Mailbox.GatherMax, c.Mailbox.Gather)
	}
	if s.rng.IntN(8) == 0 {
		c.Mailbox.Render = s.render
	}
	c.Mailbox.BusyMax = []time.Duration{off, time.Second, 10 * time.Second, time.Minute}[s.rng.IntN(4)]
	if s.rng.IntN(6) == 0 {
		c.Mailbox.Push, c.Mailbox.WakeEach = subagent.PushPolicy(1+s.rng.IntN(2)), false
	}
	c.Interrupted = subagent.InterruptedPolicy(s.rng.IntN(3))
	if s.seed%3 == 1 {
		c.Hooks = s.hooks()
	}
	if s.rng.IntN(12) == 0 {
		c.Logger = slog.New(slog.NewTextHandler(logs{s}, nil))
	}
	return c
}

// render asks back, and sometimes fails.
func (s *storm) render(n subagent.Notification) string {
	_ = s.m.Pending(n.Parent)
	if len(n.Notices)%3 == 2 {
		panic(errStorm)
	}
	return fmt.Sprint("told of ", len(n.Notices))
}

// logs is where log lines go: it asks the manager that writes them.
type logs struct{ s *storm }

func (l logs) Write(p []byte) (int, error) {
	_ = l.s.m.Stats()
	return len(p), nil
}

// dice are the choices about one thing, keyed by its name: the same for a seed
// whatever the order in which things happen.
func (s *storm) dice(parts ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return rand.New(rand.NewPCG(s.seed, h.Sum64()))
}

var (
	errStorm = errors.New("storm")
	errAdmit = errors.New("not admitted")
)

// while is a duration up to most: one that meets nothing, or, where there are to be
// ties, one of those that other things take too.
func (s *storm) while(r *rand.Rand, most time.Duration) time.Duration {
	if !s.ties {
		return time.Duration(r.Int64N(int64(most)))
	}
	same := []time.Duration{
		0, 0, 100 * time.Millisecond, time.Second, most / 2, most,
		s.cfg.AbortGrace, s.cfg.AbortGrace - 100*time.Millisecond, s.cfg.Task.Start, max(s.cfg.Task.QueueWait, 0), s.cfg.Mailbox.Timeout,
	}
	if d := same[r.IntN(len(same))]; d <= 4*most {
		return d
	}
	return most
}

// ctx ends after a random while.
func (s *storm) ctx(r *rand.Rand, most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.while(r, most))
}

// admit has the last word on a launch: it blocks, refuses, or fails.
func (s *storm) admit(ctx context.Context, in subagent.LaunchInput, _ subagent.Lineage) error {
	r := s.dice("admit", in.Origin)
	if s.calm.Load() || r.Float64() >= s.faults/2 {
		return nil
	}
	switch r.IntN(4) {
	case 0:
		return errAdmit
	case 1:
		panic(errAdmit)
	}
	select {
	case <-ctx.Done():
	case <-time.After(s.while(r, 2*time.Second)):
	}
	return nil
}

// The sessions that launch: three roots; sessions of the host's own, whose parents
// only the host knows; and the children's.
//
//	f/x   a session below x, which may be a root, a child's, or one of these again
//	fe/…  one whose parent can't be found out
//	fc/…  one in a circle
//	t/…   one whose turns somebody else begins, tracked by some
func (h host) ParentOf(ctx context.Context, id subagent.SessionID) (subagent.SessionID, error) {
	if r := h.s.dice("lineage", id); h.s.faults > 0 && !h.s.calm.Load() && r.IntN(4) == 0 {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(h.s.while(r, time.Second)):
		}
	}
	switch kind, rest := kindOf(id); kind {
	case "f":
		return rest, nil
	case "fe":
		return "", errStorm
	case "fc":
		return "fc/" + map[subagent.SessionID]subagent.SessionID{"1": "2", "2": "1"}[rest], nil
	}
	return "", nil
}

// lost reports whether the parent chain of a session can't be found out.
func lost(id subagent.SessionID) bool {
	kind, rest := kindOf(id)
	return kind == "fe" || kind == "fc" || kind == "f" && lost(rest)
}
