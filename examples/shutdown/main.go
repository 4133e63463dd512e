// Shutdown: how a host ends when it is told to. Children work in the background
// until SIGINT, SIGTERM or the end of -after; then they get -grace to finish.
//
//	go run ./examples/shutdown [-after 3s] [-grace 1s]
//
// A child that ends within the grace completes, one that goes on is stopped, and
// one that has not started never starts. The parent is told what it is owed.
//
// The program itself exits 0 after a Ctrl-C. The go command, which gets it too,
// exits 1 under `go run`; build the program to see its own status.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

func main() {
	after := flag.Duration("after", 3*time.Second, "shut down by itself after this `duration`")
	grace := flag.Duration("grace", time.Second, "let running children go on for this `duration`")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "shutdown: takes flags only, not %q\n", flag.Args())
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on, a second one kills as usual.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Stdout, *after, *grace); err != nil {
		fmt.Fprintln(os.Stderr, "shutdown:", err)
		os.Exit(1)
	}
}

// jobs are the children. Two of an agent run at the same time.
var jobs = []struct {
	agent, name string
	takes       time.Duration
}{
	{"tester", "quick", 500 * time.Millisecond},
	{"tester", "endless", time.Hour},
	{"writer", "steady", 3500 * time.Millisecond},
	{"writer", "endless", time.Hour},
	{"writer", "queued behind steady", time.Hour},
	{"writer", "queued behind that", time.Hour},
}

// run works until ctx or the time after ends, and then shuts down.
func run(ctx context.Context, out io.Writer, after, grace time.Duration) error {
	manager, err := subagent.New(subagent.Func(work), subagent.Config{
		Keys:     subagent.KeyLimits{Default: 2},
		Notifier: printer(out),
	})
	if err != nil {
		return err
	}
	defer manager.Close() // does nothing after Shutdown
	for _, job := range jobs {
		_, err := manager.Launch(ctx, subagent.LaunchInput{
			Parent: "main", Agent: job.agent, Description: job.name, Prompt: job.takes.String(),
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d children; interrupt to shut down, or wait %s\n", len(jobs), after)
	why := "time is up"
	select {
	case <-ctx.Done():
		why = "told to stop"
	case <-time.After(after):
	}

	fmt.Fprintf(out, "%s: running children get %s\n", why, grace)
	// Not made from ctx: it may have ended, and would leave no time to anyone.
	last, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err = manager.Shutdown(last)

	// The tasks can still be read.
	printTasks(out, manager.List(subagent.Filter{}))
	fmt.Fprintln(out, "Shutdown returned", err)
	return err
}

// work takes as long as its prompt says, in steps. It ends when ctx does, and
// what it has done by then is kept with the task as a partial result.
func work(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	takes, err := time.ParseDuration(turn.Text)
	if err != nil {
		return subagent.Result{}, err
	}
	done := time.NewTimer(takes)
	defer done.Stop()
	step := time.NewTicker(100 * time.Millisecond)
	defer step.Stop()
	for steps := 0; ; {
		select {
		case <-step.C:
			steps++
		case <-done.C:
			return subagent.Result{Text: fmt.Sprintf("all done in %d steps", steps)}, nil
		case <-ctx.Done():
			return subagent.Result{Text: fmt.Sprintf("%d steps done", steps)}, ctx.Err()
		}
	}
}

// printer is the parent: it prints what it is told, beside what run prints.
func printer(out io.Writer) subagent.NotifierFunc {
	return func(_ context.Context, n subagent.Notification) (subagent.Delivery, error) {
		for _, notice := range n.Notices {
			fmt.Fprintf(out, "told: %s %s: %s\n", notice.Agent, notice.Description, notice.Status)
		}
		if n.Final {
			fmt.Fprintln(out, "told: all children have ended")
		}
		return subagent.Accepted, nil
	}
}

func printTasks(out io.Writer, tasks []subagent.Task) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range tasks {
		reason, ran := "-", "never ran"
		if t.Reason != nil {
			reason = string(t.Reason.Code)
		}
		if !t.Started.IsZero() {
			ran = fmt.Sprintf("ran %.1fs", t.Ended.Sub(t.Started).Seconds())
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Agent, t.Description, t.Status, reason, ran, t.Result.Text)
	}
	table.Flush()
	fmt.Fprintln(out)
}
