package opencode

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/seed-48fd9ae4/subagent"
)

// Messages as they come over the line, and what is kept of them.

// message is one message as the server has it: the prompt of a user, or one step of
// the model with its tool calls.
type message struct {
	Info  messageInfo `json:"info"`
	Parts parts       `json:"parts"`

	unread bool // it is not as we know messages
	size   int  // about how many bytes it takes here
}

// UnmarshalJSON makes no error of a message that can't be read: the others can.
func (m *message) UnmarshalJSON(text []byte) error {
	type plain message
	if json.Unmarshal(text, (*plain)(m)) != nil {
		*m = message{unread: true}
	}
	m.size = len(text) + len(m.Parts)*partSize
	return nil
}

// parts are at most so many: each takes a multiple of what it may take on the line.
type parts []part

const (
	maxParts = 4000
	partSize = 400 // bytes, about
	maxInput = 1 << 20
)

// UnmarshalJSON counts them before it decodes any.
func (p *parts) UnmarshalJSON(list []byte) error {
	if elements(list) > maxParts {
		return errTooLarge
	}
	return json.Unmarshal(list, (*[]part)(p))
}

// elements counts those of a list that is known to be JSON.
func elements(list []byte) int {
	n, depth, quoted := 1, 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[', c == '{':
			depth++
		case c == ']', c == '}':
			depth--
		case c == ',' && depth == 1:
			n++
		}
	}
	return n
}

type messageInfo struct {
	ID       string     `json:"id"`
	Role     string     `json:"role"`
	ParentID string     `json:"parentID"` // the prompt that a step answers
	Agent    string     `json:"agent"`
	Model    *model     `json:"model"`  // of a prompt
	System   string     `json:"system"` // of a prompt
	Finish   string     `json:"finish"`
	Summary  any        `json:"summary"` // true in a step that only shortens the conversation
	Error    *wireError `json:"error"`
	Cost     float64    `json:"cost"`
	Tokens   tokens     `json:"tokens"`
	Time     struct {
		Created   float64 `json:"created"`
		Completed float64 `json:"completed"`
	} `json:"time"`
}

type tokens struct { // numbers of JavaScript
	Input     float64 `json:"input"`
	Output    float64 `json:"output"`
	Reasoning float64 `json:"reasoning"`
	Cache     struct {
		Read  float64 `json:"read"`
		Write float64 `json:"write"`
	} `json:"cache"`
}

// add counts what the server counts apart: cached input is input too.
func (t tokens) add(u subagent.Usage, cost float64) subagent.Usage {
	u.InputTokens += int64(t.Input + t.Cache.Read + t.Cache.Write)
	u.CachedTokens += int64(t.Cache.Read)
	u.OutputTokens += int64(t.Output + t.Reasoning)
	u.Cost += cost
	return u
}

type part struct {
	ID        string          `json:"id"`
	MessageID string          `json:"messageID"`
	Type      string          `json:"type"` // text, reasoning, tool, step-finish, …
	Text      string          `json:"text"`
	Tool      string          `json:"tool"`
	CallID    string          `json:"callID"`
	State     toolState       `json:"state"`
	Metadata  json.RawMessage `json:"metadata"` // of a tool it may be anything
	Cost      float64         `json:"cost"`     // of a step-finish
	Tokens    tokens          `json:"tokens"`
}

type toolState struct {
	Status   string          `json:"status"` // pending, running, completed, error
	Input    json.RawMessage `json:"input"`
	Error    string          `json:"error"`
	Metadata flags           `json:"metadata"`
}

// flags are what matters of metadata, which may be anything.
type flags struct{ providerExecuted, interrupted bool }

// UnmarshalJSON takes what is of another type than the server's for what is not set.
func (f *flags) UnmarshalJSON(metadata []byte) error {
	var in struct{ ProviderExecuted, Interrupted json.RawMessage }
	_ = json.Unmarshal(metadata, &in)
	f.providerExecuted = string(in.ProviderExecuted) == "true"
	f.interrupted = string(in.Interrupted) == "true"
	return nil
}

// goesOn reports whether the server calls the model again after a step with this part:
// for each call, but those that the model's provider made and those that were
// interrupted.
func (p *part) goesOn() bool {
	if p.Type != "tool" {
		return false
	}
	var of flags
	_ = of.UnmarshalJSON(p.Metadata)
	return !of.providerExecuted && !(p.State.Status == "error" && p.State.Metadata.interrupted)
}

func (p *part) call() subagent.ToolCall {
	failed := p.State.Status == "error"
	var input any
	if len(p.State.Input) <= maxInput { // decoded, it may take many times as much
		_ = json.Unmarshal(p.State.Input, &input)
	}
	return subagent.ToolCall{
		ID: p.CallID, Name: p.Tool, Input: input,
		Over: failed || p.State.Status == "completed", Failed: failed,
	}
}

// marked reports whether a message is ours with that mark.
func (m *message) marked(want func(mark) bool) bool {
	return m.Info.Role == "user" && slices.ContainsFunc(m.Parts, func(p part) bool { return want(markIn(p.Metadata)) })
}

// text is what a message says in parts of a kind.
func (m *message) text(kind string) string {
	var all []string
	for _, p := range m.Parts {
		if p.Type == kind && strings.TrimSpace(p.Text) != "" {
			all = append(all, p.Text)
		}
	}
	return strings.Join(all, "\n")
}
