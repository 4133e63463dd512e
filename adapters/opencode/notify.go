package opencode

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Notify writes a notification into the transcript of a parent that rests; into a turn,
// where it would break in, only when it is deposited. What is there already is not written
// again, and what the server says that it took but did not write is not delivered.
//
// Notification.Context is not looked at: the transcript says what the parent was prompted
// with last, and one that never was gets the server's defaults with its first prompt too.
func (h *host) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	d, err := h.notify(ctx, n)
	if d == subagent.Accepted || d == subagent.Gone { // it will not be sent again
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.sending, n.ID)
	}
	return d, err
}

func (h *host) notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	if !isSession(n.Parent) {
		return subagent.Unknown, errors.New("the parent is no session of the server: it needs a Notifier of its own")
	}
	s, err := h.find(ctx, "notify", n.Parent)
	if err != nil {
		return goneOr(err)
	}
	busy, err := h.isBusy(ctx, s, n.Parent)
	switch {
	case err != nil:
		return subagent.Unknown, err
	case busy && n.Handover != subagent.HandDeposit:
		return subagent.Busy, nil
	}
	messages, err := h.before(ctx, n)
	if err != nil {
		return goneOr(err)
	}
	told := notice{n.ID}
	switch at := slices.IndexFunc(messages, told.written); {
	case at < 0:
		return h.write(ctx, s, n, n.Text, messages)
	case n.Wake && !told.hasTurn(messages, at):
		return h.write(ctx, s, n, wakeText, messages)
	}
	return subagent.Accepted, nil
}

// wakeText begins the turn of a notification that stands further up.
const wakeText = "A notification came while you were busy; it stands above. See to it now."

func (h *host) isBusy(ctx context.Context, s *session, id subagent.SessionID) (bool, error) {
	all, err := h.status(ctx, s.dir, id)
	return all[id] == subagent.HostBusy || all[id] == subagent.HostRetrying, err
}

// notice finds what is written of a notification.
type notice struct{ id string }

func (n notice) written(m message) bool {
	return m.marked(func(k mark) bool { return k.Notification == n.id })
}

// hasTurn reports whether a notification, one of whose messages is there, has asked for a
// turn; or has had one, since the turn into which it was put went on with it.
func (n notice) hasTurn(messages []message, at int) bool {
	since := map[string]bool{}
	for _, m := range messages[at:] {
		if m.marked(func(k mark) bool { return k.Notification == n.id && k.Wake }) {
			return true
		}
		since[m.Info.ID] = m.Info.Role == "user"
	}
	return slices.ContainsFunc(messages, func(m message) bool {
		return since[m.Info.ParentID] && m.Info.Time.Completed != 0 && m.Info.Error == nil && m.Info.Summary != true
	})
}

// write adds a text about a notification to a transcript, and looks whether it is there
// then.
func (h *host) write(ctx context.Context, s *session, n subagent.Notification, say string, messages []message) (subagent.Delivery, error) {
	body := asBefore(messages)
	body.Parts, body.NoReply = text(say, mark{Notification: n.ID, Wake: n.Wake}), !n.Wake
	if err := h.post(ctx, "notify", n.Parent, s.dir, body); err != nil {
		return goneOr(err)
	}
	after, at, err := h.lookFor(ctx, n, last(messages))
	switch {
	case err != nil:
		return subagent.Unknown, err // it is looked for again
	case at < 0:
		return subagent.Unknown, errNotWritten
	}
	if fresh := asBefore(after[:at]); fresh.Model != nil && !fresh.sameAs(body) {
		// A user was quicker, and has changed what the parent is: the turn would go on as
		// it was before. To send a message again replaces what is known of it.
		fresh.MessageID, fresh.Parts, fresh.NoReply = after[at].Info.ID, []textPart{}, true
		_ = h.post(ctx, "notify", n.Parent, s.dir, fresh)
	}
	return subagent.Accepted, nil
}

