package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// Sessions t/… are made and prompted by somebody else. To the fake host their turns are
// prompts for a task of the session's name.

// theirs are the sessions that somebody else makes, before all else.
func (s *storm) theirs() {
	for i := range theirSessions {
		id := fmt.Sprint("t/", i)
		_, _ = s.client.Create(context.Background(), subagent.CreateRequest{Task: subagent.TaskID(id)})
	}
}

const theirSessions = 4

// theirTurn is the last turn that somebody else has begun in a session.
type theirTurn struct {
	stamp  int
	over   chan struct{}
	result subagent.Result // when it is
	err    error
}

func (t *theirTurn) isOver() bool {
	select {
	case <-t.over:
		return true
	default:
		return false
	}
}

// prompts has somebody else begin a turn, unless one goes on, or the manager may begin one.
func (s *storm) prompts(id subagent.SessionID) {
	s.mu.Lock()
	l, before := s.bySess[id], s.turns[id]
	free := l == nil || l.ended != nil && mark(l.seen) == nil
	if !s.closing.IsZero() || s.askingAt(id).out > 0 || !free || before != nil && !before.isOver() {
		s.mu.Unlock()
		return
	}
	turn := &theirTurn{stamp: s.tick(), over: make(chan struct{}), err: errStorm}
	s.turns[id] = turn
	s.mu.Unlock()
	s.ops.Go(func() {
		defer func() {
			_ = recover()
			close(turn.over)
		}()
		turn.result, turn.err = s.client.Prompt(context.Background(), id, subagent.Prompt{Task: subagent.TaskID(id)})
	})
	for !turn.isOver() && !s.runs(id) { // else an Abort overtakes it, which is not the manager's fault
		runtime.Gosched()
	}
}

// runs reports whether a turn goes on in a session.
func (s *storm) runs(id subagent.SessionID) bool {
	return slices.ContainsFunc(s.client.Sessions(), func(st subagenttest.SessionState) bool { return st.ID == id && st.Running })
}

// theirScript is what becomes of a turn of somebody else, and of an Abort of it.
func (s *storm) theirScript(c subagenttest.Call) subagenttest.Action {
	if c.Op == subagenttest.OpCreate {
		return subagenttest.Action{ID: subagent.SessionID(c.Task)}
	}
	r := s.dice(c.Task, c.Op, c.N)
	a := s.action(r, c.Op)
	a.Orphan = false // that an Attach ends before its turn is the doing of theirs
	return a
}

// begunSince reports whether the turn that goes on in a task's session is of somebody else,
// who began it after the task had ended.
func (s *storm) begunSince(l *life) bool {
	turn := s.turns[l.session]
	return turn != nil && l.ended != nil && turn.stamp > l.end
}

// Attach waits for the turn of somebody else. Now and then its line is cut.
func (h host) Attach(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	return h.s.turnOf(ctx, h.s.promptedIn(id, p, true), id, func(l *life) (subagent.Result, error) {
		r, err := h.s.attach(ctx, id, h.s.dice("attach", l.origin))
		h.s.act(ctx, l, "after", true)
		return r, err
	})
}

func (s *storm) attach(ctx context.Context, id subagent.SessionID, r *rand.Rand) (subagent.Result, error) {
	var cut <-chan time.Time
	if !s.calm.Load() && r.Float64() < s.faults {
		switch r.IntN(4) {
		case 0:
			panic(errStorm)
		case 1:
			return subagent.Result{}, errStorm
		}
		cut = time.After(s.while(r, 10*time.Second))
	}
	s.mu.Lock()
	turn := s.turns[id]
	s.mu.Unlock()
	if turn == nil && r.IntN(2) == 0 {
		return subagent.Result{Text: fmt.Sprint("said in ", id)}, nil
	}
	if turn == nil {
		return subagent.Result{}, &subagent.SessionError{Op: "attach", Session: id, Class: subagent.ClassInvalid, Err: errStorm}
	}
	select {
	case <-turn.over:
		return turn.result, turn.err
	case <-cut:
		return subagent.Result{}, errStorm
	case <-ctx.Done():
		return subagent.Result{}, context.Cause(ctx)
	}
}

// trackSome makes a task of a session, asked once, or by two at once: of one that somebody
// else has prompted, or of a task's.
func (s *storm) trackSome(r *rand.Rand, name string) {
	session := subagent.SessionID(fmt.Sprint("t/", r.IntN(theirSessions)))
	l, ok := s.target(r)
	switch n := r.IntN(12); {
	case ok && n == 0:
		session = l.in.Parent // if it is not a task's it can't be tracked any more
	case ok && n < 4 && l.session != "":
		session = l.session
	case n < 10:
		s.prompts(session)
	}
	s.atOnce(r, name, func(r *rand.Rand, name string) {
		parent := s.someone(r)
		switch r.IntN(12) {
		case 0:
			parent = session
		case 1:
			parent = "f/" + session
		}
		s.track(r, name, session, parent)
	})
}

