package subagent

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-48fd9ae4/subagent/internal/heap"
)

// KeyKind is what a [Key] names.
type KeyKind uint8

const (
	ModelKey      KeyKind = iota + 1 // Name is "provider/model", or a bare name
	AgentKey                         // Name is an agent whose tasks name no model; in SetLimit, an agent altogether
	ProviderKey                      // Name is a provider, over all its models
	AgentTotalKey                    // Name is an agent, over all models it runs with
	GlobalKey                        // everything; no Name
	ParentKey                        // the children of one parent session; in SetLimit, without Name, of each
	StartsKey                        // sessions being created; no Name
	numKinds
)

var keyKinds = [...]string{
	ModelKey: "model", AgentKey: "agent", ProviderKey: "provider", AgentTotalKey: "agent_total",
	GlobalKey: "global", ParentKey: "parent", StartsKey: "starts",
}

// Key names a limit, and of the kinds [ModelKey] and [AgentKey] also a queue: a
// task waits in its model's queue, or in its agent's when it names no model. The
// kinds are namespaces of their own.
type Key struct {
	Kind KeyKind
	Name string
}

// String is "model:anthropic/opus", "agent:explore", "global" and so on.
func (k Key) String() string {
	if k == (Key{}) {
		return "none"
	}
	if int(k.Kind) >= len(keyKinds) || k.Kind == 0 {
		return fmt.Sprintf("KeyKind(%d):%s", k.Kind, k.Name)
	}
	if k.Name == "" {
		return keyKinds[k.Kind]
	}
	return keyKinds[k.Kind] + ":" + k.Name
}

// MarshalText writes the key as its String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(text []byte) error {
	kind, name, _ := strings.Cut(string(text), ":")
	i := slices.Index(keyKinds[:], kind)
	if i <= 0 {
		if string(text) == (Key{}).String() {
			*k = Key{}
			return nil
		}
		return &InputError{"Key", strconv.Quote(string(text)), "must be a kind, and a name after a colon"}
	}
	*k = Key{KeyKind(i), name}
	return nil
}

// keyOf is the queue that work falls under.
func keyOf(agent, model string) Key {
	if model != "" {
		return Key{ModelKey, model}
	}
	return Key{AgentKey, agent}
}

// providerOf is what stands before a model's first slash; "" if there is none.
func providerOf(model string) string {
	provider, _, ok := strings.Cut(model, "/")
	if !ok {
		return ""
	}
	return provider
}

// parted reports whether queues have a lane for each parent.
func (l *KeyLimits) parted() bool { return l.Fair || l.PerParent != Off }

// limitOf resolves the limit of a key from what is configured.
func (l *KeyLimits) limitOf(k Key) int {
	switch k.Kind {
	case ModelKey:
		return cmp.Or(l.Models[k.Name], cmp.Or(l.Providers[providerOf(k.Name)], l.Default))
	case AgentKey:
		return cmp.Or(l.Agents[k.Name], l.Default)
	case AgentTotalKey:
		return cmp.Or(l.Agents[k.Name], Off)
	case ProviderKey:
		return cmp.Or(l.Providers[k.Name], Off)
	case GlobalKey:
		return l.Global
	case StartsKey:
		return l.Starts
	default:
		return l.PerParent
	}
}

// The shares of a lease: one place in each semaphore that applies.
const (
	shareParent = iota // looked at first: a full parent is passed over, all else is waited for
	shareKey
	shareProvider
	shareAgent
	numShares // what a ticket names itself; the two below are the manager's

	shareGlobal = numShares
	shareStarts = numShares + 1
	leaseShares = numShares + 2
)

// semaphore counts the leases of one key. Guarded by mu.
type semaphore struct {
	key     Key
	limit   int // Off: none
	held    int
	refs    int               // tickets that name it; at 0 it leaves the books
	queue   *queue            // the line of a model or of an agent; nil for other kinds
	waiting heap.Heap[*queue] // queues whose candidate waits for room here
	lanes   []*lane           // a parent's cap only: its lanes, passed over
	freed   bool              // stands in the manager's freed list
	claim   *ticket           // a place is kept for it
}

func (s *semaphore) full() bool { return s.limit != Off && s.held >= s.limit }

// lease is permission to run: a place in every semaphore that applies to a ticket,
// taken whole under mu and given back once, place by place or all together. It has a
// bit for each share that is held.
type lease uint8

func (l lease) has(share int) bool { return l&(1<<share) != 0 }

// shareLocked is the semaphore that a share of a ticket's lease is a place in; nil if
// none applies.
func (m *BackgroundManager) shareLocked(t *ticket, share int) *semaphore {
	switch share {
	case shareGlobal:
		return m.global
	case shareStarts:
		if _, creates := t.taker.(*task); creates {
			return m.starts
		}
		return nil
	default:
		return t.sems[share]
	}
}

// takeLocked takes the lease of a ticket, all or nothing; full is the first
// semaphore without room.
func (m *BackgroundManager) takeLocked(t *ticket) (l lease, full *semaphore) {
	for share := range leaseShares {
		if s := m.shareLocked(t, share); s != nil {
			if s.fullFor(t) {
				return 0, s
			}
			l |= 1 << share
		}
	}
	for share := range leaseShares {
		if l.has(share) {
			m.shareLocked(t, share).held++
		}
	}
	if parent := t.sems[shareParent]; parent != nil {
		m.settleLanesLocked(parent)
	}
	return l, nil
}

