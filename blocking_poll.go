package subagent

import (
	"context"
	"time"
)

// The look at all sessions of a host that does not wait, beside its events.

// Resync has all sessions looked at now, as after a gap in the host's events.
func (b *BlockingClient) Resync() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.turns {
		t.gap = !t.sent // one that the host is being given is not asked for yet
	}
	b.resyncLocked()
}

func (b *BlockingClient) resyncLocked() {
	if b.cfg.Poll == Off && len(b.turns) > 0 {
		b.pollLocked()
	}
	b.lookNow()
}

func (b *BlockingClient) lookNow() {
	select {
	case b.resync <- struct{}{}:
	default: // it will, or no poller runs
	}
}

// pollLocked starts the goroutine that looks at all sessions, unless it runs. It ends
// with the last turn; without polls it looks when it is asked to.
func (b *BlockingClient) pollLocked() {
	if !b.polling {
		b.polling, b.resync = true, make(chan struct{}, 1)
		go b.poll(b.resync)
	}
}

func (b *BlockingClient) poll(resync chan struct{}) {
	for again := true; again; again = b.pollsGoOn() {
		pause := time.NewTimer(max(b.cfg.Poll, 1))
		select {
		case <-pause.C:
		case <-resync:
			pause.Stop()
		}
		if turns := b.out(); turns != nil {
			b.look(turns)
		}
	}
}

// look asks for all turns at once. A call that does not heed its context is left behind
// and listed by Close, and what it says then does not count; no more than Parallel are.
func (b *BlockingClient) look(turns []*hostTurn) {
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Call)
	defer cancel()
	b.mu.Lock()
	b.cancelLook = cancel
	b.looks++
	tooMany := b.looks > b.cfg.Parallel
	b.mu.Unlock()
	seen, l := make(chan struct{}), &look{}
	go func() {
		defer close(seen)
		defer b.lookIsOver(l)
		if tooMany {
			return
		}
		all, err := b.statuses(ctx, sessionsOf(turns))
		if err == nil && ctx.Err() == nil {
			b.polled(turns, all)
		}
	}()
	select {
	case <-seen:
	case <-ctx.Done():
		b.lookIsLate(l)
	}
}

// look is one of the poller's. Guarded by the client's mu.
type look struct{ over, late bool }

func (b *BlockingClient) lookIsOver(l *look) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.over = true
	b.looks--
	if l.late {
		b.stuck--
	}
}

func (b *BlockingClient) lookIsLate(l *look) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.late = !l.over; l.late {
		b.stuck++
	}
}

// callsLeft is how many calls of Statuses have outlived their context.
func (b *BlockingClient) callsLeft() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stuck
}

// pollsGoOn is where the poller ends: with the last turn, or, without polls, when it
// has looked as often as it was asked to.
func (b *BlockingClient) pollsGoOn() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancelLook = nil
	b.polling = len(b.turns) > 0 && (b.cfg.Poll != Off || len(b.resync) > 0)
	return b.polling
}

func sessionsOf(turns []*hostTurn) []SessionID {
	ids := make([]SessionID, len(turns))
	for i, t := range turns {
		ids[i] = t.session
	}
	return ids
}

func (b *BlockingClient) statuses(ctx context.Context, of []SessionID) (all map[SessionID]HostStatus, err error) {
	b.mu.Lock()
	b.asks++
	ask := b.asks
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Call)
	defer cancel()
	err = guard("statuses", func() (err error) {
		all, err = b.host.Statuses(ctx, of)
		return err
	})
	if err == nil {
		b.seenBusy(all, ask)
	}
	return all, err
}

// seenBusy takes in which turns go on, whoever has asked. An answer that was on its way
// when a turn was sent, or brought to rest, is not about what it does now.
func (b *BlockingClient) seenBusy(all map[SessionID]HostStatus, ask int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, t := range b.turns {
		if t.sent && ask > t.since && all[id].busy() {
			t.alive()
		}
	}
}

// out are the turns that the host has been given: where a session is before that says
// nothing of its turn.
func (b *BlockingClient) out() (turns []*hostTurn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.turns {
		if t.sent {
			turns = append(turns, t)
		}
	}
	return turns
}

func (b *BlockingClient) polled(turns []*hostTurn, all map[SessionID]HostStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range turns {
		status, known := all[t.session]
		switch {
		case status == HostUnreachable, status.busy():
			continue // seenBusy took in the busy
		case known:
			t.misses, t.ended = 0, t.ended || status == HostEnded
		default:
			t.misses++
		}
		t.resting = true
		t.rests++
		t.news()
	}
}
