package subagenttest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// What a manager must not do is noticed, and fails the test.
func TestClientReportsViolations(t *testing.T) {
	type breach struct {
		does func(play, subagent.SessionID)
		says string
	}
	forTask := func(p play, id subagent.SessionID, task subagent.TaskID) {
		_, err := p.Prompt(bg, id, subagent.Prompt{Task: task})
		require.True(p, err == nil || p.Sessions()[0].Running || p.Sessions()[0].Released || id == "none")
	}
	table[breach]{
		"two prompts": {func(p play, id subagent.SessionID) {
			p.prompt(bg, id)
			require.ErrorIs(p, p.prompt(bg, id).err, errBusy)
			require.Equal(p, 2, p.Sessions()[0].AtOnce)
			require.NoError(p, p.Abort(bg, id))
		}, "two prompts of session ses_1 at the same time"},
		"a prompt while the turn goes on": {func(p play, id subagent.SessionID) {
			ctx, cancel := context.WithCancel(bg)
			p.prompt(ctx, id)
			cancel()
			synctest.Wait()
			require.ErrorIs(p, p.prompt(bg, id).err, errBusy)
		}, "prompt of session ses_1 while a turn of it goes on"},
		"a prompt of no session":     {func(p play, _ subagent.SessionID) { forTask(p, "none", "bg_1") }, `prompt of session "none", which was never made`},
		"an abort of no session":     {func(p play, _ subagent.SessionID) { require.NoError(p, p.Abort(bg, "none")) }, `abort of session "none", which was never made`},
		"a release of no session":    {func(p play, _ subagent.SessionID) { require.NoError(p, p.Release(bg, "none")) }, `release of session "none", which was never made`},
		"a prompt after the release": {func(p play, id subagent.SessionID) { _ = p.Release(bg, id); forTask(p, id, "bg_1") }, "prompt of session ses_1 after its release"},
		"a prompt for another task":  {func(p play, id subagent.SessionID) { forTask(p, id, "quick") }, "prompt of session ses_1 for task quick, made for task bg_1"},
		"a prompt of a lost session": {func(p play, _ subagent.SessionID) { p.lose(); forTask(p, "ses_2", "quick") }, "prompt of session ses_2, whose id was never returned"},
		"an abort of a lost session": {func(p play, _ subagent.SessionID) { p.lose(); _ = p.Abort(bg, "ses_2") }, "abort of session ses_2, whose id was never returned"},
		"a create after Close": {func(p play, _ subagent.SessionID) {
			p.Closed()
			_, _ = p.Create(bg, subagent.CreateRequest{Task: "bg_3"})
		}, "create for task bg_3 after the manager was closed"},
		"a prompt after Close":       {func(p play, id subagent.SessionID) { p.Closed(); p.prompt(bg, id) }, "prompt for task bg_1 after the manager was closed"},
		"an abort after the context": {func(p play, id subagent.SessionID) { p.cutThenAbort(id) }, "abort of session ses_1 only after the context of its prompt had ended"},
		"an abort, the next one too late": {func(p play, id subagent.SessionID) {
			require.NoError(p, p.Abort(bg, id))
			p.prompt(bg, id)
			require.NoError(p, p.Abort(bg, id))
			synctest.Wait()
			p.cutThenAbort(id)
		}, "abort of session ses_1 only after the context of its prompt had ended"},
	}.SyncTest(t, func(t *testing.T, c breach) {
		p := newPlay(t, func(c Call) Action {
			return Action{Hang: c.Op == OpPrompt && c.Task == "bg_1", Lost: c.Task == "quick"}
		})
		id := p.create()
		c.does(p, id)
		p.LeftRunning("bg_1") // no leak in addition
		require.NoError(t, p.Release(bg, id))
		require.Equal(t, []string{"subagenttest: " + c.says}, p.tb.end())
		require.Equal(t, []string{c.says}, p.Violations())
	})
}

// lose makes a session that nobody is told of.
func (p play) lose() {
	_, err := p.Create(bg, subagent.CreateRequest{Task: "quick"})
	require.ErrorIs(p, err, errLost)
}

func (p play) cutThenAbort(id subagent.SessionID) {
	ctx, cancel := context.WithCancel(bg)
	p.prompt(ctx, id)
	cancel()
	synctest.Wait()
	require.NoError(p, p.Abort(bg, id))
}

