package scriptedllm

import (
	"encoding/json"
	"net/http"
	"strings"
)

// chat is OpenAI's API of chat completions.
type chat struct{}

func (chat) api() API { return OpenAIChat }

type chatRequest struct {
	Model         string
	Stream        bool
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Messages []struct {
		Role      string
		Content   content
		ToolCalls []struct {
			ID       string
			Function struct{ Name, Arguments string }
		} `json:"tool_calls"`
		ToolCallID string `json:"tool_call_id"`
	}
	Tools []struct {
		Type     string
		Function struct{ Name string }
	}
}

func (chat) read(_ *http.Request, body []byte) (asked, error) {
	var q chatRequest
	if err := decode(body, &q); err != nil {
		return asked{}, err
	}
	a := asked{model: q.Model, stream: q.Stream, usage: q.StreamOptions.IncludeUsage}
	for _, m := range q.Messages {
		message := Message{Text: string(m.Content), For: m.ToolCallID}
		for _, c := range m.ToolCalls {
			message.Calls = append(message.Calls, Call{ID: c.ID, Name: c.Function.Name, Input: input(c.Function.Arguments)})
		}
		if err := a.add(m.Role, message); err != nil {
			return a, err
		}
	}
	for _, t := range q.Tools {
		a.tools = append(a.tools, t.Function.Name)
	}
	return a.checked()
}

// input is what a host sent back as a call's arguments: JSON, or else a string.
func input(arguments string) json.RawMessage {
	if json.Valid([]byte(arguments)) {
		return json.RawMessage(arguments)
	}
	return json.RawMessage(encode(arguments))
}

func chatUsage(a *answer) object {
	return object{
		"prompt_tokens": a.in, "completion_tokens": a.out, "total_tokens": a.in + a.out,
		"prompt_tokens_details":     object{"cached_tokens": 0},
		"completion_tokens_details": object{"reasoning_tokens": 0},
	}
}

func chatID(a *answer) string { return "chatcmpl-" + a.id }

func (chat) whole(a *answer) any {
	message := object{"role": "assistant", "content": a.all(text), "refusal": nil}
	if thoughts := a.all(thought); thoughts != "" {
		message["reasoning_content"] = thoughts
	}
	var calls []object
	for _, p := range a.parts {
		if p.kind == call {
			calls = append(calls, object{"id": p.callID, "type": "function", "function": object{"name": p.fullName(), "arguments": string(p.input)}})
		}
	}
	if calls != nil {
		message["tool_calls"] = calls
		if a.number(text) == 0 {
			message["content"] = nil
		}
	}
	return object{
		"id": chatID(a), "object": "chat.completion", "created": a.at.Unix(), "model": a.asked.model,
		"choices": []object{{"index": 0, "message": message, "logprobs": nil, "finish_reason": a.either("tool_calls", "stop")}},
		"usage":   chatUsage(a),
	}
}

func (chat) stream(a *answer, send func(string)) events { return &chatEvents{a, send} }

type chatEvents struct {
	a    *answer
	send func(string)
}

func (*chatEvents) contentType() string { return "text/event-stream" }

func (e *chatEvents) chunk(choices []object) object {
	c := object{"id": chatID(e.a), "object": "chat.completion.chunk", "created": e.a.at.Unix(), "model": e.a.asked.model, "choices": choices}
	if e.a.asked.usage {
		c["usage"] = nil // except in the last
	}
	return c
}

func (e *chatEvents) say(delta object, reason any) {
	e.send(event("", e.chunk([]object{{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": reason}})))
}

func (e *chatEvents) start() { e.say(object{"role": "assistant", "content": ""}, nil) }

func (e *chatEvents) open(p *part) {
	if p.kind == call {
		e.say(object{"tool_calls": []object{{
			"index": p.nth, "id": p.callID, "type": "function", "function": object{"name": p.fullName(), "arguments": ""},
		}}}, nil)
	}
}

func (e *chatEvents) delta(p *part, s string) {
	switch p.kind {
	case text:
		e.say(object{"content": s}, nil)
	case thought:
		e.say(object{"reasoning_content": s}, nil)
	case call:
		e.say(object{"tool_calls": []object{{"index": p.nth, "function": object{"arguments": s}}}}, nil)
	}
}

func (*chatEvents) stop(*part) {}

func (e *chatEvents) finish() {
	e.say(object{}, e.a.either("tool_calls", "stop"))
	if e.a.asked.usage {
		last := e.chunk([]object{})
		last["usage"] = chatUsage(e.a)
		e.send(event("", last))
	}
	e.send("data: [DONE]\n\n")
}

func (e *chatEvents) fail(f fault) { e.send(event("", chat{}.failure(f))) }

func (chat) failure(f fault) any { return object{"error": openAIError(f)} }

func openAIError(f fault) object {
	e := object{"message": f.message, "type": "invalid_request_error", "param": nil, "code": nil}
	switch {
	case f.code == http.StatusUnauthorized:
		e["code"] = "invalid_api_key"
	case f.code == http.StatusTooManyRequests:
		e["type"], e["code"] = "requests", "rate_limit_exceeded"
	case f.code >= 500:
		e["type"], e["code"] = "server_error", strings.ReplaceAll(strings.ToLower(http.StatusText(f.code)), " ", "_")
		if e["code"] == "" {
			e["code"] = nil
		}
	}
	return e
}
