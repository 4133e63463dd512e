package subagent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The verbs of the model: each is carried out on the manager and on the model.

// arrival draws who comes next.
func arrival(t *rapid.T) *modelled {
	return &modelled{
		parent: rapid.SampledFrom([]SessionID{"", "p", "q", "r"}).Draw(t, "parent"),
		agent:  rapid.SampledFrom([]string{"x", "y"}).Draw(t, "agent"),
		model:  rapid.SampledFrom([]string{"", "a/1", "a/2", "b/1"}).Draw(t, "model"),
	}
}

func (q *queueModel) launch(t *rapid.T, x *modelled) {
	task, err := q.m.Launch(context.Background(), LaunchInput{
		Parent: x.parent, Agent: x.agent, Model: x.model, Prompt: "work", NoNotice: true,
	})
	require.NoError(t, err)
	x.name, x.task, x.status = string(task.ID), task.ID, Pending
	q.all = append(q.all, x)
}

func (q *queueModel) acquire(x *modelled) {
	q.all = append(q.all, x)
	q.count++
	x.name, x.status = fmt.Sprint("holder ", q.count), Pending
	x.holder = &waiter{queued: time.Now(), done: make(chan struct{})}
	x.holder.taker = teller{x.holder, x.name}
	m := q.m
	m.mu.Lock()
	defer m.unlock()
	m.nameSharesLocked(&x.holder.ticket, x.parent, x.agent, x.model)
	m.enqueueLocked(&x.holder.ticket)
	m.waiters[x.holder] = struct{}{}
}

