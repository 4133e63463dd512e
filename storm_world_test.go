package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// storm is one seed's world: a manager, a host and parents that misbehave.
type storm struct {
	seed   uint64
	rng    *rand.Rand // the driver's own
	cfg    subagent.Config
	grace  time.Duration
	faults float64 // how often a call goes wrong
	calm   atomic.Bool

	m      *subagent.BackgroundManager
	client *subagenttest.Client
	parent *subagenttest.Parent
	ops    sync.WaitGroup

	mu       sync.Mutex // guards all below
	errs     []error
	names    map[subagent.TaskID]string // what the choices about a task are keyed by
	inputs   map[subagent.TaskID]subagent.LaunchInput
	silenced map[subagent.TaskID]bool // a cancel that tells nobody won
	endings  map[subagent.TaskID]subagent.Task
	leases   []*subagent.Lease
	limited  bool // limits were changed
	loosened bool // children were left running on purpose
	closed   bool
	launched int
}

// outsideTB keeps the fakes from failing the test from inside the bubble: the
// storm asks them itself.
type outsideTB struct{ testing.TB }

func (outsideTB) Cleanup(func())        {}
func (outsideTB) Errorf(string, ...any) {}

func newStorm(t *testing.T, seed uint64) *storm {
	s := &storm{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), grace: 10 * time.Second,
		names: map[subagent.TaskID]string{}, inputs: map[subagent.TaskID]subagent.LaunchInput{},
		silenced: map[subagent.TaskID]bool{}, endings: map[subagent.TaskID]subagent.Task{},
	}
	s.faults = []float64{0, 0.1, 0.4}[s.rng.IntN(3)]
	s.client = subagenttest.NewClient(outsideTB{t}, s.hostScript)
	s.parent = subagenttest.NewParent(outsideTB{t})
	s.parent.Script = s.parentScript
	s.cfg = s.config()
	m, err := subagent.New(s.client, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.m = m
	return s
}

// some is n with the given odds, else otherwise.
func (s *storm) some(odds float64, n, otherwise int) int {
	if s.rng.Float64() < odds {
		return n
	}
	return otherwise
}

func (s *storm) config() subagent.Config {
	n := func(most int) int { return 1 + s.rng.IntN(most) }
	c := subagent.Config{
		Notifier: s.parent,
		Keys: subagent.KeyLimits{
			Default: n(3), Global: s.some(0.3, n(4), 0), PerParent: s.some(0.4, n(3), 0), Starts: s.some(0.3, n(2), 0),
			Models:    map[string]int{"x/one": s.some(0.5, n(2), 0)},
			Providers: map[string]int{"x": s.some(0.5, n(3), 0)},
			Agents:    map[string]int{"b": s.some(0.5, n(2), 0)},
		},
		Spawn:   subagent.SpawnLimits{Depth: n(4), LivePerRoot: s.some(0.3, 3+n(4), 0), QueueDepth: s.some(0.2, n(4), 0)},
		Mailbox: subagent.MailboxPolicy{Tries: n(4)},
	}
	if s.rng.IntN(3) == 0 {
		c.Task.QueueWait = time.Duration(n(40)) * time.Second
	}
	if s.rng.IntN(2) == 0 {
		c.Task.Start = time.Duration(n(5)) * time.Second
	}
	return c
}

// dice are the choices about one call: the same for a seed whatever the order in
// which calls arrive.
func (s *storm) dice(parts ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return rand.New(rand.NewPCG(s.seed, h.Sum64()))
}

var errStorm = errors.New("storm")

// hostScript is the misbehaving host.
func (s *storm) hostScript(c subagenttest.Call) subagenttest.Action {
	r := s.dice(s.name(c), c.Op, c.N)
	var a subagenttest.Action
	if s.calm.Load() {
		a.Delay = time.Millisecond
		return a
	}
	a.Delay = s.delay(r, c.Op)
	if r.Float64() >= s.faults {
		return a
	}
	fault := faults[c.Op][r.IntN(len(faults[c.Op]))]
	fault(&a)
	return a
}

// delay is how long a call takes: a few values that tie, or ones that never do.
func (s *storm) delay(r *rand.Rand, op subagenttest.Op) time.Duration {
	most := map[subagenttest.Op]time.Duration{
		subagenttest.OpCreate: 2 * time.Second, subagenttest.OpPrompt: 20 * time.Second,
		subagenttest.OpAbort: 3 * time.Second, subagenttest.OpRelease: time.Second,
	}[op]
	if s.seed%3 == 0 {
		return time.Duration(r.IntN(3)) * most / 2
	}
	return time.Duration(r.Int64N(int64(most)))
}

