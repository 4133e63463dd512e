package subagent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// 186: a read takes nothing away; with a cursor there is only what is new.
func TestOutputDoesNotConsume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := conversation(3)
		m, task := talked(t, &all)
		first := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.Equal(t, "answer", first.Task.Result.Text)
		require.Equal(t, []string{"m1", "m2", "m3"}, messageIDs(first))
		require.Equal(t, "m3", first.Cursor)
		require.Equal(t, first, output(t, m, task.ID, OutputQuery{Transcript: true}))
		for range 2 {
			next := output(t, m, task.ID, OutputQuery{Transcript: true, Since: first.Cursor})
			require.Empty(t, next.Messages)
			require.Equal(t, "m3", next.Cursor, "it can be read on from there")
			require.Equal(t, "answer", next.Task.Result.Text)
		}
		all = conversation(5)
		next := output(t, m, task.ID, OutputQuery{Transcript: true, Since: first.Cursor})
		require.Equal(t, []string{"m4", "m5"}, messageIDs(next))
		require.False(t, next.More)
		require.Empty(t, output(t, m, task.ID, OutputQuery{}).Messages, "nobody asked for them")
	})
}

// 187, C164: a waiter is woken by the event, whether the task waits in its queue at first
// or runs. C161: all of them are.
func TestOutputWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, taking("p", "1001ms"))
		queued := launch(t, m, taking("p", "1003ms"))
		require.Equal(t, Pending, queued.Status)
		began := time.Now()
		var g sync.WaitGroup
		for range 2 {
			g.Go(func() {
				o, err := m.Output(t.Context(), queued.ID, OutputQuery{Wait: time.Minute})
				require.NoError(t, err)
				require.Equal(t, Completed, o.Task.Status)
				require.False(t, o.TimedOut)
				require.Equal(t, 1001*time.Millisecond, o.Waited)
				require.Equal(t, 1003*time.Millisecond, o.Ran)
				require.Equal(t, 2004*time.Millisecond, time.Since(began))
			})
		}
		g.Wait()
	})
}

// 188, 191, C162, C166: a wait that has passed is no error, says so and touches nothing;
// another goes on. One that is too long is cut.
func TestOutputTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := timed()
		m := newManager(t, client, Config{})
		task := launch(t, m, taking("p", "1h"))
		began := time.Now()
		for _, c := range []struct{ wait, took time.Duration }{
			{0, 0}, {time.Millisecond, time.Millisecond}, {24 * time.Hour, 10 * time.Minute},
		} {
			at := time.Now()
			o := output(t, m, task.ID, OutputQuery{Wait: c.wait})
			require.Equal(t, c.took, time.Since(at))
			require.Equal(t, c.wait > 0, o.TimedOut)
			require.Equal(t, time.Since(began), o.Ran)
			require.False(t, o.Task.Status.Terminal())
		}
		require.Zero(t, client.aborts.Load())
		ended, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, Completed, ended.Status)
		o := output(t, m, task.ID, OutputQuery{Wait: time.Hour})
		require.False(t, o.TimedOut)
		require.Equal(t, time.Hour, o.Ran, "it is as it ended")
	})
}

// A context that ends first is the error, beside the task as it is.
func TestOutputGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := &talking{stub: timed()}
		m := newManager(t, reader, Config{})
		task := launch(t, m, taking("p", "1h"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o, err := m.Output(ctx, task.ID, OutputQuery{Wait: time.Minute, Transcript: true, Since: "m1"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, Running, o.Task.Status)
		require.False(t, o.TimedOut)
		require.Equal(t, "m1", o.Cursor)
		require.ErrorIs(t, o.TranscriptErr, context.DeadlineExceeded)
		require.NotContains(t, o.String(), "There are no messages", "nobody has looked")
		require.Zero(t, reader.calls.Load())

		o, err = m.Output(ctx, task.ID, OutputQuery{Transcript: true})
		require.NoError(t, err, "the record needs no time")
		require.ErrorIs(t, o.TranscriptErr, context.DeadlineExceeded)
		require.Zero(t, reader.calls.Load())
		require.Nil(t, m.byID[task.ID].said)
	})
}

