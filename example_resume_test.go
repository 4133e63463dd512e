package subagent_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-48fd9ae4/subagent"
)

// remember is an agent loop whose session knows what was said before.
func remember(_ context.Context, turn subagent.Turn) (subagent.Result, error) {
	said, _ := turn.History.([]string)
	said = append(said, turn.Text)
	return subagent.Result{Text: fmt.Sprintf("%d: %s", len(said), turn.Text), History: said}, nil
}

// A follow-up goes to the session that has done the work. It is another run of the same
// task, and its parent is told of each.
func ExampleBackgroundManager_Resume() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(remember), subagent.Config{})
	defer m.Close()
	task, _ := m.Do(ctx, ask("look at the parser"))
	fmt.Println(task.Run, task.Result.Text)

	hold, _ := m.Acquire(ctx, subagent.Holder{Agent: "worker"}) // work of our own in that queue
	defer hold.Release()
	m.SetLimit(task.Key, 1) // so that the next run has to wait
	next, err := m.Resume(ctx, task.ID, subagent.ResumeInput{Prompt: "and its errors?"})
	fmt.Println(next.ID == task.ID, next.Run, next.Status, err)
	fmt.Println("meanwhile:", next.Result.Text)
	_, err = m.Resume(ctx, task.ID, subagent.ResumeInput{Prompt: "me too"})
	fmt.Println(errors.Is(err, subagent.ErrNotEnded))

	hold.Release()
	task, _ = m.Wait(ctx, task.ID)
	fmt.Println(task.Result.Run, task.Result.Text)
	// Output:
	// 1 1: look at the parser
	// true 2 pending <nil>
	// meanwhile: 1: look at the parser
	// true
	// 2 2: and its errors?
}

// A host whose user writes into a child's session knows the session, and not the task.
func ExampleBackgroundManager_ResumeSession() {
	ctx := context.Background()
	m, _ := subagent.New(subagent.Func(remember), subagent.Config{})
	defer m.Close()
	task, _ := m.Do(ctx, ask("look at the parser"))

	next, _ := m.ResumeSession(ctx, task.Session, subagent.ResumeInput{Prompt: "and its errors?", NoNotice: true})
	next, _ = m.Wait(ctx, next.ID)
	fmt.Println(next.ID == task.ID, next.Session == task.Session, next.Result.Text)
	_, err := m.ResumeSession(ctx, "main", subagent.ResumeInput{Prompt: "and you?"})
	fmt.Println(errors.Is(err, subagent.ErrNotFound))
	// Output:
	// true true 2: and its errors?
	// true
}

// A session that somebody else made and prompted becomes a task: it is listed, counted,
// stopped and told of like any other.
func ExampleBackgroundManager_Track() {
	ctx := context.Background()
	client := subagent.Func(remember) // it can attach to a turn
	session, _ := client.Create(ctx, subagent.CreateRequest{Agent: "worker"})
	_, err := client.Prompt(ctx, session, subagent.Prompt{Text: "said by the user"})
	if err != nil {
		panic(err)
	}

	m, _ := subagent.New(client, subagent.Config{})
	defer m.Close()
	task, err := m.Track(ctx, subagent.TrackInput{Session: session, Parent: "main", Agent: "worker"})
	if err != nil {
		panic(err)
	}
	task, _ = m.Wait(ctx, task.ID) // the turn was over: its outcome is not lost
	fmt.Println(task.Status, task.Result.Text)
	fmt.Println(len(m.Pending("main").Notices), "notice is owed")
	m.Resume(ctx, task.ID, subagent.ResumeInput{Prompt: "said by us"})
	task, _ = m.Wait(ctx, task.ID)
	fmt.Println(task.Result.Text)
	// Output:
	// completed 1: said by the user
	// 1 notice is owed
	// 2: said by us
}
