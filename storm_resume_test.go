package subagent_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// asking counts the calls that may begin a run in a session, or move its task: so far, and
// those that have not returned.
type asking struct{ n, out int }

func (s *storm) askingAt(id subagent.SessionID) *asking {
	a := s.askings[id]
	if a == nil {
		a = &asking{}
		s.askings[id] = a
	}
	return a
}

// resumeSome has a task go on, asked once, or by two at once.
func (s *storm) resumeSome(r *rand.Rand, name string) {
	l, ok := s.target(r)
	if !ok {
		_, err := s.m.Resume(context.Background(), "bg_none", subagent.ResumeInput{Prompt: "work"})
		s.must(err, subagent.ErrNotFound)
		return
	}
	s.atOnce(r, name, func(r *rand.Rand, name string) { s.resume(r, name, l.id, s.newParent(r, l)) })
}

// atOnce does something, now and then twice at the same time.
func (s *storm) atOnce(r *rand.Rand, name string, do func(r *rand.Rand, name string)) {
	var both sync.WaitGroup
	if r.IntN(4) == 0 {
		other := s.dice("other", name)
		both.Go(func() { do(other, name+"'") })
	}
	do(r, name)
	both.Wait()
}

// newParent is for whom a task is to go on: mostly for its own parent; else for anybody, or
// for a session that can't be its parent.
func (s *storm) newParent(r *rand.Rand, l life) subagent.SessionID {
	switch n := r.IntN(12); {
	case n < 7:
		return ""
	case n == 7 && l.session != "":
		return "f/" + l.session
	case n == 8:
		return l.session
	}
	return s.someone(r)
}

// resume asks for another run of a task.
func (s *storm) resume(r *rand.Rand, name string, id subagent.TaskID, parent subagent.SessionID) {
	endings, stop := s.endings()
	defer stop()
	before, err := s.m.Get(id)
	if err != nil {
		s.wrong("a task is not found: %v", err)
		return
	}
	s.ifEnded("Get", before)
	s.mu.Lock()
	l := s.byID[id]
	again := s.asksAgain(l, name, parent, r.IntN(8) == 0)
	s.moving = s.moving || parent != ""
	a := s.askingAt(before.Session)
	a.n, a.out = a.n+1, a.out+1
	alone, n := l.ended != nil && a.out == 1, a.n
	s.mu.Unlock()

	in := subagent.ResumeInput{Prompt: "work", Parent: parent, Origin: again.origin, NoNotice: again.in.NoNotice}
	var t subagent.Task
	if before.Session != "" && r.IntN(4) == 0 {
		t, err = s.m.ResumeSession(context.Background(), before.Session, in)
	} else {
		t, err = s.m.Resume(context.Background(), id, in)
	}

	now, _ := s.m.Get(id)
	s.mu.Lock()
	a.out--
	alone = alone && a.n == n && a.out == 0
	s.mu.Unlock()
	if err != nil {
		s.resumeRefused(again, before, now, alone, err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused(again)
		return
	}
	s.resumed(again, t, endings, stop)
}

// resumed takes in that a call has begun another run.
func (s *storm) resumed(again *run, t subagent.Task, endings iter.Seq[subagent.Event], stop func()) {
	s.mu.Lock()
	l := s.lifeOf(t)
	if l == nil || s.bind(l, t) != again || t.Parent != again.stays[0].parent {
		s.wrong("%s has begun run %d of task %s below %q, and that is another", again.origin, t.Run, t.ID, t.Parent)
		s.mu.Unlock()
		return
	}
	if l.session != "" && (again.parent() == l.session || s.above(l) == l || s.above(l) != nil && s.isBelow(s.above(l), l)) {
		s.wrong("task %s went on below itself, for %q", l.id, again.parent())
	}
	if kind, _ := kindOf(t.Session); l.theirs && kind != "t" {
		s.wrong("session %s was tracked, and has launched already", t.Session)
	}
	s.joined(again, t)
	missed := t.Run > 1 && (l.runs[t.Run-2] == nil || l.runs[t.Run-2].ended == nil)
	s.mu.Unlock()
	if missed {
		time.AfterFunc(time.Second, stop) // it is there already
		s.hearEnding(t, endings)
	}
}

// endings subscribes to the endings from now on.
func (s *storm) endings() (iter.Seq[subagent.Event], context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	events, err := s.m.Subscribe(ctx, subagent.Filter{
		Statuses: []subagent.Status{subagent.Completed, subagent.Failed, subagent.Cancelled, subagent.Interrupted},
	}, subagent.TopicStatus)
	if err != nil { // the manager is closed
		return func(func(subagent.Event) bool) {}, stop
	}
	return events, stop
}

// hearEnding learns how the run before one that has just begun had ended.
func (s *storm) hearEnding(t subagent.Task, endings iter.Seq[subagent.Event]) {
	for e := range endings {
		if e.Task.ID == t.ID && e.Run == t.Run-1 {
			s.sees("a subscriber", e.Task)
			return
		}
	}
	s.wrong("nobody heard how run %d of task %s ended, and run %d has begun", t.Run-1, t.ID, t.Run)
}

func (s *storm) ifEnded(who string, t subagent.Task) {
	if t.Status.Terminal() {
		s.sees(who, t)
	}
}

// resumeRefused sees that another run was refused for a reason that was true. alone says
// that the task had ended before the call, and that nobody else asked meanwhile.
func (s *storm) resumeRefused(again *run, before, now subagent.Task, alone bool, err error) {
	s.mu.Lock()
	l, parent := again.of, again.in.Parent
	aborts := s.isOut(l, subagenttest.OpAbort) || !l.answers[subagenttest.OpAbort].at.Before(again.asked)
	s.mu.Unlock()
	fits := false
	switch {
	case errors.Is(err, subagent.ErrNotEnded):
		fits = !alone
	case errors.Is(err, subagent.ErrUnstopped):
		fits = mark(before) != nil || mark(now) != nil || aborts
	case errors.Is(err, subagent.ErrNoSession):
		fits = before.Session == ""
	case s.isInput(err, "ResumeInput.Parent"):
		fits = s.underItself(before.Session, parent)
	default:
		s.refusalOf(again, again.in, err)
		return
	}
	if !fits {
		s.wrong("another run of task %s for %q is refused with %v; it was %+v", l.id, parent, err, before)
	}
}

func (s *storm) isInput(err error, field string) bool {
	var input *subagent.InputError
	return errors.As(err, &input) && input.Field == field
}

// underItself reports whether a parent is a session, or below it.
func (s *storm) underItself(id, parent subagent.SessionID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 1000 {
		l := s.bySess[parent]
		kind, rest := kindOf(parent)
		switch {
		case parent == id:
			return true
		case l != nil:
			parent = l.parent()
		case kind == "f":
			parent = rest
		default:
			return false
		}
	}
	return true
}

// treeIsLive is how many live descendants a root gets with a task that goes on, or moves
// there.
func (s *storm) treeIsLive(l *life) (n int) {
	for _, other := range s.byID {
		if other == l || other.ended == nil && s.isBelow(other, l) {
			n++
		}
	}
	return max(n, 1)
}
