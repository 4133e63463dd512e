// Quickstart: a parent hands nine investigations of a Go source tree to children
// in the background, does work of its own meanwhile, looks how they get on, cancels
// one of them, and is told as they end. The last notification is the final one.
//
//	go run ./examples/quickstart [DIR]
//
// DIR defaults to the module around the working directory. There is no model
// here: a child is an ordinary Go function (investigate.go), run by
// subagent.Func, that pauses as if it asked one. A host of LLM agents puts its
// agent loop in that place, and all else stays as it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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
	began   time.Time
	out     io.Writer
}

// run is the parent's life, from the first launch to the last result.
func run(ctx context.Context, out io.Writer, args ...string) (err error) {
	dir, err := findTree(ctx, args)
	if err != nil {
		return err
	}
	p := &parent{mail: make(chan subagent.Notification), began: time.Now(), out: out}
	p.manager, err = subagent.New(subagent.Func(work), p.config())
	if err != nil {
		return err
	}
	defer p.manager.Close()

	if err := p.launchAll(ctx, dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d investigations of %s are running in the background, two of an agent at a time.\n", len(p.tasks), dir)

	// The parent gets on with its own work.
	p.countPackages(ctx, dir)

	n, err := p.awaitFinal(ctx)
	if err != nil {
		return err
	}
	p.printFinal(n)
	return p.printResults()
}

// config holds the children to two per agent, and has the parent told through a
// channel that its loop reads.
func (p *parent) config() subagent.Config {
	return subagent.Config{
		Keys:   subagent.KeyLimits{Default: 2},
		Agents: map[string]subagent.Agent{"surveyor": {}, "reviewer": {}},
		Mailbox: subagent.MailboxPolicy{
			// A notification says what ended; its text could quote the beginning of
			// each result too. This parent prints the whole results in the end.
			PreviewBytes: subagent.Off,
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
			if err := think(ctx); err != nil {
				return subagent.Result{}, err
			}
			text, err := i.answer(ctx, turn.Create.Dir)
			return subagent.Result{Text: text}, err
		}
	}
	return subagent.Result{}, fmt.Errorf("nobody here can look for %q", turn.Text)
}

// think takes a moment, as a model would. Without it a child is done before anybody
// can see it run.
func think(ctx context.Context) error {
	select {
	case <-time.After(300*time.Millisecond + rand.N(200*time.Millisecond)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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

// awaitFinal is the parent's loop: it shows how things stand and what it is told,
// cancels the endless investigation in time, and returns the final notification.
func (p *parent) awaitFinal(ctx context.Context) (subagent.Notification, error) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case n := <-p.mail:
			if n.Final {
				return n, nil
			}
			p.printNews(n)
		case <-tick.C:
			p.printStatus()
			if err := p.cancelEndless(ctx); err != nil {
				return subagent.Notification{}, err
			}
		case <-ctx.Done():
			return subagent.Notification{}, context.Cause(ctx)
		}
	}
}

// patience is how long the endless investigation may run.
const patience = time.Second

// cancelEndless stops the endless investigation once it had its time. Nothing else
// would: a running child has no limit of its own.
func (p *parent) cancelEndless(ctx context.Context) error {
	task, err := p.manager.Get(p.tasks[endless])
	if err != nil || task.Status.Terminal() || task.Started.IsZero() || time.Since(task.Started) < patience {
		return err
	}
	// ByParent: the parent knows what it did itself, and is not told of it.
	task, err = p.manager.Cancel(ctx, task.ID, subagent.CancelOptions{Cause: subagent.ByParent})
	switch {
	case errors.Is(err, subagent.ErrEnded): // by itself, meanwhile
		return nil
	case err == nil: // and its child has stopped
		p.printf("cancelled: %s", task.Description)
	}
	return err
}
