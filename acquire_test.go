package subagent

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var holder = Holder{Parent: "p", Agent: "worker", Model: "m/x"}

func acquire(t *testing.T, m *BackgroundManager, h Holder) *Lease {
	t.Helper()
	l, err := m.Acquire(t.Context(), h)
	require.NoError(t, err)
	return l
}

// callers wait in Acquire one behind the other; it keeps who got a
// lease, in order.
type callers struct {
	m   *BackgroundManager
	mu  sync.Mutex
	got []string
	has map[string]*Lease
	off map[string]context.CancelCauseFunc
	err map[string]error
}

func newCallers(m *BackgroundManager) *callers {
	return &callers{m: m, has: map[string]*Lease{}, off: map[string]context.CancelCauseFunc{}, err: map[string]error{}}
}

func (c *callers) call(name string, h Holder) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.off[name] = cancel
	go func() {
		l, err := c.m.Acquire(ctx, h)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.err[name] = err
			return
		}
		c.got = append(c.got, name)
		c.has[name] = l
	}()
	synctest.Wait()
}

func (c *callers) release(name string) {
	c.has[name].Release()
	synctest.Wait()
}

// Scenarios 33, 38 and 34: callers of Acquire and tasks stand in one line; one
// that gives up in the middle changes nothing for the others.
func TestAcquireStandsInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}})
		c := newCallers(m)
		c.call("one", holder)
		c.call("two", holder)
		task := launch(t, m, asks("p", "m/x", "three"))
		c.call("four", holder)
		c.call("five", holder)
		require.Equal(t, []string{"one"}, c.got)
		require.Equal(t, 2, task.Position)

		why := errors.New("no longer needed")
		c.off["four"](why)
		synctest.Wait()
		require.ErrorIs(t, c.err["four"], why)
		c.release("one")
		require.Equal(t, []string{"one", "two"}, c.got)
		require.Equal(t, 1, get(t, m, task.ID).Position)
		c.release("two")
		require.Equal(t, []string{"three"}, s.now())
		s.end("three")
		require.Equal(t, []string{"one", "two", "five"}, c.got)
		c.release("five")
		require.Empty(t, m.queues())
		require.Empty(t, m.limits())
	})
}

// Scenario 34: a lease goes from one to the next inside Release, so that not even
// its last owner can take it before the one who waits.
func TestReleaseHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}})
		first := acquire(t, m, holder)
		task := launch(t, m, asks("p", "m/x", "next"))
		require.Equal(t, Pending, task.Status)
		first.Release()
		require.NotEqual(t, Pending, get(t, m, task.ID).Status, "no goroutine had to run for this") // one may have made it Running
	})
	for range 200 {
		synctest.Test(t, func(t *testing.T) { // the same against newcomers
			m := newManager(t, &stub{}, Config{Keys: KeyLimits{Default: 1}})
			c := newCallers(m)
			c.call("holds", holder)
			c.call("waits", holder)
			go c.has["holds"].Release()
			c.call("newcomer", holder)
			require.Equal(t, []string{"holds", "waits"}, c.got)
			c.release("waits")
			c.release("newcomer")
		})
	}
}

// Scenario 36: a lease that is released twice, or by many at the same time, frees
// one place.
func TestReleaseCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{Keys: KeyLimits{Default: 2, Global: 2, PerParent: 2}})
		mine, other := acquire(t, m, holder), acquire(t, m, holder)
		c := newCallers(m)
		c.call("one", holder)
		c.call("two", holder)
		together(20, mine.Release)
		synctest.Wait()
		require.Equal(t, []string{"one"}, c.got)
		mine.Release()
		synctest.Wait()
		require.Equal(t, []string{"one"}, c.got)
		require.NoError(t, m.CheckBooks([]*Lease{other, c.has["one"]}, nil))
		other.Release()
		synctest.Wait()
		c.release("one")
		c.release("two")
	})
}

