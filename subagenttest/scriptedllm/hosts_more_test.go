package scriptedllm

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

type responsesHost struct {
	paired bool // each call stands beside its result
}

func (h responsesHost) request(base string, stream bool, conversation []Message) *http.Request {
	input := list{}
	results := map[string]any{}
	for _, m := range conversation {
		if m.Role == RoleTool {
			results[m.For] = object{"type": "function_call_output", "call_id": m.For, "output": m.Text}
		}
	}
	for _, m := range conversation {
		switch m.Role {
		case RoleTool:
			if !h.paired {
				input = append(input, results[m.For])
			}
		case RoleAssistant:
			input = append(input, object{"type": "reasoning", "summary": list{}})
			if m.Text != "" {
				input = append(input, object{"type": "message", "role": "assistant", "content": list{object{"type": "output_text", "text": m.Text}}})
			}
			for _, c := range m.Calls {
				namespace, name, ok := strings.Cut(c.Name, "::")
				item := object{"type": "function_call", "call_id": c.ID, "arguments": string(c.Input), "name": c.Name}
				if ok {
					item["namespace"], item["name"] = namespace, name
				}
				input = append(input, item)
				if h.paired {
					input = append(input, results[c.ID])
				}
			}
		default:
			input = append(input, object{"role": string(m.Role), "content": list{object{"type": "input_text", "text": m.Text}}})
		}
	}
	return post(base+"/v1/responses", object{
		"model": "m", "stream": stream, "input": input,
		"tools": list{object{"type": "function", "name": "read"}, object{"type": "web_search"}, object{"type": "namespace", "name": "ns", "tools": list{object{"name": "t"}}}},
	})
}

func (h responsesHost) whole(body []byte) heard { return h.response(unmarshal(body)) }

func (responsesHost) response(v any) (got heard) {
	for _, item := range items(v, "output") {
		got.text += str(item, "content", 0, "text")
		got.thought += str(item, "summary", 0, "text")
		if str(item, "type") == "function_call" {
			name := str(item, "name")
			if ns := str(item, "namespace"); ns != "" {
				name = ns + "::" + name
			}
			got.calls = append(got.calls, Call{str(item, "call_id"), name, json.RawMessage(str(item, "arguments"))})
		}
	}
	got.reason, got.whole, got.failed = str(v, "status"), str(v, "status") == "completed", str(v, "error", "message")
	got.in, got.out = num(v, "usage", "input_tokens"), num(v, "usage", "output_tokens")
	return got
}

// streamed takes the deltas for text and the last event for the rest, and wants
// both to say the same.
func (h responsesHost) streamed(body io.Reader) (got heard) {
	all, _ := eventsOf(body, true)
	var text, thought, arguments string
	for i, v := range all {
		if num(v, "sequence_number") != i {
			panic(fmt.Sprintf("event %d has the number %d", i, num(v, "sequence_number")))
		}
		switch str(v, "type") {
		case "response.output_text.delta":
			text += str(v, "delta")
		case "response.reasoning_summary_text.delta":
			thought += str(v, "delta")
		case "response.function_call_arguments.delta":
			arguments += str(v, "delta")
		case "response.completed", "response.failed":
			got = h.response(dig(v, "response"))
			for _, c := range got.calls {
				arguments = strings.TrimPrefix(arguments, string(c.Input))
			}
			if got.text != text || got.thought != thought || arguments != "" {
				panic("the deltas and the response differ")
			}
		}
	}
	got.text, got.thought = text, thought
	return got
}

type geminiHost struct{ sse bool }

func (h geminiHost) request(base string, stream bool, conversation []Message) *http.Request {
	contents := list{}
	body := object{"tools": list{object{"functionDeclarations": list{object{"name": "read"}}}}}
	for _, m := range conversation {
		switch m.Role {
		case "system":
			body["systemInstruction"] = object{"parts": list{object{"text": m.Text}}}
		case RoleTool:
			contents = append(contents, object{"role": "user", "parts": list{object{"functionResponse": object{"name": m.For, "response": object{"output": m.Text}}}}})
		case RoleAssistant:
			parts := list{object{"text": "x", "thought": true}, object{"text": m.Text}}
			for _, c := range m.Calls {
				parts = append(parts, object{"functionCall": object{"name": c.Name, "args": c.Input}})
			}
			contents = append(contents, object{"role": "model", "parts": parts})
		default:
			contents = append(contents, object{"role": "user", "parts": list{object{"text": m.Text}}})
		}
	}
	body["contents"] = contents
	method := "generateContent"
	if stream {
		method = "streamGenerateContent"
	}
	if h.sse {
		method += "?alt=sse"
	}
	return post(base+"/v1beta/models/m:"+method, body)
}

func (geminiHost) add(got *heard, v any) {
	for _, p := range items(v, "candidates", 0, "content", "parts") {
		switch c := dig(p, "functionCall"); {
		case c != nil:
			got.calls = append(got.calls, Call{"", str(c, "name"), raw(dig(c, "args"))})
		case dig(p, "thought") == true:
			got.thought += str(p, "text")
		default:
			got.text += str(p, "text")
		}
	}
	got.failed += str(v, "error", "message")
	got.in, got.out = num(v, "usageMetadata", "promptTokenCount"), num(v, "usageMetadata", "candidatesTokenCount")
	got.reason += str(v, "candidates", 0, "finishReason")
	got.whole = got.reason != ""
}

func (h geminiHost) whole(body []byte) (got heard) {
	h.add(&got, unmarshal(body))
	return got
}

func (h geminiHost) streamed(body io.Reader) (got heard) {
	var all []any
	if h.sse {
		all, _ = eventsOf(body, false)
	} else {
		data, _ := io.ReadAll(body)
		all = items(unmarshal(data))
	}
	for _, v := range all {
		h.add(&got, v)
	}
	return got
}
