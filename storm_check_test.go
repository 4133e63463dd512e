package subagent_test

import (
	"slices"

	"github.com/seed-48fd9ae4/subagent"
)

// check looks at a manager at rest: its books agree with each other, and with
// what the fakes saw.
func (s *storm) check() {
	if s.quiet() {
		if err := s.m.CheckBooks(nil, nil); err != nil {
			s.wrong("books: %v", err)
		}
	}
	tasks := s.m.List(subagent.Filter{})
	s.checkEndings(tasks)
	s.checkOrder(tasks)
	s.checkLoose(tasks)
	s.checkLimits(tasks)
}

// quiet reports whether no operation holds leases or reservations of its own,
// which the books count and the check does not know.
func (s *storm) quiet() bool { return s.m.OutsideHolds() == 0 }

// checkEndings: a run ends once, and stays as it ended; times are in order.
func (s *storm) checkEndings(tasks []subagent.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tasks {
		before, ended := s.endings[t.ID]
		if ended && (before.Status != t.Status || !before.Ended.Equal(t.Ended) || before.Result.Text != t.Result.Text) {
			s.mu.Unlock()
			s.wrong("task %s ended as %v and is %v", t.ID, before.Status, t.Status)
			s.mu.Lock()
		}
		if t.Status.Terminal() {
			s.endings[t.ID] = t
		}
		if !t.Started.IsZero() && t.Started.Before(t.Queued) || !t.Ended.IsZero() && t.Ended.Before(t.Started) {
			s.mu.Unlock()
			s.wrong("task %s: queued %v, started %v, ended %v", t.ID, t.Queued, t.Started, t.Ended)
			s.mu.Lock()
		}
		if t.Status == subagent.Completed && t.Result.Text == "" && !t.Result.Empty {
			s.mu.Unlock()
			s.wrong("task %s completed without a word", t.ID)
			s.mu.Lock()
		}
		if len(t.Result.Text) > 256<<10 {
			s.mu.Unlock()
			s.wrong("task %s keeps %d bytes", t.ID, len(t.Result.Text))
			s.mu.Lock()
		}
	}
}

// checkOrder: without caps per parent nobody starts before an older task of its
// key.
func (s *storm) checkOrder(tasks []subagent.Task) {
	s.mu.Lock()
	limited := s.limited
	s.mu.Unlock()
	if limited || s.cfg.Keys.PerParent > 0 {
		return
	}
	waiting := map[subagent.Key]subagent.TaskID{}
	for _, t := range tasks {
		switch older, waits := waiting[t.Key]; {
		case t.Status == subagent.Pending && !waits:
			waiting[t.Key] = t.ID
		case waits && t.Attempt > 0:
			s.wrong("task %s of %s started before %s", t.ID, t.Key, older)
		}
	}
}

// loose are the turns that go on although their tasks have ended.
func (s *storm) loose() (ids []subagent.TaskID) {
	for _, session := range s.client.Sessions() {
		if t, err := s.m.Get(session.Task); session.Running && (err != nil || t.Status.Terminal()) {
			ids = append(ids, session.Task)
		}
	}
	return ids
}

// checkLoose: no child runs unseen.
func (s *storm) checkLoose([]subagent.Task) {
	for _, id := range s.loose() {
		t, err := s.m.Get(id)
		if err != nil || t.Attempts[len(t.Attempts)-1].Unstopped == nil {
			s.wrong("the child of task %s runs on, and the task is %v because of %v", id, t.Status, t.Reason)
		}
	}
}

