package subagent

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Scenarios 4, C001 and C002: Launch returns before the client has answered.
func TestLaunchDoesNotWaitForTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(5 * time.Second)
			return c.id(), nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		began := time.Now()
		first := launch(t, m, asks("p", "prov/model", "one"))
		second := launch(t, m, asks("p", "prov/model", "two"))
		require.Zero(t, time.Since(began))

		require.Equal(t, Starting, first.Status)
		require.Equal(t, Pending, second.Status)
		for _, task := range []Task{first, second} {
			require.NotEmpty(t, task.ID)
			require.Equal(t, began, task.Queued)
			require.Empty(t, task.Session)
			require.Equal(t, 1, task.Run)
			require.Equal(t, Key{ModelKey, "prov/model"}, task.Key)
		}
		require.Equal(t, 0, first.Position)
		require.Equal(t, 1, second.Position)
		require.Zero(t, second.Started)
		require.Zero(t, second.Attempt)

		pass(5 * time.Second)
		now := get(t, m, first.ID)
		require.Equal(t, Running, now.Status)
		require.Equal(t, SessionID("ses_1"), now.Session)
	})
}

// Scenarios 7 and C003: ids are all different, over managers too, and of one form.
func TestTaskIDs(t *testing.T) {
	form := regexp.MustCompile(`^bg_[0-9a-v]{26}$`)
	seen := map[TaskID]bool{}
	const managers, launches = 10, 10_000
	for range managers {
		m := newManager(t, &stub{prompt: hang}, Config{
			Keys: KeyLimits{Default: 1}, Spawn: SpawnLimits{LivePerRoot: Off},
		})
		for range launches {
			id := launch(t, m, work("p")).ID
			require.Regexp(t, form, id)
			seen[id] = true
		}
	}
	require.Len(t, seen, managers*launches)
}

// Scenarios 2 and 3: models put names in quotes and slashes; the name without
// them is stored, queued and sent. Nothing but wrapping is no name.
func TestAgentNameIsCleaned(t *testing.T) {
	for _, name := range []string{
		"explore", " explore\n", `"explore"`, "'explore'", "`explore`", "/explore", `\explore\`, `"/explore/"`, "\t`\"explore\"`",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var created CreateRequest
				var prompted Prompt
				c := &stub{prompt: func(_ context.Context, _ SessionID, p Prompt) (Result, error) {
					prompted = p
					return Result{Text: "ok"}, nil
				}}
				c.create = func(_ context.Context, r CreateRequest) (SessionID, error) { created = r; return c.id(), nil }
				m := newManager(t, c, Config{})
				task := launch(t, m, LaunchInput{Parent: "p", Agent: name, Prompt: "x"})
				synctest.Wait()
				require.Equal(t, "explore", task.Agent)
				require.Equal(t, Key{AgentKey, "explore"}, task.Key)
				require.Equal(t, "explore", created.Agent)
				require.Equal(t, "explore", prompted.Agent)
			})
		})
	}
}

// Scenario C004: the record holds the agent's own name; its model and its
// switches are those of the agent, its limits what the launch leaves open.
func TestAgentAlias(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{
			Keys: KeyLimits{Default: 1},
			Task: TaskLimits{QueueWait: time.Hour, Start: time.Minute, ResultBytes: 10},
			Agents: map[string]Agent{"explore": {
				Aliases: []string{"search", "find"}, Model: "prov/small",
				Limits: &TaskLimits{QueueWait: time.Minute, Start: Off},
			}},
		})
		for _, name := range []string{"search", `"find"`, "explore"} {
			task := launch(t, m, LaunchInput{Parent: "p", Agent: name, Prompt: name})
			require.Equal(t, "explore", task.Agent)
			require.Equal(t, "prov/small", task.Model)
			require.Equal(t, Key{ModelKey, "prov/small"}, task.Key)
		}
		own := launch(t, m, LaunchInput{
			Parent: "p", Agent: "find", Model: " prov/large ", Prompt: "own", Limits: &TaskLimits{QueueWait: time.Second},
		})
		require.Equal(t, "prov/large", own.Model, "scenario 9: a model that is named beats the agent's")
		m.mu.Lock()
		defer m.mu.Unlock()
		require.Equal(t, TaskLimits{QueueWait: time.Minute, Start: Off, ResultBytes: 10}, *m.tasks[0].limits)
		require.Equal(t, TaskLimits{QueueWait: time.Second, Start: Off, ResultBytes: 10}, *m.byID[own.ID].limits)
	})
}

