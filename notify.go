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

// mailState is what happens to a mailbox next.
type mailState uint8

const (
	mailIdle      mailState = iota // nothing to send
	mailGathering                  // its deadline makes a batch and sends it
	mailSending                    // a Notify call is out
	mailDrained                    // a Drain has not been acknowledged
	mailWaiting                    // its deadline sends the frozen batch again
	mailParked                     // the frozen batch waits for Drain or the next notice
)

// mailbox is all that the books hold about one parent session: where it stands,
// its children, and what it is owed. It is the only place that knows. Guarded by mu.
type mailbox struct {
	origin   origin  // of the session's children
	children []*task // launched by the session, in order
	adopted  []*task // launched by sessions below it that are not tasks
	live     int     // children that have not ended

	state    mailState
	notices  []Notice      // owed and in no batch yet
	batch    *Notification // frozen: sent at least once, or drained
	earlier  []Notice      // delivered since the last final one
	open     bool          // something was delivered since then
	first    time.Time     // when gathering began
	tries    int
	lastErr  error
	deadline deadline
}

// mailboxLocked finds or makes the mailbox of an origin's parent.
func (m *BackgroundManager) mailboxLocked(o origin) *mailbox {
	b := m.mailboxes[o.Parent]
	if b == nil {
		b = &mailbox{origin: o}
		b.deadline.owner = b
		m.mailboxes[o.Parent] = b
	}
	return b
}

// adoptChildLocked files a child of a foreign session also under the nearest ancestor
// that is a task, so that it ends with it.
func (m *BackgroundManager) adoptChildLocked(t *task, o origin) {
	if o.under == nil || o.under.session == o.Parent {
		return
	}
	above := m.mailboxLocked(origin{Lineage: Lineage{o.under.session, o.Root, int(o.under.depth) + 1}, under: o.under})
	above.adopted = append(above.adopted, t)
}

// oweLocked puts down, in the instant of a run's ending, that its parent has one
// live child less and what it is owed for it.
func (m *BackgroundManager) oweLocked(t *task, now time.Time) {
	b := t.owner
	b.live--
	// Descendants that end with their ancestor are told by its notice.
	if !t.silent && !t.reason.is(ParentGone) {
		b = b.heirLocked()
		b.notices = append(b.notices, m.noticeLocked(t))
	}
	m.postLocked(b, now)
	m.bequeathLocked(t, now)
}

// heirLocked is where notices for a mailbox go: to its own session, or, once that
// is a task that has ended, to the nearest ancestor that has not.
func (b *mailbox) heirLocked() *mailbox {
	for u := b.origin.under; u != nil && u.session == b.origin.Parent && u.status.Terminal(); u = b.origin.under {
		b = u.owner
	}
	return b
}

// bequeathLocked hands on what a task that has ended was itself owed.
func (m *BackgroundManager) bequeathLocked(t *task, now time.Time) {
	b := m.mailboxes[t.session]
	if t.session == "" || b == nil || b.state == mailSending || b.state == mailDrained {
		return // what is out comes back here
	}
	heir := b.heirLocked()
	if heir == b {
		return
	}
	if b.batch != nil {
		heir.notices = append(heir.notices, b.batch.Notices...)
	}
	heir.notices = append(heir.notices, b.notices...)
	m.emptyLocked(b)
	m.postLocked(heir, now)
}

// emptyLocked forgets what a mailbox owes.
func (m *BackgroundManager) emptyLocked(b *mailbox) {
	m.disarmLocked(&b.deadline)
	b.state, b.notices, b.batch, b.earlier, b.open = mailIdle, nil, nil, nil, false
	b.tries, b.lastErr = 0, nil
}

// noticeLocked is what a finished run's parent is told.
func (m *BackgroundManager) noticeLocked(t *task) Notice {
	n := Notice{
		Task: t.id, Run: int(t.run), Session: t.session, Agent: t.in.Agent,
		Description: t.in.Description, Origin: t.in.Origin, Status: t.status, Reason: t.reason,
	}
	if t.started.IsZero() {
		n.Waited = t.ended.Sub(t.queued)
	} else {
		n.Waited, n.Ran = t.started.Sub(t.queued), t.ended.Sub(t.started)
	}
	if t.result != nil {
		n.Size, n.Partial = t.result.Size, t.result.Partial
		if bytes := m.cfg.Mailbox.PreviewBytes; bytes != Off {
			n.Preview = cut(t.result.Text, bytes)
		}
	}
	if own := m.mailboxes[t.session]; own != nil && t.session != "" {
		n.Open = own.live
	}
	return n
}

// owes reports whether there is something to tell: notices, or that the last
// child has ended after others were told of.
func (b *mailbox) owes() bool {
	return b.batch != nil || len(b.notices) > 0 || b.live == 0 && b.open
}

