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
	Err      error             // returned after the delay
	Panic    any               // panicked with after the delay
	Lost     bool              // it arrived, although the answer says otherwise

	// Delay passes before the answer; the end of the context cuts it short.
	Delay time.Duration
	Hang  bool // no answer before that end, or Parent.Let
	Deaf  bool // ignores the context
}

// Parent is a receiver of notifications for any number of parent sessions, with
// its own ledger. It implements subagent.Notifier.
type Parent struct {
	// Script decides about each call; try counts the calls with the same ID, from
	// 0; what was Busy comes again with another. It is called without locks, from the goroutine of the call. nil accepts
	// all. Set it before the first call.
	Script func(n subagent.Notification, try int) Reply

	let   chan struct{} // closed by Let
	letGo sync.Once

	mu         sync.Mutex // guards all below
	tries      map[string]int
	frozen     map[string]subagent.Notification
	inCall     map[subagent.SessionID]int
	batches    map[subagent.SessionID][]subagent.Notification
	seen       map[run]subagent.SessionID // where it arrived first
	accepted   map[receipt]string         // the batch that was accepted with it
	blamed     map[run]bool
	arrived    map[string]bool
	offered    map[string]bool // in frozen as it was offered, with its Wake
	deposited  map[string]bool // accepted without a turn, because the parent was busy
	woken      []string
	wire       int
	doubled    int
	violations []string
}

type run struct {
	task subagent.TaskID
	run  int
}

// receipt is what one parent has of a run. What a child accepted whose task had ended by
// then comes to the next parent above too.
type receipt struct {
	run
	parent subagent.SessionID
}

// NewParent makes a receiver. When the test ends, calls that hang are let go and
// violations fail the test.
func NewParent(tb testing.TB) *Parent {
	p := &Parent{
		let: make(chan struct{}), tries: map[string]int{}, frozen: map[string]subagent.Notification{},
		inCall: map[subagent.SessionID]int{}, batches: map[subagent.SessionID][]subagent.Notification{},
		seen: map[run]subagent.SessionID{}, accepted: map[receipt]string{}, blamed: map[run]bool{}, arrived: map[string]bool{}, deposited: map[string]bool{}, offered: map[string]bool{},
	}
	tb.Cleanup(func() {
		tb.Helper()
		p.Let()
		for _, v := range p.Violations() {
			tb.Errorf("subagenttest: %s", v)
		}
	})
	return p
}

// Let ends every call that hangs or waits, now and from now on, deaf or not. It is
// called when the test ends; before that it plays a host that recovers.
func (p *Parent) Let() { p.letGo.Do(func() { close(p.let) }) }

// Notify implements subagent.Notifier.
func (p *Parent) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	try := p.begin(n)
	defer p.leave(n.Parent) // also when it panics
	var r Reply
	if p.Script != nil {
		r = p.Script(n, try)
	}
	answered := p.pause(ctx, r)
	ok := answered && r.Err == nil && r.Panic == nil && !r.Refuse && (r.Delivery == subagent.Unknown || r.Delivery == subagent.Accepted)
	switch {
	case n.Handover == subagent.HandWake:
		p.wake(n, ok)
	case ok || r.Lost:
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
	if p.inCall[n.Parent]++; p.inCall[n.Parent] > 1 {
		p.violate("two calls for parent %q at the same time", n.Parent)
	}
	p.frozenLocked(n)
	if n.Wake == (n.Handover == subagent.HandDeposit) && n.Handover != subagent.HandOffer {
		p.violate("notification %s is handed over as %v and asks for a turn: %v", n.ID, n.Handover, n.Wake)
	}
	if n.Handover == subagent.HandWake {
		if !p.deposited[n.ID] {
			p.violate("notification %s asks for its turn, and was not deposited, or has had it", n.ID)
		}
		return try
	}
	p.checkLocked(n)
	return try
}

