package subagent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Random lives in which sessions are deleted, of tasks and of parents: each run ends once
// and is told once, or somebody above it was stopped whose notice tells of it.
func TestLivesWithDeletions(t *testing.T) {
	for seed := range uint64(500) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { liveAndDelete(t, seed) }) })
		if !ok {
			return
		}
	}
}

type runID struct {
	task TaskID
	run  int
}

// deletions is what is known of such a life.
type deletions struct {
	*BackgroundManager
	mu      sync.Mutex
	r       *rand.Rand
	deleted map[SessionID]bool
	ended   map[runID]Task
	told    map[SessionID]map[runID]bool
	anybody map[runID]bool
	final   map[SessionID]bool // whether the last one was
	silent  int
	wrong   []string
}

func (d *deletions) Notify(_ context.Context, n Notification) (Delivery, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if answer := d.r.IntN(10); answer < 3 {
		return []Delivery{Unknown, Busy, Busy}[answer], nil
	} else if n.Handover == HandWake {
		return Accepted, nil
	}
	if d.told[n.Parent] == nil {
		d.told[n.Parent] = map[runID]bool{}
	}
	for _, notice := range n.Notices {
		id := runID{notice.Task, notice.Run}
		if d.told[n.Parent][id] {
			d.wrong = append(d.wrong, fmt.Sprint(id, " was told twice"))
		}
		d.told[n.Parent][id], d.anybody[id] = true, true
	}
	d.final[n.Parent] = n.Final
	return Accepted, nil
}

func (d *deletions) over(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := runID{e.Task.ID, e.Run}
	if _, twice := d.ended[id]; twice {
		d.wrong = append(d.wrong, fmt.Sprint(id, " ended twice"))
	}
	d.ended[id] = e.Task
}

func liveAndDelete(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	d := &deletions{
		r: rand.New(rand.NewPCG(seed, 8)), deleted: map[SessionID]bool{}, ended: map[runID]Task{},
		told: map[SessionID]map[runID]bool{}, anybody: map[runID]bool{}, final: map[SessionID]bool{},
	}
	d.BackgroundManager = newManager(t, timed(), Config{
		Notifier: d, Hooks: Hooks{Ended: d.over}, Retention: keepAll,
		Keys: KeyLimits{Default: 1 + r.IntN(4)}, Spawn: SpawnLimits{Depth: 6}, Interrupted: InterruptedPolicy(r.IntN(3)),
	})
	for range 40 {
		d.step(t, r)
		require.NoError(t, d.CheckBooks(nil, nil))
	}
	pass(3 * time.Hour)
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Empty(t, d.wrong)
	require.Zero(t, d.live)
	d.nobodyIsLost(t)
	for _, parent := range []SessionID{"p", "q"} {
		if final, told := d.final[parent]; !d.deleted[parent] {
			require.Zero(t, d.Pending(parent))
			require.Equal(t, told, final, "the last one to %s", parent)
		}
	}
}

func (d *deletions) step(t *testing.T, r *rand.Rand) {
	session, id, takes := []SessionID{"p", "q"}[r.IntN(2)], TaskID("bg_none"), fmt.Sprint(1+r.IntN(5), "s")
	if tasks := d.List(Filter{}); len(tasks) > 0 {
		id = tasks[r.IntN(len(tasks))].ID
		if s := tasks[r.IntN(len(tasks))].Session; s != "" && r.IntN(3) > 0 {
			session = s
		}
	}
	switch roll := r.IntN(20); {
	case roll < 10:
		_, _ = d.Launch(t.Context(), taking(session, takes))
	case roll < 12:
		d.deleted[session] = true
		d.HandleEvent(event(session, EventDeleted))
	case roll < 14:
		d.HandleEvent(event(session, []EventKind{EventIdle, EventInterrupted}[roll-12]))
	case roll < 16:
		_, _ = d.Resume(t.Context(), id, ResumeInput{Prompt: takes})
	case roll < 17:
		if _, err := d.Cancel(t.Context(), id, CancelOptions{Silent: takes == "1s"}); err == nil && takes == "1s" {
			d.silent++
		}
	case roll < 18:
		_, _ = d.As(session).Get(id)
	default:
		pass(time.Duration(r.IntN(1500)) * time.Millisecond)
	}
}

// nobodyIsLost: who ended was told, or read, or was silent, or given up with a deleted
// parent and counted, or goes with one above that did not end well, or has no root any more.
func (d *deletions) nobodyIsLost(t *testing.T) {
	stopped, lost := map[SessionID]bool{}, 0
	for _, task := range d.ended {
		if task.Status != Completed && !task.Reason.is(ParentGone) {
			stopped[task.Session] = true
		}
	}
	for id, task := range d.ended {
		switch {
		case d.anybody[id]:
		case !task.Reason.is(ParentGone):
			lost++
		case !d.deleted[task.Root]:
			above := d.bySession[task.Parent]
			for above != nil && !stopped[above.session] {
				above = d.bySession[above.parent()]
			}
			require.NotNil(t, above, "nobody tells of %v", id)
		}
	}
	n := d.Stats().Notices
	require.LessOrEqual(t, lost, n.Dropped+n.Read+d.silent)
	require.True(t, n.Dropped == 0 || d.deleted["p"] || d.deleted["q"], "with a parent there is somebody to tell")
}
