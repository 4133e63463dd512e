package subagent

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// Hooks are told what becomes of tasks. Any of them may be nil, and the zero Hooks
// are none.
//
// All but SessionCreated are called after the fact, one at a time and in order, in a
// goroutine that is there while there is something to tell: Event.Task is the task as
// it was then, and may have gone on. One that blocks holds up the hooks behind it and
// nothing else; 10 000 calls wait at most, what comes on top is dropped and counted in
// Stats. A panic, or runtime.Goexit, is counted there too and logged, and has no other
// effect. Hooks may call the manager; one that calls Close or Shutdown is itself listed as
// a call that is out.
//
// After Close no hook begins. Close waits for the one that is out, as for any call of
// the host, and then for those that wait behind it.
type Hooks struct {
	// SessionCreated is called when a session was created, before its first prompt, and
	// holds that up: for one second at most, then the prompt goes out and the hook is
	// left behind. For a run that goes on in a session that was prompted before, as by
	// Resume or Track, it is not called. ctx ends then, or when the task is stopped, with
	// its Reason as the cause; it is not prompted any more, and if it is resumed the hook
	// is called again. Each call has a goroutine of its own.
	SessionCreated func(ctx context.Context, t Task)

	Queued      func(Event) // a run waits for its lease
	Starting    func(Event) // it has it
	Running     func(Event) // its prompt goes out, or it goes on after InputNeeded
	InputNeeded func(Event)
	Stopping    func(Event)
	Ended       func(Event) // its status is terminal
	Told        func(Event) // as TopicTold
	Moved       func(Event) // as TopicMoved
	Forgotten   func(Event) // as TopicForgotten
}

const (
	// hookWait is how long SessionCreated holds up a prompt: time for a look into a
	// database, and not enough to be taken for a hanging host.
	hookWait = time.Second
	maxHooks = 10_000 // calls that may wait
)

// hookRows say which event each hook is called with.
var hookRows = []struct {
	topic    Topic
	statuses []Status // of the task; nil: whichever
	of       func(*Hooks) *func(Event)
}{
	{TopicStatus, []Status{Pending}, func(h *Hooks) *func(Event) { return &h.Queued }},
	{TopicStatus, []Status{Starting}, func(h *Hooks) *func(Event) { return &h.Starting }},
	{TopicStatus, []Status{Running}, func(h *Hooks) *func(Event) { return &h.Running }},
	{TopicStatus, []Status{InputNeeded}, func(h *Hooks) *func(Event) { return &h.InputNeeded }},
	{TopicStatus, []Status{Stopping}, func(h *Hooks) *func(Event) { return &h.Stopping }},
	{TopicStatus, []Status{Completed, Failed, Cancelled, Interrupted}, func(h *Hooks) *func(Event) { return &h.Ended }},
	{TopicTold, nil, func(h *Hooks) *func(Event) { return &h.Told }},
	{TopicMoved, nil, func(h *Hooks) *func(Event) { return &h.Moved }},
	{TopicForgotten, nil, func(h *Hooks) *func(Event) { return &h.Forgotten }},
}

// Tee calls each of several Hooks in order. One that panics, or ends its goroutine,
// does not keep the others from it; they share the second of SessionCreated.
func Tee(hooks ...Hooks) Hooks {
	var all Hooks
	for _, h := range slices.Backward(hooks) {
		for _, row := range hookRows {
			*row.of(&all) = before(*row.of(&h), *row.of(&all))
		}
		all.SessionCreated = sessionBefore(h.SessionCreated, all.SessionCreated)
	}
	return all
}

// before calls two hooks. The second is deferred: it comes whatever the first does.
func before(first, second func(Event)) func(Event) {
	if first == nil || second == nil {
		return either(first, second)
	}
	return func(e Event) {
		defer second(e.clone())
		first(e)
	}
}

