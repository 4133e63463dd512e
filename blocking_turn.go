package subagent

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"
)

// How a turn of a host that does not wait is found to be over.

// await is the turn: it looks whenever there is something new, and again after a
// while as long as the session rests without a whole answer.
func (b *BlockingClient) await(ctx context.Context, t *hostTurn, mark any, sendErr error) (Result, error) {
	startBy := time.Now().Add(b.cfg.Started)
	lookAt := startBy
	looks, begun := 0, false // looks in a row that found the session resting and its answer not whole
	for {
		next := lookAt
		if !begun && startBy.Before(next) {
			next = startBy
		}
		if !b.pause(ctx, t, time.Until(next)) {
			r, over, err := b.judge(ctx, t, mark, looks) // it may have been stopped, and have come to rest
			if !over {
				err = &SessionError{Op: "prompt", Session: t.session, Err: context.Cause(ctx)}
				r = b.soFar(ctx, t, mark)
			}
			return r, err
		}
		if !begun && !time.Now().Before(startBy) {
			var known bool
			switch begun, known = b.begun(ctx, t, mark); {
			case !known:
				startBy = time.Now().Add(b.cfg.Settle << 4)
			case !begun:
				return Result{}, &SessionError{Op: "prompt", Session: t.session, Class: ClassUnavailable, Err: b.troubled(t, cmp.Or(sendErr, errNotStarted))}
			}
		}
		r, over, err := b.judge(ctx, t, mark, looks)
		if over {
			return r, err
		}
		switch s := b.state(t); {
		case !s.resting && !s.deleted && s.failed == nil:
			looks = 0
			lookAt = time.Now().Add(time.Hour) // or at the next news
		case looks == 0, !time.Now().Before(lookAt): // there is something to find out; news in between are no look
			looks++
			lookAt = time.Now().Add(b.cfg.Settle << min(looks-1, 4))
		}
	}
}

// soFar is what a turn had said that was stopped, although a sign of life that came late
// hides that it rests.
func (b *BlockingClient) soFar(ctx context.Context, t *hostTurn, mark any) Result {
	if !b.state(t).asked {
		return Result{}
	}
	late, cancel := b.late(ctx)
	defer cancel()
	out, err := b.output(late, t, mark)
	if err != nil {
		return Result{}
	}
	return Result{Text: out.Text, Usage: out.Usage}
}

// late is for a look after ctx has ended, as it does as soon as Abort has returned: who
// stops a child does not wait long.
func (b *BlockingClient) late(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 8*b.cfg.Settle)
}