// freeLocked gives one share of a ticket's lease back, if it is still held.
func (m *BackgroundManager) freeLocked(t *ticket, l *lease, share int) {
	if !l.has(share) {
		return
	}
	*l &^= 1 << share
	s := m.shareLocked(t, share)
	if s.held--; s.held < 0 {
		panic("subagent: lease released twice: " + s.key.String())
	}
	m.roomLocked(s)
}

// releaseLocked gives a whole lease back.
func (m *BackgroundManager) releaseLocked(t *ticket, l *lease) {
	for share := range leaseShares {
		m.freeLocked(t, l, share)
	}
}

// roomLocked notes that a semaphore may have room, for the next dispatch.
func (m *BackgroundManager) roomLocked(s *semaphore) {
	m.settleLanesLocked(s)
	if !s.freed && s.waiting.Len() > 0 {
		s.freed = true
		m.freed = append(m.freed, s)
	}
}

// settleLanesLocked takes the lanes of a parent out of the competition, or back
// into it, when it has come to its cap, or has room again.
func (m *BackgroundManager) settleLanesLocked(s *semaphore) {
	for _, l := range s.lanes {
		if l.settle() {
			m.freshenLocked(l.queue)
		}
	}
}

// freshenLocked has a queue compete in the next dispatch, whatever it waited for;
// one whose own limit is used up, as most are, needs no try to know what for.
func (m *BackgroundManager) freshenLocked(q *queue) {
	if q.home != nil {
		q.home.Remove(q)
		q.home = nil
	}
	t := q.candidate()
	if t == nil {
		return
	}
	home := &m.fresh
	if own := t.sems[shareKey]; own.fullFor(t) {
		home = &own.waiting
	}
	q.enter(home, t)
}

func (q *queue) enter(home *heap.Heap[*queue], t *ticket) {
	q.age, q.home = t.seq, home
	home.Push(q)
}

// maxPasses is how often the head of a queue is passed by because of its own
// parent's cap, and then its queue starts nobody else before it; and how often a
// ticket comes too late for one of several limits before it claims its places.
const maxPasses = 64

// dispatchLocked starts everything that can start, the oldest first. It runs
// after every enqueue, removal, release and change of a limit; its cost depends
// on what it starts and not on how many wait.
func (m *BackgroundManager) dispatchLocked() {
	for q, waited := m.oldestLocked(); q != nil; q, waited = m.oldestLocked() {
		m.tryLocked(q, waited)
	}
}

// oldestLocked takes the queue with the oldest candidate among those that may
// have become able to start one, and says where it waited; nil when there is none.
func (m *BackgroundManager) oldestLocked() (_ *queue, waited *heap.Heap[*queue]) {
	best, _ := m.fresh.Top()
	for i := 0; i < len(m.freed); {
		s := m.freed[i]
		q := s.next()
		if q == nil {
			s.freed = false
			last := len(m.freed) - 1
			m.freed[i], m.freed[last] = m.freed[last], nil
			m.freed = m.freed[:last]
			continue
		}
		if best == nil || q.Before(best) {
			best = q
		}
		i++
	}
	if best != nil {
		waited = best.home
		waited.Remove(best)
		best.home = nil
	}
	return best, waited
}

// tryLocked starts the candidate of a queue, or puts the queue where it will be
// found when what it lacks is there.
func (m *BackgroundManager) tryLocked(q *queue, waited *heap.Heap[*queue]) {
	t := q.candidate()
	if t == nil {
		return
	}
	head := q.all.first()
	passed := head != t && head.aside() // and does not just wait for its parent's turn
	if passed && head.passes >= maxPasses {
		q.enter(&head.sems[shareParent].waiting, head)
		return
	}
	l, full := m.takeLocked(t)
	if full != nil {
		if waited != &m.fresh && waited != &full.waiting {
			m.lateLocked(t)
		}
		q.enter(&full.waiting, t)
		return
	}
	if passed {
		head.passes++
	}
	m.grantLocked(t, l)
}

// grantLocked takes a ticket out of its queue and gives it its lease. This, and no
// other departure, is its lane's turn: a parent that cancels much would else be sent
// to the end of the round again and again without having had anything.
func (m *BackgroundManager) grantLocked(t *ticket, l lease) {
	if t.spot != nil {
		t.spot.lane.lineUp() // unqueueLocked moves it there
	}
	m.unqueueLocked(t)
	t.taker.grantLocked(m, l)
}

// enqueueLocked puts a ticket at the end of the queue of its key. By age and by turn
// it comes after the candidate, so that a queue which has one waits for the same.
func (m *BackgroundManager) enqueueLocked(t *ticket) {
	q := t.sems[shareKey].queue
	m.seq++
	t.seq = m.seq
	q.push(t)
	if q.home == nil {
		m.freshenLocked(q)
	}
}

// leaveQueueLocked takes a task that will not start out of its queue.
func (m *BackgroundManager) leaveQueueLocked(t *task) {
	if t.block == nil {
		return
	}
	m.unqueueLocked(&t.ticket)
	m.dropSharesLocked(&t.ticket)
}

// unqueueLocked takes a waiting ticket out and lets the rest of its queue compete.
func (m *BackgroundManager) unqueueLocked(t *ticket) {
	q := t.sems[shareKey].queue
	q.remove(t)
	m.unclaimLocked(t)
	m.freshenLocked(q)
}