// 189: the wait and the run end in the same instant. Whatever comes first, what is said
// fits together, and a run that had ended when the wait was over has ended.
func TestOutputEndsWithItsWait(t *testing.T) {
	seen := map[bool]int{}
	for range 500 {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, timed(), Config{})
			task := launch(t, m, taking("p", "1s"))
			o, err := m.As("p").Output(t.Context(), task.ID, OutputQuery{Wait: time.Second})
			require.NoError(t, err)
			require.Equal(t, o.TimedOut, !o.Task.Status.Terminal())
			seen[o.TimedOut]++
			synctest.Wait()
			require.Equal(t, !o.TimedOut, m.Stats().Notices.Read == 1, "what was not shown is told")
		})
	}
	t.Logf("timed out: %v", seen)

	synctest.Test(t, func(t *testing.T) { // a wait that is over, of a run that is too
		m := newManager(t, timed(), Config{})
		task := launch(t, m, taking("p", "1s"))
		m.mu.Lock()
		found := m.byID[task.ID]
		e := m.endingLocked(found)
		m.mu.Unlock()
		_, live, _ := m.still(host, found, e)
		require.True(t, live)
		pass(time.Second)
		_, live, _ = m.still(host, found, e)
		require.False(t, live)
	})
}

// What is wrong with a query is said, and nothing is read.
func TestOutputRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, task := talked(t, nil)
		for _, q := range []OutputQuery{{Wait: -1}, {Wait: 10}, {Limit: -1}, {Timeout: -1}, {Timeout: time.Microsecond}} {
			var input *InputError
			o, err := m.Output(t.Context(), task.ID, q)
			require.ErrorAs(t, err, &input, "%+v", q)
			require.Zero(t, o)
		}
		_, err := m.Output(t.Context(), "bg_none", OutputQuery{})
		require.EqualError(t, err, `subagent: no such task: "bg_none"`)
		_, err = m.Output(t.Context(), "bg_none", OutputQuery{Wait: time.Hour, Transcript: true})
		require.EqualError(t, err, `subagent: no such task: "bg_none"`)
	})
}

// 192, 193: which messages there are, out of how many, and whether older ones are left
// out; also of a client that returns more than it was asked for.
func TestOutputChoosesMessages(t *testing.T) {
	const many = 450
	for _, c := range []struct {
		since        string
		limit        int
		first, count int
		more         bool
		calls        int64
		unknown      bool
	}{
		{"", 0, 351, 100, true, 1, false},
		{"", 3, 448, 3, true, 1, false},
		{"", 200, 251, 200, true, 1, false},
		{"", 1000, 251, 200, true, 1, false},
		{"m449", 5, 450, 1, false, 1, false},
		{"m445", 5, 446, 5, false, 1, false},
		{"m444", 5, 446, 5, true, 2, false},
		{"m1", 0, 351, 100, true, 2, false},
		{"m450", 0, 451, 0, false, 1, false},
		{"m0", 0, 0, 0, false, 2, true},
	} {
		for _, obedient := range []bool{true, false} {
			t.Run(fmt.Sprintf("since %q, %d/%v", c.since, c.limit, obedient), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					all := conversation(many)
					m, task := talked(t, &all)
					client := m.client.(*talking)
					if !obedient {
						client.said = func(context.Context, SessionID, TranscriptQuery) ([]Message, error) { return all, nil }
					}
					o := output(t, m, task.ID, OutputQuery{Transcript: true, Since: c.since, Limit: c.limit})
					if obedient {
						require.Equal(t, c.calls, client.calls.Load())
					}
					require.Len(t, o.Messages, c.count)
					require.Equal(t, c.more, o.More)
					for i, message := range o.Messages {
						require.Equal(t, "m"+strconv.Itoa(c.first+i), message.ID)
					}
					var input *InputError
					require.Equal(t, c.unknown, errors.As(o.TranscriptErr, &input))
					require.Equal(t, "answer", o.Task.Result.Text, "it is there in any case")
					want := "m450"
					if c.unknown {
						want = "m0"
						require.EqualError(t, input, `subagent: OutputQuery.Since is "m0": must be the id of a message of the task's session`)
					}
					require.Equal(t, want, o.Cursor)
				})
			})
		}
	}
}

