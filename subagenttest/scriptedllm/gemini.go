package scriptedllm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// gemini is the API of Google's Gemini. The URL has the model and the mode.
type gemini struct {
	model    string
	streamed bool
	sse      bool // the stream is of events, not an array
}

func (gemini) api() API { return Gemini }

// geminiCall finds out what is called.
func (s *Server) geminiCall(w http.ResponseWriter, r *http.Request) {
	model, method, _ := strings.Cut(r.PathValue("call"), ":")
	switch method {
	case "generateContent":
		s.model(gemini{model: model})(w, r)
	case "streamGenerateContent":
		s.model(gemini{model: model, streamed: true, sse: r.URL.Query().Get("alt") == "sse"})(w, r)
	case "countTokens":
		s.side(func(_ *http.Request, body []byte) any { return object{"totalTokens": len(body) / 4} })(w, r)
	default:
		s.unknown(w, r)
	}
}

func (s *Server) geminiModels(*http.Request, []byte) any {
	list := []object{}
	for _, m := range s.cfg.Models {
		list = append(list, object{
			"name": "models/" + m, "displayName": m, "inputTokenLimit": 1 << 20, "outputTokenLimit": 1 << 16,
			"supportedGenerationMethods": []string{"generateContent", "countTokens"},
		})
	}
	return object{"models": list}
}

type geminiContent struct {
	Role  string
	Parts []struct {
		Text         string
		Thought      bool
		FunctionCall *struct {
			ID, Name string
			Args     json.RawMessage
		}
		FunctionResponse *struct {
			ID, Name string
			Response json.RawMessage
		}
	}
}

// messages parts a content into results of tools and all else.
func (c *geminiContent) messages() (list []Message) {
	var now Message
	some := len(c.Parts) == 0
	for _, p := range c.Parts {
		switch {
		case p.FunctionResponse != nil:
			list = append(list, Message{Role: RoleTool, Text: string(p.FunctionResponse.Response), For: cmp.Or(p.FunctionResponse.ID, p.FunctionResponse.Name)})
			continue
		case p.FunctionCall != nil:
			now.Calls = append(now.Calls, Call{ID: p.FunctionCall.ID, Name: p.FunctionCall.Name, Input: p.FunctionCall.Args})
		case !p.Thought:
			now.Text = joined(now.Text, p.Text)
		}
		some = true
	}
	if some {
		list = append(list, now)
	}
	return list
}

type geminiRequest struct {
	SystemInstruction      geminiContent
	SystemInstructionSnake geminiContent `json:"system_instruction"`
	Contents               []geminiContent
	Tools                  []struct {
		FunctionDeclarations      []struct{ Name string }
		FunctionDeclarationsSnake []struct{ Name string } `json:"function_declarations"`
	}
}

func (g gemini) read(_ *http.Request, body []byte) (asked, error) {
	var q geminiRequest
	if err := decode(body, &q); err != nil {
		return asked{}, err
	}
	a := asked{model: g.model, stream: g.streamed}
	for _, c := range []geminiContent{q.SystemInstruction, q.SystemInstructionSnake} {
		for _, m := range c.messages() {
			a.system = joined(a.system, m.Text)
		}
	}
	for _, c := range q.Contents {
		for _, m := range c.messages() {
			if err := a.add(cmp.Or(string(m.Role), c.Role, "user"), m); err != nil {
				return a, err
			}
		}
	}
	for _, t := range q.Tools {
		for _, f := range append(t.FunctionDeclarations, t.FunctionDeclarationsSnake...) {
			a.tools = append(a.tools, f.Name)
		}
	}
	return a.checked()
}

func geminiPart(p *part, s string) object {
	switch p.kind {
	case thought:
		return object{"text": s, "thought": true}
	case call:
		return object{"functionCall": object{"name": p.fullName(), "args": p.input}}
	default:
		return object{"text": s}
	}
}

// geminiResponse is a whole answer, or a chunk of one; reason is "" before its end.
func geminiResponse(a *answer, parts []object, reason string) object {
	candidate := object{"content": object{"parts": parts, "role": "model"}, "index": 0}
	usage := object{"promptTokenCount": a.in, "totalTokenCount": a.in}
	if reason != "" {
		candidate["finishReason"] = reason
		usage = object{"promptTokenCount": a.in, "candidatesTokenCount": a.out, "totalTokenCount": a.in + a.out}
	}
	return object{"candidates": []object{candidate}, "usageMetadata": usage, "modelVersion": a.asked.model, "responseId": a.id}
}

func (gemini) whole(a *answer) any {
	parts := []object{}
	for _, p := range a.parts {
		parts = append(parts, geminiPart(p, p.text.String()))
	}
	return geminiResponse(a, parts, "STOP")
}

func (g gemini) stream(a *answer, send func(string)) events {
	return &geminiEvents{a: a, send: send, sse: g.sse}
}

type geminiEvents struct {
	a    *answer
	send func(string)
	sse  bool
	some bool // a chunk was sent
}

func (e *geminiEvents) contentType() string {
	if e.sse {
		return "text/event-stream"
	}
	return "application/json"
}

func (e *geminiEvents) chunk(v any) {
	switch {
	case e.sse:
		e.send(event("", v))
	case e.some:
		e.send(",\r\n" + encode(v))
	default:
		e.send(encode(v))
	}
	e.some = true
}

func (e *geminiEvents) start() {
	if !e.sse {
		e.send("[")
	}
}

func (*geminiEvents) open(*part) {}

// delta leaves out calls, which come whole.
func (e *geminiEvents) delta(p *part, s string) {
	if p.kind != call {
		e.chunk(geminiResponse(e.a, []object{geminiPart(p, s)}, ""))
	}
}

func (e *geminiEvents) stop(p *part) {
	if p.kind == call {
		e.chunk(geminiResponse(e.a, []object{geminiPart(p, "")}, ""))
	}
}

func (e *geminiEvents) finish() {
	e.chunk(geminiResponse(e.a, []object{{"text": ""}}, "STOP"))
	if !e.sse {
		e.send("]\n")
	}
}

func (e *geminiEvents) fail(f fault) {
	e.chunk(gemini{}.failure(f))
	if !e.sse {
		e.send("]\n")
	}
}

// failure is in an array where the answer would be.
func (g gemini) failure(f fault) any {
	statuses := map[int]string{
		http.StatusUnauthorized: "UNAUTHENTICATED", http.StatusForbidden: "PERMISSION_DENIED", http.StatusNotFound: "NOT_FOUND",
		http.StatusConflict: "ABORTED", http.StatusTooManyRequests: "RESOURCE_EXHAUSTED", http.StatusNotImplemented: "UNIMPLEMENTED",
		http.StatusServiceUnavailable: "UNAVAILABLE", http.StatusGatewayTimeout: "DEADLINE_EXCEEDED",
	}
	usual := "INVALID_ARGUMENT"
	if f.code >= 500 {
		usual = "INTERNAL"
	}
	e := object{"code": f.code, "message": f.message, "status": cmp.Or(statuses[f.code], usual)}
	if f.scripted && f.after >= 0 {
		e["details"] = []object{{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": fmt.Sprintf("%ds", f.after)}}
	}
	if g.streamed && !g.sse {
		return []object{{"error": e}}
	}
	return object{"error": e}
}
