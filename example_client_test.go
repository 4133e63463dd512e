package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/seed-48fd9ae4/subagent"
)

// chat is a SessionClient written by hand, over a runtime with sessions of its
// own: here a map, else a process or a server. subagenttest.TestClient checks it.
type chat struct {
	mu       sync.Mutex
	sessions map[subagent.SessionID]*conversation
}

type conversation struct {
	messages int
	turn     *chatTurn // nil while it rests
}

type chatTurn struct {
	stop context.CancelFunc
	over chan struct{} // closed when nothing of the turn goes on
}

// Create opens a session and starts nothing.
func (c *chat) Create(_ context.Context, _ subagent.CreateRequest) (subagent.SessionID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := subagent.SessionID(fmt.Sprintf("chat_%d", len(c.sessions)+1))
	c.sessions[id] = &conversation{}
	return id, nil
}

// Prompt runs one turn and returns when it is over.
func (c *chat) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	number, end, err := c.begin(id, stop)
	if err != nil {
		return subagent.Result{}, &subagent.SessionError{Op: "prompt", Session: id, Class: subagent.ClassInvalid, Err: err}
	}
	defer end()
	if p.Text == "think for ever" { // in place of a model that takes its time
		<-ctx.Done()
	}
	if err := ctx.Err(); err != nil {
		return subagent.Result{}, &subagent.SessionError{Op: "prompt", Session: id, Class: subagent.ClassAborted, Err: err}
	}
	return subagent.Result{Text: fmt.Sprintf("message %d was %q", number, p.Text)}, nil
}

// begin notes the turn, so that Abort finds it, until end is called.
func (c *chat) begin(id subagent.SessionID, stop context.CancelFunc) (number int, end func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil {
		return 0, nil, errors.New("no such session")
	}
	turn := &chatTurn{stop, make(chan struct{})}
	s.turn = turn
	s.messages++
	return s.messages, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.turn = nil
		close(turn.over)
	}, nil
}

// Abort returns nil once nothing of the turn goes on. A session that rests or is
// not known has no turn.
func (c *chat) Abort(ctx context.Context, id subagent.SessionID) error {
	c.mu.Lock()
	var turn *chatTurn
	if s := c.sessions[id]; s != nil {
		turn = s.turn
	}
	c.mu.Unlock()
	if turn == nil {
		return nil
	}
	turn.stop()
	select {
	case <-turn.over:
		return nil
	case <-ctx.Done():
		return &subagent.SessionError{Op: "abort", Session: id, Err: ctx.Err()}
	}
}

func ExampleSessionClient() {
	client := &chat{sessions: map[subagent.SessionID]*conversation{}}
	m, err := subagent.New(client, subagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	task, err := m.Do(context.Background(), subagent.LaunchInput{Parent: "main", Agent: "chat", Prompt: "hello"})
	fmt.Println(task.Session, task.Status, err)
	fmt.Println(task.Result.Text)
	// Output:
	// chat_1 completed <nil>
	// message 1 was "hello"
}
