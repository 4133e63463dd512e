package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/seed-48fd9ae4/subagent"
)

// notifierRules is the contract of a Notifier, as far as calls can tell.
var notifierRules = []rule[Receiver]{
	{"accepted", "what was accepted stands in the parent's transcript once, as a message of the user, and in no other", checkAccepted},
	{"again", "a notification that comes again is accepted, adds nothing and begins no turn", checkAgain},
	{"wake", "Wake begins one turn, which answers", checkWake},
	{"no wake", "without Wake no turn begins, and the text stands there for the next one", checkNoWake},
	{"in order", "two notifications both stand there, the first one first", checkOrder},
	{"busy", "a parent that is in a turn is Busy and gets nothing, and accepts the same notification when it rests", checkBusy},
	{"deposit", "HandDeposit puts the text where a parent that is in a turn, or rests, finds it, once, and begins no turn", checkDeposit},
	{"wake later", "after a deposit HandWake is Busy while the parent is in a turn; then it begins one turn, unless the one before went on with the text, and adds no second copy of it, also when it comes again", checkWakeLater},
	{"gone", "a parent that was deleted is Gone, however it is told", checkGone},
	{"unknown parent", "one that there never was is Gone or an error", checkUnknownParent},
	{"received", "Received says whether the parent has the notification, before and after, and no of a parent that there never was, or an error", checkReceived},
	{"many at once", "different parents may be told at the same time", checkManyParents},
	{"ended context", "Notify returns soon once its context has ended; what it accepted is there, and after anything else the same notification comes again and is there once", checkEndedNotify},
}

func checkAccepted(ctx context.Context, r Receiver) error {
	n, other := told(r.Parents.Open()), r.Parents.Open()
	if err := errors.Join(r.wants(ctx, n, subagent.Accepted), r.has(n.Parent, n, 1)); err != nil {
		return err
	}
	if err := r.has(other, n, 0); err != nil {
		return fmt.Errorf("of another parent: %w", err)
	}
	return nil
}

func checkAgain(ctx context.Context, r Receiver) error {
	quiet, loud := told(r.Parents.Open()), waking(told(r.Parents.Open()))
	for _, n := range []subagent.Notification{quiet, loud} {
		if err := r.wants(ctx, n, subagent.Accepted); err != nil {
			return err
		}
		turns := 0
		if n.Wake {
			turns = 1
		}
		if err := r.begins(n.Parent, turns); err != nil {
			return err
		}
		r.Parents.Rest(n.Parent)
		for range 2 {
			if err := errors.Join(r.wants(ctx, n, subagent.Accepted), r.has(n.Parent, n, 1)); err != nil {
				return fmt.Errorf("sent again: %w", err)
			}
		}
		if err := r.still(n.Parent, turns); err != nil {
			return fmt.Errorf("sent again: %w", err)
		}
	}
	return nil
}

func checkWake(ctx context.Context, r Receiver) error {
	n := waking(told(r.Parents.Open()))
	if err := errors.Join(r.wants(ctx, n, subagent.Accepted), r.begins(n.Parent, 1)); err != nil {
		return err
	}
	r.Parents.Rest(n.Parent)
	if !r.answered(n) {
		return errors.New("the turn is over, and nothing was said after the notification")
	}
	return errors.Join(r.has(n.Parent, n, 1), r.still(n.Parent, 1))
}

func checkNoWake(ctx context.Context, r Receiver) error {
	n := told(r.Parents.Open())
	if err := errors.Join(r.wants(ctx, n, subagent.Accepted), r.still(n.Parent, 0), r.has(n.Parent, n, 1)); err != nil {
		return err
	}
	r.Parents.Work(n.Parent)
	r.Parents.Rest(n.Parent)
	return errors.Join(r.has(n.Parent, n, 1), r.still(n.Parent, 1))
}

func checkOrder(ctx context.Context, r Receiver) error {
	first := told(r.Parents.Open())
	second := told(first.Parent)
	if err := errors.Join(r.wants(ctx, first, subagent.Accepted), r.wants(ctx, second, subagent.Accepted)); err != nil {
		return err
	}
	var all strings.Builder
	for _, m := range r.Parents.Said(first.Parent) {
		all.WriteString(m.Text)
	}
	if strings.Index(all.String(), first.Text) > strings.Index(all.String(), second.Text) {
		return errors.New("the second notification stands before the first")
	}
	return errors.Join(r.has(first.Parent, first, 1), r.has(first.Parent, second, 1))
}

func checkBusy(ctx context.Context, r Receiver) error {
	for _, wake := range []bool{false, true} {
		n := told(r.Parents.Open())
		n.Wake = wake
		r.Parents.Work(n.Parent)
		if err := errors.Join(r.wants(ctx, n, subagent.Busy), r.has(n.Parent, n, 0)); err != nil {
			return err
		}
		r.Parents.Rest(n.Parent)
		if err := errors.Join(r.still(n.Parent, 1), r.has(n.Parent, n, 0), r.wants(ctx, n, subagent.Accepted), r.has(n.Parent, n, 1)); err != nil {
			return fmt.Errorf("when it rests: %w", err)
		}
	}
	return nil
}

