package subagent

import (
	"slices"
	"time"
)

// Retention is how long finished tasks are kept: the records with their results, and
// their sessions with the client. It counts from when the parent was told, or has read
// the run, or was given up on; for one that tells nobody, from its end. What a parent is
// still owed, of any run, is never forgotten, nor is a task that goes on, one with a child
// that may be running, or one below which something runs.
type Retention struct {
	// Age is how long a finished task is kept. Defaults to 1 h.
	Age time.Duration
	// Together is how much longer it is kept while others of the same parent run, so that
	// the parent finds all of them; it is looked at again each Age. Defaults to 1 h; Off
	// waits for none.
	Together time.Duration
	// Count is how many finished tasks are kept, and Bytes how much text of results: of
	// more the oldest go, also before their Age. Default to 10 000 and 256 MiB.
	Count, Bytes int
}

// gravesKept is how many forgotten tasks are remembered by their ids, so that who asks for
// one learns what became of it, and nothing is launched below it.
const gravesKept = 10_000

// shelf is where finished tasks stand that nobody is owed any more. Guarded by mu.
type shelf struct {
	tasks    []shelved // in order of when they came
	n, bytes int       // of these, the ones that count
	deadline deadline  // of the first

	graves    map[TaskID]grave
	sessions  map[SessionID]TaskID // theirs
	buried    []TaskID             // in order
	giveUp    []SessionID          // to be released
	releasing bool                 // the goroutine that does it runs
	forgotten int
}

// shelved is one run on the shelf. It counts as long as its task has no other.
type shelved struct {
	task      *task
	run       int32
	since, at instant // when it came, and when it was last looked at
}

// grave is what is known of a task that was forgotten.
type grave struct {
	ForgottenError
	parent SessionID
}

// shelveLocked takes in that nobody is owed anything for a task's last run any more.
func (m *BackgroundManager) shelveLocked(t *task, run int32) {
	if t.run != run || !t.status.Terminal() || t.shelved || t.forgotten {
		return
	}
	now := m.now()
	t.shelved = true
	m.shelf.n++
	m.shelf.bytes += t.textBytes()
	m.shelf.tasks = append(m.shelf.tasks, shelved{t, run, now, now})
	m.shelf.tidyLocked()
	m.sweepLocked(now)
}

// tidyLocked lets go of what tasks that went on have left behind, once that is half of all.
func (s *shelf) tidyLocked() {
	if len(s.tasks) > 2*s.n {
		s.tasks = slices.DeleteFunc(s.tasks, func(e shelved) bool { return !e.current() })
	}
}

// current reports whether the task had no other run since it came.
func (e *shelved) current() bool { return e.task.shelved && e.task.run == e.run }

// shelveAllLocked does that for all that a parent is owed no more.
func (m *BackgroundManager) shelveAllLocked(told []due) {
	for _, d := range told {
		if d.past != nil {
			d.task.past--
		}
		m.shelveLocked(d.task, d.run)
	}
}

func (t *task) textBytes() int {
	if t.said == nil {
		return 0
	}
	return len(t.said.text)
}

// unshelveLocked takes a task off that goes on, or is forgotten.
func (m *BackgroundManager) unshelveLocked(t *task) {
	if t.shelved {
		t.shelved = false
		m.shelf.n--
		m.shelf.bytes -= t.textBytes()
	}
}

// sweepLocked forgets what was kept long enough.
func (m *BackgroundManager) sweepLocked(now instant) {
	s, r := &m.shelf, &m.cfg.Retention
	for looks := len(s.tasks); looks > 0; looks-- {
		e := s.tasks[0]
		over := r.Count != Off && s.n > r.Count || r.Bytes != Off && s.bytes > r.Bytes
		old := r.Age != Off && now >= e.at.after(r.Age)
		if e.current() && !over && !old {
			break
		}
		s.tasks[0] = shelved{}
		s.tasks = s.tasks[1:]
		switch {
		case !e.current():
		case m.neededLocked(e.task), !over && m.togetherLocked(&e, now):
			e.at = now
			s.tasks = append(s.tasks, e)
		default:
			m.forgetTaskLocked(e.task)
		}
	}
	if len(s.tasks) == 0 {
		s.tasks = nil
	}
	if len(s.tasks) == 0 || r.Age == Off || m.phase == over {
		m.disarmLocked(&s.deadline)
	} else if at := s.tasks[0].at.after(r.Age); s.deadline.place == 0 || s.deadline.at != at {
		m.armLocked(&s.deadline, at)
	}
}

// dueLocked is the deadline of the first on the shelf.
func (s *shelf) dueLocked(m *BackgroundManager, now instant) { m.sweepLocked(now) }

// neededLocked reports whether a finished task can't be forgotten yet: somebody reads it,
// or is owed one of its earlier runs, something below it, or of it, may be running, or what
// it was owed is out to it still.
func (m *BackgroundManager) neededLocked(t *task) bool {
	return t.readers > 0 || t.past > 0 || t.unstoppedLocked() != nil || t.own != nil && (t.own.out() || t.own.alive())
}

