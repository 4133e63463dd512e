package subagent

import (
	"context"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// called notes hooks by their names and the status they are shown. SessionCreated does
// not wait for the others, so that only its place before Running is known.
type called struct {
	listener
	names      []string
	introduced bool
}

func (c *called) note(name string, s Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name == "SessionCreated" {
		c.introduced = true
		return
	}
	if name == "Running" && c.introduced {
		name, c.introduced = "SessionCreated, Running", false
	}
	c.names = append(c.names, name+" "+s.String())
}

// order is what was called.
func (c *called) order() []string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.names)
}

func (c *called) hooks() Hooks {
	event := func(name string) func(Event) {
		return func(e Event) { c.hear(e); c.note(name, e.Task.Status) }
	}
	return Hooks{
		SessionCreated: func(_ context.Context, t Task) { c.note("SessionCreated", t.Status) },
		Queued:         event("Queued"), Starting: event("Starting"), Running: event("Running"), InputNeeded: event("InputNeeded"),
		Stopping: event("Stopping"), Ended: event("Ended"), Told: event("Told"), Forgotten: event("Forgotten"),
	}
}

// Each hook is called with its events, in order, and with no others.
func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newChatty(), &called{}
		m := newManager(t, c, Config{Hooks: l.hooks(), Notifier: &inbox{}})
		id := launch(t, m, work("p")).ID
		on := <-c.on
		on(SessionEvent{Kind: EventQuestion, Text: "sure?"})
		on(SessionEvent{Kind: EventText})
		_, err := m.Cancel(t.Context(), id, CancelOptions{})
		require.NoError(t, err)
		pass(time.Minute)
		require.Equal(t, []string{
			"Queued pending", "Starting starting", "SessionCreated, Running running",
			"InputNeeded input_required", "Running running", "Stopping stopping", "Ended cancelled", "Told cancelled",
		}, l.order())
		last := uint64(0)
		for _, e := range l.all() {
			require.Greater(t, e.Seq, last)
			last = e.Seq
		}
		require.Equal(t, get(t, m, id), l.all()[6].Task)
	})
}

// Every field of Hooks but SessionCreated has its row, and each status its hook.
func TestHookRows(t *testing.T) {
	require.Len(t, hookRows, reflect.TypeFor[Hooks]().NumField()-1)
	h := (&called{}).hooks()
	table := h.table()
	for s := Pending; s < numStatuses; s++ {
		require.NotNil(t, table[TopicStatus][s], s)
		require.NotNil(t, table[TopicTold][s], s)
	}
	require.Nil(t, Hooks{SessionCreated: h.SessionCreated}.table())
}

// Scenario C206: a hook that panics, or ends its goroutine, keeps nobody from anything.
func TestHookThatPanics(t *testing.T) {
	for name, bad := range map[string]func(){"panic": func() { panic("hook") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, two, log := &called{}, &called{}, &logged{}
				all := Hooks{SessionCreated: func(context.Context, Task) { bad() }}
				for _, row := range hookRows {
					*row.of(&all) = func(Event) { bad() }
				}
				m := newManager(t, timed(), Config{
					Hooks: Tee(one.hooks(), all, Hooks{}, two.hooks(), all), Notifier: &inbox{}, Logger: slog.New(log),
				})
				l := listen(t, m, Filter{})
				id := launch(t, m, taking("p", "1s")).ID
				pass(time.Minute)
				require.Equal(t, Completed, get(t, m, id).Status)
				require.Equal(t, []string{"pending", "starting", "(session)", "running", "completed", "(told)"}, l.of(id))
				want := []string{"Queued pending", "Starting starting", "SessionCreated, Running running", "Ended completed", "Told completed"}
				require.Equal(t, want, one.order())
				require.Equal(t, want, two.order())
				require.Equal(t, 6, m.Stats().Events.HooksFailed)
				require.Contains(t, strings.Join(log.lines, "\n"), "WARN hook panicked error=*subagent.PanicError")
			})
		})
	}
}

