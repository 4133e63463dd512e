package subagent_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// ledger is what the host, the parents and the operations saw, by their own clocks
// and counts. The manager's word is asked only where nobody else can know: when a
// run has ended, and what a mailbox still keeps.
type ledger struct {
	stamp  int // counts what happens, so that one thing is known to be before another
	rounds int // rests so far
	lives  map[string]*life
	asked  map[string]*run // by origin: all that were, and not refused
	byID   map[subagent.TaskID]*life
	bySess map[subagent.SessionID]*life
	lines  map[subagent.Key]*line
	hold   []*place // all that hold a lease
	epochs []epoch
	fresh  []*place    // that got their lease since the last rest
	pairs  [][2]*place // one that waits, or waited, and one that started before it: a younger one, or it was its parent's turn

	out        map[*call]bool
	lastOut    map[call]time.Time // when such a call last returned; its entry is zero
	mails      map[subagent.SessionID]*mail
	posts      []*post // not judged yet
	told       map[toldRun]bool
	claims     []claim
	perhaps    map[toldRun]bool // told, or to be told to the next above
	gone       bool             // some parent is
	moving     bool             // some task is, or was, to move to another parent
	interrupts bool             // a parent was interrupted, which may have stopped its children
	hushing    int              // cancels of many that tell nobody and have not returned

	reserved, total map[subagent.SessionID]int // places under the spawn limits, by root
	launches        map[subagent.SessionID]int // of the total, those that did not move there
	turns           map[subagent.SessionID]*theirTurn
	askings         map[subagent.SessionID]*asking
	working         map[string]time.Time // operations that have not returned
	closing         time.Time
	released        map[subagent.SessionID]bool // there was a call …
	crossed         map[subagent.SessionID]bool // … while a Prompt was out
	closed          time.Time
	closeErr        error
	listed          []subagent.UnstoppedCall // by the shutdown, and not judged yet
}

func newLedger() ledger {
	return ledger{
		lives: map[string]*life{}, asked: map[string]*run{}, byID: map[subagent.TaskID]*life{}, bySess: map[subagent.SessionID]*life{},
		lines: map[subagent.Key]*line{}, out: map[*call]bool{}, lastOut: map[call]time.Time{},
		mails: map[subagent.SessionID]*mail{}, told: map[toldRun]bool{}, perhaps: map[toldRun]bool{},
		launches: map[subagent.SessionID]int{}, turns: map[subagent.SessionID]*theirTurn{}, askings: map[subagent.SessionID]*asking{},
		reserved: map[subagent.SessionID]int{}, total: map[subagent.SessionID]int{}, working: map[string]time.Time{}, released: map[subagent.SessionID]bool{}, crossed: map[subagent.SessionID]bool{},
	}
}

// outcome is how a call came back.
type outcome struct {
	at   time.Time
	kind string             // "good", "blank", "error", "panic"
	made subagent.SessionID // by a Create
	said bool               // a text, by a Prompt, however it came back
}

func (o outcome) good() bool { return o.kind == "good" }

// call is one call that is out. As the key of lastOut it has no entry time.
type call struct {
	op      subagenttest.Op
	life    *life
	run     *run
	session subagent.SessionID
	entered time.Time
}

func (s *storm) tick() int {
	s.stamp++
	return s.stamp
}

// known finds a task; one that nobody knows is an empty one.
func (s *storm) known(id subagent.TaskID) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.byID[id]; l != nil {
		return l
	}
	return nobody()
}

// nobody is a task that is not known.
func nobody() *life { return &life{run: &run{}} }

// kindOf parts what is before the first slash of a session from the rest.
func kindOf(id subagent.SessionID) (kind string, rest subagent.SessionID) {
	k, r, _ := strings.Cut(string(id), "/")
	return k, subagent.SessionID(r)
}

// trace finds out where a child of a session stands, as the manager should.
func (s *storm) trace(parent subagent.SessionID) (above *life, root subagent.SessionID, depth int) {
	root = parent
	for depth = 1; depth < 1000; depth++ { // while two move at once the ledger may go in a circle
		kind, rest := kindOf(root)
		switch l := s.bySess[root]; {
		case l != nil:
			if above == nil {
				above = l
			}
			root = l.parent()
		case kind == "f":
			root = rest
		default:
			return above, root, depth
		}
	}
	return above, root, depth
}

// asks opens the record of a task that is about to be launched.
func (s *storm) asks(name string, in subagent.LaunchInput) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asksLocked(name, in)
}

func (s *storm) asksLocked(name string, in subagent.LaunchInput) *life {
	for s.lives[name] != nil || s.asked[name] != nil {
		name += "+"
	}
	l := &life{name: name, plain: strings.HasPrefix(name, "crowd")}
	in.Labels = map[string]string{"n": name}
	l.run = s.opens(l, name, in)
	s.lives[name] = l
	return l
}

// launched closes what asks has opened.
func (s *storm) launched(l *life, t subagent.Task, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if l.id != "" {
			s.wrong("launch %s was refused with %v, and task %s was made", l.name, err, l.id)
		}
		delete(s.lives, l.name)
		s.refused(l.run)
		return
	}
	s.joined(s.bind(l, t), t)
}

