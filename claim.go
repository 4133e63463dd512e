package subagent

// A ticket that needs room under several shared limits at once may come too late for
// one of them each time another has room, for as long as there are younger tickets
// that need only one. After maxPasses times it claims a place under each: what is
// younger then leaves that place free, until the ticket has its lease. There is one
// claim at a time, so that no two keep places from each other. In its own queue it is
// of use to those who are before it, by age or by turn: nobody else could start there.

// fullFor reports whether a ticket finds no room here.
func (s *semaphore) fullFor(t *ticket) bool {
	kept := 0
	if s.claim != nil && s.claim.seq < t.seq && !s.claim.behind(t) {
		kept = 1
	}
	return s.limit != Off && s.held+kept >= s.limit
}

// next is the queue among those that wait here which finds room: the oldest or, where the
// place that is free is kept from that, the claimant's own; nil if there is none.
func (s *semaphore) next() *queue {
	q, ok := s.waiting.Top()
	if ok && s.claim != nil && s.fullFor(q.candidate()) {
		q = s.claim.sems[shareKey].queue
		ok = q.home == &s.waiting
	}
	if !ok || s.fullFor(q.candidate()) {
		return nil
	}
	return q
}

// behind reports whether a claimant waits until the candidate of its own queue has
// started: it is not that itself, and not because its parent is at its cap.
func (t *ticket) behind(candidate *ticket) bool {
	return t != candidate && t.sems[shareKey] == candidate.sems[shareKey] && !t.aside()
}

// lateLocked counts that a ticket which waited in one place finds another full.
func (m *BackgroundManager) lateLocked(t *ticket) {
	if t.late < maxPasses {
		t.late++
	}
	if t.late < maxPasses || m.claimant != nil && !m.claimant.behind(t) {
		return
	}
	m.unclaimLocked(m.claimant)
	m.claimant = t
	for _, s := range m.sharesLocked(t) {
		s.claim = t
	}
}

// unclaimLocked ends a ticket's claim, if it has one.
func (m *BackgroundManager) unclaimLocked(t *ticket) {
	if t == nil || m.claimant != t {
		return
	}
	m.claimant = nil
	for _, s := range m.sharesLocked(t) {
		s.claim = nil
		m.roomLocked(s)
	}
}

// sharesLocked are the semaphores in which a ticket's lease takes a place.
func (m *BackgroundManager) sharesLocked(t *ticket) (shares []*semaphore) {
	for share := range leaseShares {
		if s := m.shareLocked(t, share); s != nil {
			shares = append(shares, s)
		}
	}
	return shares
}
