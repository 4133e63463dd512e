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
	b.lookNow()
}

func (b *BlockingClient) lookNow() {
	select {
	case b.resync <- struct{}{}:
	default: // it will, or no poller runs
	}
}

// poll is the goroutine that looks at all sessions. It ends with the last turn.
func (b *BlockingClient) poll(resync chan struct{}) {
	defer func() { // also when the host ends the goroutine
		b.mu.Lock()
		defer b.mu.Unlock()
		b.polling = b.polling && b.resync != resync
	}()
	for {
		pause := time.NewTimer(b.cfg.Poll)
		select {
		case <-pause.C:
		case <-resync:
			pause.Stop()
		}
		turns := b.out()
		if turns == nil {
			return
		}
		if all, err := b.statuses(context.Background(), sessionsOf(turns)); err == nil {
			b.polled(turns, all)
		}
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
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Call)
	defer cancel()
	err = guard("statuses", func() (err error) {
		all, err = b.host.Statuses(ctx, of)
		return err
	})
	return all, err
}

// out are the turns that are out; with none the poller is over.
func (b *BlockingClient) out() (turns []*hostTurn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.turns {
		turns = append(turns, t)
	}
	b.polling = turns != nil
	return turns
}

func (b *BlockingClient) polled(turns []*hostTurn, all map[SessionID]HostStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range turns {
		status, known := all[t.session]
		switch {
		case status == HostBusy, status == HostRetrying:
			t.alive()
			continue
		case known:
			t.misses, t.ended = 0, status == HostEnded
		default:
			t.misses++
		}
		t.resting = true
		t.rests++
		t.news()
	}
}
