package subagent

import (
	"context"
	"fmt"
)

// Prompts that may still be on their way when nobody waits for their turns any more.

// maxDoubts bounds how many are remembered.
const maxDoubts = 1000

// doubt is a session whose last prompt was neither taken nor refused, nor seen to arrive.
// The line may deliver it at any time. Guarded by the client's mu.
type doubt struct {
	stopping bool // an abort of its work is out
}

// doubtful notes, when a turn is given up whose Send failed, that its prompt may come
// yet. It is false if there was a sign of it.
func (b *BlockingClient) doubtful(t *hostTurn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.signs > 0 {
		return false
	}
	if len(b.doubts) >= maxDoubts {
		for id := range b.doubts {
			delete(b.doubts, id)
			break
		}
	}
	b.doubts[t.session] = &doubt{}
	return true
}

// settled is nil if nothing can begin in a session that was seen to rest.
func (b *BlockingClient) settled(id SessionID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.doubts[id] == nil {
		return nil
	}
	return &SessionError{Op: "abort", Session: id, Class: ClassUnavailable, Err: fmt.Errorf("the session rests, but %w", ErrInDoubt)}
}

// lateLocked stops the work of a session that has no turn, if it is of a prompt in doubt.
// That of anybody else is none of ours.
func (b *BlockingClient) lateLocked(id SessionID) {
	d := b.doubts[id]
	if d == nil || d.stopping {
		return
	}
	d.stopping = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Call)
		defer cancel()
		_ = guard("abort", func() error { return b.bringToRest(ctx, id) })
		b.mu.Lock()
		defer b.mu.Unlock()
		d.stopping = false // a sign of life that comes now begins another
	}()
}
