package subagent_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/seed-48fd9ae4/subagent"
)

// eventful is a host that takes a prompt, works by itself, and tells what goes on.
type eventful struct {
	streams chan chan subagent.SessionEvent // in a real host: connections, each opened when the last was cut
	events  chan subagent.SessionEvent      // the one that is open

	mu      sync.Mutex
	busy    map[subagent.SessionID]bool
	answers map[subagent.SessionID]string
}

func (h *eventful) Create(_ context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	return subagent.SessionID("session of " + req.Description), nil
}

func (h *eventful) Send(_ context.Context, id subagent.SessionID, p subagent.Prompt) (any, error) {
	h.set(id, true, "")
	go func() {
		h.events <- subagent.SessionEvent{Session: id, Kind: subagent.EventTool, Tool: subagent.ToolCall{ID: "1", Name: "read"}}
		h.events <- subagent.SessionEvent{Session: id, Kind: subagent.EventStep, Step: 1}
		h.set(id, false, "read "+p.Text)
		h.events <- subagent.SessionEvent{Session: id, Kind: subagent.EventIdle}
	}()
	return nil, nil
}

func (h *eventful) set(id subagent.SessionID, busy bool, answer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy[id], h.answers[id] = busy, answer
}

func (h *eventful) Abort(_ context.Context, id subagent.SessionID) error {
	h.set(id, false, "")
	return nil
}

func (h *eventful) Statuses(context.Context, []subagent.SessionID) (map[subagent.SessionID]subagent.HostStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[subagent.SessionID]subagent.HostStatus{}
	for id, busy := range h.busy {
		all[id] = map[bool]subagent.HostStatus{true: subagent.HostBusy, false: subagent.HostIdle}[busy]
	}
	return all, nil
}

func (h *eventful) Output(_ context.Context, id subagent.SessionID, _ any) (subagent.Answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return subagent.Answer{Text: h.answers[id], Evidence: h.answers[id] != ""}, nil
}

func (h *eventful) Exists(_ context.Context, id subagent.SessionID) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.busy[id]
	return ok, nil
}

// A host that speaks in events becomes a client with Blocking. Its events go to the
// manager's HandleEvent.
func ExampleBlocking() {
	host := &eventful{
		streams: make(chan chan subagent.SessionEvent, 1), events: make(chan subagent.SessionEvent),
		busy: map[subagent.SessionID]bool{}, answers: map[subagent.SessionID]string{},
	}
	host.streams <- host.events
	client := subagent.Blocking(host, subagent.BlockingConfig{}) // host has the six methods of AsyncClient
	m, err := subagent.New(client, subagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	go func() {
		for stream := range host.streams { // one for each time that the line to the host was opened
			client.Resync() // looks for what was missed while there was none
			for e := range stream {
				m.HandleEvent(e) // whatever the host tells, in its order
			}
		}
	}()

	task, err := m.Do(context.Background(), subagent.LaunchInput{Parent: "p", Agent: "explore", Prompt: "the parser", Description: "parser"})
	if err != nil {
		panic(err)
	}
	fmt.Println(task.Result.Text, "with", task.Progress.ToolCalls, "tool call:", task.Progress.LastTool)
	// Output: read the parser with 1 tool call: read
}

// shared is a host whose sessions are prompted by others too.
type shared struct{ *eventful }

// LastPrompt needs no mark here: Output tells the answer to the last prompt anyway.
func (shared) LastPrompt(context.Context, subagent.SessionID) (any, error) { return "the last", nil }

// A host that can say what a session was prompted with last lets sessions be tracked that
// the manager did not make.
func ExampleLastPrompter() {
	host := shared{&eventful{events: make(chan subagent.SessionEvent), busy: map[subagent.SessionID]bool{}, answers: map[subagent.SessionID]string{}}}
	m, err := subagent.New(subagent.Blocking(host, subagent.BlockingConfig{}), subagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	if _, err := host.Send(context.Background(), "theirs", subagent.Prompt{Text: "the parser"}); err != nil { // somebody else does
		panic(err)
	}
	task, err := m.Track(context.Background(), subagent.TrackInput{Parent: "p", Session: "theirs", Agent: "explore"})
	if err != nil {
		panic(err)
	}
	go func() {
		for e := range host.events {
			m.HandleEvent(e)
		}
	}()
	task, err = m.Wait(context.Background(), task.ID)
	if err != nil {
		panic(err)
	}
	fmt.Println(task.Status, task.Result.Text)
	// Output: completed read the parser
}
