package subagent_test

import (
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// settleTime is how long a stopped child may take to return after its Abort did.
const settleTime = time.Second

// check looks at a manager at rest: its books agree with each other, and with what
// the ledger saw.
func (s *storm) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rounds++
	for _, l := range s.lines { // who waits in Acquire is in its queue by now
		for _, p := range l.places {
			if p.run == nil && p.queued == 0 {
				s.queue(p)
			}
		}
	}
	tasks := s.m.List(subagent.Filter{})
	for _, t := range tasks {
		l := s.lifeOf(t)
		if l == nil {
			return
		}
		s.joined(l.run, t)
		s.inOrder(l.run, t.Parent)
		s.see("the list", l.run, t)
		s.checkTask(l, t)
		s.checkRuns(l, t)
	}
	for _, t := range tasks {
		s.standsAt(s.byID[t.ID], t)
	}
	if len(tasks) != len(s.byID) {
		s.wrong("%d tasks are listed, and %d were launched", len(tasks), len(s.byID))
	}
	s.checkTrees(tasks)
	s.checkSpawn()
	s.checkHeld()
	s.checkOrder()
	s.checkWork()
	s.checkMail()
	s.checkLoose()
	s.checkListed()
	if err := s.m.CheckBooks(s.leases(), s.reserved); err != nil {
		s.wrong("books: %v", err)
	}
}

func (s *storm) leases() (held []*subagent.Lease) {
	for _, p := range s.hold {
		if p.run == nil {
			held = append(held, p.lease)
		}
	}
	return held
}

// checkTask: a task's status says what the host is doing for it, and none lasts
// longer than it may.
func (s *storm) checkTask(l *life, t subagent.Task) {
	now, create, prompt := time.Now(), l.creating, s.isOut(l, subagenttest.OpPrompt)
	fits, since, most := true, t.Queued, s.cfg.Task.QueueWait
	switch t.Status {
	case subagent.Pending:
		fits = l.got.IsZero() && !create && !prompt
	case subagent.Starting:
		fits, since, most = (create || s.introducing(l)) && !prompt, l.got, s.cfg.Task.Start
		if l.introduced {
			most += hookTime
		}
	case subagent.Running:
		fits, most = prompt && !create, subagent.Off
	case subagent.Stopping:
		fits = create || prompt || s.isOut(l, subagenttest.OpAbort)
		since, most = l.stops, s.cfg.AbortGrace+settleTime
	default:
		most = subagent.Off
	}
	if !fits {
		s.wrong("task %s is %v because of %v, and its Create is out: %v, its Prompt: %v", l.id, t.Status, t.Reason, create, prompt)
	}
	if most != subagent.Off && now.Sub(since) > most {
		s.wrong("task %s is %v for %v", l.id, t.Status, now.Sub(since))
	}
	if !t.Started.Equal(l.got) || !t.Ended.IsZero() && t.Ended.Before(t.Started) || t.Queued.After(now) {
		s.wrong("task %s: queued %v, started %v and seen %v, ended %v", l.id, t.Queued, t.Started, l.got, t.Ended)
	}
	if len(t.Result.Text) > s.cfg.Task.ResultBytes {
		s.wrong("task %s keeps %d bytes", l.id, len(t.Result.Text))
	}
}

// checkTrees: below a task that was stopped or failed nothing is open; and nobody
// is ended for an ancestor that was not.
func (s *storm) checkTrees(tasks []subagent.Task) {
	stopped := map[*life]bool{}
	for _, t := range tasks {
		stopped[s.byID[t.ID]] = t.Status >= subagent.Stopping && t.Status != subagent.Completed
	}
	for _, t := range tasks {
		below := false
		for _, above := range s.allAbove(s.byID[t.ID]) {
			below = below || stopped[above]
		}
		if below && t.Status < subagent.Stopping {
			s.wrong("task %s is %v, and one above it was stopped", t.ID, t.Status)
		}
		if codeOf(t) == subagent.ParentGone && !below && !s.wasStopped(s.byID[t.ID].run) {
			s.wrong("task %s was stopped with an ancestor, and none was", t.ID)
		}
	}
}

// wasStopped reports whether one that was ever above a run was stopped, which may have gone
// on since, or the run elsewhere.
func (s *storm) wasStopped(r *run) (yes bool) {
	known := map[*life]bool{}
	var climb func(r *run)
	climb = func(r *run) {
		for _, st := range r.stays {
			above, _, _ := s.trace(st.parent)
			if above == nil || known[above] {
				continue
			}
			known[above] = true
			for _, o := range above.runs {
				yes = yes || o.seen.Status >= subagent.Stopping && o.seen.Status != subagent.Completed
				climb(o)
			}
		}
	}
	climb(r)
	return yes
}

// checkRuns: a task has one run at a time, and each but the last has ended.
func (s *storm) checkRuns(l *life, t subagent.Task) {
	if t.Run != len(l.runs) {
		s.wrong("task %s is in run %d of %d", l.id, t.Run, len(l.runs))
	}
	for i, r := range l.runs {
		if r == nil || r.queued == 0 || i+1 < len(l.runs) && (r.ended == nil || l.runs[i+1] != nil && l.runs[i+1].began.Before(r.ended.Ended)) {
			s.wrong("run %d of task %s has not begun, or not ended before the next: %+v", i+1, l.id, r)
		}
	}
}

