package subagent_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// operations are what a host does, each as often as its number says. They may block.
var operations = weigh(map[int][]func(s *storm, r *rand.Rand, name string){
	40: {func(s *storm, r *rand.Rand, name string) { s.launch(name, s.input(r, name, s.someone(r))) }},
	9:  {(*storm).cancelSome},
	6:  {(*storm).readSome},
	5:  {(*storm).wait, (*storm).acquire, (*storm).setLimit},
	7:  {(*storm).resumeSome},
	4:  {(*storm).look, (*storm).drainSome, (*storm).trackSome},
	3:  {(*storm).reserve, (*storm).doSome, (*storm).hear},
	2:  {(*storm).cancelMany},
})

func weigh[F any](list map[int][]F) (all []F) {
	for _, weight := range slices.Sorted(maps.Keys(list)) {
		for range weight {
			all = append(all, list[weight]...)
		}
	}
	return all
}

// hear has the host tell of a session, rightly or not.
func (s *storm) hear(r *rand.Rand, _ string) {
	e := subagent.SessionEvent{Session: root(r), Kind: subagent.EventIdle}
	if r.IntN(4) == 0 {
		e.Session = s.someone(r)
	}
	if r.IntN(6) == 0 {
		e.Kind = subagent.EventInterrupted
		s.mu.Lock()
		s.interrupts = s.interrupts || s.cfg.Interrupted != subagent.InterruptedKeep
		s.mu.Unlock()
	}
	s.m.HandleEvent(e)
}

func (s *storm) doSome(r *rand.Rand, name string) {
	ctx, cancel := s.ctx(r, 30*time.Second)
	defer cancel()
	s.do(ctx, name, s.input(r, name, s.someone(r)))
}

func (s *storm) drainSome(r *rand.Rand, _ string) {
	s.drain(s.someone(r), s.while(r, 5*time.Second), r.IntN(2) == 0)
}

// start has an operation run beside the driver.
func (s *storm) start(i int) {
	name := strconv.Itoa(i)
	r, do := s.dice("op", i), operations[s.rng.IntN(len(operations))]
	s.run(name, func() { do(s, r, name) })
}

// run keeps account of what has not returned.
func (s *storm) run(name string, do func()) {
	s.mu.Lock()
	s.working[name] = time.Now()
	s.mu.Unlock()
	s.ops.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.working, name)
		}()
		do()
	})
}

// stepped starts one operation at a time and checks all in between.
func (s *storm) stepped() {
	s.crowd()
	for i := range 15 + s.rng.IntN(15) {
		s.start(i)
		s.rest()
		if s.rng.IntN(3) > 0 {
			time.Sleep(s.while(s.rng, 5*time.Second))
			s.rest()
		}
	}
}

// free starts operations at the same time and looks only now and then.
func (s *storm) free() {
	s.crowd()
	for i := range 15 + s.rng.IntN(20) {
		s.start(i)
		switch s.rng.IntN(6) {
		case 0:
			time.Sleep(s.while(s.rng, 5*time.Second))
		case 1:
			s.rest()
		case 2:
			s.sample(root(s.rng)) // beside whatever goes on
		}
	}
	s.sample("root0")
	s.rest()
}

// crowd holds up the head of a queue by its parent's cap, and has many more pass it
// by than may.
func (s *storm) crowd() {
	most := s.cfg.Keys.PerParent
	if s.seed%8 != 0 || most == subagent.Off {
		return
	}
	limit := subagent.Key{Kind: subagent.ModelKey, Name: "crowd/x"}
	s.limit(limit, most+1)
	in := subagent.LaunchInput{Agent: "c", Model: limit.Name, NoNotice: true}
	for i := range most + 1 {
		in.Parent, in.Prompt = "holder", "hold"
		s.launch(fmt.Sprint("crowd+", i), in)
	}
	s.rest()
	for i := range 90 {
		in.Parent, in.Prompt = subagent.SessionID(fmt.Sprint("crowd", i%9)), "pass"
		s.launch(fmt.Sprint("crowd-", i), in)
		if i%16 == 0 {
			s.rest()
		}
	}
	s.rest()
}

// root is one of the sessions that no task runs in.
func root(r *rand.Rand) subagent.SessionID {
	return subagent.SessionID(fmt.Sprintf("root%d", r.IntN(3)))
}

