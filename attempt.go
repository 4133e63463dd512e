package subagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// callState is how far the one client call chain of an attempt is.
type callState uint8

const (
	creating    callState = iota // Create is out
	introducing                  // the session is there, and its hook is told of it
	prompting                    // Prompt is out
	returned                     // neither is
)

// attempt is one try of a run: the client's Create and Prompt, made by one
// goroutine, and the Abort beside them. It holds its task's lease while it is
// the task's current one. All of it is guarded by mu but ctx and cancel, which
// do not change, and made, which is that goroutine's alone.
//
// A call that returns to an attempt that is no longer current only cleans up.
type attempt struct {
	task    *task
	number  int32
	run     int32
	parent  SessionID // of the task when it got its lease
	place   int32     // in the manager's list, from 1
	session SessionID // as Create returned it, also when it is not the task's
	made    SessionID // the same, before anything was looked at
	ctx     context.Context
	cancel  context.CancelCauseFunc

	call     callState
	lease    lease
	turnOver bool // Prompt said so, or there never was a session: nothing runs

	giveUp    instant       // when the grace of a stopped attempt ends
	early     bool          // Abort was last called while Prompt was out, and may have overtaken it
	again     bool          // it was called once more while Prompt stayed out
	aborting  bool          // Abort is out
	abortOver chan struct{} // closed when it has returned, if somebody waits for that
	inDoubt   bool          // the prompt may come later, although its call is over
	aborted   bool          // Abort returned nil
	abortErr  error
	left      bool // the caller wants the child left running
	release   bool // nobody will ever prompt the session: Release it after Abort

	deadline deadline // start time-out; once stopping, the grace
}

func (t *task) since(m *BackgroundManager) time.Time { return m.time(t.queued) }

// grantLocked starts a task's attempt with the lease it was waiting for: the
// only start.
func (t *task) grantLocked(m *BackgroundManager, l lease) {
	a, handed := m.spare, m.spare != nil
	m.spare = nil
	if !handed {
		a = newAttempt()
	}
	t.attempts++
	a.task, a.number, a.run, a.parent, a.lease = t, t.attempts, t.run, t.parent(), l
	t.cur = a
	t.started = m.now()
	if t.queueWait != nil {
		m.disarmLocked(t.queueWait)
		t.queueWait = nil
	}
	if !m.transition(t, onSlot, nil) {
		panic("subagent: a task that was not pending stood in a queue")
	}
	if t.limits.Start != Off {
		m.armLocked(&a.deadline, t.started.after(t.limits.Start))
	}
	m.attempts = append(m.attempts, a)
	a.place = int32(len(m.attempts))
	if handed {
		m.handed = a
		return
	}
	m.goLocked(func() { m.runAttempts(a) })
}

func newAttempt() *attempt {
	a := &attempt{}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	a.deadline.owner = a
	return a
}

// looseLocked is the note about a session that the task does not go on with.
func (t *task) looseLocked() *loose {
	if t.loose == nil {
		t.loose = &loose{session: t.session}
	}
	return t.loose
}

// requests is what the client is asked for an attempt. It reads only what does not change
// while a run goes on, and is called without the lock.
func (a *attempt) requests(base, agent map[string]bool) (CreateRequest, Prompt) {
	in := &a.task.in
	tools := mergeTools(base, in.Tools, agent)
	return CreateRequest{
			Task: a.task.id, Attempt: int(a.number), Parent: a.parent,
			Agent: in.Agent, Model: in.Model, Variant: in.Variant,
			Description: in.Description, Dir: in.Dir, System: in.System, Tools: tools, Labels: maps.Clone(in.Labels),
		}, Prompt{
			Task: a.task.id, Attempt: int(a.number), Text: in.Prompt, Agent: in.Agent,
			Model: in.Model, Variant: in.Variant, System: in.System, Tools: maps.Clone(tools),
		}
}

// mergeTools joins the switches of the manager, the launch and the agent: off
// anywhere is off.
func mergeTools(layers ...map[string]bool) map[string]bool {
	var merged map[string]bool
	for _, layer := range layers {
		for tool, on := range layer {
			if merged == nil {
				merged = map[string]bool{}
			}
			before, named := merged[tool]
			merged[tool] = on && (before || !named)
		}
	}
	return merged
}

