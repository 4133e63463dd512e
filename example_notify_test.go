package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// A parent with a loop of its own is told through a channel. Notify must end when
// its ctx does: the loop may be busy, and the same notification then comes again.
func ExampleNotifierFunc() {
	ctx := context.Background()
	told := make(chan subagent.Notification)
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Notifier: subagent.NotifierFunc(
		func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			select {
			case told <- n:
				return subagent.Accepted, nil
			case <-ctx.Done():
				return subagent.Unknown, ctx.Err()
			}
		})})
	defer m.Close()
	m.Launch(ctx, ask("500ms"))
	m.Launch(ctx, ask("1ms"))
	for final := false; !final; {
		n := <-told // n.Text is what the parent's model reads
		for _, notice := range n.Notices {
			fmt.Println(notice.Status, notice.Preview)
		}
		fmt.Println(n.Remaining, "to come")
		final = n.Final
	}
	// Output:
	// completed done after 1ms
	// 1 to come
	// completed done after 500ms
	// 0 to come
}

// A parent that is in a turn can't be told now. What it is owed is offered again.
func ExampleDelivery_busy() {
	ctx := context.Background()
	var inTurn atomic.Bool
	inTurn.Store(true)
	deposited, turns := make(chan string, 1), make(chan string, 1)
	notify := func(_ context.Context, n subagent.Notification) (subagent.Delivery, error) {
		switch {
		case n.Handover == subagent.HandDeposit: // busy for BusyMax: for its next turn, and none is begun
			deposited <- n.ID
			return subagent.Accepted, nil
		case inTurn.Load():
			return subagent.Busy, nil
		}
		turns <- n.ID // n.Handover says whether its text lies there already
		return subagent.Accepted, nil
	}
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{
		Notifier: subagent.NotifierFunc(notify),
		Mailbox:  subagent.MailboxPolicy{BusyMax: 50 * time.Millisecond},
	})
	defer m.Close()

	m.Launch(ctx, ask("1ms"))
	id := <-deposited
	inTurn.Store(false) // the turn is over
	for owed := true; owed; owed = m.Pending("main").Wake {
		m.HandleEvent(subagent.SessionEvent{Session: "main", Kind: subagent.EventIdle})
	}
	fmt.Println("the deposit and its turn are one:", id == <-turns)
	// Output: the deposit and its turn are one: true
}

// Without a Notifier the host looks before each turn of the parent's model. What
// it took is the parent's only when the turn did not fail.
func ExampleBackgroundManager_Pending() {
	ctx := context.Background()
	finish := make(chan struct{})
	m, _ := subagent.New(subagent.Func(func(context.Context, subagent.Turn) (subagent.Result, error) {
		<-finish
		return subagent.Result{Text: "found it"}, nil
	}), subagent.Config{})
	defer m.Close()

	model := func(input string) error { fmt.Println("  the model reads:", input); return nil }
	overloaded := func(string) error { fmt.Println("  overloaded"); return errors.New("overloaded") }
	turn := func(model func(string) error) {
		owed := m.Pending("main")
		fmt.Println(owed.Live, "live,", len(owed.Notices), "owed")
		n, ack, ok := m.Drain("main")
		if !ok {
			model("nothing new")
			return
		}
		err := model(n.Notices[0].Preview) // a host puts n.Text before the user's message
		ack(err == nil)                    // false: it is owed again
	}

	task, _ := m.Launch(ctx, ask("find it"))
	turn(model)
	close(finish)
	m.Wait(ctx, task.ID)
	turn(overloaded)
	turn(model)
	turn(model)
	// Output:
	// 1 live, 0 owed
	//   the model reads: nothing new
	// 0 live, 1 owed
	//   overloaded
	// 0 live, 1 owed
	//   the model reads: found it
	// 0 live, 0 owed
	//   the model reads: nothing new
}

// Before a host shortens a conversation, it keeps what the model must not forget.
func ExampleBackgroundManager_History() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	m.Do(ctx, subagent.LaunchInput{Parent: "main", Agent: "explore", Prompt: "1ms", Description: "the parser"})
	m.Do(ctx, subagent.LaunchInput{Parent: "main", Agent: "explore", Prompt: "1ms", Description: "the printer"})
	for _, line := range strings.Split(strings.TrimSpace(m.History("main")), "\n") {
		if _, rest, ok := strings.Cut(line, "; agent "); ok { // ids and sessions are random
			line = "- … " + rest
		}
		fmt.Println(line)
	}
	// Output:
	// Your background tasks, the newest first:
	// - … explore; "the printer"
	// - … explore; "the parser"
}