// joined takes in that a run has begun: when the call that began it returned, or, for a
// Do that goes on waiting, at the next rest.
func (s *storm) joined(r *run, t subagent.Task) {
	if r.queued != 0 {
		return
	}
	r.began = time.Now()
	r.stays[0].from = r.began
	s.queue(&r.place)
	l := r.of
	if r.number > 1 {
		s.goesOn(r)
		return
	}
	_, root, _ := s.trace(l.parent())
	s.total[root]++
	s.launches[root]++
	if len(r.stays) == 1 && !s.moving { // else it, or one above it, may have moved since: a rest tells
		s.standsAt(l, t)
	}
	if most := s.cfg.Spawn.TotalPerRoot; most != subagent.Off && s.launches[root] > most {
		s.wrong("root %q has launched %d, and %d are allowed", root, s.launches[root], most)
	}
	if t.Depth > s.cfg.Spawn.Depth && !r.gaveUp { // a Do is seen late, when one above it may have moved
		s.wrong("task %s has depth %d of %d", t.ID, t.Depth, s.cfg.Spawn.Depth)
	}
}

// standsAt sees that a task is where it was put.
func (s *storm) standsAt(l *life, t subagent.Task) {
	_, root, depth := s.trace(l.parent())
	if t.Root != root || t.Depth != depth || t.Key != l.key || t.Parent != l.parent() {
		s.wrong("task %s of %q has root %q, depth %d and key %v, and should have %q, %d and %v", t.ID, t.Parent, t.Root, t.Depth, t.Key, root, depth, l.key)
	}
}

// started takes in that a Create has begun: the task has its lease.
func (s *storm) started(req subagent.CreateRequest) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[req.Labels["n"]]
	if l == nil {
		s.wrong("a Create for launch %q, which nobody knows", req.Labels["n"])
		return &life{}
	}
	s.bind(l, subagent.Task{ID: req.Task, Run: 1, Origin: l.name})
	if !l.got.IsZero() || !l.left.IsZero() {
		s.wrong("task %s was started twice, or after its end", l.id)
	}
	if !s.closed.IsZero() {
		s.wrong("task %s was started after the manager was closed", l.id)
	}
	if !s.closing.IsZero() && s.closing.Before(time.Now()) {
		s.wrong("task %s was started in a shutdown that began at %v", l.id, s.closing.Sub(s.born))
	}
	l.creating = true
	s.took(&l.place)
	return l
}

// promptedIn takes in that a Prompt, or an Attach, has begun: the session is the task's, and
// the run has its lease.
func (s *storm) promptedIn(session subagent.SessionID, p subagent.Prompt, attach bool) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.m.Get(p.Task) // only it knows which run that is
	if err != nil {
		s.wrong("a Prompt for task %s, which nobody launched: %v", p.Task, err)
		return nobody()
	}
	l := s.lifeOf(t)
	if l == nil {
		return nobody()
	}
	r := s.bind(l, t)
	if r.prompted || !s.closed.IsZero() || l.session != "" && l.session != session || t.Attempt != p.Attempt {
		s.wrong("run %d of task %s is prompted twice, or after the end, or in another session", t.Run, p.Task)
	}
	r.prompted = true
	if r.again {
		s.goesInto(r, session)
	}
	if r.again && r.got.IsZero() {
		s.took(&r.place)
	}
	if fresh := l.session == "" && !attach; fresh && (l.introduced != (s.cfg.Hooks.SessionCreated != nil) || l.barred || l.introduced && time.Since(l.intro) > hookTime) {
		s.wrong("task %s is prompted, and its hook was called: %v, at %v; stopped in it: %v", l.id, l.introduced, l.intro.Sub(s.born), l.barred)
	}
	l.session = session
	s.bySess[session] = l
	return l
}

// goesInto sees that nothing of an earlier run can do the new one harm.
func (s *storm) goesInto(r *run, session subagent.SessionID) {
	for c := range s.out {
		own := c.op == subagenttest.OpAbort && !c.entered.Before(r.got) // it was stopped at once, and that overtakes its prompt
		if c.session == session && !own && (c.op == subagenttest.OpAbort || c.op == subagenttest.OpPrompt) {
			s.wrong("run %d of task %s is prompted, and a %s of its session is out since %v", r.number, r.of.id, c.op, c.entered.Sub(s.born))
		}
	}
	if !s.closing.IsZero() && s.closing.Before(time.Now()) {
		s.wrong("run %d of task %s was started in a shutdown that began at %v", r.number, r.of.id, s.closing.Sub(s.born))
	}
}

// enter and leave keep account of the calls that are out, and of how they came back.
func (s *storm) enter(op subagenttest.Op, l *life, id subagent.SessionID) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l == nil {
		l = s.bySess[id]
	}
	c := &call{op: op, life: l, session: id, entered: time.Now()}
	if l != nil {
		c.run = l.run
	}
	s.out[c] = true
	if op == subagenttest.OpRelease {
		s.released[id] = true
		for other := range s.out { // that is on its way, and may reach the host after this
			s.crossed[id] = s.crossed[id] || other.op == subagenttest.OpPrompt && other.session == id
		}
	}
	return c
}

