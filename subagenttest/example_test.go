package subagenttest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// agent stands for an agent loop. Its prompts are those of the subject below.
func agent(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	switch turn.Text {
	case "count for ever":
		<-ctx.Done()
		return subagent.Result{Text: "1 2 3"}, ctx.Err()
	case "divide by zero":
		return subagent.Result{}, errors.New("division by zero")
	case "say nothing":
		return subagent.Result{Empty: true}, nil
	}
	return subagent.Result{Text: "hello"}, nil
}

// subject makes a fresh client for each case of the suite. A client of a real host
// ends its server with t.Cleanup here.
func subject(*testing.T) subagenttest.Subject {
	return subagenttest.Subject{
		Client:  subagent.Func(agent),
		Request: subagent.CreateRequest{Task: "bg_1", Attempt: 1, Parent: "parent", Agent: "counter"},
		Quick:   "say hello",
		Long:    "count for ever",
		Fail:    "divide by zero",
		Blank:   "say nothing",
		Settle:  2 * time.Second, // it is in this process, and quick
	}
}

func ExampleTestClient() {
	// In the tests of the client: func TestConforms(t *testing.T), with this body.
	_ = func(t *testing.T) {
		subagenttest.TestClient(t, subject)
	}
}

// chats is a host of parents: what it is told stands in a transcript, and turns answer at
// once, but for those that Work begins.
type chats struct {
	mu    sync.Mutex
	all   map[subagent.SessionID]*chat
	chats int
}

type chat struct {
	said  []subagent.Message
	turns int
	works bool
	seen  map[string]bool // by notification: whether it began a turn
}

func (c *chats) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.all[n.Parent]
	switch {
	case ctx.Err() != nil:
		return subagent.Unknown, ctx.Err()
	case p == nil:
		return subagent.Gone, nil
	case p.works && n.Handover != subagent.HandDeposit:
		return subagent.Busy, nil
	}
	woken, told := p.seen[n.ID]
	if !told { // else it came again, or its turn is asked for now
		p.say(subagent.RoleUser, n.Text)
	}
	if p.seen[n.ID] = woken || n.Wake; n.Wake && !woken {
		p.turns++
		p.say(subagent.RoleAssistant, "I see")
	}
	return subagent.Accepted, nil
}

func (p *chat) say(who subagent.Role, text string) {
	p.said = append(p.said, subagent.Message{Role: who, Text: text, Complete: true})
}

func (c *chats) Open() subagent.SessionID {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chats++
	id := subagent.SessionID(fmt.Sprint("chat ", c.chats))
	c.all[id] = &chat{seen: map[string]bool{}}
	return id
}

// in looks into a chat.
func (c *chats) in(id subagent.SessionID, look func(*chat)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	look(c.all[id])
}

func (c *chats) Said(id subagent.SessionID) (said []subagent.Message) {
	c.in(id, func(p *chat) { said = slices.Clone(p.said) })
	return said
}

func (c *chats) Turns(id subagent.SessionID) (turns int) {
	c.in(id, func(p *chat) { turns = p.turns })
	return turns
}

func (c *chats) Work(id subagent.SessionID) { c.in(id, func(p *chat) { p.turns++; p.works = true }) }
func (c *chats) Rest(id subagent.SessionID) { c.in(id, func(p *chat) { p.works = false }) }

func (c *chats) Delete(id subagent.SessionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, id)
}

// receiver makes a fresh one for each case of the suite.
func receiver(*testing.T) subagenttest.Receiver {
	host := &chats{all: map[subagent.SessionID]*chat{}}
	return subagenttest.Receiver{Notifier: host, Parents: host, Settle: time.Second}
}

func ExampleTestNotifier() {
	// In the tests of the notifier: func TestTells(t *testing.T), with this body.
	_ = func(t *testing.T) {
		subagenttest.TestNotifier(t, receiver)
	}
}
