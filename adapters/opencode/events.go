package opencode

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed-48fd9ae4/subagent"
)

// What the server's events mean.

// turn is the prompt that a session was given last, as its events tell of it.
type turn struct {
	mark    string
	heard   bool            // the events are those of this prompt by now
	steps   map[string]bool // the messages that answer, by id
	counted map[string]bool // the parts that tell what a step has cost, by id
	usage   subagent.Usage  // their sum
	waiting map[string]wait // permissions and questions, by id
}

// wait is something that a turn waits for.
type wait struct {
	call string // the tool call that does
	kind subagent.EventKind
	text string
}

func newTurn(mark string) *turn {
	return &turn{mark: mark, steps: map[string]bool{}, counted: map[string]bool{}, waiting: map[string]wait{}}
}

// event is one event of the server.
type event struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Properties json.RawMessage `json:"properties"`
}

// properties are those of all the events that mean something here.
type properties struct {
	SessionID  subagent.SessionID `json:"sessionID"`
	Info       messageInfo        `json:"info"` // or a session, which has an ID too
	Part       part               `json:"part"`
	MessageID  string             `json:"messageID"`
	Field      string             `json:"field"`
	Delta      string             `json:"delta"`
	Status     wireStatus         `json:"status"`
	Error      *wireError         `json:"error"`
	Request    string             `json:"requestID"`
	RequestID  string             `json:"id"`
	Permission string             `json:"permission"`
	Patterns   []string           `json:"patterns"`
	Questions  []struct {
		Question string `json:"question"`
	} `json:"questions"`
	Call struct {
		ID string `json:"callID"`
	} `json:"tool"`
}

// meanings are what an event says of any session, and of a child's turn.
var meanings = map[string]func(*host, *turn, *properties) []subagent.SessionEvent{
	"session.status":       (*host).statusEvent,
	"session.idle":         one(subagent.EventIdle),
	"session.deleted":      one(subagent.EventDeleted),
	"session.error":        (*host).errorEvent,
	"message.updated":      (*host).messageEvent,
	"message.part.updated": (*host).partEvent,
	"message.part.delta":   (*host).deltaEvent,
	"permission.asked":     (*host).askedEvent,
	"permission.replied":   (*host).answeredEvent,
	"question.asked":       (*host).askedEvent,
	"question.replied":     (*host).answeredEvent,
	"question.rejected":    (*host).answeredEvent,
	"todo.updated":         ofTurn(subagent.EventActivity),
}

func one(kind subagent.EventKind) func(*host, *turn, *properties) []subagent.SessionEvent {
	return func(*host, *turn, *properties) []subagent.SessionEvent { return []subagent.SessionEvent{{Kind: kind}} }
}

func ofTurn(kind subagent.EventKind) func(*host, *turn, *properties) []subagent.SessionEvent {
	return func(_ *host, t *turn, _ *properties) []subagent.SessionEvent {
		if t == nil {
			return nil
		}
		return []subagent.SessionEvent{{Kind: kind}}
	}
}

