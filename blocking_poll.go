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
// with the last turn; without polls it looks once.
func (b *BlockingClient) pollLocked() {
	if !b.polling {
		b.polling, b.resync = true, make(chan struct{}, 1)
		go b.poll(b.resync)
	}
}

func (b *BlockingClient) poll(resync chan struct{}) {
	over := false
	defer func() {
		if !over { // the host has ended the goroutine
			b.mu.Lock()
			defer b.mu.Unlock()
			b.polling = false
			b.pollLocked()
		}
	}()
	for {
		pause := time.NewTimer(max(b.cfg.Poll, 1))
		select {
		case <-pause.C:
		case <-resync:
			pause.Stop()
		}
		turns, again := b.out()
		if turns != nil {
			b.look(turns)
		}
		if over = !again; over {
			return
		}
	}
}

func (b *BlockingClient) look(turns []*hostTurn) {
	if all, err := b.statuses(context.Background(), sessionsOf(turns)); err == nil {
		b.polled(turns, all)
	}
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
// nothing of its turn. With none out at all, or without polls, this look is the last.
func (b *BlockingClient) out() (turns []*hostTurn, again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.turns {
		if t.sent {
			turns = append(turns, t)
		}
	}
	b.polling = len(b.turns) > 0 && b.cfg.Poll != Off
	return turns, b.polling
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
