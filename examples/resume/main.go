// Resume: a child has read something, and is asked on in the session in which it did. It
// is the same task with another run: its id stays, and its result can be read until the
// next run has one. Then a session that somebody else has made becomes a task, and is
// asked on too.
//
//	go run ./examples/resume
//
// There is no model here: a child (work.go) reads a log of a few lines, and answers
// questions about it from memory.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/seed-48fd9ae4/subagent"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "usage: resume")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "resume:", err)
		os.Exit(1)
	}
}

// host is the program around the manager.
type host struct {
	client  subagent.SessionClient
	manager *subagent.BackgroundManager
	turns   chan subagent.SessionID // of which a turn has begun
	out     io.Writer
}

func run(ctx context.Context, out io.Writer) error {
	h := &host{turns: make(chan subagent.SessionID, 16), out: out}
	h.client = subagent.Func(func(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
		h.turns <- turn.Session
		return work(ctx, turn)
	})
	var err error
	if h.manager, err = subagent.New(h.client, subagent.Config{}); err != nil {
		return err
	}
	defer h.manager.Close()
	for _, part := range []func(context.Context) error{h.askOn, h.track, h.told} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// askOn has a child read, and asks it two more things: by its task, and by its session.
func (h *host) askOn(ctx context.Context) error {
	task, err := h.manager.Launch(ctx, subagent.LaunchInput{
		Parent: "main", Agent: "reader", Prompt: "read the log of billing", Description: "billing",
	})
	if err := h.await(ctx, "read the log of billing", task, err); err != nil {
		return err
	}

	question := "what came right before the alert?"
	task, err = h.manager.Resume(ctx, task.ID, subagent.ResumeInput{Prompt: question})
	if err != nil {
		return err
	}
	// The run has not begun: the result is that of the run before.
	fmt.Fprintf(h.out, "      (run %d is %s; run %d can still be read: %s)\n", task.Run, task.Status, task.Result.Run, task.Result.Text)
	// Of several who ask at one time, one wins.
	if _, late := h.manager.Resume(ctx, task.ID, subagent.ResumeInput{Prompt: "and me?"}); !errors.Is(late, subagent.ErrNotEnded) {
		return fmt.Errorf("two have asked on at one time: %v", late)
	}
	fmt.Fprintln(h.out, "      (who asks on now as well is refused: it has not ended)")
	if err := h.await(ctx, question, task, err); err != nil {
		return err
	}

	// A host that knows the session only, as where its user writes into it.
	task, err = h.manager.Get(task.ID)
	if err != nil {
		return err
	}
	question = "how long from the alert to the end?"
	task, err = h.manager.ResumeSession(ctx, task.Session, subagent.ResumeInput{Prompt: question})
	return h.await(ctx, question, task, err)
}

// track makes a task of a session that the user has opened and prompted, without the
// manager.
func (h *host) track(ctx context.Context) error {
	session, err := h.client.Create(ctx, subagent.CreateRequest{Agent: "reader"})
	if err != nil {
		return err
	}
	go h.client.Prompt(ctx, session, subagent.Prompt{Text: "read the log of mail"})
	if err := h.begun(ctx, session); err != nil {
		return err
	}

	in := subagent.TrackInput{Session: session, Parent: "main", Agent: "reader", Description: "mail"}
	task, err := h.manager.Track(ctx, in)
	if err != nil {
		return err
	}
	if again, err := h.manager.Track(ctx, in); again.ID != task.ID {
		return fmt.Errorf("tracked twice: %v", err)
	}
	fmt.Fprintln(h.out, "      (a session of the user's is a task now; tracked once more it is the same one)")
	if err := h.await(ctx, "the user: read the log of mail", task, err); err != nil {
		return err
	}
	question := "how long from the alert to the end?"
	task, err = h.manager.Resume(ctx, task.ID, subagent.ResumeInput{Prompt: question})
	return h.await(ctx, question, task, err)
}

// begun waits until a turn of the session goes on: before that there is nothing to track.
func (h *host) begun(ctx context.Context, session subagent.SessionID) error {
	for {
		select {
		case id := <-h.turns:
			if id == session {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// await prints what came of a run, unless it was refused.
func (h *host) await(ctx context.Context, prompt string, task subagent.Task, err error) error {
	if err == nil {
		task, err = h.manager.Wait(ctx, task.ID)
	}
	if err == nil && task.Status != subagent.Completed {
		err = task.Reason
	}
	if err != nil {
		return fmt.Errorf("%s: %w", prompt, err)
	}
	fmt.Fprintf(h.out, "%-7s  run %d  %s\n               -> %s\n", task.Description, task.Run, prompt, task.Result.Text)
	return nil
}

// told takes what the parent has been owed all the while: each run is told of by itself.
func (h *host) told(context.Context) error {
	n, ack, ok := h.manager.Drain("main")
	if !ok {
		return errors.New("the parent is owed nothing")
	}
	fmt.Fprintln(h.out, "\nthe parent is told, in one notification:")
	for _, notice := range n.Notices {
		fmt.Fprintf(h.out, "  %-7s  run %d  %s  %s\n", notice.Description, notice.Run, notice.Status, notice.Preview)
	}
	ack(true)
	return nil
}