func sessionBefore(first, second func(context.Context, Task)) func(context.Context, Task) {
	if first == nil || second == nil {
		return either(first, second)
	}
	return func(ctx context.Context, t Task) {
		defer second(ctx, t.clone())
		first(ctx, t)
	}
}

// either is the hook of two that is there, if any is.
func either[F func(Event) | func(context.Context, Task)](a, b F) F {
	if a != nil {
		return a
	}
	return b
}

// hookTable is the hook of each topic and status.
type hookTable [numTopics][numStatuses]func(Event)

// table is nil if there are none.
func (h Hooks) table() (t *hookTable) {
	for _, row := range hookRows {
		call := *row.of(&h)
		if call == nil {
			continue
		}
		if t == nil {
			t = &hookTable{}
		}
		for s := Pending; s < numStatuses; s++ {
			if row.statuses == nil || slices.Contains(row.statuses, s) {
				t[row.topic][s] = call
			}
		}
	}
	return t
}

// hooking is what the books keep of hooks. Guarded by mu, but for table, which does
// not change.
type hooking struct {
	table   *hookTable
	calls   serial[hookCall]
	dropped int
	failed  int
	out     map[*attempt]struct{} // whose SessionCreated has not returned
}

func (h *hooking) of(topic Topic, s Status) func(Event) {
	if h.table == nil {
		return nil
	}
	return h.table[topic][s]
}

// hookCall is one call of a hook to be made.
type hookCall struct {
	call func(Event)
	e    *Event
}

func (h hookCall) do(m *BackgroundManager) {
	m.callHook(h.e.Task.ID, func() { h.call(h.e.clone()) })
}

// callHook is the one place that calls a hook.
func (m *BackgroundManager) callHook(id TaskID, call func()) {
	var err error = &PanicError{Op: "hook", Value: errGoexit} // unless it returns
	defer func() { m.hookOver(id, err) }()
	err = guard("hook", func() error { call(); return nil })
}

func (m *BackgroundManager) callHookLocked(h hookCall) {
	if len(m.hooks.calls.waiting) >= maxHooks {
		m.hooks.dropped++
		return
	}
	m.hooks.calls.addLocked(m, h)
}

// hookOver counts a hook that failed, and logs it.
func (m *BackgroundManager) hookOver(id TaskID, err error) {
	if err == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hooks.failed++
	m.logErrorLocked(slog.LevelWarn, "hook panicked", err, slog.String("task", string(id)))
}

// introduce has the SessionCreated hook run, unless the prompt goes out already, and then
// lets it go out, unless the task was stopped meanwhile: then the attempt's context has
// ended.
func (m *BackgroundManager) introduce(a *attempt) {
	ctx, cancel := context.WithTimeout(a.ctx, hookWait)
	defer cancel()
	select {
	case <-m.beginHook(ctx, a):
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.unlock()
	if a.current() && a.task.status == Starting {
		m.promptLocked(a)
	}
}

// beginHook starts the hook. What it returns is closed when that is over, and at once
// if the task was stopped before it.
func (m *BackgroundManager) beginHook(ctx context.Context, a *attempt) <-chan struct{} {
	over := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	if !a.current() || a.task.status != Starting {
		close(over)
		return over
	}
	t := m.snapshotLocked(a.task)
	m.hooks.out[a] = struct{}{}
	m.goLocked(func() {
		defer m.endHook(a, over)
		m.callHook(t.ID, func() { m.cfg.Hooks.SessionCreated(ctx, t) })
	})
	return over
}

func (m *BackgroundManager) endHook(a *attempt, over chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.hooks.out, a)
	close(over)
}

// hooksOutLocked lists hooks that have not returned.
func (m *BackgroundManager) hooksOutLocked() (calls []UnstoppedCall) {
	if m.hooks.calls.working {
		calls = append(calls, UnstoppedCall{Op: "hooks"})
	}
	for a := range m.hooks.out {
		calls = append(calls, UnstoppedCall{Op: "hook", Task: a.task.id, Session: a.session})
	}
	return calls
}
