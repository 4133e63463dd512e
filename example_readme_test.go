package subagent_test

import (
	"context"
	"fmt"
	"github.com/seed-48fd9ae4/subagent"
)

func Example() {
	m, err := subagent.New(subagent.Func(explore), subagent.Config{Notifier: subagent.NotifierFunc(tell)})
	if err != nil {
		panic(err)
	}
	for _, part := range []string{"the parser", "the printer"} {
		if _, err := m.Launch(context.Background(), subagent.LaunchInput{Parent: "main", Agent: "explore", Prompt: part}); err != nil {
			panic(err)
		}
	} // both run now; a host would go on with its own work
	fmt.Println("error:", m.Shutdown(context.Background())) // lets them finish
	// Output:
	// 2 tasks ended; final: true
	// error: <nil>
}

func tell(_ context.Context, n subagent.Notification) (subagent.Delivery, error) {
	fmt.Println(len(n.Notices), "tasks ended; final:", n.Final) // hand n.Text to the parent's next turn
	return subagent.Accepted, nil
}

func explore(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	return subagent.Result{Text: "looked at " + turn.Text}, nil // your agent loop; it ends when ctx does
}
