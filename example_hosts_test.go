package subagent_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-48fd9ae4/subagent"
)

// remote is a host whose call returns when the turn is over.
type remote struct{ api *agentAPI }

func (r remote) Create(ctx context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	id, err := r.api.Open(ctx, req.Title())
	return subagent.SessionID(id), err
}

func (r remote) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	answer, err := r.api.Ask(ctx, string(id), p.Text)
	if err != nil {
		return subagent.Result{}, &subagent.SessionError{Op: "prompt", Session: id, Err: err}
	}
	return subagent.Result{Text: answer}, nil
}

func (r remote) Abort(ctx context.Context, id subagent.SessionID) error {
	return r.api.Stop(ctx, string(id)) // returns when nothing of the turn goes on
}

// agentAPI stands for the package through which you talk to your agents.
type agentAPI struct{}

func (*agentAPI) Open(_ context.Context, title string) (string, error) {
	return "session of " + title, nil
}

func (*agentAPI) Ask(ctx context.Context, _, text string) (string, error) {
	if text == "think for ever" {
		<-ctx.Done()
		return "", errors.New("stopped")
	}
	return "looked at " + text, nil
}

func (*agentAPI) Stop(context.Context, string) error { return nil }

// A host that blocks is a client as it is.
func ExampleNew() {
	m, err := subagent.New(remote{&agentAPI{}}, subagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	task, err := m.Do(context.Background(), subagent.LaunchInput{Parent: "main", Agent: "explore", Prompt: "the parser", Description: "parser"})
	fmt.Println(task.Session, "says:", task.Result.Text, err)
	// Output: session of parser (@explore) says: looked at the parser <nil>
}
