package subagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrNotEnded: the run that is current has not ended.
	ErrNotEnded = errors.New("subagent: not ended")
	// ErrNoSession: the task has no session to go on in: it never had one, or it was
	// deleted.
	ErrNoSession = errors.New("subagent: no session")
)

// ResumeInput is what a task goes on with. What it leaves open stays as it was at
// Launch.
type ResumeInput struct {
	Prompt string // the next message of the session. Required.
	// Parent moves the task to another parent, which is told of this run. It can't be
	// the task's own session, or one below it. Defaults to the parent it has.
	Parent   SessionID
	Origin   string      // the parent's tool call that asked
	Limits   *TaskLimits // instead of those of the run before, beating the agent's and the manager's
	NoNotice bool        // the parent is not told of this run

	// ParentContext is as in LaunchInput.
	ParentContext ParentContext
}

// Resume begins a new run of a task that has ended, with a new prompt in the session that
// it has. The task keeps its id and stands in line like any other; the earlier result can
// be read until this run has one, and what the parent is still owed for earlier runs it
// is told. It returns at once, as Launch does, and ctx bounds the call alone.
//
// Of several at one time one wins. A refusal changes nothing: [ErrNotFound];
// [ErrNotEnded] while a run goes on; [ErrUnstopped] while the child of the last one may
// still be running, or an Abort of it is out, which would stop the next; [ErrNoSession];
// and what Launch refuses for, but for the limits on depth and on the total of a root,
// which count a task once.
func (m *BackgroundManager) Resume(ctx context.Context, id TaskID, in ResumeInput) (Task, error) {
	return m.resume(ctx, whose{by: host, id: id}, in)
}

// ResumeSession is [BackgroundManager.Resume] for the task of a session.
func (m *BackgroundManager) ResumeSession(ctx context.Context, id SessionID, in ResumeInput) (Task, error) {
	if id == "" {
		return Task{}, &InputError{"ResumeSession.id", `""`, "a session is required"}
	}
	return m.resume(ctx, whose{by: host, session: id}, in)
}

// whose names the task of a caller that is to go on: by its session, or by its id.
type whose struct {
	by      caller
	id      TaskID
	session SessionID
}

func (w whose) findLocked(m *BackgroundManager) (*task, error) {
	if w.session == "" {
		return m.reachLocked(w.by, w.id)
	}
	return m.reachSessionLocked(w.by, w.session)
}

func (m *BackgroundManager) resume(ctx context.Context, w whose, in ResumeInput) (Task, error) {
	if err := m.made(); err != nil {
		return Task{}, err
	}
	if ctx.Err() != nil {
		return Task{}, context.Cause(ctx)
	}
	if strings.TrimSpace(in.Prompt) == "" {
		return Task{}, &InputError{"ResumeInput.Prompt", strconv.Quote(in.Prompt), "a text is required"}
	}
	if err := in.Limits.validate("ResumeInput.Limits"); err != nil {
		return Task{}, err
	}
	p, err := m.planRun(w)
	if err != nil {
		return Task{}, err
	}
	p.prompt, p.origin, p.silent, p.context = in.Prompt, in.Origin, in.NoNotice, in.ParentContext.given()
	if in.Limits != nil {
		own := in.Limits.over(m.cfg.Agents[p.in.Agent].Limits.over(m.cfg.Task))
		p.limits = &own
	}
	p.in.Prompt, p.in.Origin, p.in.Limits, p.in.NoNotice, p.in.ParentContext = in.Prompt, in.Origin, in.Limits, in.NoNotice, in.ParentContext
	return m.begin(ctx, p, in.Parent)
}

// nextRun is a run to be of a task that has ended, planned without the lock.
type nextRun struct {
	by             caller
	task           *task
	run            int32 // that has to be the last one still
	in             LaunchInput
	from           origin
	prompt, origin string
	attach, silent bool
	context        *ParentContext
	limits         *TaskLimits
}

// planRun looks whether a task can have another run, and notes what it was launched with.
func (m *BackgroundManager) planRun(w whose) (nextRun, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := w.findLocked(m)
	if err != nil {
		return nextRun{}, err
	}
	if err := m.canResumeLocked(t, false); err != nil {
		return nextRun{}, err
	}
	in := LaunchInput{
		Parent: t.parent(), Agent: t.in.Agent, Description: t.in.Description, Model: t.in.Model,
		Variant: t.in.Variant, System: t.in.System, Dir: t.in.Dir,
		Tools: maps.Clone(t.in.Tools), Labels: maps.Clone(t.in.Labels),
	}
	return nextRun{by: w.by, task: t, run: t.run, in: in, from: t.owner.origin.asMovedLocked(), limits: t.limits}, nil
}

// canResumeLocked says why a task can't have another run now: a prompt in its session, or
// one that attaches to the turn there.
func (m *BackgroundManager) canResumeLocked(t *task, attach bool) error {
	switch {
	case !t.status.Terminal():
		return fmt.Errorf("%w: task %s is %s", ErrNotEnded, t.id, t.status)
	case t.unstoppedLocked() != nil && !(attach && m.leftUnseenLocked(t)): // to attach is to find out
		return &UnstoppedError{Calls: []UnstoppedCall{{Task: t.id, Session: t.loose.session, Err: t.loose.err}}}
	case m.abortsLocked(t):
		return &UnstoppedError{Calls: []UnstoppedCall{{Op: "abort", Task: t.id, Session: t.session}}}
	case t.session == "":
		return fmt.Errorf("%w: task %s never had one", ErrNoSession, t.id)
	case t.deleted:
		return fmt.Errorf("%w: that of task %s was deleted", ErrNoSession, t.id)
	}
	return nil
}

