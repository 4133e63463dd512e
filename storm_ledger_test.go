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
	told       map[subagent.TaskID]bool
	claims     []claim
	perhaps    map[subagent.TaskID]bool // told, or to be told to the next above
	gone       bool                     // some parent is
	interrupts bool                     // a parent was interrupted, which may have stopped its children
	hushing    int                      // cancels of many that tell nobody and have not returned

	reserved, total map[subagent.SessionID]int // places under the spawn limits, by root
	working         map[string]time.Time       // operations that have not returned
	closing         time.Time
	released        map[subagent.SessionID]bool // there was a call …
	crossed         map[subagent.SessionID]bool // … while a Prompt was out
	closed          time.Time
	closeErr        error
	listed          []subagent.UnstoppedCall // by the shutdown, and not judged yet
}

func newLedger() ledger {
	return ledger{
		lives: map[string]*life{}, byID: map[subagent.TaskID]*life{}, bySess: map[subagent.SessionID]*life{},
		lines: map[subagent.Key]*line{}, out: map[*call]bool{}, lastOut: map[call]time.Time{},
		mails: map[subagent.SessionID]*mail{}, told: map[subagent.TaskID]bool{}, perhaps: map[subagent.TaskID]bool{},
		reserved: map[subagent.SessionID]int{}, total: map[subagent.SessionID]int{}, working: map[string]time.Time{}, released: map[subagent.SessionID]bool{}, crossed: map[subagent.SessionID]bool{},
	}
}

// life is what is known about one task.
type life struct {
	place
	name      string // its choices are keyed by it
	in        subagent.LaunchInput
	plain     bool // its host does nothing wrong
	overtaken bool // its Prompt reaches the host after its Abort
	id        subagent.TaskID
	made      subagent.SessionID // as its Create returned it
	session   subagent.SessionID // as its Prompt got it
	above     *life              // the nearest ancestor that is a task
	root      subagent.SessionID
	depth     int
	asked     time.Time
	began     time.Time // Launch returned
	slow      bool      // Launch may have waited for the host

	creating bool // a Create is out

	introduced, barred bool // its hook was called; and its context ended before its time
	intro              time.Time

	answers  map[subagenttest.Op]outcome
	seen     subagent.Task  // as last seen
	stops    time.Time      // first seen stopping
	aborting time.Time      // its first Abort
	ended    *subagent.Task // as it ended
	wins     int            // cancels that say they ended it
	gaveUp   bool           // a Do has cancelled it, or tried
	mayHush  bool           // somebody tried to end it without a word
	hushed   bool           // and won
	mayRead  bool           // its parent read how it ended, or tried
	read     bool           // and nothing was on its way by then
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
	return &life{}
}

// kindOf parts what is before the first slash of a session from the rest.
func kindOf(id subagent.SessionID) (kind string, rest subagent.SessionID) {
	k, r, _ := strings.Cut(string(id), "/")
	return k, subagent.SessionID(r)
}

// trace finds out where a child of a session stands, as the manager should.
func (s *storm) trace(parent subagent.SessionID) (above *life, root subagent.SessionID, depth int) {
	if l := s.bySess[parent]; l != nil {
		return l, l.root, l.depth + 1
	}
	if kind, rest := kindOf(parent); kind == "f" {
		above, root, depth = s.trace(rest)
		return above, root, depth + 1
	}
	return nil, parent, 1
}

// asks opens the record of a task that is about to be launched.
func (s *storm) asks(name string, in subagent.LaunchInput) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lives[name] != nil {
		name += "+"
	}
	l := &life{name: name, in: in, plain: strings.HasPrefix(name, "crowd"), asked: time.Now(), answers: map[subagenttest.Op]outcome{}}
	l.mayHush = s.hushing > 0
	l.slow = s.faults > 0 || strings.HasPrefix(string(in.Parent), "f")
	l.above, l.root, l.depth = s.trace(in.Parent)
	l.place = s.newPlace(in.Parent, in.Agent, in.Model, l)
	s.lives[name] = l
	s.line(l.key).add(&l.place)
	l.in.Labels = map[string]string{"n": name}
	return l
}

// bind learns the id of a task, from whoever sees it first.
func (s *storm) bind(l *life, id subagent.TaskID) {
	if l.id != "" && l.id != id || s.byID[id] != nil && s.byID[id] != l {
		s.wrong("task %s of launch %s has been another before", id, l.name)
	}
	if l.id == "" { // it is read without the lock by those who have found it here
		l.id = id
		s.byID[id] = l
	}
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
		s.line(l.key).drop(&l.place)
		return
	}
	s.joined(l, t)
}