// some draws one of those that fit; without any the step is a different one.
func (q *queueModel) some(t *rapid.T, fits func(*modelled) bool) *modelled {
	var list []*modelled
	for _, x := range slices.Concat(q.all, q.ended) {
		if fits(x) {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		t.Skip("nobody")
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(t, "which")]
}

func (q *queueModel) record(x *modelled) *task { return q.m.byID[x.task] }

// leave: who waits gives up.
func (q *queueModel) leave(t *rapid.T) {
	x := q.some(t, func(x *modelled) bool { return x.status == Pending })
	if x.task == "" {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := q.m.take(ctx, x.holder)
		require.ErrorIs(t, err, context.Canceled)
	} else {
		_, err := q.m.Cancel(context.Background(), x.task, CancelOptions{})
		require.NoError(t, err)
	}
	x.status = Cancelled
}

// create: a Create that is out returns, well or not.
func (q *queueModel) create(t *rapid.T) {
	x := q.some(t, func(x *modelled) bool { return x.status == Starting })
	x.creating = false
	if rapid.Bool().Draw(t, "fails") {
		x.status = Failed
		q.reply(x, context.Canceled)
		return
	}
	x.status = Running
	q.reply(x, nil)
}

// finish: a turn ends well, or a holder gives its lease back.
func (q *queueModel) finish(t *rapid.T) {
	x := q.some(t, func(x *modelled) bool { return x.status == Running })
	x.status = Completed
	if x.task == "" {
		x.lease.Release()
		return
	}
	q.reply(x, nil)
}

// stop: a live task is stopped, and keeps its lease until it is at rest.
func (q *queueModel) stop(t *rapid.T) {
	x := q.some(t, func(x *modelled) bool { return x.task != "" && (x.status == Running || x.status == Starting) })
	x.status = Stopping
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := q.m.Cancel(ctx, x.task, CancelOptions{})
	require.ErrorIs(t, err, context.Canceled, "it does not come to rest yet")
}

func (q *queueModel) rest(t *rapid.T) {
	x := q.some(t, func(x *modelled) bool { return x.status == Stopping })
	x.status = Cancelled
	if !x.creating {
		q.reply(x, nil)
		return
	}
	x.creating = false
	q.reply(x, context.Canceled)
}

// setLimit sets any of the limits that can be set.
func (q *queueModel) setLimit(t *rapid.T) {
	settable := append([]Key{{Kind: ParentKey}}, modelKeys[:9]...)
	k := rapid.SampledFrom(settable).Draw(t, "key")
	n := rapid.IntRange(Off, 4).Draw(t, "limit")
	q.limits[k] = n
	require.NoError(t, q.m.SetLimit(k, n))
}

// stampede: so many come for one queue, each with a short life, that a head held
// up by its own parent is passed as often as it may be.
func (q *queueModel) stampede(t *rapid.T) {
	q.limits[Key{Kind: ParentKey}] = 1
	require.NoError(t, q.m.SetLimit(Key{Kind: ParentKey}, 1))
	q.check(t)
	q.launch(t, &modelled{parent: "p", agent: "y", model: "b/1"})
	q.check(t)
	q.launch(t, &modelled{parent: "p", agent: "y", model: "a/1"})
	q.check(t)
	for range rapid.IntRange(1, 70).Draw(t, "many") {
		q.acquire(&modelled{agent: "x", model: "a/1"})
		q.check(t)
		passer := func(x *modelled) bool { return x.parent == "" && x.task == "" && x.status == Running }
		for i := slices.IndexFunc(q.all, passer); i >= 0; i = slices.IndexFunc(q.all, passer) {
			q.all[i].status = Completed
			q.all[i].lease.Release()
			q.check(t)
		}
	}
}

// allowed is the table of statuses once more, as far as the verbs above go.
var allowed = map[Status][]trigger{
	Pending:  {onSlot, onStop},
	Starting: {onPrompted, onFail, onStop, onRetry, onRestore},
	Running:  {onDone, onFail, onStop, onAsk, onRetry, onRestore},
	Stopping: {onStopped, onRetry, onRestore},

	Completed: {onResume}, Failed: {onResume}, Cancelled: {onResume},
}

// refuse: a trigger that does not fit is refused and changes nothing.
func (q *queueModel) refuse(t *rapid.T) {
	x := q.some(t, func(x *modelled) bool { return x.task != "" })
	on := trigger(rapid.IntRange(0, int(numTriggers)-1).Draw(t, "trigger"))
	if slices.Contains(allowed[x.status], on) {
		t.Skip("allowed")
	}
	before, was := inventory(q.m), q.record(x).reason
	q.m.mu.Lock()
	ok := q.m.transition(q.record(x), on, because(Deadline, nil))
	q.m.mu.Unlock()
	require.False(t, ok, "%s of a task that is %s", triggerNames[on], x.status)
	require.Equal(t, before, inventory(q.m))
	require.Same(t, was, q.record(x).reason)
}

// end lets everything end, and the client's calls return.
func (q *queueModel) end(t *rapid.T) {
	for {
		q.check(t)
		i := slices.IndexFunc(q.all, func(x *modelled) bool { return x.holds() })
		if i < 0 {
			break
		}
		x := q.all[i]
		switch {
		case x.task == "":
			x.lease.Release()
		case x.creating:
			q.reply(x, context.Canceled)
		default:
			q.reply(x, nil)
		}
		switch x.status {
		case Starting:
			x.status = Failed
		case Stopping:
			x.status = Cancelled
		default:
			x.status = Completed
		}
		x.creating = false
	}
	require.Empty(t, q.m.queues(), "all have had their turn")
	require.Empty(t, q.m.limits())
	close(q.over)
	require.NoError(t, q.m.Close())
}

func checkQueueModel(t *rapid.T) {
	q := &queueModel{limits: map[Key]int{}, rounds: map[Key][]SessionID{}, answer: map[TaskID]chan error{}, over: make(chan struct{})}
	q.fair = rapid.Bool().Draw(t, "fair")
	m, err := New(q.client(), Config{
		Keys: KeyLimits{Default: 2, Fair: q.fair}, Spawn: SpawnLimits{LivePerRoot: Off},
		Task: TaskLimits{Start: Off}, AbortGrace: time.Hour, Logger: slog.New(q),
	})
	require.NoError(t, err)
	q.m = m
	t.Repeat(map[string]func(*rapid.T){
		"":         q.check,
		"launch":   func(t *rapid.T) { q.launch(t, arrival(t)) },
		"launch 2": func(t *rapid.T) { q.launch(t, arrival(t)) }, // so that there are queues
		"launch 3": func(t *rapid.T) { q.launch(t, arrival(t)) },
		"acquire":  func(t *rapid.T) { q.acquire(arrival(t)) },
		"leave":    q.leave,
		"create":   q.create,
		"finish":   q.finish,
		"stop":     q.stop,
		"rest":     q.rest,
		"limit":    q.setLimit,
		"limit 2":  q.setLimit,
		"stampede": q.stampede,
		"refuse":   q.refuse,
	})
	q.end(t)
}

// Random pushes, departures, releases and changes of limits: who gets a lease, in
// which order, all places, all counts and all statuses are those of the model.
func TestQueueModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, checkQueueModel) })
}
