// Quickstart: a parent hands nine investigations of a Go source tree to children
// in the background, does work of its own meanwhile, cancels one of them, and is
// told once when all are done.
//
//	go run ./examples/quickstart [DIR]
//
// DIR defaults to the module around the working directory. There is no model
// here: a child is an ordinary Go function (investigate.go), run by
// subagent.Func. A host of LLM agents puts its agent loop in that place, and all
// else stays as it is.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// me names the parent: any id that the host gives its own session.
const me subagent.SessionID = "quickstart"

func main() {
	flag.Usage = func() { fmt.Fprintln(flag.CommandLine.Output(), "usage: quickstart [DIR]") }
	flag.Parse()
	if err := run(context.Background(), os.Stdout, flag.Args()...); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// run is the parent, from the first launch to the last result.
func run(ctx context.Context, out io.Writer, args ...string) error {
	dir, err := findTree(ctx, args)
	if err != nil {
		return err
	}
	mail := make(chan subagent.Notification)
	manager, err := subagent.New(subagent.Func(work), config(mail))
	if err != nil {
		return err
	}
	defer manager.Close()

	tasks, err := launchAll(ctx, manager, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d investigations of %s go on in the background.\n", len(tasks), dir)
	printStatus(out, manager)

	// Launch returned at once, so the parent gets on with its own work.
	if err := countPackages(ctx, out, dir); err != nil {
		return err
	}

	n, err := awaitFinal(ctx, out, manager, mail, tasks[0])
	if err != nil {
		return err
	}
	printNotification(out, n)
	return printResults(out, manager, tasks)
}

// config holds the children to two per agent, and has the parent told through a
// channel that its loop reads.
func config(mail chan<- subagent.Notification) subagent.Config {
	return subagent.Config{
		Keys:   subagent.KeyLimits{Default: 2},
		Agents: map[string]subagent.Agent{"surveyor": {}, "reviewer": {}},
		Mailbox: subagent.MailboxPolicy{
			// The children here end in quick succession. Each that ends extends
			// the wait by a second, so that all fit in one notification. With the
			// defaults, for children that take minutes, the parent hears of the
			// first ones while others go on, and the last notification is final.
			Gather: time.Second, GatherMax: time.Hour,
			PreviewBytes: 60, // whole results are printed below
		},
		Notifier: subagent.NotifierFunc(func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			select {
			case mail <- n:
				return subagent.Accepted, nil
			case <-ctx.Done(): // nobody reads: it is kept
				return subagent.Unknown, ctx.Err()
			}
		}),
	}
}

// work is the child: one turn, from the prompt to the text of the answer.
func work(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	for _, i := range investigations {
		if i.question == turn.Text {
			text, err := i.answer(ctx, turn.Create.Dir)
			return subagent.Result{Text: text}, err
		}
	}
	return subagent.Result{}, fmt.Errorf("nobody here knows about %q", turn.Text)
}

// launchAll launches every investigation. The children that find no place under
// the limit wait in their agent's queue.
func launchAll(ctx context.Context, manager *subagent.BackgroundManager, dir string) ([]subagent.TaskID, error) {
	var ids []subagent.TaskID
	for _, i := range investigations {
		task, err := manager.Launch(ctx, subagent.LaunchInput{
			Parent: me, Agent: i.agent, Prompt: i.question, Description: i.question, Dir: dir,
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, task.ID)
	}
	return ids, nil
}

// awaitFinal is the parent's loop: it shows how things stand, cancels the endless
// investigation once it is the only one left, and returns the final notification.
func awaitFinal(ctx context.Context, out io.Writer, manager *subagent.BackgroundManager,
	mail <-chan subagent.Notification, endless subagent.TaskID,
) (subagent.Notification, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	live := len(investigations)
	for {
		if now := manager.Pending(me).Live; now != live {
			live = now
			printStatus(out, manager)
			if live == 1 {
				// The zero CancelOptions cancel for the user, so that the parent is
				// told; with Cause: subagent.ByParent it would not be.
				task, err := manager.Cancel(ctx, endless, subagent.CancelOptions{})
				if err != nil {
					return subagent.Notification{}, err
				}
				fmt.Fprintf(out, "\ncancelled: %s (after %s)\n", task.Description, seconds(task.Ended.Sub(task.Started)))
			}
		}
		select {
		case n := <-mail:
			if n.Final {
				return n, nil
			}
			printNotification(out, n) // a child took longer than Gather
		case <-tick.C:
		case <-ctx.Done():
			return subagent.Notification{}, ctx.Err()
		}
	}
}