// lookFor finds what was written after a message, and where among that. A server under
// load says that it has taken a message some time before it shows it.
func (h *host) lookFor(ctx context.Context, n subagent.Notification, since string) (after []message, at int, err error) {
	is := func(m message) bool { return m.Info.ID == since }
	for pause := 25 * time.Millisecond; ; pause *= 2 {
		after, err = h.back(ctx, "notify", n.Parent, 5, func(page []message) bool { return slices.ContainsFunc(page, is) })
		if err != nil {
			return nil, -1, err
		}
		after = after[slices.IndexFunc(after, is)+1:]
		at = slices.IndexFunc(after, notice{n.ID}.written)
		if at >= 0 || pause > writtenWait/2 {
			return after, at, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, -1, context.Cause(ctx)
		}
	}
}

// writtenWait is about how long a message that was taken is looked for, in all.
const writtenWait = 1600 * time.Millisecond

var errNotWritten = errors.New("the server did not write what it took: perhaps the parent's agent is no more")

// Received reports whether a parent has a notification, and was asked for its turn.
func (h *host) Received(ctx context.Context, n subagent.Notification) (bool, error) {
	if !isSession(n.Parent) {
		return false, nil // Notify says so
	}
	told := notice{n.ID}
	h.mu.Lock()
	since, known := h.sending[n.ID]
	h.mu.Unlock()
	messages, err := h.back(ctx, "notify", n.Parent, 20, func(page []message) bool {
		return slices.ContainsFunc(page, func(m message) bool { return told.written(m) || known && m.Info.ID == since })
	})
	at := slices.IndexFunc(messages, told.written)
	switch {
	case errors.Is(err, errTooLong), errors.Is(err, errTooLarge):
		return false, errors.ErrUnsupported // Notify reads less
	case unlessGone(err) != nil:
		return false, err
	case at < 0 && slices.ContainsFunc(messages, func(m message) bool { return m.unread }):
		return false, errUnread
	}
	return at >= 0 && (!n.Wake || told.hasTurn(messages, at)), nil
}

// before reads a parent's messages back to the one from which its agent and model are
// known, and, if the notification may have been sent before, back to what was there
// then; to the notification, if its turn is asked for now.
func (h *host) before(ctx context.Context, n subagent.Notification) ([]message, error) {
	h.mu.Lock()
	since, again := h.sending[n.ID]
	h.mu.Unlock()
	later := n.Handover == subagent.HandWake
	known, reached := false, !again && !later
	all, err := h.back(ctx, "notify", n.Parent, 20, func(page []message) bool {
		known = known || slices.ContainsFunc(page, saysModel)
		reached = reached || slices.ContainsFunc(page, func(m message) bool { return m.Info.ID == since || notice{n.ID}.written(m) })
		return known && reached
	})
	if err == nil && slices.ContainsFunc(all, func(m message) bool { return m.unread }) {
		err = errUnread // the notification may be what can't be read
	}
	if err == nil && !again && !later {
		h.mu.Lock()
		defer h.mu.Unlock()
		remember(h.sending, n.ID, last(all))
	}
	return all, err
}

// last is the id of the newest of some messages, "" if there are none.
func last(messages []message) string {
	if len(messages) == 0 {
		return ""
	}
	return messages[len(messages)-1].Info.ID
}

func goneOr(err error) (subagent.Delivery, error) {
	if errors.Is(err, subagent.ErrSessionGone) {
		return subagent.Gone, nil
	}
	return subagent.Unknown, err
}

// saysModel reports whether a message says for which agent and model it is.
func saysModel(m message) bool { return m.Info.Role == "user" && m.Info.Model != nil }

// asBefore is a prompt for the agent and model, and with the system text, that the
// session was last prompted with. The server would go back to its defaults.
func asBefore(messages []message) (p prompt) {
	for _, m := range slices.Backward(messages) {
		if saysModel(m) {
			p.Agent, p.Variant, p.System = m.Info.Agent, m.Info.Model.Variant, m.Info.System
			p.Model = &model{Provider: m.Info.Model.Provider, Model: m.Info.Model.Model}
			return p
		}
	}
	return p
}
