package subagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// chatty is a child that is told what to report, through OnEvent, and ends when over
// is closed.
type chatty struct {
	stub
	on   chan func(SessionEvent)
	over chan struct{}
}

func newChatty() *chatty {
	c := &chatty{on: make(chan func(SessionEvent), 1), over: make(chan struct{})}
	c.prompt = func(ctx context.Context, _ SessionID, p Prompt) (Result, error) {
		c.on <- p.OnEvent
		select {
		case <-c.over:
			return Result{Text: "ok"}, nil
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	return c
}

func tool(id, name string, over bool) SessionEvent {
	return SessionEvent{Kind: EventTool, Tool: ToolCall{ID: id, Name: name, Over: over}}
}

// What the events of a turn add up to.
func TestProgress(t *testing.T) {
	for name, c := range map[string]struct {
		events []SessionEvent
		want   Progress
		status Status
	}{
		"nothing but activity": {[]SessionEvent{{Kind: EventActivity}}, Progress{}, Running},
		"an unknown kind":      {[]SessionEvent{{Kind: 99}}, Progress{}, Running},
		"text":                 {[]SessionEvent{{Kind: EventText, Text: "so"}}, Progress{}, Running},
		"a call in three reports counts once": {
			[]SessionEvent{tool("c1", "read", false), tool("c1", "read", false), tool("c1", "read", true)},
			Progress{ToolCalls: 1, LastTool: "read"}, Running,
		},
		"two calls, one over": {
			[]SessionEvent{tool("c1", "read", false), tool("c2", "grep", false), tool("c1", "", true)},
			Progress{ToolCalls: 2, OpenTools: 1, LastTool: "grep"}, Running,
		},
		"a call that is over does not begin again": {
			[]SessionEvent{tool("c1", "read", false), tool("c1", "read", true), tool("c1", "read", false)},
			Progress{ToolCalls: 1, LastTool: "read"}, Running,
		},
		"a call that is only heard of when it is over": {
			[]SessionEvent{tool("c1", "read", true)}, Progress{ToolCalls: 1, LastTool: "read"}, Running,
		},
		"a call that has failed is over": {
			[]SessionEvent{tool("c1", "read", false), {Kind: EventTool, Tool: ToolCall{ID: "c1", Failed: true}}}, Progress{ToolCalls: 1, LastTool: "read"}, Running,
		},
		"calls without an id": {
			[]SessionEvent{tool("", "read", false), tool("", "read", false)}, Progress{ToolCalls: 2, LastTool: "read"}, Running,
		},
		"steps by number": {
			[]SessionEvent{{Kind: EventStep, Step: 1}, {Kind: EventStep, Step: 2}, {Kind: EventStep, Step: 2}, {Kind: EventStep, Step: 1}},
			Progress{Steps: 2}, Running,
		},
		"usage is a running total": {
			[]SessionEvent{{Kind: EventUsage, Usage: Usage{InputTokens: 5}}, {Kind: EventUsage, Usage: Usage{InputTokens: 9, Cost: 0.1}}, {Kind: EventUsage, Usage: Usage{InputTokens: 9, Cost: 0.1}}},
			Progress{Usage: Usage{InputTokens: 9, Cost: 0.1}}, Running,
		},
		"a permission": {
			[]SessionEvent{{Kind: EventWaiting, Text: "bash: rm"}, {Kind: EventBusy}}, Progress{Waiting: "bash: rm"}, InputNeeded,
		},
		"a question without words": {[]SessionEvent{{Kind: EventQuestion}}, Progress{Waiting: "a question"}, InputNeeded},
		"an answered question": {
			[]SessionEvent{{Kind: EventQuestion, Text: "which?"}, {Kind: EventText}}, Progress{}, Running,
		},
		"asked again": {
			[]SessionEvent{{Kind: EventWaiting, Text: "a"}, {Kind: EventStep, Step: 1}, {Kind: EventWaiting, Text: "b"}},
			Progress{Steps: 1, Waiting: "b"}, InputNeeded,
		},
		"a retry": {[]SessionEvent{{Kind: EventRetrying, Text: "429"}}, Progress{Retrying: "429"}, Running},
		"a retry that went well": {
			[]SessionEvent{{Kind: EventRetrying, Text: "429"}, {Kind: EventBusy}}, Progress{}, Running,
		},
		"an error ends nothing": {[]SessionEvent{{Kind: EventFailed, Err: errors.New("x")}}, Progress{}, Running},
		"long words": {
			[]SessionEvent{{Kind: EventRetrying, Text: strings.Repeat("é", 500)}}, Progress{Retrying: strings.Repeat("é", 100)}, Running,
		},
	} {
		for _, door := range []string{"OnEvent", "HandleEvent"} {
			t.Run(name+", by "+door, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client := newChatty()
					m := newManager(t, client, Config{})
					task := launch(t, m, work("p"))
					tell := <-client.on
					task = get(t, m, task.ID)
					require.Zero(t, task.Progress)
					if door == "HandleEvent" {
						tell = func(e SessionEvent) { e.Session = task.Session; m.HandleEvent(e) }
					}
					time.Sleep(time.Second)
					for _, e := range c.events {
						tell(e)
						require.NoError(t, m.CheckBooks(nil, nil))
					}
					now := get(t, m, task.ID)
					c.want.LastActivity = time.Now()
					require.Equal(t, c.want, now.Progress)
					require.Equal(t, c.status, now.Status)
					close(client.over)
					synctest.Wait()
					now = get(t, m, task.ID)
					require.Equal(t, Completed, now.Status)
					require.Equal(t, "ok", now.Result.Text)
					want := c.want
					want.Waiting, want.Retrying = "", ""
					require.Equal(t, want, now.Progress, "what was heard stays on the record, but nothing is waited for")
				})
			})
		}
	}
}