// What a manager may do is not held against it.
func TestClientLetsPass(t *testing.T) {
	table[func(play, subagent.SessionID)]{
		"an abort before the prompt, and once more after it": func(p play, id subagent.SessionID) {
			ctx, cancel := context.WithCancel(bg)
			require.NoError(p, p.Abort(bg, id))
			cancel()
			p.prompt(ctx, id)
			require.NoError(p, p.Abort(bg, id))
		},
		"a context that ends while the abort is out": func(p play, id subagent.SessionID) {
			ctx, cancel := context.WithCancel(bg)
			p.prompt(ctx, id)
			time.AfterFunc(time.Millisecond, cancel)
			require.NoError(p, p.Abort(bg, id))
		},
		"a context that ends after the turn": func(p play, id subagent.SessionID) {
			ctx, cancel := context.WithCancel(bg)
			p.prompt(ctx, id)
			require.NoError(p, p.Abort(bg, id))
			cancel()
			require.NoError(p, p.Abort(bg, id))
		},
		"a turn that was left running as asked": func(p play, id subagent.SessionID) {
			ctx, cancel := context.WithCancel(bg)
			p.prompt(ctx, id)
			require.Len(p, p.Leaks(), 1)
			p.LeftRunning("bg_1")
			require.Empty(p, p.Leaks())
			cancel()
			synctest.Wait()
			require.Equal(p, 1, p.Running())
		},
		"what late sessions need after Close": func(p play, id subagent.SessionID) {
			p.Closed()
			require.NoError(p, p.Abort(bg, id))
			require.NoError(p, p.Release(bg, id))
			require.NoError(p, p.Release(bg, id))
		},
		"a session made after Let": func(p play, id subagent.SessionID) {
			p.Let()
			p.create()
			require.NoError(p, p.Release(bg, id))
		},
	}.SyncTest(t, func(t *testing.T, does func(play, subagent.SessionID)) {
		p := newPlay(t, do(map[Op]Action{OpPrompt: {Hang: true}, OpAbort: {Delay: time.Second}}))
		does(p, p.create())
		require.Empty(t, p.tb.end())
	})
}

// A manager that was not closed is noticed by what it has out.
func TestClientReportsAManagerLeftOpen(t *testing.T) {
	const says = "subagenttest: close the manager before the test ends: calls are out: "
	type end struct {
		does func(*subagent.BackgroundManager, *Client)
		says []string
	}
	leave := func(m *subagent.BackgroundManager, c *Client) {
		tasks := m.List(subagent.Filter{})
		_, err := m.Cancel(bg, tasks[1].ID, subagent.CancelOptions{LeaveRunning: true})
		if err == nil || errors.Is(err, subagent.ErrUnstopped) {
			c.LeftRunning(tasks[1].ID)
		}
	}
	table[end]{
		"open":                            {func(*subagent.BackgroundManager, *Client) {}, []string{says + "create for task CREATE, prompt for task PROMPT"}},
		"closed":                          {func(m *subagent.BackgroundManager, _ *Client) { _ = m.Close() }, nil},
		"a turn left running, and closed": {func(m *subagent.BackgroundManager, c *Client) { leave(m, c); _ = m.Close() }, nil},
		"a turn left running, and open":   {leave, []string{says + "create for task CREATE"}},
	}.SyncTest(t, func(t *testing.T, c end) {
		r := &recorder{TB: t}
		client := NewClient(r, func(c Call) Action {
			return Action{Hang: c.Op == OpPrompt || c.Op == OpCreate && c.Create.Agent == "create"}
		})
		m, err := subagent.New(client, subagent.Config{Task: subagent.TaskLimits{Start: subagent.Off}})
		require.NoError(t, err)
		ids := map[string]subagent.TaskID{}
		for _, agent := range []string{"create", "prompt"} {
			task, err := m.Launch(bg, subagent.LaunchInput{Parent: "p", Agent: agent, Prompt: "x"})
			require.NoError(t, err)
			ids[agent] = task.ID
		}
		synctest.Wait()
		c.does(m, client)
		var want []string
		for _, s := range c.says {
			want = append(want, strings.NewReplacer("CREATE", string(ids["create"]), "PROMPT", string(ids["prompt"])).Replace(s))
		}
		require.Equal(t, want, r.end())
		_ = m.Close()
	})
}

// A leak fails the test, in words that name the session.
func TestClientReportsLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, do(map[Op]Action{OpPrompt: {Orphan: true}}))
		id := p.create()
		p.prompt(bg, id)
		p.create()
		want := []string{
			"session ses_1 of task bg_1 still runs; nobody stopped it",
			"session ses_2 of task bg_1 was made, and nobody prompted, stopped or released it",
		}
		require.Equal(t, want, p.Leaks())
		require.Equal(t, []string{"subagenttest: " + want[0], "subagenttest: " + want[1]}, p.tb.end())
	})
}

// An Abort that failed excuses only the turn it was for.
func TestClientExcusesOneTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, func(c Call) Action {
			if c.Op == OpAbort && c.N == 0 {
				return Action{Err: errScript}
			}
			return Action{Orphan: c.Op == OpPrompt}
		})
		id := p.create()
		p.prompt(bg, id)
		require.Error(t, p.Abort(bg, id))
		require.Empty(t, p.Leaks())
		require.NoError(t, p.Abort(bg, id))
		p.prompt(bg, id)
		require.Len(t, p.Leaks(), 1)
	})
}

func TestRunningCountsTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, do(map[Op]Action{OpPrompt: {Hang: true}}))
		var ids []subagent.SessionID
		for range 3 {
			ids = append(ids, p.create())
			p.prompt(bg, ids[len(ids)-1])
		}
		require.Equal(t, 3, p.Running())
		second := func(c Call) bool { return c.Session == ids[1] }
		require.Equal(t, 1, p.RunningUnder(second))
		require.NoError(t, p.Abort(bg, ids[1]))
		require.Equal(t, 2, p.Running())
		require.Zero(t, p.RunningUnder(second))
		require.Equal(t, 3, p.MaxRunning())
		p.Let()
		synctest.Wait()
		require.Zero(t, p.Running())
		require.Equal(t, answer{Result: subagent.Result{Text: "ok"}}, *p.prompt(bg, ids[0]), "nothing hangs any more")
		require.Empty(t, p.tb.end())
	})
}
