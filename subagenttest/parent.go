package subagenttest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Reply is what a [Parent] does with a notification. Its zero value accepts.
type Reply struct {
	Delivery subagent.Delivery // Unknown, the zero value, stands for Accepted unless Err or Refuse is set
	Refuse   bool              // really answer Unknown
	Err      error
	Delay    time.Duration
	Hang     bool // until the context ends, or Let
	Deaf     bool // ignores its context
	Panic    any
	Lost     bool // it arrived, although the answer says otherwise
}

// Parent is a receiver of notifications for any number of parent sessions, with
// its own ledger. It implements subagent.Notifier.
type Parent struct {
	// Script decides about each call; try counts the calls with the same ID, from
	// 0. nil accepts all. Set it before the first call.
	Script func(n subagent.Notification, try int) Reply

	let        chan struct{}
	mu         sync.Mutex // guards all below
	tries      map[string]int
	frozen     map[string]subagent.Notification
	inCall     map[subagent.SessionID]bool
	batches    map[subagent.SessionID][]subagent.Notification
	seen       map[run]subagent.SessionID
	accepted   map[run]string // the batch that was accepted with it
	arrived    map[string]bool
	wire       int
	doubled    int
	violations []string
}

type run struct {
	task subagent.TaskID
	run  int
}

// NewParent makes a receiver. When the test ends, calls that hang are let go and
// violations fail the test.
func NewParent(tb testing.TB) *Parent {
	p := &Parent{
		let: make(chan struct{}), tries: map[string]int{}, frozen: map[string]subagent.Notification{},
		inCall: map[subagent.SessionID]bool{}, batches: map[subagent.SessionID][]subagent.Notification{},
		seen: map[run]subagent.SessionID{}, accepted: map[run]string{}, arrived: map[string]bool{},
	}
	tb.Cleanup(func() {
		p.Let()
		for _, v := range p.Violations() {
			tb.Errorf("subagenttest: %s", v)
		}
	})
	return p
}

// Let ends every call that hangs, now and from now on.
func (p *Parent) Let() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.let:
	default:
		close(p.let)
	}
}

// Notify implements subagent.Notifier.
func (p *Parent) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	try := p.begin(n)
	defer p.leave(n.Parent)
	var r Reply
	if p.Script != nil {
		r = p.Script(n, try)
	}
	answered := p.pause(ctx, r)
	ok := answered && r.Err == nil && r.Panic == nil && !r.Refuse && (r.Delivery == subagent.Unknown || r.Delivery == subagent.Accepted)
	if ok || r.Lost {
		p.arrive(n, ok)
	}
	switch {
	case r.Panic != nil:
		panic(r.Panic)
	case !answered:
		return subagent.Unknown, context.Cause(ctx)
	case ok:
		return subagent.Accepted, nil
	}
	return r.Delivery, r.Err
}

// pause reports whether the call answers, and not its context.
func (p *Parent) pause(ctx context.Context, r Reply) bool {
	if !r.Hang && r.Delay == 0 {
		return true
	}
	var timer <-chan time.Time
	if !r.Hang {
		t := time.NewTimer(r.Delay)
		defer t.Stop()
		timer = t.C
	}
	done := ctx.Done()
	if r.Deaf {
		done = nil
	}
	select {
	case <-timer:
		return true
	case <-p.let:
		return true
	case <-done:
		return false
	}
}

// begin checks a call against what came before.
func (p *Parent) begin(n subagent.Notification) (try int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wire++
	try = p.tries[n.ID]
	p.tries[n.ID]++
	if p.inCall[n.Parent] {
		p.violate("two calls for parent %q at the same time", n.Parent)
	}
	p.inCall[n.Parent] = true
	if before, ok := p.frozen[n.ID]; ok && !reflect.DeepEqual(before, n) {
		p.violate("notification %s changed between two sends", n.ID)
	}
	p.frozen[n.ID] = n
	if n.Text == "" {
		p.violate("notification %s has no text", n.ID)
	}
	if n.Final != (n.Remaining == 0) {
		p.violate("notification %s is final: %v, with %d remaining", n.ID, n.Final, n.Remaining)
	}
	return try
}

func (p *Parent) leave(parent subagent.SessionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inCall[parent] = false
}

// Take enters a notification that came another way, by Drain, into the ledger.
func (p *Parent) Take(n subagent.Notification) { p.arrive(n, true) }

func (p *Parent) arrive(n subagent.Notification, accepted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.arrived[n.ID] {
		p.arrived[n.ID] = true
		p.batches[n.Parent] = append(p.batches[n.Parent], n)
	}
	for _, notice := range n.Notices {
		r := run{notice.Task, notice.Run}
		if _, ok := p.seen[r]; ok {
			p.doubled++
		} else {
			p.seen[r] = n.Parent
		}
		if batch, ok := p.accepted[r]; ok && accepted {
			p.violate("task %s run %d was accepted with %s and again with %s", r.task, r.run, batch, n.ID)
		}
		if accepted {
			p.accepted[r] = n.ID
		}
	}
}

// Seen returns the notices that arrived at a parent, each (Task, Run) once.
func (p *Parent) Seen(parent subagent.SessionID) []subagent.Notice {
	p.mu.Lock()
	defer p.mu.Unlock()
	var seen []subagent.Notice
	had := map[run]bool{}
	for _, n := range p.batches[parent] {
		for _, notice := range n.Notices {
			if r := (run{notice.Task, notice.Run}); !had[r] {
				had[r] = true
				seen = append(seen, notice)
			}
		}
	}
	return seen
}

// At returns the parent session at which a run's notice arrived first.
func (p *Parent) At(task subagent.TaskID, number int) (subagent.SessionID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.seen[run{task, number}]
	return s, ok
}

// Batches returns the notifications that arrived at a parent, each ID once.
func (p *Parent) Batches(parent subagent.SessionID) []subagent.Notification {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.batches[parent])
}

// Finals is how many of them were final.
func (p *Parent) Finals(parent subagent.SessionID) int {
	n := 0
	for _, b := range p.Batches(parent) {
		if b.Final {
			n++
		}
	}
	return n
}

// Wire is how many calls were made, and Doubled how many notices came again.
func (p *Parent) Wire() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wire
}

// Doubled is how many notices arrived that had arrived before.
func (p *Parent) Doubled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doubled
}

// Violations lists broken promises: overlapping calls for one parent, a batch
// that changed, a run accepted twice.
func (p *Parent) Violations() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.violations)
}

func (p *Parent) violate(format string, args ...any) {
	p.violations = append(p.violations, fmt.Sprintf(format, args...))
}

var _ subagent.Notifier = (*Parent)(nil)
