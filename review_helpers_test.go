package subagent_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// Shared by the review_*_test.go files: each test there fails and shows a defect.

// reviewClient is a client whose calls are functions; nil ones succeed at once.
type reviewClient struct {
	create   func(context.Context, subagent.CreateRequest) (subagent.SessionID, error)
	prompt   func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error)
	abort    func(context.Context, subagent.SessionID) error
	release  func(context.Context, subagent.SessionID) error
	parentOf func(subagent.SessionID) (subagent.SessionID, error)

	n, prompts, aborts, asked atomic.Int64
}

func (c *reviewClient) Create(ctx context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	if c.create != nil {
		return c.create(ctx, req)
	}
	return subagent.SessionID(fmt.Sprintf("ses_%d", c.n.Add(1))), nil
}

func (c *reviewClient) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	c.prompts.Add(1)
	if c.prompt != nil {
		return c.prompt(ctx, id, p)
	}
	return subagent.Result{Text: "ok"}, nil
}

func (c *reviewClient) Abort(ctx context.Context, id subagent.SessionID) error {
	c.aborts.Add(1)
	if c.abort != nil {
		return c.abort(ctx, id)
	}
	return nil
}

func (c *reviewClient) Release(ctx context.Context, id subagent.SessionID) error {
	if c.release != nil {
		return c.release(ctx, id)
	}
	return nil
}

func (c *reviewClient) ParentOf(_ context.Context, id subagent.SessionID) (subagent.SessionID, error) {
	c.asked.Add(1)
	if c.parentOf != nil {
		return c.parentOf(id)
	}
	return "", nil
}

// takes is a child that works as long as its prompt says, or until it is stopped.
func takes(ctx context.Context, _ subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	d, err := time.ParseDuration(p.Text)
	if err != nil {
		panic(err)
	}
	select {
	case <-time.After(d):
		return subagent.Result{Text: "took " + p.Text}, nil
	case <-ctx.Done():
		return subagent.Result{}, ctx.Err()
	}
}

func reviewAsks(parent subagent.SessionID, prompt string) subagent.LaunchInput {
	return subagent.LaunchInput{Parent: parent, Agent: "worker", Prompt: prompt}
}

func reviewNew(t *testing.T, c subagent.SessionClient, cfg subagent.Config) *subagent.BackgroundManager {
	t.Helper()
	m, err := subagent.New(c, cfg)
	require.NoError(t, err)
	return m
}

func reviewLaunch(t *testing.T, m *subagent.BackgroundManager, in subagent.LaunchInput) subagent.Task {
	t.Helper()
	task, err := m.Launch(context.Background(), in)
	require.NoError(t, err)
	return task
}

func reviewGet(t *testing.T, m *subagent.BackgroundManager, id subagent.TaskID) subagent.Task {
	t.Helper()
	task, err := m.Get(id)
	require.NoError(t, err)
	return task
}

func reviewPass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// told is a notifier that answers as it is told and keeps what it was given.
type told struct {
	answer func(n subagent.Notification, call int) (subagent.Delivery, error)

	mu  sync.Mutex
	got []subagent.Notification
}

func (b *told) Notify(_ context.Context, n subagent.Notification) (subagent.Delivery, error) {
	b.mu.Lock()
	call := len(b.got)
	b.got = append(b.got, n)
	b.mu.Unlock()
	if b.answer == nil {
		return subagent.Accepted, nil
	}
	return b.answer(n, call)
}

func (b *told) all() []subagent.Notification {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]subagent.Notification(nil), b.got...)
}

// of are the notices of a task that went to a parent.
func (b *told) of(parent subagent.SessionID, task subagent.TaskID) (notices []subagent.Notice) {
	for _, n := range b.all() {
		for _, notice := range n.Notices {
			if n.Parent == parent && notice.Task == task {
				notices = append(notices, notice)
			}
		}
	}
	return notices
}

// logHandler hands every transition to a function.
type logHandler struct{ on func(to, reason string) }

func (h logHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h logHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h logHandler) WithGroup(string) slog.Handler            { return h }
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	var to, reason string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "to":
			to = a.Value.String()
		case "reason":
			reason = a.Value.String()
		}
		return true
	})
	h.on(to, reason)
	return nil
}

// survives runs a case of TestReviewInAProcessOfItsOwn in another process, since
// what it shows takes the process down.
func survives(t *testing.T, name string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestReviewInAProcessOfItsOwn$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "REVIEW_CASE="+name)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	lines := strings.Split(string(out), "\n")
	t.Errorf("the whole process died (%v):\n%s", err, strings.Join(lines[:min(len(lines), 14)], "\n"))
}

func TestReviewInAProcessOfItsOwn(t *testing.T) {
	name := os.Getenv("REVIEW_CASE")
	if name == "" {
		t.Skip("run by the others")
	}
	synctest.Test(t, func(t *testing.T) { processCases[name](t) })
}
