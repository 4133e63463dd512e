package subagenttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// loop is an agent loop with the three prompts of a Subject.
func loop(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	switch turn.Text {
	case "long":
		<-ctx.Done()
		return subagent.Result{}, ctx.Err()
	case "fail":
		return subagent.Result{}, errors.New("failed as asked")
	}
	return subagent.Result{Text: "quick"}, nil
}

func subject(c subagent.SessionClient) Subject {
	return Subject{Client: c, Request: subagent.CreateRequest{Task: "bg_1", Attempt: 1}, Quick: "quick", Long: "long", Fail: "fail", Settle: time.Second}
}

func TestFuncConforms(t *testing.T) {
	TestClient(t, func(*testing.T) Subject { return subject(subagent.Func(loop)) })
}

// unknowing takes the exceptions that the suite provokes out of the fake's account
// of violations: it is the suite, not a manager, that calls.
type unknowing struct{ testing.TB }

func (unknowing) Errorf(string, ...any) {}

func scripted(t testing.TB) *Client {
	return NewClient(unknowing{t}, func(c Call) Action {
		switch {
		case c.Op == OpPrompt && c.Prompt.Text == "long":
			return Action{Hang: true}
		case c.Op == OpPrompt && c.Prompt.Text == "fail":
			return Action{Err: &subagent.SessionError{Op: "prompt", Err: errors.New("failed as asked")}}
		}
		return Action{}
	})
}

func TestFakeConforms(t *testing.T) {
	TestClient(t, func(t *testing.T) Subject { return subject(scripted(t)) })
}

// broken breaks one rule of a client that keeps all.
type broken struct {
	subagent.SessionClient
	create  func(context.Context, subagent.CreateRequest) (subagent.SessionID, error)
	prompt  func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error)
	abort   func(context.Context, subagent.SessionID) error
	release func(context.Context, subagent.SessionID) error
	steer   error
}

func (b *broken) Create(ctx context.Context, r subagent.CreateRequest) (subagent.SessionID, error) {
	if b.create != nil {
		return b.create(ctx, r)
	}
	return b.SessionClient.Create(ctx, r)
}

func (b *broken) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	if b.prompt != nil {
		return b.prompt(ctx, id, p)
	}
	return b.SessionClient.Prompt(ctx, id, p)
}

func (b *broken) Abort(ctx context.Context, id subagent.SessionID) error {
	if b.abort != nil {
		return b.abort(ctx, id)
	}
	return b.SessionClient.Abort(ctx, id)
}

func (b *broken) Release(ctx context.Context, id subagent.SessionID) error {
	if b.release != nil {
		return b.release(ctx, id)
	}
	return errors.ErrUnsupported
}

func (b *broken) Steer(context.Context, subagent.SessionID, string) error { return b.steer }

func (b *broken) ParentOf(context.Context, subagent.SessionID) (subagent.SessionID, error) {
	return "", nil
}

// The suite can fail: each broken client is noticed by the case for its rule.
func TestSuiteNotices(t *testing.T) {
	good := subagent.Func(loop)
	same, err := good.Create(context.Background(), subagent.CreateRequest{})
	require.NoError(t, err)
	for _, c := range []struct {
		by     string
		client *broken
	}{
		{"create", &broken{create: func(context.Context, subagent.CreateRequest) (subagent.SessionID, error) { return same, nil }}},
		{"create", &broken{create: func(context.Context, subagent.CreateRequest) (subagent.SessionID, error) { return "", nil }}},
		{"create with an ended context", &broken{create: func(context.Context, subagent.CreateRequest) (subagent.SessionID, error) { return "", nil }}},
		{"prompt", &broken{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			return subagent.Result{}, nil
		}}},
		{"abort", &broken{abort: func(context.Context, subagent.SessionID) error { return nil }}},
		{"abort at rest", &broken{abort: func(context.Context, subagent.SessionID) error { return errors.New("not running") }}},
		{"context", &broken{prompt: func(_ context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
			return subagent.Result{Text: "late"}, nil
		}}},
		{"unknown session", &broken{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			return subagent.Result{}, errors.New("untyped")
		}}},
		{"failed turn", &broken{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			return subagent.Result{Text: "fine"}, nil
		}}},
		{"release", &broken{release: func(context.Context, subagent.SessionID) error { return nil }}},
		{"steer at rest", &broken{}},
		{"lineage", &broken{}},
	} {
		c.client.SessionClient = good
		s := subject(c.client)
		s.Settle = 100 * time.Millisecond
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		for _, rule := range clientCases {
			if rule.name == c.by {
				err := rule.check(ctx, s)
				require.Error(t, err, c.by)
				require.NotErrorIs(t, err, errAbsent, c.by)
			}
		}
		cancel()
	}
}
