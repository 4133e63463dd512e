package subagent

import (
	"log/slog"
	"slices"
)

// mailState is what happens to a mailbox next.
type mailState uint8

const (
	mailIdle      mailState = iota // nothing to send
	mailGathering                  // its deadline makes a batch and sends it
	mailSending                    // a Notify call is out
	mailDrained                    // a Drain has not been acknowledged
	mailWaiting                    // its deadline sends the frozen batch again
	// The frozen batch waits for Drain or the next notice. An idle does not take it up: it
	// may be that of a turn which our own delivery began, that failed for us only.
	mailParked
)

// mailbox is all that the books hold about one parent session: where it stands,
// its children, and what it is owed. It is the only place that knows. Guarded by mu.
type mailbox struct {
	origin          origin  // of the session's children
	children        []*task // launched by the session, in order
	adopted         []*task // launched by sessions below it that are not tasks
	gaps, gapsBelow int32   // how many of these are forgotten
	live            int     // children that have not ended …
	doomed          int     // … and of these, the ones that are being stopped with an ancestor
	// inherited counts live tasks below children that have ended, but for doomed
	// ones, and notices that are out to such children: they will be told of here too.
	inherited int

	lent int // of these, what was out to the session itself when its task ended

	state    mailState
	hand     Handover      // of the call that is out
	ended    []due         // in no batch yet
	batch    *Notification // frozen: it may have arrived, or was drained …
	batched  []due         // … and what it tells of
	put      bool          // it was handed over as a deposit
	earlier  []Notice      // delivered since the last final one
	open     bool          // something was delivered since then
	taken    instant       // when that was
	closing  instant       // since when it is owed only to be told that nothing is left; 0: it is not
	first    instant       // when gathering began
	busy     bool          // the last try found the parent busy …
	idled    bool          // it idled while the call was out …
	hurried  bool          // … and so did it during the one before, so that this one came at once
	since    instant       // … and the first of those that did; 0: none since something was taken
	tries    int           // since something was taken …
	failed   int           // … that ended in Unknown
	lastErr  error
	context  *ParentContext // of the last launch that gave one
	deadline deadline

	wake      *Notification // was deposited, and its turn is still to be asked for …
	wakeAt    instant       // … then at the latest …
	wakeTries int           // … and was asked for so often without an answer
	chores    deadline      // of that, and of what is owed for too long
}

// due is one finished run that a parent is owed.
type due struct {
	task  *task
	at    instant // when it ended
	past  *Notice // what there is to tell, once the task went on to another run; nil: it is read off the task
	run   int32
	quiet bool // it asks for no turn
}

// mailboxLocked finds or makes the mailbox of an origin's parent.
func (m *BackgroundManager) mailboxLocked(o origin) *mailbox {
	b := m.mailboxes[o.Parent]
	if b == nil {
		b = &mailbox{origin: o}
		b.deadline.owner, b.chores.owner = b, (*chores)(b)
		m.mailboxes[o.Parent] = b
		if o.under != nil && o.under.session == o.Parent {
			o.under.own = b
		}
	}
	return b
}

// adoptChildLocked files a child of a foreign session also under the nearest ancestor
// that is a task, so that it ends with it.
func (m *BackgroundManager) adoptChildLocked(t *task, o origin) {
	if o.under == nil || o.under.session == o.Parent {
		return
	}
	above := m.mailboxLocked(o.under.origin())
	above.adopted = append(above.adopted, t)
}

// oweLocked puts down, in the instant of a run's ending, that its parent has one
// live child less and what it is owed for it.
func (m *BackgroundManager) oweLocked(t *task) (owed bool) {
	b := t.owner.heirLocked()
	t.owner.live--
	switch {
	case t.reason.is(ParentGone):
		t.owner.doomed-- // it is told by its ancestor's notice
	case b != t.owner:
		b.inherited--
	}
	m.handOnLocked(t) // older than its own notice
	if owed = !t.silent && !t.reason.is(ParentGone) && !b.deaf(); owed {
		m.bringLocked(b, due{task: t, at: t.ended, run: t.run, quiet: t.quiet})
	}
	if !owed && !t.silent && !t.reason.is(ParentGone) {
		m.told.Dropped++
	}
	m.postLocked(b, t.ended)
	return owed
}

// repayLocked ends that the heir counts on what is out here.
func (b *mailbox) repayLocked() {
	if b.lent > 0 {
		b.heirLocked().inherited -= b.lent
		b.lent = 0
	}
}

