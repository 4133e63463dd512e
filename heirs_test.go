package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Above the child of a task that has no parent there may be nobody left to tell: what
// it ends with is dropped, and counted.
func TestNobodyIsLeftToTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		in := taking("", "1s")
		in.NoNotice = true
		above := launch(t, m, in)
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, above.ID).Session, "5s"))
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, below.ID).Status)
		require.Empty(t, box.all())
		require.Equal(t, 1, m.Stats().Notices.Dropped)
		require.Zero(t, m.Pending(""))
	})
}

// A session that answers Gone after its task has ended takes nothing along: what was
// in the call and what was in no call yet both go to the parent above.
func TestNoticesOfAGoneChildGoUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var child SessionID
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			if n.Parent == child {
				time.Sleep(5 * time.Second)
				return Gone, nil
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box})
		above := launch(t, m, taking("p", "3s"))
		synctest.Wait()
		child = get(t, m, above.ID).Session
		first := launch(t, m, taking(child, "1s"))
		second := launch(t, m, taking(child, "2s")) // in no call when the session goes
		pass(time.Minute)
		require.Equal(t, []TaskID{first.ID}, toldTo(child, box.all()))
		require.ElementsMatch(t, []TaskID{above.ID, first.ID, second.ID}, toldTo("p", box.all()))
		require.Zero(t, m.Stats().Notices.Dropped)
		require.Zero(t, m.Pending(child))
	})
}

// The children that a notice counts as left running are those that run on: a task that
// fails takes its own along, one that waits and one that runs.
func TestFailedTaskLeavesNoneRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		c := timed()
		c.abort = func(context.Context, SessionID) error { time.Sleep(time.Second); return nil }
		counting := c.prompt
		c.prompt = func(ctx context.Context, id SessionID, p Prompt) (Result, error) {
			if p.Text == "nothing" {
				time.Sleep(time.Second)
				return Result{}, nil
			}
			return counting(ctx, id, p)
		}
		m := newManager(t, c, Config{Notifier: box, Keys: KeyLimits{Default: 2}})
		above := launch(t, m, taking("p", "nothing"))
		synctest.Wait()
		session := get(t, m, above.ID).Session
		below := []Task{launch(t, m, taking(session, "1h")), launch(t, m, taking(session, "1h"))}
		require.Equal(t, []Status{Starting, Pending}, []Status{below[0].Status, below[1].Status})
		ended, err := m.Wait(t.Context(), above.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, NoOutput)
		require.Equal(t, 1, ended.OpenChildren, "the one that ran is coming to rest, also when its parent is told")
		pass(time.Minute)
		for _, task := range below {
			require.ErrorIs(t, get(t, m, task.ID).Reason, ParentGone)
		}
		require.Equal(t, []TaskID{above.ID}, toldTo("p", box.all()))
		require.Len(t, box.all(), 1, "those that end with their ancestor hold no batch open")
		require.True(t, box.all()[0].Final)
		require.Zero(t, box.all()[0].Notices[0].Open)
		for _, n := range box.all() {
			require.NotContains(t, n.Text, "of its own running")
		}
	})
}

// What a child that completed left running counts with those that its parent will be
// told of: only the last of them makes a notification final.
func TestInheritedTasksKeepTheBatchOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		above := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, above.ID).Session
		for _, d := range []string{"10s", "20s", "30s"} {
			launch(t, m, taking(session, d))
		}
		pass(5 * time.Second)
		require.Equal(t, 3, m.Pending("p").Live)
		require.Equal(t, 3, box.all()[0].Notices[0].Open)
		pass(time.Minute)
		got := box.all()
		require.Len(t, got, 4)
		for i, n := range got {
			require.Equal(t, SessionID("p"), n.Parent)
			require.Equal(t, 3-i, n.Remaining)
			require.Equal(t, i == 3, n.Final)
			require.Equal(t, i == 3, n.Wake)
		}
	})
}