func TestTee(t *testing.T) {
	require.Equal(t, Hooks{}, Tee())
	require.Equal(t, Hooks{}, Tee(Hooks{}, Hooks{}))
	var order []string
	note := func(name string) Hooks {
		return Hooks{
			Ended: func(e Event) {
				require.Equal(t, "v", e.Task.Labels["k"])
				e.Task.Labels["k"] = name
				order = append(order, name)
			},
			SessionCreated: func(_ context.Context, t Task) { order = append(order, "session "+name) },
		}
	}
	all := Tee(note("a"), Tee(note("b"), Hooks{Told: func(Event) {}}), note("c"))
	all.Ended(Event{Task: Task{Labels: map[string]string{"k": "v"}}})
	all.SessionCreated(t.Context(), Task{})
	require.Equal(t, []string{"a", "b", "c", "session a", "session b", "session c"}, order)
	require.NotNil(t, all.Told)
	require.Nil(t, all.Queued)
}

// A hook that blocks holds up no task and no Close, which lists it. No hook begins after
// Close: what waited is dropped and counted. What is more than may wait is, too.
func TestHookThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, calls := make(chan struct{}), atomic.Int64{}
		m := newManager(t, timed(), Config{
			Hooks: Hooks{Queued: func(Event) { calls.Add(1); <-let }, Ended: func(Event) { calls.Add(1) }},
			Keys:  KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off},
		})
		for range 6000 {
			launch(t, m, taking("p", "1s"))
		}
		pass(time.Minute)
		require.Equal(t, map[Status]int{Completed: 6000}, m.Stats().Tasks)
		require.Equal(t, EventStats{HooksWaiting: maxHooks, HooksDropped: 12_000 - maxHooks - 1}, m.Stats().Events)
		began := time.Now()
		var unstopped *UnstoppedError
		require.ErrorAs(t, m.Close(), &unstopped)
		require.Equal(t, []UnstoppedCall{{Op: "hooks"}}, unstopped.Calls)
		require.LessOrEqual(t, time.Since(began), 20*time.Second)
		close(let)
		synctest.Wait()
		require.EqualValues(t, 1, calls.Load())
		require.Equal(t, EventStats{HooksDropped: 12_000 - 1}, m.Stats().Events)
	})
}

// Close waits for the hooks that it has given rise to.
func TestCloseWaitsForHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		slow := func(e Event) { time.Sleep(time.Second); l.hear(e) }
		m := newManager(t, timed(), Config{Hooks: Hooks{Stopping: slow, Ended: slow}})
		id := launch(t, m, taking("p", "1h")).ID
		synctest.Wait()
		require.NoError(t, m.Close())
		require.Equal(t, []string{"stopping", "cancelled"}, l.of(id))
	})
}

// Hooks may call the manager.
func TestHookCallsTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		var again atomic.Int64
		m = newManager(t, timed(), Config{Hooks: Hooks{
			SessionCreated: func(ctx context.Context, task Task) {
				_, err := m.Launch(ctx, taking(task.Session, "1s")) // below it
				if task.Depth < 3 {
					require.NoError(t, err)
				}
			},
			Running: func(e Event) { m.List(Filter{}); _, _ = m.Subscribe(t.Context(), Filter{}) },
			Ended: func(e Event) {
				_, err := m.Wait(t.Context(), e.Task.ID)
				require.NoError(t, err)
				if again.Add(1) == 1 {
					launch(t, m, taking("p", "1s"))
				}
			},
		}})
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.Equal(t, map[Status]int{Completed: 6}, m.Stats().Tasks)
	})
}

// Scenarios C202, 58: the hook is over before the session is prompted, and sees it as it is.
func TestSessionCreatedComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hooked := timed(), atomic.Bool{}
		var m *BackgroundManager
		prompt := c.prompt
		c.prompt = func(ctx context.Context, id SessionID, p Prompt) (Result, error) {
			require.True(t, hooked.Load())
			return prompt(ctx, id, p)
		}
		m = newManager(t, c, Config{Hooks: Hooks{SessionCreated: func(ctx context.Context, task Task) {
			defer hooked.Store(true)
			now, err := m.BySession(task.Session)
			require.NoError(t, err)
			require.Equal(t, now, task)
			require.Equal(t, Starting, task.Status)
			time.Sleep(900 * time.Millisecond)
			require.Equal(t, Starting, get(t, m, task.ID).Status)
			require.NoError(t, ctx.Err())
		}}, Task: TaskLimits{Start: 500 * time.Millisecond}})
		id := launch(t, m, taking("p", "1s")).ID
		pass(950 * time.Millisecond)
		require.Equal(t, Running, get(t, m, id).Status)
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, id).Status)
		require.Empty(t, m.hooks.out)
	})
}

