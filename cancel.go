package subagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

var (
	// ErrEnded: the outcome of the run was fixed before this call.
	ErrEnded = errors.New("subagent: already ended")
	// ErrNotPending: the task has started, and CancelOptions.OnlyPending is set.
	ErrNotPending = errors.New("subagent: not pending")
	// ErrUnstopped: a child may still be running, or a call has not returned.
	ErrUnstopped = errors.New("subagent: not known to be stopped")
)

// CancelOptions say how to cancel. The zero value cancels for the user.
type CancelOptions struct {
	// Cause is the reason written on the task, one of those of a cancelled run but
	// ParentGone. ByParent is the parent's own call: it knows, and is not told. To
	// stop a subtree from above use ByUser, since the sessions between are waiting
	// to be told. Defaults to ByUser, and through As to ByParent for the session's
	// own children.
	Cause ReasonCode
	// Silent tells nobody. A batch of which something was told already still closes
	// with a final notification when nothing is left.
	Silent bool
	// Run names the run that is meant: if it was an earlier one, the current one is left
	// alone, [ErrEnded]; one that never was is an *[InputError]. Not for CancelAll.
	// Defaults to 0: the one that is current.
	Run int
	// OnlyPending leaves a task that has started alone: ErrNotPending.
	OnlyPending bool
	// LeaveRunning ends the task and lets the child's turn go on, unlimited and
	// unheard; it is marked unstopped until it ends. Shutdown stops it.
	LeaveRunning bool

	parent *SessionID // of Do: ByParent is for this one, and another to which the task has moved is told
}

func (o *CancelOptions) validate() error {
	if o.Cause != "" && outcomes[o.Cause] != Cancelled || o.Cause == ParentGone {
		return &InputError{"CancelOptions.Cause", strconv.Quote(string(o.Cause)), "must be the reason of a cancelled run, and not parent_gone, which follows from the end of an ancestor"}
	}
	return nil
}

// Cancel ends a task and returns when its child is known to be stopped. A pending
// task ends at once; of a running one the turn is aborted, and until the child is
// at rest, for Config.AbortGrace at most, its status is Stopping and its lease is
// held. Its live descendants end with it. An Abort that is still out when the turn has
// ended is waited for as long, so that a Resume can follow at once.
//
// ctx bounds the wait and not the cancel. The task that is returned is as its run ended
// or, if that is not so yet, as it is; it is empty where none was found. The error is nil
// when this call ended the task; [ErrEnded] when its outcome was fixed before, which the
// task then shows; [ErrUnstopped] when the child may still be running; [ErrNotFound],
// [ErrNotPending], *[InputError], or ctx's own.
func (m *BackgroundManager) Cancel(ctx context.Context, id TaskID, o CancelOptions) (Task, error) {
	return m.cancel(ctx, host, id, o)
}

func (m *BackgroundManager) cancel(ctx context.Context, by caller, id TaskID, o CancelOptions) (Task, error) {
	if err := o.validate(); err != nil {
		return Task{}, err
	}
	e, err := m.cancelOne(by, id, o)
	if e == nil {
		return Task{}, err
	}
	t, stopErr := m.awaitStop(ctx, by, id, e)
	return t, errors.Join(err, stopErr)
}

// awaitStop waits for a run to have ended and tells whether its child may still
// be running.
func (m *BackgroundManager) awaitStop(ctx context.Context, by caller, id TaskID, e *ending) (Task, error) {
	if err := e.wait(ctx); err != nil {
		return m.glimpse(by, id), err
	}
	m.awaitAbort(ctx, e.stopped)
	t := e.task()
	return t, t.unstopped()
}

// glimpse is a task as it is, if it is within the caller's reach still. It counts as no
// reading.
func (m *BackgroundManager) glimpse(by caller, id TaskID) Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.reachLocked(by, id)
	if err != nil {
		return Task{}
	}
	return m.snapshotLocked(t)
}

// awaitAbort waits for the Abort of an attempt whose turn has ended meanwhile, so that there
// can be another run. It is bounded as the attempt was.
func (m *BackgroundManager) awaitAbort(ctx context.Context, a *attempt) {
	if a == nil {
		return
	}
	m.mu.Lock()
	if !a.aborting {
		m.mu.Unlock()
		return
	}
	if a.abortOver == nil {
		a.abortOver = make(chan struct{})
	}
	over, left := a.abortOver, time.Duration(a.giveUp-m.now())
	m.mu.Unlock()
	grace := time.NewTimer(left)
	defer grace.Stop()
	select {
	case <-over:
	case <-grace.C:
	case <-ctx.Done():
	}
}

// cancelOne does the cancelling and returns the ending to wait for.
func (m *BackgroundManager) cancelOne(by caller, id TaskID, o CancelOptions) (*ending, error) {
	m.mu.Lock()
	defer m.unlock()
	t, err := m.reachLocked(by, id)
	if err != nil {
		return nil, err
	}
	if o.Run < 0 || o.Run > int(t.run) {
		return &ending{ended: m.snapshotLocked(t)}, &InputError{"CancelOptions.Run", strconv.Itoa(o.Run), fmt.Sprintf("must be 0 or a run that has begun: the task is in run %d", t.run)}
	}
	if o.Run != 0 && int(t.run) != o.Run {
		return &ending{ended: m.snapshotLocked(t)}, fmt.Errorf("%w: task %s is in run %d, and run %d is meant", ErrEnded, id, t.run, o.Run)
	}
	if o.OnlyPending && t.status != Pending && !t.status.Terminal() {
		return &ending{ended: m.snapshotLocked(t)}, fmt.Errorf("%w: task %s is %s", ErrNotPending, id, t.status)
	}
	e := m.stopEndingLocked(t)
	if t.status == Stopping || t.status.Terminal() {
		return e, fmt.Errorf("%w: task %s is %s", ErrEnded, id, t.status)
	}
	m.cancelLocked(by, t, o)
	return e, nil
}

