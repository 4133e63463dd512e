package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// settle stops the faults at a moment that nobody chose and sees that all comes to
// an end in time: whatever is out returns, a stop takes its grace, a batch its pause,
// and the operations end by their own contexts.
func (s *storm) settle() {
	s.calm.Store(true)
	s.client.Let()
	s.parent.Let()
	const longestContext = 4 * 30 * time.Second
	time.Sleep(s.cfg.AbortGrace + max(s.cfg.Mailbox.BackoffMax+s.cfg.Mailbox.GatherMax, longestContext) + 15*time.Second)
	s.rest()
	s.mu.Lock()
	for name, since := range s.working {
		s.wrong("operation %s has not returned since %v", name, since.Sub(s.born))
	}
	for _, l := range s.byID {
		if l.ended == nil {
			s.wrong("task %s is still %v because of %v", l.id, l.seen.Status, l.seen.Reason)
		}
	}
	s.mu.Unlock()
	s.takeParked()
	s.checkTold()
	s.fullBatch()
}

// takeParked drains what was given up on: that must be possible, and nothing else may
// be left.
func (s *storm) takeParked() {
	for _, p := range s.parents() {
		o := s.m.Pending(p)
		if len(o.Notices) > 0 && !o.Parked && s.cfg.Mailbox.Push != subagent.PushOff || o.Wake {
			s.wrong("%q is still owed %+v", p, o)
		}
		for s.drain(p, 0, true) {
		}
		if o := s.m.Pending(p); o.Live > 0 || len(o.Notices) > 0 || o.InFlight {
			s.wrong("%q is owed %+v, and Drain gives nothing", p, o)
		}
	}
	time.Sleep(time.Minute)
	s.rest()
}

