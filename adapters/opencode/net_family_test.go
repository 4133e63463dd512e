package opencode_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// under launches a task for any session.
func (w *netWorld) under(parent subagent.SessionID, dir, script string) subagent.TaskID {
	w.t.Helper()
	task, err := w.m.Launch(w.t.Context(), subagent.LaunchInput{Parent: parent, Agent: "build", Dir: dir, Prompt: "Please.\nSCRIPT: " + script})
	require.NoError(w.t, err)
	return task.ID
}

// A child whose own child ended while it worked is told nothing when it rests, as its
// task ends with that: it would be woken when nobody looks any more. Its parent is told.
func TestNetGrandchildren(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			between := func(least, most int) time.Duration { return time.Duration(least + r.IntN(most-least)) }
			f := newFake(t)
			w := newNetWorld(t, f)
			f.faults(func(op string, _ int) fault {
				if op == "events" {
					return nil
				}
				return lateAfter(between(0, 60) * time.Millisecond)
			})
			children := map[subagent.TaskID]subagent.TaskID{} // by grandchild
			for range 3 {
				f.mu.Lock() // guards r too
				works, below := between(20, 40)*time.Second, between(1, 40)*time.Second
				f.mu.Unlock()
				child := w.launch("work " + works.String() + "; say done")
				time.Sleep(2 * time.Second)
				task, err := w.m.Get(child)
				require.NoError(t, err)
				children[w.under(task.Session, "", "work "+below.String()+"; say grand")] = child
			}
			w.settle()
			told := map[subagent.TaskID]bool{}
			w.box.mu.Lock()
			for _, n := range w.box.accepted {
				for _, notice := range n.Notices {
					told[notice.Task] = told[notice.Task] || n.Parent == subagent.SessionID(w.parent.id)
				}
			}
			w.box.mu.Unlock()
			for grandchild, child := range children {
				require.True(t, told[grandchild], "seed %d", seed)
				require.Equal(t, 1, f.find(string(w.ended(child).Session)).turns, "seed %d: a child was woken", seed)
			}
			w.close()
		})
	}
}

// A directory that can't be asked says nothing of the turns in all others.
func TestNetOneDirectoryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.streamFaults(always(lying)) // no events
		w := newNetWorld(t, f)
		parent := subagent.SessionID(w.parent.id)
		fine, lost := w.under(parent, "/a", "work 10s; say fine"), w.under(parent, "/b", "work 10s; say lost")
		time.Sleep(time.Second)
		f.breaks("/b")
		time.Sleep(time.Minute)
		require.Equal(t, subagent.Completed, w.ended(fine).Status)
		task, err := w.m.Get(lost)
		require.NoError(t, err)
		require.Equal(t, subagent.Running, task.Status)
		f.breaks("")
		time.Sleep(time.Minute)
		require.Equal(t, subagent.Completed, w.ended(lost).Status)
		w.close()
	})
}