// bringLocked puts what runs are owed for into a mailbox. Above the child of a task
// without a parent there may be nobody left to tell.
func (m *BackgroundManager) bringLocked(b *mailbox, ended ...due) {
	if b.deaf() {
		m.told.Dropped += len(ended)
		m.shelveAllLocked(ended)
		return
	}
	b.ended = append(b.ended, ended...)
}

// deaf reports whether nobody is there to be told. What a child is owed whose session was
// deleted goes to the next session above, as its task ends with that.
func (b *mailbox) deaf() bool {
	return b.origin.Parent == "" || b.origin.gone && b.child() == nil
}

// listensLocked reports whether somebody would be told of what an origin launches.
func (m *BackgroundManager) listensLocked(o origin) bool {
	if !m.pushes() {
		return false
	}
	b := m.mailboxes[o.Parent]
	if b == nil && o.under != nil && o.under.session == o.Parent && o.under.status.Terminal() {
		b = o.under.owner
	}
	return b == nil && o.Parent != "" || b != nil && !b.heirLocked().deaf()
}

// child is the task that the mailbox is of, also once both were let go of, as something
// below may be kept; nil for a parent that is none.
func (b *mailbox) child() *task {
	if u := b.origin.under; u != nil && u.session == b.origin.Parent {
		return u
	}
	return nil
}

// orphaned reports whether nobody reads at the mailbox any more: it is of a task that has
// ended, or that is being stopped with an ancestor, whose notice tells of it.
func (b *mailbox) orphaned() bool {
	t := b.child()
	return t != nil && (t.status.Terminal() || t.reason.is(ParentGone))
}

// remaining is how many runs it will still be told of, or be silent about.
func (b *mailbox) remaining() int { return b.live - b.doomed + b.inherited }

// addLiveLocked counts a new child of a mailbox, and where it will be told of.
func (b *mailbox) addLiveLocked() {
	b.live++
	heir := b.heirLocked()
	if heir != b {
		heir.inherited++
	}
	heir.closing = 0 // something is left again
}

// doomLocked takes in that a task is stopped with its ancestor, whose notice will
// tell of both.
func (m *BackgroundManager) doomLocked(t *task) {
	t.owner.doomed++
	heir := t.owner.heirLocked()
	if heir != t.owner {
		heir.inherited--
	}
	m.bequeathLocked(t, m.now())
	m.postLocked(heir, m.now()) // it may have been the last
}

// inheritLocked hands on what a task would have been told of whose mailbox nobody reads
// from now on.
func (t *task) inheritLocked() {
	if own := t.own; own != nil && own.remaining() > 0 {
		own.heirLocked().inherited += own.remaining()
		own.inherited = 0
	}
}

// heirLocked is where notices for a mailbox go: to its own session, or, once nobody
// reads there, to the nearest one above where somebody does.
func (b *mailbox) heirLocked() *mailbox {
	for b.orphaned() {
		b = b.origin.under.owner
	}
	return b
}

// bequeathLocked hands on what a task was itself owed whose mailbox nobody reads any more,
// and has it delivered.
func (m *BackgroundManager) bequeathLocked(t *task, now instant) {
	if heir := m.handOnLocked(t); heir != nil {
		m.postLocked(heir, now)
	}
}

// handOnLocked puts it into the heir's mailbox; nil if there was nothing to do.
func (m *BackgroundManager) handOnLocked(t *task) (heir *mailbox) {
	b := t.own
	if b == nil {
		return nil
	}
	heir = b.heirLocked()
	if heir == b {
		return nil
	}
	b.repayLocked()
	if b.out() { // it comes back here, and is told of there if nobody took it
		b.lent = len(b.batched) + len(b.ended)
		heir.inherited += b.lent
		return nil
	}
	m.bringLocked(heir, b.batched...)
	m.bringLocked(heir, b.ended...)
	m.emptyLocked(b)
	return heir
}

// dropLocked gives up what a parent that is gone was owed.
func (m *BackgroundManager) dropLocked(b *mailbox) {
	lost := append(b.batched, b.ended...)
	m.told.Dropped += len(lost)
	m.emptyLocked(b)
	m.shelveAllLocked(lost)
	m.logLocked(slog.LevelWarn, "parent gone", slog.String("parent", string(b.origin.Parent)))
	m.closeMailboxLocked(b)
}

// out reports whether what is owed is on its way, and moves no more until that is over.
func (b *mailbox) out() bool { return b.state == mailSending || b.state == mailDrained }

