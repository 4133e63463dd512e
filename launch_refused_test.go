package subagent

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// ancestry is a client that knows where sessions come from.
type ancestry struct {
	stub
	parent func(context.Context, SessionID) (SessionID, error)
}

func (a *ancestry) ParentOf(ctx context.Context, id SessionID) (SessionID, error) {
	return a.parent(ctx, id)
}

// refusal is a launch that has to be refused. The manager has one task running
// in a session of its own, and one that waits behind it.
type refusal struct {
	name   string
	cfg    Config
	client SessionClient
	change func(t *testing.T, m *BackgroundManager, in *LaunchInput)
	ctx    func(context.Context) context.Context
	check  func(t *testing.T, err error)
}

// wrong is the check for an input that breaks a rule.
func wrong(field, value, rule string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		var input *InputError
		require.ErrorAs(t, err, &input)
		require.Equal(t, InputError{Field: field, Value: value, Rule: rule}, *input)
		for _, part := range []string{field, value, rule} {
			require.ErrorContains(t, err, part)
		}
	}
}

func isError(target error) func(*testing.T, error) {
	return func(t *testing.T, err error) { require.ErrorIs(t, err, target) }
}

func limited(want LimitError, parts ...string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		var limit *LimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, want, *limit)
		require.ErrorIs(t, err, want.Kind)
		for _, part := range append(parts, want.Setting+" is "+strconv.Itoa(want.Limit)) {
			require.ErrorContains(t, err, part)
		}
	}
}

func changed(f func(in *LaunchInput)) func(*testing.T, *BackgroundManager, *LaunchInput) {
	return func(_ *testing.T, _ *BackgroundManager, in *LaunchInput) { f(in) }
}

