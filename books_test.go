package subagent

import (
	"errors"
	"fmt"
)

// CheckBooks returns an error for each thing in the books that contradicts
// another. It holds at every instant at which mu is free. leases are those that
// the caller took with Acquire and has not given back; reserved counts places
// taken with Reserve, by root.
func (m *BackgroundManager) CheckBooks(leases []*Lease, reserved map[SessionID]int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := checker{m: m, held: map[*semaphore]int{}, refs: map[*semaphore]int{}}
	c.leases(leases)
	c.tasks(reserved)
	c.queues()
	c.semaphores()
	c.mailboxes()
	c.clock()
	return errors.Join(c.errs...)
}

type checker struct {
	m    *BackgroundManager
	held map[*semaphore]int
	refs map[*semaphore]int
	errs []error
}

func (c *checker) that(ok bool, format string, args ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

func (c *checker) hold(l lease, t *ticket) {
	for share := range leaseShares {
		if l.has(share) {
			c.held[c.m.shareLocked(t, share)]++
		}
	}
	c.name(t)
}

func (c *checker) name(t *ticket) {
	for _, s := range t.sems {
		if s != nil {
			c.refs[s]++
		}
	}
}

func (c *checker) leases(leases []*Lease) {
	for _, l := range leases {
		c.hold(l.lease, l.ticket)
	}
	for w := range c.m.waiters {
		c.that(w.block != nil && !w.granted, "a waiter that is in no queue is kept")
		c.name(&w.ticket)
	}
}

func (c *checker) tasks(reserved map[SessionID]int) {
	m := c.m
	var count [numStatuses]int
	live := map[*root]int{}
	children, doomed, inherited := map[*mailbox]int{}, map[*mailbox]int{}, map[*mailbox]int{}
	gaps, shelved, bytes, number := 0, 0, 0, int32(-1)
	for _, t := range m.tasks {
		c.that(t.number > number && t.number < m.numbered, "task %s is not where it belongs", t.id)
		number = t.number
		if t.forgotten {
			gaps++
			c.that(t.status.Terminal() && !t.shelved && m.byID[t.id] == nil && m.bySession[t.session] != t, "task %s is forgotten, and still in the books", t.id)
			continue
		}
		if t.shelved {
			shelved, bytes = shelved+1, bytes+t.textBytes()
		}
		count[t.status]++
		c.that(m.byID[t.id] == t, "task %s is not where it belongs", t.id)
		if !t.status.Terminal() {
			live[t.root]++
			children[t.owner]++
			switch heir := t.owner.heirLocked(); {
			case t.reason.is(ParentGone):
				doomed[t.owner]++
			case heir != t.owner:
				inherited[heir]++
			}
		}
		c.task(t)
	}
	c.that(gaps == int(m.gaps) && (gaps == 0 || gaps*2 < len(m.tasks)), "%d of %d tasks are forgotten, and %d counted", gaps, len(m.tasks), m.gaps)
	c.that(shelved == m.shelf.n && bytes == m.shelf.bytes, "%d tasks with %d bytes are on the shelf, and %d with %d counted", shelved, bytes, m.shelf.n, m.shelf.bytes)
	c.that(m.cfg.Retention.Age == Off || m.phase == over || (len(m.shelf.tasks) > 0) == (m.shelf.deadline.place != 0), "%d are on the shelf, and its deadline is set: %v", len(m.shelf.tasks), m.shelf.deadline.place != 0)
	past := map[*task]int{}
	for _, b := range m.mailboxes {
		for _, d := range append(b.batched[:len(b.batched):len(b.batched)], b.ended...) {
			c.that(!d.task.forgotten, "task %s is forgotten, and owed", d.task.id)
			c.that(d.past != nil || d.run == d.task.run && d.task.status.Terminal(), "run %d of task %s is owed, and it is %s in run %d", d.run, d.task.id, d.task.status, d.task.run)
			if d.past != nil {
				past[d.task]++
			}
		}
	}
	for _, t := range m.tasks {
		c.that(past[t] == int(t.past), "task %s is owed %d times for earlier runs, and %d counted", t.id, past[t], t.past)
	}
	for _, b := range m.mailboxes {
		c.that(b.lent == 0 || b.orphaned() && b.out() && b.lent == len(b.batched)+len(b.ended), "mailbox %q counts %d that are out though its task has ended", b.origin.Parent, b.lent)
		if b.lent > 0 {
			inherited[b.heirLocked()] += b.lent
		}
	}
	m.count[none] = 0
	c.that(count == m.count, "statuses are counted as %v and are %v", m.count, count)
	for id, b := range m.mailboxes {
		c.that(b.doomed == doomed[b], "mailbox %q counts %d that are stopped with an ancestor, and there are %d", id, b.doomed, doomed[b])
		c.that(b.inherited == inherited[b], "mailbox %q counts %d that ended children left, and there are %d", id, b.inherited, inherited[b])
	}
	total := 0
	for _, t := range m.tasks {
		if t.forgotten {
			continue
		}
		n, want := t.root.live, live[t.root]
		if m.roots[t.root.id] == t.root {
			want += reserved[t.root.id]
		}
		c.that(n == want, "root %q counts %d live descendants and has %d", t.root.id, n, want)
		c.that(t.owner.live == children[t.owner], "mailbox %q counts %d live children and has %d", t.owner.origin.Parent, t.owner.live, children[t.owner])
		if !t.status.Terminal() {
			total++
		}
	}
	c.that(m.live == total, "%d tasks are counted as live and %d are", m.live, total)
	for id, r := range m.roots {
		c.that(r.id == id && r.live >= 0 && r.total >= r.live, "root %q counts %d live of %d", id, r.live, r.total)
	}
}

func (c *checker) task(t *task) {
	m := c.m
	c.that((t.status == Pending) == (t.block != nil), "task %s is %s and its place in a queue is %v", t.id, t.status, t.block != nil)
	holds := t.status == Starting || t.status == Running || t.status == InputNeeded || t.status == Stopping
	c.that(holds == (t.cur != nil), "task %s is %s and has a current attempt: %v", t.id, t.status, t.cur != nil)
	c.that(t.status.Terminal() == (t.ended != 0), "task %s is %s and ended at %v", t.id, t.status, t.ended)
	c.that(t.status == Completed == (t.reason == nil) || !t.status.Terminal(), "task %s is %s because of %v", t.id, t.status, t.reason)
	c.that(t.ending == nil || !t.status.Terminal(), "task %s has ended and has waiters", t.id)
	if t.status == Pending {
		c.name(&t.ticket)
	}
	if t.cur != nil {
		c.hold(t.cur.lease, &t.ticket)
		c.that(t.cur.lease.has(shareKey), "task %s is %s without a lease", t.id, t.status)
		c.that(t.cur.place > 0 && m.attempts[t.cur.place-1] == t.cur, "the attempt of task %s is not listed", t.id)
		c.that(t.status != Stopping || t.cur.deadline.place != 0 || m.phase == over, "task %s is stopping without a deadline", t.id)
		c.that(t.status != Starting || t.limits.Start == Off || t.cur.call == introducing || t.cur.deadline.place != 0, "task %s is starting without a deadline", t.id)
	} else if t.status != Pending {
		c.that(t.ticket.sems == [numShares]*semaphore{}, "task %s is %s and names limits", t.id, t.status)
	}
	c.that((t.unstoppedLocked() != nil) == has(m.unstopped, t), "task %s is listed as unstopped: %v; its attempt says %v", t.id, has(m.unstopped, t), t.unstoppedLocked())
	if t.session != "" {
		c.that(m.bySession[t.session] == t, "session %s of task %s is not found", t.session, t.id)
	}
	if t.status == Stopping || t.status.Terminal() && t.status != Completed {
		c.descendantsEnd(t)
	}
}

// descendantsEnd: below a stopped task nothing is open.
func (c *checker) descendantsEnd(t *task) {
	own := t.own
	c.that(own == c.m.mailboxes[t.session] || t.session == "", "task %s does not know its own mailbox", t.id)
	if own == nil {
		return
	}
	for _, list := range [][]*task{own.children, own.adopted} {
		for _, child := range list {
			c.that(child.status >= Stopping, "task %s is %s below %s, which is %s", child.id, child.status, t.id, t.status)
		}
	}
}

func has[K comparable, V any](m map[K]V, k K) bool {
	_, ok := m[k]
	return ok
}

// queues: nobody waits for what is there.
func (c *checker) queues() {
	m := c.m
	c.that(m.fresh.Len() == 0 && len(m.freed) == 0, "a dispatch was left undone: %d queues, %d semaphores", m.fresh.Len(), len(m.freed))
	for k, q := range m.queues() {
		n := 0
		var last uint64
		for b := q.all.head; b != nil; b = b.next {
			live := 0
			for _, t := range b.tickets {
				if t == nil {
					continue
				}
				n, live = n+1, live+1
				c.that(t.sems[shareKey].queue == q && t.block == b, "queue %s holds a ticket that is elsewhere", k)
				c.that(t.seq > last, "queue %s is not in order", k)
				c.that(t.position() == n, "place %d of queue %s says it is %d", n, k, t.position())
				last = t.seq
			}
			c.that(int(b.live) == live && live > 0, "a block of queue %s counts %d and holds %d", k, b.live, live)
		}
		c.that(n > 0 && n == q.all.n, "queue %s counts %d and holds %d", k, q.all.n, n)
		c.that((q.lanes != nil) == (m.cfg.Keys.Fair || m.cfg.Keys.PerParent != Off), "queue %s is parted: %v", k, q.lanes != nil)
		c.waits(k, q)
	}
}

func (c *checker) waits(k Key, q *queue) {
	turns := map[uint64]bool{}
	for _, l := range q.lanes {
		c.that(l.head != nil, "queue %s has an empty lane", k)
		c.that((l.turn != 0) == c.m.cfg.Keys.Fair && !turns[l.turn] && l.turn <= q.turns, "a lane of queue %s has turn %d of %d", k, l.turn, q.turns)
		turns[l.turn] = c.m.cfg.Keys.Fair
		c.that(l.parked == (l.place == 0), "a lane of queue %s is parked: %v; competes: %v", k, l.parked, l.place != 0)
		c.that(l.parked == l.parks(), "a lane of queue %s is parked: %v; its parent is at its cap: %v", k, l.parked, l.parks())
	}
	t := q.candidate()
	if t == nil {
		c.that(q.home == nil, "queue %s has no candidate and waits", k)
		return
	}
	if q.home == nil {
		c.that(false, "queue %s has a candidate and waits for nothing", k)
		return
	}
	var at *semaphore
	for _, s := range append(t.sems[:], c.m.global, c.m.starts, q.all.first().sems[shareParent]) {
		if s != nil && q.home == &s.waiting {
			at = s
		}
	}
	c.that(at != nil && at.fullFor(t), "queue %s waits where there is room", k)
}

func (c *checker) semaphores() {
	m := c.m
	for k, s := range m.limits() {
		c.that(s.key == k && s.refs == c.refs[s] && s.refs > 0, "limit %s counts %d references and has %d", k, s.refs, c.refs[s])
		c.that(s.held == c.held[s], "limit %s counts %d held and %d are", k, s.held, c.held[s])
	}
	for _, s := range []*semaphore{m.global, m.starts} {
		c.that(s.held == c.held[s], "limit %s counts %d held and %d are", s.key, s.held, c.held[s])
	}
	for s := range m.sems.each {
		c.that(s.claim == nil || s.claim == m.claimant && m.claimant.block != nil, "limit %s keeps a place for nobody", s.key)
	}
	for s := range c.held {
		c.that(m.sems[s.key.Kind][s.key.Name] == s, "limit %s is held and not in the books", s.key)
	}
}

func (c *checker) mailboxes() {
	m := c.m
	for id, b := range m.mailboxes {
		c.children(id, b)
		armed := b.deadline.place != 0
		timed := b.state == mailGathering || b.state == mailWaiting
		c.that(armed == timed || m.phase == over, "mailbox %q is in state %d and its deadline is set: %v", id, b.state, armed)
		c.chores(id, b)
		quietly := !m.pushes() || m.phase == over || b.orphaned() || b.held() || m.waitsForLastLocked(b)
		c.that(quietly || b.state != mailIdle || !b.owes(), "mailbox %q owes something and does nothing", id)
		c.that(b.batch != nil || !b.out() && b.state != mailParked && (b.state != mailWaiting || b.busy) || b.hand == HandWake && b.wake != nil, "mailbox %q is in state %d without a batch", id, b.state)
		c.that(len(b.earlier) <= maxEarlier, "mailbox %q keeps %d earlier notices", id, len(b.earlier))
	}
}

// children: the forgotten ones are counted, and a mailbox without others is gone when it
// has nothing to say.
func (c *checker) children(id SessionID, b *mailbox) {
	for _, list := range []struct {
		tasks []*task
		gaps  int32
	}{{b.children, b.gaps}, {b.adopted, b.gapsBelow}} {
		gaps := 0
		for _, t := range list.tasks {
			if t.forgotten {
				gaps++
			}
		}
		c.that(gaps == int(list.gaps), "%d children of %q are forgotten, and %d counted", gaps, id, list.gaps)
	}
}

// chores: what a mailbox keeps for long has its clock, and nothing else has.
func (c *checker) chores(id SessionID, b *mailbox) {
	needs := b.wake != nil || b.oldest() != 0 && c.m.cfg.Mailbox.KeepAge != Off
	armed := b.chores.place != 0
	if !b.out() && c.m.phase != over { // a launch leaves the one of a final notification
		c.that(needs == armed || armed && b.open, "mailbox %q has chores: %v; a deadline for them: %v", id, needs, armed)
	}
}

func (c *checker) clock() {
	m := c.m
	if d, ok := m.deadlines.Top(); ok && m.phase != over {
		c.that(m.timerAt != 0 && d.at >= m.timerAt, "a deadline at %v is before the timer at %v", d.at, m.timerAt)
	}
	for i, a := range m.attempts {
		c.that(int(a.place) == i+1, "attempt %d of the list says it is %d", i+1, a.place)
		c.that(a.current() || len(a.callsOut()) > 0, "an attempt of task %s is listed with nothing out", a.task.id)
	}
}

// queues are those in which somebody waits.
func (m *BackgroundManager) queues() map[Key]*queue {
	queues := map[Key]*queue{}
	for s := range m.sems.each {
		if s.queue != nil && s.queue.all.n > 0 {
			queues[s.key] = s.queue
		}
	}
	return queues
}

// limits are the semaphores that tickets name.
func (m *BackgroundManager) limits() map[Key]*semaphore {
	limits := map[Key]*semaphore{}
	for s := range m.sems.each {
		if s != m.global && s != m.starts {
			limits[s.key] = s
		}
	}
	return limits
}

// OutsideHolds counts leases and reservations that callers hold.
func (m *BackgroundManager) OutsideHolds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	leases, live, tasks := m.global.held, 0, 0
	for _, t := range m.tasks {
		if t.cur != nil {
			leases--
		}
		if !t.status.Terminal() && t.root.id != "" {
			tasks++
		}
	}
	for _, r := range m.roots {
		live += r.live
	}
	return leases + live - tasks
}