// someone is a session that may launch.
func (s *storm) someone(r *rand.Rand) subagent.SessionID {
	switch n := r.IntN(12); {
	case n < 7:
		return root(r)
	case n == 7:
		return subagent.SessionID([]string{"fe/1", "fc/1", "f/fc/2", "f/f/root1", "f/root2"}[r.IntN(5)])
	default:
		l, ok := s.target(r)
		if !ok || l.session == "" {
			return root(r)
		}
		if n == 8 {
			return "f/" + l.session
		}
		return l.session
	}
}

// target is some task, chosen by name. What is returned is a copy.
func (s *storm) target(r *rand.Rand) (l life, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 8 {
		name := strconv.Itoa(r.IntN(35))
		if r.IntN(4) == 0 {
			name += []string{".b0", ".b1", ".a0", ".b0.b0"}[r.IntN(4)]
		}
		if l := s.lives[name]; l != nil && l.id != "" {
			copied := *l
			now := *l.run
			now.in.Parent, copied.run = l.parent(), &now
			return copied, true
		}
	}
	return l, false
}

func (s *storm) input(r *rand.Rand, name string, parent subagent.SessionID) subagent.LaunchInput {
	return subagent.LaunchInput{
		Parent: parent, Agent: []string{"a", "b"}[r.IntN(2)], Prompt: "work", Description: "work " + name,
		Model: []string{"", "", "x/one", "x/two", "y/one"}[r.IntN(5)], NoNotice: r.IntN(8) == 0,
	}
}

func (s *storm) cancelSome(r *rand.Rand, _ string) {
	ctx, stop := s.ctx(r, []time.Duration{30 * time.Second, time.Hour, time.Hour}[r.IntN(3)])
	defer stop()
	if l, ok := s.target(r); ok {
		s.cancel(ctx, r, s.known(l.id))
	}
}

func (s *storm) cancelMany(r *rand.Rand, _ string) {
	f := subagent.Filter{Under: root(r)}
	if r.IntN(2) == 0 {
		f = subagent.Filter{Parent: s.someone(r)}
	}
	s.cancelAll(context.Background(), r, f)
}

func (s *storm) wait(r *rand.Rand, _ string) {
	ctx, cancel := s.ctx(r, 30*time.Second)
	defer cancel()
	l, ok := s.target(r)
	switch n := r.IntN(3); {
	case !ok:
		_, err := s.m.Wait(ctx, "bg_none")
		s.must(err, subagent.ErrNotFound)
	case n == 0:
		t, err := s.m.WaitAny(ctx, subagent.Filter{Parent: l.in.Parent})
		s.allowed(err, subagent.ErrNotFound) // all may have moved away
		s.ended("WaitAny", t, err)
	case n == 1:
		tasks, err := s.m.WaitAll(ctx, subagent.Filter{Parent: l.in.Parent})
		s.allowed(err)
		for _, t := range tasks {
			if t.Queued.Before(time.Now()) { // one launched as it returned may be live
				s.ended("WaitAll", t, err)
			}
		}
	default:
		called := time.Now()
		t, err := s.m.Wait(ctx, l.id)
		s.allowed(err)
		s.ended("Wait", t, err)
		if err == nil {
			s.waited(l, t, called)
		}
	}
}

// waited sees that who waited was given the run that was current when he began.
func (s *storm) waited(l life, t subagent.Task, called time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byID[t.ID].runs[t.Run-1]
	if t.Run < l.number || r.asked.After(called) {
		s.wrong("a wait that began in run %d of task %s, at %v, was given run %d, asked for at %v", l.number, l.id, called.Sub(s.born), t.Run, r.asked.Sub(s.born))
	}
}

// look reads what can be read, in the middle of everything.
func (s *storm) look(r *rand.Rand, name string) {
	s.sample(root(r))
	in := s.input(r, name, s.someone(r))
	in.Labels = map[string]string{"n": name}
	s.refusal(in, s.m.CanLaunch(context.Background(), in))
	if l, ok := s.target(r); ok && l.session != "" {
		if t, err := s.m.BySession(l.session); err != nil || t.ID != l.id {
			s.wrong("session %s is of task %s, and found is %s: %v", l.session, l.id, t.ID, err)
		}
	}
}
