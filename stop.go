package subagent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"
)

// How a child is brought to rest, and how it is known that it is.

// settleWait is how long Prompt may stay out after an Abort that returned nil before
// Abort is called once more. Long enough for a client to ask a host that is busy for what
// the turn had said: a real one took more than 100 ms when its machine was loaded.
const settleWait = time.Second

// moment is long enough for a call in this process to return whose context has ended.
const moment = 100 * time.Millisecond

// stopLocked fixes the outcome of a run. A pending one has ended with that; of a
// live one the child is stopped, and left tells to let it run on instead.
func (m *BackgroundManager) stopLocked(t *task, r *Reason, left bool) bool {
	if t.status == Pending && t.attach {
		m.stopTrackedLocked(t, left)
	}
	if !m.transition(t, onStop, r) {
		return false
	}
	a := t.cur
	if a == nil {
		return true
	}
	if a.left = left && (a.call == prompting || t.attach); a.left {
		m.endStoppedLocked(a, errLeftRunning)
		return true
	}
	a.giveUp = m.now().after(m.cfg.AbortGrace)
	m.armLocked(&a.deadline, a.giveUp)
	if a.session == "" || a.call == introducing { // nothing runs yet
		a.cancel(r.clone()) // the host may write to it
		return true
	}
	m.abortLocked(a)
	return true
}

// stopTrackedLocked stops the turn of a task that was waiting for its lease: somebody else
// began it. Until it is known to be at rest the task is listed.
func (m *BackgroundManager) stopTrackedLocked(t *task, left bool) {
	loose := t.looseLocked()
	m.unstopped[t] = struct{}{}
	if loose.err = errLeftRunning; left {
		return
	}
	loose.err, loose.stopping = errBeingStopped, true
	session := t.session
	m.goLocked(func() { m.stopLate(t, session) })
}

var (
	errBeingStopped = errors.New("its turn, which somebody else began, is being stopped")
	errLeftRunning  = errors.New("left running, as asked")
	errNoRest       = errors.New("neither the call nor its abort returned within Config.AbortGrace")
	errStillOut     = errors.New("the abort succeeded, but its Prompt did not return within Config.AbortGrace")
)

// abortLocked asks the client, once for all who want it, to stop the child.
func (m *BackgroundManager) abortLocked(a *attempt) {
	if a.aborting || a.aborted || a.abortErr != nil {
		return
	}
	a.aborting, a.early = true, a.call == prompting
	session := a.session
	m.goLocked(func() { m.abort(a, session) })
}

func (m *BackgroundManager) abort(a *attempt, session SessionID) {
	m.callAbort(session, func(err error) {
		if release := m.abortOver(a, err); release {
			m.releaseLate(a, session)
		}
	})
}

// callAbort is the one place that calls Abort. over is called however that ends.
func (m *BackgroundManager) callAbort(session SessionID, over func(error)) {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.AbortGrace)
	defer cancel()
	var err error = &PanicError{Op: "abort", Value: errGoexit} // unless it returns
	defer func() { over(err) }()
	err = guard("abort", func() error { return m.client.Abort(ctx, session) })
}

// abortOver takes in what Abort returned and reports whether the session is to be
// given up.
func (m *BackgroundManager) abortOver(a *attempt, err error) (release bool) {
	m.mu.Lock()
	defer m.unlock()
	a.aborting = false
	if a.abortOver != nil {
		close(a.abortOver)
		a.abortOver = nil
	}
	a.aborted = err == nil
	a.abortErr = err
	a.cancel(nil) // only now: an abort is gentler than a cut line
	m.restLocked(a)
	return a.release
}

// restLocked looks whether the child of a stopped attempt has come to rest and
// ends the attempt if so. Proof of rest is a turn that returned without error or as
// aborted, or an Abort that returned nil and was not early: one that was called
// while Prompt was out may have overtaken it. When both calls are over without
// proof, the attempt ends as unstopped.
func (m *BackgroundManager) restLocked(a *attempt) {
	proven := a.turnOver || a.aborted && !a.early
	switch {
	case a.call != returned:
		if a.aborted && a.current() {
			m.armLocked(&a.deadline, min(m.now().after(settleWait), a.giveUp))
		}
	case proven && a.current() && a.inDoubt:
		m.endStoppedLocked(a, ErrInDoubt)
	case proven && a.current():
		m.endStoppedLocked(a, nil)
	case proven && a.inDoubt && a.task.attempts == a.number && !a.task.looseLocked().released:
		m.markLocked(a, ErrInDoubt)
	case proven:
		m.provenLocked(a)
	case a.aborted: // early, and the turn came back with an error since
		m.abortAgainLocked(a)
	case a.abortErr != nil && a.current():
		m.endStoppedLocked(a, a.abortErr)
	case a.abortErr != nil && a.task.attempts == a.number:
		m.markLocked(a, a.abortErr)
	case a.left && !a.aborting:
		m.abortLocked(a) // it came back with an error: make sure
	}
	m.forgetLocked(a)
}

