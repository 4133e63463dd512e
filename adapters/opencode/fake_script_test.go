package opencode_test

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// operations are what a script is made of:
//
//	say TEXT       text, word by word
//	think TEXT     reasoning
//	work DURATION  nothing is heard for so long; hang: for ever
//	tool DURATION  a call of a tool
//	todo N         the session's list has so many things to do
//	ask            a permission is waited for; if it is refused the turn ends
//	error CODE     the model refuses, and the turn fails
//	retry N        the model refuses N times, and is asked again 2 s later; 0: for ever
//	vanish         the turn is lost, as when the server crashes
var operations = map[string]func(t *fakeTurn, arg string) (ending, int){
	"say":    func(t *fakeTurn, arg string) (ending, int) { return t.say("text", arg) },
	"think":  func(t *fakeTurn, arg string) (ending, int) { return t.say("reasoning", arg) },
	"work":   func(t *fakeTurn, arg string) (ending, int) { return t.wait(duration(arg)) },
	"hang":   func(t *fakeTurn, _ string) (ending, int) { <-t.ctx.Done(); return aborted, 0 },
	"tool":   (*fakeTurn).useTool,
	"todo":   (*fakeTurn).setTodos,
	"ask":    (*fakeTurn).ask,
	"error":  func(_ *fakeTurn, arg string) (ending, int) { return failed, number(arg) },
	"retry":  (*fakeTurn).retry,
	"vanish": func(*fakeTurn, string) (ending, int) { return vanished, 0 },
}

func duration(arg string) time.Duration {
	d, err := time.ParseDuration(arg)
	if err != nil {
		panic(err)
	}
	return d
}

func number(arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		panic(err)
	}
	return n
}

func (t *fakeTurn) play(ops []string) (ending, int) {
	for _, op := range ops {
		name, arg, _ := strings.Cut(strings.TrimSpace(op), " ")
		do := operations[name]
		if do == nil {
			panic("the script has an operation that there is not: " + op)
		}
		if how, code := do(t, arg); how != goesOn {
			return how, code
		}
	}
	return goesOn, 0
}

func (t *fakeTurn) wait(d time.Duration) (ending, int) {
	if !pause(t.ctx, d) {
		return aborted, 0
	}
	return goesOn, 0
}

// locked does something with the fake locked, as all that is told and changed is.
func (t *fakeTurn) locked(do func()) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	do()
}

// say is text as it streams: the whole of it is told, and stored, at its end.
func (t *fakeTurn) say(kind, text string) (ending, int) {
	var part fields
	t.locked(func() { part = t.part(t.msg, fields{"type": kind, "text": ""}) })
	for _, word := range strings.SplitAfter(text, " ") {
		if how, _ := t.wait(step); how != goesOn {
			return how, 0
		}
		t.locked(func() {
			part["text"] = part["text"].(string) + word
			t.tell("message.part.delta", fields{"messageID": t.msg.id(), "partID": part["id"], "field": "text", "delta": word})
		})
	}
	t.locked(func() { t.tell("message.part.updated", fields{"part": part, "time": millis()}) })
	return goesOn, 0
}

func (t *fakeTurn) useTool(arg string) (how ending, code int) {
	part := t.call("pending")
	t.setCall(part, "running")
	if how, code = t.wait(duration(arg)); how == goesOn {
		t.setCall(part, "completed")
	}
	return how, code
}

// call adds the call of a tool.
func (t *fakeTurn) call(state string) (part fields) {
	t.locked(func() {
		part = t.part(t.msg, fields{"type": "tool", "tool": "bash", "callID": t.f.newID("call"), "state": fields{"status": state, "input": fields{}}})
	})
	return part
}

// outcomes are what a call says that went wrong.
var outcomes = map[string]string{"error": "The user rejected permission to use this specific tool call."}

// setCall changes the state of a call.
func (t *fakeTurn) setCall(part fields, state string) {
	t.locked(func() {
		part["state"] = fields{"status": state, "input": fields{"command": "ls"}, "output": "ok", "error": outcomes[state], "time": fields{"start": millis()}}
		t.tell("message.part.updated", fields{"part": part, "time": millis()})
	})
}

func (t *fakeTurn) setTodos(arg string) (ending, int) {
	t.locked(func() {
		t.todos = nil
		for range number(arg) {
			t.todos = append(t.todos, fields{"content": "more", "status": "pending", "priority": "high"})
		}
		t.tell("todo.updated", fields{"todos": listOf(t.todos)})
	})
	return goesOn, 0
}

// ask tells of the permission before the call that it is for runs, as the server does.
func (t *fakeTurn) ask(string) (ending, int) {
	part := t.call("pending")
	id := ""
	t.locked(func() {
		id = t.f.newID("per")
		t.permit = fields{
			"id": id, "sessionID": t.id, "permission": "bash", "patterns": []any{"ls"}, "metadata": fields{}, "always": []any{"ls *"},
			"tool": fields{"messageID": t.msg.id(), "callID": part["callID"]},
		}
		t.tell("permission.asked", t.permit)
	})
	t.setCall(part, "running")
	defer t.locked(func() { t.permit = nil })
	select {
	case answer := <-t.asks:
		t.locked(func() { t.tell("permission.replied", fields{"requestID": id, "reply": answer}) })
		if answer == "reject" {
			t.setCall(part, "error")
			return rejected, 0
		}
		t.setCall(part, "completed")
		return goesOn, 0
	case <-t.ctx.Done():
		return aborted, 0
	}
}

func (t *fakeTurn) retry(arg string) (ending, int) {
	const again = 2 * time.Second
	for i, n := 1, number(arg); n == 0 || i <= n; i++ {
		t.locked(func() {
			next := time.Now().Add(again).UnixMilli()
			t.be(fields{"type": "retry", "attempt": i, "message": "overloaded", "next": next})
		})
		if how, _ := t.wait(again); how != goesOn {
			return interrupted, 0
		}
	}
	t.locked(func() { t.be(fields{"type": "busy"}) })
	return goesOn, 0
}

// asked are the permissions that turns of a directory wait for.
func (f *fakeOpencode) asked(dir string) []fields {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []fields{}
	for _, s := range f.order {
		if s.dir == dir && s.permit != nil {
			all = append(all, s.permit)
		}
	}
	return all
}

// answer is a person's word on a permission.
func (f *fakeOpencode) answer(w http.ResponseWriter, r *http.Request) {
	req, ok := bodyOf(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.order {
		if s.permit != nil && s.permit["id"] == r.PathValue("id") {
			s.turn.asks <- req["reply"].(string)
			s.permit = nil
			reply(w, 200, true)
			return
		}
	}
	notFound(w, r.PathValue("id"))
}
