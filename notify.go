package subagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Notifier tells a parent session. There is never more than one call out for one
// parent; different parents do not wait for each other.
type Notifier interface {
	// Notify hands a notification to its parent session. That may be the session of
	// a child that launched children of its own: BySession tells them apart. ctx
	// ends after MailboxPolicy.Timeout; a call that does not heed it holds up its
	// parent's notices, and Close for Config.AbortGrace. An error, or a panic, counts
	// as Unknown: the same notification, with the same ID and Text, is sent again. An
	// error that is [errors.ErrUnsupported] says that nobody can be told: from
	// then on parents only drain.
	Notify(ctx context.Context, n Notification) (Delivery, error)
}

// NotifierFunc makes a Notifier of a function.
type NotifierFunc func(context.Context, Notification) (Delivery, error)

// Notify calls f.
func (f NotifierFunc) Notify(ctx context.Context, n Notification) (Delivery, error) { return f(ctx, n) }

// Delivery is what became of a notification.
type Delivery int

const (
	// Unknown: it may or may not have arrived. It is sent again after a backoff,
	// MailboxPolicy.Tries times in all, and then parked.
	Unknown Delivery = iota
	// Accepted: the parent has it. If the parent is a child whose task has ended
	// meanwhile, the next session above is told too.
	Accepted
	// Busy: the parent can't take it now. It is offered again after a backoff, as
	// often as it takes. A host that knows when the parent's turn ends need not
	// wait for that: Drain takes what waits for its next try.
	Busy
	// Gone: there is no such parent any more. All that it is owed is dropped, and
	// counted in Stats; of a task that has ended it goes to the next session above.
	// Its children go on: end them with CancelAll and Filter.Under.
	Gone
	numDeliveries
)

var deliveryNames = [numDeliveries]string{Unknown: "unknown", Accepted: "accepted", Busy: "busy", Gone: "gone"}

// String is the answer in one word: "unknown", "accepted", "busy" or "gone".
func (d Delivery) String() string {
	if d < 0 || d >= numDeliveries {
		return fmt.Sprintf("Delivery(%d)", int(d))
	}
	return deliveryNames[d]
}

// Notification is one batch for one parent. Once it was sent it does not change:
// a resend has the same ID, Text and Notices. A receiver that keeps track of
// (Task, Run) of the notices it has seen gets each exactly once.
type Notification struct {
	ID     string
	Parent SessionID
	Text   string // for the parent's model, as rendered from the rest
	// Notices are what the parent is told now, in order of ending.
	Notices []Notice
	// Earlier are notices delivered since the last final notification, without
	// previews, so that the final one can list all of them; at most 100.
	Earlier []Notice
	// Remaining is how many tasks are live that the parent will be told of: its
	// own children, and those that ended children left running. Final says that
	// none is. Both are decided in the instant the batch was made; there may be
	// another final one when the parent launches again.
	Remaining int
	Final     bool
	// Wake asks for a turn of the parent: the batch is final, or holds a run
	// that did not complete, or MailboxPolicy.WakeEach is set. Without it the
	// text is for the parent's next turn. A parent that is itself a child is never
	// woken: its turn goes on, and ends its task.
	Wake bool
}

// Notice is what a parent is owed about one finished run. Task and Run are its
// identity.
type Notice struct {
	Task        TaskID
	Run         int
	Session     SessionID
	Agent       string
	Description string
	Origin      string
	Status      Status
	Reason      *Reason
	Waited, Ran time.Duration // in the queue; from the lease to the end
	Preview     string        // the beginning of the result, as the child wrote it
	Size        int           // of the whole result in bytes
	Partial     bool          // the result is what a stopped child had said
	Open        int           // children of its own that the child left running
}

// maxEarlier bounds Notification.Earlier.
const maxEarlier = 100

// String is the notice in short: "bg_… run 1: completed".
func (n Notice) String() string { return fmt.Sprintf("%s run %d: %s", n.Task, n.Run, n.Status) }

// owes reports whether there is something to tell: notices, or that the last
// child has ended after others were told of.
func (b *mailbox) owes() bool {
	return b.batch != nil || len(b.ended) > 0 || b.remaining() == 0 && b.open
}