// Events count between the call and the return of Prompt, for the attempt that they
// are of, and not once the outcome is fixed.
func TestEventsAreFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChatty()
		made := make(chan struct{})
		c.create = func(context.Context, CreateRequest) (SessionID, error) { <-made; return "ses_1", nil }
		c.abort = func(context.Context, SessionID) error { time.Sleep(time.Second); return nil }
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		early := SessionEvent{Session: "ses_1", Kind: EventText}
		m.HandleEvent(early)
		close(made)
		tell := <-c.on
		require.Zero(t, get(t, m, task.ID).Progress, "before the session was there")
		m.HandleEvent(SessionEvent{Session: "ses_1", Kind: EventIdle})
		require.Zero(t, get(t, m, task.ID).Progress, "an idle child is nothing to the manager")

		cancelled := make(chan struct{})
		go func() {
			defer close(cancelled)
			_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			require.NoError(t, err)
		}()
		synctest.Wait()
		require.Equal(t, Stopping, get(t, m, task.ID).Status)
		late := []SessionEvent{{Kind: EventText}, {Kind: EventWaiting}, tool("c1", "read", false), {Kind: EventUsage, Usage: Usage{InputTokens: 1}}}
		all := func() {
			for _, e := range late {
				tell(e)
				e.Session = "ses_1"
				m.HandleEvent(e)
			}
		}
		all()
		<-cancelled
		all()
		require.Zero(t, get(t, m, task.ID).Progress)
		require.Equal(t, Cancelled, get(t, m, task.ID).Status)
	})
}

// An event of a session that the manager does not know costs a look-up and nothing
// on the heap.
func TestForeignEventsAllocateNothing(t *testing.T) {
	m, err := New(&stub{}, Config{})
	require.NoError(t, err)
	defer m.Close()
	e := SessionEvent{Session: "somebody else's", Kind: EventText, Text: "…"}
	require.Zero(t, testing.AllocsPerRun(100, func() { m.HandleEvent(e) }))
}

// Scenario 157: the deletion of a session stops its task and all below it, and
// nothing else; what a deleted parent was owed is dropped, and counted.
func TestDeletedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, &stub{prompt: hang}, Config{Notifier: box})
		a, b, c := tree(t, m)
		other := launch(t, m, work("q"))
		synctest.Wait()
		a = get(t, m, a.ID)
		m.HandleEvent(SessionEvent{Session: a.Session, Kind: EventDeleted})
		pass(time.Minute)
		require.ErrorIs(t, get(t, m, a.ID).Reason, SessionDeleted)
		for _, id := range []TaskID{b.ID, c.ID} {
			require.ErrorIs(t, get(t, m, id).Reason, ParentGone)
		}
		require.Equal(t, Running, get(t, m, other.ID).Status)
		require.Len(t, box.all(), 1, "its parent is told of it")
		_, err := m.Launch(t.Context(), work(a.Session))
		require.ErrorIs(t, err, ErrParentEnded)
	})
}

func TestDeletedRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, &stub{prompt: hang}, Config{Notifier: box})
		a, b, _ := tree(t, m)
		ended := launch(t, m, work("p"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), ended.ID, CancelOptions{})
		require.NoError(t, err)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted})
		pass(time.Minute)
		require.ErrorIs(t, get(t, m, a.ID).Reason, ParentGone)
		require.ErrorIs(t, get(t, m, b.ID).Reason, ParentGone)
		require.Empty(t, box.all())
		require.Equal(t, 1, m.Stats().Notices.Dropped, "of the one that was owed; those that ended with it are told by nobody")
		require.Zero(t, m.Pending("p"))
		_, err = m.Launch(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrParentEnded)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted}) // again does no harm
	})
}

