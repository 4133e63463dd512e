package subagent

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Faults that other systems of this kind had, by the number under which
// docs/scenarios.md lists them. More of them stand beside the code they are about.

// L1, a lost wake-up. The last one in a queue was cancelled while the queue's loop
// waited for a slot; the loop kept the old list, later launches went to a new one,
// and nobody served that.
func TestL01LostWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, asks("p", "m/x", "running"))
		last := launch(t, m, asks("p", "m/x", "last"))
		_, err := m.Cancel(t.Context(), last.ID, CancelOptions{})
		require.NoError(t, err)
		launch(t, m, asks("p", "m/x", "later"))
		s.end("running")
		require.Equal(t, []string{"later"}, s.now())
	})
	for seed := range uint64(300) { // and however the three fall together
		synctest.Test(t, func(t *testing.T) {
			s := newStage()
			m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1, Global: 1, PerParent: 1}})
			launch(t, m, asks("p", "m/x", "running"))
			last := launch(t, m, asks("p", "m/x", "last"))
			synctest.Wait()
			steps := []func(){
				func() { s.let("running") },
				func() { _, _ = m.Cancel(t.Context(), last.ID, CancelOptions{}) },
				func() { _, _ = m.Launch(t.Context(), asks("p", "m/x", "later")) },
				func() { _ = m.SetLimit(Key{Kind: ParentKey}, Off) },
			}
			rand.New(rand.NewPCG(seed, 0)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
			var g sync.WaitGroup
			for _, step := range steps {
				g.Go(step)
			}
			g.Wait()
			require.Equal(t, []string{"later"}, s.now())
			require.NoError(t, m.CheckBooks(nil, nil))
		})
	}
}

// L2, a start that failed left its task pending for good, and the parent waited.
func TestL02FailedStartIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		boom := errors.New("boom")
		c := &stub{create: func(context.Context, CreateRequest) (SessionID, error) { return "", boom }}
		m := newManager(t, c, Config{Notifier: box, Keys: KeyLimits{Default: 1}})
		first, second := launch(t, m, work("p")), launch(t, m, work("p"))
		pass(time.Second)
		require.Len(t, box.all(), 1)
		n := box.all()[0]
		require.True(t, n.Final)
		require.True(t, n.Wake)
		require.Len(t, n.Notices, 2)
		for i, task := range []Task{first, second} {
			require.Equal(t, task.ID, n.Notices[i].Task)
			require.Equal(t, Failed, n.Notices[i].Status)
			require.ErrorIs(t, n.Notices[i].Reason, boom)
		}
		require.Zero(t, m.Pending("p"))
	})
}

// nursery counts children that live: from the return of Create until their turn is
// over or their Abort has returned.
type nursery struct {
	stub
	mu    sync.Mutex
	alive map[SessionID]bool
	most  int
}

func (n *nursery) set(id SessionID, alive bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.alive[id] = alive; !alive {
		delete(n.alive, id)
	}
	n.most = max(n.most, len(n.alive))
}

// L6, a time-out freed the slot and left the child to itself, so that more of them
// lived than the limit allowed. Here whatever ends a child stops it first, also one
// whose session came after its time was up.
func TestL06StoppedBeforeTheSlotIsFree(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			const limit = 2
			r, mu := rand.New(rand.NewPCG(seed, 0)), sync.Mutex{}
			upTo := func(d time.Duration) {
				mu.Lock()
				d = time.Duration(r.Int64N(int64(d)))
				mu.Unlock()
				time.Sleep(d)
			}
			n := &nursery{alive: map[SessionID]bool{}}
			n.create = func(context.Context, CreateRequest) (SessionID, error) {
				upTo(2 * time.Second) // whatever its context says
				id := n.id()
				n.set(id, true)
				return id, nil
			}
			n.prompt = func(ctx context.Context, id SessionID, _ Prompt) (Result, error) {
				<-ctx.Done() // and that is after Abort
				return Result{}, ctx.Err()
			}
			n.abort = func(_ context.Context, id SessionID) error {
				upTo(5 * time.Second)
				n.set(id, false)
				return nil
			}
			m := newManager(t, n, Config{Keys: KeyLimits{Default: limit}, Task: TaskLimits{Start: time.Second}})
			var all []Task
			for range 20 {
				all = append(all, launch(t, m, work("p")))
			}
			for _, task := range all {
				upTo(3 * time.Second)
				_, _ = m.Cancel(t.Context(), task.ID, CancelOptions{})
			}
			_, err := m.WaitAll(t.Context(), Filter{})
			require.NoError(t, err)
			pass(time.Minute)
			require.Empty(t, n.alive)
			require.Positive(t, n.most)
			require.LessOrEqual(t, n.most, limit)
			require.Zero(t, m.Stats().Unstopped)
		})
	}
}

