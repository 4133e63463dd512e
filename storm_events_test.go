package subagent_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

const (
	opHook  subagenttest.Op = "hook"  // SessionCreated
	opHooks subagenttest.Op = "hooks" // any other
	// hookTime is how long SessionCreated may hold up a prompt.
	hookTime = time.Second
)

// follows says what a run's status may be after another.
var follows = map[subagent.Status][]subagent.Status{
	0:                    {subagent.Pending},
	subagent.Completed:   {subagent.Pending}, // of the next run
	subagent.Failed:      {subagent.Pending},
	subagent.Cancelled:   {subagent.Pending},
	subagent.Interrupted: {subagent.Pending},
	subagent.Pending:     {subagent.Starting, subagent.Failed, subagent.Cancelled},
	subagent.Starting:    {subagent.Running, subagent.Stopping, subagent.Failed},
	subagent.Running:     {subagent.InputNeeded, subagent.Stopping, subagent.Completed, subagent.Failed, subagent.Interrupted},
	subagent.InputNeeded: {subagent.Running, subagent.Stopping, subagent.Completed, subagent.Failed, subagent.Interrupted},
	subagent.Stopping:    {subagent.Failed, subagent.Cancelled, subagent.Interrupted},
}

// audience is one who is told of events, with an account of its own of each task.
type audience struct {
	name   string
	plain  bool // is told neither of sessions nor of progress
	mu     sync.Mutex
	heard  map[subagent.TaskID]*hearsay
	lost   int
	broken bool // it does not listen to the end
}

// hearsay is what was told of one task.
type hearsay struct {
	seq     uint64
	topics  [8]int
	status  subagent.Status // the last that was told …
	run     int             // … of this run
	endings map[int]int     // by run
	told    map[int]int
}

// hear checks an event against those before it.
func (a *audience) hear(s *storm, e subagent.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost += e.Dropped
	h := a.heard[e.Task.ID]
	if h == nil {
		h = &hearsay{endings: map[int]int{}, told: map[int]int{}}
		a.heard[e.Task.ID] = h
	}
	whole := a.lost == 0
	if e.Seq <= h.seq || whole && !a.plain && e.Seq != h.seq+1 {
		s.wrong("%s hears event %d of task %s after event %d", a.name, e.Seq, e.Task.ID, h.seq)
	}
	h.seq = e.Seq
	h.topics[e.Topic]++
	if e.Topic == subagent.TopicTold {
		h.told[e.Run]++
	}
	if e.Topic != subagent.TopicStatus {
		if whole && e.Task.Status != h.status {
			s.wrong("%s hears of a %v of task %s, which is %v, and was told it is %v", a.name, e.Topic, e.Task.ID, e.Task.Status, h.status)
		}
		return
	}
	if whole && !slices.Contains(follows[h.status], e.Task.Status) {
		s.wrong("%s hears that task %s is %v after %v", a.name, e.Task.ID, e.Task.Status, h.status)
	}
	if goesOn := h.run == 0 || h.status.Terminal(); e.Run != e.Task.Run || whole && (e.Run == h.run+1) != goesOn {
		s.wrong("%s hears that run %d of task %s, in run %d, is %v, and it was in run %d", a.name, e.Run, e.Task.ID, e.Task.Run, e.Task.Status, h.run)
	}
	h.status, h.run = e.Task.Status, e.Run
	if e.Task.Status.Terminal() {
		h.endings[e.Run]++
		s.sees(a.name, e.Task)
	}
}

// listen adds those who subscribe: one that keeps up, one that now and then looks away,
// and one that soon has heard enough.
func (s *storm) listen() {
	if s.seed%2 == 0 {
		return
	}
	s.subscriber("who keeps up", func(int) bool { return true },
		subagent.TopicStatus, subagent.TopicSession, subagent.TopicProgress, subagent.TopicTold, subagent.TopicMoved)
	r := s.dice("subscriber")
	s.subscriber("who looks away", func(int) bool {
		if r.IntN(20) == 0 {
			time.Sleep(s.while(r, 10*time.Second))
		}
		return true
	})
	enough := 1 + r.IntN(60)
	s.subscriber("who breaks off", func(n int) bool { return n < enough })
}

func (s *storm) subscriber(name string, goOn func(n int) bool, topics ...subagent.Topic) {
	events, err := s.m.Subscribe(context.Background(), subagent.Filter{}, topics...)
	if err != nil {
		s.wrong("Subscribe: %v", err)
		return
	}
	a := s.audience(name)
	a.plain = topics == nil
	s.ops.Go(func() { s.follow(a, events, goOn) })
}

func (s *storm) follow(a *audience, events iter.Seq[subagent.Event], goOn func(n int) bool) {
	n := 0
	for e := range events {
		a.hear(s, e)
		if n++; !goOn(n) {
			a.mu.Lock()
			a.broken = true
			a.mu.Unlock()
			return
		}
	}
}

func (s *storm) audience(name string) *audience {
	a := &audience{name: name, heard: map[subagent.TaskID]*hearsay{}}
	s.audiences = append(s.audiences, a)
	return a
}

// hooks are those of some storms: they keep account, take their time, call the manager
// and fail.
func (s *storm) hooks() subagent.Hooks {
	a := s.audience("a hook")
	a.plain = true
	told := func(e subagent.Event) {
		s.mu.Lock()
		l, late := s.lifeOf(e.Task), !s.closed.IsZero() && s.closed.Before(time.Now())
		s.mu.Unlock()
		if late {
			s.wrong("a hook begins after the end")
		}
		if l == nil {
			return
		}
		c := s.enter(opHooks, nil, "")
		defer s.leave(c, outcome{})
		a.hear(s, e)
		s.misbehave(context.Background(), s.dice("hook", e.Task.Labels["n"], e.Seq), l, e.Task)
	}
	h := subagent.Hooks{
		Queued: told, Starting: told, Running: told, InputNeeded: told, Stopping: told, Ended: told, Told: told,
		SessionCreated: s.introduced,
	}
	if s.rng.IntN(2) == 0 {
		return subagent.Tee(subagent.Hooks{Running: func(subagent.Event) { panic(errStorm) }}, h)
	}
	return h
}

