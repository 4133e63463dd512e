package subagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// positions are the places of tasks, in order.
func positions(t *testing.T, m *BackgroundManager, tasks []Task) (places []int) {
	t.Helper()
	for _, task := range tasks {
		places = append(places, get(t, m, task.ID).Position)
	}
	return places
}

// Scenarios 38, 46, 53 and C034: places are in order of start; who leaves the
// middle never reaches the client, and the others keep their order.
func TestCancelMidQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}})
		var tasks []Task
		for i := range 8 {
			tasks = append(tasks, launch(t, m, asks("p", "m/x", fmt.Sprint(i))))
			time.Sleep(time.Second)
		}
		require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, positions(t, m, tasks))
		pending := m.List(Filter{Statuses: []Status{Pending}})
		require.Len(t, pending, 7)
		for i, task := range pending {
			require.Equal(t, tasks[i+1].ID, task.ID)
			require.Equal(t, i+1, task.Position)
			require.Equal(t, time.Duration(7-i)*time.Second, time.Since(task.Queued))
		}
		for _, i := range []int{4, 1, 7} { // the middle, the head, the tail
			ended, err := m.Cancel(t.Context(), tasks[i].ID, CancelOptions{})
			require.NoError(t, err)
			require.Equal(t, Cancelled, ended.Status)
			require.Zero(t, ended.Position)
			require.NoError(t, m.CheckBooks(nil, nil))
		}
		require.Equal(t, []int{0, 0, 1, 2, 0, 3, 4, 0}, positions(t, m, tasks))
		s.end("0", "2", "3", "5", "6")
		require.Equal(t, []string{"0", "2", "3", "5", "6"}, s.order())
	})
}

// Scenarios 51 and C036: a long queue is emptied from the middle outwards; places
// are right at each step, and nothing is left of it.
func TestLongQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}, Spawn: SpawnLimits{LivePerRoot: Off}})
		launch(t, m, work("p"))
		var waiting []Task
		for range 1000 {
			waiting = append(waiting, launch(t, m, work("p")))
		}
		require.Equal(t, 1000, m.Stats().Keys[0].Waiting)
		for len(waiting) > 0 {
			i := len(waiting) / 2
			_, err := m.Cancel(t.Context(), waiting[i].ID, CancelOptions{})
			require.NoError(t, err)
			waiting = slices.Delete(waiting, i, i+1)
			for j := max(i-2, 0); j < min(i+2, len(waiting)); j++ {
				require.Equal(t, j+1, get(t, m, waiting[j].ID).Position)
			}
		}
		require.Equal(t, 0, m.Stats().Keys[0].Waiting)
		require.Empty(t, m.queues())
		require.NoError(t, m.CheckBooks(nil, nil))
	})
}

// Scenarios 52 and C022: a queue that has drained is gone from the books, and the
// next task of its key starts at once all the same.
func TestDrainedQueueIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1, Providers: map[string]int{"m": 2}, PerParent: 1}})
		for round := range 3 {
			for i := range 3 {
				launch(t, m, asks("p", "m/x", fmt.Sprint(i)))
				launch(t, m, asks("q", "", fmt.Sprint("q", i)))
			}
			require.Len(t, m.queues(), 2)
			s.end("0", "q0", "1", "q1")
			require.Empty(t, m.queues())
			require.NotEmpty(t, m.limits())
			s.end("2", "q2")
			require.Empty(t, m.limits())
			require.Empty(t, m.freed)
			require.Zero(t, m.fresh.Len())
			require.Len(t, s.order(), 6*(round+1))
			pass(time.Hour)
		}
	})
}

// Scenario C023: a queue does not wait for another.
func TestQueuesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}})
		for i := range 10 {
			launch(t, m, asks("p", "m/x", fmt.Sprint(i)))
		}
		require.Equal(t, Starting, launch(t, m, asks("p", "m/y", "other")).Status)
		require.Equal(t, []string{"0", "other"}, s.now())
	})
}

// Scenario 47: ten creations of 50 ms go on at the same time.
func TestStartsAreParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(50 * time.Millisecond)
			return c.id(), nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 10}})
		for range 10 {
			launch(t, m, work("p"))
		}
		synctest.Wait()
		require.EqualValues(t, 10, c.creates.Load())
		pass(50 * time.Millisecond)
		require.Equal(t, map[Status]int{Running: 10}, m.Stats().Tasks)
	})
}