// checkLimits counts what the host runs against what is allowed.
func (s *storm) checkLimits(tasks []subagent.Task) {
	s.mu.Lock()
	skip := s.limited || s.loosened
	s.mu.Unlock()
	keys := map[subagent.Key]int{}
	parents := map[subagent.SessionID]int{}
	providers, roots, starts, global := 0, map[subagent.SessionID]int{}, 0, 0
	for _, t := range tasks {
		if !t.Status.Terminal() {
			roots[t.Root]++
		}
		if t.Status == subagent.Pending || t.Status.Terminal() {
			continue
		}
		keys[t.Key]++
		parents[t.Parent]++
		global++
		if t.Model == "x/one" || t.Model == "x/two" {
			providers++
		}
		if t.Status == subagent.Starting {
			starts++
		}
	}
	over := func(what any, n, limit int) {
		if limit > 0 && n > limit {
			s.wrong("%v: %d at once, and %d allowed", what, n, limit)
		}
	}
	for id, n := range roots {
		over(id, n, limitOr(s.cfg.Spawn.LivePerRoot, 64))
	}
	if skip || s.calm.Load() {
		return
	}
	k := s.cfg.Keys
	for key, n := range keys {
		limit := k.Default
		switch {
		case key.Kind == subagent.ModelKey && k.Models[key.Name] > 0:
			limit = k.Models[key.Name]
		case key.Kind == subagent.ModelKey && key.Name[0] == 'x' && k.Providers["x"] > 0:
			limit = k.Providers["x"]
		case key.Kind == subagent.AgentKey && k.Agents[key.Name] > 0:
			limit = k.Agents[key.Name]
		}
		over(key, n, limit)
	}
	for id, n := range parents {
		over(id, n, k.PerParent)
	}
	over("provider x", providers, k.Providers["x"])
	over("global", global, k.Global)
	over("starts", starts, k.Starts)
}

func limitOr(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// checkSettled: nothing is left when the faults have stopped.
func (s *storm) checkSettled() {
	for _, t := range s.m.List(subagent.Filter{}) {
		if !t.Status.Terminal() {
			s.wrong("task %s is still %v, because of %v", t.ID, t.Status, t.Reason)
		}
	}
	if keys := s.m.Stats().Keys; slices.ContainsFunc(keys, func(k subagent.KeyStats) bool { return k.Held+k.Waiting > 0 }) {
		s.wrong("held or waited for at the end: %v", keys)
	}
	for _, p := range s.parents() {
		if o := s.m.Pending(p); o.Live > 0 || len(o.Notices) > 0 {
			s.wrong("parent %q is still owed %+v", p, o)
		}
	}
}

// parents are all sessions that launched.
func (s *storm) parents() []subagent.SessionID {
	var all []subagent.SessionID
	for _, t := range s.m.List(subagent.Filter{}) {
		if !slices.Contains(all, t.Parent) {
			all = append(all, t.Parent)
		}
		if t.Session != "" && !slices.Contains(all, t.Session) {
			all = append(all, t.Session)
		}
	}
	return all
}

// checkTold: every run that is owed was told once, to its parent or to the
// nearest ancestor; no other run was told at all.
func (s *storm) checkTold() {
	s.mu.Lock()
	inputs, silenced := s.inputs, s.silenced
	s.mu.Unlock()
	missing := 0
	for _, t := range s.m.List(subagent.Filter{}) {
		at, told := s.parent.At(t.ID, t.Run)
		owed := !inputs[t.ID].NoNotice && !silenced[t.ID] && (t.Reason == nil || t.Reason.Code != subagent.ParentGone)
		switch {
		case owed && !told:
			missing++
			if s.seed%5 != 0 {
				s.wrong("task %s, %v because of %v, was not told to %q", t.ID, t.Status, t.Reason, t.Parent)
			}
		case told && !owed:
			s.wrong("task %s, %v because of %v, was told to %q", t.ID, t.Status, t.Reason, at)
		case told && !s.above(t, at):
			s.wrong("task %s of %q was told to %q", t.ID, t.Parent, at)
		}
	}
	if dropped := s.m.Stats().Notices.Dropped; missing > dropped {
		s.wrong("%d runs were not told and %d are counted as dropped", missing, dropped)
	}
	if s.seed%5 == 0 {
		return
	}
	for _, p := range []subagent.SessionID{"root0", "root1", "root2"} {
		if b := s.parent.Batches(p); len(b) > 0 && !b[len(b)-1].Final {
			s.wrong("the last batch of %q is not final", p)
		}
	}
}

// above reports whether a session is the task's parent or one of its ancestors.
func (s *storm) above(t subagent.Task, at subagent.SessionID) bool {
	for t.Parent != at {
		up, err := s.m.BySession(t.Parent)
		if err != nil || !up.Status.Terminal() {
			return false
		}
		t = up
	}
	return true
}

// checkFakes asks the fakes what the manager did to them.
func (s *storm) checkFakes() {
	for _, v := range append(s.client.Violations(), s.parent.Violations()...) {
		s.wrong("%s", v)
	}
	if s.loosened {
		return
	}
	for _, l := range s.client.Leaks() {
		s.wrong("%s", l)
	}
}
