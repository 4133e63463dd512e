package subagent

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// Stats is a look at the whole manager at one instant.
type Stats struct {
	// Keys are the limits in use, sorted: every queue, every limit that something is
	// held under or waits for, and the global one and that of starts where they are set.
	Keys []KeyStats
	// Tasks counts the tasks in the books by status.
	Tasks map[Status]int
	// Forgotten counts the tasks that are not kept any more.
	Forgotten int
	// Unstopped counts the tasks whose child may still be running although they
	// have ended; Attempt.Unstopped says why.
	Unstopped int
	// Calls counts the calls of the client that are out to work or read in sessions:
	// Create, Prompt, Attach, Abort and Transcript.
	Calls   int
	Notices NoticeStats
	Events  EventStats
}

// KeyStats is the state of one limit.
type KeyStats struct {
	Key     Key
	Limit   int // Off: none
	Held    int
	Waiting int           // tasks, and callers of Acquire, in the queue of this key
	Oldest  time.Duration // how long the first task of that queue has waited
}

// NoticeStats counts what is owed, and what was told since New.
type NoticeStats struct {
	Owed       int              // notices that no parent has yet, as Pending shows them
	Parked     int              // parents whose batch was given up on, as Pending shows them
	Deliveries map[Delivery]int // Notify calls that are over, by what they said
	Notices    int              // notices accepted
	Drained    int              // notices taken with Drain and acknowledged
	Read       int              // notices not sent because the parent had read the run itself
	Expired    int              // notices given up after MailboxPolicy.KeepAge, or past KeepCount
	Unwoken    int              // deposits whose turn is asked for no more: without an answer twice, or for longer than MailboxPolicy.KeepAge
	Dropped    int              // notices whose parent is gone, and no session above it is left
}

// deliveries are the NoticeStats as the books keep them.
type deliveries struct {
	Deliveries                                        [numDeliveries]int
	Notices, Drained, Read, Expired, Unwoken, Dropped int
}

func (d *deliveries) stats() NoticeStats {
	s := NoticeStats{
		Deliveries: map[Delivery]int{}, Notices: d.Notices, Drained: d.Drained, Read: d.Read,
		Expired: d.Expired, Unwoken: d.Unwoken, Dropped: d.Dropped,
	}
	for answer, n := range d.Deliveries {
		if n > 0 {
			s.Deliveries[Delivery(answer)] = n
		}
	}
	return s
}

// Stats reads the state of limits, tasks and notices.
func (m *BackgroundManager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Tasks: map[Status]int{}, Unstopped: len(m.unstopped), Forgotten: m.shelf.forgotten, Notices: m.told.stats(), Events: m.eventStatsLocked()}
	for status, n := range m.count {
		if n > 0 {
			s.Tasks[Status(status)] = n
		}
	}
	for _, b := range m.mailboxes {
		s.Notices.Owed += len(b.batched) + len(b.ended)
		if b.state == mailParked {
			s.Notices.Parked++
		}
	}
	for _, a := range m.attempts {
		s.Calls += len(a.callsOut())
	}
	for t := range m.unstopped {
		if t.loose.stopping { // with an Abort that is of no attempt
			s.Calls++
		}
	}
	s.Calls += len(m.reads)
	for sem := range m.sems.each {
		s.Keys = m.keyStatsLocked(s.Keys, sem)
	}
	slices.SortFunc(s.Keys, func(a, b KeyStats) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	return s
}

func (m *BackgroundManager) keyStatsLocked(list []KeyStats, s *semaphore) []KeyStats {
	k := KeyStats{Key: s.key, Limit: s.limit, Held: s.held}
	if s.queue == nil && s.limit == Off {
		return list
	}
	if s.queue != nil && s.queue.all.n > 0 {
		k.Waiting = s.queue.all.n
		k.Oldest = time.Since(s.queue.all.first().taker.since(m))
	}
	return append(list, k)
}

// SetLimit changes a concurrency limit while the manager runs. A raised limit
// starts what waits for it at once; under a lowered one nothing is stopped and
// nothing new starts until there is room. 0 goes back to the default, Off means
// no limit. Settable are a model, an agent (both its own queue and its total over
// models), a provider, {Kind: GlobalKey}, {Kind: StartsKey} and {Kind: ParentKey},
// the cap of every parent. Names are as in Config.Keys: a provider has no slash, and an
// agent is one of Config.Agents, where that is set, and no alias. The error is an
// *[InputError].
func (m *BackgroundManager) SetLimit(k Key, limit int) error {
	if err := m.made(); err != nil {
		return err
	}
	if limit < Off {
		return &InputError{"limit", strconv.Itoa(limit), leastRule(Off)}
	}
	named := k.Kind == ModelKey || k.Kind == AgentKey || k.Kind == ProviderKey
	if !named && k.Kind != GlobalKey && k.Kind != StartsKey && k.Kind != ParentKey || named != (k.Name != "") {
		return &InputError{"key", k.String(), "must be a named model, agent or provider, or the whole of global, starts or parent"}
	}
	if named {
		if rule := m.cfg.limitable(k); rule != "" {
			return &InputError{"key", k.String(), rule}
		}
	}
	m.mu.Lock()
	defer m.unlock()
	m.configureLocked(k, limit)
	for s := range m.sems.each {
		s.limit = m.cfg.Keys.limitOf(s.key)
		m.roomLocked(s)
	}
	return nil
}

// configureLocked writes a limit to the configuration.
func (m *BackgroundManager) configureLocked(k Key, limit int) {
	keys := &m.cfg.Keys
	for kind, named := range map[KeyKind]*map[string]int{ModelKey: &keys.Models, AgentKey: &keys.Agents, ProviderKey: &keys.Providers} {
		if kind != k.Kind {
			continue
		}
		if *named == nil {
			*named = map[string]int{}
		}
		if (*named)[k.Name] = limit; limit == 0 { // as if absent
			delete(*named, k.Name)
		}
	}
	unlimited := cmp.Or(limit, Off)
	switch k.Kind {
	case GlobalKey:
		keys.Global = unlimited
	case StartsKey:
		keys.Starts = unlimited
	case ParentKey:
		parted := keys.parted()
		keys.PerParent = unlimited
		if parted != keys.parted() {
			m.splitLocked(keys.parted())
		}
	}
}

// splitLocked parts all queues by parent, or joins them.
func (m *BackgroundManager) splitLocked(byParent bool) {
	for s := range m.sems.each {
		if s.queue != nil {
			s.queue.split(byParent)
			m.freshenLocked(s.queue)
		}
	}
}

// blockedByLocked names the ancestors of a pending task that hold everything a
// limit it waits for allows.
func (m *BackgroundManager) blockedByLocked(t *task) []TaskID {
	if t.owner.origin.under == nil {
		return nil
	}
	for _, s := range append(t.sems[:], m.global) {
		if s == nil || !s.full() {
			continue
		}
		var holders []TaskID
		for above := t.owner.origin.under; above != nil; above = above.owner.origin.under {
			if above.cur != nil && m.holdsLocked(above, s) {
				holders = append(holders, above.id)
			}
		}
		if len(holders) > 0 && len(holders) >= s.held {
			return holders
		}
	}
	return nil
}

// holdsLocked reports whether a live task's lease has a place in a semaphore.
func (m *BackgroundManager) holdsLocked(t *task, s *semaphore) bool {
	for share := range leaseShares {
		if t.cur.lease.has(share) && m.shareLocked(&t.ticket, share) == s {
			return true
		}
	}
	return false
}
