package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-48fd9ae4/subagent"
)

// A child delegates as its parent does: with its own session as the Parent.
func ExampleBackgroundManager_CancelAll() {
	ctx := context.Background()
	began := make(chan struct{}, 3)
	var m *subagent.BackgroundManager
	m, _ = subagent.New(subagent.Func(func(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
		if turn.Agent == "lead" {
			for _, part := range []string{"the parser", "the printer"} {
				in := subagent.LaunchInput{Parent: turn.Session, Agent: "worker", Prompt: part, Description: part}
				if _, err := m.Launch(ctx, in); err != nil {
					return subagent.Result{}, err
				}
			}
		}
		began <- struct{}{}
		<-ctx.Done()
		return subagent.Result{}, ctx.Err()
	}), subagent.Config{})
	defer m.Close()

	lead, _ := m.Launch(ctx, subagent.LaunchInput{Parent: "main", Agent: "lead", Prompt: "look at the compiler"})
	for range 3 {
		<-began
	}
	lead, _ = m.Get(lead.ID)
	fmt.Println(lead.Status, "with", lead.OpenChildren, "children")

	// What is below the lead, but not the lead itself. Under: "main" is all three.
	stopped, err := m.CancelAll(ctx, subagent.Filter{Under: lead.Session}, subagent.CancelOptions{})
	for _, t := range stopped {
		fmt.Println("depth", t.Depth, t.Description, t.Status)
	}
	lead, _ = m.Get(lead.ID)
	fmt.Println(err, lead.Status, "with", lead.OpenChildren, "children")
	// Output:
	// running with 2 children
	// depth 2 the parser cancelled
	// depth 2 the printer cancelled
	// <nil> running with 0 children
}

// One result after the other, in the order in which the children end.
func ExampleBackgroundManager_WaitAny() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	var awaited []subagent.TaskID
	for _, prompt := range []string{"200ms", "1ms", "100ms"} {
		task, err := m.Launch(ctx, ask(prompt))
		if err != nil {
			panic(err)
		}
		awaited = append(awaited, task.ID)
	}
	for len(awaited) > 0 {
		task, err := m.WaitAny(ctx, subagent.Filter{IDs: awaited})
		if err != nil {
			panic(err)
		}
		fmt.Println(task.Status, task.Result.Text)
		awaited = slices.DeleteFunc(awaited, func(id subagent.TaskID) bool { return id == task.ID })
	}
	// Output:
	// completed done after 1ms
	// completed done after 100ms
	// completed done after 200ms
}

// Whether to offer a delegation at all, say in the list of a model's tools.
func ExampleBackgroundManager_CanLaunch() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Spawn: subagent.SpawnLimits{LivePerRoot: 1}})
	defer m.Close()
	fmt.Println(m.CanLaunch(ctx, ask("1h")))
	m.Launch(ctx, ask("1h"))
	err := m.CanLaunch(ctx, ask("1h"))
	fmt.Println(errors.Is(err, subagent.ErrSpawnLimit))
	// Output:
	// <nil>
	// true
}