// introduced is the hook before the first prompt of a session.
func (s *storm) introduced(ctx context.Context, t subagent.Task) {
	s.mu.Lock()
	l := s.lifeOf(t)
	if l == nil {
		s.mu.Unlock()
		return
	}
	r := s.bind(l, t)
	if l.session != "" || r.introduced {
		s.wrong("the session of task %s was prompted before its hook, or has two", t.ID)
	}
	if r.introduced, r.intro = true, time.Now(); r.again && r.got.IsZero() {
		s.took(&r.place)
	}
	s.mu.Unlock()
	if t.Status != subagent.Starting || t.Session == "" {
		s.wrong("the hook for the session of task %s finds it %v in session %q", t.ID, t.Status, t.Session)
	}
	c := s.enter(opHook, l, t.Session)
	defer s.leave(c, outcome{})
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.barred = ctx.Err() != nil && time.Since(r.intro) < hookTime
	}()
	s.misbehave(ctx, s.dice("hook", t.Labels["n"]), l, t)
}

// misbehave is what a hook does besides.
func (s *storm) misbehave(ctx context.Context, r *rand.Rand, l *life, t subagent.Task) {
	if s.calm.Load() || r.Float64() >= s.faults {
		return
	}
	switch r.IntN(8) {
	case 0:
		panic(errStorm)
	case 1:
		runtime.Goexit()
	case 2:
		time.Sleep(s.while(r, 3*time.Second)) // heeds nothing
	case 3, 4:
		select {
		case <-ctx.Done():
		case <-time.After(s.while(r, time.Second)):
		}
	case 5:
		s.cancel(context.WithoutCancel(ctx), r, l)
	case 6:
		_, _ = s.m.Get(t.ID)
		_ = s.m.List(subagent.Filter{Root: t.Root})
	case 7:
		if t.Depth < 3 {
			name := fmt.Sprint(t.Labels["n"], ".h", r.IntN(100))
			s.launch(name, s.input(r, name, t.Parent))
		}
	}
}

// introducing reports whether the prompt of a task may be held up by its hook.
func (s *storm) introducing(l *life) bool {
	return l.introduced && l.session == "" && time.Since(l.intro) < hookTime && s.isOut(l, opHook)
}

// checkEvents compares at the end what was heard with what was seen.
func (s *storm) checkEvents() {
	lost := s.m.Stats().Events
	s.mu.Lock()
	defer s.mu.Unlock()
	if lost.Subscribers != 0 || lost.HooksWaiting != 0 {
		s.wrong("after the end there are %+v", lost)
	}
	for _, a := range s.audiences {
		a.mu.Lock()
		partly := a.broken || a.lost > 0 || a.name == "a hook" && lost.HooksDropped > 0
		if a.lost > lost.Dropped {
			s.wrong("%s has lost %d events, and %d were lost", a.name, a.lost, lost.Dropped)
		}
		for _, l := range s.byID {
			h := a.heard[l.id]
			if h == nil {
				h = &hearsay{}
			}
			for i := range l.runs {
				if n := h.endings[i+1]; n > 1 || !partly && n != 1 {
					s.wrong("%s hears of %d endings of run %d of task %s", a.name, n, i+1, l.id)
				}
			}
			if !partly && (l.ended == nil || h.status != l.ended.Status) {
				s.wrong("%s hears that task %s is %v", a.name, l.id, h.status)
			}
			if !partly && !a.plain && l.ended != nil {
				s.whole(a, l, h, *l.ended)
			}
		}
		a.mu.Unlock()
	}
}

// whole sees that a task's session, if it is its own, and its progress were told of, and its
// moves.
func (s *storm) whole(a *audience, l *life, h *hearsay, t subagent.Task) {
	sessions, session := h.topics[subagent.TopicSession], t.Session != "" && !l.theirs
	heard := h.topics[subagent.TopicProgress] > 0
	if sessions > 1 || sessions == 1 != session || heard != !t.Progress.LastActivity.IsZero() {
		s.wrong("%s hears %d times of a session of task %s, which has %q, and of its progress: %v; it was last active at %v",
			a.name, sessions, t.ID, t.Session, heard, t.Progress.LastActivity)
	}
	if least, most := l.moves(); h.topics[subagent.TopicMoved] < least || h.topics[subagent.TopicMoved] > most {
		s.wrong("%s hears of %d moves of task %s, and there were %d to %d", a.name, h.topics[subagent.TopicMoved], t.ID, least, most)
	}
}

// checkToldEvents: who keeps up has heard of each run that was told, and of no other.
func (s *storm) checkToldEvents() {
	for _, a := range s.audiences {
		if a.name != "who keeps up" {
			continue
		}
		a.mu.Lock()
		for _, r := range s.allRuns() {
			n, k := 0, r.notice()
			if h := a.heard[k.task]; h != nil {
				n = h.told[k.run]
			}
			_, arrived := s.parent.At(k.task, k.run)
			if s.told[k] && n == 0 && a.lost == 0 || n > 0 && !arrived {
				s.wrong("%s hears %d times that run %d of task %s was told, and it was: %v", a.name, n, k.run, k.task, arrived)
			}
		}
		a.mu.Unlock()
	}
}