// runAttempts is the goroutine of one live child after the other: one that has
// ended goes on with the task that gets its lease, if there is one, which saves
// the making of a goroutine and the growing of its stack.
func (m *BackgroundManager) runAttempts(a *attempt) {
	for a != nil {
		a = m.runAttempt(a)
	}
}

// runAttempt makes the calls of one attempt and returns the one to go on with.
func (m *BackgroundManager) runAttempt(a *attempt) (next *attempt) {
	defer a.cancel(nil)
	over := false
	defer func() {
		if !over { // host code ended the goroutine: runtime.Goexit
			m.exited(a)
		}
	}()
	req, p := a.requests(m.cfg.Tools, m.cfg.Agents[a.task.in.Agent].Tools)
	p.OnEvent = func(e SessionEvent) { m.onEvent(a, e) }
	session, opened := m.opened(a, req)
	if !opened {
		over = true
		return nil
	}
	var result Result
	var err error
	switch attach := a.task.attach; {
	case a.ctx.Err() == nil:
		turn := m.client.Prompt
		if attach {
			turn = m.caps.attacher.Attach
		}
		err = guard("prompt", func() (err error) {
			result, err = turn(a.ctx, session, p)
			return err
		})
	case attach: // it was stopped meanwhile, and somebody else's turn goes on
		err = errNotAttached
	default: // no prompt goes out, and nothing runs
	}
	next = m.prompted(a, result, err) // looks into an error of the host
	over = true
	return next
}

// opened gets an attempt its session: a new one, or that of the task's last run. It
// reports whether to prompt there.
func (m *BackgroundManager) opened(a *attempt, req CreateRequest) (session SessionID, goOn bool) {
	session, goOn, known := m.reopened(a)
	if !known {
		err := guard("create", func() (err error) {
			session, err = m.client.Create(a.ctx, req)
			return err
		})
		a.made = session
		goOn = m.created(a, session, err)
	}
	if goOn && m.cfg.Hooks.SessionCreated != nil {
		m.introduce(a)
	}
	return session, goOn
}

// reopened takes in that an attempt goes on in the session that its task has.
func (m *BackgroundManager) reopened(a *attempt) (session SessionID, goOn, known bool) {
	m.mu.Lock()
	defer m.unlock()
	t := a.task
	if t.session == "" {
		return "", false, false
	}
	m.freeLocked(&t.ticket, &a.lease, shareStarts)
	a.session = t.session
	if a.current() && t.status == Starting {
		m.disarmLocked(&a.deadline)
		if a.call = introducing; t.prompted || t.attach || t.tracked || m.cfg.Hooks.SessionCreated == nil { // else its hook was cut short
			m.promptLocked(a)
		}
		return t.session, true, true
	}
	a.call, a.turnOver = returned, !t.attach // nothing was begun, but by somebody else
	switch {
	case a.turnOver:
		m.restLocked(a)
	case a.left:
		m.forgetLocked(a)
	default:
		m.abortLocked(a)
	}
	return "", false, true
}

var errNotAttached = errors.New("stopped before it was attached to")

var errGoexit = errors.New("the goroutine was ended with runtime.Goexit")

// exited takes in that the goroutine of an attempt is about to end in the middle
// of a call, as a panic of that call.
func (m *BackgroundManager) exited(a *attempt) {
	m.mu.Lock()
	call := a.call
	m.mu.Unlock()
	switch call {
	case creating:
		m.created(a, a.made, &PanicError{Op: "create", Value: errGoexit})
	case prompting:
		if next := m.prompted(a, Result{}, &PanicError{Op: "prompt", Value: errGoexit}); next != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.goLocked(func() { m.runAttempts(next) })
		}
	}
}