// frozenLocked sees that a notification is as it was, but for what the handover changes.
func (p *Parent) frozenLocked(n subagent.Notification) {
	as := clone(n)
	before, ok := p.frozen[n.ID]
	offer := n.Handover == subagent.HandOffer
	if as.Handover = subagent.HandOffer; ok && !(offer && p.offered[n.ID]) {
		as.Wake = before.Wake
	}
	if ok && !reflect.DeepEqual(before, as) {
		p.violate("notification %s changed between two sends", n.ID)
	}
	if offer {
		as.Wake, p.offered[n.ID] = n.Wake, true
	}
	p.frozen[n.ID] = as
}

// wake takes in that the turn of a deposit was asked for.
func (p *Parent) wake(n subagent.Notification, begun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if begun {
		delete(p.deposited, n.ID)
		p.woken = append(p.woken, n.ID)
	}
}

// Woken are the IDs of deposits whose turn was asked for later, and accepted.
func (p *Parent) Woken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.woken)
}

// clone keeps what the ledger compares with out of the script's reach.
func clone(n subagent.Notification) subagent.Notification {
	n.Notices = slices.Clone(n.Notices)
	n.Earlier = slices.Clone(n.Earlier)
	return n
}

// checkLocked looks at a notification by itself, and at what was accepted before.
// At which parent a run may arrive it can't say: when a parent that is a task ends,
// what it was owed goes to the next one above, and may have arrived before. At
// tells where it did.
func (p *Parent) checkLocked(n subagent.Notification) {
	switch {
	case n.ID == "":
		p.violate("a notification for %q has no id", n.Parent)
	case n.Parent == "":
		p.violate("notification %s has no parent", n.ID)
	case n.Text == "":
		p.violate("notification %s has no text", n.ID)
	}
	if n.Final != (n.Remaining == 0) {
		p.violate("notification %s is final: %v, with %d remaining", n.ID, n.Final, n.Remaining)
	}
	within := map[run]bool{}
	for _, notice := range n.Notices {
		r := run{notice.Task, notice.Run}
		if within[r] {
			p.violate("notification %s tells of task %s run %d twice", n.ID, r.task, r.run)
		}
		within[r] = true
		p.onceLocked(receipt{r, n.Parent}, n.ID)
	}
}

// onceLocked notices, once per run, that it comes though it was accepted before.
func (p *Parent) onceLocked(r receipt, id string) {
	if before, ok := p.accepted[r]; ok && !p.blamed[r.run] {
		p.blamed[r.run] = true
		p.violate("task %s run %d was accepted with %s and comes again with %s", r.task, r.run.run, before, id)
	}
}

func (p *Parent) leave(parent subagent.SessionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inCall[parent]--
}

// Take enters a notification that came another way, by Drain, into the ledger. Call
// it where the drain is acknowledged as delivered.
func (p *Parent) Take(n subagent.Notification) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkLocked(n)
	p.arriveLocked(clone(n), true)
}

func (p *Parent) arrive(n subagent.Notification, accepted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arriveLocked(clone(n), accepted)
}

func (p *Parent) arriveLocked(n subagent.Notification, accepted bool) {
	if accepted && n.Handover == subagent.HandDeposit {
		p.deposited[n.ID] = true
	}
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
		if accepted {
			p.onceLocked(receipt{r, n.Parent}, n.ID) // two calls may have been out
			p.accepted[receipt{r, n.Parent}] = n.ID
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

// Wire is how many calls were made, with those that failed and those that came
// again.
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

// Violations lists broken promises of the manager: two calls for one parent at the
// same time, a notification that changed between two sends, a run that comes again
// after it was accepted, a final notification with children remaining, a turn asked for
// that was not put off.
func (p *Parent) Violations() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.violations)
}

func (p *Parent) violate(format string, args ...any) {
	p.violations = append(p.violations, fmt.Sprintf(format, args...))
}

var _ subagent.Notifier = (*Parent)(nil)
