package scriptedllm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// content is what APIs take as a string or as a list of parts, some of which are
// text. The texts of a list are lines.
type content string

// UnmarshalJSON implements json.Unmarshaler.
func (c *content) UnmarshalJSON(data []byte) error {
	*c = ""
	if !bytes.HasPrefix(data, []byte("[")) {
		var s *string
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("content must be a string or a list of parts")
		}
		if s != nil {
			*c = content(*s)
		}
		return nil
	}
	var parts []struct{ Text string }
	if err := json.Unmarshal(data, &parts); err != nil {
		return fmt.Errorf("a part of content must be an object with a type: %w", err)
	}
	for _, p := range parts {
		*c = content(joined(string(*c), p.Text))
	}
	return nil
}

// decode reads a request's body.
func decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("scriptedllm: the body is not what the API takes: %w", err)
	}
	return nil
}

// checked wants something to answer.
func (a asked) checked() (asked, error) {
	if len(a.messages) == 0 {
		return a, fmt.Errorf("scriptedllm: the request has no message")
	}
	return a, nil
}

// add puts a message down, or a system prompt where the role says so.
func (a *asked) add(role string, m Message) error {
	switch role {
	case "system", "developer":
		a.system = joined(a.system, m.Text)
		return nil
	case "user":
		m.Role = RoleUser
	case "assistant", "model":
		m.Role = RoleAssistant
	case "tool", "function":
		m.Role = RoleTool
	default:
		return fmt.Errorf("scriptedllm: message %d has the role %q, which nobody has", len(a.messages), role)
	}
	a.messages = append(a.messages, m)
	return nil
}

// dialectOf guesses the API of a request that calls no model, for its errors.
func dialectOf(r *http.Request) dialect {
	switch {
	case strings.HasPrefix(r.URL.Path, "/v1beta"):
		return gemini{}
	case strings.HasPrefix(r.URL.Path, "/v1/messages"), r.Header.Get("Anthropic-Version") != "":
		return anthropic{}
	}
	return chat{}
}

// models lists them as OpenAI does, or to its clients as Anthropic does.
func (s *Server) models(r *http.Request, _ []byte) any {
	list := []object{}
	if r.Header.Get("Anthropic-Version") == "" {
		for _, m := range s.cfg.Models {
			list = append(list, object{"id": m, "object": "model", "created": 0, "owned_by": "scriptedllm"})
		}
		return object{"object": "list", "data": list}
	}
	for _, m := range s.cfg.Models {
		list = append(list, object{"type": "model", "id": m, "display_name": m, "created_at": "1970-01-01T00:00:00Z"})
	}
	return object{"data": list, "has_more": false, "first_id": s.cfg.Models[0], "last_id": s.cfg.Models[len(s.cfg.Models)-1]}
}