// Scenario 39: a caller gives up in the instant in which the place is handed to
// it. It has the lease or the next in line does; never both, never nobody.
func TestAcquireCancelledWhileGranted(t *testing.T) {
	outcomes := map[bool]int{}
	for range 1000 {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, &stub{}, Config{Keys: KeyLimits{Default: 1}})
			c := newCallers(m)
			c.call("holds", holder)
			c.call("wavers", holder)
			c.call("next", holder)
			var g sync.WaitGroup
			g.Go(c.has["holds"].Release)
			g.Go(func() { c.off["wavers"](nil) })
			g.Wait()
			synctest.Wait()
			require.Len(t, c.got, 2)
			taken := c.got[1] == "wavers"
			outcomes[taken]++
			if taken {
				require.Empty(t, c.err)
				c.release("wavers")
			} else {
				require.ErrorIs(t, c.err["wavers"], context.Canceled)
			}
			require.Equal(t, "next", c.got[len(c.got)-1])
			c.release("next")
			require.Empty(t, m.waiters)
			require.Empty(t, m.limits())
		})
	}
	t.Logf("taken: %d, given up: %d", outcomes[true], outcomes[false])
}

// Scenario 37: a thousand callers come, give up and give back at random times,
// beside tasks that are launched and cancelled; then nothing is held, nobody
// waits, and as many as the limits allow run at once.
func TestAcquireByAThousand(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			const limit = 8
			m := newManager(t, &stub{}, Config{
				Keys:  KeyLimits{Default: limit, Global: 2 * limit, PerParent: limit, Providers: map[string]int{"m": limit + 2}},
				Spawn: SpawnLimits{LivePerRoot: Off},
			})
			var got, gaveUp, inside atomic.Int64
			var g sync.WaitGroup
			for i := range 1000 {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				g.Go(func() {
					time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(100))*time.Millisecond)
					defer cancel()
					h := Holder{Parent: []SessionID{"", "p", "q", "r"}[r.IntN(4)], Agent: "worker", Model: []string{"m/x", "m/y", "n/x", ""}[r.IntN(4)]}
					if r.IntN(5) == 0 {
						task, err := m.Launch(ctx, LaunchInput{Parent: h.Parent, Agent: h.Agent, Model: h.Model, Prompt: "x", NoNotice: true})
						if err == nil && r.IntN(2) == 0 {
							_, _ = m.Cancel(t.Context(), task.ID, CancelOptions{})
						}
						return
					}
					l, err := m.Acquire(ctx, h)
					if err != nil {
						gaveUp.Add(1)
						return
					}
					got.Add(1)
					if n := inside.Add(1); n > 2*limit {
						t.Errorf("%d hold a lease under a global limit of %d", n, 2*limit)
					}
					time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
					inside.Add(-1)
					l.Release()
					if r.IntN(2) == 0 {
						l.Release()
					}
				})
			}
			g.Wait()
			pass(time.Second)
			require.Positive(t, got.Load())
			require.Positive(t, gaveUp.Load())
			require.Zero(t, m.global.held)
			require.Empty(t, m.waiters)
			require.Empty(t, m.queues())
			require.Empty(t, m.limits())
			require.NoError(t, m.CheckBooks(nil, nil))

			var batch []*Lease
			now, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
			defer cancel()
			for i := range 2 * limit {
				l, err := m.Acquire(now, Holder{Parent: []SessionID{"p", "q"}[i%2], Agent: "worker", Model: []string{"m/x", "n/x"}[i%2]})
				require.NoError(t, err)
				batch = append(batch, l)
			}
			require.NoError(t, m.CheckBooks(batch, nil))
			for _, l := range batch {
				l.Release()
			}
		})
	}
}

// Scenario 16's kin for leases: what is refused holds nothing.
func TestAcquireRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{Keys: KeyLimits{Default: 1}})
		before := inventory(m)
		_, err := m.Acquire(t.Context(), Holder{Agent: " '' "})
		wrong("Holder.Agent", `" '' "`, "a name is required")(t, err)
		_, err = m.Acquire(t.Context(), Holder{Agent: "a", Model: "x/"})
		wrong("Holder.Model", `"x/"`, modelRule)(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		cancel(why)
		_, err = m.Acquire(ctx, holder)
		require.ErrorIs(t, err, why)
		require.Equal(t, before, inventory(m))

		held := acquire(t, m, holder)
		waiting := inventory(m)
		late, cancel2 := context.WithTimeout(t.Context(), time.Minute)
		defer cancel2()
		_, err = m.Acquire(late, holder)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		after := inventory(m)
		delete(waiting, "seq")
		delete(after, "seq")
		require.Equal(t, waiting, after)
		held.Release()

		c := newCallers(m)
		c.call("holds", holder)
		c.call("waits", holder)
		require.NoError(t, m.Close())
		synctest.Wait()
		require.ErrorIs(t, c.err["waits"], ErrClosed)
		_, err = m.Acquire(t.Context(), holder)
		require.ErrorIs(t, err, ErrClosed)
		c.release("holds")
	})
}

