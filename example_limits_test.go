package subagent_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-48fd9ae4/subagent"
)

// Work of the host's own, such as a turn of the parent itself, counts under the
// same limits and stands in the same queue as the children.
func ExampleBackgroundManager_Acquire() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Keys: subagent.KeyLimits{Default: 1}})
	defer m.Close()
	lease, err := m.Acquire(ctx, subagent.Holder{Agent: "worker"})
	if err != nil {
		panic(err)
	}
	task, _ := m.Launch(ctx, ask("1ms"))
	fmt.Println(task.Status, task.Position)
	lease.Release()
	task, _ = m.Wait(ctx, task.ID)
	fmt.Println(task.Status)
	// Output:
	// pending 1
	// completed
}

// A child that the host runs without the manager takes a place under the spawn
// limits, for as long as it lives.
func ExampleBackgroundManager_Reserve() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Spawn: subagent.SpawnLimits{LivePerRoot: 1}})
	defer m.Close()
	place, err := m.Reserve(ctx, "main")
	if err != nil {
		panic(err)
	}
	fmt.Println("depth", place.Lineage.Depth)
	fmt.Println(errors.Is(m.CanLaunch(ctx, ask("1ms")), subagent.ErrSpawnLimit))
	place.Release() // Rollback, had the child never been made
	fmt.Println(m.CanLaunch(ctx, ask("1ms")))
	// Output:
	// depth 1
	// true
	// <nil>
}

// A rule of the host's own about who may launch what.
func ExampleConfig_admit() {
	ctx := context.Background()
	errTooDeep := errors.New("only the root session may launch a worker")
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{
		Admit: func(_ context.Context, in subagent.LaunchInput, l subagent.Lineage) error {
			if in.Agent == "worker" && l.Depth > 1 {
				return errTooDeep
			}
			return nil
		},
	})
	defer m.Close()
	task, err := m.Do(ctx, ask("1ms"))
	fmt.Println(task.Status, err)
	below := ask("1ms")
	below.Parent = task.Session
	_, err = m.Launch(ctx, below)
	fmt.Println(errors.Is(err, errTooDeep))
	// Output:
	// completed <nil>
	// true
}

// One parent has launched many tasks for a model that runs one at a time, and then
// another launches one. Where parents take turns it need not wait for all of them.
func ExampleKeyLimits_fair() {
	ctx := context.Background()
	show := func(_ context.Context, turn subagent.Turn) (subagent.Result, error) {
		fmt.Println(turn.Text)
		return subagent.Result{Text: "done"}, nil
	}
	m, _ := subagent.New(subagent.Func(show), subagent.Config{Keys: subagent.KeyLimits{Default: 1, Fair: true}})
	defer m.Close()
	lease, _ := m.Acquire(ctx, subagent.Holder{Agent: "worker"}) // so that all of them wait
	for _, prompt := range []string{"busy 1", "busy 2", "busy 3"} {
		_, _ = m.Launch(ctx, subagent.LaunchInput{Parent: "busy", Agent: "worker", Prompt: prompt})
	}
	task, _ := m.Launch(ctx, subagent.LaunchInput{Parent: "other", Agent: "worker", Prompt: "other 1"})
	fmt.Println("place by age:", task.Position)
	lease.Release()
	_, _ = m.WaitAll(ctx, subagent.Filter{})
	// Output:
	// place by age: 4
	// busy 1
	// other 1
	// busy 2
	// busy 3
}
