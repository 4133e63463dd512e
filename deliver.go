package subagent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
)

// How what a parent is owed is made into batches, and how they are handed over.

// owes reports whether there is something to tell: notices, or that the last
// child has ended after others were told of.
func (b *mailbox) owes() bool {
	return b.batch != nil || len(b.ended) > 0 || b.remaining() == 0 && b.open
}

// postLocked has a mailbox deliver what it owes, or lets go of it. What is out already is
// looked at again when it comes back.
func (m *BackgroundManager) postLocked(b *mailbox, now instant) {
	m.gatherLocked(b, now)
	m.boundLocked(b)
	m.choresLocked(b)
	m.closeMailboxLocked(b)
}

func (m *BackgroundManager) gatherLocked(b *mailbox, now instant) {
	if !m.pushes() || !b.owes() || m.phase == over || b.held() || m.waitsForLastLocked(b) {
		return
	}
	if m.phase == flushing {
		if b.state == mailIdle {
			m.sendLocked(b)
		}
		return
	}
	switch b.state {
	case mailIdle, mailParked:
		b.state, b.first = mailGathering, now
	case mailGathering:
	default:
		return
	}
	at := now.after(max(m.cfg.Mailbox.Gather, 0))
	if most := m.cfg.Mailbox.GatherMax; most != Off {
		at = min(at, b.first.after(most))
	}
	m.armLocked(&b.deadline, at)
}

// dueLocked is the mailbox's deadline: the batch was gathered, or may be sent again.
func (b *mailbox) dueLocked(m *BackgroundManager, now instant) { m.retryLocked(b, now) }

// pushes reports whether there is somebody to tell parents.
func (m *BackgroundManager) pushes() bool {
	return m.caps.notifier != nil && !m.silent && m.cfg.Mailbox.Push != PushOff
}

// waitsForLastLocked reports whether what a parent is owed waits until none of its
// children is left, or one has failed.
func (m *BackgroundManager) waitsForLastLocked(b *mailbox) bool {
	return m.cfg.Mailbox.Push == PushFinal && b.remaining() > 0 && b.batch == nil && !urgent(b.ended) && m.phase < flushing
}

// held reports whether the mailbox is of a task that is being stopped: a turn that
// it were woken for now, no Abort would follow. What it is owed goes on to its
// heir when it has ended.
func (b *mailbox) held() bool {
	t := b.child()
	return t != nil && t.status == Stopping
}

// sendLocked takes the batch and starts its delivery.
func (m *BackgroundManager) sendLocked(b *mailbox) {
	m.disarmLocked(&b.deadline)
	if b.held() || !m.pushes() || m.waitsForLastLocked(b) {
		m.restsLocked(b)
		return
	}
	n, ok := m.batchLocked(b)
	if !ok {
		m.restsLocked(b)
		return
	}
	m.handLocked(b, n, HandOffer)
}

// restsLocked takes in that there is nothing to send now. How long the parent was busy
// counts anew when there is.
func (m *BackgroundManager) restsLocked(b *mailbox) {
	b.state, b.busy, b.since = mailIdle, false, 0
	if !b.owes() {
		b.settled()
	}
	m.closeMailboxLocked(b)
}

// handLocked starts a delivery.
func (m *BackgroundManager) handLocked(b *mailbox, n *Notification, how Handover) {
	b.state, b.hand, b.idled = mailSending, how, false
	b.put = b.put || how == HandDeposit
	ask := b.failed > 0 && how != HandWake // it may have arrived
	m.goLocked(func() { m.deliver(b, n, how, ask) })
}

// batchLocked is what to deliver next: the frozen batch, or a new one of all that
// is owed. Final is decided here, together with what the batch holds.
func (m *BackgroundManager) batchLocked(b *mailbox) (*Notification, bool) {
	if !b.owes() {
		return nil, false
	}
	if b.batch == nil {
		b.batch = &Notification{
			Parent:  b.origin.Parent,
			Notices: m.noticesLocked(b.ended), Earlier: b.earlier,
			Remaining: b.remaining(), Final: b.remaining() == 0,
			Wake: m.wakesLocked(b), Context: b.context,
		}
		b.batched, b.ended = b.ended, nil
	}
	return b.batch, true
}

