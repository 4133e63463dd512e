package subagent_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

const (
	opNotify subagenttest.Op = "notify"

	// sameID is what the host returns for several sessions. What it then takes for
	// whose is its own doing.
	sameID = "ses_same"
)

// host is the fake host with a ledger before it and children that act.
type host struct {
	*subagenttest.Client
	s *storm
}

func (h host) Create(ctx context.Context, req subagent.CreateRequest) (id subagent.SessionID, err error) {
	c, over := h.s.enter(subagenttest.OpCreate, h.s.started(req), ""), false
	defer func() {
		o := result(over, err, id == "" || id == sameID)
		o.made = id
		h.s.leave(c, o)
	}()
	id, err = h.Client.Create(ctx, req)
	over = true
	return id, err
}

func (h host) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	return h.s.turnOf(ctx, h.s.promptedIn(id, p, false), id, func(l *life) (r subagent.Result, err error) {
		if ctx.Err() == nil {
			h.s.cross(ctx, l)
		}
		if err = context.Cause(ctx); err == nil || l.overtaken {
			r, err = h.Client.Prompt(ctx, id, p)
			h.s.act(ctx, l, "after", true)
		}
		return r, err
	})
}

// turnOf is the call of one turn, as the storm sees it.
func (s *storm) turnOf(ctx context.Context, l *life, id subagent.SessionID, turn func(*life) (subagent.Result, error)) (r subagent.Result, err error) {
	c, over := s.enter(subagenttest.OpPrompt, l, id), false
	defer func() {
		o := result(over, err, strings.TrimSpace(r.Text) == "" && !r.Empty)
		o.said = strings.TrimSpace(r.Text) != ""
		s.leave(c, o)
	}()
	s.act(ctx, l, "before", false)
	r, err = turn(l)
	over = true
	return r, err
}

func (h host) Abort(ctx context.Context, id subagent.SessionID) (err error) {
	c, over := h.s.enter(subagenttest.OpAbort, nil, id), false
	defer func() { h.s.leave(c, result(over, err, false)) }()
	err = h.Client.Abort(ctx, id)
	over = true
	return err
}

func (h host) Release(ctx context.Context, id subagent.SessionID) error {
	c := h.s.enter(subagenttest.OpRelease, nil, id)
	if kind, _ := kindOf(id); kind == "t" {
		h.s.wrong("session %s is given up, and is not ours", id)
	}
	defer h.s.leave(c, outcome{})
	return h.Client.Release(ctx, id)
}

// cross is a prompt's way to the host. An Abort may overtake it, and then the turn
// begins although the call has failed by that. What was started together by fullBatch
// is there together.
func (s *storm) cross(ctx context.Context, l *life) {
	r := s.dice("cross", l.origin)
	switch {
	case strings.HasPrefix(l.name, "fresh"):
		time.Sleep(time.Second)
	case s.calm.Load() || l.plain || r.Float64() >= s.faults:
	default:
		select {
		case <-time.After(s.while(r, time.Second)):
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			l.overtaken = s.closing.IsZero()
		}
	}
}

// act has a child do things of its own in the middle of its Prompt.
func (s *storm) act(ctx context.Context, l *life, when string, mayBlock bool) {
	r := s.dice("act", l.origin, when)
	if s.calm.Load() || l.plain || r.IntN(5) > 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.while(r, 5*time.Second))
	defer cancel()
	for i := range 1 + r.IntN(2) {
		if s.calm.Load() {
			return
		}
		name := l.origin + "." + when[:1] + string(rune('0'+i))
		switch n := r.IntN(10); {
		case n < 4 && s.depthOf(l) < 4:
			s.launch(name, s.input(r, name, l.session))
		case n == 4:
			s.cancel(ctx, r, l) // itself
		case n == 5:
			s.cancelAll(ctx, r, subagent.Filter{Parent: l.session})
		case n == 6:
			s.drain(l.session, 0, r.IntN(2) == 0)
		case n == 7 && mayBlock:
			s.do(ctx, name, s.input(r, name, l.session))
		case n == 9:
			if other, ok := s.target(r); ok {
				s.resume(r, name, other.id, l.session)
			}
		case n == 8 && mayBlock:
			_, err := s.m.WaitAll(ctx, subagent.Filter{Under: l.session})
			s.allowed(err)
		}
	}
}

// receiver is the fake parent with a ledger before it, and one that asks back.
type receiver struct {
	*subagenttest.Parent
	s *storm
}

func (p receiver) Notify(ctx context.Context, n subagent.Notification) (d subagent.Delivery, err error) {
	c, try := p.s.sent(n)
	over := false
	defer func() { p.s.cameBack(c, n, d, over && err == nil) }()
	if r := p.s.dice("reply", n.Parent, len(n.Notices), try); !p.s.calm.Load() && r.IntN(4) == 0 {
		name := string(n.Parent) + "'" + string(rune('0'+try%10)) + string(rune('0'+len(n.Notices)%10))
		switch r.IntN(5) {
		case 4:
			if len(n.Notices) > 0 {
				p.s.resume(r, name, n.Notices[0].Task, "")
			}
		case 0:
			p.s.launch(name, p.s.input(r, name, n.Parent))
		case 1:
			p.s.drain(n.Parent, 0, true)
		case 2:
			p.s.sample(n.Parent)
		case 3:
			p.s.cancelAll(ctx, r, subagent.Filter{Parent: n.Parent})
		}
	}
	d, err = p.Parent.Notify(ctx, n)
	over = true
	return d, err
}

