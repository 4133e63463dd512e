package subagenttest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// agent stands for an agent loop. Its prompts are those of the subject below.
func agent(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	switch turn.Text {
	case "count for ever":
		<-ctx.Done()
		return subagent.Result{Text: "1 2 3"}, ctx.Err()
	case "divide by zero":
		return subagent.Result{}, errors.New("division by zero")
	case "say nothing":
		return subagent.Result{Empty: true}, nil
	}
	return subagent.Result{Text: "hello"}, nil
}

// subject makes a fresh client for each case of the suite. A client of a real host
// ends its server with t.Cleanup here.
func subject(*testing.T) subagenttest.Subject {
	return subagenttest.Subject{
		Client:  subagent.Func(agent),
		Request: subagent.CreateRequest{Task: "bg_1", Attempt: 1, Parent: "parent", Agent: "counter"},
		Quick:   "say hello",
		Long:    "count for ever",
		Fail:    "divide by zero",
		Blank:   "say nothing",
		Settle:  2 * time.Second, // it is in this process, and quick
	}
}

func ExampleTestClient() {
	// In the tests of the client: func TestConforms(t *testing.T), with this body.
	_ = func(t *testing.T) {
		subagenttest.TestClient(t, subject)
	}
}
