package subagent_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// detached is a host that does not wait, made of a client that does: its turns go on
// in the background.
type detached struct {
	subagent.SessionClient
	mu    sync.Mutex
	turns map[subagent.SessionID]*detachedTurn
}

type detachedTurn struct {
	busy   bool
	result subagent.Result
	err    error
}

func (d *detached) Create(ctx context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	id, err := d.SessionClient.Create(ctx, req)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turns[id] = &detachedTurn{}
	return id, err
}

func (d *detached) Send(_ context.Context, id subagent.SessionID, p subagent.Prompt) (any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turns[id] == nil {
		return nil, &subagent.SessionError{Op: "prompt", Session: id, Class: subagent.ClassInvalid, Err: errors.New("no such session")}
	}
	turn := &detachedTurn{busy: true}
	d.turns[id] = turn
	go func() {
		r, err := d.SessionClient.Prompt(context.Background(), id, p)
		d.mu.Lock()
		defer d.mu.Unlock()
		turn.busy, turn.result, turn.err = false, r, err
	}()
	return turn, nil
}

func (d *detached) Statuses(context.Context, []subagent.SessionID) (map[subagent.SessionID]subagent.HostStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[subagent.SessionID]subagent.HostStatus{}
	for id, turn := range d.turns {
		if turn.busy {
			all[id] = subagent.HostBusy
		}
	}
	return all, nil
}

func (d *detached) Output(_ context.Context, _ subagent.SessionID, mark any) (subagent.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	turn := mark.(*detachedTurn)
	return subagent.Answer{Text: turn.result.Text, Evidence: turn.result.Text != "", Empty: turn.result.Empty, Unfinished: turn.busy, Err: turn.err}, nil
}

func (d *detached) Exists(_ context.Context, id subagent.SessionID) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.turns[id] != nil, nil
}

func TestBlockingConforms(t *testing.T) {
	subagenttest.TestClient(t, func(*testing.T) subagenttest.Subject {
		host := &detached{turns: map[subagent.SessionID]*detachedTurn{}, SessionClient: subagent.Func(func(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
			switch turn.Text {
			case "long":
				<-ctx.Done()
				return subagent.Result{Text: "so far"}, ctx.Err()
			case "blank":
				return subagent.Result{Empty: true}, nil
			case "fail":
				return subagent.Result{}, errors.New("no luck")
			}
			return subagent.Result{Text: "answer"}, nil
		})}
		return subagenttest.Subject{
			Client:  subagent.Blocking(host, subagent.BlockingConfig{Poll: 5 * time.Millisecond, Settle: 2 * time.Millisecond}),
			Request: subagent.CreateRequest{Task: "bg_1", Attempt: 1, Agent: "a"},
			Quick:   "quick", Long: "long", Fail: "fail", Blank: "blank",
		}
	})
}
