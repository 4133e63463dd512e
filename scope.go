package subagent

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// ForgottenError says what is still known of a task that is not kept any more. It is
// [ErrNotFound].
type ForgottenError struct {
	Task    TaskID
	Session SessionID // of its last attempt; "" if there never was one
	Status  Status    // in which its last run ended
	Run     int
	Ended   time.Time
}

// Error names the task, how it ended and the session to look into.
func (e *ForgottenError) Error() string {
	s := fmt.Sprintf("%v any more: %q; run %d was %s", ErrNotFound, e.Task, e.Run, e.Status)
	if e.Session != "" {
		s += fmt.Sprintf(", in session %q", e.Session)
	}
	return s
}

// Is matches ErrNotFound.
func (e *ForgottenError) Is(target error) bool { return target == ErrNotFound }

// caller is who calls a verb: a session, by As, or the host.
type caller SessionID

// host is the program that owns the manager. All tasks are within its reach.
const host caller = ""

// above reports whether a task is below the caller, at any depth.
func (c caller) above(t *task) bool { return c == host || t.under(SessionID(c)) }

// reaches reports whether the caller may name a task: one that it is above, or the one
// that runs in the session itself.
func (c caller) reaches(t *task) bool { return t.session == SessionID(c) || c.above(t) }

// cause is the reason of a cancel that names none: who is the parent knows.
func (c caller) cause(t *task) ReasonCode {
	if c != host && t.parent() == SessionID(c) {
		return ByParent
	}
	return ByUser
}

// findLocked is the one look-up of a task by its id.
func (m *BackgroundManager) findLocked(id TaskID) (*task, error) {
	if t := m.byID[id]; t != nil {
		return t, nil
	}
	if g, ok := m.shelf.graves[id]; ok {
		return nil, &g.ForgottenError
	}
	return nil, unknown(id)
}

// reachLocked finds a task for a caller; of one that is forgotten its parent learns what
// is still known. One out of its reach is as unknown to it as an id that never was.
func (m *BackgroundManager) reachLocked(by caller, id TaskID) (*task, error) {
	t, err := m.findLocked(id)
	switch {
	case by == host:
		return t, err
	case err != nil && m.shelf.graves[id].parent == SessionID(by):
		return nil, err
	case err != nil || !by.reaches(t):
		return nil, unknown(id)
	}
	return t, nil
}

// reachSessionLocked is reachLocked for the task of a session.
func (m *BackgroundManager) reachSessionLocked(by caller, id SessionID) (*task, error) {
	if t := m.bySession[id]; t != nil && !t.forgotten && by.reaches(t) {
		return t, nil
	}
	if g, ok := m.shelf.graves[m.shelf.sessions[id]]; ok && (by == host || g.parent == SessionID(by)) {
		return nil, &g.ForgottenError
	}
	return nil, fmt.Errorf("%w: session %q", ErrNotFound, id)
}

func unknown(id TaskID) error { return fmt.Errorf("%w: %q", ErrNotFound, id) }

// seenLocked takes in that a caller is shown a task: a parent that is shown how a run of
// its own child has ended is not told of it any more. A session whose own task has ended,
// or is being stopped, is shown nothing that anybody reads: the next one above is told.
func (m *BackgroundManager) seenLocked(by caller, t *task) {
	if by == host || t.parent() != SessionID(by) || !t.status.Terminal() || t.owner.held() || t.owner.orphaned() {
		return
	}
	m.readLocked(t)
}

// Scoped is a manager as one session sees it; make one with [BackgroundManager.As]. It
// has those of the manager's verbs that a model's tools need, and they do the same. What
// differs:
//
// They reach the task that runs in the session itself, and all those below the session,
// at any depth. Any other task does not exist for them: the error is the same as for an
// id that never was, and a Filter that names one, or a foreign session, matches nothing.
// A task that is forgotten is a *[ForgottenError] for its own parent alone.
// What a task within reach says of those above it, in Root, in BlockedBy and in the text of
// a refused launch, are names alone: no verb finds them.
//
// A parent that is shown a run of its own child that has ended, by Get, BySession, Wait,
// WaitAny, WaitAll or Output, knows of it: a notification that was not sent yet leaves it
// out. That is counted in Stats as Read. List shows what there is, and counts as no
// reading; neither does a call that returns an error.
type Scoped struct {
	m       *BackgroundManager
	session SessionID
}

// As returns the manager as a session sees it, for the tools of its model: bind them to
// the session that calls, which the runtime knows, and never to one that the model
// names. A value of no session, as of the zero Scoped, is refused by every verb with an
// *[InputError], or sees nothing.
func (m *BackgroundManager) As(session SessionID) Scoped { return Scoped{m, session} }

// check refuses what is bound to no manager or session: it would see everything.
func (s Scoped) check() error {
	if err := s.m.made(); err != nil {
		return &InputError{"Scoped", "nil or its zero value", "make one with As, of a manager that New has made"}
	}
	if strings.TrimSpace(string(s.session)) == "" {
		return &InputError{"As.session", strconv.Quote(string(s.session)), "a session is required"}
	}
	return nil
}

func (s Scoped) caller() caller { return caller(s.session) }

