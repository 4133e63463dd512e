package subagent_test

import (
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// life is what is known about one task. What is known about its runs is theirs; the run
// in it is the latest that is known to have begun, or, before there is any, the one that
// was asked for.
type life struct {
	*run
	name    string // its choices are keyed by it
	plain   bool   // its host does nothing wrong
	theirs  bool   // its session was made elsewhere
	id      subagent.TaskID
	made    subagent.SessionID // as its Create returned it
	session subagent.SessionID // as its first Prompt got it
	runs    []*run             // by number, from 1; nil: begun, and not known yet

	hushing int  // cancels that tell nobody and have not returned
	mayRead bool // its parent has read how a run ended, or tried
}

// run is what is known about one run of a task.
type run struct {
	place
	of        *life
	number    int    // from 1; 0: not known to have begun
	origin    string // whose call began it, or was to: it is the task's Origin
	in        subagent.LaunchInput
	again     bool   // asked for by Resume, or by Track: it may not be its task's first
	keeps     bool   // asked for without a parent: it has the one its task had by then
	stays     []stay // below whom it was, in order
	found     []stay // where a Track found it that wanted it there, as far as is known
	prompted  bool
	overtaken bool // its Prompt reaches the host after its Abort
	asked     time.Time
	began     time.Time // the call that began it returned
	slow      bool      // that call may have waited for the host
	creating  bool      // a Create is out

	introduced, barred bool // its hook was called; and its context ended before its time
	intro              time.Time

	answers  map[subagenttest.Op]outcome
	seen     subagent.Task  // as last seen
	stops    time.Time      // first seen stopping
	aborting time.Time      // its first Abort
	ended    *subagent.Task // as it ended
	end      int            // stamp: it was known to have ended
	wins     int            // cancels that say they ended it
	gaveUp   bool           // a Do has cancelled it, or tried
	mayHush  bool           // somebody tried to end it without a word
	hushed   bool           // and won
	read     bool           // its parent read how it ended, and nothing was on its way by then
}

// stay is from when on a run was below a parent.
type stay struct {
	from   time.Time
	parent subagent.SessionID
}

// told is what a parent is told of.
type toldRun struct {
	task subagent.TaskID
	run  int
}

func (r *run) notice() toldRun { return toldRun{r.of.id, r.number} }

// parent is whose child the run is, or was at its end.
func (r *run) parent() subagent.SessionID { return r.stays[len(r.stays)-1].parent }

// later is the run after it, as far as is known.
func (r *run) later() *run {
	if r.number == 0 || r.number >= len(r.of.runs) {
		return nil
	}
	return r.of.runs[r.number]
}

// allRuns are the runs that are known to have begun.
func (s *storm) allRuns() (all []*run) {
	for _, l := range s.byID {
		for _, r := range l.runs {
			if r != nil {
				all = append(all, r)
			}
		}
	}
	return all
}

// runOf finds the run that a notice is of.
func (s *storm) runOf(n subagent.Notice) *run {
	if l := s.byID[n.Task]; l != nil && n.Run >= 1 && n.Run <= len(l.runs) {
		return l.runs[n.Run-1]
	}
	return nil
}

// opens opens the record of a run that is about to be asked for.
func (s *storm) opens(l *life, name string, in subagent.LaunchInput) *run {
	in.Origin = name
	r := &run{of: l, origin: name, in: in, asked: time.Now(), answers: map[subagenttest.Op]outcome{}}
	r.stays = []stay{{r.asked, in.Parent}}
	r.mayHush = s.hushing > 0 || l.hushing > 0
	r.slow = s.faults > 0 || in.Parent != "" && in.Parent[0] == 'f'
	r.place = s.newPlace(in.Parent, in.Agent, in.Model, r)
	s.asked[name] = r
	s.line(r.place.key).add(&r.place)
	return r
}

// refused closes the record of a run that did not begin.
func (s *storm) refused(r *run) {
	delete(s.asked, r.origin)
	s.line(r.place.key).drop(&r.place)
}

// asksAgain opens the record of another run of a task.
func (s *storm) asksAgain(l *life, name string, parent subagent.SessionID, silent bool) *run {
	in := l.in
	in.NoNotice = silent
	if parent != "" {
		in.Parent = parent
	} else {
		in.Parent = l.parent()
	}
	for s.asked[name] != nil {
		name += "+"
	}
	r := s.opens(l, name, in)
	r.again, r.keeps = true, parent == ""
	return r
}

// bind learns which run a task that somebody was shown is in: its origin says whose call
// began it.
func (s *storm) bind(l *life, t subagent.Task) *run {
	if l.id != "" && l.id != t.ID || s.byID[t.ID] != nil && s.byID[t.ID] != l {
		s.wrong("task %s of launch %s has been another before", t.ID, l.name)
	}
	if l.id == "" { // it is read without the lock by those who have found it here
		l.id = t.ID
		s.byID[t.ID] = l
	}
	for len(l.runs) < t.Run {
		l.runs = append(l.runs, nil)
	}
	r := l.runs[t.Run-1]
	if r == nil {
		r = s.begins(l, t)
	}
	if r.origin != t.Origin {
		s.wrong("run %d of task %s was begun by %q, and is shown as begun by %q", t.Run, t.ID, r.origin, t.Origin)
	}
	return r
}

// begins takes in that a run has begun that somebody asked for.
func (s *storm) begins(l *life, t subagent.Task) *run {
	r := s.asked[t.Origin]
	if r == nil || r.number != 0 || r.of != l && !r.again {
		s.wrong("run %d of task %s was begun by %q, who did not ask for it, or has another", t.Run, t.ID, t.Origin)
		r = &run{origin: t.Origin, answers: map[subagenttest.Op]outcome{}, stays: []stay{{time.Now(), t.Parent}}}
	}
	r.of, r.number = l, t.Run
	if r.keeps && t.Parent != r.parent() && l.wasBelow(t.Parent) {
		s.keepsBelow(r, t.Parent)
	}
	if l.theirs && t.Run == 1 {
		l.session, s.bySess[t.Session] = t.Session, l
	}
	l.runs[t.Run-1] = r
	if t.Run == len(l.runs) {
		l.run = r
	}
	if b := s.mails[l.session]; b != nil && b.calls+b.drains == 0 && t.Run > 1 {
		b.cur = nil // went to the next above when the last run ended
	}
	return r
}

// wasBelow reports whether a call may have put the task below a parent.
func (l *life) wasBelow(parent subagent.SessionID) bool {
	return slices.ContainsFunc(l.runs, func(r *run) bool {
		return r != nil && slices.ContainsFunc(r.stays, func(st stay) bool { return st.parent == parent })
	})
}

// keepsBelow corrects whose child a run is that keeps its task's parent: the task came to
// that one between the call and what is known of it.
func (s *storm) keepsBelow(r *run, parent subagent.SessionID) {
	place := s.newPlace(parent, r.in.Agent, r.in.Model, r)
	r.in.Parent, r.stays[0].parent = parent, parent
	r.place.parent, r.place.shares = parent, place.shares
}

// goesOn takes in that a task has begun another run, perhaps below another parent.
func (s *storm) goesOn(r *run) {
	before := r.of.runs[r.number-2]
	if before == nil {
		return
	}
	_, old, _ := s.trace(before.parent())
	if _, root, _ := s.trace(r.parent()); root != old {
		s.total[root] += s.treeOf(r.of)
	}
}

// moved takes in that a run has another parent.
func (s *storm) moved(r *run, to subagent.SessionID) {
	if r.parent() == to {
		r.found = append(r.found, stay{time.Now(), to})
		return
	}
	if _, root, _ := s.trace(to); root != s.rootOf(r.of) {
		s.total[root] += s.treeOf(r.of)
	}
	r.stays = append(r.stays, stay{time.Now(), to})
}

// moves is how often a task has come to another parent, at least and at most: of several
// calls in one instant, some of which may have found it where they wanted it, only the
// manager knows which was first.
func (l *life) moves() (least, most int) {
	var stays, found []stay
	for _, r := range l.runs {
		stays, found = append(stays, r.stays...), append(found, r.found...)
	}
	parent, calls := stays[0].parent, -1 // the first began it
	for i, st := range stays {
		calls++
		if i+1 < len(stays) && stays[i+1].from.Equal(st.from) {
			continue
		}
		for _, f := range found {
			if f.from.Equal(st.from) {
				calls++
			}
		}
		moved := 0
		if st.parent != parent {
			moved = 1
		}
		least += moved
		if most += moved; calls > 1 {
			most += calls - moved
		}
		parent, calls = st.parent, 0
	}
	return least, most
}

// treeOf is how many tasks there are below a task, and itself.
func (s *storm) treeOf(l *life) (n int) {
	for _, other := range s.byID {
		if other == l || s.isBelow(other, l) {
			n++
		}
	}
	return n
}

func (s *storm) isBelow(l, above *life) bool { return slices.Contains(s.allAbove(l), above) }

// allAbove are the tasks above one, the nearest first.
func (s *storm) allAbove(l *life) (all []*life) {
	for up := s.above(l); up != nil; up = s.above(up) {
		if slices.Contains(all, up) {
			s.wrong("task %s is below itself", up.id)
			break
		}
		all = append(all, up)
	}
	return all
}

func (s *storm) above(l *life) *life {
	above, _, _ := s.trace(l.parent())
	return above
}

func (s *storm) rootOf(l *life) subagent.SessionID {
	_, root, _ := s.trace(l.parent())
	return root
}

// tookUnseen takes in that a run that goes on in its session had its lease, although the
// host saw nothing of it: it was stopped in the instant in which it got that. Nobody knows
// who was before it.
func (s *storm) tookUnseen(r *run, at time.Time) {
	if !r.again {
		s.wrong("run %d of task %s had its lease at %v, and nothing was asked of the host", r.number, r.of.id, at.Sub(s.born))
	}
	r.got, r.round = at, s.rounds
	s.hold = append(s.hold, &r.place)
	l := s.line(r.place.key)
	l.unseen = append(l.unseen, &r.place)
}

// inOrder settles at a rest who moved a task last: of moves in one instant only the manager
// knows.
func (s *storm) inOrder(r *run, to subagent.SessionID) {
	last := r.stays[len(r.stays)-1]
	if last.parent == to {
		return
	}
	fits := func(o stay) bool { return o.parent == to && o.from.Equal(last.from) }
	if i := slices.IndexFunc(r.stays[1:], fits); i >= 0 {
		r.stays = slices.Delete(r.stays, i+1, i+2)
	} else if !slices.ContainsFunc(r.found, fits) {
		s.wrong("task %s is below %q, and was put below %q", r.of.id, to, last.parent)
	}
	r.stays = append(r.stays, stay{last.from, to})
}

// below are the parents that a task, or with upTo one of its runs and those before it, may
// have had in an instant.
func (l *life) below(at time.Time, upTo *run) (parents []subagent.SessionID) {
	var last *stay
	for _, r := range l.runs {
		if r == nil || upTo != nil && r.number > upTo.number {
			continue
		}
		for i := range r.stays {
			switch st := &r.stays[i]; {
			case st.from.Before(at), last == nil:
				last = st
			case st.from.Equal(at):
				parents = append(parents, st.parent)
			}
		}
	}
	if last != nil {
		parents = append(parents, last.parent)
	}
	return parents
}

// states is what a task may have been in an instant: one whose session is told, or one
// that has ended, or was stopped with an ancestor before or after it.
func (l *life) states(at time.Time) (live, over bool) {
	for _, r := range l.runs {
		if r == nil || r.began.After(at) && r.number > 1 {
			continue
		}
		if next := r.later(); next != nil && !next.began.IsZero() && next.began.Before(at) {
			continue
		}
		ended := r.ended != nil
		live = live || !ended || !r.ended.Ended.Before(at)
		over = over || ended && !r.ended.Ended.After(at) || r.doomed()
	}
	return live, over
}

// heir is the session that is told of a task that ends now: its parent, or where what that
// was owed went when it ended before.
func (s *storm) heir(r *run) subagent.SessionID {
	p := r.parent()
	for range 1000 {
		above := s.bySess[p]
		if above == nil || above.ended == nil && !above.doomed() {
			break
		}
		p = above.parent()
	}
	return p
}

// heirs are all that it may have been in an instant, as far as is known later.
func (s *storm) heirs(r *run, at time.Time) map[subagent.SessionID]bool {
	all, known := map[subagent.SessionID]bool{}, map[subagent.SessionID]bool{}
	var climb func(parents []subagent.SessionID)
	climb = func(parents []subagent.SessionID) {
		for _, p := range parents {
			l := s.bySess[p]
			if known[p] {
				continue
			}
			known[p] = true
			if l == nil {
				all[p] = true
				continue
			}
			live, over := l.states(at)
			if live {
				all[p] = true
			}
			if over {
				climb(l.below(at, nil))
			}
		}
	}
	climb(r.of.below(at, r))
	return all
}

// between visits all tasks through which what a run is owed may ever have come to a
// session.
func (s *storm) between(r *run, to subagent.SessionID, visit func(*life)) {
	known := map[*life]bool{}
	var climb func(r *run)
	climb = func(r *run) {
		for _, st := range r.stays {
			l := s.bySess[st.parent]
			if st.parent == to || l == nil || known[l] {
				continue
			}
			known[l] = true
			visit(l)
			for _, r := range l.runs {
				if r != nil {
					climb(r)
				}
			}
		}
	}
	climb(r)
}

// stirred reports whether a run, or a task above it, has come to another place, or to life
// again, since an instant.
func (s *storm) stirred(r *run, to subagent.SessionID, since time.Time) (yes bool) {
	for _, st := range r.stays[1:] {
		yes = yes || !st.from.Before(since)
	}
	s.between(r, to, func(l *life) {
		for _, r := range l.runs {
			if r != nil && (r.number > 1 || len(r.stays) > 1) {
				yes = yes || !r.stays[len(r.stays)-1].from.Before(since) || !r.began.Before(since)
			}
		}
	})
	return yes
}

// arrived is when a notice came to a mailbox that was free from an instant on: at the
// run's end, or when the last one between the two had ended. Of several ways it is the
// latest.
func (s *storm) arrived(r *run, to subagent.SessionID, free time.Time) time.Time {
	reached := false
	var climb func(p subagent.SessionID, at, late time.Time)
	climb = func(p subagent.SessionID, at, late time.Time) {
		if p == to {
			if reached = true; late.After(free) {
				free = late
			}
			return
		}
		above := s.bySess[p]
		if above == nil {
			return
		}
		for _, from := range above.overFrom(at) {
			for _, p := range above.below(from, nil) {
				climb(p, from, latest(late, from, s.mail(above.session).back)) // what was out at that end comes on from there
			}
		}
	}
	for _, p := range r.of.below(r.ended.Ended, r) {
		climb(p, r.ended.Ended, r.ended.Ended)
	}
	if !reached {
		s.wrong("run %d of task %s of %q is owed to %q, and those between have not ended", r.number, r.of.id, r.parent(), to)
	}
	return free
}

func latest(at ...time.Time) time.Time { return slices.MaxFunc(at, time.Time.Compare) }

// overFrom is from when on, not before an instant, nobody read in the session of a task.
func (l *life) overFrom(at time.Time) (from []time.Time) {
	for _, r := range l.runs {
		if r == nil {
			continue
		}
		if next := r.later(); next != nil && next.began.Before(at) {
			continue
		}
		switch {
		case r.ended != nil:
			from = append(from, latest(at, r.ended.Ended))
		case r.seen.Status == subagent.Stopping: // it took the notice when nobody read there any more
			from = append(from, time.Now())
		}
	}
	return from
}
