package subagent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing/synctest"

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
	fair   bool
	rounds map[Key][]SessionID // of each queue: who has its turn when, if parents take turns
	all    []*modelled         // who waits or holds, in order of arrival
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

// capped is whether its own parent, and nothing else, lets others pass it.
func (x *modelled) capped(full map[Key]bool) bool {
	return x.parent != "" && full[Key{ParentKey, string(x.parent)}]
}

// next is who would start first from a queue, room provided.
func (q *queueModel) next(line []*modelled, full map[Key]bool) *modelled {
	if len(line) == 0 {
		return nil
	}
	round := q.round(line)
	if line[0].capped(full) && line[0].passes >= 64 {
		return nil
	}
	first := func(fits func(*modelled) bool) *modelled {
		i := slices.IndexFunc(line, func(x *modelled) bool { return fits(x) && !x.capped(full) })
		if i < 0 {
			return nil
		}
		return line[i]
	}
	if !q.fair {
		return first(func(*modelled) bool { return true })
	}
	for _, parent := range round {
		if x := first(func(x *modelled) bool { return x.parent == parent }); x != nil {
			return x
		}
	}
	return nil
}

// round is the order in which the parents of a queue have their turns: who has none
// waiting any more leaves it, who is new comes last.
func (q *queueModel) round(line []*modelled) []SessionID {
	k := line[0].key()
	round := slices.DeleteFunc(q.rounds[k], func(parent SessionID) bool {
		return !slices.ContainsFunc(line, func(x *modelled) bool { return x.parent == parent })
	})
	for _, x := range line {
		if !slices.Contains(round, x.parent) {
			round = append(round, x.parent)
		}
	}
	q.rounds[k] = round
	return round
}

// served sends a parent to the end of the round.
func (q *queueModel) served(x *modelled) {
	k := x.key()
	q.rounds[k] = slices.DeleteFunc(q.rounds[k], func(parent SessionID) bool { return parent == x.parent })
	if slices.ContainsFunc(q.line(k), func(o *modelled) bool { return o.parent == x.parent }) {
		q.rounds[k] = append(q.rounds[k], x.parent)
	}
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
		if head := q.line(best.key())[0]; head != best && head.capped(full) {
			head.passes++
		}
		best.status, best.creating = Running, false
		if best.task != "" {
			best.status, best.creating = Starting, true
		}
		q.served(best)
		q.want = append(q.want, best.name)
	}
}

// check compares the manager with the model.
func (q *queueModel) check(t *rapid.T) {
	q.dispatch()
	synctest.Wait() // the log comes after
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
	require.Len(t, q.m.queues(), len(queues))
	for k, n := range queues {
		require.Equal(t, n, q.m.queues()[k].all.n, "the queue of %s", k)
	}
}

// show logs who holds, and who waits at the head of a queue.
func (q *queueModel) show(t *rapid.T) {
	for _, x := range q.all {
		if x.status != Pending || q.line(x.key())[0] == x {
			t.Logf("%s is %s; parent %q, agent %s, model %q, passed %d times", x.name, x.status, x.parent, x.agent, x.model, x.passes)
		}
	}
	t.Logf("limits: %v; fair: %v, %v", q.limits, q.fair, q.rounds)
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
		s := q.m.limits()[k]
		if refs == 0 {
			require.Nil(t, s, "%s", k)
			continue
		}
		inUse++
		require.Equal(t, []int{refs, q.held(k), q.limit(k)}, []int{s.refs, s.held, s.limit}, "references, held and limit of %s", k)
	}
	require.Len(t, q.m.limits(), inUse)
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
