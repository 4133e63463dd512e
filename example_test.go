package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// answer is an agent loop that takes the time its prompt says.
func answer(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	d, _ := time.ParseDuration(turn.Text)
	select {
	case <-time.After(d):
		return subagent.Result{Text: "done after " + turn.Text}, nil
	case <-ctx.Done():
		return subagent.Result{Text: "not done"}, ctx.Err()
	}
}

func ask(prompt string) subagent.LaunchInput {
	return subagent.LaunchInput{Parent: "main", Agent: "worker", Prompt: prompt}
}

func ExampleBackgroundManager_Do() {
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	task, err := m.Do(context.Background(), ask("1ms"))
	fmt.Println(task.Status, task.Result.Text, err)
	// Output: completed done after 1ms <nil>
}

func ExampleBackgroundManager_Cancel() {
	ctx := context.Background()
	began := make(chan struct{})
	m, _ := subagent.New(subagent.Func(func(ctx context.Context, _ subagent.Turn) (subagent.Result, error) {
		close(began)
		<-ctx.Done()
		return subagent.Result{Text: "half of it"}, ctx.Err()
	}), subagent.Config{})
	defer m.Close()
	task, _ := m.Launch(ctx, ask("look at everything"))
	<-began
	task, err := m.Cancel(ctx, task.ID, subagent.CancelOptions{})
	fmt.Println(task.Status, task.Reason, err)
	fmt.Println(task.Result.Text, task.Result.Partial)
	_, err = m.Cancel(ctx, task.ID, subagent.CancelOptions{})
	fmt.Println(errors.Is(err, subagent.ErrEnded))
	// Output:
	// cancelled by_user <nil>
	// half of it true
	// true
}

func ExampleBackgroundManager_WaitAll() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	defer m.Close()
	m.Launch(ctx, ask("2ms"))
	m.Launch(ctx, ask("1ms"))
	tasks, _ := m.WaitAll(ctx, subagent.Filter{Parent: "main"})
	for _, t := range tasks {
		fmt.Println(t.Result.Text)
	}
	// Output:
	// done after 2ms
	// done after 1ms
}

func ExampleBackgroundManager_Drain() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{}) // no Notifier: the host pulls
	defer m.Close()
	task, _ := m.Launch(ctx, ask("1ms"))
	m.Wait(ctx, task.ID)
	if n, ack, ok := m.Drain("main"); ok {
		fmt.Println(n.Notices[0].Status, n.Final)
		ack(true) // the parent has it
	}
	fmt.Println(len(m.Pending("main").Notices))
	// Output:
	// completed true
	// 0
}

func ExampleBackgroundManager_SetLimit() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Keys: subagent.KeyLimits{Default: 1}})
	defer m.Close()
	m.Launch(ctx, ask("1h"))
	waiting, _ := m.Launch(ctx, ask("1h"))
	fmt.Println(waiting.Status, waiting.Position)
	m.SetLimit(waiting.Key, 2)
	waiting, _ = m.Get(waiting.ID)
	fmt.Println(waiting.Status != subagent.Pending)
	// Output:
	// pending 1
	// true
}

func ExampleBackgroundManager_Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{})
	short, _ := m.Launch(ctx, ask("1ms"))
	long, _ := m.Launch(ctx, ask("1h"))
	fmt.Println(m.Shutdown(ctx)) // children may finish until ctx ends
	for _, id := range []subagent.TaskID{short.ID, long.ID} {
		t, _ := m.Get(id)
		fmt.Println(t.Status, t.Result.Text)
	}
	// Output:
	// <nil>
	// completed done after 1ms
	// cancelled not done
}

func ExampleLimitError() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(answer), subagent.Config{Spawn: subagent.SpawnLimits{LivePerRoot: 1}})
	defer m.Close()
	m.Launch(ctx, ask("1h"))
	_, err := m.Launch(ctx, ask("1h"))
	var limit *subagent.LimitError
	if errors.As(err, &limit) {
		fmt.Println(limit.Setting, limit.Limit, limit.Used)
	}
	// Output: Config.Spawn.LivePerRoot 1 1
}
