package subagent

import (
	"log/slog"
	"slices"
)

// Parents that are busy for long, and what they are owed for too long.

// maxWakes is how often a parent is asked to begin the turn of a deposit when the answer
// is Unknown: one that did begin it would be woken for nothing each further time.
const maxWakes = 2

// busyLocked takes in that the parent is busy. A batch that certainly is not there is
// taken apart again, so that what ends meanwhile joins it.
func (m *BackgroundManager) busyLocked(b *mailbox, now instant) {
	if b.since == 0 {
		b.since = now
	}
	if b.failed == 0 {
		b.ended, b.batch, b.batched, b.put = append(b.batched, b.ended...), nil, nil, false
	}
	b.state = mailWaiting
	at := now.after(m.cfg.Mailbox.pause(b.tries))
	if b.idledLately() {
		at = now
	}
	if b.hand != HandDeposit && m.depositsLocked(b) {
		at = max(now, min(at, b.since.after(m.cfg.Mailbox.BusyMax)))
	}
	m.armLocked(&b.deadline, at)
}

// idledLately reports whether the parent may have come to rest after it was found busy. It
// does so once in a row: a host that tells of an idling with each call would be called
// without end.
func (b *mailbox) idledLately() bool {
	b.hurried = b.idled && !b.hurried
	return b.hurried
}

// depositsLocked reports whether a batch for a parent that stays busy is deposited at some
// time. What a child does not take while it works, the next session above is told.
func (m *BackgroundManager) depositsLocked(b *mailbox) bool {
	return m.cfg.Mailbox.BusyMax != Off && b.child() == nil
}

// retryLocked sends again what waits, as a deposit if the parent was busy for too long.
func (m *BackgroundManager) retryLocked(b *mailbox, now instant) {
	late := b.busy && m.depositsLocked(b) && now >= b.since.after(m.cfg.Mailbox.BusyMax)
	if !late || b.held() || !m.pushes() || m.waitsForLastLocked(b) {
		m.sendLocked(b)
		return
	}
	if n, ok := m.batchLocked(b); ok {
		m.handLocked(b, n, HandDeposit)
	} else {
		m.restsLocked(b)
	}
}

// wakeLaterLocked notes whether the batch that was taken just now leaves a turn to be
// asked for.
func (b *mailbox) wakeLaterLocked(m *BackgroundManager, now instant) {
	switch deposit := b.hand == HandDeposit; {
	case deposit && b.batch.Wake:
		b.wake, b.wakeAt, b.wakeTries = b.batch, now.after(m.cfg.Mailbox.BusyMax), 0
		if b.idledLately() { // while it was put there
			b.wakeAt = now
		}
	case !deposit && b.batch.Wake:
		b.wake = nil
	}
}

// idleLocked takes in that the parent rests.
func (m *BackgroundManager) idleLocked(b *mailbox) {
	switch {
	case b.state == mailSending:
		b.idled = true
	case b.state == mailWaiting && b.busy:
		m.sendLocked(b)
	case b.wake != nil && m.pushes():
		m.wakeLocked(b, m.now())
	}
}

// wakeLocked asks for the turn of a deposit. While something else is under way that asks
// for a turn as well, it waits for that; what was parked is no more, and is sent again
// after it.
func (m *BackgroundManager) wakeLocked(b *mailbox, now instant) {
	if (b.state == mailIdle || b.state == mailParked) && m.phase < flushing {
		m.handLocked(b, b.wake, HandWake)
		return
	}
	b.wakeAt = now.after(m.cfg.Mailbox.BusyMax)
}

// unwokenLocked gives up to ask for the turn of a deposit. It is counted.
func (m *BackgroundManager) unwokenLocked(b *mailbox) {
	b.wake = nil
	m.told.Unwoken++
	m.logLocked(slog.LevelWarn, "parent not woken", slog.String("parent", string(b.origin.Parent)))
}

// expireWakeLocked does that when there is nobody to ask, or the parent was busy for longer
// than MailboxPolicy.KeepAge.
func (m *BackgroundManager) expireWakeLocked(b *mailbox, now instant) {
	age := m.cfg.Mailbox.KeepAge
	if b.wake != nil && (!m.pushes() || age != Off && now >= b.taken.after(age)) {
		m.unwokenLocked(b)
	}
}

