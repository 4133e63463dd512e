package opencode

import (
	"context"
	"errors"
	"slices"

	"github.com/seed-48fd9ae4/subagent"
)

// recent is how many messages of a parent are read to see whether it has a
// notification already, and who it talks as.
const recent = 20

// Notify writes a notification into the transcript of a parent that rests: into a turn
// it would break in. What is there already is not written again.
func (h *host) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	s, err := h.find(ctx, "notify", n.Parent)
	if err != nil {
		return goneOr(err)
	}
	all, err := h.status(ctx, s.dir)
	switch {
	case err != nil:
		return subagent.Unknown, err
	case all[n.Parent].Type == "busy", all[n.Parent].Type == "retry":
		return subagent.Busy, nil
	}
	messages, _, err := h.page(ctx, "notify", n.Parent, recent, "")
	if err != nil {
		return goneOr(err)
	}
	if slices.ContainsFunc(messages, func(m message) bool {
		return m.marked(func(k mark) bool { return k.Notification == n.ID })
	}) {
		return subagent.Accepted, nil
	}
	body := asBefore(messages)
	body.Parts, body.NoReply = text(n.Text, mark{Notification: n.ID}), !n.Wake
	if err := h.post(ctx, "notify", n.Parent, s.dir, body); err != nil {
		return goneOr(err)
	}
	return subagent.Accepted, nil
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