// hear says what an event of the server means: mostly one thing, or none.
func (h *host) hear(e event) (events []subagent.SessionEvent) {
	mean := meanings[e.Type]
	if mean == nil {
		return nil
	}
	var p properties
	if json.Unmarshal(e.Properties, &p) != nil {
		return nil // it is another one than the one we know
	}
	id := cmp.Or(p.SessionID, subagent.SessionID(p.Info.ID))
	if !isSession(id) {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Type == "session.deleted" {
		h.deletedLocked(id)
	}
	var t *turn
	if s := h.sessions[id]; s != nil {
		t = s.turn
	}
	events = mean(h, t, &p)
	if t != nil {
		events = t.stillWaits(events)
	}
	for i := range events {
		events[i].Session = id
	}
	return events
}

// deletedLocked takes in that a session is no more: nobody will release it. A turn of it
// may go on, of which its directory says so.
func (h *host) deletedLocked(id subagent.SessionID) {
	delete(h.dirs, id)
	s := h.sessions[id]
	if s == nil {
		return
	}
	if s.passing = true; s.turn == nil {
		h.passLocked(id, s)
	}
}

// stillWaits repeats what a turn waits for after a sign of life that would seem to
// answer it: calls beside the one that waits go on.
func (t *turn) stillWaits(events []subagent.SessionEvent) []subagent.SessionEvent {
	if len(events) == 0 || len(t.waiting) == 0 {
		return events
	}
	switch events[len(events)-1].Kind {
	case subagent.EventText, subagent.EventTool, subagent.EventStep:
		first := slices.Min(slices.Collect(maps.Keys(t.waiting)))
		w := t.waiting[first]
		return append(events, subagent.SessionEvent{Kind: w.kind, Text: w.text})
	}
	return events
}

func (h *host) statusEvent(_ *turn, p *properties) []subagent.SessionEvent {
	switch p.Status.Type {
	case "busy":
		return []subagent.SessionEvent{{Kind: subagent.EventBusy}}
	case "retry":
		return []subagent.SessionEvent{{Kind: subagent.EventRetrying, Text: h.api.clean(p.Status.Message)}}
	case "idle":
		return []subagent.SessionEvent{{Kind: subagent.EventIdle}}
	}
	return nil
}

// fatal are the classes of errors that no message may tell of, since there was none to
// ask the model for. The others are seen in the answer when the session rests; until
// then the server may mend them, as it shortens a conversation that is too long.
var fatal = map[subagent.Class]bool{subagent.ClassAgentNotFound: true, subagent.ClassModelNotFound: true, subagent.ClassAuth: true}

// errorEvent: an error of an earlier turn may come late, but one about the agent, which
// comes before the prompt is even stored, is the same for each turn. That a turn was
// aborted is seen when the session rests; one of a session that we never prompted, a user
// has stopped.
func (h *host) errorEvent(t *turn, p *properties) []subagent.SessionEvent {
	if p.Error == nil {
		return nil
	}
	class := p.Error.class()
	switch {
	case class == subagent.ClassAborted && h.sessions[p.SessionID] == nil:
		return []subagent.SessionEvent{{Kind: subagent.EventInterrupted}}
	case t == nil:
		return nil
	}
	if class == subagent.ClassAborted || !t.heard && class != subagent.ClassAgentNotFound {
		return nil
	}
	err := h.api.turnError(p.SessionID, p.Error)
	if !fatal[class] {
		err.Class = subagent.ClassUnknown
	}
	return []subagent.SessionEvent{{Kind: subagent.EventFailed, Err: err}}
}

// messageEvent learns which messages answer. One that is complete may be told of
// after the idling that it led to, and is no sign of life.
func (h *host) messageEvent(t *turn, p *properties) []subagent.SessionEvent {
	if t == nil || p.Info.Role != "assistant" || !t.heard {
		return nil
	}
	t.steps[p.Info.ID] = true
	if p.Info.Time.Completed != 0 {
		return nil
	}
	return []subagent.SessionEvent{{Kind: subagent.EventActivity}}
}

func (h *host) partEvent(t *turn, p *properties) []subagent.SessionEvent {
	if t == nil {
		return nil
	}
	switch part := &p.Part; {
	case part.Type == "text" && markIn(part.Metadata).Prompt == t.mark:
		t.heard = true
	case !t.steps[part.MessageID]:
	case part.Type == "tool":
		if slices.ContainsFunc(slices.Collect(maps.Values(t.waiting)), func(w wait) bool { return w.call == part.CallID && !part.call().Over }) {
			return nil // the call itself, told of once more
		}
		return []subagent.SessionEvent{{Kind: subagent.EventTool, Tool: part.call()}}
	case part.Type == "step-finish":
		return t.stepOver(part)
	case strings.TrimSpace(part.Text) != "":
		return []subagent.SessionEvent{{Kind: subagent.EventText}} // its words came as they were said
	}
	return nil
}

// stepOver adds up what steps cost, each once.
func (t *turn) stepOver(p *part) []subagent.SessionEvent {
	if !t.counted[p.ID] {
		t.counted[p.ID] = true
		t.usage = p.Tokens.add(t.usage, p.Cost)
	}
	return []subagent.SessionEvent{
		{Kind: subagent.EventUsage, Usage: t.usage},
		{Kind: subagent.EventStep, Step: len(t.counted)},
	}
}

func (h *host) deltaEvent(t *turn, p *properties) []subagent.SessionEvent {
	if t == nil || !t.steps[p.MessageID] || p.Field != "text" {
		return nil
	}
	return []subagent.SessionEvent{{Kind: subagent.EventText, Text: p.Delta}}
}

func (h *host) askedEvent(t *turn, p *properties) []subagent.SessionEvent {
	if t == nil {
		return nil
	}
	w := wait{call: p.Call.ID, kind: subagent.EventWaiting, text: p.Permission}
	switch {
	case len(p.Questions) > 0:
		w.kind, w.text = subagent.EventQuestion, p.Questions[0].Question
	case len(p.Patterns) > 0:
		w.text = fmt.Sprintf("%s: %s", p.Permission, strings.Join(p.Patterns, ", "))
	}
	w.text = h.api.clean(w.text)
	t.waiting[p.RequestID] = w
	return []subagent.SessionEvent{{Kind: w.kind, Text: w.text}}
}

func (h *host) answeredEvent(t *turn, p *properties) []subagent.SessionEvent {
	if t == nil || len(t.waiting) == 0 {
		return nil
	}
	delete(t.waiting, p.Request)
	return []subagent.SessionEvent{{Kind: subagent.EventText}} // it goes on
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
