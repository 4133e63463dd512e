package scriptedllm

import (
	"encoding/json"
	"net/http"
)

// anthropic is the API of Anthropic's messages.
type anthropic struct{}

func (anthropic) api() API { return Anthropic }

type anthropicBlock struct {
	Type      string
	Text      string
	ID, Name  string
	Input     json.RawMessage
	ToolUseID string `json:"tool_use_id"`
	Content   content
}

// anthropicContent is a string or a list of blocks.
type anthropicContent []anthropicBlock

// UnmarshalJSON implements json.Unmarshaler.
func (c *anthropicContent) UnmarshalJSON(data []byte) error {
	var blocks []anthropicBlock
	if err := json.Unmarshal(data, &blocks); err == nil {
		*c = blocks
		return nil
	}
	var s content
	err := s.UnmarshalJSON(data)
	*c = anthropicContent{{Type: "text", Text: string(s)}}
	return err
}

func (anthropic) read(_ *http.Request, body []byte) (asked, error) {
	var q struct {
		Model    string
		Stream   bool
		System   content
		Messages []struct {
			Role    string
			Content anthropicContent
		}
		Tools []struct{ Name string }
	}
	if err := decode(body, &q); err != nil {
		return asked{}, err
	}
	a := asked{model: q.Model, stream: q.Stream, system: string(q.System)}
	for _, m := range q.Messages {
		now := Message{}
		some := false // there is something in now
		for _, b := range m.Content {
			if b.Type == "tool_result" {
				if some {
					if err := a.add(m.Role, now); err != nil {
						return a, err
					}
				}
				now, some = Message{}, false
				_ = a.add("tool", Message{Text: string(b.Content), For: b.ToolUseID})
				continue
			}
			some = true
			now.Text = joined(now.Text, b.Text)
			if b.Type == "tool_use" {
				now.Calls = append(now.Calls, Call{ID: b.ID, Name: b.Name, Input: b.Input})
			}
		}
		if some {
			if err := a.add(m.Role, now); err != nil {
				return a, err
			}
		}
	}
	for _, t := range q.Tools {
		a.tools = append(a.tools, t.Name)
	}
	return a.checked()
}

func anthropicBlockOf(p *part, whole bool) object {
	switch p.kind {
	case thought:
		b := object{"type": "thinking", "thinking": "", "signature": ""}
		if whole {
			b["thinking"], b["signature"] = p.text.String(), signature
		}
		return b
	case call:
		b := object{"type": "tool_use", "id": p.callID, "name": p.fullName(), "input": object{}}
		if whole {
			b["input"] = p.input
		}
		return b
	default:
		b := object{"type": "text", "text": ""}
		if whole {
			b["text"] = p.text.String()
		}
		return b
	}
}

const signature = "c2NyaXB0ZWRsbG0=" // of thoughts; hosts send it back as it is

func anthropicUsage(in, out int) object {
	return object{"input_tokens": in, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": out}
}

func anthropicMessage(a *answer, blocks []object, reason any, out int) object {
	return object{
		"id": "msg_" + a.id, "type": "message", "role": "assistant", "model": a.asked.model, "content": blocks,
		"stop_reason": reason, "stop_sequence": nil, "usage": anthropicUsage(a.in, out),
	}
}

func (anthropic) whole(a *answer) any {
	blocks := []object{}
	for _, p := range a.parts {
		blocks = append(blocks, anthropicBlockOf(p, true))
	}
	return anthropicMessage(a, blocks, a.either("tool_use", "end_turn"), a.out)
}

func (anthropic) stream(a *answer, send func(string)) events { return &anthropicEvents{a, send} }

type anthropicEvents struct {
	a    *answer
	send func(string)
}

func (*anthropicEvents) contentType() string { return "text/event-stream" }

func (e *anthropicEvents) say(name string, data object) {
	data["type"] = name
	e.send(event(name, data))
}

func (e *anthropicEvents) start() {
	e.say("message_start", object{"message": anthropicMessage(e.a, []object{}, nil, min(1, e.a.out))})
	e.say("ping", object{})
}

func (e *anthropicEvents) open(p *part) {
	e.say("content_block_start", object{"index": p.index, "content_block": anthropicBlockOf(p, false)})
}

func (e *anthropicEvents) delta(p *part, s string) {
	delta := object{"type": "text_delta", "text": s}
	switch p.kind {
	case thought:
		delta = object{"type": "thinking_delta", "thinking": s}
	case call:
		delta = object{"type": "input_json_delta", "partial_json": s}
	}
	e.say("content_block_delta", object{"index": p.index, "delta": delta})
}

func (e *anthropicEvents) stop(p *part) {
	if p.kind == thought {
		e.say("content_block_delta", object{"index": p.index, "delta": object{"type": "signature_delta", "signature": signature}})
	}
	e.say("content_block_stop", object{"index": p.index})
}

func (e *anthropicEvents) finish() {
	e.say("message_delta", object{
		"delta": object{"stop_reason": e.a.either("tool_use", "end_turn"), "stop_sequence": nil},
		"usage": anthropicUsage(e.a.in, e.a.out),
	})
	e.say("message_stop", object{})
}

func (e *anthropicEvents) fail(f fault) { e.send(event("error", anthropic{}.failure(f))) }

func (anthropic) failure(f fault) any {
	kinds := map[int]string{
		http.StatusUnauthorized: "authentication_error", http.StatusForbidden: "permission_error",
		http.StatusNotFound: "not_found_error", http.StatusRequestEntityTooLarge: "request_too_large",
		http.StatusTooManyRequests: "rate_limit_error", http.StatusGatewayTimeout: "timeout_error", 529: "overloaded_error",
	}
	kind := kinds[f.code]
	switch {
	case kind != "":
	case f.code >= 500:
		kind = "api_error"
	default:
		kind = "invalid_request_error"
	}
	return object{"type": "error", "error": object{"type": kind, "message": f.message}}
}
