package subagent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"
)

// How a child is brought to rest, and how it is known that it is.

// settleWait is how long an attempt whose Abort said that nothing runs any more
// waits for its call to return too, so that what the child had said by then is
// kept as a partial result. Long enough for an in-process client to unwind.
const settleWait = 100 * time.Millisecond

// stopLocked fixes the outcome of a run. A pending one has ended with that; of a
// live one the child is stopped, and left tells to let it run on instead.
func (m *BackgroundManager) stopLocked(t *task, r *Reason, left bool) bool {
	if !m.transition(t, onStop, r) {
		return false
	}
	a := t.cur
	if a == nil {
		return true
	}
	if a.left = left && a.call == prompting; a.left {
		m.endStoppedLocked(a, errLeftRunning)
		return true
	}
	a.giveUp = m.now().after(m.cfg.AbortGrace)
	m.armLocked(&a.deadline, a.giveUp)
	if a.session == "" {
		a.cancel(r)
		return true
	}
	m.abortLocked(a)
	return true
}

var (
	errLeftRunning = errors.New("left running, as asked")
	errNoRest      = errors.New("neither the call nor its abort returned within Config.AbortGrace")
)

// abortLocked asks the client, once for all who want it, to stop the child.
func (m *BackgroundManager) abortLocked(a *attempt) {
	if a.aborting || a.aborted || a.abortErr != nil {
		return
	}
	a.aborting = true
	session := a.session
	m.goLocked(func() { m.abort(a, session) })
}

func (m *BackgroundManager) abort(a *attempt, session SessionID) {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.AbortGrace)
	defer cancel()
	err := guard("abort", func() error { return m.client.Abort(ctx, session) })

	m.mu.Lock()
	a.aborting = false
	a.aborted = err == nil
	a.early = a.aborted && a.call == prompting
	a.abortErr = err
	a.cancel(nil) // only now: an abort is gentler than a cut line
	release := a.release
	m.restLocked(a)
	m.unlock()

	if release {
		m.releaseLate(a, session)
	}
}

// restLocked looks whether the child of a stopped attempt has come to rest and
// ends the attempt if so. Proof of rest is a turn that returned without error or
// an Abort that returned nil; when both calls are over without proof, the
// attempt ends as unstopped.
func (m *BackgroundManager) restLocked(a *attempt) {
	switch {
	case a.early && a.call == returned && !a.turnOver && !a.again:
		m.abortAgainLocked(a)
	case !a.current() && (a.turnOver || a.aborted):
		m.provenLocked(a)
	case !a.current():
		if a.again && a.abortErr != nil && a.task.attempts == a.number {
			m.markLocked(a, a.abortErr)
		}
	case a.turnOver, a.aborted && a.call == returned:
		m.endStoppedLocked(a, nil)
	case a.aborted:
		m.armLocked(&a.deadline, m.now().after(settleWait))
	case a.abortErr != nil && a.call == returned:
		m.endStoppedLocked(a, a.abortErr)
	}
	m.forgetLocked(a)
}

// abortAgainLocked makes sure of a turn that came back, with an error, only after
// its Abort had found nothing to stop: the prompt may have reached the host behind
// the abort.
func (m *BackgroundManager) abortAgainLocked(a *attempt) {
	a.again, a.aborted = true, false
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
	a.task.looseLocked().err = why
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
	t.loose.err = nil
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
	case a.aborted:
		m.endStoppedLocked(a, nil)
	default:
		m.endStoppedLocked(a, cmp.Or(a.abortErr, errNoRest))
	}
}

// releaseLate gives up a session that came too late to be used.
func (m *BackgroundManager) releaseLate(a *attempt, session SessionID) {
	err := m.releaseSession(context.Background(), session) // also after Close
	m.mu.Lock()
	defer m.unlock()
	if err != nil {
		m.logLocked(slog.LevelWarn, "session not released",
			slog.String("task", string(a.task.id)), slog.String("session", string(session)))
	}
}

// releaseSession has the client give up a session that nobody will prompt.
func (m *BackgroundManager) releaseSession(ctx context.Context, id SessionID) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.AbortGrace)
	defer cancel()
	return m.caps.release(ctx, id)
}