// checkSpawn: no root has more live descendants than allowed.
func (s *storm) checkSpawn() {
	roots := map[subagent.SessionID]bool{}
	for _, l := range s.byID {
		roots[s.rootOf(l)] = true
	}
	for root := range roots {
		if n := s.live(root); n > s.cfg.Spawn.LivePerRoot {
			s.wrong("root %q has %d live descendants, and %d are allowed", root, n, s.cfg.Spawn.LivePerRoot)
		}
	}
}

// live counts the open tasks and places under a root, as known at the last rest.
func (s *storm) live(root subagent.SessionID) int {
	n := s.reserved[root]
	for _, l := range s.byID {
		if l.ended == nil && s.rootOf(l) == root {
			n++
		}
	}
	return n
}

// checkLoose: no child runs unseen, and none that is at rest is called unstopped.
func (s *storm) checkLoose() {
	unstopped := 0
	for _, l := range s.byID {
		if mark(l.seen) != nil {
			unstopped++
			if l.answers[subagenttest.OpPrompt].good() {
				s.wrong("task %s is unstopped, %v, and its turn is over", l.id, mark(l.seen))
			}
		}
	}
	if n := s.m.Stats().Unstopped; n != unstopped {
		s.wrong("%d tasks are counted as unstopped, and %d say so", n, unstopped)
	}
	for _, session := range s.client.Sessions() {
		l := s.byID[session.Task]
		if kind, _ := kindOf(session.ID); kind == "t" {
			l = s.bySess[session.ID]
		}
		if l == nil || session.ID == sameID || s.isOut(l, subagenttest.OpAbort) /* it is being stopped once more */ || s.begunSince(l) {
			continue
		}
		if session.Running && l.ended != nil && mark(l.seen) == nil {
			s.wrong("the child of task %s runs on in %s, and run %d of the task is %v because of %v at %v; it was %+v", l.id, session.ID, l.number, l.ended.Status, l.ended.Reason, l.ended.Ended.Sub(s.born), l.answers)
		}
	}
}

// mark says why the child of a task's last attempt is not known to be at rest.
func mark(t subagent.Task) error {
	if n := len(t.Attempts); n > 0 {
		return t.Attempts[n-1].Unstopped
	}
	return nil
}

// checkOutcomes compares at the end why each run ended with what its host did, and
// with who says that he ended it.
func (s *storm) checkOutcomes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.allRuns() {
		if r.ended != nil {
			s.checkOutcome(r, *r.ended)
		}
	}
}

func (s *storm) checkOutcome(r *run, t subagent.Task) {
	l := r.of
	create, prompt := r.answers[subagenttest.OpCreate], r.answers[subagenttest.OpPrompt]
	wins, fits := 0, true
	if a := r.answers[subagenttest.OpAbort]; a.good() && a.at.Before(r.aborting.Add(s.cfg.AbortGrace)) && a.at.Equal(prompt.at) && t.Ended.Equal(a.at) && mark(t) == nil && prompt.said && t.Result.Run != t.Run {
		s.wrong("what task %s had said when it was stopped is lost", l.id)
	}
	switch code := codeOf(t); code {
	case "":
		fits = prompt.good() && t.Ended.Equal(prompt.at)
	case subagent.NoOutput:
		fits = prompt.kind == "blank"
	case subagent.Panicked:
		fits = create.kind == "panic" || prompt.kind == "panic"
	case subagent.SessionFailed:
		fits = create.kind != "" && !create.good() || prompt.kind == "error"
	case subagent.PromptFailed:
		fits = prompt.kind == "error"
	case subagent.StartTimeout:
		due := r.got.Add(s.cfg.Task.Start)
		fits = !t.Ended.Before(due) && (create.kind == "" || !create.at.Before(due))
	case subagent.QueueTimeout:
		fits = r.got.IsZero() && t.Ended.Sub(t.Queued) == s.cfg.Task.QueueWait
	case subagent.ByUser, subagent.ByParent, subagent.Superseded:
		wins = 1
		if r.gaveUp && (code == subagent.ByParent || code == subagent.ByUser && len(r.stays) > 1) {
			wins = r.wins
		}
	case subagent.ByShutdown:
		fits = !s.closing.IsZero()
	case subagent.ParentGone: // see checkTrees
	default:
		fits = false
	}
	if l.made != "" && l.made != sameID && l.session == "" && !s.released[l.made] {
		s.wrong("session %s, made too late for task %s, was not given up", l.made, l.id)
	}
	if !fits {
		s.wrong("task %s is %v because of %v; its Create was %+v, its Prompt %+v", l.id, t.Status, t.Reason, create, prompt)
	}
	if s.interrupts && wins == 1 && codeOf(t) == subagent.ByUser && r.wins == 0 {
		wins = 0
	}
	if r.wins != wins {
		s.wrong("task %s is %v because of %v, and %d say they ended it", l.id, t.Status, t.Reason, r.wins)
	}
}
