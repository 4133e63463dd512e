package subagent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// phase is how far the manager's life is.
type phase uint8

const (
	admitting phase = iota
	draining        // no launches; children may finish, or are being stopped
	flushing        // all tasks have ended; owed notices get one try
	over
)

// UnstoppedError lists what was not known to be stopped when Cancel, CancelAll,
// Shutdown or Close returned, or what keeps Resume or Track from another run. It is
// [ErrUnstopped].
type UnstoppedError struct{ Calls []UnstoppedCall }

// UnstoppedCall is a child that may still be running, or a call of the host that
// has not returned.
type UnstoppedCall struct {
	// Op is the call that is out: "create", "prompt", "abort", "notify", "log",
	// "transcript", "hook" for Hooks.SessionCreated, "hooks" for any other, "statuses" of
	// a host under [Blocking], or "release", which may also have failed with Err; "" if
	// none is, or where the child alone is meant, as by Cancel.
	Op      string
	Task    TaskID
	Session SessionID // for "notify" the parent's
	Err     error     // why the child is not known to be at rest; nil if only the call is out
}

// release is a session that is given up.
type release struct {
	task TaskID
	err  error // what Release returned; nil while it is out
}

// Error lists the calls in one line.
func (e *UnstoppedError) Error() string {
	parts := make([]string, len(e.Calls))
	for i, c := range e.Calls {
		parts[i] = strings.Join(strings.Fields(fmt.Sprint(c.Task, " ", c.Session, " ", c.Op)), " ")
		if c.Err != nil {
			parts[i] += ": " + c.Err.Error()
		}
	}
	return ErrUnstopped.Error() + ": " + strings.Join(parts, "; ")
}

// Unwrap gives why children are not known to be at rest.
func (e *UnstoppedError) Unwrap() (errs []error) {
	for _, c := range e.Calls {
		if c.Err != nil {
			errs = append(errs, c.Err)
		}
	}
	return errs
}

// Is matches ErrUnstopped.
func (e *UnstoppedError) Is(target error) bool { return target == ErrUnstopped }

// Shutdown ends the manager in good order: nothing is launched any more, pending
// tasks are cancelled with ByShutdown, and with a resumed one what its earlier run had
// left running; other running children may finish until ctx ends and are stopped then.
// What parents are owed gets one try each; the rest stays readable through Drain, as
// tasks do through Get and List. Sessions are given up last, if the client is a Releaser.
//
// After ctx has ended it returns within two times Config.AbortGrace. The error is
// an *[UnstoppedError] that lists the children and calls that did not come to an
// end by then, or nil; nothing else of the manager runs on. Calls may overlap:
// all get the same outcome, and the first ctx to end counts.
func (m *BackgroundManager) Shutdown(ctx context.Context) error {
	if err := m.made(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, m.hurryUp)
	defer stop()
	if ctx.Err() != nil {
		m.hurryUp()
	}
	if m.beginShutdown() {
		m.runShutdown()
	}
	<-m.shutdown
	return m.closeErr
}

// Close is Shutdown without waiting for children to finish.
func (m *BackgroundManager) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return m.Shutdown(ctx)
}

func (m *BackgroundManager) hurryUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hurried {
		m.hurried = true
		close(m.hurry)
	}
}

// beginShutdown ends admission; it reports whether this call is the first.
func (m *BackgroundManager) beginShutdown() bool {
	m.mu.Lock()
	defer m.unlock()
	if m.phase != admitting {
		return false
	}
	m.phase = draining
	m.dismissLocked()
	for _, t := range m.tasks {
		if t.status == Pending {
			m.stopLocked(t, because(ByShutdown, nil), false)
		}
	}
	return true
}

// runShutdown goes through the phases. It runs in the goroutine of the first call.
func (m *BackgroundManager) runShutdown() {
	w := m.watchLive()
	if !m.awaitSettled(w, m.hurry) {
		m.stopAll()
		m.awaitSettled(w, nil) // each ends by its grace
	}
	m.unwatch(w)
	m.flush()
	last := min(moment, m.cfg.AbortGrace/2)
	if !m.awaitQuiet(m.cfg.AbortGrace - last) {
		m.end() // what heeds its context comes back now
		m.awaitQuiet(last)
		last = 0
	}
	m.finish(last)
}

// watchLive watches all tasks.
func (m *BackgroundManager) watchLive() *watch {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &watch{match: func(*task) bool { return true }, live: m.live, hit: make(chan struct{}, 1)}
	m.watches[w] = struct{}{}
	return w
}

// stopAll stops what has not ended.
func (m *BackgroundManager) stopAll() {
	m.mu.Lock()
	defer m.unlock()
	for _, t := range m.tasks {
		if t.status < Stopping {
			m.stopLocked(t, because(ByShutdown, nil), false)
		}
	}
}

// flush stops what was left running, cuts off what did not come to rest, and gives
// everything owed one try and every session up.
func (m *BackgroundManager) flush() {
	m.mu.Lock()
	defer m.unlock()
	m.phase = flushing
	for _, a := range m.attempts {
		if a.left && a.call == prompting {
			m.abortLocked(a)
		} else {
			a.cancel(nil)
		}
	}
	for r := range m.reads {
		r.cancel(ErrClosed)
	}
	for t := range m.unstopped {
		if m.leftUnseenLocked(t) {
			m.stopTrackedLocked(t, false)
		}
	}
	for _, b := range m.mailboxes {
		if m.pushes() && b.owes() && b.state != mailSending && b.state != mailDrained {
			m.sendLocked(b)
		}
	}
	if m.caps.releaser == nil {
		return
	}
	var sessions []SessionID
	for id, r := range m.releasing { // of sessions that came late
		if r.err != nil {
			m.releasing[id] = release{task: r.task}
			sessions = append(sessions, id)
		}
	}
	for _, t := range m.tasks {
		if t.session != "" && !t.tracked && !t.forgotten {
			m.releasing[t.session] = release{task: t.id}
			sessions = append(sessions, t.session)
		}
	}
	m.goLocked(func() { m.releaseAll(sessions) })
}

