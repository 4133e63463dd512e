package subagent_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-48fd9ae4/subagent"
)

// A page that shows the children of a session: what there is, and then what becomes of it.
func ExampleBackgroundManager_Subscribe() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	mine := subagent.Filter{Parent: "main"}
	events, err := m.Subscribe(ctx, mine, subagent.TopicStatus) // from here on nothing is missed
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(m.List(mine)), "tasks")
	m.Launch(ctx, ask("1ms"))
	for e := range events {
		if e.Dropped > 0 {
			fmt.Println("too slow: look at List again")
		}
		fmt.Println(e.Seq, e.Task.Status)
		if e.Task.Status.Terminal() {
			break
		}
	}
	// Output:
	// 0 tasks
	// 1 pending
	// 2 starting
	// 4 running
	// 5 completed
}

// What a model calls, and the words of its answer, are events of their own topic.
func ExampleBackgroundManager_Subscribe_progress() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(func(_ context.Context, turn subagent.Turn) (subagent.Result, error) {
		turn.OnEvent(subagent.SessionEvent{Kind: subagent.EventTool, Tool: subagent.ToolCall{ID: "1", Name: "grep"}})
		turn.OnEvent(subagent.SessionEvent{Kind: subagent.EventText, Text: "found it"})
		return subagent.Result{Text: "found it"}, nil
	}), subagent.Config{})
	defer m.Close()
	events, _ := m.Subscribe(ctx, subagent.Filter{}, subagent.TopicProgress, subagent.TopicStatus)
	m.Launch(ctx, ask("find it"))
	for e := range events {
		if e.Topic == subagent.TopicProgress {
			fmt.Println(e.Progress.Kind, e.Progress.Tool.Name+e.Progress.Text)
		}
		if e.Task.Status.Terminal() {
			break
		}
	}
	// Output:
	// tool grep
	// text found it
}

// SessionCreated comes before a session's first prompt, the other hooks after the fact.
func ExampleHooks() {
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Hooks: subagent.Hooks{
		SessionCreated: func(ctx context.Context, t subagent.Task) { fmt.Println("a session for", t.Description) },
		Ended:          func(e subagent.Event) { fmt.Println(e.Task.Description, "is", e.Task.Status) },
	}})
	in := ask("1ms")
	in.Description = "a look around"
	m.Do(context.Background(), in)
	m.Close() // waits for the hooks
	// Output:
	// a session for a look around
	// a look around is completed
}

// Several parts of a program listen.
func ExampleTee() {
	count := 0
	metrics := subagent.Hooks{Ended: func(subagent.Event) { count++ }}
	broken := subagent.Hooks{Ended: func(subagent.Event) { panic("a bug") }}
	audit := subagent.Hooks{Ended: func(e subagent.Event) { fmt.Println(e.Task.Parent, "delegated to", e.Task.Agent) }}
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Hooks: subagent.Tee(metrics, broken, audit)})
	m.Do(context.Background(), ask("1ms"))
	m.Close()
	fmt.Println(count, "ended")
	// Output:
	// main delegated to worker
	// 1 ended
}
