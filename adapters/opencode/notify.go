package opencode

import (
	"context"
	"errors"
	"slices"

	"github.com/seed-48fd9ae4/subagent"
)

// Notify writes a notification into the transcript of a parent that rests: into a turn
// it would break in. What is there already is not written again, and what the server
// says that it took but did not write is not delivered.
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
	all, err := h.status(ctx, s.dir, n.Parent)
	switch {
	case err != nil:
		return subagent.Unknown, err
	case all[n.Parent] == subagent.HostBusy, all[n.Parent] == subagent.HostRetrying:
		return subagent.Busy, nil
	}
	written := func(m message) bool { return m.marked(func(k mark) bool { return k.Notification == n.ID }) }
	messages, err := h.before(ctx, n)
	switch {
	case err != nil:
		return goneOr(err)
	case slices.ContainsFunc(messages, written):
		return subagent.Accepted, nil
	}
	body := asBefore(messages)
	body.Parts, body.NoReply = text(n.Text, mark{Notification: n.ID}), !n.Wake
	if err := h.post(ctx, "notify", n.Parent, s.dir, body); err != nil {
		return goneOr(err)
	}
	after, err := h.back(ctx, "notify", n.Parent, 5, func(page []message) bool {
		return slices.ContainsFunc(page, func(m message) bool { return written(m) || m.Info.ID == last(messages) })
	})
	switch {
	case err != nil:
		return subagent.Unknown, err // it is looked for again
	case !slices.ContainsFunc(after, written):
		return subagent.Unknown, errors.New("the server did not write what it took: perhaps the parent's agent is no more")
	}
	return subagent.Accepted, nil
}

// before reads a parent's messages back to the one from which its agent and model are
// known, and, if the notification may have been sent before, back to what was there
// then.
func (h *host) before(ctx context.Context, n subagent.Notification) ([]message, error) {
	h.mu.Lock()
	since, again := h.sending[n.ID]
	h.mu.Unlock()
	known, reached := false, !again
	all, err := h.back(ctx, "notify", n.Parent, 20, func(page []message) bool {
		known = known || slices.ContainsFunc(page, func(m message) bool { return m.Info.Role == "user" && m.Info.Model != nil })
		reached = reached || slices.ContainsFunc(page, func(m message) bool { return m.Info.ID == since })
		return known && reached
	})
	if err == nil && slices.ContainsFunc(all, func(m message) bool { return m.unread }) {
		err = errUnread // the notification may be what can't be read
	}
	if err == nil && !again {
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

// asBefore is a prompt for the agent and model, and with the system text, that the
// session was last prompted with. The server would go back to its defaults.
func asBefore(messages []message) (p prompt) {
	for _, m := range slices.Backward(messages) {
		if m.Info.Role == "user" && m.Info.Model != nil {
			p.Agent, p.Variant, p.System = m.Info.Agent, m.Info.Model.Variant, m.Info.System
			p.Model = &model{Provider: m.Info.Model.Provider, Model: m.Info.Model.Model}
			return p
		}
	}
	return p
}
