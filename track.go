package subagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// TrackInput is a session that somebody else made and prompted, and the task that it is to
// be.
type TrackInput struct {
	Session SessionID // its turn goes on, or is over. Required.
	Parent  SessionID // whose child it is, and who will be told; not the session itself, or one below it. Required unless NoNotice.
	Agent   string    // runs in it, as in LaunchInput. Required.

	// As in LaunchInput.
	Description, Model, Origin string
	Labels                     map[string]string
	Limits                     *TaskLimits
	NoNotice                   bool
	ParentContext              ParentContext
}

// Track makes a task of a session that was made elsewhere: it stands in line for a lease
// like any other, then waits for the turn that the session is in, and ends as that does;
// a turn that is over by then has its outcome all the same. The client has to be an
// [Attacher]; if it is none, the error is [errors.ErrUnsupported].
//
// A session is tracked once, however often and by how many it is asked for: that of a
// task whose run goes on gets that task back, moved to the parent that is named, which is
// then told of its end instead of the other one; it keeps its place in line and under the
// other's cap. That of a task that has ended begins another run. If no parent is named it
// keeps the one that it has. A session that has launched tasks of its own, or below which
// any are kept, can't be tracked any more: track it first. The errors are those of Launch
// and of Resume.
func (m *BackgroundManager) Track(ctx context.Context, in TrackInput) (Task, error) {
	if err := m.made(); err != nil {
		return Task{}, err
	}
	if in.Session == "" {
		return Task{}, &InputError{"TrackInput.Session", `""`, "a session is required"}
	}
	if m.caps.attacher == nil {
		return Task{}, fmt.Errorf("subagent: the client can't attach to a turn: %w", errors.ErrUnsupported)
	}
	launch := LaunchInput{
		Parent: in.Parent, Agent: in.Agent, Prompt: "(tracked)", Description: in.Description, Model: in.Model, Origin: in.Origin,
		Labels: in.Labels, Limits: in.Limits, NoNotice: in.NoNotice, ParentContext: in.ParentContext,
	}
	t, o, err := m.plan(ctx, launch)
	if err != nil {
		return Task{}, err
	}
	t.session, t.attach, t.tracked, t.in.Prompt = in.Session, true, true, ""
	m.mu.Lock()
	defer m.unlock()
	if t, err = m.trackLocked(t, o, in.Session); err != nil {
		return Task{}, err
	}
	m.dispatchLocked()
	return m.snapshotLocked(t), nil
}

// trackLocked enters a planned task, unless its session has one already.
func (m *BackgroundManager) trackLocked(fresh *task, o origin, id SessionID) (*task, error) {
	t := m.bySession[id]
	if t != nil && o.Parent == "" { // none was named: it stays where it is
		o = t.owner.origin
	}
	switch {
	case t == nil:
		if err := m.trackableLocked(id); err != nil {
			return nil, err
		}
		if o.Parent == id || o.Root == id || slices.Contains(o.via, id) {
			return nil, &InputError{"TrackInput.Parent", strconv.Quote(string(o.Parent)), "can't be the session itself, or below it"}
		}
		if err := m.launchLocked(fresh, o); err != nil {
			return nil, err
		}
		m.bySession[id] = fresh
		return fresh, nil
	case t.session != id:
		return nil, &InputError{"TrackInput.Session", strconv.Quote(string(id)), "is being given up by task " + string(t.id)}
	case t.status.Terminal():
		p := nextRun{
			task: t, run: t.run, from: o, origin: cmp.Or(fresh.in.Origin, t.in.Origin), attach: true, silent: fresh.silent,
			context: fresh.in.ParentContext, limits: fresh.limits,
		}
		return t, m.beginLocked(p)
	}
	return t, m.moveLocked(t, m.nowLocked(o), fresh.silent)
}

// trackableLocked says why a session that no task has can't have one now: it is being given
// up, an Abort of a run that is forgotten would stop its turn, or something in the books
// was launched below it, and would not end with it.
func (m *BackgroundManager) trackableLocked(id SessionID) error {
	if r, out := m.releasing[id]; out {
		return &InputError{"TrackInput.Session", strconv.Quote(string(id)), "is being given up by task " + string(r.task)}
	}
	for _, a := range m.attempts {
		if a.session == id && a.aborting {
			return &UnstoppedError{Calls: []UnstoppedCall{{Op: "abort", Task: a.task.id, Session: id}}}
		}
	}
	above := m.roots[id] != nil
	for _, b := range m.mailboxes { // a look at each: Track is rare
		above = above || b.origin.Parent == id || b.origin.asMovedLocked().Root == id || slices.Contains(b.origin.via, id)
	}
	if above {
		return &InputError{"TrackInput.Session", strconv.Quote(string(id)), "has launched tasks of its own already, or those below it have: track it before that"}
	}
	return nil
}