// bind makes the session the parent of a launch.
func (s Scoped) bind(in *LaunchInput) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := s.own("LaunchInput.Parent", in.Parent); err != nil {
		return err
	}
	in.Parent = s.session
	return nil
}

// own refuses to act for another session.
func (s Scoped) own(field string, parent SessionID) error {
	if parent != "" && parent != s.session {
		return &InputError{field, strconv.Quote(string(parent)), "must be the session of As, " + strconv.Quote(string(s.session)) + ", or empty for it"}
	}
	return nil
}

// Launch is BackgroundManager.Launch with the session as the parent. LaunchInput.Parent
// is empty or the session itself; another is an *[InputError].
func (s Scoped) Launch(ctx context.Context, in LaunchInput) (Task, error) {
	if err := s.bind(&in); err != nil {
		return Task{}, err
	}
	return s.m.Launch(ctx, in)
}

// CanLaunch returns the error that Launch would return now.
func (s Scoped) CanLaunch(ctx context.Context, in LaunchInput) error {
	if err := s.bind(&in); err != nil {
		return err
	}
	return s.m.CanLaunch(ctx, in)
}

// Do is BackgroundManager.Do with the session as the parent, as in Launch.
func (s Scoped) Do(ctx context.Context, in LaunchInput) (Task, error) {
	if err := s.bind(&in); err != nil {
		return Task{}, err
	}
	return s.m.Do(ctx, in)
}

// Resume is BackgroundManager.Resume. ResumeInput.Parent is empty, or the session itself,
// to which the task then moves; another is an *[InputError].
func (s Scoped) Resume(ctx context.Context, id TaskID, in ResumeInput) (Task, error) {
	if err := s.check(); err != nil {
		return Task{}, err
	}
	if err := s.own("ResumeInput.Parent", in.Parent); err != nil {
		return Task{}, err
	}
	return s.m.resume(ctx, whose{by: s.caller(), id: id}, in)
}

// Get is BackgroundManager.Get.
func (s Scoped) Get(id TaskID) (Task, error) {
	if err := s.check(); err != nil {
		return Task{}, err
	}
	return s.m.get(s.caller(), id)
}

// BySession is BackgroundManager.BySession.
func (s Scoped) BySession(id SessionID) (Task, error) {
	if err := s.check(); err != nil {
		return Task{}, err
	}
	return s.m.inSession(s.caller(), id)
}

// List is BackgroundManager.List. The task that runs in the session itself is among
// those that it lists.
func (s Scoped) List(f Filter) []Task {
	if s.check() != nil {
		return nil
	}
	return s.m.list(s.caller(), f)
}

// Wait is BackgroundManager.Wait.
func (s Scoped) Wait(ctx context.Context, id TaskID) (Task, error) {
	if err := s.check(); err != nil {
		return Task{}, err
	}
	return s.m.wait(ctx, s.caller(), id)
}

// WaitAny is BackgroundManager.WaitAny for what is below the session: a wait for its own
// task would be one for itself.
func (s Scoped) WaitAny(ctx context.Context, f Filter) (Task, error) {
	if err := s.check(); err != nil {
		return Task{}, err
	}
	return s.m.waitAny(ctx, s.caller(), f)
}

// WaitAll is BackgroundManager.WaitAll for what is below the session, as in WaitAny.
func (s Scoped) WaitAll(ctx context.Context, f Filter) ([]Task, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.m.waitAll(ctx, s.caller(), f)
}

// Output is BackgroundManager.Output.
func (s Scoped) Output(ctx context.Context, id TaskID, q OutputQuery) (Output, error) {
	if err := s.check(); err != nil {
		return Output{}, err
	}
	return s.m.output(ctx, s.caller(), id, q)
}

// Cancel is BackgroundManager.Cancel. CancelOptions.Cause defaults to ByParent for a child
// of the session, which is not told of what it did itself, and to ByUser for its own task
// and for those further down, whose parents wait to be told.
func (s Scoped) Cancel(ctx context.Context, id TaskID, o CancelOptions) (Task, error) {
	if err := s.check(); err != nil {
		return Task{}, err
	}
	return s.m.cancel(ctx, s.caller(), id, o)
}

// CancelAll is BackgroundManager.CancelAll for what is below the session; its own task is
// left alone. Filter{Under: session} is all of that. CancelOptions.Cause defaults as in
// Cancel, task by task.
func (s Scoped) CancelAll(ctx context.Context, f Filter, o CancelOptions) ([]Task, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.m.cancelAll(ctx, s.caller(), f, o)
}

// Subscribe is BackgroundManager.Subscribe.
func (s Scoped) Subscribe(ctx context.Context, f Filter, topics ...Topic) (iter.Seq[Event], error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.m.subscribeAs(ctx, s.caller(), f, topics)
}

// History is BackgroundManager.History of the session.
func (s Scoped) History() string {
	if s.check() != nil {
		return ""
	}
	return s.m.History(s.session)
}

// Pending is BackgroundManager.Pending of the session.
func (s Scoped) Pending() Owed {
	if s.check() != nil {
		return Owed{}
	}
	return s.m.Pending(s.session)
}

// Drain is BackgroundManager.Drain of the session.
func (s Scoped) Drain() (n Notification, ack func(delivered bool), ok bool) {
	if s.check() != nil {
		return Notification{}, nil, false
	}
	return s.m.Drain(s.session)
}
