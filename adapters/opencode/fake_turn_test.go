package opencode_test

import (
	"context"
	"slices"
	"strings"
	"time"
)

// A turn does what the last line of the prompt that begins with "SCRIPT:" says, one
// step of the model after the other, parted by "||", each of operations parted by ";".
// operations says which there are. A prompt without a script is answered with "echo: "
// and its first line, as is one that comes in when the script is over.

// fakeTurn is one turn. Methods with Locked in their name expect the fake locked; the
// others lock it.
type fakeTurn struct {
	*fakeSession
	ctx   context.Context
	from  int          // the message it began with
	asker *fakeMessage // whose script it plays
	done  int          // steps of it that are over
	msg   *fakeMessage // the answer of this step
	asks  chan string  // the answer to a permission that it asked for
	lost  bool         // the server went down
}

// ending is how a step ended.
type ending int

const (
	goesOn      ending = iota
	aborted            // somebody stopped it
	failed             // the model refused
	rejected           // a permission was refused
	interrupted        // it was stopped while it waited to try again
	vanished           // the server lost it
)

// step is how long the server takes from one thing to the next.
const step = 10 * time.Millisecond

// begin starts a turn for the newest message; f is locked. If a message was sent again,
// and nothing is left to be answered, no model is called.
func (s *fakeSession) begin(repeated bool) {
	s.turns++
	s.be(fields{"type": "busy"})
	if last := s.msgs[len(s.msgs)-1]; repeated && last.info["finish"] == "stop" {
		s.status = nil
		s.rest()
		return
	}
	ctx, halt := context.WithCancel(s.f.ctx)
	from := len(s.msgs) - 1
	for !s.msgs[from].isUser() { // an answer that was stopped stands after what is answered once more
		from--
	}
	s.turn = &fakeTurn{fakeSession: s, ctx: ctx, from: from, asks: make(chan string, 1)}
	s.halt = halt
	go s.turn.run(halt)
}

func (t *fakeTurn) run(halt context.CancelFunc) {
	defer halt()
	for {
		pause(t.f.ctx, step) // and not its own: even an abort at once finds an answer begun
		ops := t.next()
		how, code := t.play(ops)
		if how != goesOn {
			t.fail(how, code)
			return
		}
		if t.finish() {
			return
		}
	}
}

// next begins the answer to the newest message, and says what is done in this step.
func (t *fakeTurn) next() []string {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	asked := t.lastUserLocked()
	t.msg = &fakeMessage{info: fields{
		"id": t.f.newID("msg"), "sessionID": t.id, "role": "assistant", "parentID": asked.id(), "cost": 0,
		"time": fields{"created": millis()}, "providerID": "fake", "modelID": "scripted", "tokens": tokens(0, 0),
	}}
	t.msgs = append(t.msgs, t.msg)
	t.tell("message.updated", fields{"info": t.msg.info})
	t.be(fields{"type": "busy"})
	t.part(t.msg, fields{"type": "step-start"})
	steps := t.stepsLocked()
	if t.done < len(steps) {
		t.done++
		return strings.Split(steps[t.done-1], ";")
	}
	line, _, _ := strings.Cut(asked.text(), "\n")
	return []string{"say echo: " + strings.ReplaceAll(line, ";", ",")}
}

func tokens(in, out int) fields {
	return fields{"total": in + out, "input": in, "output": out, "reasoning": 0, "cache": fields{"read": 0, "write": 0}}
}

func (t *fakeTurn) lastUserLocked() *fakeMessage {
	for _, m := range slices.Backward(t.msgs) {
		if m.isUser() {
			return m
		}
	}
	panic("a turn without a prompt")
}

// stepsLocked are the steps of the newest script that came in since the turn began.
func (t *fakeTurn) stepsLocked() []string {
	for _, m := range slices.Backward(t.msgs[t.from:]) {
		at := strings.LastIndex("\n"+m.text(), "\nSCRIPT:")
		if !m.isUser() || at < 0 {
			continue
		}
		if m != t.asker {
			t.asker, t.done = m, 0
		}
		line, _, _ := strings.Cut(m.text()[at+len("SCRIPT:"):], "\n")
		return strings.Split(line, "||")
	}
	return nil
}

// finish ends a step, and the turn if there is nothing left to do. A message that came
// in meanwhile is something to do.
func (t *fakeTurn) finish() (over bool) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	more := t.done < len(t.stepsLocked())
	reason := "stop"
	if more {
		reason = "tool-calls"
	}
	t.part(t.msg, fields{"type": "step-finish", "reason": reason, "tokens": tokens(10, 5), "cost": 0})
	t.msg.info["finish"], t.msg.info["tokens"] = reason, tokens(10, 5)
	t.completeLocked()
	t.tell("message.updated", fields{"info": t.msg.info})
	t.be(fields{"type": "busy"})
	if more || t.msgs[len(t.msgs)-1] != t.msg {
		return false
	}
	t.endLocked()
	t.rest()
	t.tell("session.updated", fields{"info": t.info()})
	t.tell("session.diff", fields{"diff": []any{}})
	return true
}

func (t *fakeTurn) completeLocked() {
	t.msg.info["time"] = fields{"created": t.msg.info["time"].(fields)["created"], "completed": millis()}
	t.tell("message.updated", fields{"info": t.msg.info})
}

func (t *fakeTurn) endLocked() { t.status, t.halt, t.turn = nil, nil, nil }

// fail ends a turn that does not end well. The session is said to rest before its last
// message is final, and again when it is; what comes in between is never answered.
func (t *fakeTurn) fail(how ending, code int) {
	var err fields
	t.f.mu.Lock()
	if t.lost {
		how = vanished
	}
	switch t.status = nil; how {
	case vanished:
		t.endLocked()
		t.f.mu.Unlock()
		return
	case aborted:
		err = errorBody("MessageAbortedError", "Aborted")
	case failed:
		err = errorBody("APIError", "refused")
		err["data"] = fields{"message": "refused", "statusCode": code, "isRetryable": false}
	case rejected:
		t.msg.info["finish"] = "tool-calls"
	}
	if err != nil {
		t.tell("session.error", fields{"error": err})
		t.rest()
	}
	t.f.mu.Unlock()
	pause(t.f.ctx, step/2)
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if err != nil {
		t.msg.info["error"] = err
	}
	t.completeLocked()
	t.endLocked()
	t.rest()
}
