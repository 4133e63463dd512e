package scriptedllm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// dialect is what differs between the APIs.
type dialect interface {
	api() API
	read(r *http.Request, body []byte) (asked, error)
	// whole is the answer at once.
	whole(a *answer) any
	// stream is the answer in parts, each of which goes through send.
	stream(a *answer, send func(string)) events
	// failure is the body of an HTTP error.
	failure(f fault) any
}

// events are the parts of a streamed answer, in the order of calls.
type events interface {
	contentType() string
	start()
	open(p *part)
	delta(p *part, s string)
	stop(p *part)
	finish()
	fail(f fault) // instead of finish
}

// fault is an error that the client is told.
type fault struct {
	code     int
	message  string
	after    int // seconds for Retry-After, -1 for none
	scripted bool
}

// object is JSON in the making.
type object = map[string]any

type kind int

const (
	text kind = iota
	thought
	call
)

// part is a text, a thought or a call of a tool.
type part struct {
	kind      kind
	index     int    // among the parts
	nth       int    // among those of its kind
	id        string // of the item, for Responses
	text      strings.Builder
	callID    string
	namespace string
	name      string
	input     json.RawMessage
}

// fullName is for APIs that know no namespaces.
func (p *part) fullName() string {
	if p.namespace == "" {
		return p.name
	}
	return p.namespace + "__" + p.name
}

// answer is what the model says in one call.
type answer struct {
	id      string // without a prefix
	at      time.Time
	asked   *asked
	parts   []*part
	in, out int // tokens
}

// all joins what is said in one kind of parts.
func (a *answer) all(k kind) string {
	var b strings.Builder
	for _, p := range a.parts {
		if p.kind == k {
			b.WriteString(p.text.String())
		}
	}
	return b.String()
}

func (a *answer) number(k kind) (n int) {
	for _, p := range a.parts {
		if p.kind == k {
			n++
		}
	}
	return n
}

// either picks by whether the answer calls a tool.
func (a *answer) either(calls, rests string) string {
	if a.number(call) > 0 {
		return calls
	}
	return rests
}

// reply is an answer under way.
type reply struct {
	x     *exchange
	d     dialect
	a     *answer
	plan  plan
	ev    events // nil unless it is streamed
	begun bool
	now   *part // the one that is open
}

func newReply(x *exchange, d dialect, a *asked, p plan) *reply {
	y := &reply{x: x, d: d, plan: p, a: &answer{id: x.s.newID(), at: time.Now(), asked: a, in: 10, out: 5}}
	for _, o := range p.step {
		if o.verb == tokens { // the first events tell them already
			y.a.in, y.a.out = o.in, o.out
		}
	}
	if a.stream {
		y.ev = d.stream(y.a, func(s string) { x.write(http.StatusOK, s) })
	}
	x.identify(y.a.id)
	return y
}

// play does one operation after the other. Where the client is gone, the server
// closed, or the script says so, it breaks the connection.
func (y *reply) play(tries map[int]int) {
	for i, o := range y.plan.step {
		switch {
		case y.x.err != nil || y.x.ctx.Err() != nil || !y.do(o):
			panic(http.ErrAbortHandler) // net/http breaks the connection, and says nothing
		case o.verb == fail && (o.n == 0 || tries[i] < o.n):
			y.fail(o)
			return
		}
	}
	y.finish()
}

// do reports whether the answer goes on.
func (y *reply) do(o op) bool {
	switch o.verb {
	case say:
		y.say(text, o.text)
	case think:
		y.say(thought, o.text)
	case tool:
		y.call(o)
	case sleep:
		return y.x.sleep(o.d)
	case slow:
		return y.slow(o)
	case hang:
		return y.x.pause(nil)
	case drop:
		y.drop()
		return false
	}
	return true
}

func (y *reply) slow(o op) bool {
	for i := range o.n {
		if !y.x.sleep(o.d) || y.x.err != nil {
			return false
		}
		y.say(text, fmt.Sprintf("word%d ", i+1))
	}
	return true
}

func (y *reply) begin() {
	if y.begun || y.ev == nil {
		return
	}
	y.begun = true
	y.x.w.Header().Set("Content-Type", y.ev.contentType())
	y.x.w.Header().Set("Cache-Control", "no-cache")
	y.ev.start()
}

// open begins a part, after the end of the one before it.
func (y *reply) open(p *part) {
	y.begin()
	y.stop()
	p.index, p.nth, p.id = len(y.a.parts), y.a.number(p.kind), y.x.s.newID()
	y.a.parts = append(y.a.parts, p)
	y.now = p
	if y.ev != nil {
		y.ev.open(p)
	}
}

func (y *reply) stop() {
	if y.now != nil && y.ev != nil {
		y.ev.stop(y.now)
	}
	y.now = nil
}

func (y *reply) delta(s string) {
	y.now.text.WriteString(s)
	if s != "" && y.ev != nil {
		y.ev.delta(y.now, s)
	}
}

func (y *reply) say(k kind, s string) {
	if y.now == nil || y.now.kind != k {
		y.open(&part{kind: k})
	}
	y.delta(s)
}

// call makes a tool call, with its input in two halves.
func (y *reply) call(o op) {
	prefix := "call_"
	if y.d.api() == Anthropic {
		prefix = "toolu_"
	}
	y.open(&part{
		kind: call, namespace: o.namespace, name: o.name, input: o.input,
		callID: idOf(prefix, y.plan.tag, y.plan.n, y.x.s.newID()),
	})
	half := len(o.input) / 2
	for half > 0 && !utf8.RuneStart(o.input[half]) {
		half--
	}
	y.delta(string(o.input[:half]))
	y.delta(string(o.input[half:]))
	y.stop()
}

func (y *reply) finish() {
	y.begin()
	y.stop()
	if y.ev == nil {
		y.x.json(http.StatusOK, y.d.whole(y.a))
	} else {
		y.ev.finish()
	}
	y.x.complete = true
}

// drop sends the beginning of what would be whole.
func (y *reply) drop() {
	y.begin()
	if y.ev == nil {
		body := encode(y.d.whole(y.a))
		y.x.w.Header().Set("Content-Type", "application/json")
		y.x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		y.x.write(http.StatusOK, body[:len(body)/2])
	}
	y.x.complete = true // as the script has it
}

func (y *reply) fail(o op) {
	f := fault{code: o.code, message: fmt.Sprintf("scripted %d", o.code), after: o.after, scripted: true}
	if !y.begun {
		y.x.refuse(y.d, f)
		return
	}
	y.stop()
	y.ev.fail(f)
	y.x.complete = true
}

// event writes a server-sent event; the name may be empty.
func event(name string, data any) string {
	if name != "" {
		name = "event: " + name + "\n"
	}
	return name + "data: " + encode(data) + "\n\n"
}
