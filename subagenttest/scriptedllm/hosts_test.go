package scriptedllm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// heard is what a host makes of an answer.
type heard struct {
	text, thought string
	calls         []Call
	reason        string
	in, out       int
	failed        string // the message of an error in the stream
	whole         bool   // it came to its end
}

// host is a client of one API, written by its documentation and without the types
// of the server. The base of a URL may be empty.
type host interface {
	request(base string, stream bool, conversation []Message) *http.Request
	whole(body []byte) heard
	streamed(body io.Reader) heard
}

func post(url string, body any) *http.Request {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodPost, url, bytes.NewReader(data))
	r.RequestURI = "" // so that clients can send it too
	return r
}

type list = []any

// dig follows names and indexes into decoded JSON; nil where there is nothing.
func dig(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(object)
			v = m[p]
		case int:
			l, _ := v.(list)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func str(v any, path ...any) string { s, _ := dig(v, path...).(string); return s }

func num(v any, path ...any) int { f, _ := dig(v, path...).(float64); return int(f) }

func items(v any, path ...any) list { l, _ := dig(v, path...).(list); return l }

func unmarshal(data []byte) (v any) {
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Sprintf("not JSON: %v", err)
	}
	return v
}

func raw(v any) json.RawMessage { return json.RawMessage(encode(v)) }

// events parses server-sent events, and checks that their names are their types.
func eventsOf(body io.Reader, named bool) (all []any, done bool) {
	data, _ := io.ReadAll(body)
	for block := range strings.SplitSeq(string(data), "\n\n") {
		name, payload := "", ""
		for line := range strings.SplitSeq(block, "\n") {
			if s, ok := strings.CutPrefix(line, "event: "); ok {
				name = s
			} else if s, ok := strings.CutPrefix(line, "data: "); ok {
				payload += s
			}
		}
		switch {
		case payload == "[DONE]":
			done = true
		case payload != "":
			v := unmarshal([]byte(payload))
			if named && str(v, "type") != name {
				panic("the event " + name + " has the type " + str(v, "type"))
			}
			all = append(all, v)
		}
	}
	return all, done
}

type chatHost struct{}

func (chatHost) request(base string, stream bool, conversation []Message) *http.Request {
	messages := list{}
	for _, m := range conversation {
		switch {
		case m.Role == RoleTool:
			messages = append(messages, object{"role": "tool", "tool_call_id": m.For, "content": m.Text})
		case m.Role == RoleAssistant:
			calls := list{}
			for _, c := range m.Calls {
				calls = append(calls, object{"id": c.ID, "type": "function", "function": object{"name": c.Name, "arguments": string(c.Input)}})
			}
			messages = append(messages, object{"role": "assistant", "content": nil, "tool_calls": calls})
		default:
			messages = append(messages, object{"role": string(m.Role), "content": list{object{"type": "text", "text": m.Text}}})
		}
	}
	return post(base+"/v1/chat/completions", object{
		"model": "m", "stream": stream, "stream_options": object{"include_usage": true}, "messages": messages,
		"tools": list{object{"type": "function", "function": object{"name": "read"}}},
	})
}

func (chatHost) calls(v any) (calls []Call) {
	for _, c := range items(v) {
		calls = append(calls, Call{str(c, "id"), str(c, "function", "name"), json.RawMessage(str(c, "function", "arguments"))})
	}
	return calls
}

func (h chatHost) whole(body []byte) heard {
	v := unmarshal(body)
	m := dig(v, "choices", 0, "message")
	return heard{
		text: str(m, "content"), thought: str(m, "reasoning_content"), calls: h.calls(dig(m, "tool_calls")), whole: true,
		reason: str(v, "choices", 0, "finish_reason"), in: num(v, "usage", "prompt_tokens"), out: num(v, "usage", "completion_tokens"),
	}
}

