package scriptedllm

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// exchange is one request and its answer.
type exchange struct {
	*Request // guarded by Server.mu once it is listed
	s        *Server
	w        http.ResponseWriter
	ctx      context.Context
	sent     bool // the status was
	complete bool // the whole answer was
	err      error
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	s.update(func() { s.open++ })
	return &exchange{s: s, w: w, ctx: r.Context(), Request: &Request{
		At: time.Now(), Method: r.Method, Path: r.URL.Path, Header: withoutSecrets(r.Header), Step: -1,
	}}
}

// end is deferred: also what breaks the connection comes by here.
func (x *exchange) end() {
	x.s.update(func() {
		x.s.open--
		x.Ended = time.Now()
		x.Gone = (!x.complete || x.err != nil) && x.ctx.Err() != nil && !x.s.isClosed()
	})
}

func (s *Server) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// model answers the calls of one API.
func (s *Server) model(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := s.begin(w, r)
		defer x.end()
		x.API = d.api()
		body, f := s.body(w, r)
		var a asked
		var p plan
		if f == nil {
			var err error
			if a, err = d.read(r, body); err == nil {
				a.messages = merged(a.messages)
				p, err = a.plan()
			}
			if err != nil {
				f = &fault{code: http.StatusBadRequest, message: err.Error()}
			}
		}
		x.Model, x.Stream, x.System, x.Messages, x.Tools = a.model, a.stream, a.system, a.messages, a.tools
		x.Title, x.Step = p.title, p.n
		if f != nil {
			x.Step = -1
			s.update(func() { s.addLocked(x.Request) })
			x.refuse(d, *f)
			return
		}
		tries := s.count(p)
		for _, n := range tries {
			x.Try = max(x.Try, n)
		}
		s.update(func() { s.addLocked(x.Request) })
		newReply(x, d, &a, p).play(tries)
	}
}

// merged joins what the assistant said in several messages without interruption.
func merged(messages []Message) (list []Message) {
	for _, m := range messages {
		last := len(list) - 1
		if last < 0 || m.Role != RoleAssistant || list[last].Role != RoleAssistant {
			list = append(list, m)
			continue
		}
		list[last].Text = joined(list[last].Text, m.Text)
		list[last].Calls = append(list[last].Calls, m.Calls...)
	}
	return list
}

// joined puts two texts on lines of their own.
func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

// count says how often each operation of the step was come to before; only those
// that depend on it are counted.
func (s *Server) count(p plan) map[int]int {
	before := map[int]int{}
	prompt := sha256.Sum256([]byte(p.prompt))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range p.step {
		if o.verb != fail || o.n == 0 {
			continue
		}
		key := try{prompt, p.n, i}
		before[i] = s.tries[key]
		s.tries[key]++
		if before[i] < o.n {
			break // nothing comes after it this time
		}
	}
	return before
}

// write sends a part of the body. An error means that the client is gone, which
// ends the play at the next operation.
func (x *exchange) write(status int, text string) {
	if !x.sent {
		x.sent = true
		x.s.update(func() { x.Status = status })
		x.w.WriteHeader(status)
	}
	if _, err := x.w.Write([]byte(text)); err != nil {
		x.err = err
	}
	if err := http.NewResponseController(x.w).Flush(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		x.err = err
	}
}

func (x *exchange) json(status int, v any) {
	x.w.Header().Set("Content-Type", "application/json")
	x.write(status, encode(v)+"\n")
}

// refuse answers with an error.
func (x *exchange) refuse(d dialect, f fault) {
	if !f.scripted {
		x.s.update(func() { x.Fault = f.message })
	}
	if f.scripted && f.after >= 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(f.after))
	}
	x.identify(x.s.newID())
	x.json(f.code, d.failure(f))
	x.complete = true
}

// identify names the request in the answer's header, as the API does.
func (x *exchange) identify(id string) {
	name := "X-Request-Id"
	if x.API == Anthropic {
		name = "Request-Id"
	}
	x.w.Header().Set(name, "req_"+id)
}

// encode writes JSON as the APIs do, without escapes for HTML.
func encode(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("scriptedllm: an answer can't be encoded: %v", err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// pause lets time pass; without a timer it ends only when the client goes away or
// the server is closed.
func (x *exchange) pause(timer <-chan time.Time) bool {
	select {
	case <-timer:
		return true
	case <-x.ctx.Done():
	case <-x.s.done:
	}
	return false
}

func (x *exchange) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	return x.pause(t.C)
}