func checkDeposit(ctx context.Context, r Receiver) error {
	for _, works := range []bool{true, false} {
		n := as(told(r.Parents.Open()), subagent.HandDeposit)
		turns := 0
		if works {
			r.Parents.Work(n.Parent)
			turns = 1
		}
		for range 2 {
			if err := errors.Join(r.wants(ctx, n, subagent.Accepted), r.has(n.Parent, n, 1)); err != nil {
				return err
			}
		}
		r.Parents.Rest(n.Parent)
		if err := errors.Join(r.still(n.Parent, turns), r.has(n.Parent, n, 1)); err != nil {
			return err
		}
	}
	return nil
}

func checkWakeLater(ctx context.Context, r Receiver) error {
	n := told(r.Parents.Open())
	deposit, wake := as(n, subagent.HandDeposit), as(n, subagent.HandWake)
	r.Parents.Work(n.Parent)
	if err := errors.Join(r.wants(ctx, deposit, subagent.Accepted), r.wants(ctx, wake, subagent.Busy)); err != nil {
		return err
	}
	r.Parents.Rest(n.Parent)
	turns := 2
	if r.answered(n) {
		turns = 1
	}
	if err := r.wants(ctx, wake, subagent.Accepted); err != nil {
		return err
	}
	if err := r.begins(n.Parent, turns); err != nil && (turns == 2 || r.Parents.Turns(n.Parent) != 2) { // a turn for what was answered is superfluous, and no more
		return err
	}
	r.Parents.Rest(n.Parent)
	if !r.answered(n) {
		return errors.New("nothing was said after the notification")
	}
	turns = r.Parents.Turns(n.Parent)
	if err := errors.Join(r.wants(ctx, wake, subagent.Accepted), r.still(n.Parent, turns)); err != nil {
		return fmt.Errorf("asked for again: %w", err)
	}
	return r.has(n.Parent, n, 1)
}

func checkGone(ctx context.Context, r Receiver) error {
	for _, how := range []subagent.Handover{subagent.HandOffer, subagent.HandDeposit, subagent.HandWake} {
		n := as(told(r.Parents.Open()), how)
		if err := r.wants(ctx, told(n.Parent), subagent.Accepted); err != nil {
			return err
		}
		r.Parents.Delete(n.Parent)
		if err := r.wants(ctx, n, subagent.Gone); err != nil {
			return err
		}
	}
	return nil
}

func checkUnknownParent(ctx context.Context, r Receiver) error {
	for _, how := range []subagent.Handover{subagent.HandOffer, subagent.HandDeposit, subagent.HandWake} {
		d, err := r.notify(ctx, as(told(unknown), how))
		if err == nil && d == subagent.Gone {
			continue
		}
		if err := refused(err, fmt.Sprintf("Notify (%v) says %v of a parent that there never was", how, d)); err != nil {
			return err
		}
	}
	return nil
}

func checkReceived(ctx context.Context, r Receiver) error {
	checker, ok := r.Notifier.(subagent.ReceiptChecker)
	if !ok {
		return absent("the notifier is no subagent.ReceiptChecker")
	}
	received := func(n subagent.Notification) (bool, error) {
		return call(r.Settle, "Received", func() (bool, error) { return checker.Received(ctx, n) })
	}
	first := told(r.Parents.Open())
	if _, err := received(first); errors.Is(err, errors.ErrUnsupported) {
		return absent("Received is errors.ErrUnsupported")
	}
	for _, n := range []subagent.Notification{first, waking(told(first.Parent)), as(told(first.Parent), subagent.HandDeposit)} {
		for _, want := range []bool{false, true} {
			got, err := received(n)
			if err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("of a notification (%v) Received says %v, where it should say %v", n.Handover, got, want)
			}
			if want {
				break
			}
			if err := r.wants(ctx, n, subagent.Accepted); err != nil {
				return err
			}
			r.Parents.Rest(n.Parent)
		}
	}
	if there, err := received(told(unknown)); there {
		return refused(err, "Received says yes of a parent that there never was")
	}
	return nil
}

func checkManyParents(ctx context.Context, r Receiver) error {
	const parents = 8
	var all [parents]subagent.Notification
	var errs [parents]error
	for i := range all {
		all[i] = told(r.Parents.Open())
	}
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { errs[i] = r.wants(ctx, all[i], subagent.Accepted) })
	}
	wg.Wait()
	for i, n := range all {
		errs[i] = errors.Join(errs[i], r.has(n.Parent, n, 1))
	}
	return errors.Join(errs[:]...)
}

func checkEndedNotify(ctx context.Context, r Receiver) error {
	n := told(r.Parents.Open())
	ended, end := context.WithCancel(ctx)
	end()
	d, err := r.notify(ended, n)
	var b breach
	switch {
	case errors.As(err, &b):
		return err
	case err == nil && d == subagent.Accepted:
		return r.has(n.Parent, n, 1)
	case err == nil && d != subagent.Unknown:
		return fmt.Errorf("Notify says %v because its context has ended", d)
	}
	return errors.Join(r.wants(ctx, n, subagent.Accepted), r.has(n.Parent, n, 1))
}
