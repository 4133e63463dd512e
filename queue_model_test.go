package subagent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A model of queues, limits and statuses that looks at everything each time, and
// random verbs that are carried out on the model and on a manager. The client of
// that manager answers each call when the test says so.

// modelled is one task, or one holder, as the model sees it.
type modelled struct {
	name     string // the task's id, or "holder 1" and so on
	parent   SessionID
	agent    string
	model    string
	passes   int
	status   Status // a holder is Pending, then Running, then Completed
	creating bool   // holds a place under the limit on starts

	task   TaskID
	holder *waiter
	lease  *Lease
}

func (x *modelled) key() Key {
	if x.model == "" {
		return Key{AgentKey, x.agent}
	}
	return Key{ModelKey, x.model}
}

func (x *modelled) holds() bool { return x.status != Pending && !x.status.Terminal() }

// under is whether it falls under a limit, or would once it runs.
func (x *modelled) under(k Key) bool {
	switch k.Kind {
	case ModelKey, AgentKey:
		return k == x.key()
	case ProviderKey:
		return strings.HasPrefix(x.model, k.Name+"/")
	case AgentTotalKey:
		return k.Name == x.agent
	case ParentKey:
		return x.parent != "" && k.Name == string(x.parent)
	case StartsKey:
		return x.task != "" && (x.status == Pending || x.creating)
	}
	return true
}

type queueModel struct {
	m      *BackgroundManager
	limits map[Key]int // as set; no entry, or 0: none of its own
	all    []*modelled // who waits or holds, in order of arrival
	ended  []*modelled
	count  int
	grants []string              // as the manager logged them, since they were last compared
	want   []string              // as the model says
	answer map[TaskID]chan error // to the call of Create or Prompt that is out
	over   chan struct{}         // closed at the end: lets calls of Abort return
}

// client is the manager's client.
func (q *queueModel) client() SessionClient {
	c := &stub{abort: func(context.Context, SessionID) error { <-q.over; return nil }}
	c.create = func(_ context.Context, r CreateRequest) (SessionID, error) {
		answer := make(chan error)
		q.m.mu.Lock()
		q.answer[r.Task] = answer
		q.m.mu.Unlock()
		if err := <-answer; err != nil {
			return "", err
		}
		return c.id(), nil
	}
	c.prompt = func(_ context.Context, _ SessionID, p Prompt) (Result, error) {
		q.m.mu.Lock()
		answer := q.answer[p.Task]
		q.m.mu.Unlock()
		return Result{Text: "ok"}, <-answer
	}
	return c
}

func (q *queueModel) reply(x *modelled, err error) {
	synctest.Wait()
	q.answer[x.task] <- err
	synctest.Wait()
}

// limit is what the settings say about a key.
func (q *queueModel) limit(k Key) int {
	own := func(kind KeyKind, name string) int { return q.limits[Key{kind, name}] }
	first := func(settings ...int) int {
		i := slices.IndexFunc(settings, func(n int) bool { return n != 0 })
		return settings[i]
	}
	switch k.Kind {
	case ModelKey:
		return first(own(ModelKey, k.Name), own(ProviderKey, k.Name[:1]), 2)
	case AgentKey:
		return first(own(AgentKey, k.Name), 2)
	case AgentTotalKey:
		return first(own(AgentKey, k.Name), Off)
	case ParentKey:
		return first(own(ParentKey, ""), Off)
	}
	return first(own(k.Kind, k.Name), Off)
}

// modelKeys are all limits that anything here can fall under.
var modelKeys = []Key{
	{Kind: GlobalKey}, {Kind: StartsKey}, {ModelKey, "a/1"}, {ModelKey, "a/2"}, {ModelKey, "b/1"}, {ProviderKey, "a"}, {ProviderKey, "b"},
	{AgentKey, "x"}, {AgentKey, "y"}, {AgentTotalKey, "x"}, {AgentTotalKey, "y"}, {ParentKey, "p"}, {ParentKey, "q"}, {ParentKey, "r"},
}

func (q *queueModel) held(k Key) (n int) {
	for _, x := range q.all {
		if x.holds() && x.under(k) {
			n++
		}
	}
	return n
}

func (q *queueModel) full(k Key) bool { return q.limit(k) != Off && q.held(k) >= q.limit(k) }

// line is who waits in a queue, in order.
func (q *queueModel) line(k Key) (line []*modelled) {
	for _, x := range q.all {
		if x.status == Pending && x.key() == k {
			line = append(line, x)
		}
	}
	return line
}

// next is who would start first from a queue, room provided.
func (q *queueModel) next(line []*modelled, full map[Key]bool) *modelled {
	i := slices.IndexFunc(line, func(x *modelled) bool { return x.parent == "" || !full[Key{ParentKey, string(x.parent)}] })
	if i < 0 || i > 0 && line[0].passes >= 64 {
		return nil
	}
	return line[i]
}