// pause waits for news of a turn, and so long at most; false means that ctx has ended.
func (b *BlockingClient) pause(ctx context.Context, t *hostTurn, most time.Duration) bool {
	timer := time.NewTimer(max(most, 1))
	defer timer.Stop()
	select {
	case <-t.wake:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// begun reports whether there was any sign of life, if that can be found out.
func (b *BlockingClient) begun(ctx context.Context, t *hostTurn, mark any) (begun, known bool) {
	if b.state(t).signs > 0 {
		return true, true
	}
	switch s, err := b.status(ctx, t); { // polls may be off, or none came through
	case err != nil || s == HostUnreachable:
		return false, false
	case s.busy():
		return true, true
	}
	out, err := b.output(ctx, t, mark)
	return out.Evidence || out.Empty, err == nil
}

// judge finds out whether a turn is over. What it can't find out, or what was
// overtaken by a sign of life meanwhile, changes nothing.
func (b *BlockingClient) judge(ctx context.Context, t *hostTurn, mark any, looks int) (r Result, over bool, err error) {
	fail := func(class Class, err error) (Result, bool, error) {
		return r, true, &SessionError{Op: "prompt", Session: t.session, Class: class, Err: err}
	}
	s := b.state(t)
	if s.aborted {
		late, cancel := b.late(ctx)
		defer cancel()
		ctx = late
	}
	switch {
	case s.deleted && !s.aborted:
		if b.busy(ctx, t) {
			return r, false, nil // the host goes on with it: who stops it, will say so
		}
		return fail(ClassUnknown, ErrSessionGone)
	case s.steers > s.steered && !s.aborted, !s.resting && s.failed == nil:
		return r, false, nil
	case s.misses >= b.cfg.Misses:
		if there, err := b.exists(ctx, t); err == nil && !there {
			return fail(ClassUnknown, ErrSessionGone)
		}
	}
	out, err := b.output(ctx, t, mark)
	if err == nil && (out.Evidence || out.Empty || out.Err != nil && !goneFrom(out.Err)) {
		b.hasArrived(t)
	}
	if now := b.state(t); now.signs != s.signs || now.steers != s.steers || err != nil && !s.aborted && s.failed == nil {
		return r, false, nil
	}
	r = Result{Text: out.Text, Usage: out.Usage, Empty: out.Empty && strings.TrimSpace(out.Text) == ""}
	whole := (out.Evidence || out.Empty) && !out.Unfinished && out.OpenTodos == 0
	switch {
	case s.aborted:
		return fail(ClassAborted, errAborted)
	case s.failed != nil:
		return r, true, s.failed
	case goneFrom(out.Err) && b.busy(ctx, t):
		return r, false, nil
	case out.Err != nil && !out.Unfinished:
		return r, true, b.ofTurn(t, out.Err)
	case s.ended:
		return fail(ClassAborted, errEnded)
	case whole:
		return r, true, nil
	case out.Unfinished && out.Err != nil && looks >= b.cfg.Misses && !b.busy(ctx, t): // the host knows why
		return r, true, b.ofTurn(t, out.Err)
	case out.OpenTodos > 0, s.signs == 0 && !out.Evidence, looks < b.cfg.Misses, b.cfg.Poll != Off && s.rests <= b.cfg.Misses:
		return r, false, nil
	case s.asked: // a sign of life that came late has hidden that it was seen to rest
		return fail(ClassAborted, errAborted)
	case out.Unfinished:
		return fail(ClassUnavailable, b.troubled(t, errUnfinished))
	}
	return r, true, nil // a turn that said nothing, which the manager knows how to take
}

func (b *BlockingClient) hasArrived(t *hostTurn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.arrived = true
}

// ofTurn makes a plain error of a turn one that says so.
func (b *BlockingClient) ofTurn(t *hostTurn, err error) error {
	var said *SessionError
	if errors.As(err, &said) {
		return err
	}
	return &SessionError{Op: "prompt", Session: t.session, Class: ClassUnknown, Err: err}
}

// troubled is an error together with what events told of besides.
func (b *BlockingClient) troubled(t *hostTurn, err error) error {
	if s := b.state(t); s.trouble != nil {
		return errors.Join(err, s.trouble)
	}
	return err
}

// busy reports whether a session may be at work, whatever else says that it is not.
func (b *BlockingClient) busy(ctx context.Context, t *hostTurn) bool {
	s, err := b.status(ctx, t)
	return err != nil || s == HostUnreachable || s.busy()
}

// status asks for one session alone.
func (b *BlockingClient) status(ctx context.Context, t *hostTurn) (s HostStatus, err error) {
	err = b.slot(ctx, func(ctx context.Context) error {
		all, err := b.statuses(ctx, []SessionID{t.session})
		s = all[t.session]
		return err
	})
	return s, err
}

// goneFrom looks into an error of the host.
func goneFrom(err error) bool { return err != nil && errors.Is(err, ErrSessionGone) }

var errAborted = errors.New("the turn was aborted")

// status, output and exists look after one session, so many at a time.
func (b *BlockingClient) output(ctx context.Context, t *hostTurn, mark any) (out Answer, err error) {
	err = b.slot(ctx, func(ctx context.Context) (err error) {
		out, err = b.host.Output(ctx, t.session, mark)
		return err
	})
	return out, err
}

// exists also begins a new count of misses when the answer is yes.
func (b *BlockingClient) exists(ctx context.Context, t *hostTurn) (there bool, err error) {
	err = b.slot(ctx, func(ctx context.Context) (err error) {
		there, err = b.host.Exists(ctx, t.session)
		return err
	})
	if there && err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		t.misses = 0
	}
	return there, err
}

func (b *BlockingClient) slot(ctx context.Context, call func(context.Context) error) error {
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return b.call(ctx, call)
}
