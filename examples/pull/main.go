// Pull: a host that nobody can push anything into. It has no Notifier: its agent loop
// takes what the parent is owed between two turns of the parent's model, and puts it
// before the next one. When that turn fails, the parent has not read it, and is owed it
// again.
//
//	go run ./examples/pull
//
// There is no model here: model.go says what it would.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// me is the session id of the parent: any name that the host gives it.
const me subagent.SessionID = "pull"

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "usage: pull")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pull:", err)
		os.Exit(1)
	}
}

// parent is an agent loop.
type parent struct {
	manager *subagent.BackgroundManager
	model   model
	open    []subagent.TaskID // launched, and not told of yet
	last    string            // the notification that was read, or was to be
	began   time.Time
	out     io.Writer
}

func run(ctx context.Context, out io.Writer) error {
	manager, err := subagent.New(subagent.Func(work), subagent.Config{}) // no Notifier
	if err != nil {
		return err
	}
	defer manager.Close()
	p := &parent{manager: manager, began: time.Now(), out: out}
	for done := false; !done; {
		if err := p.rest(ctx); err != nil {
			return err
		}
		switch done, err = p.turn(ctx); {
		case errors.Is(err, errOverloaded): // once more
			fmt.Fprintf(out, "              -> fails: %v; owed again: %d\n", err, len(manager.Pending(me).Notices))
		case err != nil:
			return err
		}
	}
	owed := manager.Pending(me)
	fmt.Fprintf(out, "%s  the parent is owed %d notices, of %d tasks that run\n", p.now(), len(owed.Notices), owed.Live)
	return nil
}

// rest waits while there is nothing to do: the model has no work of its own, and no
// child has ended that it was not told of.
func (p *parent) rest(ctx context.Context) error {
	if p.model.busy() || len(p.open) == 0 {
		return nil
	}
	_, err := p.manager.WaitAny(ctx, subagent.Filter{IDs: p.open})
	return err
}

// turn is one turn of the model. What the parent is owed is taken before it, and is the
// parent's when it ended well.
func (p *parent) turn(ctx context.Context) (done bool, err error) {
	news, ack := p.take()
	defer ack(false) // does nothing after ack(true)
	reply, err := p.model.next(ctx, news.Text)
	if err != nil {
		return false, err
	}
	ack(true)
	for _, n := range news.Notices {
		p.open = slices.DeleteFunc(p.open, func(id subagent.TaskID) bool { return id == n.Task })
	}
	fmt.Fprintf(p.out, "              -> %s\n", reply.says)
	for _, prompt := range reply.delegates {
		task, err := p.manager.Launch(ctx, subagent.LaunchInput{
			Parent: me, Agent: "worker", Prompt: prompt, Description: prompt,
		})
		if err != nil {
			return false, err
		}
		p.open = append(p.open, task.ID)
		fmt.Fprintf(p.out, "                 %s\n", prompt)
	}
	return reply.done, nil
}

// take is the boundary between two turns.
func (p *parent) take() (subagent.Notification, func(delivered bool)) {
	n, ack, ok := p.manager.Drain(me)
	if !ok {
		fmt.Fprintf(p.out, "%s  a turn, with no news; %d tasks run\n", p.now(), p.manager.Pending(me).Live)
		return n, func(bool) {}
	}
	which := "news"
	if n.ID == p.last {
		which = "the same news"
	}
	p.last = n.ID
	fmt.Fprintf(p.out, "%s  a turn, with %s; %d tasks run\n", p.now(), which, n.Remaining)
	for _, notice := range n.Notices {
		fmt.Fprintf(p.out, "              <- %s: %s\n", notice.Description, notice.Status)
	}
	return n, ack
}

func (p *parent) now() string { return fmt.Sprintf("%.1fs", time.Since(p.began).Seconds()) }