// created takes in what Create returned and reports whether to prompt.
func (m *BackgroundManager) created(a *attempt, id SessionID, err error) (goOn bool) {
	why, _, _ := failure("create", err) // looks into an error of the host: not under mu
	m.mu.Lock()
	defer m.unlock()
	m.freeLocked(&a.task.ticket, &a.lease, shareStarts)
	t, current := a.task, a.current()
	a.session = id
	switch {
	case id != "" && (m.bySession[id] != nil || m.mailboxes[id] != nil):
		// Not ours to stop: it is somebody else's.
		a.session = ""
		why = because(SessionFailed, &SessionError{Op: "create", Session: id, Class: ClassInvalid, Err: errors.New("the id is of a session in use")})
	case id == "" && err == nil:
		why = because(SessionFailed, &SessionError{Op: "create", Class: ClassInvalid, Err: errors.New("the client returned no session id")})
	}
	goOn = current && t.status == Starting && why == nil
	if goOn {
		m.adoptLocked(a)
		return true
	}
	a.call = returned
	a.turnOver = a.session == ""
	if !a.turnOver {
		m.bySession[a.session] = t // taken until it is given up
		if t.attempts == a.number {
			t.looseLocked().session = a.session
		}
	}
	if current && t.status == Starting && a.turnOver {
		m.endLocked(a, onFail, why)
		return false
	}
	if current && t.status == Starting {
		m.stopLocked(t, why, false)
	}
	if !a.turnOver {
		a.release = true
		m.abortLocked(a)
	}
	m.restLocked(a)
	return false
}

// adoptLocked makes the new session the task's and lets the prompt go out, at once or
// after the hook.
func (m *BackgroundManager) adoptLocked(a *attempt) {
	a.task.session = a.session
	m.bySession[a.session] = a.task
	m.disarmLocked(&a.deadline)
	m.emitLocked(a.task, TopicSession, nil)
	if a.call = introducing; m.cfg.Hooks.SessionCreated == nil {
		m.promptLocked(a)
	}
}

func (m *BackgroundManager) promptLocked(a *attempt) {
	a.call, a.task.prompted = prompting, true
	m.transition(a.task, onPrompted, nil)
}

// prompted takes in what Prompt returned. The caller's goroutine is free then, and
// goes on with the attempt that is returned.
func (m *BackgroundManager) prompted(a *attempt, turn Result, err error) (next *attempt) {
	why, stopped, inDoubt := failure("prompt", err) // looks into an error of the host: not under mu
	if err == nil && strings.TrimSpace(turn.Text) == "" && !turn.Empty {
		why = because(NoOutput, nil)
	}
	turn.Partial = err != nil
	r, spare := a.kept(turn), newAttempt()
	m.mu.Lock()
	defer m.unlock()
	a.turnOver, a.inDoubt = err == nil || stopped, inDoubt
	m.takeResultLocked(a, r, why)
	m.spare = spare
	m.dispatchLocked()
	m.spare = nil
	next, m.handed = m.handed, nil
	return next
}

func (m *BackgroundManager) takeResultLocked(a *attempt, r *said, why *Reason) {
	a.call = returned
	t := a.task
	if a.current() {
		a.keepLocked(r)
	}
	switch {
	case !a.current() || t.status == Stopping:
		m.restLocked(a)
	case why == nil:
		m.endLocked(a, onDone, nil)
	case a.turnOver:
		m.endLocked(a, onFail, why)
	default:
		m.stopLocked(t, why, false)
	}
}

// current reports whether the attempt still speaks for its task.
func (a *attempt) current() bool { return a.task.cur == a }

// endLocked ends the current attempt and with it the run: the lease goes back
// and the outcome is written, in one step. It is the only release of a task's
// lease.
func (m *BackgroundManager) endLocked(a *attempt, on trigger, r *Reason) {
	t := a.task
	t.cur = nil
	m.disarmLocked(&a.deadline)
	m.releaseLocked(&t.ticket, &a.lease)
	m.dropSharesLocked(&t.ticket)
	if !m.transition(t, on, r) {
		panic(fmt.Sprintf("subagent: a task that is %s was ended by %s", t.status, triggerNames[on]))
	}
	if a.call != returned && !a.left {
		a.cancel(nil) // else its goroutine does, once its calls are over
	}
	m.forgetLocked(a)
}

// forgetLocked drops an attempt that has no call out any more.
func (m *BackgroundManager) forgetLocked(a *attempt) {
	if a.call == returned && !a.aborting && !a.current() && a.place > 0 {
		last := m.attempts[len(m.attempts)-1]
		m.attempts[a.place-1], last.place = last, a.place
		m.attempts[len(m.attempts)-1] = nil
		m.attempts = m.attempts[:len(m.attempts)-1]
		a.place = 0
	}
}
