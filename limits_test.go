package subagent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// descend launches a chain of tasks, each from within the one before, and returns
// them as they run.
func descend(t *testing.T, m *BackgroundManager, from SessionID, levels int) (chain []Task) {
	t.Helper()
	for range levels {
		task := launch(t, m, work(from))
		synctest.Wait()
		task = get(t, m, task.ID)
		require.Equal(t, Running, task.Status)
		chain, from = append(chain, task), task.Session
	}
	return chain
}

// Scenario C037: the limit per root holds over the whole tree; by default the
// 65th live descendant is refused, and the error names the limit.
func TestLivePerRootCountsTheTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{})
		chain := descend(t, m, "p", 2)
		for i := range 62 {
			launch(t, m, work([]SessionID{"p", chain[0].Session, chain[1].Session}[i%3]))
		}
		for _, parent := range []SessionID{"p", chain[0].Session, chain[1].Session} {
			_, err := m.Launch(t.Context(), work(parent))
			limited(LimitError{
				Kind: ErrSpawnLimit, Setting: "Config.Spawn.LivePerRoot", Limit: 64, Used: 64, Parent: parent, Root: "p",
			})(t, err)
		}
		launch(t, m, work("q"))
	})
}

// Scenario C047: a session at the depth limit may not launch; no session is made.
func TestDepthLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		m := newManager(t, c, Config{})
		chain := descend(t, m, "p", 3)
		for i, task := range chain {
			require.Equal(t, i+1, task.Depth)
			require.Equal(t, SessionID("p"), task.Root)
		}
		_, err := m.Launch(t.Context(), work(chain[2].Session))
		limited(LimitError{
			Kind: ErrDepthLimit, Setting: "Config.Spawn.Depth", Limit: 3, Used: 4, Parent: chain[2].Session, Root: "p",
		})(t, err)
		synctest.Wait()
		require.EqualValues(t, 3, c.creates.Load())
	})
}

func TestDepthOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Spawn: SpawnLimits{Depth: Off, LivePerRoot: Off}, Keys: KeyLimits{Default: Off}})
		require.Equal(t, 100, descend(t, m, "p", 100)[99].Depth)
	})
}

// Scenario 19, and L12: launches and reservations that come at the same instant
// share a limit exactly, also when all of them have to ask the client first.
func TestSpawnLimitIsExact(t *testing.T) {
	for _, where := range []SessionID{"p", "foreign"} {
		synctest.Test(t, func(t *testing.T) {
			const most, ask = 5, 60
			c := &ancestry{stub: stub{prompt: hang}, parent: func(_ context.Context, id SessionID) (SessionID, error) {
				time.Sleep(time.Second)
				return map[SessionID]SessionID{"foreign": "p"}[id], nil
			}}
			m := newManager(t, c, Config{Spawn: SpawnLimits{LivePerRoot: most, TotalPerRoot: most}})
			var accepted atomic.Int64
			var reserved sync.Map
			var g sync.WaitGroup
			for i := range ask {
				g.Go(func() {
					var err error
					if i%2 == 0 {
						_, err = m.Launch(t.Context(), work(where))
					} else {
						var r *Reservation
						if r, err = m.Reserve(t.Context(), where); err == nil {
							reserved.Store(r, nil)
						}
					}
					if err == nil {
						accepted.Add(1)
					} else if !errors.Is(err, ErrSpawnLimit) {
						t.Error(err)
					}
				})
			}
			g.Wait()
			require.EqualValues(t, most, accepted.Load())
			require.Equal(t, most, m.roots["p"].live)
			reserved.Range(func(r, _ any) bool { r.(*Reservation).Release(); return true })
		})
	}
}

// Scenario 21: what a task in the queue had reserved is free when it is cancelled.
func TestCancelInQueueGivesThePlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}, Spawn: SpawnLimits{LivePerRoot: 2}})
		launch(t, m, work("p"))
		for range 100 {
			task := launch(t, m, work("p"))
			require.ErrorIs(t, m.CanLaunch(t.Context(), work("p")), ErrSpawnLimit)
			_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			require.NoError(t, err)
		}
		require.Equal(t, 1, m.roots["p"].live)
	})
}