// leftUnseenLocked reports whether a task was left running before it was attached to, so
// that nobody sees the turn of its session end.
func (m *BackgroundManager) leftUnseenLocked(t *task) bool {
	return t.attach && t.unstoppedLocked() == errLeftRunning && !m.calledForLocked(t)
}

// calledForLocked reports whether a call for a task is out.
func (m *BackgroundManager) calledForLocked(t *task) bool {
	return slices.ContainsFunc(m.attempts, func(a *attempt) bool { return a.task == t })
}

// releaseAll gives sessions up, several at a time. What fails stays in releasing.
func (m *BackgroundManager) releaseAll(sessions []SessionID) {
	const parallel = 16
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, id := range sessions {
		g.Go(func() error {
			m.releaseOne(id)
			return nil
		})
	}
	_ = g.Wait() // no call returns an error
}

func (m *BackgroundManager) releaseOne(id SessionID) {
	given, err := false, ErrClosed
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.releasedLocked(id, given, err)
	}()
	if m.life.Err() == nil { // else Shutdown has given up meanwhile: nothing begins after it
		err = &PanicError{Op: "release", Value: errGoexit} // unless it returns
		given, err = m.releaseSession(m.life, id)
	}
}

// releasedLocked takes in what Release returned.
func (m *BackgroundManager) releasedLocked(id SessionID, given bool, err error) {
	if err == nil {
		delete(m.releasing, id)
		if t := m.bySession[id]; given && t != nil && t.loose != nil {
			t.loose.released = true // a prompt that comes now finds no session
			if t.loose.inDoubt && !t.loose.stopping {
				m.unmarkLocked(t)
			}
		}
		return
	}
	r := m.releasing[id]
	r.err = err
	m.releasing[id] = r
}

// awaitQuiet waits until no goroutine of the manager runs, at most so long. With
// that nothing begins any more.
func (m *BackgroundManager) awaitQuiet(most time.Duration) bool {
	m.mu.Lock()
	if m.routines == 0 {
		m.phase = over
		m.mu.Unlock()
		return true
	}
	quiet := make(chan struct{})
	m.quiet = quiet
	m.mu.Unlock()
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	select {
	case <-quiet:
		return true
	case <-timeout.C:
		return false
	}
}

// finish closes the books and lists what did not come to an end. most is how long it may
// still take.
func (m *BackgroundManager) finish(most time.Duration) {
	m.end()
	left := m.callsLeft(most)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = over
	m.quiet = nil
	if m.timer != nil {
		m.timer.Stop()
	}
	m.endEventsLocked()
	calls := m.outLocked()
	for range left {
		calls = append(calls, UnstoppedCall{Op: "statuses"})
	}
	if len(calls) > 0 {
		m.closeErr = &UnstoppedError{calls}
	}
	close(m.shutdown)
}

// callsLeft is how many polls of Blocking have outlived their turns and Close. One that
// was called back just now has so long to return.
func (m *BackgroundManager) callsLeft(most time.Duration) int {
	c, ok := m.client.(interface{ callsLeft() int })
	if !ok || c.callsLeft() == 0 {
		return 0
	}
	time.Sleep(most)
	return c.callsLeft()
}

// outLocked lists children not known to be at rest and calls that are out.
func (m *BackgroundManager) outLocked() (calls []UnstoppedCall) {
	for _, a := range m.attempts {
		for _, op := range a.callsOut() {
			calls = append(calls, UnstoppedCall{Op: op, Task: a.task.id, Session: a.session, Err: a.task.unstoppedLocked()})
		}
	}
	for t := range m.unstopped {
		if !slices.ContainsFunc(calls, func(c UnstoppedCall) bool { return c.Task == t.id }) {
			c := UnstoppedCall{Task: t.id, Session: t.loose.session, Err: t.loose.err}
			if t.loose.stopping {
				c.Op = "abort"
			}
			calls = append(calls, c)
		}
	}
	for parent, b := range m.mailboxes {
		if b.state == mailSending {
			calls = append(calls, UnstoppedCall{Op: "notify", Session: parent})
		}
	}
	for session, r := range m.releasing {
		calls = append(calls, UnstoppedCall{Op: "release", Task: r.task, Session: session, Err: r.err})
	}
	for r := range m.reads {
		calls = append(calls, UnstoppedCall{Op: "transcript", Task: r.task, Session: r.session})
	}
	if m.book.working {
		calls = append(calls, UnstoppedCall{Op: "log"})
	}
	calls = append(calls, m.hooksOutLocked()...)
	slices.SortFunc(calls, func(a, b UnstoppedCall) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Op, b.Op))
	})
	return calls
}

// unstoppedLocked says why the child of the last attempt is not known to rest.
func (t *task) unstoppedLocked() error {
	if t.loose == nil {
		return nil
	}
	return t.loose.err
}

// callsOut names the attempt's calls that have not returned.
func (a *attempt) callsOut() (ops []string) {
	switch a.call {
	case creating:
		ops = append(ops, "create")
	case prompting:
		ops = append(ops, "prompt")
	}
	if a.aborting {
		ops = append(ops, "abort")
	}
	return ops
}