// stopEndingLocked is the ending to wait for of a task that is being stopped, or is to be,
// by whomever.
func (m *BackgroundManager) stopEndingLocked(t *task) *ending {
	e := m.endingLocked(t)
	e.stopped = t.cur
	return e
}

// cancelLocked cancels a task whose outcome is open.
func (m *BackgroundManager) cancelLocked(by caller, t *task, o CancelOptions) {
	o.Cause = cmp.Or(o.Cause, by.cause(t))
	if o.parent != nil && *o.parent != t.parent() {
		o.Cause = ByUser
	}
	t.silent = t.silent || o.Silent || o.Cause == ByParent
	m.stopLocked(t, because(o.Cause, nil), o.LeaveRunning)
}

// unstopped is the error for a task whose child may still be running.
func (t *Task) unstopped() error {
	if n := len(t.Attempts); n > 0 && t.Attempts[n-1].Unstopped != nil && t.Attempts[n-1].Unstopped != errLeftRunning {
		return &UnstoppedError{Calls: []UnstoppedCall{{Task: t.ID, Session: t.Attempts[n-1].Session, Err: t.Attempts[n-1].Unstopped}}}
	}
	return nil
}

// CancelAll cancels every live task that matches, all at the same time, and
// returns those that it ended, in order of launch, when their children are known
// to be stopped. ctx bounds the wait; the error joins those of the single tasks.
// Filter.Under names all the descendants of a session, but not the task that runs
// in it. A filter that names nothing, as one made of a session that is not there
// yet does, is an *[InputError].
func (m *BackgroundManager) CancelAll(ctx context.Context, f Filter, o CancelOptions) ([]Task, error) {
	return m.cancelAll(ctx, host, f, o)
}

func (m *BackgroundManager) cancelAll(ctx context.Context, by caller, f Filter, o CancelOptions) ([]Task, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Run != 0 {
		return nil, &InputError{"CancelOptions.Run", strconv.Itoa(o.Run), "is for Cancel only: of many tasks each has runs of its own"}
	}
	endings, err := m.cancelMatching(by, f, o)
	if err != nil {
		return nil, err
	}
	tasks := make([]Task, len(endings))
	errs := make([]error, len(endings))
	for i, e := range endings {
		if tasks[i], err = m.awaitStop(ctx, by, e.id, e.ending); err != nil {
			errs[i] = fmt.Errorf("task %s: %w", e.id, err)
		}
	}
	return tasks, errors.Join(errs...)
}

type taskEnding struct {
	id     TaskID
	ending *ending
}

func (m *BackgroundManager) cancelMatching(by caller, f Filter, o CancelOptions) ([]taskEnding, error) {
	if err := f.whole("all that match are cancelled"); err != nil {
		return nil, err
	}
	if f.IDs == nil && f.Parent == "" && f.Root == "" && f.Under == "" && f.Agent == "" && len(f.Labels) == 0 && f.Statuses == nil {
		return nil, &InputError{"Filter", "empty", "must say what to cancel; to cancel everything, set Statuses to Pending, Starting, Running and InputNeeded"}
	}
	match, err := m.matcher(by.above, f)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.unlock()
	var chosen []*task
	var endings []taskEnding
	for _, t := range m.scopeLocked(f) {
		open := t.status < Stopping && (t.status == Pending || !o.OnlyPending)
		if open && match(t) {
			chosen = append(chosen, t)
			endings = append(endings, taskEnding{t.id, m.stopEndingLocked(t)})
		}
	}
	for _, t := range chosen {
		if t.status < Stopping { // an ancestor among them may have taken it along
			m.cancelLocked(by, t, o)
		}
	}
	return endings, nil
}

// interruptedLocked does what Config.Interrupted says for a session whose turn somebody
// stopped. Its children are told of, but ask for no turn: who stopped one wants none.
func (m *BackgroundManager) interruptedLocked(b *mailbox) {
	if m.cfg.Interrupted == InterruptedKeep {
		return
	}
	for _, t := range m.belowLocked(b, nil) {
		if t.status == Pending || t.status < Stopping && m.cfg.Interrupted == InterruptedStopAll {
			t.quiet = true
			m.stopLocked(t, because(ByUser, nil), false)
		}
	}
}

// belowLocked appends all that was launched below a session, and is in the books, each
// after what it was launched by.
func (m *BackgroundManager) belowLocked(b *mailbox, all []*task) []*task {
	for _, children := range [][]*task{b.children, b.adopted} {
		for _, child := range children {
			all = append(all, child)
			if child.own != nil {
				all = m.belowLocked(child.own, all)
			}
		}
	}
	return all
}

// cascadeLocked stops all live descendants of a task that was stopped or failed.
// They stop at the same time; each takes its own descendants along, and one that
// has ended does not shield those it left running.
func (m *BackgroundManager) cascadeLocked(t *task) {
	if t.own != nil {
		m.stopBelowLocked(t.own, ParentGone)
	}
}

// stopBelowLocked stops all that was launched below a session, for that reason.
func (m *BackgroundManager) stopBelowLocked(b *mailbox, why ReasonCode) {
	for _, children := range [][]*task{b.children, b.adopted} {
		for _, child := range children {
			if child.status < Stopping {
				m.stopLocked(child, because(why, nil), false)
			} else if child.own != nil { // it may have left children of its own
				m.stopBelowLocked(child.own, why)
			}
		}
	}
}