// Scenario 13: the context of Launch bounds the call and not the task.
func TestLaunchContextEndsAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		running, err := m.Launch(ctx, asks("p", "", "one"))
		require.NoError(t, err)
		pending, err := m.Launch(ctx, asks("p", "", "two"))
		require.NoError(t, err)
		cancel()
		pass(time.Hour)
		require.Equal(t, Running, get(t, m, running.ID).Status)
		s.end("one", "two")
		require.Equal(t, Completed, get(t, m, running.ID).Status)
		require.Equal(t, Completed, get(t, m, pending.ID).Status)
	})
}

// Scenario C016: a task runs with what Launch was given, whatever its owner does
// to the maps and the pointer while it waits, or the manager's owner to the
// Config. Nor does the task that Launch returned share anything with the record.
func TestLaunchCapturesItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var created CreateRequest
		c := &stub{prompt: hang}
		c.create = func(_ context.Context, r CreateRequest) (SessionID, error) {
			if r.Agent == "explore" {
				created = r
			}
			return c.id(), nil
		}
		cfg := Config{
			Keys:   KeyLimits{Models: map[string]int{"prov/model": 1}},
			Tools:  map[string]bool{"base": true},
			Agents: map[string]Agent{"worker": {}, "explore": {Aliases: []string{"find"}, Tools: map[string]bool{"agent": true}, Limits: &TaskLimits{QueueWait: time.Hour}}},
		}
		m := newManager(t, c, cfg)
		cfg.Keys.Models["prov/model"] = 2
		cfg.Tools["base"], cfg.Tools["late"] = false, true
		cfg.Agents["explore"].Tools["agent"] = false
		cfg.Agents["explore"].Aliases[0] = "lost"
		cfg.Agents["explore"].Limits.QueueWait = time.Millisecond
		delete(cfg.Agents, "worker")

		first := launch(t, m, asks("p", "prov/model", "first"))
		in := LaunchInput{
			Parent: "p", Agent: "find", Model: "prov/model", Dir: "/a", Prompt: "x",
			Tools: map[string]bool{"own": true}, Labels: map[string]string{"kind": "a"}, Limits: &TaskLimits{Start: time.Minute},
		}
		task := launch(t, m, in)
		in.Model, in.Dir = "prov/other", "/b"
		in.Tools["own"], in.Labels["kind"], in.Limits.Start = false, "b", time.Nanosecond
		task.Labels["kind"] = "c"
		pass(time.Minute)
		require.Equal(t, Pending, get(t, m, task.ID).Status)

		_, err := m.Cancel(t.Context(), first.ID, CancelOptions{})
		require.NoError(t, err)
		pass(time.Second)
		require.Equal(t, Running, get(t, m, task.ID).Status)
		require.Equal(t, "prov/model", created.Model)
		require.Equal(t, "/a", created.Dir)
		require.Equal(t, map[string]bool{"base": true, "agent": true, "own": true}, created.Tools)
		require.Equal(t, map[string]string{"kind": "a"}, created.Labels)
		require.Equal(t, map[string]string{"kind": "a"}, get(t, m, task.ID).Labels)
	})
}

// Scenarios 11 and C014: launches race with Close. Each is either refused as
// closed, or its task has ended when Close returns; and no call of the client
// begins after that.
func TestLaunchAgainstClose(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c := &stub{prompt: hang}
			m := newManager(t, c, Config{Spawn: SpawnLimits{LivePerRoot: Off}})
			var g sync.WaitGroup
			for range 20 {
				g.Go(func() {
					if _, err := m.Launch(context.Background(), work("p")); err != nil {
						require.ErrorIs(t, err, ErrClosed)
					}
				})
			}
			require.NoError(t, m.Close())
			calls := c.creates.Load() + c.prompts.Load()
			g.Wait()
			for _, task := range m.List(Filter{}) {
				require.Equal(t, Cancelled, task.Status)
				require.ErrorIs(t, task.Reason, ByShutdown)
			}
			before := inventory(m)
			_, err := m.Launch(t.Context(), work("p"))
			require.ErrorIs(t, err, ErrClosed)
			require.ErrorIs(t, m.CanLaunch(t.Context(), work("p")), ErrClosed)
			require.Equal(t, before, inventory(m))
			pass(time.Hour)
			require.Equal(t, calls, c.creates.Load()+c.prompts.Load())
		})
	}
}