// abortAgainLocked makes sure of a turn whose Abort may have come before it.
func (m *BackgroundManager) abortAgainLocked(a *attempt) {
	a.aborted = false
	if a.current() {
		m.armLocked(&a.deadline, a.giveUp)
	}
	m.abortLocked(a)
}

// endStoppedLocked ends an attempt that was stopping. A child that may still be
// running is marked and listed.
func (m *BackgroundManager) endStoppedLocked(a *attempt, unstopped error) {
	t := a.task
	if unstopped != nil {
		m.markLocked(a, unstopped)
	}
	m.endLocked(a, onStopped, t.reason)
}

// markLocked lists a task whose child may still be running.
func (m *BackgroundManager) markLocked(a *attempt, why error) {
	loose := a.task.looseLocked()
	loose.err, loose.inDoubt = why, a.inDoubt
	m.unstopped[a.task] = struct{}{}
	m.logLocked(slog.LevelWarn, "child not known to be stopped",
		slog.String("task", string(a.task.id)), slog.String("session", string(a.session)))
}

// provenLocked clears the mark of an attempt that was given up and has come to
// rest after all.
func (m *BackgroundManager) provenLocked(a *attempt) {
	t := a.task
	if t.attempts != a.number || t.loose == nil || t.loose.err == nil {
		return
	}
	m.unmarkLocked(t)
}

// cameLateLocked stops the work of a session whose task has ended, if it may be that of a
// prompt in doubt, which comes once. That of anybody else is none of ours.
func (m *BackgroundManager) cameLateLocked(t *task) {
	if t.loose == nil || !t.loose.inDoubt || t.loose.stopping || m.phase == over {
		return
	}
	t.loose.stopping = true
	session := t.session
	m.goLocked(func() { m.stopLate(t, session) })
}

func (m *BackgroundManager) stopLate(t *task, session SessionID) {
	m.callAbort(session, func(err error) {
		m.mu.Lock()
		defer m.unlock()
		t.loose.stopping = false // after an error the next event has it tried again
		switch {
		case err == nil:
			m.unmarkLocked(t)
		case !t.loose.inDoubt:
			t.loose.err = err
		}
	})
}

// unmarkLocked takes a task off the list: its child is known to be at rest after all.
func (m *BackgroundManager) unmarkLocked(t *task) {
	t.loose.err, t.loose.inDoubt = nil, false
	delete(m.unstopped, t)
}

// dueLocked is the attempt's deadline: of its start, or of its grace.
func (a *attempt) dueLocked(m *BackgroundManager, _ instant) {
	t := a.task
	switch {
	case !a.current():
	case t.status == Starting:
		m.stopLocked(t, &Reason{
			Code: StartTimeout, Limit: "start", Value: t.limits.Start.String(),
			Observed: "no session", Setting: "TaskLimits.Start",
		}, false)
	case a.aborted && !a.again:
		a.again = true // the prompt may have reached the host by now
		m.abortAgainLocked(a)
	case a.aborted && m.now() < a.giveUp:
		m.armLocked(&a.deadline, a.giveUp)
	case a.aborted:
		m.endStoppedLocked(a, errStillOut)
	default:
		m.endStoppedLocked(a, cmp.Or(a.abortErr, errNoRest))
	}
}

// releaseLate gives up a session that came too late to be used.
func (m *BackgroundManager) releaseLate(a *attempt, session SessionID) {
	m.mu.Lock()
	m.releasing[session] = release{task: a.task.id}
	m.mu.Unlock()
	given, err := false, error(&PanicError{Op: "release", Value: errGoexit}) // unless it returns
	defer func() { m.releasedLate(a, session, given, err) }()
	given, err = m.releaseSession(context.Background(), session) // also after Close
}

func (m *BackgroundManager) releasedLate(a *attempt, session SessionID, given bool, err error) {
	m.mu.Lock()
	defer m.unlock()
	m.releasedLocked(session, given, err)
	if err == nil {
		delete(m.bySession, session)
	} else {
		m.logLocked(slog.LevelWarn, "session not released",
			slog.String("task", string(a.task.id)), slog.String("session", string(session)))
	}
}

// releaseSession has the client give up a session that nobody will prompt.
func (m *BackgroundManager) releaseSession(ctx context.Context, id SessionID) (given bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.AbortGrace)
	defer cancel()
	return m.caps.release(ctx, id)
}
