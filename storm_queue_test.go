package subagent_test

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// place is a ticket as the outside sees it: a task's, or that of a caller of Acquire.
type place struct {
	key    subagent.Key
	parent subagent.SessionID
	shares []subagent.Key // the limits that it falls under
	run    *run           // nil: of Acquire
	lease  *subagent.Lease

	called, queued int       // stamps: it joined its queue between them; queued 0: perhaps not yet
	since          time.Time // when it was known to be in its queue …
	sinceRound     int       // … and after how many rests
	got            time.Time // when it was seen with its lease
	left           time.Time // when it gave that back, or gave up
	scanned        int       // how many of its line's starts it was compared with
	round          int       // of rests, in which it got it
	passes         int       // how often it was passed by …
	sure           int       // … while it was certainly the first

	turns map[subagent.SessionID]int // where parents take turns: who passed it by, and how often while it certainly was its own parent's first and had room under its cap
}

// line is one queue: its places in the order in which they were asked for, and those
// that got their lease in that order.
type line struct{ places, started, unseen []*place }

func (s *storm) line(k subagent.Key) *line {
	l := s.lines[k]
	if l == nil {
		l = &line{}
		s.lines[k] = l
	}
	return l
}

func (l *line) add(p *place) { l.places = append(l.places, p) }
func (l *line) drop(p *place) {
	l.places = slices.DeleteFunc(l.places, func(o *place) bool { return o == p })
}

// queue takes in that a place is in its queue.
func (s *storm) queue(p *place) { p.queued, p.since, p.sinceRound = s.tick(), time.Now(), s.rounds }

// epoch is the limits in force from an instant on, as they were set.
type epoch struct {
	from time.Time
	set  map[subagent.Key]int
}

// settings are the limits of a configuration, by key.
func settings(k subagent.KeyLimits) map[subagent.Key]int {
	set := map[subagent.Key]int{{}: k.Default, {Kind: subagent.GlobalKey}: k.Global, {Kind: subagent.ParentKey}: k.PerParent, {Kind: subagent.StartsKey}: k.Starts}
	for kind, named := range map[subagent.KeyKind]map[string]int{subagent.ModelKey: k.Models, subagent.ProviderKey: k.Providers, subagent.AgentKey: k.Agents} {
		for name, n := range named {
			set[subagent.Key{Kind: kind, Name: name}] = n
		}
	}
	return set
}

func (s *storm) newPlace(parent subagent.SessionID, agent, model string, r *run) place {
	p := place{parent: parent, run: r, called: s.tick(), key: subagent.Key{Kind: subagent.AgentKey, Name: agent}}
	if model != "" {
		p.key = subagent.Key{Kind: subagent.ModelKey, Name: model}
	}
	p.shares = []subagent.Key{p.key, {Kind: subagent.AgentTotalKey, Name: agent}, {Kind: subagent.GlobalKey}}
	if provider, _, ok := strings.Cut(model, "/"); ok {
		p.shares = append(p.shares, subagent.Key{Kind: subagent.ProviderKey, Name: provider})
	}
	if parent != "" {
		p.shares = append(p.shares, parentKey(parent))
	}
	if r != nil {
		p.shares = append(p.shares, subagent.Key{Kind: subagent.StartsKey})
	}
	return p
}

func parentKey(id subagent.SessionID) subagent.Key {
	return subagent.Key{Kind: subagent.ParentKey, Name: string(id)}
}

// limit is the limit of a key by the rules that KeyLimits states.
func (e epoch) limit(k subagent.Key) int {
	of := func(kind subagent.KeyKind, name string) int { return e.set[subagent.Key{Kind: kind, Name: name}] }
	fallback := subagent.Off
	switch provider, _, _ := strings.Cut(k.Name, "/"); k.Kind {
	case subagent.ModelKey:
		fallback = cmp.Or(of(subagent.ProviderKey, provider), of(0, ""))
	case subagent.AgentKey:
		fallback = of(0, "")
	case subagent.AgentTotalKey:
		k.Kind = subagent.AgentKey
	case subagent.ParentKey:
		k.Name = ""
	}
	return cmp.Or(of(k.Kind, k.Name), fallback)
}

func (s *storm) limitNow(k subagent.Key) int { return s.epochs[len(s.epochs)-1].limit(k) }

const unlimited = 1 << 30

// bounds are the least and the greatest limit of a key that were in force in an
// instant.
func (s *storm) bounds(k subagent.Key, at time.Time) (least, most int) {
	least = unlimited
	for i := len(s.epochs) - 1; i >= 0; i-- {
		e := s.epochs[i]
		if e.from.After(at) {
			continue
		}
		n := e.limit(k)
		if n == subagent.Off {
			n = unlimited
		}
		least, most = min(least, n), max(most, n)
		if e.from.Before(at) {
			break
		}
	}
	return least, most
}

