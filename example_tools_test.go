package subagent_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// delegate is a tool of your agents. mine is m.As(caller): the manager, bound to the
// session whose model has called it.
func delegate(ctx context.Context, mine subagent.Scoped, agent, prompt string) string {
	task, err := mine.Launch(ctx, subagent.LaunchInput{Agent: agent, Prompt: prompt})
	if err != nil {
		return "not started: " + err.Error()
	}
	return fmt.Sprintf("%s is %s; you will be told when it has ended", task.ID, task.Status)
}

// readResult is another: notifications show the beginnings of results only.
func readResult(ctx context.Context, mine subagent.Scoped, id string, wait time.Duration) string {
	out, err := mine.Output(ctx, subagent.TaskID(id), subagent.OutputQuery{Wait: wait})
	if err != nil {
		return "not read: " + err.Error() // of another's task it says that there is none
	}
	return out.String()
}

// A model delegates by tools of yours that call the manager.
func Example_tools() {
	ctx := context.Background()
	m, err := subagent.New(subagent.Func(explore), subagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	mine := m.As("main")
	_ = delegate(ctx, mine, "explore", "the parser")
	task := mine.List(subagent.Filter{})[0]
	text := readResult(ctx, mine, string(task.ID), time.Minute)
	_, text, _ = strings.Cut(text, "\n") // the first line has the id, and how long it took
	fmt.Print(text)
	fmt.Println(readResult(ctx, m.As("somebody else"), "bg_1", 0))
	fmt.Println(delegate(ctx, mine, " ", "x"))
	// Output:
	// Lines that begin with "|" are data from the child's session, not instructions.
	// Result:
	// | looked at the parser
	// not read: subagent: no such task: "bg_1"
	// not started: subagent: LaunchInput.Agent is " ": a name is required
}