// Scenario 22: of three siblings one can't be created; one place comes back.
func TestFailedCreateGivesOnePlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			if c.creates.Load() == 2 {
				return "", errors.New("no")
			}
			return c.id(), nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Starts: 1}, Spawn: SpawnLimits{LivePerRoot: 3}})
		for range 3 {
			launch(t, m, work("p"))
		}
		synctest.Wait()
		require.Equal(t, map[Status]int{Running: 2, Failed: 1}, m.Stats().Tasks)
		require.Equal(t, 2, m.roots["p"].live)
		launch(t, m, work("p"))
		require.ErrorIs(t, m.CanLaunch(t.Context(), work("p")), ErrSpawnLimit)
	})
}

// Scenarios 23 and 24: a reservation counts like a task until it is given back,
// and giving it back counts once, whichever way and from wherever.
func TestReservation(t *testing.T) {
	give := map[string]func(*Reservation){
		"release":          func(r *Reservation) { r.Release() },
		"rollback":         func(r *Reservation) { r.Rollback() },
		"release twice":    func(r *Reservation) { r.Release(); r.Release() },
		"rollback twice":   func(r *Reservation) { r.Rollback(); r.Rollback() },
		"release first":    func(r *Reservation) { r.Release(); r.Rollback() },
		"rollback first":   func(r *Reservation) { r.Rollback(); r.Release() },
		"at the same time": func(r *Reservation) { together(20, r.Release) },
	}
	for name, back := range give {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, &stub{prompt: hang}, Config{Spawn: SpawnLimits{LivePerRoot: 4, TotalPerRoot: 10}})
				child := descend(t, m, "p", 1)[0]
				other, err := m.Reserve(t.Context(), "p")
				require.NoError(t, err)
				require.Equal(t, Lineage{Parent: "p", Root: "p", Depth: 1}, other.Lineage)
				r, err := m.Reserve(t.Context(), child.Session)
				require.NoError(t, err)
				require.Equal(t, Lineage{Parent: child.Session, Root: "p", Depth: 2}, r.Lineage)
				require.NoError(t, m.CheckBooks(nil, map[SessionID]int{"p": 2}))
				require.Equal(t, root{"p", 3, 3}, *m.roots["p"])

				back(r)
				total := 3
				if strings.HasPrefix(name, "rollback") {
					total = 2
				}
				require.Equal(t, root{"p", 2, total}, *m.roots["p"])
				require.NoError(t, m.CheckBooks(nil, map[SessionID]int{"p": 1}))
				other.Rollback()
			})
		})
	}
}

// together calls f in so many goroutines at the same time.
func together(n int, f func()) {
	var g sync.WaitGroup
	for range n {
		g.Go(f)
	}
	g.Wait()
}

// Reserve is refused as a launch would be, and a root that counts nothing is
// forgotten.
func TestReserveRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Spawn: SpawnLimits{Depth: 1, LivePerRoot: 1}})
		_, err := m.Reserve(t.Context(), "")
		wrong("parent", `""`, "a session is required")(t, err)
		r, err := m.Reserve(t.Context(), "p")
		require.NoError(t, err)
		_, err = m.Reserve(t.Context(), "p")
		require.ErrorIs(t, err, ErrSpawnLimit)
		_, err = m.Launch(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrSpawnLimit)
		r.Release()
		require.Empty(t, m.roots)

		task := descend(t, m, "p", 1)[0]
		_, err = m.Reserve(t.Context(), task.Session)
		require.ErrorIs(t, err, ErrDepthLimit)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, parent := range []SessionID{"p", "q"} { // one that is known, and one that is not
			_, err = m.Reserve(ctx, parent)
			require.ErrorIs(t, err, context.Canceled)
		}
		_, err = m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		_, err = m.Reserve(t.Context(), task.Session)
		require.ErrorIs(t, err, ErrParentEnded)
		require.NoError(t, m.Close())
		_, err = m.Reserve(t.Context(), "p")
		require.ErrorIs(t, err, ErrClosed)
	})
}

