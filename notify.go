package subagent

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Notifier tells a parent session. There is never more than one call out for one
// parent; different parents do not wait for each other. One whose parents may be Busy
// has to look at Notification.Handover as well.
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

// ReceiptChecker is a Notifier that can tell whether a notification has arrived. It is
// asked before one whose fate is Unknown is sent again. Without it such a one is sent
// again, and the receiver has to know it by (task, run).
type ReceiptChecker interface {
	// Received reports whether the parent has the notification. While that can't be
	// found out, an error, it is not sent again but asked for again, as often as
	// MailboxPolicy.Tries says.
	Received(ctx context.Context, n Notification) (bool, error)
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
	// Busy: the parent can't take it now, and does not have it. It is offered again
	// when the parent idles, as HandleEvent tells, and after a backoff, together with
	// what has ended meanwhile; after MailboxPolicy.BusyMax it is deposited, see
	// Handover. A host that drains at the end of the parent's turns need not wait.
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
	return wordOf("Delivery", deliveryNames[:], d)
}

// MarshalText writes the answer as its word.
func (d Delivery) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a word that MarshalText wrote.
func (d *Delivery) UnmarshalText(text []byte) error {
	return fromWord("Delivery", deliveryNames[:], d, text)
}

// Handover is how a parent is to take a notification.
type Handover uint8

const (
	// HandOffer: as Wake says. The parent may be Busy.
	HandOffer Handover = iota
	// HandDeposit: the parent was Busy for MailboxPolicy.BusyMax. Put the text where its
	// next turn finds it, also while one goes on, and begin none: Wake is false.
	HandDeposit
	// HandWake: it was deposited before, and the turn that it asked for is to begin
	// now. ID, Text and Notices are those of the deposit; a parent that is in a turn is
	// Busy.
	HandWake
	numHandovers
)

var handoverNames = [numHandovers]string{"offer", "deposit", "wake"}

// String is the handover in one word: "offer", "deposit" or "wake".
func (h Handover) String() string {
	return wordOf("Handover", handoverNames[:], h)
}

// MarshalText writes the handover as its word.
func (h Handover) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads a word that MarshalText wrote.
func (h *Handover) UnmarshalText(text []byte) error {
	return fromWord("Handover", handoverNames[:], h, text)
}

// Notification is one batch for one parent. Once it may have arrived it does not change:
// a resend has the same ID, Text and Notices. A receiver that keeps track of
// (Task, Run) of the notices it has seen gets each exactly once.
type Notification struct {
	ID       string
	Parent   SessionID
	Handover Handover
	// Context is what the parent's last launch said of it, for hosts that can't tell
	// what it is like now; nil if it said nothing.
	Context *ParentContext
	Text    string // for the parent's model, as rendered from the rest
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
	// that did not complete, or MailboxPolicy.WakeEach is set, or a turn was asked for
	// before and put off. Without it the text is for the parent's next turn. A parent
	// that is itself a child is never woken: its turn goes on, and ends its task. Nor is
	// one by children alone that were stopped by its own interruption, see
	// Config.Interrupted.
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
	Unstopped   bool          // its own turn may still go on, as Attempt.Unstopped says
}

// maxEarlier bounds Notification.Earlier.
const maxEarlier = 100

// String is the notice in short: "bg_… run 1: completed".
func (n Notice) String() string { return fmt.Sprintf("%s run %d: %s", n.Task, n.Run, n.Status) }

// clone is a copy whose owner may change it.
func (n *Notification) clone() Notification {
	c := *n
	c.Notices = cloneNotices(n.Notices)
	c.Earlier = cloneNotices(n.Earlier)
	c.Context = n.Context.clone()
	return c
}

func cloneNotices(notices ...[]Notice) []Notice {
	all := slices.Concat(notices...)
	for i := range all {
		all[i].Reason = all[i].Reason.clone()
	}
	return all
}

// noticesLocked is what the parent of finished runs is told.
func (m *BackgroundManager) noticesLocked(ended []due) []Notice {
	notices := make([]Notice, len(ended))
	for i, d := range ended {
		if d.past != nil {
			notices[i] = *d.past
		} else {
			notices[i] = m.noticeLocked(d.task)
		}
	}
	return notices
}

func (m *BackgroundManager) noticeLocked(t *task) Notice {
	n := Notice{
		Task: t.id, Run: int(t.run), Session: t.session, Agent: t.in.Agent,
		Description: t.in.Description, Origin: t.in.Origin, Status: t.status, Reason: t.reason,
	}
	if t.started == 0 {
		n.Waited = time.Duration(t.ended - t.queued)
	} else {
		n.Waited, n.Ran = time.Duration(t.started-t.queued), time.Duration(t.ended-t.started)
	}
	if s := t.said; s != nil && s.produced && s.run == t.run {
		n.Size, n.Partial = s.size, s.partial
		if bytes := m.cfg.Mailbox.PreviewBytes; bytes != Off {
			n.Preview = cut(s.text, bytes)
		}
	}
	n.Unstopped = t.unstoppedLocked() != nil
	if t.own != nil && t.status == Completed {
		n.Open = t.own.live
	}
	return n
}