func (s *storm) track(r *rand.Rand, name string, session, parent subagent.SessionID) {
	endings, stop := s.endings()
	defer stop()
	before, _ := s.m.BySession(session)
	s.ifEnded("BySession", before)
	as := s.dice("theirs", session)
	in := s.input(as, name, parent)
	in.NoNotice = as.IntN(8) == 0 // the same for all who ask at once: the last one's counts

	s.mu.Lock()
	known := s.bySess[session]
	if known != nil {
		in.Agent, in.Model = known.in.Agent, known.in.Model
	}
	fresh := s.asksLocked(name, in)
	asked := fresh.run
	fresh.theirs, asked.again = true, true
	s.moving = true // two may ask at once, for different parents
	a := s.askingAt(session)
	a.n, a.out = a.n+1, a.out+1
	alone, n := known != nil && known.ended != nil && a.out == 1, a.n
	s.mu.Unlock()

	t, err := s.m.Track(context.Background(), subagent.TrackInput{
		Session: session, Parent: parent, Agent: in.Agent, Model: in.Model, Description: in.Description,
		Origin: asked.origin, Labels: asked.in.Labels, NoNotice: in.NoNotice,
	})
	now, _ := s.m.BySession(session)

	s.mu.Lock()
	a.out--
	alone = alone && a.n == n && a.out == 0
	s.mu.Unlock()
	if err == nil && t.Origin == asked.origin {
		s.resumed(asked, t, endings, stop)
	}
	if err != nil {
		s.trackRefused(asked, session, before, now, alone, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[t.Labels["n"]]; l != fresh || err != nil {
		delete(s.lives, fresh.name)
	}
	if err != nil || t.Origin != asked.origin {
		s.refused(asked)
	}
	if err == nil && t.Origin != asked.origin {
		s.movedTo(t, parent, in.NoNotice)
	}
}

// movedTo takes in that a Track found a run that goes on.
func (s *storm) movedTo(t subagent.Task, parent subagent.SessionID, silent bool) {
	if t.Parent != parent || t.Status.Terminal() {
		s.wrong("task %s, tracked for %q, is %v below %q", t.ID, parent, t.Status, t.Parent)
	}
	if l := s.lifeOf(t); l != nil {
		r := s.bind(l, t)
		if r.parent() != parent {
			r.in.NoNotice = silent
		}
		s.moved(r, parent)
	}
}

// trackRefused sees that a Track was refused for a reason that was true.
func (s *storm) trackRefused(asked *run, session subagent.SessionID, before, now subagent.Task, alone bool, err error) {
	parent := asked.in.Parent
	s.mu.Lock()
	known := s.byID[now.ID]
	s.mu.Unlock()
	switch {
	case s.isInput(err, "TrackInput.Session"):
		if !s.hasLaunched(session) {
			s.wrong("session %s, which has launched nothing, is not tracked: %v", session, err)
		}
	case s.isInput(err, "TrackInput.Parent"):
		if !s.underItself(session, parent) {
			s.wrong("session %s is not tracked for %q: %v", session, parent, err)
		}
	case errors.Is(err, subagent.ErrEnded):
		if t := before; t.Status != subagent.Stopping && now.Status < subagent.Stopping && now.Run == before.Run {
			s.wrong("session %s is not tracked for %q: %v; its task is %v", session, parent, err, now.Status)
		}
	case before.ID != "" && before.Run == now.Run && now.Status < subagent.Stopping && s.isFull(err, now.Root) && before.Root == now.Root:
		s.wrong("session %s can't move to %q in its own tree: %v", session, parent, err)
	case known == nil:
		s.refusalOf(asked, asked.in, err)
	default:
		again := *asked
		again.of = known
		s.resumeRefused(&again, before, now, alone, err)
	}
}

// hasLaunched reports whether a session, or one below it, may have launched.
func (s *storm) hasLaunched(session subagent.SessionID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.asked {
		if _, root, _ := s.trace(r.parent()); r.in.Parent == session || root == session {
			return true
		}
	}
	return false
}

// isFull reports whether an error says that a root has as many live descendants as it may.
func (s *storm) isFull(err error, root subagent.SessionID) bool {
	var limit *subagent.LimitError
	return errors.As(err, &limit) && limit.Setting == "Config.Spawn.LivePerRoot" && limit.Root == root
}
