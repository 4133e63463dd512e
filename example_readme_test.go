package subagent_test

import (
	"context"
	"fmt"

	"github.com/seed-48fd9ae4/subagent"
)

func Example() {
	told := make(chan subagent.Notification)
	m, err := subagent.New(subagent.Func(explore), subagent.Config{Notifier: subagent.NotifierFunc(
		func(_ context.Context, n subagent.Notification) (subagent.Delivery, error) {
			told <- n // hand n.Text to the parent's next turn
			return subagent.Accepted, nil
		})})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	for _, part := range []string{"the parser", "the printer"} {
		m.Launch(context.Background(), subagent.LaunchInput{Parent: "main", Agent: "explore", Prompt: part})
	}
	n := <-told
	fmt.Println(len(n.Notices), "tasks ended; final:", n.Final)
	// Output: 2 tasks ended; final: true
}

func explore(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	return subagent.Result{Text: "looked at " + turn.Text}, nil // your agent loop
}
