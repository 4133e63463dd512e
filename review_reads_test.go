package subagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// "Task is … a value, safe to keep and to change." All who waited for a run get the
// same maps, slices and Reason.
func TestReviewWaitersShareOneTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{})
		defer m.Close()
		in := reviewAsks("p", "1h")
		in.Labels = map[string]string{"kind": "a"}
		task := reviewLaunch(t, m, in)
		var tasks [2]subagent.Task
		var g sync.WaitGroup
		for i := range tasks {
			g.Go(func() { tasks[i], _ = m.Wait(t.Context(), task.ID) })
		}
		synctest.Wait()
		mine, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.NoError(t, err)
		g.Wait()
		mine.Labels["kind"] = "mine"
		mine.Reason.Code = subagent.Budget
		mine.Attempts[0].Number = 99
		for _, other := range tasks {
			require.Equal(t, "a", other.Labels["kind"])
			require.Equal(t, subagent.ByUser, other.Reason.Code)
			require.Equal(t, 1, other.Attempts[0].Number)
		}
	})
}

// The same as a data race: go test -race. Without it the runtime may say "concurrent
// map writes", which nobody can recover from.
func TestReviewWaitersRace(t *testing.T) {
	m := reviewNew(t, &reviewClient{prompt: func(ctx context.Context, _ subagent.SessionID, _ subagent.Prompt) (subagent.Result, error) {
		<-ctx.Done()
		return subagent.Result{}, ctx.Err()
	}}, subagent.Config{})
	defer m.Close()
	in := reviewAsks("p", "work")
	in.Labels = map[string]string{"kind": "a"}
	task := reviewLaunch(t, m, in)
	var g, ready sync.WaitGroup
	for i := range 2 {
		ready.Add(1)
		g.Go(func() {
			ready.Done()
			mine, _ := m.Wait(context.Background(), task.ID)
			mine.Attempts[0].Number = i
		})
	}
	ready.Wait()
	_, _ = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
	g.Wait()
}

// WaitAll returns tasks "once none of them is live, counting those launched
// meanwhile"; one launched between its last look and its list is returned live.
func TestReviewWaitAllReturnsLiveTasks(t *testing.T) {
	m := reviewNew(t, &reviewClient{}, subagent.Config{
		Keys: subagent.KeyLimits{Default: subagent.Off}, Spawn: subagent.SpawnLimits{LivePerRoot: subagent.Off},
	})
	defer m.Close()
	deadline := time.Now().Add(time.Second)
	for i := 0; time.Now().Before(deadline); i++ {
		parent := subagent.SessionID(fmt.Sprint("p", i))
		var g sync.WaitGroup
		g.Go(func() {
			for range 20 {
				_, _ = m.Launch(context.Background(), reviewAsks(parent, "work"))
			}
		})
		for range 20 {
			tasks, err := m.WaitAll(t.Context(), subagent.Filter{Parent: parent})
			require.NoError(t, err)
			for _, task := range tasks {
				if !task.Status.Terminal() {
					g.Wait()
					t.Fatalf("in round %d WaitAll returned task %d of %d, which is %s", i, len(tasks), len(tasks), task.Status)
				}
			}
		}
		g.Wait()
	}
}

// A filter's Limit and After are "in List"; the waits refuse them, and CancelAll
// takes them and cancels everything.
func TestReviewCancelAllIgnoresLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{})
		defer m.Close()
		var last subagent.Task
		for range 3 {
			last = reviewLaunch(t, m, reviewAsks("p", "1h"))
		}
		ended, err := m.CancelAll(t.Context(), subagent.Filter{Parent: "p", After: last.ID, Limit: 1}, subagent.CancelOptions{})
		if err == nil {
			require.Empty(t, ended, "nothing was launched after the last, and at most one was named")
		}
	})
}

// Filter.Under is "tasks below this session, at any depth", and in CancelAll "names all
// the descendants of a session". A session that the client's LineageResolver put
// between a task and its root is not found, although the walk went through it.
func TestReviewUnderASessionOfTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		above := map[subagent.SessionID]subagent.SessionID{"c": "b", "b": "a"}
		c := &reviewClient{prompt: takes, parentOf: func(s subagent.SessionID) (subagent.SessionID, error) { return above[s], nil }}
		m := reviewNew(t, c, subagent.Config{})
		defer m.Close()
		task := reviewLaunch(t, m, reviewAsks("c", "1h"))
		require.Equal(t, subagent.SessionID("a"), task.Root)
		for _, s := range []subagent.SessionID{"a", "c", "b"} {
			require.Len(t, m.List(subagent.Filter{Under: s}), 1, "under %q", s)
		}
	})
}

// Admit "has the last word on a launch", and is shown one without its limits.
func TestReviewAdmitSeesNoLimits(t *testing.T) {
	var seen *subagent.TaskLimits
	m := reviewNew(t, &reviewClient{}, subagent.Config{Admit: func(_ context.Context, in subagent.LaunchInput, _ subagent.Lineage) error {
		seen = in.Limits
		return nil
	}})
	defer m.Close()
	in := reviewAsks("p", "work")
	in.Limits = &subagent.TaskLimits{ResultBytes: 1 << 40}
	reviewLaunch(t, m, in)
	require.NotNil(t, seen)
}

// Status can be read back from its text, so the records are meant to be; Key can't,
// and so neither a Task nor a KeyStats can.
func TestReviewTaskCannotBeReadBack(t *testing.T) {
	want := subagent.Task{ID: "bg_1", Status: subagent.Completed, Key: subagent.Key{Kind: subagent.ModelKey, Name: "p/m"}}
	text, err := json.Marshal(want)
	require.NoError(t, err)
	var got subagent.Task
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)
}
