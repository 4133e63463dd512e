package subagent

import (
	"math/bits"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent/internal/heap"
)

// The line of one key: plain data, no lock of its own, no goroutine. The manager's
// mu guards all of it.

// ticket is one place in a queue: a pending task's, or that of somebody who waits
// in Acquire. It also names the semaphores that its lease will take.
type ticket struct {
	seq   uint64 // order of enqueue over all queues: the age
	sems  [numShares]*semaphore
	taker taker // who gets the lease

	block *block // where it stands; nil while it does not wait
	spot  *spot  // while there are lanes
	slot  int16
	// passes counts the younger tickets of its queue that went first while it
	// was held up by its parent's cap, late how often it came too late for one of
	// several limits; both at most maxPasses.
	passes, late int16
}

// spot is a ticket's place in its lane.
type spot struct {
	lane       *lane
	prev, next *ticket
}

// taker gets the lease of a ticket that left the queue for it.
type taker interface {
	grantLocked(*BackgroundManager, lease)
	since(*BackgroundManager) time.Time // when it began to wait
}

// before is the order of lanes and queues: by age.
func (t *ticket) before(o *ticket) bool { return t.seq < o.seq }

// blockSize is how many tickets share a block. A position costs one step per block.
const blockSize = 256

// block is a stretch of a fifo. A ticket that leaves the middle leaves a hole; a
// block without tickets leaves the fifo.
type block struct {
	tickets    [blockSize]*ticket
	set        [blockSize / 64]uint64 // a bit for each slot with a ticket
	used       int16                  // slots handed out
	live       int16                  // tickets still here
	fifo       *fifo
	prev, next *block

	before int    // tickets in the blocks before this one …
	as     uint64 // … when the fifo's removals were at this number
}

// fifo holds tickets in order of enqueue. Push, remove and first take constant
// time; position takes one step per block, once after each removal.
type fifo struct {
	head, tail *block
	n          int
	removals   uint64 // from 1
}

func (f *fifo) push(t *ticket) {
	b := f.tail
	if b == nil || b.used == blockSize {
		b = &block{fifo: f, prev: f.tail}
		if f.tail == nil {
			f.head = b
		} else {
			f.tail.next = b
		}
		f.tail = b
	}
	b.tickets[b.used] = t
	b.set[b.used/64] |= 1 << (b.used % 64)
	t.block, t.slot = b, b.used
	b.used++
	b.live++
	f.n++
}

func (f *fifo) remove(t *ticket) {
	b := t.block
	b.tickets[t.slot] = nil
	b.set[t.slot/64] &^= 1 << (t.slot % 64)
	t.block = nil
	b.live--
	f.n--
	f.removals++
	if b.live > 0 {
		return
	}
	if b.prev == nil {
		f.head = b.next
	} else {
		b.prev.next = b.next
	}
	if b.next == nil {
		f.tail = b.prev
	} else {
		b.next.prev = b.prev
	}
}

// first is the oldest ticket, or nil.
func (f *fifo) first() *ticket {
	if f.head == nil {
		return nil
	}
	for i, word := range f.head.set {
		if word != 0 {
			return f.head.tickets[i*64+bits.TrailingZeros64(word)]
		}
	}
	panic("subagent: a block without tickets was left in its queue")
}

// position is a waiting ticket's place, from 1; 0 for one that does not wait.
func (t *ticket) position() int {
	b := t.block
	if b == nil {
		return 0
	}
	n := b.fifo.ahead(b) + 1
	for i := range t.slot / 64 {
		n += bits.OnesCount64(b.set[i])
	}
	return n + bits.OnesCount64(b.set[t.slot/64]&(1<<(t.slot%64)-1))
}

// ahead is how many tickets stand in the blocks before b.
func (f *fifo) ahead(b *block) int {
	if b == f.tail {
		return f.n - int(b.live) // as every launch asks
	}
	if b.as != f.removals {
		n, p := 0, b.prev
		for ; p != nil && p.as != f.removals; p = p.prev {
			n += int(p.live)
		}
		if p != nil {
			n += p.before + int(p.live)
		}
		b.before, b.as = n, f.removals
	}
	return b.before
}

// queue is the line of one key.
type queue struct {
	all fifo

	// lanes part the line by parent while a cap per parent is set, so that a
	// parent at its cap holds up its own tickets only, or while parents take turns.
	// nil otherwise.
	lanes map[*semaphore]*lane
	open  heap.Heap[*lane] // lanes whose parent is not at its cap
	fair  bool             // lanes take turns; else the one with the oldest head is next
	turns uint64           // given out so far

	age   uint64             // seq of the ticket it competes with
	home  *heap.Heap[*queue] // where it stands: m.fresh, or a semaphore's waiting; nil: idle
	place int
}