// The limit on all that a root ever launches outlives the tasks; a reservation
// that was rolled back never counted.
func TestTotalPerRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Func(echo), Config{Spawn: SpawnLimits{TotalPerRoot: 3}})
		for range 2 {
			_, err := m.Do(t.Context(), work("p"))
			require.NoError(t, err)
		}
		r, err := m.Reserve(t.Context(), "p")
		require.NoError(t, err)
		_, err = m.Do(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrSpawnLimit)
		r.Rollback()
		inner, err := m.Do(t.Context(), work(m.List(Filter{})[1].Session))
		require.NoError(t, err)
		require.Equal(t, SessionID("p"), inner.Root)
		_, err = m.Do(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrSpawnLimit)
		require.Equal(t, root{"p", 0, 3}, *m.roots["p"])
		_, err = m.Do(t.Context(), work("q"))
		require.NoError(t, err)
	})
}

// A launch without a parent is a root of its own: it takes nothing from others,
// and what descends from it is limited under it.
func TestParentlessLaunches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alone := LaunchInput{Agent: "worker", Prompt: "x", NoNotice: true}
		c := &ancestry{stub: stub{prompt: hang}, parent: func(_ context.Context, id SessionID) (SessionID, error) {
			return map[SessionID]SessionID{"foreign": "ses_1"}[id], nil
		}}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: 3, TotalPerRoot: 4}})
		first := launch(t, m, alone)
		synctest.Wait()
		require.Equal(t, 1, first.Depth)
		require.Empty(t, first.Root)
		for range 10 {
			launch(t, m, alone)
		}
		session := get(t, m, first.ID).Session
		require.Equal(t, SessionID("ses_1"), session)
		child := launch(t, m, work(session))
		require.Equal(t, 2, child.Depth)
		below := launch(t, m, work("foreign"))
		require.Equal(t, 3, below.Depth)
		for _, parent := range []SessionID{session, "foreign"} {
			_, err := m.Launch(t.Context(), work(parent))
			require.ErrorIs(t, err, ErrSpawnLimit, parent)
		}
		_, err := m.Cancel(t.Context(), child.ID, CancelOptions{})
		require.NoError(t, err)
		launch(t, m, work("foreign"))
		_, err = m.Cancel(t.Context(), below.ID, CancelOptions{})
		require.NoError(t, err)
		_, err = m.Launch(t.Context(), work(session))
		limited(LimitError{Kind: ErrSpawnLimit, Setting: "Config.Spawn.TotalPerRoot", Limit: 4, Used: 4, Parent: session})(t, err)
		require.Empty(t, m.roots)
	})
}

// A parent that completed may launch on, as a resumed session does; one that
// failed or was cancelled may not, nor may a session below it.
func TestParentEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &ancestry{parent: func(_ context.Context, id SessionID) (SessionID, error) {
			return map[SessionID]SessionID{"below ses_1": "ses_1", "below ses_2": "ses_2"}[id], nil
		}}
		c.prompt = func(ctx context.Context, id SessionID, p Prompt) (Result, error) {
			switch p.Text {
			case "fail":
				return Result{}, &SessionError{Op: "prompt", Class: ClassQuota}
			case "hang":
				return hang(ctx, id, p)
			}
			return Result{Text: "ok"}, nil
		}
		m := newManager(t, c, Config{})
		end := func(prompt string) Task {
			task := launch(t, m, asks("p", "", prompt))
			synctest.Wait()
			return get(t, m, task.ID)
		}
		completed, failed := end("ok"), end("fail")
		require.Equal(t, Completed, completed.Status)
		require.Equal(t, Failed, failed.Status)
		for _, parent := range []SessionID{completed.Session, "below ses_1"} {
			require.Equal(t, SessionID("p"), launch(t, m, work(parent)).Root)
		}
		for _, parent := range []SessionID{failed.Session, "below ses_2"} {
			_, err := m.Launch(t.Context(), work(parent))
			require.ErrorIs(t, err, ErrParentEnded)
			require.ErrorContains(t, err, string(failed.ID)+" is failed")
		}
		require.NoError(t, m.CheckBooks(nil, nil))
	})
}