// hostScript is the misbehaving host.
func (s *storm) hostScript(c subagenttest.Call) subagenttest.Action {
	if kind, _ := kindOf(subagent.SessionID(c.Task)); kind == "t" {
		return s.theirScript(c)
	}
	l := s.known(c.Task)
	r := s.dice(l.name, c.Op, c.N)
	switch {
	case c.Op == subagenttest.OpPrompt && l.overtaken:
		return subagenttest.Action{Orphan: true, Err: errStorm}
	case s.calm.Load():
		return subagenttest.Action{Delay: time.Millisecond}
	case l.plain && l.in.Prompt == "hold" && c.Op == subagenttest.OpPrompt:
		return subagenttest.Action{Delay: time.Hour}
	case l.plain:
		return subagenttest.Action{}
	}
	return s.action(r, c.Op)
}

// action is what a call does that may fail.
func (s *storm) action(r *rand.Rand, op subagenttest.Op) (a subagenttest.Action) {
	if s.calm.Load() {
		return subagenttest.Action{Delay: time.Millisecond}
	}
	if r.Float64() < s.faults {
		a = faults[op][r.IntN(len(faults[op]))]
	}
	if a.Panic == errExit {
		runtime.Goexit()
	}
	a.Delay += s.while(r, longest[op])
	return a
}

// depthOf is how deep what a task launches will be.
func (s *storm) depthOf(l *life) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, depth := s.trace(l.parent())
	return depth
}

var longest = map[subagenttest.Op]time.Duration{
	subagenttest.OpCreate: 2 * time.Second, subagenttest.OpPrompt: 20 * time.Second,
	subagenttest.OpAbort: 3 * time.Second, subagenttest.OpRelease: time.Second,
	subagenttest.OpTranscript: time.Second,
}

// faults is the menu: what can go wrong with each call. A delay comes on top of the
// call's own.
var faults = map[subagenttest.Op][]subagenttest.Action{
	subagenttest.OpCreate: {
		{Err: errStorm}, {Hang: true}, {Deaf: true}, {Deaf: true, Delay: time.Minute}, {Hang: true, Deaf: true},
		{Err: errStorm, Made: true}, {Err: errStorm, Lost: true}, {Panic: errStorm}, {Panic: errExit}, {NoID: true}, {ID: sameID},
	},
	subagenttest.OpPrompt: {
		{Err: errStorm}, {Err: &subagent.SessionError{Op: "prompt", Class: subagent.ClassQuota, Err: errStorm}},
		{Hang: true}, {Deaf: true}, {Deaf: true, Delay: time.Minute}, {Hang: true, Deaf: true}, {Panic: "storm"}, {Panic: errExit},
		{Blank: true}, {Empty: true}, {Err: errStorm, Orphan: true}, {Text: strings.Repeat("long ", 16_000)},
	},
	subagenttest.OpAbort: {
		{Err: errStorm}, {Hang: true}, {Hang: true, Deaf: true}, {Panic: "storm"}, {Panic: errExit}, {Delay: 9 * time.Second},
	},
	subagenttest.OpTranscript: {
		{Err: errStorm}, {Hang: true}, {Deaf: true, Delay: time.Minute}, {Hang: true, Deaf: true}, {Panic: errStorm}, {Panic: errExit}, {Err: errors.ErrUnsupported},
	},
	subagenttest.OpRelease: {
		{Err: errStorm}, {Hang: true}, {Hang: true, Deaf: true}, {Panic: "storm"},
	},
}

// errExit stands in the menu for the end of the call's goroutine.
var errExit = errors.New("runtime.Goexit")

// parentScript is the misbehaving receiver.
func (s *storm) parentScript(n subagent.Notification, try int) subagenttest.Reply {
	if s.calm.Load() {
		return subagenttest.Reply{Delay: time.Millisecond}
	}
	r := s.dice("notify", n.Parent, len(n.Notices), try)
	reply := subagenttest.Reply{Delay: s.while(r, 2*time.Second)}
	if r.Float64() >= s.faults {
		return reply
	}
	replies := []subagenttest.Reply{
		{Err: errStorm}, {Err: errStorm, Lost: true}, {Refuse: true}, {Delivery: subagent.Busy}, {Panic: "storm"},
		{Hang: true}, {Hang: true, Deaf: true}, {Hang: true, Lost: true}, {Delivery: subagent.Busy}, {Delivery: 17}, {Panic: errExit},
	}
	if s.seed%5 == 0 {
		replies = append(replies, subagenttest.Reply{Delivery: subagent.Gone})
	}
	bad := replies[r.IntN(len(replies))]
	if bad.Panic == errExit {
		runtime.Goexit()
	}
	bad.Delay = reply.Delay
	return bad
}
