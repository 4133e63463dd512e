// Fanout opens a session in a running opencode server, has it delegate investigations
// of a directory to four children, and shows how it is told of them: one message in
// its own transcript, and one turn that answers it.
//
//	opencode serve --port 4096
//	go run github.com/seed-48fd9ae4/subagent/adapters/opencode/examples/fanout -dir .
//
// The sessions stay in the server, to be looked at there. It ends with an error if no
// child has completed, or if the parent can't be told.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// questions are what the children are asked, unless the command line asks otherwise.
var questions = []string{
	"Which file here is the longest, and what is it about? Two sentences.",
	"What would a newcomer read first to understand this directory, and why? Two sentences.",
	"Which part of this directory has the fewest tests? Two sentences.",
	"What is the oddest name in this directory? One sentence.",
}

type options struct {
	url, dir, agent, model string
	limit                  int
	questions              []string
	transport              http.RoundTripper // nil: http.DefaultTransport
}

func main() {
	o := options{questions: questions}
	flag.StringVar(&o.url, "url", "http://127.0.0.1:4096", "of the opencode server; its password is in OPENCODE_SERVER_PASSWORD")
	flag.StringVar(&o.dir, "dir", "", "to be looked at, on the server's machine; the server's own if empty")
	flag.StringVar(&o.agent, "agent", "build", "that the children are")
	flag.StringVar(&o.model, "model", "", "of the children, as provider/model; the agent's own if empty")
	flag.IntVar(&o.limit, "limit", 2, "children at a time")
	flag.Parse()
	if flag.NArg() > 0 {
		o.questions = flag.Args()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "fanout:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	if o.dir != "" { // the server would take it from a directory of its own
		dir, err := filepath.Abs(o.dir)
		if err != nil {
			return err
		}
		o.dir = dir
	}
	client, err := opencode.New(opencode.Config{URL: o.url, Password: os.Getenv("OPENCODE_SERVER_PASSWORD"), Keep: true, Transport: o.transport})
	if err != nil {
		return err
	}
	m, err := subagent.New(client, subagent.Config{
		Keys:    subagent.KeyLimits{Default: o.limit},
		Mailbox: subagent.MailboxPolicy{Gather: 5 * time.Second, GatherMax: 5 * time.Minute},
	})
	if err != nil {
		return err
	}
	defer m.Close() // stops the children that an interrupt leaves running

	parent, err := client.Create(ctx, subagent.CreateRequest{Agent: o.agent, Description: "fan out", Dir: o.dir})
	if err != nil {
		return err
	}
	rests := make(chan struct{}, 1)
	events, stop := context.WithCancel(ctx)
	defer stop()
	go follow(events, client, m, parent, rests)
	fmt.Fprintf(out, "The parent is session %s.\n", parent)
	for i, q := range o.questions {
		task, err := m.Launch(ctx, subagent.LaunchInput{
			Parent: parent, Agent: o.agent, Model: o.model, Prompt: q, Description: fmt.Sprintf("question %d", i+1),
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %s: %s (%s)\n", task.Description, line(q), task.Status)
	}
	completed, err := watch(ctx, out, m, parent)
	if err != nil {
		return err
	}
	if err := told(ctx, out, client, m, parent, rests); err != nil {
		return err
	}
	if completed == 0 {
		return errors.New("no child has completed")
	}
	return nil
}

// follow hands the server's events on, and tells rests when the parent idles.
func follow(ctx context.Context, client *opencode.Client, m *subagent.BackgroundManager, parent subagent.SessionID, rests chan<- struct{}) {
	err := client.Run(ctx, func(e subagent.SessionEvent) {
		m.HandleEvent(e)
		if e.Session == parent && e.Kind == subagent.EventIdle {
			select {
			case rests <- struct{}{}:
			default:
			}
		}
	})
	if ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "fanout: no events, so that all is seen later:", err)
	}
}

// watch shows what becomes of the children, until all have ended, and says how many
// have completed.
func watch(ctx context.Context, out io.Writer, m *subagent.BackgroundManager, parent subagent.SessionID) (completed int, err error) {
	var waiting []subagent.TaskID
	for _, t := range m.List(subagent.Filter{Parent: parent}) {
		waiting = append(waiting, t.ID)
	}
	shown := map[subagent.TaskID]string{}
	for len(waiting) > 0 {
		t, err := next(ctx, out, m, waiting, shown)
		if err != nil {
			return completed, err
		}
		answer := line(t.Result.Text)
		if t.Status == subagent.Completed {
			completed++
		} else {
			answer = t.Reason.Error()
		}
		fmt.Fprintf(out, "%s %s after %.1fs, %d tool calls: %s\n", t.Description, t.Status, t.Ended.Sub(t.Started).Seconds(), t.Progress.ToolCalls, answer)
		waiting = slices.DeleteFunc(waiting, func(id subagent.TaskID) bool { return id == t.ID })
	}
	return completed, nil
}

// next waits until one of the children ends, and shows meanwhile what they wait for.
func next(ctx context.Context, out io.Writer, m *subagent.BackgroundManager, of []subagent.TaskID, shown map[subagent.TaskID]string) (subagent.Task, error) {
	for {
		look, stop := context.WithTimeout(ctx, time.Second)
		t, err := m.WaitAny(look, subagent.Filter{IDs: of})
		stop()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return t, err
		}
		for _, t := range m.List(subagent.Filter{IDs: of}) {
			why := ""
			switch p := t.Progress; {
			case p.Retrying != "":
				why = "waits to call its model again: " + line(p.Retrying)
			case p.Waiting != "":
				why = "waits for an answer: " + line(p.Waiting)
			}
			if why != "" && why != shown[t.ID] {
				fmt.Fprintln(out, t.Description, why)
			}
			shown[t.ID] = why
		}
	}
}

// told waits until the parent has answered its notification and prints its transcript.
func told(ctx context.Context, out io.Writer, client *opencode.Client, m *subagent.BackgroundManager, parent subagent.SessionID, rests <-chan struct{}) error {
	look := time.NewTicker(3 * time.Second) // an event may have been missed
	defer look.Stop()
	shown := ""
	for {
		said, err := client.Transcript(ctx, parent, subagent.TranscriptQuery{})
		if err != nil {
			return err
		}
		if n := len(said); n > 1 && said[n-1].Role == subagent.RoleAssistant && said[n-1].Complete {
			fmt.Fprintln(out, "\nThe parent's transcript:")
			for _, m := range said {
				fmt.Fprintf(out, "\n[%s]\n%s\n", m.Role, cmp.Or(m.Text, "(nothing)"))
			}
			return nil
		}
		owed := m.Pending(parent)
		switch {
		case owed.Parked:
			return fmt.Errorf("the parent can't be told: %w", cmp.Or(owed.LastErr, errors.New("it was tried too often")))
		case owed.LastErr != nil && owed.LastErr.Error() != shown:
			shown = owed.LastErr.Error()
			fmt.Fprintln(out, "The parent can't be told yet:", shown)
		}
		select {
		case <-rests:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// line is the beginning of a text, in one line.
func line(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100]) + "…"
	}
	return s
}
