package subagent

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"
)

// Holder says what a lease taken with Acquire counts under.
type Holder struct {
	Parent SessionID // "": under no parent's cap
	Agent  string    // required
	Model  string    // "provider/model" or a bare name; "": the agent's model as configured, else the agent's own queue
}

// Lease is permission to run work of the host's own under the manager's limits.
// It is held until Release.
type Lease struct {
	m      *BackgroundManager
	ticket *ticket
	lease  lease
}

// Release gives the lease back. It may be called more than once, and counts once.
func (l *Lease) Release() {
	l.m.mu.Lock()
	defer l.m.unlock()
	l.m.releaseLocked(l.ticket, &l.lease) // what was given back is named no more
	l.m.dropSharesLocked(l.ticket)
}

// waiter is one Acquire.
type waiter struct {
	ticket
	lease   lease
	granted bool
	queued  time.Time
	done    chan struct{} // closed when the lease is there, or when the manager closes
}

func (w *waiter) since(*BackgroundManager) time.Time { return w.queued }

func (w *waiter) grantLocked(m *BackgroundManager, l lease) {
	w.lease, w.granted = l, true
	delete(m.waiters, w)
	close(w.done)
}

// Acquire waits in the same queues as tasks, by the same rules, for a lease that
// the caller gives back with Release. The error is an *[InputError], an *[AgentError],
// ErrClosed, or ctx's own, and then nothing is held.
func (m *BackgroundManager) Acquire(ctx context.Context, h Holder) (*Lease, error) {
	if err := m.made(); err != nil {
		return nil, err
	}
	name := cleanAgent(h.Agent)
	if name == "" {
		return nil, &InputError{"Holder.Agent", strconv.Quote(h.Agent), "a name is required"}
	}
	h.Model = strings.TrimSpace(h.Model)
	if err := checkModel("Holder.Model", h.Model); err != nil {
		return nil, err
	}
	agent, err := m.agent(name)
	if err != nil {
		return nil, err
	}
	h.Agent = cmp.Or(agent.name, name)
	h.Model = cmp.Or(h.Model, agent.Model)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w, err := m.line(h)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	return m.take(ctx, w)
}

// line puts a waiter at the end of its queue.
func (m *BackgroundManager) line(h Holder) (*waiter, error) {
	m.mu.Lock()
	defer m.unlock()
	if m.phase != admitting {
		return nil, ErrClosed
	}
	w := &waiter{queued: time.Now(), done: make(chan struct{})}
	w.taker = w
	m.nameSharesLocked(&w.ticket, h.Parent, h.Agent, h.Model)
	m.enqueueLocked(&w.ticket)
	m.waiters[w] = struct{}{}
	return w, nil
}

// take ends a wait: with the lease, or with everything as if there had been none.
func (m *BackgroundManager) take(ctx context.Context, w *waiter) (*Lease, error) {
	cause := context.Cause(ctx)
	m.mu.Lock()
	defer m.unlock()
	if w.granted {
		return &Lease{m: m, ticket: &w.ticket, lease: w.lease}, nil
	}
	if m.phase != admitting {
		return nil, ErrClosed
	}
	delete(m.waiters, w)
	m.unqueueLocked(&w.ticket)
	m.dropSharesLocked(&w.ticket)
	return nil, cause
}

// dismissLocked sends everybody who waits in Acquire away.
func (m *BackgroundManager) dismissLocked() {
	for w := range m.waiters {
		delete(m.waiters, w)
		m.unqueueLocked(&w.ticket)
		m.dropSharesLocked(&w.ticket)
		close(w.done)
	}
}