// The last message may still grow while the run goes on: then it is read again.
func TestOutputCursorOfWhatGrows(t *testing.T) {
	whole, part, asked := Message{ID: "a", Role: RoleAssistant, Complete: true}, Message{ID: "b", Role: RoleAssistant}, Message{ID: "c", Role: RoleUser}
	for _, c := range []struct {
		said  []Message
		ended bool
		want  string
	}{
		{nil, false, "since"}, {[]Message{part}, false, "since"}, {[]Message{part}, true, "b"},
		{[]Message{whole, part}, false, "a"}, {[]Message{whole, part}, true, "b"},
		{[]Message{part, whole}, false, "a"}, {[]Message{whole, asked}, false, "c"},
		{[]Message{whole, part, asked}, false, "a"}, {[]Message{whole, part, asked}, true, "c"}, {[]Message{part, asked, asked}, false, "since"},
	} {
		require.Equal(t, c.want, cursor(c.said, "since", c.ended))
	}
}

// 194: thoughts and tools are left out, or cut; what a tool was called with is text.
func TestOutputDetails(t *testing.T) {
	long := strings.Repeat("é", 2001)
	cut := strings.Repeat("é", 1999) + "…"
	synctest.Test(t, func(t *testing.T) {
		all := []Message{{ID: "m1", Role: RoleAssistant, Complete: true, Text: long, Thoughts: long, Tools: []ToolCall{
			{ID: "1", Name: "text", Input: long}, {Name: "data", Input: map[string]any{"b": 1, "a": "<"}},
			{Name: "much", Input: []string{strings.Repeat("x", 3000)}}, {Name: "none"}, {Name: "unfit", Input: func() {}}, {Name: "short", Input: "as it is"},
		}}}
		m, task := talked(t, &all)
		o := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.Equal(t, []Message{{ID: "m1", Role: RoleAssistant, Complete: true, Text: long}}, o.Messages)
		o = output(t, m, task.ID, OutputQuery{Transcript: true, Thoughts: true, Tools: true})
		require.Equal(t, cut, o.Messages[0].Thoughts)
		var inputs []any
		for _, call := range o.Messages[0].Tools {
			inputs = append(inputs, call.Input)
		}
		require.Equal(t, []any{cut, `{"a":"\u003c","b":1}`, `["` + strings.Repeat("x", 1997) + "…", nil, nil, "as it is"}, inputs)
		require.Equal(t, long[:4000], cutRunes(long[:4000], detailRunes), "just what is allowed")

		// It is the caller's own: the host's is as it was.
		o.Messages[0].Tools[0].Name, o.Messages[0].Text = "changed", "changed"
		o.Task.Attempts[0].Number = 7
		require.Equal(t, "text", all[0].Tools[0].Name)
		require.Equal(t, long, all[0].Tools[0].Input)
		again := output(t, m, task.ID, OutputQuery{Transcript: true, Tools: true})
		require.Equal(t, "text", again.Messages[0].Tools[0].Name)
		require.Equal(t, 1, again.Task.Attempts[0].Number)
	})
}

// A task that waits, or whose session could not be made, has said nothing, and nobody is
// asked.
func TestOutputWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := &talking{stub: &stub{prompt: hang}}
		m := newManager(t, reader, Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, work("p"))
		task := launch(t, m, work("p"))
		synctest.Wait()
		o := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.NoError(t, o.TranscriptErr)
		require.Zero(t, o.Cursor)
		o = output(t, m, task.ID, OutputQuery{Transcript: true, Since: "m1"})
		require.Error(t, o.TranscriptErr)
		require.Zero(t, reader.calls.Load())
	})
}

// A client that can't read transcripts, or says so, costs the caller nothing else.
func TestOutputUnsupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, client := range []SessionClient{
			&stub{},
			&talking{stub: &stub{}, said: func(context.Context, SessionID, TranscriptQuery) ([]Message, error) {
				return nil, errors.ErrUnsupported
			}},
		} {
			m := newManager(t, client, Config{})
			task := launch(t, m, work("p"))
			synctest.Wait()
			o := output(t, m, task.ID, OutputQuery{Transcript: true})
			require.ErrorIs(t, o.TranscriptErr, errors.ErrUnsupported)
			require.Equal(t, "ok", o.Task.Result.Text)
			require.Contains(t, o.String(), "| ok\n")
			require.Contains(t, o.String(), "could not be read")
		}
	})
}