func (p *place) falls(under subagent.Key) bool {
	return slices.Contains(p.shares, under) && (under.Kind != subagent.StartsKey || p.run.creating)
}

// held counts who holds a lease under a key. With sure it leaves out what the
// manager says has ended: what is left has held its lease from its first call on.
func (s *storm) held(k subagent.Key, sure bool) (n int) {
	for _, p := range s.hold {
		if !p.falls(k) {
			continue
		}
		if sure && p.run != nil {
			if t, err := s.m.Get(p.run.of.id); err == nil && (t.Status.Terminal() || t.Run > p.run.number) {
				continue
			}
		}
		n++
	}
	return n
}

// heldAt is how many may have held a lease under a key in an instant that has passed.
func (s *storm) heldAt(k subagent.Key, at time.Time) (n int) {
	for _, l := range s.lines {
		for _, p := range slices.Concat(l.started, l.unseen) {
			if slices.Contains(p.shares, k) && !p.got.After(at) && (p.left.IsZero() || !p.left.Before(at)) {
				n++
			}
		}
	}
	return n
}

// took takes in that somebody has a lease: with it no limit in force is exceeded.
// All who are counted hold theirs now, and the last of them got it in this instant.
func (s *storm) took(p *place) {
	p.got, p.round = time.Now(), s.rounds
	s.hold = append(s.hold, p)
	for _, k := range p.shares {
		_, most := s.bounds(k, p.got)
		if s.held(k, false) > most {
			if n := s.held(k, true); n > most {
				s.wrong("%v: %d at once, and %d allowed", k, n, most)
			}
		}
	}
	l := s.line(p.key)
	l.started = append(l.started, p)
	s.fresh = append(s.fresh, p)
	s.compare(l, p)
}

func (s *storm) gaveBack(p *place, at time.Time) {
	p.left = at
	s.hold = slices.DeleteFunc(s.hold, func(o *place) bool { return o == p })
}

// before reports whether one certainly joined the queue before the other.
func (p *place) before(o *place) bool { return p.queued != 0 && p.queued < o.called }

// saw reports whether a place was certainly in its queue when another got its lease.
func (p *place) saw(o *place) bool {
	return p.queued != 0 && (o.got.After(p.since) || o.round > p.sinceRound)
}

// compare collects the younger ones that started before p, in an earlier instant if p
// has started too; where parents take turns, older ones as well.
func (s *storm) compare(l *line, p *place) {
	for ; p.scanned < len(l.started); p.scanned++ {
		other := l.started[p.scanned]
		if !p.got.IsZero() && !other.got.Before(p.got) {
			return
		}
		if p.before(other) || s.cfg.Keys.Fair && p != other && p.saw(other) {
			s.pairs = append(s.pairs, [2]*place{p, other})
		}
	}
}

func (p *place) waits() bool { return p.queued != 0 && p.got.IsZero() && p.left.IsZero() }

// checkOrder: nobody starts before an older one of its queue and parent, nor before one
// of another parent, unless that was at its cap or it was not its turn; and the head of
// a queue is passed by 64 times at most while its parent is at its cap.
func (s *storm) checkOrder() {
	for _, l := range s.lines {
		for _, p := range l.places {
			if p.waits() {
				s.compare(l, p)
			}
		}
	}
	for _, pair := range s.pairs {
		old, young := pair[0], pair[1]
		if older := old.before(young); older && old.parent == young.parent {
			s.wrong("%s of %v started before the older %s of the same parent", young, young.key, old)
		} else if s.cfg.Keys.Fair {
			s.checkTurn(old, young)
		} else if s.hadRoomUnderCap(old, young.got) {
			s.wrong("%s of %v started before the older %s, whose parent has room", young, young.key, old)
		}
		if !old.before(young) {
			continue
		}
		old.passes++
		if s.wasFirst(old, young, anybody) {
			old.sure++
		}
		if old.sure == maxPasses+1+len(old.turns) {
			s.wrong("%s of %v was passed by more than %d times", old, old.key, maxPasses+len(old.turns))
		}
	}
	s.pairs = s.pairs[:0]
	s.checkAge()
}

// hadRoomUnderCap reports whether a place's parent certainly was not at its cap.
func (s *storm) hadRoomUnderCap(p *place, at time.Time) bool {
	least, _ := s.bounds(parentKey(p.parent), at)
	return p.parent == "" || s.heldAt(parentKey(p.parent), at) < least
}

// checkTurn: where parents take turns, each other one has one at most before the first
// of a parent that is not at its cap.
func (s *storm) checkTurn(first, other *place) {
	if first.parent == other.parent {
		return // an older one of its own
	}
	if first.turns == nil {
		first.turns = map[subagent.SessionID]int{}
	}
	n := first.turns[other.parent]
	if s.wasFirst(first, other, first.sibling) && s.hadRoomUnderCap(first, other.got) {
		n++
	}
	first.turns[other.parent] = n
	if n == 2 {
		s.wrong("%s of %v was passed by %q twice", first, first.key, other.parent)
	}
}

