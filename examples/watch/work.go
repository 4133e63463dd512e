package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// host is the program around the manager.
type host struct {
	manager *subagent.BackgroundManager
}

func (h *host) launch(ctx context.Context, parent subagent.SessionID, prompt string) error {
	_, err := h.manager.Launch(ctx, subagent.LaunchInput{Parent: parent, Agent: jobs[prompt].agent, Prompt: prompt, Description: prompt})
	return err
}

// job is what a child does: it takes its steps one after the other, and has its children
// launched before the last.
type job struct {
	agent    string
	every    time.Duration // between two steps
	steps    []subagent.SessionEvent
	children []string
	err      error
}

var jobs = map[string]job{
	"prepare the release": {
		agent: "lead", every: 190 * time.Millisecond,
		steps:    []subagent.SessionEvent{calls("list_tags"), has("list_tags"), says("since v1.3 two parts "), says("have changed")},
		children: []string{"read the parser", "read the printer"},
	},
	"read the README": {
		agent: "reader", every: 230 * time.Millisecond,
		steps: []subagent.SessionEvent{calls("read"), has("read"), says("it still speaks of v1.2\n"), says("and its first "), says("program does not "), says("compile")},
	},
	"read the parser": {
		agent: "reader", every: 310 * time.Millisecond,
		steps: []subagent.SessionEvent{calls("read"), has("read"), calls("grep"), has("grep"), says("one breaking change: "), says("Parse takes a context")},
	},
	"read the printer": {
		agent: "reader", every: 280 * time.Millisecond,
		steps: []subagent.SessionEvent{calls("read"), has("read"), says("nothing that breaks")},
	},
	"run the tests": {
		agent: "tester", every: 470 * time.Millisecond,
		steps: []subagent.SessionEvent{calls("go test"), has("go test"), {Kind: subagent.EventRetrying, Text: "the model is overloaded"}, calls("go test"), has("go test")},
		err:   errors.New("2 tests of the printer fail"),
	},
	"write the notes": {
		agent: "writer", every: 330 * time.Millisecond,
		// A child, or a page that it read, may try to take over the terminal.
		steps: []subagent.SessionEvent{says("# Notes\n"), says("\x1b[2J\x1b[H\x1b]0;all is well\x07"), says("\x1b[32mfaster \x1b"), says("[0mthan \u202e3.1v\u202c, and\r"), says("\u200b smaller")},
	},
}

func calls(tool string) subagent.SessionEvent {
	return subagent.SessionEvent{Kind: subagent.EventTool, Tool: subagent.ToolCall{Name: tool}}
}

func has(tool string) subagent.SessionEvent {
	return subagent.SessionEvent{Kind: subagent.EventTool, Tool: subagent.ToolCall{Name: tool, Over: true}}
}

func says(text string) subagent.SessionEvent {
	return subagent.SessionEvent{Kind: subagent.EventText, Text: text}
}

// work is the child: it does its job and tells of it as it goes on.
func (h *host) work(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	j, ok := jobs[turn.Text]
	if !ok {
		return subagent.Result{}, fmt.Errorf("nobody here can %q", turn.Text)
	}
	var said strings.Builder
	id := 0
	for i, step := range j.steps {
		select {
		case <-time.After(j.every):
		case <-ctx.Done():
			return subagent.Result{Text: said.String()}, ctx.Err()
		}
		if step.Kind == subagent.EventTool { // a call has an id, its end has the same
			if !step.Tool.Over {
				id++
			}
			step.Tool.ID = fmt.Sprint(id)
		}
		if step.Kind == subagent.EventText {
			said.WriteString(step.Text)
		}
		turn.OnEvent(step)
		if i == len(j.steps)-2 {
			for _, child := range j.children {
				if err := h.launch(ctx, turn.Session, child); err != nil {
					return subagent.Result{}, err
				}
			}
		}
	}
	return subagent.Result{Text: said.String()}, j.err
}
