package subagenttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Receiver is a notifier under [TestNotifier], and what the suite must know to use it.
type Receiver struct {
	Notifier subagent.Notifier
	Parents  Parents

	// Settle is how long a call, or the beginning of a turn, may take; for a twentieth of
	// it the suite looks whether a turn begins that should not. Defaults to 10 s.
	Settle time.Duration
}

// Parents is what the suite needs of the sessions that a notifier tells. Its methods are
// called one at a time, by the goroutine of the test, and have the test fail themselves if
// they can't do what they should.
type Parents interface {
	// Open makes a session that rests.
	Open() subagent.SessionID
	// Said is what the transcript of a session holds, the oldest first; ID and Time may be
	// missing.
	Said(subagent.SessionID) []subagent.Message
	// Turns is how many turns of a session have begun so far, whoever began them.
	Turns(subagent.SessionID) int
	// Work begins a turn that goes on until Rest, and returns once it goes on.
	Work(subagent.SessionID)
	// Rest ends that turn, and returns when no turn of the session goes on, also none that
	// a notification began.
	Rest(subagent.SessionID)
	// Delete gives up a session that rests.
	Delete(subagent.SessionID)
}

// TestNotifier checks that a Notifier keeps the contract, and a [subagent.ReceiptChecker]
// if it is one too: run it in the tests of every adapter, with -race. factory makes a
// fresh receiver for each case, and has t.Cleanup end what it makes; the sessions that a
// case makes are left as they are. A failure names the rule that was broken.
//
// The rules, each with the name of its case:
//
//   - accepted: what was accepted stands in the parent's transcript once, as a message of
//     the user, and in no other
//   - again: a notification that comes again is accepted, adds nothing and begins no turn
//   - wake: Wake begins one turn, which answers
//   - no wake: without Wake no turn begins, and the text stands there for the next one
//   - in order: two notifications both stand there, the first one first
//   - busy: a parent that is in a turn is Busy and gets nothing, and accepts the same
//     notification when it rests
//   - deposit: HandDeposit puts the text where a parent that is in a turn, or rests, finds
//     it, once, and begins no turn
//   - wake later: after a deposit HandWake is Busy while the parent is in a turn; then it
//     begins one turn, unless the one before went on with the text, and adds no second copy
//     of it, also when it comes again
//   - gone: a parent that was deleted is Gone, however it is told
//   - unknown parent: one that there never was is Gone or an error
//   - received: Received says whether the parent has the notification, before and after,
//     and no of a parent that there never was, or an error (of a ReceiptChecker)
//   - many at once: different parents may be told at the same time
//   - ended context: Notify returns soon once its context has ended; what it accepted is
//     there, and after anything else the same notification comes again and is there once
func TestNotifier(t *testing.T, factory func(t *testing.T) Receiver) {
	t.Helper()
	suite(t, notifierRules, factory)
}

// check says what the suite can't do without.
func (r Receiver) check() error {
	switch {
	case r.Notifier == nil:
		return errors.New("subagenttest: Receiver.Notifier is empty: the suite needs the notifier to test")
	case r.Parents == nil:
		return errors.New("subagenttest: Receiver.Parents is empty: the suite needs sessions to tell")
	}
	return nil
}

func (r Receiver) settled() Receiver {
	if r.Settle <= 0 {
		r.Settle = defaultSettle
	}
	return r
}

// told is a notification for a parent, with words that stand nowhere else.
func told(parent subagent.SessionID) subagent.Notification {
	words := rand.Text()
	return subagent.Notification{
		ID: "nt_" + words, Parent: parent, Text: "One task has ended: " + words + ".", Final: true,
		Notices: []subagent.Notice{{Task: subagent.TaskID("bg_" + words), Run: 1, Agent: "worker", Status: subagent.Completed}},
	}
}

// as is a notification handed over in a way, with the Wake that goes with it.
func as(n subagent.Notification, how subagent.Handover) subagent.Notification {
	n.Handover, n.Wake = how, how == subagent.HandWake
	return n
}

func waking(n subagent.Notification) subagent.Notification {
	n.Wake = true
	return n
}

func (r Receiver) notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	return call(r.Settle, "Notify", func() (subagent.Delivery, error) { return r.Notifier.Notify(ctx, n) })
}

// wants makes a call that must end in an answer.
func (r Receiver) wants(ctx context.Context, n subagent.Notification, want subagent.Delivery) error {
	got, err := r.notify(ctx, n)
	if err == nil && got != want {
		err = fmt.Errorf("Notify (%v) says %v, where it should say %v", n.Handover, got, want)
	}
	return err
}

// has checks how often the text of a notification stands in a transcript.
func (r Receiver) has(in subagent.SessionID, n subagent.Notification, want int) error {
	copies := 0
	for _, m := range r.Parents.Said(in) {
		if m.Role == subagent.RoleUser && strings.Contains(m.Text, n.Text) {
			copies++
		}
	}
	if copies != want {
		return fmt.Errorf("the text stands in the transcript %d times, where it should be there %d times", copies, want)
	}
	return nil
}

// answered reports whether something whole was said after a notification.
func (r Receiver) answered(n subagent.Notification) bool {
	there := false
	for _, m := range r.Parents.Said(n.Parent) {
		if there && m.Role == subagent.RoleAssistant && m.Complete && m.Err == nil {
			return true
		}
		there = there || m.Role == subagent.RoleUser && strings.Contains(m.Text, n.Text)
	}
	return false
}

// begins waits until so many turns have begun, and a moment for one too many.
func (r Receiver) begins(id subagent.SessionID, turns int) error {
	limit := time.NewTimer(r.Settle)
	defer limit.Stop()
	look := time.NewTicker(max(r.Settle/1000, time.Millisecond))
	defer look.Stop()
	for r.Parents.Turns(id) < turns {
		select {
		case <-look.C:
		case <-limit.C:
			return fmt.Errorf("%d turns have begun after %v, where it should be %d", r.Parents.Turns(id), r.Settle, turns)
		}
	}
	return r.still(id, turns)
}

// still waits a moment and checks that no further turn begins.
func (r Receiver) still(id subagent.SessionID, turns int) error {
	moment := time.NewTimer(max(r.Settle/20, time.Millisecond))
	defer moment.Stop()
	<-moment.C
	if got := r.Parents.Turns(id); got != turns {
		return fmt.Errorf("%d turns have begun, where it should be %d", got, turns)
	}
	return nil
}
