package scriptedllm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// API names what a host speaks.
type API string

// The APIs that the server speaks.
const (
	OpenAIChat      API = "openai chat"
	OpenAIResponses API = "openai responses"
	Anthropic       API = "anthropic"
	Gemini          API = "gemini"
)

// Role says who a message is from. System prompts are not among the messages.
type Role string

// The roles, by the same names for every API.
const (
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleTool      Role = "tool"
)

// Message is a part of the conversation that a host sent. What Anthropic and Gemini
// put in one user message is parted into results of tools and the user's text; what
// the assistant said in several is one message.
type Message struct {
	Role  Role
	Text  string // of a tool: its result
	Calls []Call // of the assistant
	For   string // of a tool: the id of the call; without one, the tool's name
}

// Call is a tool call that the assistant once made.
type Call struct {
	ID    string // may be "" for Gemini
	Name  string
	Input json.RawMessage
}

// Request is what the server knows about one request.
type Request struct {
	N      int       // requests before it
	At     time.Time // it had arrived
	Method string
	Path   string      // without the query, which may hold a key
	Header http.Header // without secrets

	API      API // "" for what does not call a model, and then nothing up to Try is set
	Model    string
	Stream   bool
	System   string // all system prompts, instructions and developer messages
	Messages []Message
	Tools    []string // names; Responses: namespace::name
	Title    bool     // it asks for a title
	Step     int      // steps of the script before the one that answers; -1 without a script
	Try      int      // times that an error xN of this step was asked for before

	Status int       // of the answer; 0 as long as nothing was sent
	Fault  string    // what is wrong with it, such as a bad script; "" for none
	Ended  time.Time // zero while it is being answered
	Gone   bool      // the client went away before the answer was complete
}

// String says in one line what was asked and what became of it.
func (r Request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s %s", r.N, r.Method, r.Path)
	if r.API != "" {
		fmt.Fprintf(&b, ", model %q, %d messages, %d tools", r.Model, len(r.Messages), len(r.Tools))
	}
	switch {
	case r.Title:
		b.WriteString(", a title")
	case r.API != "" && r.Step >= 0:
		fmt.Fprintf(&b, ", step %d", r.Step)
	}
	fmt.Fprintf(&b, ": status %d", r.Status)
	switch {
	case r.Fault != "":
		fmt.Fprintf(&b, ", %s", r.Fault)
	case r.Ended.IsZero():
		b.WriteString(", open")
	case r.Gone:
		b.WriteString(", the client went away")
	}
	return b.String()
}

func (r *Request) clone() Request {
	c := *r
	c.Header, c.Tools, c.Messages = r.Header.Clone(), slices.Clone(r.Tools), slices.Clone(r.Messages)
	for i := range c.Messages {
		c.Messages[i].Calls = slices.Clone(c.Messages[i].Calls)
	}
	return c
}

// Requests are those that have arrived, in that order; see Config.Keep.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = r.clone()
	}
	return list
}

// Open counts the requests that are being answered.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// ErrClosed is what waiting for a closed server comes to.
var ErrClosed = errors.New("scriptedllm: the server was closed")

// WaitFor returns the first request that matches, as soon as there is one: it may
// have arrived before. match is called without locks, again whenever a request has
// arrived, begun to be answered or ended, and so may ask for any field:
//
//	r, err := s.WaitFor(ctx, func(r scriptedllm.Request) bool { return r.Step == 2 && r.Gone })
//
// The error is the context's cause, or ErrClosed.
func (s *Server) WaitFor(ctx context.Context, match func(Request) bool) (found Request, err error) {
	err = s.wait(ctx, s.done, func() bool {
		list := s.Requests()
		i := slices.IndexFunc(list, match)
		if i >= 0 {
			found = list[i]
		}
		return i >= 0
	})
	return found, err
}

// WaitIdle returns when no request is being answered.
func (s *Server) WaitIdle(ctx context.Context) error {
	return s.wait(ctx, nil, func() bool { return s.Open() == 0 }) // which Close leads to
}

// wait ends with done too, if that is not nil.
func (s *Server) wait(ctx context.Context, done <-chan struct{}, ok func() bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			if ok() {
				return nil
			}
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("scriptedllm: wait for a request: %w", context.Cause(ctx))
		}
	}
}

// update changes what is known under the lock, and wakes who waits.
func (s *Server) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// addLocked lists a request, and forgets the oldest that ended if there are many.
func (s *Server) addLocked(r *Request) {
	r.N = s.arrived
	s.arrived++
	s.requests = append(s.requests, r)
	if len(s.requests) <= s.cfg.Keep {
		return
	}
	ended := func(r *Request) bool { return !r.Ended.IsZero() }
	if i := slices.IndexFunc(s.requests, ended); i >= 0 {
		s.requests = slices.Delete(s.requests, i, i+1)
	}
}

const hidden = "[hidden]"

// withoutSecrets copies a header.
func withoutSecrets(h http.Header) http.Header {
	h = h.Clone()
	for name := range h {
		n := strings.ToLower(name)
		for _, part := range []string{"authorization", "api-key", "apikey", "cookie", "token", "secret", "password"} {
			if strings.Contains(n, part) {
				h[name] = []string{hidden}
			}
		}
	}
	return h
}
