package opencode

import (
	"context"
	"encoding/json"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// What turns wait for that no event has told of: it was asked for in a gap of the stream,
// or before the turn was ours to follow.

const (
	askTime  = 5 * time.Second // for one look beside the events, which wait for it
	askPause = 30 * time.Second
)

// resume takes for granted, after a gap, that prompts were heard of, and asks what
// their turns still wait for. What was answered in the gap is waited for no more.
func (h *host) resume(ctx context.Context) (events []subagent.SessionEvent) {
	h.mu.Lock()
	for id, s := range h.sessions {
		if s.turn == nil {
			continue
		}
		s.turn.heard = true
		h.unasked[s.dir] = true
		if len(s.turn.waiting) > 0 {
			clear(s.turn.waiting)
			events = append(events, subagent.SessionEvent{Session: id, Kind: subagent.EventText})
		}
	}
	h.mu.Unlock()
	return append(events, h.askAll(ctx, h.api.timeout)...)
}

// askAgain asks where that has failed, or a turn was joined since.
func (h *host) askAgain(ctx context.Context) []subagent.SessionEvent {
	h.mu.Lock()
	due := len(h.unasked) > 0 && !time.Now().Before(h.askAt)
	h.mu.Unlock()
	if !due {
		return nil
	}
	return h.askAll(ctx, min(h.api.timeout, askTime))
}

// askAll asks in each directory in which that is still to be done.
func (h *host) askAll(ctx context.Context, most time.Duration) (events []subagent.SessionEvent) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, dir := range h.toAsk() {
		for _, kind := range []string{"permission", "question"} {
			found, err := h.ask(ctx, dir, kind)
			events = append(events, found...)
			if err != nil {
				h.askLater(dir)
			}
		}
	}
	return events
}

// toAsk are the directories of turns that may wait for what is not known.
func (h *host) toAsk() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	dirs := map[string]bool{}
	for _, s := range h.sessions {
		if s.turn != nil && h.unasked[s.dir] {
			dirs[s.dir] = true
		}
	}
	clear(h.unasked) // before they are asked: what joins meanwhile is asked for again
	return sortedKeys(dirs)
}

func (h *host) askLater(dir string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unasked[dir] = true
	h.askAt = time.Now().Add(askPause)
}

// ask reads what is waited for in a directory.
func (h *host) ask(ctx context.Context, dir, kind string) (events []subagent.SessionEvent, err error) {
	ctx, cancel := h.api.half(ctx)
	defer cancel()
	var asked []json.RawMessage
	_, err = h.api.do(ctx, call{op: "resume", method: "GET", path: "/" + kind}.in(dir), &asked)
	h.api.log.note(ctx, "what is asked was not read", "/"+kind+" "+dir, err)
	for _, p := range asked {
		events = append(events, h.hear(event{Type: kind + ".asked", Properties: p})...)
	}
	return events, err
}