// wokenLocked takes in what became of that.
func (m *BackgroundManager) wokenLocked(b *mailbox, d Delivery, now instant) {
	b.state, b.wakeAt = mailIdle, now.after(m.cfg.Mailbox.BusyMax)
	if d == Unknown {
		b.wakeTries++
	}
	switch {
	case d == Gone || b.deaf():
		m.dropLocked(b)
	case d == Accepted:
		b.wake = nil
	case d == Busy && b.idledLately():
		b.wakeAt = now
	case b.wakeTries >= maxWakes:
		m.unwokenLocked(b)
	}
}

// chores is a mailbox whose second deadline has come.
type chores mailbox

// choresLocked sets the deadline for what a mailbox has to see to besides deliveries.
func (m *BackgroundManager) choresLocked(b *mailbox) {
	if !b.onlyCloses() {
		b.closing = 0
	} else if b.closing == 0 {
		b.closing = m.now()
	}
	at := instant(0)
	if age := m.cfg.Mailbox.KeepAge; age != Off && !b.out() {
		if oldest := b.oldest(); oldest != 0 {
			at = oldest.after(age)
		}
	}
	if b.wake != nil && !b.out() && (at == 0 || b.wakeAt < at) {
		at = b.wakeAt
	}
	switch {
	case at == 0 || m.phase == over:
		m.disarmLocked(&b.chores)
	case b.chores.place == 0 || b.chores.at != at:
		m.armLocked(&b.chores, at)
	}
}

// oldest is what the age of what it is owed counts from, just as expireLocked sees it: the
// last of a frozen batch, which goes as a whole, or the first of the rest, as far as order
// tells: what came from an ended child stands last; or since when it is only to be told
// that nothing is left. 0: it is owed nothing.
func (b *mailbox) oldest() instant {
	at := b.closing
	if n := len(b.batched); n > 0 {
		at = b.batched[n-1].at
	}
	if len(b.ended) > 0 && (at == 0 || b.ended[0].at < at) {
		at = b.ended[0].at
	}
	return at
}

// onlyCloses reports whether it is only to be told that nothing is left.
func (b *mailbox) onlyCloses() bool { return len(b.batched)+len(b.ended) == 0 && b.owes() }

func (c *chores) dueLocked(m *BackgroundManager, now instant) {
	b := (*mailbox)(c)
	if b.out() {
		return // it is looked at again when that is over
	}
	m.expireWakeLocked(b, now)
	m.expireLocked(b, now)
	if b.wake != nil && now >= b.wakeAt {
		m.wakeLocked(b, now)
	}
	m.choresLocked(b)
	m.closeMailboxLocked(b)
}

// expireLocked gives up what a parent is owed for longer than MailboxPolicy.KeepAge.
func (m *BackgroundManager) expireLocked(b *mailbox, now instant) {
	if m.cfg.Mailbox.KeepAge == Off {
		return
	}
	old := func(d due) bool { return now >= d.at.after(m.cfg.Mailbox.KeepAge) }
	if b.onlyCloses() && old(due{at: b.closing}) {
		m.emptyLocked(b)
		return
	}
	n := 0
	for n < len(b.ended) && old(b.ended[n]) {
		n++
	}
	m.giveUpLocked(b, len(b.batched) > 0 && old(b.batched[len(b.batched)-1]), n)
}

// boundLocked gives up the oldest of what a parent is owed when that is more than
// MailboxPolicy.KeepCount and nobody takes it.
func (m *BackgroundManager) boundLocked(b *mailbox) {
	most := m.cfg.Mailbox.KeepCount
	over := len(b.batched) + len(b.ended) - most
	if most == Off || over <= 0 || b.out() || b.state == mailGathering {
		return
	}
	batch := b.batch != nil
	if batch {
		over -= len(b.batched)
	}
	m.giveUpLocked(b, batch, max(over, 0))
}

// giveUpLocked drops the frozen batch, if it is to go, and the first n of the rest. They
// are counted.
func (m *BackgroundManager) giveUpLocked(b *mailbox, batch bool, n int) {
	lost := slices.Clone(b.ended[:n])
	if batch {
		lost = append(lost, b.batched...)
		b.batch, b.batched = nil, nil
		b.settled()
		m.disarmLocked(&b.deadline)
		b.state = mailIdle
	}
	m.told.Expired += len(lost)
	b.ended = append([]due(nil), b.ended[n:]...)
	m.shelveAllLocked(lost)
	if batch || n > 0 {
		m.logLocked(slog.LevelWarn, "notices given up", slog.String("parent", string(b.origin.Parent)))
		m.gatherLocked(b, m.now())
	}
}