// wakesLocked reports whether what a mailbox owes asks for a turn. In a child's session
// one is out for as long as its task lives, and another begun beside that would outlive
// it, unseen.
func (m *BackgroundManager) wakesLocked(b *mailbox) bool {
	switch {
	case b.child() != nil:
		return false
	case b.wake != nil:
		return true
	case len(b.ended) > 0 && !slices.ContainsFunc(b.ended, func(d due) bool { return !d.quiet }):
		return false
	}
	return m.cfg.Mailbox.WakeEach || b.remaining() == 0 || urgent(b.ended)
}

// urgent reports whether the parent should hear of it at once: something failed.
func urgent(ended []due) bool {
	return slices.ContainsFunc(ended, func(d due) bool { return !d.quiet && d.status() != Completed })
}

func (d due) status() Status {
	if d.past != nil {
		return d.past.Status
	}
	return d.task.status
}

// deliver is the goroutine of one delivery. With ask the notification may have arrived
// before.
func (m *BackgroundManager) deliver(b *mailbox, n *Notification, how Handover, ask bool) {
	ctx, cancel := context.WithTimeout(m.life, m.cfg.Mailbox.Timeout)
	defer cancel()
	d := Unknown
	var err error = &PanicError{Op: "notify", Value: errGoexit} // unless it returns
	absent, found := false, false
	defer func() { m.delivered(b, d, err, absent, found) }()
	m.write(n)
	if ctx.Err() != nil { // Shutdown has given up meanwhile: nothing begins after it
		err = context.Cause(ctx)
		return
	}
	c := n.clone()
	c.Handover, c.Wake = how, (c.Wake || how == HandWake) && how != HandDeposit
	err = guard("notify", func() (err error) {
		d, found, err = m.hand(ctx, c, ask)
		absent = errors.Is(err, errors.ErrUnsupported)
		return err
	})
}

// hand gives a notification to the notifier, unless it can tell that it was there already.
func (m *BackgroundManager) hand(ctx context.Context, n Notification, ask bool) (d Delivery, found bool, err error) {
	if checker, ok := m.caps.notifier.(ReceiptChecker); ok && ask {
		there, err := checker.Received(ctx, n.clone())
		switch {
		case errors.Is(err, errors.ErrUnsupported): // it can't
		case err != nil:
			return Unknown, false, err // and is asked again: it is never there twice
		case there:
			return Accepted, true, nil
		}
	}
	answer, err := m.caps.notifier.Notify(ctx, n)
	switch {
	case err == nil && (answer < Unknown || answer >= numDeliveries):
		return Unknown, false, &InputError{"Delivery", answer.String(), "Notify must return Unknown, Accepted, Busy or Gone"}
	case err != nil:
		return Unknown, false, err
	}
	return answer, false, nil
}

func (m *BackgroundManager) delivered(b *mailbox, d Delivery, err error, absent, found bool) {
	m.mu.Lock()
	defer m.unlock()
	if found && b.put {
		b.hand = HandDeposit // it is that which has arrived, and the turn is still to be asked for
	}
	if absent {
		m.pullOnlyLocked(b)
		return
	}
	m.deliveredLocked(b, d, err)
}

// pullOnlyLocked takes in that the notifier has not the ability after all: parents
// are not told, they drain.
func (m *BackgroundManager) pullOnlyLocked(b *mailbox) {
	m.silent = true
	b.state = mailIdle
	m.cameBackLocked(b, m.now())
}

