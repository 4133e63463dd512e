package subagent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newManager makes a manager that is closed, and its books checked, at the end.
func newManager(t *testing.T, c SessionClient, cfg Config) *BackgroundManager {
	t.Helper()
	m, err := New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = m.Close()
		require.NoError(t, m.CheckBooks(nil, nil))
	})
	return m
}

// keepAll forgets nothing.
var keepAll = Retention{Age: Off, Together: Off, Count: Off, Bytes: Off}

// echo answers each prompt with itself.
func echo(context.Context, Turn) (Result, error) { return Result{Text: "ok"}, nil }

// untilStopped is a child that works until it is stopped.
func untilStopped(ctx context.Context, _ Turn) (Result, error) {
	<-ctx.Done()
	return Result{Text: "so far"}, ctx.Err()
}

// pass lets fake time pass and whatever it brings come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stage is an agent loop for Func whose turns go on until the test ends them. A
// turn goes by the text of its prompt.
type stage struct {
	mu      sync.Mutex
	began   []string
	playing map[string]chan struct{}
}

func newStage() *stage { return &stage{playing: map[string]chan struct{}{}} }

func (s *stage) run(ctx context.Context, turn Turn) (Result, error) {
	over := make(chan struct{})
	s.mu.Lock()
	s.began = append(s.began, turn.Text)
	s.playing[turn.Text] = over
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.playing, turn.Text)
	}()
	select {
	case <-over:
		return Result{Text: "did " + turn.Text}, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// end completes turns, in this order, and waits for what follows from each.
func (s *stage) end(texts ...string) {
	synctest.Wait()
	for _, text := range texts {
		s.let(text)
		synctest.Wait()
	}
}

// let has a turn complete.
func (s *stage) let(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := s.playing[text]
	if over == nil {
		panic(fmt.Sprintf("the turn %q does not run", text))
	}
	close(over)
}

// now is what runs, sorted.
func (s *stage) now() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := []string{}
	for text := range s.playing {
		now = append(now, text)
	}
	slices.Sort(now)
	return now
}

// order is what has begun, in order.
func (s *stage) order() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.began)
}

// asks is a launch by its prompt, for the queue of a model or, without one, of
// the agent "worker".
func asks(parent SessionID, model, prompt string) LaunchInput {
	return LaunchInput{Parent: parent, Agent: "worker", Model: model, Prompt: prompt}
}

// answering is an inbox that answers by the number of the call, from 1.
type answering struct {
	inbox
	answer func(n Notification, call int) (Delivery, error)
}

func (b *answering) Notify(ctx context.Context, n Notification) (Delivery, error) {
	_, _ = b.inbox.Notify(ctx, n)
	return b.answer(n, len(b.all()))
}

// toldTo is what notifications told a parent of, in order.
func toldTo(parent SessionID, list []Notification) (ids []TaskID) {
	for _, n := range list {
		for _, notice := range n.Notices {
			if n.Parent == parent {
				ids = append(ids, notice.Task)
			}
		}
	}
	return ids
}

// inventory is all that the books hold, in numbers: equal ones show that nothing was
// written down in between.
func inventory(m *BackgroundManager) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[string]int{
		"tasks": len(m.tasks), "ids": len(m.byID), "sessions": len(m.bySession), "live": m.live,
		"mailboxes": len(m.mailboxes), "roots": len(m.roots), "queues": len(m.queues()), "limits": len(m.limits()),
		"waiters": len(m.waiters), "attempts": len(m.attempts), "deadlines": m.deadlines.Len(), "seq": int(m.seq),
		"global": m.global.held, "starts": m.starts.held, "routines": m.routines,
	}
	for _, q := range m.queues() {
		n["waiting"] += q.all.n
	}
	for _, s := range m.limits() {
		n["held"] += s.held
		n["refs"] += s.refs
	}
	for _, r := range m.roots {
		n["root live"] += r.live
		n["root total"] += r.total
	}
	for _, b := range m.mailboxes {
		n["children"] += len(b.children) + len(b.adopted)
		n["owed"] += len(b.ended)
	}
	return n
}