func newQueue(keys *KeyLimits) *queue {
	q := &queue{all: fifo{removals: 1}, fair: keys.Fair}
	q.split(keys.parted())
	return q
}

func (q *queue) Before(o *queue) bool { return q.age < o.age }
func (q *queue) Place() *int          { return &q.place }

// lane is one parent's part of a queue, in order of enqueue.
type lane struct {
	queue      *queue
	parent     *semaphore
	head, tail *ticket
	parked     bool // stands aside, and not in queue.open: its parent is at its cap
	place      int
	turn       uint64 // its place in the round, the lowest first; 0 where no turns are taken
}

func (l *lane) Before(o *lane) bool {
	return l.turn < o.turn || l.turn == o.turn && l.head.before(o.head)
}
func (l *lane) Place() *int { return &l.place }

// lineUp sends a lane to the end of the round, where turns are taken: when it joins,
// and with each of its tickets that is granted. So no other lane comes before a head
// twice, whatever leaves and joins meanwhile. One that stands aside keeps its turn.
func (l *lane) lineUp() {
	if q := l.queue; q.fair {
		q.turns++
		l.turn = q.turns
	}
}

func (q *queue) push(t *ticket) {
	q.all.push(t)
	if q.lanes != nil {
		q.joinLane(t)
	}
}

func (q *queue) joinLane(t *ticket) {
	parent := t.sems[shareParent]
	l := q.lanes[parent]
	if l == nil {
		l = &lane{queue: q, parent: parent, head: t}
		l.lineUp()
		q.lanes[parent] = l
		if parent != nil {
			parent.lanes = append(parent.lanes, l)
		}
		if l.parked = l.parks(); !l.parked {
			q.open.Push(l)
		}
	}
	t.spot = &spot{lane: l, prev: l.tail}
	if l.tail != nil {
		l.tail.spot.next = t
	}
	l.tail = t
}

func (q *queue) remove(t *ticket) {
	q.all.remove(t)
	if t.spot != nil {
		q.leaveLane(t)
	}
}

func (q *queue) leaveLane(t *ticket) {
	at := t.spot
	t.spot = nil
	l := at.lane
	if at.prev == nil {
		l.head = at.next
	} else {
		at.prev.spot.next = at.next
	}
	if at.next == nil {
		l.tail = at.prev
	} else {
		at.next.spot.prev = at.prev
	}
	switch {
	case l.head == nil:
		l.leave()
	case !l.parked:
		q.open.Push(l)
	}
}

// parks reports whether the lane stands aside: its parent is at its cap.
func (l *lane) parks() bool { return l.parent != nil && l.parent.full() }

// settle puts the lane where it belongs now, and reports whether that is new.
func (l *lane) settle() bool {
	if l.parked == l.parks() {
		return false
	}
	l.parked = !l.parked
	if l.parked {
		l.queue.open.Remove(l)
	} else {
		l.queue.open.Push(l)
	}
	return true
}

// leave ends a lane without tickets.
func (l *lane) leave() {
	l.queue.open.Remove(l)
	delete(l.queue.lanes, l.parent)
	if p := l.parent; p != nil {
		i := slices.Index(p.lanes, l)
		p.lanes = slices.Delete(p.lanes, i, i+1)
	}
}

// aside reports whether a waiting ticket is passed over: its parent is at its cap.
func (t *ticket) aside() bool { return t.spot != nil && t.spot.lane.parked }

// candidate is the ticket that may start next: the oldest, or that whose lane has
// its turn, passing over those whose own parent is at its cap; nil when nobody may.
func (q *queue) candidate() *ticket {
	if q.lanes == nil {
		return q.all.first()
	}
	if l, ok := q.open.Top(); ok {
		return l.head
	}
	return nil
}

// split parts the line into lanes, or joins them again.
func (q *queue) split(byParent bool) {
	for _, l := range q.lanes {
		l.leave()
		for t := l.head; t != nil; {
			next := t.spot.next
			t.spot = nil
			t = next
		}
	}
	q.lanes, q.open = nil, heap.Heap[*lane]{}
	if !byParent {
		return
	}
	q.lanes = map[*semaphore]*lane{}
	for b := q.all.head; b != nil; b = b.next {
		for _, t := range b.tickets {
			if t != nil {
				q.joinLane(t)
			}
		}
	}
}
