package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// A parent delegates and goes on. What it has launched waits in a queue, or is being
// started: the snapshot says which.
func ExampleBackgroundManager_Launch() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Keys: subagent.KeyLimits{Default: 1}})
	defer m.Close()
	first, _ := m.Launch(ctx, subagent.LaunchInput{Parent: "main", Agent: "worker", Prompt: "1h"})
	second, _ := m.Launch(ctx, subagent.LaunchInput{Parent: "main", Agent: "worker", Prompt: "1h"})
	fmt.Println(first.Status)
	fmt.Println(second.Status, "at place", second.Position, "of", second.Key)

	_, err := m.Launch(ctx, subagent.LaunchInput{Parent: "main", Agent: "worker"})
	var input *subagent.InputError
	if errors.As(err, &input) {
		fmt.Println(input.Field, "is", input.Value)
	}
	// Output:
	// starting
	// pending at place 1 of agent:worker
	// LaunchInput.Prompt is ""
}

// A result is with the task and stays there: reading it takes nothing away.
func ExampleBackgroundManager_Get() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	launched, _ := m.Launch(ctx, ask("1ms"))
	m.Wait(ctx, launched.ID)
	for range 2 {
		task, err := m.Get(launched.ID)
		fmt.Println(task.Status, task.Result.Text, err)
	}
	_, err := m.Get("bg_of_yesterday")
	fmt.Println(errors.Is(err, subagent.ErrNotFound))
	// Output:
	// completed done after 1ms <nil>
	// completed done after 1ms <nil>
	// true
}

// Which task is this session of? A host asks that where it is told of sessions, as in
// its events and its tool calls: a session without a task is nobody's child.
func ExampleBackgroundManager_BySession() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	task, _ := m.Do(ctx, ask("1ms"))
	for _, session := range []subagent.SessionID{task.Session, "main"} {
		child, err := m.BySession(session)
		fmt.Println(err == nil, child.ID == task.ID, errors.Is(err, subagent.ErrNotFound))
	}
	// Output:
	// true true false
	// false false true
}

// What a page of an overview shows, and the page after it.
func ExampleBackgroundManager_List() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	for _, part := range []string{"parser", "printer", "linker"} {
		in := ask("1h")
		in.Description = part
		m.Launch(ctx, in)
	}
	page := subagent.Filter{Parent: "main", Limit: 2}
	for tasks := m.List(page); len(tasks) > 0; tasks = m.List(page) {
		fmt.Println("page:")
		for _, t := range tasks {
			fmt.Println(" ", t.Description)
		}
		page.After = tasks[len(tasks)-1].ID
	}
	fmt.Println(len(m.List(subagent.Filter{Statuses: []subagent.Status{subagent.Failed}})), "have failed")
	// Output:
	// page:
	//   parser
	//   printer
	// page:
	//   linker
	// 0 have failed
}

// A wait ends with the run, or with its own context: then it has stopped nothing.
func ExampleBackgroundManager_Wait() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	task, _ := m.Launch(ctx, ask("100ms"))

	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	now, err := m.Wait(short, task.ID)
	fmt.Println(now.Status.Terminal(), errors.Is(err, context.DeadlineExceeded))

	now, err = m.Wait(ctx, task.ID)
	fmt.Println(now.Status, now.Result.Text, err)
	// Output:
	// false true
	// completed done after 100ms <nil>
}

// How full the queues are, how many tasks are where, and what parents are owed.
func ExampleBackgroundManager_Stats() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Keys: subagent.KeyLimits{Default: 1}})
	defer m.Close()
	m.Do(ctx, ask("1ms"))
	m.Launch(ctx, ask("1h"))
	m.Launch(ctx, ask("1h"))
	s := m.Stats()
	for _, k := range s.Keys {
		fmt.Println(k.Key, "limit", k.Limit, "held", k.Held, "waiting", k.Waiting)
	}
	fmt.Println(s.Tasks[subagent.Completed], "completed,", s.Tasks[subagent.Pending], "pending")
	fmt.Println(s.Notices.Owed, "notices owed,", s.Unstopped, "children unstopped")
	// Output:
	// agent:worker limit 1 held 1 waiting 1
	// 1 completed, 1 pending
	// 0 notices owed, 0 children unstopped
}

// Close stops what runs, and lists what could not be stopped. All can still be read.
func ExampleBackgroundManager_Close() {
	ctx := context.Background()
	began, stuck := make(chan struct{}), make(chan struct{})
	m, _ := subagent.New(subagent.Func(func(context.Context, subagent.Turn) (subagent.Result, error) {
		close(began)
		<-stuck // it does not look at its context
		return subagent.Result{Text: "too late"}, nil
	}), subagent.Config{AbortGrace: 10 * time.Millisecond})
	task, _ := m.Launch(ctx, ask("look at everything"))
	<-began
	err := m.Close()
	var unstopped *subagent.UnstoppedError
	if errors.As(err, &unstopped) {
		fmt.Println(unstopped.Calls[0].Task == task.ID, unstopped.Calls[0].Op)
	}
	task, _ = m.Get(task.ID)
	fmt.Println(task.Status, task.Reason)
	_, err = m.Launch(ctx, ask("one more"))
	fmt.Println(errors.Is(err, subagent.ErrClosed))
	close(stuck)
	// Output:
	// true prompt
	// cancelled shutdown
	// true
}

// A host with a stream of events hands all of them over, those of sessions that are
// nobody's children too.
func ExampleBackgroundManager_HandleEvent() {
	ctx := context.Background()
	began := make(chan subagent.SessionID)
	m, _ := subagent.New(subagent.Func(func(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
		began <- turn.Session
		<-ctx.Done()
		return subagent.Result{}, ctx.Err()
	}), subagent.Config{})
	defer m.Close()
	task, _ := m.Launch(ctx, ask("look at everything"))
	session := <-began

	m.HandleEvent(subagent.SessionEvent{Session: "of somebody else", Kind: subagent.EventIdle})
	m.HandleEvent(subagent.SessionEvent{Session: session, Kind: subagent.EventTool, Tool: subagent.ToolCall{ID: "1", Name: "grep"}})
	task, _ = m.Get(task.ID)
	fmt.Println(task.Status, "in", task.Progress.LastTool)

	m.HandleEvent(subagent.SessionEvent{Session: session, Kind: subagent.EventDeleted}) // a user threw it away
	task, _ = m.Wait(ctx, task.ID)
	fmt.Println(task.Status, task.Reason)
	// Output:
	// running in grep
	// cancelled session_deleted
}