// dispatch starts, again and again, the oldest of all who can.
func (q *queueModel) dispatch() {
	for {
		full := map[Key]bool{}
		for _, k := range modelKeys {
			full[k] = q.full(k)
		}
		fits := func(x *modelled) bool {
			return x != nil && !slices.ContainsFunc(modelKeys, func(k Key) bool { return full[k] && x.under(k) })
		}
		var ready []*modelled
		for _, k := range modelKeys {
			if x := q.next(q.line(k), full); fits(x) {
				ready = append(ready, x)
			}
		}
		if len(ready) == 0 {
			return
		}
		best := slices.MinFunc(ready, func(a, b *modelled) int { return slices.Index(q.all, a) - slices.Index(q.all, b) })
		if head := q.line(best.key())[0]; head != best {
			head.passes++
		}
		best.status, best.creating = Running, false
		if best.task != "" {
			best.status, best.creating = Starting, true
		}
		q.want = append(q.want, best.name)
	}
}

// check compares the manager with the model.
func (q *queueModel) check(t *rapid.T) {
	q.dispatch()
	for _, x := range q.all {
		if x.holder != nil && x.holder.granted && x.lease == nil {
			lease, err := q.m.take(context.Background(), x.holder)
			require.NoError(t, err)
			x.lease = lease
		}
	}
	if !slices.Equal(q.want, q.grants) {
		q.show(t)
	}
	require.Equal(t, q.want, q.grants, "who was given a lease, in order")
	q.want, q.grants = nil, nil
	var leases []*Lease
	queues := map[Key]int{}
	for _, x := range q.all {
		if x.lease != nil && x.status == Running {
			leases = append(leases, x.lease)
		}
		place := 0
		if x.status == Pending {
			queues[x.key()]++
			place = queues[x.key()]
		}
		if x.task != "" {
			now, err := q.m.Get(x.task)
			require.NoError(t, err)
			require.Equal(t, x.status, now.Status, x.name)
			require.Equal(t, place, now.Position, x.name)
		} else {
			require.Equal(t, place, x.holder.position(), x.name)
		}
	}
	require.NoError(t, q.m.CheckBooks(leases, nil))
	q.checkLimits(t)
	q.all = slices.DeleteFunc(q.all, func(x *modelled) bool {
		if x.status.Terminal() {
			q.ended = append(q.ended, x)
		}
		return x.status.Terminal()
	})
	require.Len(t, q.m.queues, len(queues))
	for k, n := range queues {
		require.Equal(t, n, q.m.queues[k].all.n, "the queue of %s", k)
	}
}

// show logs who holds, and who waits at the head of a queue.
func (q *queueModel) show(t *rapid.T) {
	for _, x := range q.all {
		if x.status != Pending || q.line(x.key())[0] == x {
			t.Logf("%s is %s; parent %q, agent %s, model %q, passed %d times", x.name, x.status, x.parent, x.agent, x.model, x.passes)
		}
	}
	t.Logf("limits: %v", q.limits)
}

func (q *queueModel) checkLimits(t *rapid.T) {
	require.Equal(t, q.held(Key{Kind: GlobalKey}), q.m.global.held)
	require.Equal(t, q.held(Key{Kind: StartsKey}), q.m.starts.held)
	inUse := 0
	for _, k := range modelKeys[2:] {
		refs := 0
		for _, x := range q.all {
			if !x.status.Terminal() && x.under(k) {
				refs++
			}
		}
		s := q.m.sems[k]
		if refs == 0 {
			require.Nil(t, s, "%s", k)
			continue
		}
		inUse++
		require.Equal(t, []int{refs, q.held(k), q.limit(k)}, []int{s.refs, s.held, s.limit}, "references, held and limit of %s", k)
	}
	require.Len(t, q.m.sems, inUse)
}

// Handle makes q a log handler: grants are told in order by the manager's log.
func (q *queueModel) Handle(_ context.Context, r slog.Record) error {
	var name, to string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "task":
			name = a.Value.String()
		case "to":
			to = a.Value.String()
		}
		return true
	})
	if to == Starting.String() {
		q.grants = append(q.grants, name)
	}
	return nil
}

func (q *queueModel) Enabled(context.Context, slog.Level) bool { return true }
func (q *queueModel) WithAttrs([]slog.Attr) slog.Handler       { return q }
func (q *queueModel) WithGroup(string) slog.Handler            { return q }

// teller has a holder's grant logged like a task's.
type teller struct {
	*waiter
	name string
}

func (g teller) grantLocked(m *BackgroundManager, l lease) {
	m.logLocked(slog.LevelInfo, "holder", slog.String("task", g.name), slog.String("to", Starting.String()))
	g.waiter.grantLocked(m, l)
}

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
	m.enqueueLocked(&x.holder.ticket, x.key())
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
	require.Empty(t, q.m.queues, "all have had their turn")
	require.Empty(t, q.m.sems)
	close(q.over)
	require.NoError(t, q.m.Close())
}

func checkQueueModel(t *rapid.T) {
	q := &queueModel{limits: map[Key]int{}, answer: map[TaskID]chan error{}, over: make(chan struct{})}
	m, err := New(q.client(), Config{
		Keys: KeyLimits{Default: 2}, Spawn: SpawnLimits{LivePerRoot: Off},
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
