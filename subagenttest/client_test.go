package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// recorder is a testing.TB that keeps what it is told.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(f string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(f, args...))
}

func (r *recorder) end() []string {
	for _, f := range r.cleanups {
		f()
	}
	return r.errors
}

// A turn that nobody stopped fails the test; one that could not be stopped does not.
func TestClientReportsLeaks(t *testing.T) {
	for name, c := range map[string]struct {
		action Action
		abort  Action
		leaks  int
	}{
		"orphan, not aborted":      {Action{Orphan: true, Err: errors.New("cut")}, Action{}, 1},
		"deaf":                     {Action{Hang: true, Deaf: true}, Action{}, 0},
		"orphan, abort that fails": {Action{Orphan: true, Err: errors.New("cut")}, Action{Err: errors.New("no")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t}
				client := NewClient(r, func(call Call) Action {
					return map[Op]Action{OpPrompt: c.action, OpAbort: c.abort}[call.Op]
				})
				ctx := t.Context()
				id, err := client.Create(ctx, subagent.CreateRequest{Task: "bg_1"})
				require.NoError(t, err)
				go func() { _, _ = client.Prompt(context.Background(), id, subagent.Prompt{Task: "bg_1"}) }()
				synctest.Wait()
				if c.abort.Err != nil {
					require.Error(t, client.Abort(ctx, id))
				}
				require.Equal(t, 1, client.Running())
				require.Len(t, client.Leaks(), c.leaks)
				require.Len(t, r.end(), c.leaks)
			})
		})
	}
}

// What a manager must not do is noticed.
func TestClientReportsViolations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		client := NewClient(r, func(c Call) Action { return Action{Hang: c.Op == OpPrompt} })
		ctx := t.Context()
		id, err := client.Create(ctx, subagent.CreateRequest{Task: "bg_1"})
		require.NoError(t, err)
		for range 2 {
			go func() { _, _ = client.Prompt(context.Background(), id, subagent.Prompt{Task: "bg_1"}) }()
		}
		synctest.Wait()
		_, err = client.Prompt(ctx, "ses_none", subagent.Prompt{})
		require.Error(t, err)
		_ = client.Abort(ctx, "ses_none")
		require.NoError(t, client.Abort(ctx, id))
		client.Let()
		synctest.Wait()
		require.NoError(t, client.Release(ctx, id))
		_, _ = client.Prompt(ctx, id, subagent.Prompt{Task: "bg_other"})
		require.Len(t, r.end(), 4)
	})
}

// A manager over the fake, through the whole menu of one call each, leaves no
// violation and no leak.
func TestManagerOverTheMenu(t *testing.T) {
	boom := errors.New("boom")
	menu := []struct {
		create, prompt, abort Action
	}{
		{}, {create: Action{Err: boom}}, {create: Action{Err: boom, Made: true}}, {create: Action{Err: boom, Lost: true}},
		{create: Action{NoID: true}}, {create: Action{Panic: boom}}, {create: Action{Hang: true}}, {create: Action{Hang: true, Deaf: true}},
		{create: Action{Delay: 2 * time.Minute, Deaf: true}},
		{prompt: Action{Err: boom}}, {prompt: Action{Panic: boom}}, {prompt: Action{Hang: true}}, {prompt: Action{Hang: true, Deaf: true}},
		{prompt: Action{Orphan: true, Err: boom}}, {prompt: Action{Blank: true}}, {prompt: Action{Empty: true}},
		{prompt: Action{Hang: true}, abort: Action{Err: boom}}, {prompt: Action{Hang: true}, abort: Action{Hang: true, Deaf: true}},
		{prompt: Action{Hang: true}, abort: Action{Panic: boom}}, {prompt: Action{Text: "a text"}},
	}
	for i, dish := range menu {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := NewClient(t, func(c Call) Action {
					return map[Op]Action{OpCreate: dish.create, OpPrompt: dish.prompt, OpAbort: dish.abort}[c.Op]
				})
				parent := NewParent(t)
				m, err := subagent.New(client, subagent.Config{Notifier: parent})
				require.NoError(t, err)
				task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
				require.NoError(t, err)
				time.Sleep(5 * time.Minute)
				_, _ = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
				time.Sleep(time.Minute)
				synctest.Wait()
				_ = m.Close()
				require.Len(t, parent.Seen("p"), 1)
				require.Equal(t, 1, parent.Finals("p"))
			})
		})
	}
}
