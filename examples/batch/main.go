// Batch: two parents delegate at the same time, to children that share three places.
// Each parent is told of its own children and of no others: in one final notification,
// when the last of them has ended. Only a failure does not wait for that; it is told at
// once, together with what had ended by then.
//
//	go run ./examples/batch
//
// There is no model here: a child is a row of a table that takes its time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "usage: batch")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "batch:", err)
		os.Exit(1)
	}
}

// jobs are the children, in the order in which they are launched.
var jobs = []struct {
	parent subagent.SessionID
	prompt string
	takes  time.Duration
	finds  string
	err    error
}{
	{"alice", "read the changelog", 1600 * time.Millisecond, "two breaking changes: Open takes a context, Flush is gone", nil},
	{"bob", "time the tests", 800 * time.Millisecond, "41 s in all, and 30 s of them in package storage", nil},
	{"alice", "find uses of the old API", 1900 * time.Millisecond, "Open: 14 calls\nFlush: 3 calls, all in store.go", nil},
	{"bob", "ask the build server", 400 * time.Millisecond, "", errors.New("it does not answer")},
	{"alice", "build with the new version", 900 * time.Millisecond, "17 errors, one for each of those calls", nil},
	{"bob", "look for sleeps in tests", 1400 * time.Millisecond, "storage_test.go has 7, of 4 s each", nil},
}

// work is the child.
func work(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	for _, job := range jobs {
		if job.prompt != turn.Text {
			continue
		}
		select {
		case <-time.After(job.takes):
			return subagent.Result{Text: job.finds}, job.err
		case <-ctx.Done():
			return subagent.Result{}, ctx.Err()
		}
	}
	return subagent.Result{}, fmt.Errorf("nobody here can %q", turn.Text)
}

// run launches for both parents, and ends when each has had its final notification.
func run(ctx context.Context, out io.Writer) error {
	p := &printer{out: out, began: time.Now()}
	mail := make(chan subagent.Notification)
	manager, err := subagent.New(subagent.Func(work), subagent.Config{
		Keys:     subagent.KeyLimits{Default: 3}, // of an agent: all children are of one
		Mailbox:  subagent.MailboxPolicy{Push: subagent.PushFinal},
		Notifier: forward(mail),
		// What becomes of the children, for people; the parents are not told of it.
		Hooks: subagent.Hooks{Starting: p.event, Ended: p.event},
	})
	if err != nil {
		return err
	}
	defer manager.Close() // once more does nothing

	fmt.Fprintln(out, "Two parents launch three children each, in turns; three children run at a time.")
	for _, job := range jobs {
		in := subagent.LaunchInput{Parent: job.parent, Agent: "worker", Prompt: job.prompt, Description: job.prompt}
		if _, err := manager.Launch(ctx, in); err != nil {
			return err
		}
	}
	told := map[subagent.SessionID]int{}
	for waiting := 2; waiting > 0; {
		select {
		case n := <-mail:
			p.notification(n)
			told[n.Parent]++
			if n.Final {
				waiting--
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := manager.Close(); err != nil { // and the hooks are over
		return err
	}
	fmt.Fprintf(out, "Notifications: %d to alice, %d to bob.\n", told["alice"], told["bob"])
	return nil
}

// forward hands notifications to the loop of whoever reads. One Notifier serves all
// parents: a notification names its own.
func forward(mail chan<- subagent.Notification) subagent.NotifierFunc {
	return func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
		select {
		case mail <- n:
			return subagent.Accepted, nil
		case <-ctx.Done(): // nobody read: the manager tries again
			return subagent.Unknown, ctx.Err()
		}
	}
}

// printer prints what happens, from the goroutine of the hooks and from that of run.
type printer struct {
	mu    sync.Mutex // guards out
	out   io.Writer
	began time.Time
}

// event says in a line what became of a child.
func (p *printer) event(e subagent.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%s  %-9s  %-5s  %s\n", p.since(e.Time), e.Task.Status, e.Task.Parent, e.Task.Description)
}

// notification prints what a parent's model would read.
func (p *printer) notification(n subagent.Notification) {
	p.mu.Lock()
	defer p.mu.Unlock()
	which := "told at once"
	if n.Final {
		which = "its final notification"
	}
	fmt.Fprintf(p.out, "\n%s  to %s, %s:\n", p.since(time.Now()), n.Parent, which)
	for line := range strings.Lines(n.Text) {
		fmt.Fprint(p.out, "  > ", line)
	}
	fmt.Fprintln(p.out)
}

func (p *printer) since(t time.Time) string { return fmt.Sprintf("%.1fs", t.Sub(p.began).Seconds()) }
