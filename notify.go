package subagent

import (
	"context"
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
	// Notify hands a notification to its parent session. ctx ends after
	// MailboxPolicy.Timeout. An error, or a panic, counts as Unknown: the same
	// notification, with the same ID and Text, is sent again.
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
	// Accepted: the parent has it.
	Accepted
	// Busy: the parent can't take it now. It is offered again after a backoff, as
	// often as it takes.
	Busy
	// Gone: there is no such parent any more. All that it is owed is dropped, and
	// counted in Stats.
	Gone
	numDeliveries
)

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
	// Remaining is how many of the parent's direct children are live, and Final
	// that none is: decided in the instant the batch was made. There may be
	// another final one when the parent launches again.
	Remaining int
	Final     bool
	// Wake asks for a turn of the parent: the batch is final, or holds a run
	// that did not complete, or MailboxPolicy.WakeEach is set. Without it the
	// text is for the parent's next turn.
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

func (n Notice) String() string { return fmt.Sprintf("%s run %d: %s", n.Task, n.Run, n.Status) }

// owes reports whether there is something to tell: notices, or that the last
// child has ended after others were told of.
func (b *mailbox) owes() bool {
	return b.batch != nil || len(b.ended) > 0 || b.live == 0 && b.open
}

// postLocked has a mailbox deliver what it owes. What is out already is looked at
// again when it comes back.
func (m *BackgroundManager) postLocked(b *mailbox, now instant) {
	if m.caps.notifier == nil || !b.owes() || m.phase == over {
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

// sendLocked takes the batch and starts its delivery.
func (m *BackgroundManager) sendLocked(b *mailbox) {
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
			Remaining: b.live, Final: b.live == 0,
			Wake: m.cfg.Mailbox.WakeEach || b.live == 0 || anyFailed(b.ended),
		}
		b.batched, b.ended, b.tries, b.lastErr = b.ended, nil, 0, nil
	}
	return b.batch, true
}

func anyFailed(ended []*task) bool {
	return slices.ContainsFunc(ended, func(t *task) bool { return t.status != Completed })
}

// deliver is the goroutine of one delivery.
func (m *BackgroundManager) deliver(b *mailbox, n *Notification) {
	m.write(n)
	ctx, cancel := context.WithTimeout(m.life, m.cfg.Mailbox.Timeout)
	defer cancel()
	var d Delivery
	err := guard("notify", func() (err error) {
		d, err = m.caps.notifier.Notify(ctx, n.clone())
		return err
	})
	if err != nil || d < Unknown || d >= numDeliveries {
		d = Unknown
	}
	m.mu.Lock()
	defer m.unlock()
	m.deliveredLocked(b, d, err)
}

// write gives a batch its ID and its text, once. A Render that panics, or has nothing to say,
// is replaced.
func (m *BackgroundManager) write(n *Notification) {
	if n.Text != "" {
		return
	}
	n.ID = "nt_" + uuid.NewString()
	if m.cfg.Mailbox.Render != nil {
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
	b.lastErr = err
	switch {
	case d == Accepted:
		m.told.Notices += len(b.batch.Notices)
		b.closeBatch()
		b.state = mailIdle
	case d == Gone:
		m.told.Dropped += len(b.batched) + len(b.ended)
		m.emptyLocked(b)
		m.logLocked(slog.LevelWarn, "parent gone", slog.String("parent", string(b.origin.Parent)))
	case m.phase >= flushing:
		b.state = mailParked
	case d == Unknown && b.tries >= m.cfg.Mailbox.Tries:
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
	if u := b.origin.under; u != nil && u.session == b.origin.Parent && u.status.Terminal() {
		m.bequeathLocked(u, now)
	}
	if b.state == mailIdle {
		m.postLocked(b, now)
	}
}

// closeBatch notes that the frozen batch was delivered.
func (b *mailbox) closeBatch() {
	n := b.batch
	b.batch, b.batched, b.tries, b.lastErr = nil, nil, 0, nil
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
		d *= 2
	}
	d = min(d, p.BackoffMax)
	return d/2 + rand.N(d/2+1)
}