// L8, one loop per key started its tasks one after the other: ten creations of
// 50 ms took half a second, and one that hung blocked its key for good.
func TestL08SerialStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		c.create = func(ctx context.Context, _ CreateRequest) (SessionID, error) {
			if c.creates.Load() == 1 {
				<-ctx.Done()
				return "", ctx.Err()
			}
			time.Sleep(50 * time.Millisecond)
			return c.id(), nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 11}})
		stuck := launch(t, m, work("p"))
		synctest.Wait()
		for range 10 {
			launch(t, m, work("p"))
		}
		pass(50 * time.Millisecond)
		require.Equal(t, map[Status]int{Starting: 1, Running: 10}, m.Stats().Tasks)
		waits := launch(t, m, work("p"))
		pass(time.Minute)
		require.ErrorIs(t, get(t, m, stuck.ID).Reason, StartTimeout)
		require.Equal(t, Running, get(t, m, waits.ID).Status)
	})
}

// L9, the clock that timed out what waited was wound only by what ran, so that
// with nothing running nothing was ever timed out.
func TestL09PendingHasItsOwnClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, &stub{}, Config{Notifier: box, Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: time.Minute}})
		outside := acquire(t, m, Holder{Agent: "worker"})
		defer outside.Release()
		task := launch(t, m, work("p"))
		pass(time.Minute)
		require.ErrorIs(t, get(t, m, task.ID).Reason, QueueTimeout)
		pass(time.Second)
		require.Len(t, box.all(), 1)
	})
}

// L12, the budget was read before a wait and written after it: of three launches
// at the same time, all were accepted under a budget of one.
func TestL12BudgetIsCheckedAndTakenAtOnce(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, &stub{prompt: hang}, Config{
				Spawn: SpawnLimits{LivePerRoot: 1},
				Admit: func(context.Context, LaunchInput, Lineage) error { time.Sleep(time.Second); return nil },
			})
			var g sync.WaitGroup
			refused := make([]error, 30)
			for i := range refused {
				g.Go(func() { _, refused[i] = m.Launch(t.Context(), work("p")) })
			}
			g.Wait()
			accepted := 0
			for _, err := range refused {
				if err == nil {
					accepted++
					continue
				}
				require.ErrorIs(t, err, ErrSpawnLimit)
			}
			require.Equal(t, 1, accepted)
			require.Len(t, m.List(Filter{}), 1)
		})
	}
}

// L13, the budget of live children counted all that ever were: the fourth was
// refused under a budget of three although the others had long ended.
func TestL13BudgetIsOfTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(time.Millisecond) // none ends before all are launched
			if c.creates.Load()%5 == 0 {
				return "", errors.New("no")
			}
			return c.id(), nil
		}
		c.prompt = func(ctx context.Context, id SessionID, p Prompt) (Result, error) {
			switch c.prompts.Load() % 4 {
			case 0:
				return Result{}, errors.New("no")
			case 1:
				return hang(ctx, id, p)
			}
			return Result{Text: "ok"}, nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 2}, Spawn: SpawnLimits{LivePerRoot: 3}})
		for range 50 {
			for range 3 {
				launch(t, m, work("p"))
			}
			_, err := m.Launch(t.Context(), work("p"))
			require.ErrorIs(t, err, ErrSpawnLimit)
			pass(time.Second)
			_, err = m.CancelAll(t.Context(), Filter{Parent: "p"}, CancelOptions{})
			require.NoError(t, err)
		}
		require.Empty(t, m.roots)
		for status := Completed; status < numStatuses; status++ {
			require.Positive(t, m.Stats().Tasks[status], "no task ended %s", status)
		}
	})
}