func (chatHost) streamed(body io.Reader) (got heard) {
	all, done := eventsOf(body, false)
	for _, v := range all {
		delta := dig(v, "choices", 0, "delta")
		got.text += str(delta, "content")
		got.thought += str(delta, "reasoning_content")
		got.reason += str(v, "choices", 0, "finish_reason")
		got.failed += str(v, "error", "message")
		for _, c := range items(delta, "tool_calls") {
			i := num(c, "index")
			if i == len(got.calls) {
				got.calls = append(got.calls, Call{ID: str(c, "id"), Name: str(c, "function", "name")})
			}
			got.calls[i].Input = append(got.calls[i].Input, str(c, "function", "arguments")...)
		}
		if dig(v, "usage") != nil {
			got.in, got.out = num(v, "usage", "prompt_tokens"), num(v, "usage", "completion_tokens")
		}
	}
	got.whole = done
	return got
}

type anthropicHost struct{}

// request merges what follows each other in one role, as Claude Code does.
func (anthropicHost) request(base string, stream bool, conversation []Message) *http.Request {
	messages := list{}
	system := ""
	add := func(role string, blocks ...any) {
		if last := len(messages) - 1; last >= 0 && str(messages[last], "role") == role {
			blocks = append(items(messages[last], "content"), blocks...)
			messages = messages[:last]
		}
		messages = append(messages, object{"role": role, "content": list(blocks)})
	}
	for _, m := range conversation {
		switch m.Role {
		case "system":
			system = m.Text
		case RoleTool:
			add("user", object{"type": "tool_result", "tool_use_id": m.For, "content": list{object{"type": "text", "text": m.Text}}})
		case RoleAssistant:
			blocks := list{object{"type": "thinking", "thinking": "x", "signature": "y"}, object{"type": "text", "text": m.Text}}
			for _, c := range m.Calls {
				blocks = append(blocks, object{"type": "tool_use", "id": c.ID, "name": c.Name, "input": c.Input})
			}
			add("assistant", blocks...)
		default:
			add("user", object{"type": "text", "text": m.Text})
		}
	}
	return post(base+"/v1/messages?beta=true", object{
		"model": "m", "max_tokens": 9, "stream": stream, "system": list{object{"type": "text", "text": system}}, "messages": messages,
		"tools": list{object{"name": "read", "input_schema": object{}}},
	})
}

func (anthropicHost) whole(body []byte) (got heard) {
	v := unmarshal(body)
	for _, b := range items(v, "content") {
		got.text += str(b, "text")
		got.thought += str(b, "thinking")
		if str(b, "type") == "tool_use" {
			got.calls = append(got.calls, Call{str(b, "id"), str(b, "name"), raw(dig(b, "input"))})
		}
	}
	got.reason, got.in, got.out, got.whole = str(v, "stop_reason"), num(v, "usage", "input_tokens"), num(v, "usage", "output_tokens"), true
	return got
}

func (anthropicHost) streamed(body io.Reader) (got heard) {
	all, _ := eventsOf(body, true)
	open := -1
	for _, v := range all {
		switch str(v, "type") {
		case "message_start":
			got.in = num(v, "message", "usage", "input_tokens")
		case "content_block_start":
			if open >= 0 {
				panic("two blocks are open")
			}
			open = num(v, "index")
			if b := dig(v, "content_block"); str(b, "type") == "tool_use" {
				got.calls = append(got.calls, Call{ID: str(b, "id"), Name: str(b, "name")})
			}
		case "content_block_delta":
			if open != num(v, "index") {
				panic("a delta of a block that is not open")
			}
			got.text += str(v, "delta", "text")
			got.thought += str(v, "delta", "thinking")
			if s := str(v, "delta", "partial_json"); s != "" {
				last := &got.calls[len(got.calls)-1]
				last.Input = append(last.Input, s...)
			}
		case "content_block_stop":
			open = -1
		case "message_delta":
			got.reason, got.out = str(v, "delta", "stop_reason"), num(v, "usage", "output_tokens")
		case "message_stop":
			got.whole = true
		case "error":
			got.failed = str(v, "error", "message")
		}
	}
	return got
}