// Scenario 48: a creation that hangs keeps its own place and no other; it fails
// at the start time-out, and then its place is free too.
func TestHangingCreateBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		c := &stub{}
		c.create = func(ctx context.Context, r CreateRequest) (SessionID, error) {
			if r.Description == "stuck" {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return c.id(), nil
		}
		c.prompt = func(context.Context, SessionID, Prompt) (Result, error) {
			time.Sleep(time.Second)
			return Result{Text: "ok"}, nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 2}, Notifier: box})
		in := work("q")
		in.Description = "stuck"
		stuck := launch(t, m, in)
		for range 10 {
			launch(t, m, work("p"))
		}
		pass(10 * time.Second)
		require.Equal(t, map[Status]int{Completed: 10, Starting: 1}, m.Stats().Tasks)
		pass(49 * time.Second)
		require.Equal(t, Starting, get(t, m, stuck.ID).Status)
		pass(time.Second)
		failed := get(t, m, stuck.ID)
		require.ErrorIs(t, failed.Reason, StartTimeout)
		require.Equal(t, "1m0s", failed.Reason.Value)
		require.Equal(t, "TaskLimits.Start", failed.Reason.Setting)
		require.Empty(t, m.limits())
		pass(time.Second)
		told := box.all()[10:] // p hears of each of its ten, a second apart
		require.Len(t, told, 1)
		require.Equal(t, SessionID("q"), told[0].Parent)
		require.Equal(t, stuck.ID, told[0].Notices[0].Task)
	})
}

// Scenarios 22, C027, C029 and C033: starts that fail, each in its own way, give
// their places to the next in line.
func TestFailedStartsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			switch c.creates.Load() % 4 {
			case 0:
				return "", errors.New("no")
			case 1:
				panic("no")
			case 2:
				return "", nil
			}
			return c.id(), nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1, Global: 1, Starts: 1, PerParent: 1}})
		for range 20 {
			launch(t, m, work("p"))
		}
		synctest.Wait()
		require.Equal(t, map[Status]int{Completed: 5, Failed: 15}, m.Stats().Tasks)
		require.Empty(t, m.limits())
	})
}

// Scenario 49: the clock of what waits runs also while nothing else does. The
// notices say what the limit was, what was seen, and what changes it.
func TestQueueTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		c := &stub{prompt: hang}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}, Notifier: box, Task: TaskLimits{QueueWait: time.Minute}})
		outside := acquire(t, m, Holder{Agent: "worker"}) // so that no task runs
		first := launch(t, m, work("p"))
		pass(30 * time.Second)
		in := work("p")
		in.Limits = &TaskLimits{QueueWait: 2 * time.Second}
		hasty := launch(t, m, in)
		in.Limits = &TaskLimits{QueueWait: Off}
		patient := launch(t, m, in)
		last := launch(t, m, work("p"))
		require.Equal(t, []int{1, 2, 3, 4}, positions(t, m, []Task{first, hasty, patient, last}))

		pass(2 * time.Second)
		ended := get(t, m, hasty.ID)
		require.Equal(t, Failed, ended.Status)
		require.Equal(t, Reason{
			Code: QueueTimeout, Limit: "queue wait", Value: "2s", Observed: "2s", Setting: "TaskLimits.QueueWait",
		}, *ended.Reason)
		require.Equal(t, []int{1, 0, 2, 3}, positions(t, m, []Task{first, hasty, patient, last}))
		pass(28 * time.Second)
		require.ErrorIs(t, get(t, m, first.ID).Reason, QueueTimeout)
		pass(time.Hour)
		require.ErrorIs(t, get(t, m, last.ID).Reason, QueueTimeout)
		require.Equal(t, []int{1}, positions(t, m, []Task{patient}))
		require.Zero(t, c.creates.Load())

		var told []TaskID
		for _, n := range box.all() {
			for _, notice := range n.Notices {
				require.ErrorIs(t, notice.Reason, QueueTimeout)
				told = append(told, notice.Task)
			}
		}
		require.Equal(t, []TaskID{hasty.ID, first.ID, last.ID}, told)
		outside.Release()
		synctest.Wait()
		require.Equal(t, Running, get(t, m, patient.ID).Status)
		pass(24 * time.Hour) // a clock that has stopped does not come back
		require.Equal(t, Running, get(t, m, patient.ID).Status)
	})
}

// A task that has started is no longer under the queue's clock.
func TestQueueTimeoutEndsWithTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: time.Minute}})
		launch(t, m, asks("p", "", "a"))
		b := launch(t, m, asks("p", "", "b"))
		pass(time.Minute - 1)
		s.end("a")
		require.Equal(t, 1, m.deadlines.Len(), "that of what is owed to the parent")
		pass(time.Hour)
		require.Equal(t, Running, get(t, m, b.ID).Status)
	})
}

