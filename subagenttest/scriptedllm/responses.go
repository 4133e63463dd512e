package scriptedllm

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// responses is OpenAI's API of responses.
type responses struct{}

func (responses) api() API { return OpenAIResponses }

type responsesItem struct {
	Type      string
	Role      string
	Content   content
	CallID    string `json:"call_id"`
	Namespace string
	Name      string
	Arguments string
	Input     string // of a custom tool
	Output    content
}

// responsesInput is a string, the user's, or a list of items.
type responsesInput []responsesItem

// UnmarshalJSON implements json.Unmarshaler.
func (in *responsesInput) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*in = responsesInput{{Role: "user", Content: content(s)}}
		return nil
	}
	var items []responsesItem
	err := json.Unmarshal(data, &items)
	*in = items
	return err
}

func (responses) read(_ *http.Request, body []byte) (asked, error) {
	var q struct {
		Model              string
		Stream             bool
		Instructions       content
		Input              responsesInput
		PreviousResponseID string `json:"previous_response_id"`
		Tools              []struct {
			Type, Name string
			Tools      []struct{ Name string }
		}
	}
	if err := decode(body, &q); err != nil {
		return asked{}, err
	}
	a := asked{model: q.Model, stream: q.Stream, system: string(q.Instructions)}
	if q.PreviousResponseID != "" {
		return a, fmt.Errorf("scriptedllm: previous_response_id is set, but no conversation is kept here: send all of it as input")
	}
	for _, i := range q.Input {
		if err := a.item(i); err != nil {
			return a, err
		}
	}
	for _, t := range q.Tools {
		name := t.Name
		if name == "" {
			name = t.Type // of those that the service would run itself
		}
		for _, of := range t.Tools {
			a.tools = append(a.tools, name+"::"+of.Name)
		}
		if len(t.Tools) == 0 {
			a.tools = append(a.tools, name)
		}
	}
	return a.checked()
}

// item puts down what is a message, a call or its result.
func (a *asked) item(i responsesItem) error {
	switch i.Type {
	case "", "message":
		return a.add(i.Role, Message{Text: string(i.Content)})
	case "function_call", "custom_tool_call":
		name := i.Name
		if i.Namespace != "" {
			name = i.Namespace + "::" + name
		}
		return a.add("assistant", Message{Calls: []Call{{ID: i.CallID, Name: name, Input: input(i.Arguments + i.Input)}}})
	case "function_call_output", "custom_tool_call_output":
		return a.add("tool", Message{Text: string(i.Output), For: i.CallID})
	}
	return nil // reasoning and others say nothing here
}

// responsesObject is the response as it stands; the items are what is complete.
func responsesObject(a *answer, status string, items []object, failed any) object {
	r := object{
		"id": "resp_" + a.id, "object": "response", "created_at": a.at.Unix(), "status": status, "model": a.asked.model, "output": items,
		"error": failed, "incomplete_details": nil, "instructions": nil, "max_output_tokens": nil, "metadata": object{},
		"parallel_tool_calls": true, "previous_response_id": nil, "reasoning": object{"effort": nil, "summary": nil}, "store": false,
		"temperature": 1.0, "text": object{"format": object{"type": "text"}}, "tool_choice": "auto", "tools": []object{}, "top_p": 1.0,
		"truncation": "disabled", "usage": nil, "user": nil,
	}
	if status == "completed" {
		r["usage"] = object{
			"input_tokens": a.in, "input_tokens_details": object{"cached_tokens": 0},
			"output_tokens": a.out, "output_tokens_details": object{"reasoning_tokens": 0}, "total_tokens": a.in + a.out,
		}
	}
	return r
}

func outputText(s string) object {
	return object{"type": "output_text", "text": s, "annotations": []object{}, "logprobs": []object{}}
}

func summaryText(s string) object { return object{"type": "summary_text", "text": s} }

func responsesItemID(p *part) string { return [...]string{"msg_", "rs_", "fc_"}[p.kind] + p.id }