// postLocked has a mailbox deliver what it owes. What is out already is looked at
// again when it comes back.
func (m *BackgroundManager) postLocked(b *mailbox, now time.Time) {
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
	at := now.Add(max(m.cfg.Mailbox.Gather, 0))
	if last := b.first.Add(max(m.cfg.Mailbox.GatherMax, 0)); last.Before(at) {
		at = last
	}
	m.armLocked(&b.deadline, at)
}

// dueLocked is the mailbox's deadline: the batch was gathered, or may be sent again.
func (b *mailbox) dueLocked(m *BackgroundManager, _ time.Time) { m.sendLocked(b) }

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
			ID:      "nt_" + uuid.NewString(),
			Parent:  b.origin.Parent,
			Notices: b.notices, Earlier: b.earlier,
			Remaining: b.live, Final: b.live == 0,
			Wake: m.cfg.Mailbox.WakeEach || b.live == 0 || anyFailed(b.notices),
		}
		b.notices, b.tries, b.lastErr = nil, 0, nil
	}
	return b.batch, true
}

func anyFailed(notices []Notice) bool {
	for _, n := range notices {
		if n.Status != Completed {
			return true
		}
	}
	return false
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

// write gives a batch its text, once. A Render that panics is replaced.
func (m *BackgroundManager) write(n *Notification) {
	if n.Text != "" {
		return
	}
	err := guard("render", func() error {
		n.Text = m.cfg.Mailbox.Render(n.clone())
		return nil
	})
	if err != nil || n.Text == "" {
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
	now := time.Now()
	m.told.Deliveries[d]++
	b.tries++
	b.lastErr = err
	switch {
	case d == Accepted:
		m.told.Notices += len(b.batch.Notices)
		b.closeBatch()
		b.state = mailIdle
	case d == Gone:
		m.told.Dropped += len(b.batch.Notices) + len(b.notices)
		m.emptyLocked(b)
		m.logLocked(slog.LevelWarn, "parent gone", slog.String("parent", string(b.origin.Parent)))
	case m.phase >= flushing:
		b.state = mailParked
	case d == Unknown && b.tries >= m.cfg.Mailbox.Tries:
		b.state = mailParked
		m.logLocked(slog.LevelWarn, "notification parked", slog.String("parent", string(b.origin.Parent)), slog.Int("tries", b.tries))
	default:
		b.state = mailWaiting
		m.armLocked(&b.deadline, now.Add(m.cfg.Mailbox.pause(b.tries)))
	}
	m.cameBackLocked(b, now)
}

// cameBackLocked looks at a mailbox again after a delivery or a drain.
func (m *BackgroundManager) cameBackLocked(b *mailbox, now time.Time) {
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
	b.batch, b.tries, b.lastErr = nil, 0, nil
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

// Owed is what a parent is waiting for or has not been told, at one instant.
type Owed struct {
	Live     int      // direct children that have not ended
	Notices  []Notice // finished runs it has not been told of, the oldest first
	InFlight bool     // a Notify or an unacknowledged Drain is out with some of them
	Parked   bool     // sending was given up; Drain, or the next notice, takes them up
	Tries    int      // how often the oldest batch was sent
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
		Live: b.live, InFlight: b.state == mailSending || b.state == mailDrained,
		Parked: b.state == mailParked, Tries: b.tries, LastErr: b.lastErr,
	}
	if b.batch != nil {
		o.Notices = cloneNotices(b.batch.Notices, b.notices)
	} else {
		o.Notices = cloneNotices(b.notices)
	}
	return o
}

// Drain takes what a parent is owed, for a host that tells its agent itself. It
// never takes what a Notify call has out; ok is false when there is nothing to
// take. Until ack is called the notification counts as in flight: ack(true) says
// that the parent has it, ack(false) puts it back as it is. Only the first call
// of ack counts. Drain works after Close too.
func (m *BackgroundManager) Drain(parent SessionID) (n Notification, ack func(delivered bool), ok bool) {
	m.mu.Lock()
	b := m.mailboxes[parent]
	if b == nil || b.state == mailSending || b.state == mailDrained {
		m.mu.Unlock()
		return Notification{}, nil, false
	}
	batch, ok := m.batchLocked(b)
	if !ok {
		m.mu.Unlock()
		return Notification{}, nil, false
	}
	m.disarmLocked(&b.deadline)
	b.state = mailDrained
	m.mu.Unlock()
	m.write(batch)
	return batch.clone(), m.acknowledger(b, batch), true
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
			b.closeBatch()
		}
		m.cameBackLocked(b, time.Now())
	}
}

func (n Notice) String() string { return fmt.Sprintf("%s run %d: %s", n.Task, n.Run, n.Status) }
