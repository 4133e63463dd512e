package opencode_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// Children in an opencode server that listens on port 4096.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	oc, err := opencode.New(opencode.Config{URL: "http://127.0.0.1:4096", Logger: slog.Default()})
	if err != nil {
		log.Fatal(err)
	}
	m, err := subagent.New(oc, subagent.Config{}) // it tells parents too: they are sessions of the server
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	go func() { // the server's events, until ctx ends
		if err := oc.Run(ctx, m.HandleEvent); ctx.Err() == nil {
			log.Print("no events, so that all is seen later: ", err) // not let in
		}
	}()

	parent := subagent.SessionID("ses_…") // who delegates
	task, err := m.Launch(ctx, subagent.LaunchInput{Parent: parent, Agent: "explore", Prompt: "Where are errors logged?"})
	fmt.Println(task.Status, err)
}