// alive reports whether anything below a session runs.
func (b *mailbox) alive() bool {
	if b.live > 0 {
		return true
	}
	for _, children := range [][]*task{b.children, b.adopted} {
		for _, child := range children {
			if !child.status.Terminal() || child.own != nil && child.own.alive() {
				return true
			}
		}
	}
	return false
}

// togetherLocked reports whether a task is kept for its siblings.
func (m *BackgroundManager) togetherLocked(e *shelved, now instant) bool {
	r := &m.cfg.Retention
	return r.Together != Off && e.task.owner.live > 0 && now < e.since.after(r.Age).after(r.Together)
}

// forgetTaskLocked takes a task out of all indexes, and gives its session up.
func (m *BackgroundManager) forgetTaskLocked(t *task) {
	m.emitLocked(t, TopicForgotten, nil)
	m.unshelveLocked(t)
	m.shelf.forgotten++
	m.count[t.status]--
	t.forgotten = true
	m.buryLocked(t)
	delete(m.byID, t.id)
	m.tasks = m.thinLocked(m.tasks, &m.gaps)
	owner := t.owner
	owner.children = m.thinLocked(owner.children, &owner.gaps)
	if u := owner.origin.under; u != nil && u.session != owner.origin.Parent && u.own != nil {
		u.own.adopted = m.thinLocked(u.own.adopted, &u.own.gapsBelow)
		m.closeMailboxLocked(u.own)
	}
	m.closeMailboxLocked(owner)
	if t.own != nil {
		m.closeMailboxLocked(t.own)
	}
	if t.session == "" || m.bySession[t.session] != t {
		return
	}
	delete(m.bySession, t.session)
	if !t.tracked && !t.deleted && m.caps.releaser != nil && m.phase < flushing {
		m.releaseSoonLocked(t)
	}
}

// thinLocked lets go of forgotten tasks once they are half of a list, so that each costs
// the same however long the list is. gaps counts them.
func (m *BackgroundManager) thinLocked(list []*task, gaps *int32) []*task {
	if *gaps++; int(*gaps)*2 < len(list) {
		return list
	}
	*gaps = 0
	var kept []*task
	for _, t := range list {
		if !t.forgotten {
			kept = append(kept, t)
		}
	}
	return kept
}

// closeMailboxLocked lets go of a mailbox that says nothing any more: it has no children
// and is owed nothing.
func (m *BackgroundManager) closeMailboxLocked(b *mailbox) {
	idle := b.state == mailIdle && !b.owes() && b.wake == nil && !b.open && b.live == 0 && b.inherited == 0
	if !idle || len(b.children) > int(b.gaps) || len(b.adopted) > int(b.gapsBelow) || m.mailboxes[b.origin.Parent] != b {
		return
	}
	m.disarmLocked(&b.chores)
	delete(m.mailboxes, b.origin.Parent)
	if t := b.child(); t != nil && t.own == b {
		t.own = nil
	}
}

// buryLocked remembers a task by its ids.
func (m *BackgroundManager) buryLocked(t *task) {
	s := &m.shelf
	if s.graves == nil {
		s.graves, s.sessions = map[TaskID]grave{}, map[SessionID]TaskID{}
	}
	s.graves[t.id] = grave{ForgottenError{t.id, t.session, t.status, int(t.run), m.time(t.ended)}, t.parent()}
	if t.session != "" {
		s.sessions[t.session] = t.id
	}
	s.buried = append(s.buried, t.id)
	if len(s.buried) <= gravesKept {
		return
	}
	first := s.buried[0]
	s.buried = s.buried[1:]
	if g := s.graves[first]; s.sessions[g.Session] == first {
		delete(s.sessions, g.Session)
	}
	delete(s.graves, first)
}

// releaseSoonLocked has the client give a session up.
func (m *BackgroundManager) releaseSoonLocked(t *task) {
	m.releasing[t.session] = release{task: t.id}
	m.shelf.giveUp = append(m.shelf.giveUp, t.session)
	if !m.shelf.releasing {
		m.shelf.releasing = true
		m.goLocked(m.releaseForgotten)
	}
}

// releaseForgotten is the goroutine that gives up the sessions of forgotten tasks. What
// fails is tried once more by Shutdown.
func (m *BackgroundManager) releaseForgotten() {
	for sessions := m.forgottenSessions(); sessions != nil; sessions = m.forgottenSessions() {
		m.releaseAll(sessions)
	}
}

func (m *BackgroundManager) forgottenSessions() []SessionID {
	m.mu.Lock()
	defer m.mu.Unlock()
	sessions := m.shelf.giveUp
	m.shelf.giveUp = nil
	m.shelf.releasing = sessions != nil
	return sessions
}