// parents are all sessions that launched.
func (s *storm) parents() (all []subagent.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.allRuns() {
		for _, st := range r.stays {
			all = append(all, st.parent)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// checkTold: every run that is owed was told, but for what was dropped and counted;
// what ended with its parent was told at an ancestor. A parent that has nothing live
// any more was told so.
func (s *storm) checkTold() {
	dropped := s.m.Stats().Notices.Dropped
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkToldEvents()
	for _, r := range s.allRuns() {
		k := r.notice()
		if _, arrived := s.parent.At(k.task, k.run); r.owed() && !s.told[k] && !s.perhaps[k] && !r.of.mayRead && !s.gone || s.told[k] && !arrived {
			s.wrong("run %d of task %s of %q, %v because of %v, was not told to anybody", k.run, k.task, r.parent(), r.seen.Status, r.seen.Reason)
		}
	}
	if dropped > 0 && !s.gone {
		s.wrong("%d notices were dropped, and no parent is gone", dropped)
	}
	for id, b := range s.mails {
		if l := s.bySess[id]; l == nil && b.last != nil && !b.gone && !b.last.n.Final && !b.last.thawed {
			s.wrong("the last batch of %q is not final", id)
		}
	}
}

// fullBatch sees that nothing was lost on the way: of each key as many tasks as its
// limits allow start at once, and no more.
func (s *storm) fullBatch() {
	for i, in := range []subagent.LaunchInput{
		{Agent: "a", Model: "x/one"}, {Agent: "b", Model: "x/one"}, {Agent: "b", Model: "x/two"}, {Agent: "a"}, {Agent: "b"}, {Agent: "a", Model: "y/one"},
	} {
		in.Parent, in.Prompt = subagent.SessionID(fmt.Sprint("fresh", i)), "work"
		s.mu.Lock()
		p := s.newPlace(in.Parent, in.Agent, in.Model, &run{})
		at, most := 6, 6 // once; and in all
		for _, k := range p.shares {
			if n := s.limitNow(k); n != subagent.Off {
				if at = min(at, n); k.Kind != subagent.StartsKey {
					most = min(most, n)
				}
			}
		}
		s.mu.Unlock()
		n := 0
		for try := range min(most+1, s.cfg.Spawn.LivePerRoot, s.cfg.Spawn.TotalPerRoot&0xff) {
			t, err := s.m.Get(s.launch(fmt.Sprint("fresh", i, "-", try), in).id)
			if err != nil && n >= at {
				continue // those before it are still being created, and its queue is full
			}
			waits := err != nil || t.Status == subagent.Pending
			if waits && n < at || !waits && n >= most && most < 6 {
				s.wrong("of a full batch of %d of %v, task %d is %v: %v", most, in, n, t.Status, err)
			}
			n++
		}
		time.Sleep(time.Minute)
		s.rest()
		if s.live(in.Parent) > 0 {
			s.wrong("a full batch of %v has not ended", in)
		}
	}
}

// shutDown has several calls shut the manager down, while operations go on.
func (s *storm) shutDown() {
	for i := range 1 + s.rng.IntN(3) {
		r := s.dice("shut", i)
		s.run(fmt.Sprint("shut", i), func() {
			time.Sleep(s.while(r, 3*time.Second))
			if r.IntN(3) == 0 {
				s.close(0, (*subagent.BackgroundManager).Close)
				return
			}
			most := s.while(r, 30*time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), most)
			defer cancel()
			s.close(most, func(m *subagent.BackgroundManager) error { return m.Shutdown(ctx) })
		})
	}
	for i := range 5 + s.rng.IntN(10) {
		s.start(100 + i)
		if s.rng.IntN(2) == 0 {
			time.Sleep(s.while(s.rng, 5*time.Second))
		}
		if s.rng.IntN(3) == 0 {
			s.rest()
		}
	}
}

// close shuts the manager down: in bounded time, with the same result for all, which
// lists the calls that are still out, all of them and no others.
func (s *storm) close(most time.Duration, call func(*subagent.BackgroundManager) error) {
	s.mu.Lock()
	if s.closing.IsZero() {
		s.closing = time.Now()
	}
	s.mu.Unlock()
	began := time.Now()
	err := call(s.m)
	s.client.Closed()
	if took := time.Since(began); took > most+2*s.cfg.AbortGrace+2*settleTime {
		s.wrong("the shutdown took %v, after %v", took, most)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed.IsZero() {
		if err != s.closeErr {
			s.wrong("one shutdown said %v and another %v", s.closeErr, err)
		}
		return
	}
	s.closed, s.closeErr = time.Now(), err
	var list *subagent.UnstoppedError
	if err != nil && !errors.As(err, &list) {
		s.wrong("the shutdown said %v", err)
		return
	}
	s.checkUnstopped(list)
}

// checkUnstopped: all that was out before that instant is listed.
func (s *storm) checkUnstopped(list *subagent.UnstoppedError) {
	if list != nil {
		s.listed = list.Calls
	}
	for session, l := range s.bySess {
		is := func(u subagent.UnstoppedCall) bool {
			return u.Op == string(subagenttest.OpRelease) && u.Session == session
		}
		if !l.theirs && !s.released[session] && !slices.ContainsFunc(s.listed, is) {
			s.wrong("session %q of task %s was not given up", session, l.id)
		}
	}
	for c := range s.out {
		is := func(u subagent.UnstoppedCall) bool { return c.isListed(u) }
		if c.entered.Before(s.closed) && !slices.ContainsFunc(s.listed, is) {
			s.wrong("a %s of session %q is out since %v, and the shutdown lists only %v", c.op, c.session, c.entered.Sub(s.born), list)
		}
	}
}

func (c *call) isListed(u subagent.UnstoppedCall) bool {
	return u.Op == string(c.op) && (c.op == opHooks || c.life != nil && u.Task == c.life.id || c.session != "" && u.Session == c.session)
}

// checkListed: what is listed was out, or has failed: a Release, or a child that was
// given up.
func (s *storm) checkListed() {
	for _, u := range s.listed {
		found := u.Op == "" && u.Err != nil || u.Op == "log" || u.Op == string(subagenttest.OpRelease) && s.released[u.Session]
		for c := range s.out {
			found = found || c.isListed(u)
		}
		for c, at := range s.lastOut {
			found = found || c.isListed(u) && !at.Before(s.closed)
		}
		if !found {
			s.wrong("the shutdown lists %+v, and nothing of it is out", u)
		}
	}
	s.listed = nil
}

// end closes the manager, lets go of every call and checks the rest.
func (s *storm) end() {
	s.close(0, (*subagent.BackgroundManager).Close)
	s.close(0, (*subagent.BackgroundManager).Close)
	s.rest()
	s.calm.Store(true)
	s.client.Let()
	s.parent.Let()
	s.ops.Wait()
	time.Sleep(time.Hour)
	s.rest()
	s.checkOutcomes()
	s.checkEvents()
	synctest.Wait()
	for _, v := range append(s.client.Violations(), s.parent.Violations()...) {
		var id subagent.SessionID
		_, _ = fmt.Sscanf(v, "prompt of session %s after its release", &id)
		// Track made it another's; and the call of somebody else, whose turn was stopped,
		// need not have returned to him.
		theirs := strings.Contains(v, ", made for task t/") || strings.HasPrefix(v, "two prompts of session t/")
		if !theirs && !strings.Contains(v, sameID) && !s.crossed[id] { // the host's own doing: it gave one id to two
			s.wrong("%s", v)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, leak := range s.client.Leaks() {
		var id subagent.SessionID
		_, _ = fmt.Sscanf(leak, "session %s", &id)
		if strings.Contains(leak, "nobody prompted") && (s.bySess[id] != nil || s.released[id]) {
			continue // its Prompt was cut off on its way; or it was stopped in its hook, and its Release failed
		}
		s.wrong("%s", leak)
	}
	for c := range s.out {
		s.wrong("a %s of session %q is still out", c.op, c.session)
	}
}