// responsesItemOf is an item at its begin or its end.
func responsesItemOf(p *part, whole bool) object {
	item := object{"id": responsesItemID(p)}
	filled := func(key string, empty, full any) {
		item[key] = empty
		if whole {
			item[key] = full
		}
	}
	s := p.text.String()
	if p.kind != thought {
		filled("status", "in_progress", "completed")
	}
	switch p.kind {
	case text:
		item["type"], item["role"] = "message", "assistant"
		filled("content", []object{}, []object{outputText(s)})
	case thought:
		item["type"], item["encrypted_content"] = "reasoning", nil
		filled("summary", []object{}, []object{summaryText(s)})
	case call:
		item["type"], item["call_id"], item["name"] = "function_call", p.callID, p.name
		filled("arguments", "", s)
		if p.namespace != "" {
			item["namespace"] = p.namespace
		}
	}
	return item
}

func responsesItems(a *answer) []object {
	items := []object{}
	for _, p := range a.parts {
		items = append(items, responsesItemOf(p, true))
	}
	return items
}

func (responses) whole(a *answer) any {
	return responsesObject(a, "completed", responsesItems(a), nil)
}

func (responses) stream(a *answer, send func(string)) events {
	return &responsesEvents{a: a, send: send}
}

type responsesEvents struct {
	a    *answer
	send func(string)
	n    int // events before this one
}

func (*responsesEvents) contentType() string { return "text/event-stream" }

func (e *responsesEvents) say(name string, data object) {
	data["type"], data["sequence_number"] = name, e.n
	e.n++
	e.send(event(name, data))
}

// about says something of a part.
func (e *responsesEvents) about(p *part, name string, more object) {
	more["item_id"], more["output_index"] = responsesItemID(p), p.index
	switch p.kind {
	case text:
		more["content_index"] = 0
	case thought:
		more["summary_index"] = 0
	}
	e.say(name, more)
}

func (e *responsesEvents) start() {
	for _, name := range []string{"response.created", "response.in_progress"} {
		e.say(name, object{"response": responsesObject(e.a, "in_progress", []object{}, nil)})
	}
}

func (e *responsesEvents) open(p *part) {
	e.say("response.output_item.added", object{"output_index": p.index, "item": responsesItemOf(p, false)})
	switch p.kind {
	case text:
		e.about(p, "response.content_part.added", object{"part": outputText("")})
	case thought:
		e.about(p, "response.reasoning_summary_part.added", object{"part": summaryText("")})
	}
}

func (e *responsesEvents) delta(p *part, s string) {
	switch p.kind {
	case text:
		e.about(p, "response.output_text.delta", object{"delta": s, "logprobs": []object{}})
	case thought:
		e.about(p, "response.reasoning_summary_text.delta", object{"delta": s})
	case call:
		e.about(p, "response.function_call_arguments.delta", object{"delta": s})
	}
}

func (e *responsesEvents) stop(p *part) {
	s := p.text.String()
	switch p.kind {
	case text:
		e.about(p, "response.output_text.done", object{"text": s, "logprobs": []object{}})
		e.about(p, "response.content_part.done", object{"part": outputText(s)})
	case thought:
		e.about(p, "response.reasoning_summary_text.done", object{"text": s})
		e.about(p, "response.reasoning_summary_part.done", object{"part": summaryText(s)})
	case call:
		e.about(p, "response.function_call_arguments.done", object{"arguments": s, "name": p.name})
	}
	e.say("response.output_item.done", object{"output_index": p.index, "item": responsesItemOf(p, true)})
}

func (e *responsesEvents) finish() {
	e.say("response.completed", object{"response": responsesObject(e.a, "completed", responsesItems(e.a), nil)})
}

// fail has the code that clients of a stream look at: there is no status.
func (e *responsesEvents) fail(f fault) {
	code := "server_error"
	switch {
	case f.code == http.StatusTooManyRequests:
		code = "rate_limit_exceeded"
	case f.code < 500:
		code = "invalid_prompt"
	}
	failed := object{"code": code, "message": f.message}
	e.say("response.failed", object{"response": responsesObject(e.a, "failed", responsesItems(e.a), failed)})
}

func (responses) failure(f fault) any { return object{"error": openAIError(f)} }