// write gives a batch its ID and its text, once. A Render that panics, or has nothing
// to say, is replaced, and so is one that did not come back from its first call.
func (m *BackgroundManager) write(n *Notification) {
	if n.Text != "" {
		return
	}
	first := n.ID == ""
	if first {
		n.ID = "nt_" + uuid.NewString()
	}
	if m.cfg.Mailbox.Render != nil && first {
		_ = guard("render", func() error { // a panic leaves the text to us
			n.Text = m.cfg.Mailbox.Render(n.clone())
			return nil
		})
	}
	if n.Text == "" {
		n.Text = m.cfg.Mailbox.render(*n)
	}
}

// deliveredLocked takes in what became of the frozen batch.
func (m *BackgroundManager) deliveredLocked(b *mailbox, d Delivery, err error) {
	now := m.now()
	m.told.Deliveries[d]++
	if b.hand == HandWake {
		m.wokenLocked(b, d, now)
		m.cameBackLocked(b, now)
		return
	}
	b.tries++
	b.lastErr, b.busy = err, d == Busy
	if d == Unknown {
		b.failed++
		m.logDeliveryLocked(b)
	}
	switch {
	case d == Accepted:
		m.told.Notices += len(b.batch.Notices)
		b.state = mailIdle
		m.takenLocked(b, now)
	case d == Gone && (b.orphaned() || b.held()):
		b.state = mailIdle // what it is owed goes to its heir
	case d == Gone:
		m.dropLocked(b)
	case m.phase >= flushing:
		b.state = mailParked
	case d == Unknown && b.failed >= m.cfg.Mailbox.Tries:
		b.state = mailParked
		m.logLocked(slog.LevelWarn, "notification parked", slog.String("parent", string(b.origin.Parent)), slog.Int("tries", b.tries))
	case d == Busy:
		m.busyLocked(b, now)
	default:
		b.state = mailWaiting
		m.armLocked(&b.deadline, now.after(m.cfg.Mailbox.pause(b.tries)))
	}
	m.cameBackLocked(b, now)
}

// cameBackLocked looks at a mailbox again after a delivery or a drain.
func (m *BackgroundManager) cameBackLocked(b *mailbox, now instant) {
	switch {
	case b.orphaned():
		m.bequeathLocked(b.origin.under, now)
	case b.deaf() && (b.owes() || b.open || b.wake != nil): // its session was deleted meanwhile
		m.dropLocked(b)
	}
	if b.state == mailIdle {
		m.postLocked(b, now)
		return
	}
	m.boundLocked(b)
	m.choresLocked(b)
}

// takenLocked takes in that a parent has the frozen batch. When it is a child whose task
// is being stopped, or has ended, nobody reads there any more: the next session above is
// told as well.
func (m *BackgroundManager) takenLocked(b *mailbox, now instant) {
	batched := b.batched
	b.wakeLaterLocked(m, now)
	b.closeBatch()
	b.taken = now
	m.emitToldLocked(batched)
	if b.held() || b.orphaned() {
		heir := b.origin.under.owner.heirLocked()
		b.repayLocked() // where nobody is to be told the mailbox may be gone after this
		m.bringLocked(heir, batched...)
		if !b.orphaned() { // else the rest of what is owed here follows, before all is told
			m.postLocked(heir, now)
		}
		return
	}
	m.shelveAllLocked(batched)
}

// closeBatch notes that the frozen batch was delivered.
func (b *mailbox) closeBatch() {
	n := b.batch
	b.batch, b.batched = nil, nil
	b.settled()
	b.open = !n.Final
	b.earlier = nil
	if b.open {
		b.earlier = n.Earlier
		for _, notice := range n.Notices {
			notice.Preview = ""
			b.earlier = append(b.earlier, notice)
		}
		if over := len(b.earlier) - maxEarlier; over > 0 {
			b.earlier = append([]Notice(nil), b.earlier[over:]...)
		}
	}
}

// pause is the backoff after a number of tries, with jitter.
func (p *MailboxPolicy) pause(tries int) time.Duration {
	d := p.Backoff
	for i := 1; i < tries && d < p.BackoffMax; i++ {
		d += min(d, p.BackoffMax-d)
	}
	return d/2 + rand.N(d/2+1)
}
