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

// me is the session id of the parent: any name that the host gives it.
const me subagent.SessionID = "quickstart"

func main() {
	flag.Usage = func() { fmt.Fprintln(flag.CommandLine.Output(), "usage: quickstart [DIR]") }
	flag.Parse()
	if err := run(context.Background(), os.Stdout, flag.Args()...); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// parent is who delegates.
type parent struct {
	manager *subagent.BackgroundManager
	mail    chan subagent.Notification
	tasks   []subagent.TaskID
	out     io.Writer
}

// run is the parent's life, from the first launch to the last result.
func run(ctx context.Context, out io.Writer, args ...string) (err error) {
	dir, err := findTree(ctx, args)
	if err != nil {
		return err
	}
	p := &parent{mail: make(chan subagent.Notification), out: out}
	p.manager, err = subagent.New(subagent.Func(work), p.config())
	if err != nil {
		return err
	}
	defer p.manager.Close()

	if err := p.launchAll(ctx, dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d investigations of %s go on in the background.\n", len(p.tasks), dir)
	p.printStatus()

	// The parent gets on with its own work.
	p.countPackages(ctx, dir)

	n, err := p.awaitFinal(ctx)
	if err != nil {
		return err
	}
	p.printNotification(n)
	return p.printResults()
}

// config holds the children to two per agent, and has the parent told through a
// channel that its loop reads.
func (p *parent) config() subagent.Config {
	return subagent.Config{
		Keys:   subagent.KeyLimits{Default: 2},
		Agents: map[string]subagent.Agent{"surveyor": {}, "reviewer": {}},
		Mailbox: subagent.MailboxPolicy{
			// These children end in quick succession. Each that ends prolongs the
			// wait by two seconds, so that one notification tells of all. With the
			// defaults, meant for children that take minutes, a parent hears of the
			// first ones while others go on; the last notification is always final.
			Gather: 2 * time.Second, GatherMax: time.Hour,
			PreviewBytes: 60, // the whole results are printed below
		},
		Notifier: subagent.NotifierFunc(func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			select {
			case p.mail <- n:
				return subagent.Accepted, nil
			case <-ctx.Done(): // the loop did not read: the manager tries again
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
	return subagent.Result{}, fmt.Errorf("nobody here can look for %q", turn.Text)
}

// launchAll launches every investigation. Launch returns at once: children that
// find no place under the limit wait in their agent's queue.
func (p *parent) launchAll(ctx context.Context, dir string) error {
	for _, i := range investigations {
		task, err := p.manager.Launch(ctx, subagent.LaunchInput{
			Parent: me, Agent: i.agent, Prompt: i.question, Description: i.question, Dir: dir,
		})
		if err != nil {
			return err
		}
		p.tasks = append(p.tasks, task.ID)
	}
	return nil
}

// awaitFinal is the parent's loop: it shows how things stand, cancels the endless
// investigation once it is the only one left, and returns the final notification.
func (p *parent) awaitFinal(ctx context.Context) (subagent.Notification, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for live := len(p.tasks); ; {
		if now := p.manager.Pending(me).Live; now != live {
			live = now
			p.printStatus()
		}
		if live == 1 {
			if err := p.cancel(ctx, p.tasks[endless]); err != nil {
				return subagent.Notification{}, err
			}
			continue
		}
		select {
		case n := <-p.mail:
			if n.Final {
				return n, nil
			}
			p.printNotification(n) // a child took longer than Gather
		case <-tick.C:
		case <-ctx.Done():
			return subagent.Notification{}, context.Cause(ctx)
		}
	}
}

// cancel returns when the child has stopped.
func (p *parent) cancel(ctx context.Context, id subagent.TaskID) error {
	// The zero options cancel for the user, and the parent is told. With Cause
	// subagent.ByParent it would not be: it knows what it did itself.
	task, err := p.manager.Cancel(ctx, id, subagent.CancelOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\ncancelled after %s: %s\n", seconds(task.Ended.Sub(task.Started)), task.Description)
	return nil
}
