package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// model stands for the parent's model: it takes a moment for each turn, delegates in the
// first one, has work of its own for another, and fails in the third.
type model struct {
	turns int
	facts []string // what it was told
}

// reply is what comes of a turn.
type reply struct {
	says      string
	delegates []string
	done      bool
}

var errOverloaded = errors.New("the model is overloaded")

// busy reports whether the model goes on by itself.
func (m *model) busy() bool { return m.turns < 2 }

// next is a turn: news is what comes before the words of the user.
func (m *model) next(ctx context.Context, news string) (reply, error) {
	if err := pause(ctx, 400*time.Millisecond); err != nil {
		return reply{}, err
	}
	m.turns++
	if m.turns == 3 {
		return reply{}, errOverloaded
	}
	fresh := quoted(news)
	m.facts = append(m.facts, fresh...)
	switch {
	case m.turns == 1:
		return reply{says: "why do builds fail at night? I delegate:", delegates: []string{
			"read the build log", "compare with last week", "ask when backups run",
		}}, nil
	case len(m.facts) == 3:
		return reply{says: "the answer: " + strings.Join(m.facts, "; "), done: true}, nil
	case len(fresh) > 0:
		return reply{says: "noted: " + strings.Join(fresh, "; ")}, nil
	}
	return reply{says: "meanwhile I outline the answer"}, nil
}

// quoted are the results in the text of a notification: its lines with a bar.
func quoted(news string) (results []string) {
	for line := range strings.Lines(news) {
		if result, ok := strings.CutPrefix(line, "| "); ok {
			results = append(results, strings.TrimSpace(result))
		}
	}
	return results
}

// jobs are what the children can do.
var jobs = map[string]struct {
	takes time.Duration
	finds string
}{
	"read the build log":     {300 * time.Millisecond, "the disk is full at 02:10"},
	"compare with last week": {900 * time.Millisecond, "it began on Tuesday"},
	"ask when backups run":   {1700 * time.Millisecond, "backups run at 02:00 since Tuesday"},
}

// work is the child.
func work(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	job, ok := jobs[turn.Text]
	if !ok {
		return subagent.Result{}, fmt.Errorf("nobody here can %q", turn.Text)
	}
	return subagent.Result{Text: job.finds}, pause(ctx, job.takes)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