func refusals() []refusal {
	input := func(name string, change func(*LaunchInput), check func(*testing.T, error)) refusal {
		return refusal{name: name, change: changed(change), check: check}
	}
	agents := map[string]Agent{"worker": {}, "explore": {Aliases: []string{"find"}}, "old": {Aliases: []string{"older"}, Disabled: true}}
	unknown := func(is error, name string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			var agent *AgentError
			require.ErrorAs(t, err, &agent)
			require.Equal(t, AgentError{Kind: is, Agent: name, Known: []string{"explore", "worker"}}, *agent)
			require.ErrorIs(t, err, is)
			require.ErrorContains(t, err, `"`+name+`"; those that may be launched: ["explore" "worker"]`)
		}
	}
	needed, text := "a name is required", "a text is required"
	inherit, unit := "must be positive, 0 to inherit, or Off", "must be at least 1ms, 0 to inherit, or Off"
	no, boom := errors.New("no"), errors.New("boom")
	panicked := func(op string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			var p *PanicError
			require.ErrorAs(t, err, &p)
			require.Equal(t, op, p.Op)
			require.ErrorIs(t, err, boom, "the panic's value")
			require.NotEmpty(t, p.Stack)
		}
	}
	return []refusal{
		// Scenarios 1, 3 and C006.
		input("no agent", func(in *LaunchInput) { in.Agent = "" }, wrong("LaunchInput.Agent", `""`, needed)),
		input("blank agent", func(in *LaunchInput) { in.Agent = " \t\n" }, wrong("LaunchInput.Agent", `" \t\n"`, needed)),
		input("only wrapping", func(in *LaunchInput) { in.Agent = "\"'`/\\ " }, wrong("LaunchInput.Agent", strconv.Quote("\"'`/\\ "), needed)),
		input("no prompt", func(in *LaunchInput) { in.Prompt = "" }, wrong("LaunchInput.Prompt", `""`, text)),
		input("blank prompt", func(in *LaunchInput) { in.Prompt = " \n " }, wrong("LaunchInput.Prompt", `" \n "`, text)),
		input("a blank parent", func(in *LaunchInput) { in.Parent = " \t" }, wrong("LaunchInput.Parent", `" \t"`, "can't be blank")),
		input("no parent", func(in *LaunchInput) { in.Parent = "" }, wrong("LaunchInput.Parent", `""`, "required unless NoNotice is set")),
		input("queue wait", func(in *LaunchInput) { in.Limits = &TaskLimits{QueueWait: -2} }, wrong("LaunchInput.Limits.QueueWait", "-2ns", unit)),
		input("start", func(in *LaunchInput) { in.Limits = &TaskLimits{Start: -time.Second} }, wrong("LaunchInput.Limits.Start", "-1s", unit)),
		input("start without a unit", func(in *LaunchInput) { in.Limits = &TaskLimits{Start: 60} }, wrong("LaunchInput.Limits.Start", "60ns", unit)),
		input("result bytes", func(in *LaunchInput) { in.Limits = &TaskLimits{ResultBytes: -3} }, wrong("LaunchInput.Limits.ResultBytes", "-3", inherit)),

		input("model without a name", func(in *LaunchInput) { in.Model = "x/" }, wrong("LaunchInput.Model", `"x/"`, modelRule)),
		input("model without a provider", func(in *LaunchInput) { in.Model = " /y" }, wrong("LaunchInput.Model", `"/y"`, modelRule)),
		input("tool without a name", func(in *LaunchInput) { in.Tools = map[string]bool{"": false} }, wrong(`LaunchInput.Tools[""]`, `""`, toolRule)),

		// Scenarios C043 and C046.
		{name: "unknown agent", cfg: Config{Agents: agents}, change: changed(func(in *LaunchInput) { in.Agent = "/Explore/" }), check: unknown(ErrUnknownAgent, "Explore")},
		{name: "disabled agent", cfg: Config{Agents: agents}, change: changed(func(in *LaunchInput) { in.Agent = "old" }), check: unknown(ErrAgentDisabled, "old")},
		{name: "disabled by alias", cfg: Config{Agents: agents}, change: changed(func(in *LaunchInput) { in.Agent = "older" }), check: unknown(ErrAgentDisabled, "old")},

		// Scenarios C037, C046 and C047, and the numbers that a refusal carries.
		{
			name: "too deep", cfg: Config{Spawn: SpawnLimits{Depth: 1}},
			change: func(t *testing.T, m *BackgroundManager, in *LaunchInput) { in.Parent = m.List(Filter{})[0].Session },
			check:  limited(LimitError{Kind: ErrDepthLimit, Setting: "Config.Spawn.Depth", Limit: 1, Used: 2, Parent: "ses_1", Root: "p"}, `"ses_1"`, "depth 2"),
		},
		{
			name: "too many live", cfg: Config{Spawn: SpawnLimits{LivePerRoot: 2}},
			check: limited(LimitError{Kind: ErrSpawnLimit, Setting: "Config.Spawn.LivePerRoot", Limit: 2, Used: 2, Parent: "p", Root: "p"}, "2 are taken", `"p"; wait for one to end`),
		},
		{
			name: "too many in all", cfg: Config{Spawn: SpawnLimits{TotalPerRoot: 2}},
			change: func(t *testing.T, m *BackgroundManager, in *LaunchInput) {
				_, err := m.CancelAll(t.Context(), Filter{Parent: "p"}, CancelOptions{})
				require.NoError(t, err)
			},
			check: limited(LimitError{Kind: ErrSpawnLimit, Setting: "Config.Spawn.TotalPerRoot", Limit: 2, Used: 2, Parent: "p", Root: "p"}, "2 are taken", `"p"; do the work in this session`),
		},
		{
			name: "queue full", cfg: Config{Spawn: SpawnLimits{QueueDepth: 1}},
			check: limited(LimitError{Kind: ErrQueueFull, Setting: "Config.Spawn.QueueDepth", Limit: 1, Used: 1, Parent: "p", Root: "p", Key: Key{AgentKey, "worker"}}, "1 wait for agent:worker; wait for one to start"),
		},

		// Scenario 16: it fails closed.
		{name: "lineage fails", client: &ancestry{stub: stub{prompt: hang}, parent: func(_ context.Context, id SessionID) (SessionID, error) {
			if id == "q" {
				return "", boom
			}
			return "", nil
		}}, change: changed(func(in *LaunchInput) { in.Parent = "q" }), check: func(t *testing.T, err error) {
			require.ErrorIs(t, err, ErrLineage)
			require.ErrorIs(t, err, boom)
			require.ErrorContains(t, err, `"q"`)
		}},
		{name: "lineage panics", client: &ancestry{stub: stub{prompt: hang}, parent: func(_ context.Context, id SessionID) (SessionID, error) {
			if id == "q" {
				panic(boom)
			}
			return "", nil
		}}, change: changed(func(in *LaunchInput) { in.Parent = "q" }), check: func(t *testing.T, err error) {
			require.ErrorIs(t, err, ErrLineage)
			panicked("lineage")(t, err)
		}},

		{name: "admit refuses", cfg: Config{Admit: unless("worker", func() error { return no })}, change: changed(func(in *LaunchInput) { in.Agent = "other" }), check: isError(no)},
		{name: "admit panics", cfg: Config{Admit: unless("worker", func() error { panic(boom) })}, change: changed(func(in *LaunchInput) { in.Agent = "other" }), check: panicked("admit")},

		// Scenario 12.
		{name: "context cancelled", ctx: func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx
		}, check: isError(context.Canceled)},
		{name: "context cancelled for a cause", ctx: func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(no)
			return ctx
		}, check: isError(no)},

		{
			name: "parent stopping", client: &stub{prompt: hang, abort: func(ctx context.Context, _ SessionID) error { <-ctx.Done(); return ctx.Err() }},
			change: func(t *testing.T, m *BackgroundManager, in *LaunchInput) {
				in.Parent = m.List(Filter{})[0].Session
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := m.Cancel(ctx, m.List(Filter{})[0].ID, CancelOptions{})
				require.ErrorIs(t, err, context.DeadlineExceeded)
			},
			check: func(t *testing.T, err error) {
				require.ErrorIs(t, err, ErrParentEnded)
				require.ErrorContains(t, err, "is stopping")
			},
		},
		{
			name: "parent cancelled",
			change: func(t *testing.T, m *BackgroundManager, in *LaunchInput) {
				in.Parent = m.List(Filter{})[0].Session
				_, err := m.Cancel(t.Context(), m.List(Filter{})[0].ID, CancelOptions{})
				require.NoError(t, err)
			},
			check: isError(ErrParentEnded),
		},
		{
			name: "closed",
			change: func(t *testing.T, m *BackgroundManager, _ *LaunchInput) {
				require.NoError(t, m.Close())
			},
			check: isError(ErrClosed),
		},
	}
}

