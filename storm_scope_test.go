package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// Transcript is a call that nobody makes after the end.
func (h host) Transcript(ctx context.Context, id subagent.SessionID, q subagent.TranscriptQuery) ([]subagent.Message, error) {
	c := h.s.enter(subagenttest.OpTranscript, nil, id)
	defer h.s.leave(c, outcome{})
	h.s.mu.Lock()
	if !h.s.closed.IsZero() && h.s.closed.Before(time.Now()) {
		h.s.wrong("the transcript of %q is asked for after the manager was closed", id)
	}
	h.s.mu.Unlock()
	return h.Client.Transcript(ctx, id, q)
}

// reaches reports whether a session is above a task, or runs it.
func (s *storm) reaches(by subagent.SessionID, l life) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := l.in.Parent; p != by; {
		if above := s.bySess[p]; above != nil {
			p = above.in.Parent
		} else if kind, rest := kindOf(p); kind == "f" {
			p = rest
		} else {
			return l.session == by
		}
	}
	return true
}

// parentOf is the parent of a task, as long as no task moves; then "".
func (s *storm) parentOf(l *life) subagent.SessionID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moving || l.run == nil {
		return ""
	}
	return l.in.Parent
}

func (s *storm) isMoving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moving
}

// readers are how a session comes to see one task.
var readers = []func(ctx context.Context, r *rand.Rand, s *storm, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error){
	func(_ context.Context, _ *rand.Rand, _ *storm, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error) {
		return m.Get(id)
	},
	func(ctx context.Context, _ *rand.Rand, _ *storm, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error) {
		return m.Wait(ctx, id)
	},
	func(ctx context.Context, _ *rand.Rand, _ *storm, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error) {
		return m.WaitAny(ctx, subagent.Filter{IDs: []subagent.TaskID{id}})
	},
	func(ctx context.Context, r *rand.Rand, s *storm, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error) {
		return s.output(ctx, r, m, id)
	},
	func(ctx context.Context, r *rand.Rand, s *storm, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error) {
		return s.output(ctx, r, m, id)
	},
}

// output reads a task with Output, which comes back in time whatever the host does.
func (s *storm) output(ctx context.Context, r *rand.Rand, m subagent.Scoped, id subagent.TaskID) (subagent.Task, error) {
	q := subagent.OutputQuery{
		Wait: s.while(r, 10*time.Second).Truncate(time.Millisecond), Transcript: r.IntN(2) == 0,
		Limit: r.IntN(3), Since: []string{"", "msg_1", "none"}[r.IntN(3)], Timeout: time.Second + s.while(r, 4*time.Second),
	}
	began := time.Now()
	o, err := m.Output(ctx, id, q)
	if took := time.Since(began); took > q.Wait+q.Timeout {
		s.wrong("Output took %v, asked for %+v", took, q)
	}
	if err == nil && o.TimedOut == o.Task.Status.Terminal() && q.Wait > 0 {
		s.wrong("Output waited for task %s, which is %v; timed out: %v", id, o.Task.Status, o.TimedOut)
	}
	if o.Task.Status.Terminal() && len(o.String()) == 0 {
		s.wrong("Output of task %s says nothing", id)
	}
	return o.Task, err
}

// readSome has a session read a task, most often a child of its own.
func (s *storm) readSome(r *rand.Rand, _ string) {
	ctx, cancel := s.ctx(r, 30*time.Second)
	defer cancel()
	l, ok := s.target(r)
	if !ok {
		_, err := s.m.As(root(r)).Get("bg_none")
		s.must(err, subagent.ErrNotFound)
		return
	}
	by := l.in.Parent
	if r.IntN(4) == 0 {
		by = s.someone(r)
	}
	moving := s.isMoving()
	if moving && by != l.in.Parent {
		return // who is above whom may change meanwhile
	}
	read := readers[r.IntN(len(readers))]
	if !moving && !s.reaches(by, l) {
		s.foreign(ctx, r, by, l, read)
		return
	}
	s.mu.Lock()
	s.byID[l.id].mayRead = true // whoever reads may be its parent by then
	s.mu.Unlock()
	t, err := read(ctx, r, s, s.m.As(by), l.id)
	if (by == l.session || s.isMoving()) && errors.Is(err, subagent.ErrNotFound) {
		return // it waits for none but those below it, and those that were may have moved
	}
	s.allowed(err)
	if err == nil && t.Status.Terminal() {
		s.ended("a read", t, nil)
		s.wasRead(by, l, t.Run)
	}
}

// foreign sees that a task out of reach is as unknown as an id that never was.
func (s *storm) foreign(ctx context.Context, r *rand.Rand, by subagent.SessionID, l life, read func(context.Context, *rand.Rand, *storm, subagent.Scoped, subagent.TaskID) (subagent.Task, error)) {
	began := time.Now()
	t, err := read(ctx, r, s, s.m.As(by), l.id)
	_, cancelled := s.m.As(by).Cancel(ctx, l.id, subagent.CancelOptions{})
	unknown := fmt.Sprintf("subagent: no such task: %q", l.id)
	if any := "subagent: no such task matches the filter"; err == nil || err.Error() != unknown && err.Error() != any || cancelled == nil || cancelled.Error() != unknown {
		s.wrong("%q reads and cancels task %s, which is not below it: %v, %v", by, l.id, err, cancelled)
	}
	if t.ID != "" || time.Since(began) > 0 {
		s.wrong("%q got %v of task %s after %v, which is not below it", by, t.Status, l.id, time.Since(began))
	}
}

// wasRead takes in that a parent was shown how a child ended. If nothing of it is on its
// way by then, nothing is ever sent. Only roots: of a child it may go on to the next above.
func (s *storm) wasRead(by subagent.SessionID, l life, run int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.m.Pending(by)
	b := s.mail(by)
	is := func(n subagent.Notice) bool { return n.Task == l.id && n.Run == run }
	sent := slices.ContainsFunc(o.Notices, is)
	for _, p := range b.batches {
		sent = sent || slices.ContainsFunc(p.n.Notices, is)
	}
	if by != l.in.Parent || s.bySess[by] != nil || b.gone || sent || s.moving {
		return
	}
	if runs := s.byID[l.id].runs; len(runs) >= run && runs[run-1] != nil {
		runs[run-1].read = true
	}
}