// readLocked takes in that the parent of a run that has ended has read it itself: it is
// not told of it any more, unless that is on its way, or may have arrived.
func (m *BackgroundManager) readLocked(t *task) {
	b := t.owner.heirLocked()
	i := slices.IndexFunc(b.ended, func(d due) bool { return d.task == t && d.past == nil })
	if i < 0 {
		return
	}
	b.ended = slices.Delete(b.ended, i, i+1)
	m.told.Read++
	defer m.shelveLocked(t, t.run)
	if b.state == mailGathering && !b.owes() || b.state == mailWaiting && b.batch == nil && !b.owes() {
		m.disarmLocked(&b.deadline)
		m.restsLocked(b)
	}
	m.postLocked(b, m.now()) // it may have been the last
}

// emptyLocked forgets what a mailbox owes.
func (m *BackgroundManager) emptyLocked(b *mailbox) {
	m.disarmLocked(&b.deadline)
	b.state, b.ended, b.batch, b.batched, b.earlier, b.open = mailIdle, nil, nil, nil, nil, false
	b.wake = nil
	b.settled()
	m.choresLocked(b)
}

// settled forgets how the telling went, once there is nothing more to say of it.
func (b *mailbox) settled() {
	b.tries, b.failed, b.lastErr, b.busy, b.since, b.put = 0, 0, nil, false, 0, false
}

// Owed is what a parent is waiting for or has not been told, at one instant.
type Owed struct {
	Live     int      // tasks that have not ended and that it will be told of: its own children, and those that ended ones left running
	Notices  []Notice // finished runs it has not been told of, the oldest first
	InFlight bool     // a Notify or an unacknowledged Drain is out with some of them
	Parked   bool     // sending was given up; Drain, the next notice, or asking for the turn of a deposit, takes them up
	Wake     bool     // a notification was deposited while the parent was busy, and its turn is still to be asked for
	Tries    int      // Notify calls since it was last told, also those that found it Busy
	LastErr  error    // of the last try
}

// Pending tells what a parent is owed. A child that ends moves from Live to
// Notices in one instant, so that there is no moment in which a parent that is
// owed something seems to be owed nothing.
func (m *BackgroundManager) Pending(parent SessionID) Owed {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.mailboxes[parent]
	if b == nil {
		return Owed{}
	}
	o := Owed{
		InFlight: b.out(), Wake: b.wake != nil,
		Parked: b.state == mailParked, Tries: b.tries, LastErr: b.lastErr,
	}
	if !b.orphaned() { // else another is told
		o.Live = b.remaining()
	}
	if b.batch != nil {
		o.Notices = b.batch.Notices
	}
	o.Notices = cloneNotices(o.Notices, m.noticesLocked(b.ended))
	return o
}

// Drain takes what a parent is owed, for a host that tells its agent itself. It
// never takes what a Notify call has out; ok is false when there is nothing to
// take. Until ack is called the notification counts as in flight: ack(true) says
// that the parent has it, ack(false) puts it back as it is. Only the first call
// of ack counts; ack is nil when ok is false. Until then nothing else of the parent's mail moves: an ack that
// might be forgotten is best deferred, as ack(false). Drain works after Close too.
func (m *BackgroundManager) Drain(parent SessionID) (n Notification, ack func(delivered bool), ok bool) {
	m.mu.Lock()
	b := m.mailboxes[parent]
	if b == nil || b.out() {
		m.mu.Unlock()
		return Notification{}, nil, false
	}
	batch, ok := m.batchLocked(b)
	if !ok {
		m.mu.Unlock()
		return Notification{}, nil, false
	}
	m.disarmLocked(&b.deadline)
	b.state, b.hand = mailDrained, HandOffer
	m.mu.Unlock()
	ack, written := m.acknowledger(b, batch), false
	defer func() {
		if !written { // Render ended the goroutine
			ack(false)
		}
	}()
	m.write(batch)
	written = true
	return batch.clone(), ack, true
}

// acknowledger makes the ack of one Drain.
func (m *BackgroundManager) acknowledger(b *mailbox, n *Notification) func(bool) {
	done := false // guarded by mu
	return func(delivered bool) {
		m.mu.Lock()
		defer m.unlock()
		if done {
			return
		}
		done = true
		b.state = mailIdle
		if delivered {
			m.told.Drained += len(n.Notices)
			m.takenLocked(b, m.now())
		}
		m.cameBackLocked(b, m.now())
	}
}