// After Close what is on the record can be read, and the client is asked no more.
func TestOutputAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := conversation(1)
		m, task := talked(t, &all)
		require.NoError(t, m.Close())
		o := output(t, m, task.ID, OutputQuery{Transcript: true, Wait: time.Minute})
		require.ErrorIs(t, o.TranscriptErr, ErrClosed)
		require.Equal(t, "answer", o.Task.Result.Text)
		require.Zero(t, m.client.(*talking).calls.Load())
	})
}

// talked is a manager whose only task has ended, with a transcript.
func talked(t *testing.T, all *[]Message) (*BackgroundManager, Task) {
	client := &talking{stub: &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { return Result{Text: "answer"}, nil }}}
	client.said = func(_ context.Context, _ SessionID, q TranscriptQuery) ([]Message, error) {
		return newest(*all, q), nil
	}
	m := newManager(t, client, Config{})
	task := launch(t, m, work("p"))
	synctest.Wait()
	return m, get(t, m, task.ID)
}

// conversation is so many messages: m1, m2 and so on.
func conversation(n int) (all []Message) {
	for i := range n {
		role := []Role{RoleUser, RoleAssistant}[i%2]
		all = append(all, Message{ID: "m" + strconv.Itoa(i+1), Role: role, Text: "text " + strconv.Itoa(i+1), Complete: true})
	}
	return all
}

func output(t *testing.T, m *BackgroundManager, id TaskID, q OutputQuery) Output {
	t.Helper()
	o, err := m.Output(t.Context(), id, q)
	require.NoError(t, err)
	return o
}

func messageIDs(o Output) (ids []string) {
	for _, m := range o.Messages {
		ids = append(ids, m.ID)
	}
	return ids
}

// A query that can't be is refused, in the words in which it was written.
func TestOutputQueryRefused(t *testing.T) {
	m := newManager(t, &stub{}, Config{})
	for _, c := range []struct {
		q                  OutputQuery
		field, value, rule string
	}{
		{OutputQuery{Wait: Off}, "Wait", "Off", "must be at least 1ms, or 0 for no wait"},
		{OutputQuery{Timeout: 5}, "Timeout", "5ns", "must be at least 1ms, or 0 for the default"},
		{OutputQuery{Limit: Off}, "Limit", "Off", "can't be negative; 0 is the default"},
		{OutputQuery{Limit: -2}, "Limit", "-2", "can't be negative; 0 is the default"},
	} {
		_, err := m.Output(t.Context(), "bg_1", c.q)
		wrong("OutputQuery."+c.field, c.value, c.rule)(t, err)
	}
}

// The last message of a child that was left running may still grow: reading on begins
// with it.
func TestCursorOfALeftRunningChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []Message{{ID: "u", Role: RoleUser, Text: "1h"}, {ID: "a", Role: RoleAssistant, Text: "half"}}
		m := newManager(t, &talking{stub: timed(), said: func(_ context.Context, _ SessionID, q TranscriptQuery) ([]Message, error) {
			return newest(all, q), nil
		}}, Config{})
		task := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
		require.NoError(t, err)
		o := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.Equal(t, Cancelled, o.Task.Status)
		require.Equal(t, "u", o.Cursor, "the rest is not said yet")
		pass(2 * time.Hour)
		all[1].Text = "half, and the rest"
		o = output(t, m, task.ID, OutputQuery{Transcript: true, Since: o.Cursor})
		require.Equal(t, []string{"a"}, messageIDs(o))
		require.Equal(t, "a", o.Cursor, "it is at rest, whether or not its host calls that complete")
	})
}

// So may that of a run which begins while the messages of the one before are read.
func TestCursorOfAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &talking{stub: timed(), said: func(context.Context, SessionID, TranscriptQuery) ([]Message, error) {
			time.Sleep(time.Second)
			return []Message{{ID: "a", Role: RoleAssistant, Complete: true}, {ID: "b", Role: RoleAssistant, Text: "half"}}, nil
		}}, Config{})
		task := launch(t, m, taking("p", "1s"))
		pass(2 * time.Second)
		go func() {
			time.Sleep(100 * time.Millisecond)
			_, _ = m.Resume(context.Background(), task.ID, ResumeInput{Prompt: "1h"})
		}()
		o := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.Equal(t, Completed, o.Task.Status)
		require.Equal(t, Running, get(t, m, task.ID).Status)
		require.Equal(t, "a", o.Cursor)
	})
}