func (s *storm) leave(c *call, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.out, c)
	o.at = time.Now()
	s.lastOut[call{op: c.op, life: c.life, run: c.run, session: c.session}] = o.at
	l := c.run
	switch {
	case l == nil:
		return
	case c.op == subagenttest.OpCreate:
		l.creating, l.of.made = false, o.made
	case c.op == subagenttest.OpAbort && l.aborting.IsZero():
		l.aborting = c.entered
	}
	l.answers[c.op] = o
}

// result makes an outcome of what a call returned; over is false for one that panicked
// or whose goroutine was ended.
func result(over bool, err error, blank bool) outcome {
	switch {
	case !over:
		return outcome{kind: "panic"}
	case err != nil:
		return outcome{kind: "error"}
	case blank:
		return outcome{kind: "blank"}
	}
	return outcome{kind: "good"}
}

// isOut reports whether a call of the kind is out for a task.
func (s *storm) isOut(l *life, ops ...subagenttest.Op) bool {
	for c := range s.out {
		if (c.life == l || c.session != "" && c.session == l.made) && slices.Contains(ops, c.op) {
			return true
		}
	}
	return false
}

// refusing reports whether a task, or one above it, takes its descendants with it.
// It asks the manager: nobody else knows the instant.
func (s *storm) refusing(l *life) bool {
	if l == nil {
		return false
	}
	return slices.ContainsFunc(append(s.allAbove(l), l), func(l *life) bool {
		t, err := s.m.Get(l.id)
		return err == nil && t.Status >= subagent.Stopping && t.Status != subagent.Completed
	})
}

// sees compares what a caller was shown of an ended run with what others were.
func (s *storm) sees(who string, t subagent.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lifeOf(t); l != nil {
		s.see(who, s.bind(l, t), t)
	}
}

// lifeOf finds a task that somebody was shown, perhaps before its Launch returned.
func (s *storm) lifeOf(t subagent.Task) *life {
	l := s.lives[t.Labels["n"]]
	if l == nil {
		s.wrong("task %s is shown, and nobody launched it", t.ID)
	} else {
		s.bind(l, t)
	}
	return l
}

func (s *storm) see(who string, r *run, t subagent.Task) {
	before := r.seen
	r.seen = t
	ended := before.Status.Terminal()
	if !t.Status.Terminal() && ended {
		r.seen = before // an older look that arrives late, unless it comes from a rest
		if who == "the list" {
			s.wrong("run %d of task %s was %v and is %v", t.Run, t.ID, before.Status, t.Status)
		}
		return
	}
	switch {
	case ended && !sameEnding(*r.ended, t):
		s.wrong("%s shows run %d of task %s as %v because of %v at %v; it ended as %v because of %v at %v",
			who, t.Run, t.ID, t.Status, t.Reason, t.Ended, before.Status, before.Reason, r.ended.Ended)
	case before.Status == subagent.Stopping && t.Status.Terminal() && (t.Status == subagent.Completed || codeOf(t) != codeOf(before)):
		s.wrong("task %s was stopping because of %v and is %v because of %v", t.ID, before.Reason, t.Status, t.Reason)
	}
	if t.Status == subagent.Stopping && r.stops.IsZero() {
		r.stops = time.Now()
	}
	if r.got.IsZero() && !t.Started.IsZero() && t.Status >= subagent.Stopping {
		s.tookUnseen(r, t.Started)
	}
	if t.Status.Terminal() && !ended {
		r.ended, r.end = &t, s.tick()
		s.gaveBack(&r.place, t.Ended)
	}
	s.seeResult(who, r, t)
}

// seeResult sees that what a run shows as its result, as long as it has none of its own, is
// that of the run before.
func (s *storm) seeResult(who string, r *run, t subagent.Task) {
	if t.Result.Run == t.Run {
		return
	}
	var want subagent.Result
	if t.Run > 1 {
		before := r.of.runs[t.Run-2]
		if before == nil || before.ended == nil {
			return // it is not known yet
		}
		want = before.ended.Result
	}
	if t.Result != want {
		s.wrong("%s shows run %d of task %s with the result %.20q of run %d, and that before it had %.20q of run %d", who, t.Run, t.ID, t.Result.Text, t.Result.Run, want.Text, want.Run)
	}
}

func sameEnding(a, b subagent.Task) bool {
	return a.Status == b.Status && codeOf(a) == codeOf(b) && a.Ended.Equal(b.Ended) && a.Run == b.Run &&
		a.Result.Text == b.Result.Text && a.Result.Partial == b.Result.Partial && a.Result.Run == b.Result.Run &&
		a.Session == b.Session && a.Origin == b.Origin && maps.Equal(a.Labels, b.Labels)
}

func codeOf(t subagent.Task) subagent.ReasonCode {
	if t.Reason == nil {
		return ""
	}
	return t.Reason.Code
}