// A task that is cancelled while it waits takes its deadline along.
func TestCancelledTaskLeavesNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: 24 * time.Hour}, Retention: keepAll})
		launch(t, m, work("p"))
		synctest.Wait()
		for range 100 {
			task := launch(t, m, work("p"))
			require.Equal(t, 1, m.deadlines.Len())
			_, err := m.Cancel(t.Context(), task.ID, CancelOptions{Silent: true})
			require.NoError(t, err)
			require.Zero(t, m.deadlines.Len())
		}
	})
}

// Scenario 44: with a cap per parent, a queue full of one parent's tasks is no
// obstacle to another parent's.
func TestHotQueueServesOtherParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 2, PerParent: 1}})
		for i := range 50 {
			launch(t, m, asks("p", "m/x", fmt.Sprint(i)))
		}
		require.Equal(t, Starting, launch(t, m, asks("q", "m/x", "q")).Status)
		require.Equal(t, []string{"0", "q"}, s.now())
	})
}

// Only its own parent's cap lets the head of a queue be passed, and 64 times at
// most: then the whole queue waits for it. The next head starts from nought.
func TestHeadIsPassedSoOften(t *testing.T) {
	for _, fair := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage()
			m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 2, PerParent: 1, Fair: fair}, Spawn: SpawnLimits{LivePerRoot: Off}})
			launch(t, m, asks("p", "m/other", "p's one"))
			head := launch(t, m, asks("p", "m/x", "head"))
			next := launch(t, m, asks("p", "m/x", "next"))
			parent := func(i int) SessionID { return SessionID(fmt.Sprint("q", i)) }
			for i := range 200 {
				launch(t, m, asks(parent(i), "m/x", fmt.Sprint(i)))
			}
			for i := range 62 {
				s.end(fmt.Sprint(i))
			}
			require.Equal(t, []string{"62", "63", "p's one"}, s.now(), "64 have passed")
			s.end("62")
			require.Equal(t, []string{"63", "p's one"}, s.now(), "the place stays free for the head")
			require.Equal(t, 1, get(t, m, head.ID).Position)
			require.NoError(t, m.CheckBooks(nil, nil))
			s.end("63")
			launch(t, m, asks("fresh", "m/x", "late"))
			require.Equal(t, []string{"p's one"}, s.now())

			s.end("p's one")
			require.Equal(t, []string{"64", "head"}, s.now())
			require.Equal(t, 1, get(t, m, next.ID).Position)
			for i := 64; i < 64+62; i++ {
				s.end(fmt.Sprint(i))
			}
			require.Equal(t, []string{"126", "head"}, s.now())
			s.end("126")
			require.Equal(t, []string{"127", "head"}, s.now(), "64 have passed the new head")
			s.end("127")
			require.Equal(t, []string{"head"}, s.now())
			_, err := m.Cancel(t.Context(), next.ID, CancelOptions{})
			require.NoError(t, err)
			require.Equal(t, []string{"128", "head"}, s.now(), "who waited for it goes on when it leaves")
		})
	}
}

// What runs depends on what there is room for, and not on the order in which the
// limits filled up: a head whose parent comes to its cap while it waits for
// something else is passed like one whose parent was there before.
func TestParentFillsUpWhileItsTaskWaits(t *testing.T) {
	for _, lowered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage()
			keys := KeyLimits{PerParent: 1, Agents: map[string]int{"scarce": 1}}
			if lowered {
				keys.PerParent = 2
			}
			m := newManager(t, Func(s.run), Config{Keys: keys})
			scarce := func(parent SessionID, prompt string) LaunchInput {
				return LaunchInput{Parent: parent, Agent: "scarce", Model: "m/x", Prompt: prompt}
			}
			launch(t, m, scarce("o", "has the agent"))
			launch(t, m, scarce("p", "head"))
			launch(t, m, asks("q", "m/x", "behind"))
			require.Equal(t, []string{"has the agent"}, s.now(), "the agent's limit lets nobody pass")
			launch(t, m, asks("p", "m/y", "fills p up"))
			if lowered {
				require.Equal(t, []string{"fills p up", "has the agent"}, s.now())
				require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, 1))
			}
			require.Equal(t, []string{"behind", "fills p up", "has the agent"}, s.now())
			s.end("fills p up", "has the agent")
			require.Equal(t, []string{"behind", "head"}, s.now())
		})
	}
}