// Scenarios 59, 60: a hook that does not come back holds its prompt up for a second, and
// nothing else; it is left behind, and Close lists it.
func TestSessionCreatedHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, ended := make(chan struct{}), atomic.Int64{}
		c := timed()
		m := newManager(t, c, Config{Hooks: Hooks{SessionCreated: func(ctx context.Context, _ Task) {
			<-ctx.Done()
			ended.Add(1)
			<-let
		}}})
		one, two := launch(t, m, taking("p", "1s")), launch(t, m, taking("p", "1h"))
		pass(999 * time.Millisecond)
		require.Zero(t, c.prompts.Load())
		pass(time.Millisecond)
		require.EqualValues(t, 2, c.prompts.Load())
		require.EqualValues(t, 2, ended.Load())
		pass(time.Second)
		require.Equal(t, Completed, get(t, m, one.ID).Status)
		var unstopped *UnstoppedError
		require.ErrorAs(t, m.Close(), &unstopped)
		var want []UnstoppedCall
		for _, id := range []TaskID{one.ID, two.ID} {
			want = append(want, UnstoppedCall{Op: "hook", Task: id, Session: get(t, m, id).Session})
		}
		require.ElementsMatch(t, want, unstopped.Calls)
		close(let)
		synctest.Wait()
		require.Empty(t, m.hooks.out)
	})
}

// Scenario 56: a task that is stopped while its hook runs is not prompted, by whatever it
// was stopped. The hook's context ends at once, and nothing is left to abort.
func TestStoppedInSessionCreated(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*testing.T, *BackgroundManager, Task)
		want ReasonCode
	}{
		"cancel": {func(t *testing.T, m *BackgroundManager, task Task) {
			_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			require.NoError(t, err)
		}, ByUser},
		"cancel, left running": {func(t *testing.T, m *BackgroundManager, task Task) {
			ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
			require.NoError(t, err)
			require.NoError(t, ended.Attempts[0].Unstopped)
		}, ByUser},
		"deleted": {func(_ *testing.T, m *BackgroundManager, task Task) {
			m.HandleEvent(SessionEvent{Session: task.Session, Kind: EventDeleted})
		}, SessionDeleted},
		"close": {func(t *testing.T, m *BackgroundManager, _ Task) { require.NoError(t, m.Close()) }, ByShutdown},
	} {
		for _, heeds := range []bool{true, false} {
			t.Run(name+map[bool]string{true: "", false: ", unheeded"}[heeds], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, ended := timed(), time.Time{}
					m := newManager(t, client, Config{Hooks: Hooks{SessionCreated: func(ctx context.Context, _ Task) {
						<-ctx.Done()
						ended = time.Now()
						var why *Reason
						require.ErrorAs(t, context.Cause(ctx), &why)
						require.Equal(t, c.want, why.Code)
						if !heeds {
							time.Sleep(2 * time.Second)
						}
					}}})
					l := listen(t, m, Filter{})
					id := launch(t, m, taking("p", "1h")).ID
					pass(300 * time.Millisecond)
					began := time.Now()
					c.stop(t, m, get(t, m, id))
					synctest.Wait()
					require.Equal(t, began, ended)
					task := get(t, m, id)
					require.True(t, task.Reason.is(c.want), task.Reason)
					require.Equal(t, began, task.Ended.Add(time.Nanosecond).Truncate(time.Millisecond))
					pass(time.Minute)
					require.Zero(t, client.prompts.Load())
					require.Zero(t, client.aborts.Load())
					require.Equal(t, []string{"pending", "starting", "(session)", "stopping", "cancelled"}, l.of(id))
				})
			})
		}
	}
}

// A hook that cancels its own task is no deadlock.
func TestSessionCreatedCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		c := timed()
		m = newManager(t, c, Config{Hooks: Hooks{SessionCreated: func(ctx context.Context, task Task) {
			ended, err := m.Cancel(context.WithoutCancel(ctx), task.ID, CancelOptions{})
			require.NoError(t, err)
			require.Equal(t, Cancelled, ended.Status)
		}}})
		id := launch(t, m, taking("p", "1h")).ID
		pass(time.Minute)
		require.Equal(t, Cancelled, get(t, m, id).Status)
		require.Zero(t, c.prompts.Load())
	})
}