// checkAge: of the heads of different queues that compete for a limit the oldest goes
// first. Who still waits had lost to a younger one of another queue if all limits that
// are not common to them had room, whatever happened in that instant.
func (s *storm) checkAge() {
	for _, young := range s.fresh {
		for k, l := range s.lines {
			for _, old := range l.places {
				if k != young.key && old.waits() && old.before(young) && s.wasNext(old, young) && s.hadRoom(old, young) {
					s.wrong("%s of %v started before the older %s of %v", young, young.key, old, k)
				}
			}
		}
	}
	s.fresh = s.fresh[:0]
}

// hadRoom reports whether every limit that old falls under and young does not had
// room in the instant in which young got its lease.
func (s *storm) hadRoom(old, young *place) bool {
	return !slices.ContainsFunc(old.shares, func(k subagent.Key) bool {
		least, _ := s.bounds(k, young.got)
		return !slices.Contains(young.shares, k) && s.heldAt(k, young.got) >= least
	})
}

func (p *place) String() string {
	if p.run == nil {
		return "an Acquire"
	}
	return "launch " + p.run.origin
}

const maxPasses = 64

// mayWait reports whether a place may have been in its queue when another got its lease.
func (p *place) mayWait(other *place) bool {
	started := !p.got.IsZero() && (p.got.Before(other.got) || p.round < other.round)
	return !started && (p.left.IsZero() || !p.left.Before(other.got))
}

func (p *place) sibling(o *place) bool { return p.parent == o.parent }

func anybody(*place) bool { return true }

// wasFirst reports whether nobody of those meant who may be older waited in the place's
// queue when another one passed by.
func (s *storm) wasFirst(p, other *place, meant func(*place) bool) bool {
	return !slices.ContainsFunc(s.line(p.key).places, func(o *place) bool {
		return o != p && meant(o) && o.mayWait(other) && !p.before(o)
	})
}

// wasNext reports whether the first of a queue certainly was the next to start there:
// where parents take turns, because no other parent's waited.
func (s *storm) wasNext(p, other *place) bool {
	taken := s.cfg.Keys.Fair && slices.ContainsFunc(s.line(p.key).places, func(o *place) bool {
		return !o.sibling(p) && o.mayWait(other)
	})
	return !taken && s.wasFirst(p, other, anybody)
}

// checkWork: nobody waits for what is there. Who is the first of a queue may not be
// known; one of those who may be it lacks room somewhere.
func (s *storm) checkWork() {
	for k, l := range s.lines {
		l.places = slices.DeleteFunc(l.places, func(p *place) bool { return !p.got.IsZero() || !p.left.IsZero() })
		waiting := slices.DeleteFunc(slices.Clone(l.places), func(p *place) bool { return !p.waits() })
		if len(waiting) == 0 || slices.ContainsFunc(waiting, func(p *place) bool { return p.passes >= maxPasses }) {
			continue
		}
		firsts := s.firsts(waiting)
		if len(firsts) > 0 && !slices.ContainsFunc(firsts, func(p *place) bool { return s.lacks(p) }) {
			s.wrong("%s waits in %v, and every limit has room", firsts[0], k)
		}
	}
}

// firsts are those of a queue who may be the next, their parents having room.
func (s *storm) firsts(waiting []*place) (firsts []*place) {
	competes := slices.DeleteFunc(slices.Clone(waiting), func(p *place) bool {
		return p.parent != "" && s.full(parentKey(p.parent))
	})
	for _, p := range competes {
		older := func(o *place) bool { return o.before(p) && (!s.cfg.Keys.Fair || o.sibling(p)) }
		if !slices.ContainsFunc(competes, older) {
			firsts = append(firsts, p)
		}
	}
	return firsts
}

func (s *storm) lacks(p *place) bool {
	return slices.ContainsFunc(p.shares, func(k subagent.Key) bool { return s.full(k) })
}

// full is exact at rest: the last of the limits set is the one in force.
func (s *storm) full(k subagent.Key) bool {
	n := s.limitNow(k)
	return n != subagent.Off && s.held(k, false) >= n
}

// checkHeld: what the manager counts is what the host and the callers of Acquire
// hold, and who waits.
func (s *storm) checkHeld() {
	for _, k := range s.m.Stats().Keys {
		if n := s.held(k.Key, false); n != k.Held {
			s.wrong("limit %v counts %d held, and %d are", k.Key, k.Held, n)
		}
		if n := s.waiting(k.Key); n != k.Waiting {
			s.wrong("queue %v counts %d, and %d wait", k.Key, k.Waiting, n)
		}
	}
}

func (s *storm) waiting(k subagent.Key) (n int) {
	for _, p := range s.line(k).places {
		if p.waits() {
			n++
		}
	}
	return n
}
