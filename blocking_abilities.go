package subagent

import (
	"context"
	"errors"
)

// What a host may be able to do besides, passed on by Blocking.

// settings is what is wrong with the configuration, for New to return.
func (b *BlockingClient) settings() error { return b.err }

// narrow takes back what the manager found to be abilities and the host can't do.
func (b *BlockingClient) narrow(caps *capabilities) {
	if _, ok := b.host.(Notifier); !ok {
		caps.notifier = nil
	}
	if _, ok := b.host.(LineageResolver); !ok {
		caps.lineage = nil
	}
	if _, ok := b.host.(Releaser); !ok {
		caps.releaser = nil
	}
	if _, ok := b.host.(LastPrompter); !ok {
		caps.attacher = nil
	}
	if _, ok := b.host.(TranscriptReader); !ok {
		caps.reader = nil
	}
}

// Release is the host's, if it has it.
func (b *BlockingClient) Release(ctx context.Context, id SessionID) error {
	if r, ok := b.host.(Releaser); ok {
		return r.Release(ctx, id)
	}
	return errors.ErrUnsupported
}

// Steer is the host's, if it has it. While it is out its turn is not over: the host
// may take the message and go on.
func (b *BlockingClient) Steer(ctx context.Context, id SessionID, text string) error {
	s, ok := b.host.(Steerer)
	if !ok {
		return errors.ErrUnsupported
	}
	b.mu.Lock()
	t := b.turns[id]
	if t != nil {
		t.steers++
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t != nil {
			t.steered++
			t.news()
		}
	}()
	return b.call(ctx, func(ctx context.Context) error { return s.Steer(ctx, id, text) })
}

// ParentOf is the host's, if it has it.
func (b *BlockingClient) ParentOf(ctx context.Context, id SessionID) (SessionID, error) {
	if l, ok := b.host.(LineageResolver); ok {
		return l.ParentOf(ctx, id)
	}
	return "", errors.ErrUnsupported
}

// Transcript is the host's, if it has it.
func (b *BlockingClient) Transcript(ctx context.Context, id SessionID, q TranscriptQuery) ([]Message, error) {
	if r, ok := b.host.(TranscriptReader); ok {
		return r.Transcript(ctx, id, q)
	}
	return nil, errors.ErrUnsupported
}

// Notify is the host's, if it has it. A session whose Prompt is out is busy, also when it
// rests: its turn is about to be found over, and what is told it then, nobody reads. That
// goes for each [Handover].
func (b *BlockingClient) Notify(ctx context.Context, n Notification) (Delivery, error) {
	h, ok := b.host.(Notifier)
	switch {
	case !ok:
		return Unknown, errors.ErrUnsupported
	case b.hasTurn(n.Parent):
		return Busy, nil
	}
	return h.Notify(ctx, n)
}

// Received is the host's, if it has it.
func (b *BlockingClient) Received(ctx context.Context, n Notification) (bool, error) {
	if r, ok := b.host.(ReceiptChecker); ok {
		return r.Received(ctx, n)
	}
	return false, errors.ErrUnsupported
}

func (b *BlockingClient) hasTurn(id SessionID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.turns[id] != nil
}

var (
	_ EventSink        = (*BlockingClient)(nil)
	_ ReceiptChecker   = (*BlockingClient)(nil)
	_ Releaser         = (*BlockingClient)(nil)
	_ TranscriptReader = (*BlockingClient)(nil)
)