// An Acquire falls under the same limits as a task of the same parent, agent and
// model; without a parent under no parent's cap.
func TestAcquireCountsUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{
			Default: 9, PerParent: 1, Global: 6, Providers: map[string]int{"m": 4}, Agents: map[string]int{"worker": 5},
		}})
		l := acquire(t, m, holder)
		require.Equal(t, Pending, launch(t, m, work("p")).Status)
		free := Holder{Agent: "'worker'", Model: "m/x"}
		more := []*Lease{acquire(t, m, free), acquire(t, m, free), acquire(t, m, free)}
		require.Equal(t, map[Key]int{
			{ModelKey, "m/x"}: 4, {ProviderKey, "m"}: 4, {AgentTotalKey, "worker"}: 4,
			{ParentKey, "p"}: 1, {Kind: GlobalKey}: 4,
		}, held(m))
		c := newCallers(m)
		c.call("fifth", free)
		require.Empty(t, c.got, "the provider is full")
		l.Release()
		synctest.Wait()
		require.Equal(t, []string{"fifth"}, c.got)
		c.release("fifth")
		for _, l := range more {
			l.Release()
		}
	})
}

// A holder is named as a task is: by an alias, in quotes, with space around the
// model, or with the model of its agent. It counts under the same limits.
func TestAcquireResolvesNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{Agents: map[string]Agent{"explore": {Aliases: []string{"find"}}, "other": {Model: "m/y"}}, Keys: KeyLimits{Agents: map[string]int{"explore": 2}}})
		plain := acquire(t, m, Holder{Agent: "`explore`"})
		defer plain.Release()
		alias := acquire(t, m, Holder{Agent: "find"})
		defer alias.Release()
		spaced := acquire(t, m, Holder{Agent: "other", Model: " m/x "})
		defer spaced.Release()
		configured := acquire(t, m, Holder{Agent: "other"})
		defer configured.Release()
		require.Equal(t, map[Key]int{
			{AgentKey, "explore"}: 2, {AgentTotalKey, "explore"}: 2, {ModelKey, "m/x"}: 1, {ModelKey, "m/y"}: 1,
		}, held(m))
	})
}

// A holder creates no session: the cap on starts is nothing to it.
func TestAcquireNeedsNoStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{create: func(ctx context.Context, _ CreateRequest) (SessionID, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}}, Config{Keys: KeyLimits{Starts: 1}})
		launch(t, m, work("p"))
		require.Equal(t, Pending, launch(t, m, asks("p", "m/x", "x")).Status)
		now, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		l, err := m.Acquire(now, Holder{Agent: "worker", Model: "m/y"})
		require.NoError(t, err)
		l.Release()
	})
}

// held is what is held by key, as Stats tells it.
func held(m *BackgroundManager) map[Key]int {
	h := map[Key]int{}
	for _, k := range m.Stats().Keys {
		if k.Held > 0 {
			h[k.Key] = k.Held
		}
	}
	return h
}

// Who waits in Acquire is among those that QueueDepth counts, and is never refused by it.
func TestAcquireCountsInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: 1}, Spawn: SpawnLimits{QueueDepth: 1}})
		launch(t, m, taking("p", "1s"))
		for range 2 {
			go func() {
				lease, err := m.Acquire(t.Context(), Holder{Agent: "worker"})
				if assert.NoError(t, err) {
					lease.Release()
				}
			}()
		}
		synctest.Wait()
		_, err := m.Launch(t.Context(), taking("p", "1s"))
		require.ErrorIs(t, err, ErrQueueFull)
		require.ErrorContains(t, err, "Config.Spawn.QueueDepth is 1, and 2 wait for agent:worker")
		pass(2 * time.Second)
	})
}
