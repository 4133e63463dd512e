package subagent

import (
	"cmp"
	"context"
	"time"
)

// How a turn of a host that does not wait is brought to rest.

// Abort has the host stop a turn, and returns when the host says that the session
// rests. While it does not, or can't be reached, it is asked again: the turn may have
// begun behind the first time.
func (b *BlockingClient) Abort(ctx context.Context, id SessionID) error {
	for {
		t := b.abortBegins(id)
		if err := b.bringToRest(ctx, id); err != nil {
			return err
		}
		if b.abortEnds(id, t) {
			return nil
		}
	}
}

// abortBegins has a Prompt that is out see to it that its own turn is stopped, should
// it be sent behind the abort.
func (b *BlockingClient) abortBegins(id SessionID) *hostTurn {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.turns[id]
	if t != nil {
		t.asked = true
	}
	return t
}

// abortEnds takes in that a session was seen to rest. It is false if a turn was begun
// and sent meanwhile, which may have been behind that.
func (b *BlockingClient) abortEnds(id SessionID, at *hostTurn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.turns[id]
	switch {
	case t == nil:
	case t == at:
		t.aborted, t.resting, t.since = true, true, b.asks
		t.news()
	case t.sent:
		return false
	default:
		t.asked = true
	}
	return true
}

func (b *BlockingClient) bringToRest(ctx context.Context, id SessionID) error {
	for misses, wait := 0, max(b.cfg.Settle/5, 1); ; wait = min(2*wait, b.cfg.Settle) {
		err := b.part(ctx, func(ctx context.Context) error { return b.host.Abort(ctx, id) })
		if isFinal(err) {
			return err
		}
		var all map[SessionID]HostStatus
		if err == nil {
			err = b.part(ctx, func(ctx context.Context) (err error) {
				all, err = b.statuses(ctx, []SessionID{id})
				return err
			})
		}
		switch s, known := all[id]; {
		case err != nil || s == HostUnreachable || s.busy():
			misses = 0
		case known:
			misses = b.cfg.Misses
		default:
			misses++
		}
		if misses >= b.cfg.Misses {
			return nil
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return &SessionError{Op: "abort", Session: id, Err: cmp.Or(err, context.Cause(ctx))}
		}
	}
}

// part gives a call a third of the time there is: one that hangs leaves some for another.
func (b *BlockingClient) part(ctx context.Context, do func(context.Context) error) error {
	most := b.cfg.Call
	if end, ok := ctx.Deadline(); ok {
		most = min(most, max(time.Until(end)/3, time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return do(ctx)
}
