package subagent_test

import (
	"context"
	"fmt"

	"github.com/seed-48fd9ae4/subagent"
)

// delegate is a tool of your agents. caller is the session whose model has called it.
func delegate(ctx context.Context, m *subagent.BackgroundManager, caller subagent.SessionID, agent, prompt string) string {
	task, err := m.Launch(ctx, subagent.LaunchInput{Parent: caller, Agent: agent, Prompt: prompt})
	if err != nil {
		return "not started: " + err.Error()
	}
	return fmt.Sprintf("%s is %s; you will be told when it has ended", task.ID, task.Status)
}

// readResult is another: notifications show the beginnings of results only.
func readResult(m *subagent.BackgroundManager, caller subagent.SessionID, id string) string {
	task, err := m.Get(subagent.TaskID(id))
	if err != nil || task.Parent != caller {
		return "you have no such task"
	}
	return fmt.Sprintf("%s\n%s", task.Status, task.Result.Text)
}

// A model delegates by tools of yours that call the manager.
func Example_tools() {
	ctx := context.Background()
	m, err := subagent.New(subagent.Func(explore), subagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	_ = delegate(ctx, m, "main", "explore", "the parser")
	task, err := m.WaitAny(ctx, subagent.Filter{Parent: "main"})
	if err != nil {
		panic(err)
	}
	fmt.Println(readResult(m, "main", string(task.ID)))
	fmt.Println(readResult(m, "somebody else", string(task.ID)))
	fmt.Println(delegate(ctx, m, "main", " ", "x"))
	// Output:
	// completed
	// looked at the parser
	// you have no such task
	// not started: subagent: LaunchInput.Agent is " ": a name is required
}
