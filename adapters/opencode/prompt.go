package opencode

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-48fd9ae4/subagent"
)

// What is written into sessions, and how it is known again.

// metaKey is where parts and sessions say what of ours they are.
const metaKey = "subagent"

// prompt is the body of a prompt.
type prompt struct {
	MessageID string     `json:"messageID,omitempty"` // of a message that is there already
	Parts     []textPart `json:"parts"`               // added to it
	Model     *model     `json:"model,omitempty"`
	Agent     string     `json:"agent,omitempty"`
	Variant   string     `json:"variant,omitempty"`
	System    string     `json:"system,omitempty"`
	NoReply   bool       `json:"noReply,omitempty"`
}

// sameAs reports whether both are for the same agent and model, with the same system text.
func (p prompt) sameAs(q prompt) bool {
	return p.Agent == q.Agent && p.Variant == q.Variant && p.System == q.System && p.Model != nil && q.Model != nil && *p.Model == *q.Model
}

type textPart struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Synthetic bool            `json:"synthetic,omitempty"`
	Metadata  map[string]mark `json:"metadata"`
}

// mark tells a message or session of ours from all others.
type mark struct {
	Prompt       string          `json:"prompt,omitempty"`
	Task         subagent.TaskID `json:"task,omitempty"`
	Attempt      int             `json:"attempt,omitempty"`
	Notification string          `json:"notification,omitempty"`
	Wake         bool            `json:"wake,omitempty"` // and it asked for a turn
	Steer        bool            `json:"steer,omitempty"`
}

// markIn is the mark in what somebody, perhaps we, wrote beside a message or session.
func markIn(metadata json.RawMessage) mark {
	var all map[string]json.RawMessage
	var m mark
	if json.Unmarshal(metadata, &all) == nil {
		_ = json.Unmarshal(all[metaKey], &m)
	}
	return m
}

type model struct {
	Provider string `json:"providerID"`
	Model    string `json:"modelID"`
	Variant  string `json:"variant,omitempty"` // in replies only
}

func text(s string, m mark) []textPart {
	return []textPart{{Type: "text", Text: s, Synthetic: m.Notification != "", Metadata: map[string]mark{metaKey: m}}}
}

