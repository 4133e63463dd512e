package subagent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// kin is an ancestry from a table, which notes whom it was asked for.
type kin struct {
	ancestry
	mu    sync.Mutex
	asked []SessionID
}

func kinOf(parents map[SessionID]SessionID) *kin {
	k := &kin{}
	k.prompt = hang
	k.parent = func(_ context.Context, id SessionID) (SessionID, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.asked = append(k.asked, id)
		parent, ok := parents[id]
		if !ok {
			return "", fmt.Errorf("no session %q", id)
		}
		return parent, nil
	}
	return k
}

func (k *kin) take() []SessionID {
	k.mu.Lock()
	defer k.mu.Unlock()
	asked := k.asked
	k.asked = nil
	return asked
}

// Scenarios 14 and C048: a session that nobody knows is a root, and its child has
// depth 1.
func TestLineageOfARoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []SessionClient{&stub{prompt: hang}, kinOf(map[SessionID]SessionID{"p": ""})} {
			m := newManager(t, c, Config{})
			task := launch(t, m, work("p"))
			require.Equal(t, 1, task.Depth)
			require.Equal(t, SessionID("p"), task.Root)
			require.Equal(t, SessionID("p"), task.Parent)
		}
	})
}

// Scenario 18: where a task's own session stands is in memory.
func TestLineageOfATaskIsNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kinOf(map[SessionID]SessionID{"p": ""})
		m := newManager(t, k, Config{})
		chain := descend(t, m, "p", 3)
		require.Equal(t, []SessionID{"p"}, k.take())
		require.Equal(t, SessionID("p"), chain[2].Root)
		require.Equal(t, 3, chain[2].Depth)
	})
}

// The walk from a session of the host's own goes up to a root, or to a session
// that is known, and a parent that has launched is known.
func TestLineageWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kinOf(map[SessionID]SessionID{"top": "", "mid": "top", "low": "mid", "deep": "low", "side": "mid", "under": "ses_1"})
		m := newManager(t, k, Config{Spawn: SpawnLimits{Depth: 5}})
		for _, c := range []struct {
			parent, root SessionID
			depth        int
			asked        []SessionID
		}{
			{"low", "top", 3, []SessionID{"low", "mid", "top"}},
			{"low", "top", 3, nil},
			{"deep", "top", 4, []SessionID{"deep"}},
			{"mid", "top", 2, []SessionID{"mid", "top"}},
			{"side", "top", 3, []SessionID{"side"}},
			{"ses_1", "top", 4, nil},
			{"under", "top", 5, []SessionID{"under"}},
			{"under", "top", 5, nil},
		} {
			task := launch(t, m, work(c.parent))
			require.Equal(t, c.asked, k.take(), c.parent)
			require.Equal(t, c.root, task.Root, c.parent)
			require.Equal(t, c.depth, task.Depth, c.parent)
			synctest.Wait()
		}
		require.Len(t, m.roots, 1)
		require.Equal(t, 8, m.roots["top"].live)

		// What was launched below a task ends with it.
		_, err := m.Cancel(t.Context(), m.List(Filter{})[0].ID, CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, m.List(Filter{Under: "top", Statuses: []Status{Cancelled}}), 4)
	})
}

// A capability that says it is not supported is as good as none.
func TestLineageUnsupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &ancestry{stub: stub{prompt: hang}, parent: func(context.Context, SessionID) (SessionID, error) {
			return "ignored", fmt.Errorf("wrapped: %w", errors.ErrUnsupported)
		}}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		require.Equal(t, SessionID("p"), task.Root)
		require.Equal(t, 1, task.Depth)
	})
}

// Scenario 17: a chain that bites its tail, or never ends, is refused.
func TestLineageWithoutEnd(t *testing.T) {
	endless := func(_ context.Context, id SessionID) (SessionID, error) { return id + "x", nil }
	for name, c := range map[string]SessionClient{
		"itself":  kinOf(map[SessionID]SessionID{"p": "p"}),
		"cycle":   kinOf(map[SessionID]SessionID{"p": "q", "q": "r", "r": "p"}),
		"endless": &ancestry{parent: endless},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, c, Config{Spawn: SpawnLimits{Depth: Off}})
				before := inventory(m)
				_, err := m.Launch(t.Context(), work("p"))
				require.ErrorIs(t, err, ErrLineage)
				require.ErrorIs(t, err, errLineageCycle)
				require.Equal(t, before, inventory(m))
			})
		})
	}
}

// Scenario 16: what could not be found out is refused, is not kept, and is asked
// for again; the context of Launch bounds the asking.
func TestLineageUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parents := map[SessionID]SessionID{"p": "lost"}
		k := kinOf(parents)
		m := newManager(t, k, Config{})
		for range 2 {
			_, err := m.Launch(t.Context(), work("p"))
			require.ErrorIs(t, err, ErrLineage)
			require.EqualError(t, err, `subagent: lineage unknown: session "lost", an ancestor of "p": no session "lost"`)
			require.Equal(t, []SessionID{"p", "lost"}, k.take())
		}
		_, err := m.Launch(t.Context(), work("other"))
		require.EqualError(t, err, `subagent: lineage unknown: session "other": no session "other"`)
		k.take()
		parents["lost"] = ""
		require.Equal(t, SessionID("lost"), launch(t, m, work("p")).Root)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &ancestry{parent: func(ctx context.Context, _ SessionID) (SessionID, error) {
			cancel()
			<-ctx.Done()
			return "", nil
		}}
		m := newManager(t, c, Config{})
		_, err := m.Launch(ctx, work("p"))
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, m.List(Filter{}))
	})
}

// A session of the host that stands between a task and its root is above the task:
// Filter.Under finds it there.
func TestUnderASessionOfTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, kinOf(map[SessionID]SessionID{"d": "b", "c": "b", "b": "a", "a": ""}), Config{})
		task := launch(t, m, work("c"))
		require.Equal(t, SessionID("a"), task.Root)
		for _, above := range []SessionID{"a", "b", "c"} {
			require.Len(t, m.List(Filter{Under: above}), 1, "under %q", above)
		}
		require.Empty(t, m.List(Filter{Under: "d"}))
		ended, err := m.CancelAll(t.Context(), Filter{Under: "b"}, CancelOptions{})
		require.NoError(t, err)
		require.Len(t, ended, 1)
	})
}