func unless(agent string, f func() error) func(context.Context, LaunchInput, Lineage) error {
	return func(_ context.Context, in LaunchInput, _ Lineage) error {
		if in.Agent == agent {
			return nil
		}
		return f()
	}
}

// Scenarios 1, 3, 11, 12, 16, C006, C014, C037, C043, C046 and C047: a refused
// launch says what is wrong, by type and in words; it calls the client for nothing
// and leaves nothing behind. CanLaunch refuses for the same reason in the same
// words, and changes nothing either.
func TestLaunchRefused(t *testing.T) {
	for _, c := range refusals() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := c.client
				if client == nil {
					client = &stub{prompt: hang}
				}
				c.cfg.Keys.Agents = map[string]int{"worker": 1}
				m := newManager(t, client, c.cfg)
				launch(t, m, work("p"))
				launch(t, m, work("p"))
				synctest.Wait()

				in := work("p")
				if c.change != nil {
					c.change(t, m, &in)
				}
				synctest.Wait()
				ctx := t.Context()
				if c.ctx != nil {
					ctx = c.ctx(ctx)
				}
				before, tasks := inventory(m), m.List(Filter{})

				task, err := m.Launch(ctx, in)
				require.Error(t, err)
				c.check(t, err)
				require.Zero(t, task)
				again := m.CanLaunch(ctx, in)
				require.EqualError(t, again, err.Error())
				c.check(t, again)

				synctest.Wait()
				require.Equal(t, before, inventory(m))
				require.Equal(t, tasks, m.List(Filter{}))
				require.NoError(t, m.CheckBooks(nil, nil))
			})
		})
	}
}

// CanLaunch says yes to what Launch would do, and reserves nothing by it.
func TestCanLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Spawn: SpawnLimits{LivePerRoot: 1}})
		before := inventory(m)
		for range 3 {
			require.NoError(t, m.CanLaunch(t.Context(), work("p")))
		}
		require.Equal(t, before, inventory(m))
		launch(t, m, work("p"))
		require.ErrorIs(t, m.CanLaunch(t.Context(), work("p")), ErrSpawnLimit)
		require.NoError(t, m.CanLaunch(t.Context(), work("q")))
		require.NoError(t, m.CanLaunch(t.Context(), LaunchInput{Agent: "a", Prompt: "x", NoNotice: true}))
	})
}