// Send hands a prompt over. Its mark is a part of the message: an id chosen here would
// have to sort among the server's own, which are made from its clock.
func (h *host) Send(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (any, error) {
	s, err := h.find(ctx, "prompt", id)
	if err != nil {
		return nil, notYet(err)
	}
	body := prompt{Agent: p.Agent, Variant: p.Variant, System: p.System}
	if p.Model != "" {
		provider, name, ok := strings.Cut(p.Model, "/")
		if !ok {
			return nil, h.api.wrong(of("prompt", "POST", id, ""), subagent.ClassModelNotFound, fmt.Errorf("model %q: must be provider/model", p.Model))
		}
		body.Model = &model{Provider: provider, Model: name}
	}
	if err := h.switchOff(ctx, id, s, p.Tools); err != nil {
		return nil, notYet(err)
	}
	h.warmUp(ctx, s.dir)
	t, _ := ctx.Value(turnKey{}).(*turn)
	if t == nil { // the Prompt that is embedded in Client was called
		t = newTurn(rand.Text())
	}
	body.Parts = text(p.Text, mark{Prompt: t.mark, Task: p.Task})
	h.mu.Lock()
	s.turn = t
	h.sessions[id] = s
	h.mu.Unlock()
	return t.mark, h.post(ctx, "prompt", id, s.dir, body)
}

// switchOff denies what a prompt switches off and the rules of its session do not yet. In
// the prompt itself the tools would take the place of all rules that the session has; what
// they switch on is as those say.
func (h *host) switchOff(ctx context.Context, id subagent.SessionID, s *session, tools map[string]bool) error {
	h.mu.Lock()
	denied := slices.DeleteFunc(rulesOf(nil, tools), func(r Rule) bool { return r.Action == "allow" || s.denied[r.Permission] })
	h.mu.Unlock()
	if len(denied) == 0 {
		return nil
	}
	c := of("prompt", "PATCH", id, "").in(s.dir)
	c.body = map[string]any{"permission": denied}
	if _, err := h.api.do(ctx, c, new(wireSession)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range denied {
		s.denied[r.Permission] = true
	}
	return nil
}

// notYet marks an error of what comes before a prompt, where it would be taken for one
// after which the prompt may arrive.
func notYet(err error) error {
	var said *subagent.SessionError
	if errors.As(err, &said) && (said.Class == subagent.ClassUnavailable || said.Class == subagent.ClassRateLimited) {
		return fmt.Errorf("%w: %w", subagent.ErrNotSent, err)
	}
	return err
}

// LastPrompt names the newest message that asked for an answer, as far as can be told: one
// of ours that did not says so.
func (h *host) LastPrompt(ctx context.Context, id subagent.SessionID) (any, error) {
	asks := func(m message) bool {
		return m.Info.Role == "user" && !m.marked(func(k mark) bool { return k.Steer || k.Notification != "" && !k.Wake })
	}
	s, err := h.find(ctx, "attach", id)
	if err != nil {
		return nil, err
	}
	all, err := h.back(ctx, "attach", id, pageSize, func(page []message) bool { return slices.ContainsFunc(page, asks) })
	if err != nil {
		return nil, err
	}
	for i, m := range slices.Backward(all) {
		if asks(m) {
			h.joins(ctx, id, s, all[i+1:])
			return messageID(m.Info.ID), nil
		}
	}
	return nil, nil
}

// messageID names a prompt of somebody else to Output.
type messageID string

// joins has the events of a session be those of the turn that Attach waits for. The steps
// that it has made so far may go on, and it may wait for an answer by now.
func (h *host) joins(ctx context.Context, id subagent.SessionID, s *session, steps []message) {
	t, _ := ctx.Value(turnKey{}).(*turn)
	if t == nil { // the Attach that is embedded in Client was called
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t.heard = true
	for _, m := range steps {
		t.steps[m.Info.ID] = true
	}
	s.passing = s.passing || h.sessions[id] == nil
	s.turn = t
	h.sessions[id] = s
	remember(h.unasked, s.dir, true)
}

// turnKey is where Send finds the turn that Prompt began: a Prompt that is refused, as
// the session has another turn, must not end what is known of that one.
type turnKey struct{}

// turnIsOver forgets what is known of a turn's events; and of a session that was only
// watched, which nobody releases, and whose next turns are its user's to stop.
func (h *host) turnIsOver(id subagent.SessionID, t *turn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[id]
	if s == nil || s.turn != t {
		return
	}
	if s.turn = nil; s.passing {
		h.passLocked(id, s)
	}
}

// passLocked keeps of a session where it is.
func (h *host) passLocked(id subagent.SessionID, s *session) {
	delete(h.sessions, id)
	remember(h.dirs, id, s.dir)
}

// post writes a message into a session.
func (h *host) post(ctx context.Context, op string, id subagent.SessionID, dir string, p prompt) error {
	c := of(op, "POST", id, "/prompt_async").in(dir)
	c.body = p
	_, err := h.api.do(ctx, c, nil)
	return err
}

// Steer puts a message into a turn that goes on, which stays with the agent, the model and
// the system text that it has: from its next step on it is as its newest message says.
// Without a reply asked for: if the turn ends before it looks, the message waits for the
// next one and starts none.
func (h *host) Steer(ctx context.Context, id subagent.SessionID, say string) error {
	s, err := h.find(ctx, "steer", id)
	if err != nil {
		return err
	}
	all, err := h.status(ctx, s.dir, id)
	if err != nil {
		return err
	}
	if all[id] != subagent.HostBusy && all[id] != subagent.HostRetrying {
		return h.api.wrong(of("steer", "POST", id, ""), subagent.ClassInvalid, errors.New("no turn of the session goes on"))
	}
	messages, err := h.back(ctx, "steer", id, 5, func(page []message) bool { return slices.ContainsFunc(page, saysModel) })
	if err != nil {
		return err
	}
	body := asBefore(messages)
	body.Parts, body.NoReply = text(say, mark{Steer: true}), true
	return h.post(ctx, "steer", id, s.dir, body)
}