// abortsLocked reports whether an Abort of an earlier run has not returned, although the turn
// ended by itself: it would stop the next one.
func (m *BackgroundManager) abortsLocked(t *task) bool {
	return slices.ContainsFunc(m.attempts, func(a *attempt) bool { return a.task == t && a.aborting })
}

// begin enters a planned run into the books, below another parent if one is named.
func (m *BackgroundManager) begin(ctx context.Context, p nextRun, parent SessionID) (Task, error) {
	if parent != "" && parent != p.from.Parent {
		o, err := m.trace(ctx, parent)
		if err != nil {
			return Task{}, err
		}
		p.from, p.in.Parent = o, parent
	}
	if m.cfg.Admit != nil {
		if err := m.admit(ctx, p.in, p.from.Lineage); err != nil {
			return Task{}, err
		}
	}
	if ctx.Err() != nil {
		return Task{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.unlock()
	if err := m.beginLocked(p); err != nil {
		return Task{}, err
	}
	m.dispatchLocked()
	return m.snapshotLocked(p.task), nil
}

func (m *BackgroundManager) beginLocked(p nextRun) error {
	t := p.task
	if _, err := m.reachLocked(p.by, t.id); err != nil {
		return err // it was forgotten meanwhile, or went out of reach
	}
	if err := m.canResumeLocked(t, p.attach); err != nil {
		return err
	}
	if t.run != p.run {
		return fmt.Errorf("%w: task %s has had another run meanwhile", ErrNotEnded, t.id)
	}
	o := m.nowLocked(p.from)
	if o.Parent == "" && t.parent() == "" {
		o.root = t.root // what it left running counts there
	}
	field := "ResumeInput.Parent"
	if p.attach {
		field = "TrackInput.Parent"
	}
	if err := m.checkMoveLocked(t, o, field); err != nil {
		return err
	}
	if err := m.checkLocked(o, keyOf(t.in.Agent, t.in.Model), p.silent, true); err != nil {
		return err
	}
	delete(m.unstopped, t)
	m.unshelveLocked(t)
	heir := m.endedForGoodLocked(t)
	if t.owner.origin.Parent != o.Parent {
		m.refileLocked(t, o)
	}
	t.in.Prompt, t.in.Origin, t.attach = p.prompt, p.origin, p.attach
	t.limits, t.silent, t.quiet, t.loose, t.reason = p.limits, p.silent, false, nil, nil
	t.run++
	t.passes, t.late = 0, 0
	if s := t.said; s != nil {
		kept := *s
		kept.heard = nil
		t.said = &kept
	}
	t.started, t.ended = 0, 0
	t.root = m.countRootLocked(o, t.root)
	m.live++
	if !m.transition(t, onResume, nil) {
		panic("subagent: a task that had ended could not be resumed")
	}
	t.owner.addLiveLocked()
	if own := t.own; own != nil { // what it left running is its own again
		own.inherited = own.below() - (own.live - own.doomed)
	}
	t.queued = m.now()
	m.joinLocked(t, p.context)
	m.postLocked(heir, t.queued) // what moves away may have been the last that it waited for
	return nil
}

// nowLocked is an origin as the books have it by now.
func (m *BackgroundManager) nowLocked(o origin) origin {
	if b := m.mailboxes[o.Parent]; b != nil {
		return b.origin.asMovedLocked()
	}
	if now, ok := m.knownLocked(o.Parent); ok {
		return now // it may have become known meanwhile, say as a task
	}
	return m.asKnownLocked(o)
}

// endedForGoodLocked settles what is left of a task's last run before the next one: what
// is owed for it is written down, and what it left to those above, to that heir, comes
// back.
func (m *BackgroundManager) endedForGoodLocked(t *task) (heir *mailbox) {
	m.writeDownLocked(t, false)
	heir = t.owner.heirLocked()
	if own := t.own; own != nil {
		own.repayLocked()
		heir.inherited -= own.below()
	}
	return heir
}

// writeDownLocked writes down what is owed for a task's last run, at its parent or above,
// and with below also for the tasks below it: from now on it can't be read off them, or is
// not looked for there any more.
func (m *BackgroundManager) writeDownLocked(t *task, below bool) {
	for b, above := t.owner, (*task)(nil); ; b = above.owner {
		for _, list := range [][]due{b.ended, b.batched} {
			for i := range list {
				if d := &list[i]; d.past == nil && (d.task == t || below && d.task.isBelow(t)) {
					n := m.noticeLocked(d.task)
					d.past = &n
					d.task.past++
				}
			}
		}
		if above = b.child(); above == nil {
			return
		}
	}
}

// isBelow reports whether a task was launched below another, at any depth.
func (t *task) isBelow(o *task) bool {
	for t != nil && t != o {
		t = t.owner.origin.under
	}
	return t != nil
}

// below is how many tasks are live whose notices come to a mailbox, or through it.
func (b *mailbox) below() int {
	n := b.live - b.doomed
	for _, child := range b.children {
		if own := child.own; own != nil && own.orphaned() {
			n += own.below() + own.lent
		}
	}
	return n
}