// Admit has the last word: it sees the input as resolved and the lineage, in the
// goroutine of Launch and without a lock.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type admitted struct {
			in LaunchInput
			l  Lineage
		}
		var saw []admitted
		no := errors.New("not today")
		var m *BackgroundManager
		m = newManager(t, Func(untilStopped), Config{
			Agents: map[string]Agent{"explore": {Aliases: []string{"find"}, Model: "prov/small"}},
			Admit: func(_ context.Context, in LaunchInput, l Lineage) error {
				m.Stats() // deadlocks under the lock
				saw = append(saw, admitted{in, l})
				if in.Description == "forbidden" {
					return no
				}
				return nil
			},
		})
		first := launch(t, m, LaunchInput{Parent: "p", Agent: "'find'", Prompt: "x", Labels: map[string]string{"k": "v"}})
		synctest.Wait()
		session := get(t, m, first.ID).Session
		_, err := m.Launch(t.Context(), LaunchInput{Parent: session, Agent: "explore", Model: "a/b", Prompt: "x", Description: "forbidden"})
		require.ErrorIs(t, err, no)

		require.Len(t, saw, 2)
		require.Equal(t, "explore", saw[0].in.Agent)
		require.Equal(t, "prov/small", saw[0].in.Model)
		require.Equal(t, map[string]string{"k": "v"}, saw[0].in.Labels)
		require.Equal(t, Lineage{Parent: "p", Root: "p", Depth: 1}, saw[0].l)
		require.Equal(t, "a/b", saw[1].in.Model)
		require.Equal(t, Lineage{Parent: session, Root: "p", Depth: 2}, saw[1].l)
	})
}

// A context that ends inside Admit refuses the launch, although Admit did not.
func TestLaunchContextEndsInAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("the tool call was interrupted")
		m := newManager(t, Func(echo), Config{Admit: func(context.Context, LaunchInput, Lineage) error {
			cancel(why)
			return nil
		}})
		before := inventory(m)
		_, err := m.Launch(ctx, work("p"))
		require.ErrorIs(t, err, why)
		require.Equal(t, before, inventory(m))
	})
}

// A launch whose Admit goes on while the manager is closed is refused.
func TestCloseWithinAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		m = newManager(t, &stub{}, Config{Admit: func(context.Context, LaunchInput, Lineage) error { return m.Close() }})
		_, err := m.Launch(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrClosed)
		require.Empty(t, m.List(Filter{}))
	})
}

// Scenario 66: each layer may switch off what an earlier one switched on, and
// none can switch on again what any has switched off.
func TestMergeTools(t *testing.T) {
	type tools = map[string]bool
	for i, c := range []struct {
		base, user, agent, want tools
	}{
		{nil, nil, nil, nil},
		{tools{}, tools{}, tools{}, nil},
		{tools{"a": true}, nil, nil, tools{"a": true}},
		{nil, tools{"a": false}, nil, tools{"a": false}},
		{nil, nil, tools{"a": true}, tools{"a": true}},
		{tools{"a": true}, tools{"a": false}, nil, tools{"a": false}},
		{tools{"a": true}, tools{"a": true}, tools{"a": false}, tools{"a": false}},
		{tools{"a": false}, tools{"a": true}, tools{"a": true}, tools{"a": false}},
		{tools{"a": true}, tools{"a": false}, tools{"a": true}, tools{"a": false}},
		{tools{"a": true, "b": true}, tools{"b": false, "c": true}, tools{"c": false, "d": true}, tools{"a": true, "b": false, "c": false, "d": true}},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			base, user, agent := maps.Clone(c.base), maps.Clone(c.user), maps.Clone(c.agent)
			require.Equal(t, c.want, mergeTools(c.base, c.user, c.agent))
			require.Equal(t, []tools{base, user, agent}, []tools{c.base, c.user, c.agent}, "the layers stay as they are")
		})
	}
}

// What host code is handed is a copy: the client and Admit may keep and change
// the maps that they get.
func TestHostCannotChangeTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scribble := func(labels map[string]string) {
			for name := range labels {
				labels[name] = "scribbled"
			}
		}
		var kept map[string]string
		c := &stub{prompt: hang}
		c.create = func(_ context.Context, r CreateRequest) (SessionID, error) {
			scribble(r.Labels)
			return c.id(), nil
		}
		m := newManager(t, c, Config{Admit: func(_ context.Context, in LaunchInput, _ Lineage) error {
			kept = in.Labels
			return nil
		}})
		in := work("p")
		in.Labels = map[string]string{"kind": "a"}
		task := launch(t, m, in)
		synctest.Wait()
		require.Equal(t, map[string]string{"kind": "a"}, get(t, m, task.ID).Labels, "changed by Create")
		scribble(kept)
		require.Equal(t, map[string]string{"kind": "a"}, get(t, m, task.ID).Labels, "changed by Admit")
	})
}