// postLocked has a mailbox deliver what it owes. What is out already is looked at
// again when it comes back.
func (m *BackgroundManager) postLocked(b *mailbox, now instant) {
	if !m.pushes() || !b.owes() || m.phase == over || b.held() {
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
func (b *mailbox) dueLocked(m *BackgroundManager, _ instant) { m.sendLocked(b) }

// pushes reports whether there is somebody to tell parents.
func (m *BackgroundManager) pushes() bool { return m.caps.notifier != nil && !m.silent }

// held reports whether the mailbox is of a task that is being stopped: a turn that
// it were woken for now, no Abort would follow. What it is owed goes on to its
// heir when it has ended.
func (b *mailbox) held() bool {
	t := b.child()
	return t != nil && t.status == Stopping
}

// sendLocked takes the batch and starts its delivery.
func (m *BackgroundManager) sendLocked(b *mailbox) {
	if b.held() || !m.pushes() {
		b.state = mailIdle
		return
	}
	n, ok := m.batchLocked(b)
	if !ok {
		b.state = mailIdle
		return
	}
	m.disarmLocked(&b.deadline)
	b.state = mailSending
	m.goLocked(func() { m.deliver(b, n) })
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
			// A turn is out in a child's session for as long as its task lives, and one
			// begun beside that would outlive it, unseen.
			Wake: b.child() == nil && (m.cfg.Mailbox.WakeEach || b.remaining() == 0 || anyFailed(b.ended)),
		}
		b.batched, b.ended, b.tries, b.failed, b.lastErr = b.ended, nil, 0, 0, nil
	}
	return b.batch, true
}

func anyFailed(ended []*task) bool {
	return slices.ContainsFunc(ended, func(t *task) bool { return t.status != Completed })
}

// deliver is the goroutine of one delivery.
func (m *BackgroundManager) deliver(b *mailbox, n *Notification) {
	ctx, cancel := context.WithTimeout(m.life, m.cfg.Mailbox.Timeout)
	defer cancel()
	d := Unknown
	var err error = &PanicError{Op: "notify", Value: errGoexit} // unless it returns
	absent := false
	defer func() { m.delivered(b, d, err, absent) }()
	m.write(n)
	if ctx.Err() != nil { // Shutdown has given up meanwhile: nothing begins after it
		err = context.Cause(ctx)
		return
	}
	err = guard("notify", func() (err error) {
		answer, err := m.caps.notifier.Notify(ctx, n.clone())
		if err == nil && answer > Unknown && answer < numDeliveries {
			d = answer
		}
		absent = errors.Is(err, errors.ErrUnsupported)
		return err
	})
}

func (m *BackgroundManager) delivered(b *mailbox, d Delivery, err error, absent bool) {
	m.mu.Lock()
	defer m.unlock()
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

// clone is a copy whose owner may change it.
func (n *Notification) clone() Notification {
	c := *n
	c.Notices = cloneNotices(n.Notices)
	c.Earlier = cloneNotices(n.Earlier)
	return c
}

func cloneNotices(notices ...[]Notice) []Notice {
	all := slices.Concat(notices...)
	for i := range all {
		all[i].Reason = all[i].Reason.clone()
	}
	return all
}

// deliveredLocked takes in what became of the frozen batch.
func (m *BackgroundManager) deliveredLocked(b *mailbox, d Delivery, err error) {
	now := m.now()
	m.told.Deliveries[d]++
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
	case b.origin.gone: // its session was deleted meanwhile
		m.dropLocked(b)
	case d == Gone && b.orphaned():
		b.state = mailIdle // what it is owed goes to its heir
	case d == Gone:
		m.dropLocked(b)
	case m.phase >= flushing:
		b.state = mailParked
	case d == Unknown && b.failed >= m.cfg.Mailbox.Tries:
		b.state = mailParked
		m.logLocked(slog.LevelWarn, "notification parked", slog.String("parent", string(b.origin.Parent)), slog.Int("tries", b.tries))
	default:
		b.state = mailWaiting
		m.armLocked(&b.deadline, now.after(m.cfg.Mailbox.pause(b.tries)))
	}
	m.cameBackLocked(b, now)
}

// cameBackLocked looks at a mailbox again after a delivery or a drain.
func (m *BackgroundManager) cameBackLocked(b *mailbox, now instant) {
	if b.orphaned() {
		m.bequeathLocked(b.origin.under, now)
	}
	if b.state == mailIdle {
		m.postLocked(b, now)
	}
}

// takenLocked takes in that a parent has the frozen batch. When it is a child whose task
// is being stopped, or has ended, nobody reads there any more: the next session above is
// told as well.
func (m *BackgroundManager) takenLocked(b *mailbox, now instant) {
	batched := b.batched
	b.closeBatch()
	m.emitToldLocked(batched)
	if b.held() || b.orphaned() {
		heir := b.origin.under.owner.heirLocked()
		m.bringLocked(heir, batched...)
		m.postLocked(heir, now)
	}
}

// closeBatch notes that the frozen batch was delivered.
func (b *mailbox) closeBatch() {
	n := b.batch
	b.batch, b.batched, b.tries, b.failed, b.lastErr = nil, nil, 0, 0, nil
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
	d := min(p.Backoff, p.BackoffMax)
	for i := 1; i < tries && d < p.BackoffMax; i++ {
		d += min(d, p.BackoffMax-d)
	}
	return d/2 + rand.N(d/2+1)
}