// A parent that is deleted while a call to it is out gets nothing more.
func TestDeletedWhileBeingTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		m := newManager(t, &stub{}, Config{Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) {
			calls++
			time.Sleep(time.Second)
			return Unknown, nil
		})})
		launch(t, m, work("p"))
		pass(500 * time.Millisecond)
		require.True(t, m.Pending("p").InFlight)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted})
		pass(time.Hour)
		require.Equal(t, 1, calls)
		require.Equal(t, 1, m.Stats().Notices.Dropped)
		require.Zero(t, m.Pending("p"))
	})
}

// The completed outcome of a deleted session stands; what it had left running stops.
func TestDeletedAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChatty()
		box := &inbox{}
		m := newManager(t, c, Config{Notifier: box})
		above := launch(t, m, work("p"))
		<-c.on
		session := get(t, m, above.ID).Session
		c.prompt = hang
		below := launch(t, m, work(session))
		synctest.Wait()
		lowest := launch(t, m, work(get(t, m, below.ID).Session))
		synctest.Wait()
		close(c.over)
		pass(time.Second)
		require.Equal(t, []TaskID{above.ID}, toldTo("p", box.all()))
		require.Equal(t, 1, m.Pending("p").Live, "of what it left running it will be told")
		m.HandleEvent(SessionEvent{Session: session, Kind: EventDeleted})
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, above.ID).Status)
		require.ErrorIs(t, get(t, m, below.ID).Reason, SessionDeleted)
		require.ErrorIs(t, get(t, m, lowest.ID).Reason, ParentGone)
		require.Equal(t, []TaskID{above.ID, below.ID}, toldTo("p", box.all()), "and is")
		require.True(t, box.all()[1].Final)
	})
}

// So does what one that has ended too had left running below it: its own notice has said
// that it goes on.
func TestDeletedAboveWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Retention: keepAll, Spawn: SpawnLimits{Depth: 4}})
		chain := []TaskID{}
		parent := SessionID("p")
		for _, takes := range []string{"1s", "2s", "1h", "1h"} {
			chain = append(chain, launch(t, m, taking(parent, takes)).ID)
			synctest.Wait()
			parent = get(t, m, chain[len(chain)-1]).Session
		}
		pass(10 * time.Second)
		require.Equal(t, 1, m.Pending("p").Live, "of what was left running it will be told")
		m.HandleEvent(event(get(t, m, chain[0]).Session, EventDeleted))
		pass(time.Minute)
		require.ErrorIs(t, get(t, m, chain[2]).Reason, SessionDeleted)
		require.ErrorIs(t, get(t, m, chain[3]).Reason, ParentGone)
		require.ElementsMatch(t, chain[:3], toldTo("p", box.all()))
		require.True(t, box.all()[len(box.all())-1].Final)
	})
}

// Scenario 168: a parent that was busy is told when it idles, once; scenario 171: the
// idling that follows our own delivery has nothing sent.
func TestIdleParentIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, calls := true, 0
		m := newManager(t, &stub{}, Config{
			Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) {
				calls++
				if busy {
					return Busy, nil
				}
				return Accepted, nil
			}),
			Mailbox: MailboxPolicy{Backoff: time.Hour, BackoffMax: time.Hour},
		})
		launch(t, m, work("p"))
		pass(time.Second)
		require.Equal(t, 1, calls)
		busy = false
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventBusy})
		synctest.Wait()
		require.Equal(t, 1, calls)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		synctest.Wait()
		require.Equal(t, 2, calls)
		require.Zero(t, m.Pending("p"))
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(time.Hour)
		require.Equal(t, 2, calls)
	})
}

// A client that is an EventSink gets the events of sessions that are known.
func TestEventSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{stub: stub{prompt: hang}}
		m := newManager(t, s, Config{})
		launch(t, m, work("p"))
		synctest.Wait()
		m.HandleEvent(SessionEvent{Session: "ses_1", Kind: EventIdle})
		m.HandleEvent(SessionEvent{Session: "unknown", Kind: EventIdle})
		m.HandleEvent(SessionEvent{Session: "ses_1", Kind: EventFailed}) // panics
		require.Equal(t, []SessionEvent{{Session: "ses_1", Kind: EventIdle}, {Session: "ses_1", Kind: EventFailed}}, s.got)
	})
}

type sink struct {
	stub
	got []SessionEvent
}

func (s *sink) HandleEvent(e SessionEvent) {
	s.got = append(s.got, e)
	if e.Kind == EventFailed {
		panic("sink")
	}
}

// A turn of very many calls is counted in bounded memory, also when the host never says
// that one is over.
func TestVeryManyCalls(t *testing.T) {
	for _, over := range []bool{true, false} {
		p := &progress{}
		for i := range 3 * callsKept {
			began, ended := tool(fmt.Sprint("call_", i), "read", false), tool(fmt.Sprint("call_", i), "read", true)
			p.toolCall(began)
			if over {
				p.toolCall(ended)
			}
		}
		require.Equal(t, 3*callsKept, p.begun)
		require.LessOrEqual(t, len(p.calls), callsKept)
	}
}