// faults is the menu: what can go wrong with each call.
var faults = map[subagenttest.Op][]func(*subagenttest.Action){
	subagenttest.OpCreate: {
		func(a *subagenttest.Action) { a.Err = errStorm },
		func(a *subagenttest.Action) { a.Hang = true },
		func(a *subagenttest.Action) { a.Deaf, a.Delay = true, a.Delay+time.Minute },
		func(a *subagenttest.Action) { a.Deaf, a.Delay = true, a.Delay*3 },
		func(a *subagenttest.Action) { a.Hang, a.Deaf = true, true },
		func(a *subagenttest.Action) { a.Err, a.Made = errStorm, true },
		func(a *subagenttest.Action) { a.Err, a.Lost = errStorm, true },
		func(a *subagenttest.Action) { a.Panic = errStorm },
		func(a *subagenttest.Action) { a.NoID = true },
		func(a *subagenttest.Action) { a.ID = "ses_same" },
	},
	subagenttest.OpPrompt: {
		func(a *subagenttest.Action) { a.Err = errStorm },
		func(a *subagenttest.Action) {
			a.Err = &subagent.SessionError{Op: "prompt", Class: subagent.ClassQuota, Err: errStorm}
		},
		func(a *subagenttest.Action) { a.Hang = true },
		func(a *subagenttest.Action) { a.Deaf = true },
		func(a *subagenttest.Action) { a.Deaf, a.Delay = true, a.Delay+time.Minute },
		func(a *subagenttest.Action) { a.Hang, a.Deaf = true, true },
		func(a *subagenttest.Action) { a.Panic = "storm" },
		func(a *subagenttest.Action) { a.Blank = true },
		func(a *subagenttest.Action) { a.Empty = true },
		func(a *subagenttest.Action) { a.Err, a.Orphan = errStorm, true },
		func(a *subagenttest.Action) { a.Text = strings.Repeat("long ", 80_000) },
	},
	subagenttest.OpAbort: {
		func(a *subagenttest.Action) { a.Err = errStorm },
		func(a *subagenttest.Action) { a.Hang = true },
		func(a *subagenttest.Action) { a.Hang, a.Deaf = true, true },
		func(a *subagenttest.Action) { a.Panic = "storm" },
		func(a *subagenttest.Action) { a.Delay += 9 * time.Second },
	},
	subagenttest.OpRelease: {
		func(a *subagenttest.Action) { a.Err = errStorm },
		func(a *subagenttest.Action) { a.Hang = true },
		func(a *subagenttest.Action) { a.Panic = "storm" },
	},
}

// name is what choices about a call's task are keyed by: its launch number.
func (s *storm) name(c subagenttest.Call) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Op == subagenttest.OpCreate {
		s.names[c.Task] = c.Create.Labels["n"]
	}
	return s.names[c.Task]
}

// parentScript is the misbehaving receiver.
func (s *storm) parentScript(n subagent.Notification, try int) subagenttest.Reply {
	if n.Final && s.liveChildren(n.Parent) < 0 {
		s.wrong("notification %s is for nobody", n.ID)
	}
	if s.calm.Load() {
		return subagenttest.Reply{Delay: time.Millisecond}
	}
	r := s.dice("notify", n.Parent, len(n.Notices), try)
	reply := subagenttest.Reply{Delay: time.Duration(r.Int64N(int64(2 * time.Second)))}
	if r.Float64() >= s.faults {
		return reply
	}
	replies := []subagenttest.Reply{
		{Err: errStorm}, {Err: errStorm, Lost: true}, {Refuse: true}, {Delivery: subagent.Busy}, {Panic: "storm"},
		{Hang: true}, {Hang: true, Deaf: true}, {Hang: true, Lost: true}, {Delivery: subagent.Busy},
	}
	if s.seed%5 == 0 {
		replies = append(replies, subagenttest.Reply{Delivery: subagent.Gone})
	}
	return replies[r.IntN(len(replies))]
}

func (s *storm) liveChildren(parent subagent.SessionID) int { return s.m.Pending(parent).Live }

// ctx ends after a random while.
func (s *storm) ctx(r *rand.Rand) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(r.Int64N(int64(30*time.Second))))
}