// joined takes in that a launch was carried out: when it returned, or, for a Do that
// goes on waiting, at the next rest.
func (s *storm) joined(l *life, t subagent.Task) {
	s.bind(l, t.ID)
	if l.queued != 0 {
		return
	}
	l.began = time.Now()
	s.queue(&l.place)
	s.total[l.root]++
	if t.Root != l.root || t.Depth != l.depth || t.Key != l.key || t.Parent != l.in.Parent {
		s.wrong("task %s of %q has root %q, depth %d and key %v, and should have %q, %d and %v", t.ID, t.Parent, t.Root, t.Depth, t.Key, l.root, l.depth, l.key)
	}
	if most := s.cfg.Spawn.TotalPerRoot; most != subagent.Off && s.total[l.root] > most {
		s.wrong("root %q has launched %d, and %d are allowed", l.root, s.total[l.root], most)
	}
	if l.depth > s.cfg.Spawn.Depth {
		s.wrong("task %s has depth %d of %d", t.ID, l.depth, s.cfg.Spawn.Depth)
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
	s.bind(l, req.Task)
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

// prompted takes in that a Prompt has begun: the session is the task's.
func (s *storm) prompted(id subagent.TaskID, session subagent.SessionID) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byID[id]
	if l == nil {
		s.wrong("a Prompt for task %s, which nobody created", id)
		return &life{}
	}
	if l.session != "" || !s.closed.IsZero() {
		s.wrong("a second Prompt for task %s, or one after the end", id)
	}
	if l.introduced != (s.cfg.Hooks.SessionCreated != nil) || l.barred || l.introduced && time.Since(l.intro) > hookTime {
		s.wrong("task %s is prompted, and its hook was called: %v, at %v; stopped in it: %v", id, l.introduced, l.intro.Sub(s.born), l.barred)
	}
	l.session = session
	s.bySess[session] = l
	return l
}

// enter and leave keep account of the calls that are out, and of how they came back.
func (s *storm) enter(op subagenttest.Op, l *life, id subagent.SessionID) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l == nil {
		l = s.bySess[id]
	}
	c := &call{op: op, life: l, session: id, entered: time.Now()}
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
	s.lastOut[call{op: c.op, life: c.life, session: c.session}] = o.at
	l := c.life
	switch {
	case l == nil:
		return
	case c.op == subagenttest.OpCreate:
		l.creating, l.made = false, o.made
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
	for ; l != nil; l = l.above {
		if t, err := s.m.Get(l.id); err == nil && t.Status >= subagent.Stopping && t.Status != subagent.Completed {
			return true
		}
	}
	return false
}

// sees compares what a caller was shown of an ended run with what others were.
func (s *storm) sees(who string, t subagent.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lifeOf(t); l != nil {
		s.see(who, l, t)
	}
}

// lifeOf finds a task that somebody was shown, perhaps before its Launch returned.
func (s *storm) lifeOf(t subagent.Task) *life {
	l := s.lives[t.Labels["n"]]
	if l == nil {
		s.wrong("task %s is shown, and nobody launched it", t.ID)
	} else {
		s.bind(l, t.ID)
	}
	return l
}

func (s *storm) see(who string, l *life, t subagent.Task) {
	before := l.seen
	l.seen = t
	ended := before.Status.Terminal()
	if !t.Status.Terminal() && ended {
		l.seen = before // an older look that arrives late, unless it comes from a rest
		if who == "the list" {
			s.wrong("task %s was %v and is %v", t.ID, before.Status, t.Status)
		}
		return
	}
	switch {
	case ended && !sameEnding(*l.ended, t):
		s.wrong("%s shows task %s as %v because of %v at %v; it ended as %v because of %v at %v",
			who, t.ID, t.Status, t.Reason, t.Ended, before.Status, before.Reason, l.ended.Ended)
	case before.Status == subagent.Stopping && t.Status.Terminal() && (t.Status == subagent.Completed || codeOf(t) != codeOf(before)):
		s.wrong("task %s was stopping because of %v and is %v because of %v", t.ID, before.Reason, t.Status, t.Reason)
	}
	if t.Status == subagent.Stopping && l.stops.IsZero() {
		l.stops = time.Now()
	}
	if t.Status.Terminal() && !ended {
		l.ended = &t
		s.gaveBack(&l.place, t.Ended)
	}
}

func sameEnding(a, b subagent.Task) bool {
	return a.Status == b.Status && codeOf(a) == codeOf(b) && a.Ended.Equal(b.Ended) && a.Run == b.Run &&
		a.Result.Text == b.Result.Text && a.Result.Partial == b.Result.Partial && a.Session == b.Session && maps.Equal(a.Labels, b.Labels)
}

func codeOf(t subagent.Task) subagent.ReasonCode {
	if t.Reason == nil {
		return ""
	}
	return t.Reason.Code
}
