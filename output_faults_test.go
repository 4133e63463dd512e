package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// spiteful is what a tool was called with, by a host that panics when it is looked at.
type spiteful struct{}

func (spiteful) MarshalJSON() ([]byte, error) { panic("looked at") }

// spitefulError is an error of a host that panics when it is read.
type spitefulError struct{}

func (spitefulError) Error() string { panic("read") }

// Whatever goes wrong with a transcript, the result is there, in bounded time, and it is
// said what went wrong.
func TestOutputOfFaultyTranscripts(t *testing.T) {
	var panicked *subagent.PanicError
	type action = subagenttest.Action
	for name, c := range map[string]struct {
		action action
		took   time.Duration
		is     func(error) bool
	}{
		"an error":                 {action{Err: errStorm}, 0, func(err error) bool { return errors.Is(err, errStorm) }},
		"an error that is hostile": {action{Err: spitefulError{}}, 0, func(err error) bool { return err != nil }},
		"absent after all":         {action{Err: fmt.Errorf("x: %w", errors.ErrUnsupported)}, 0, func(err error) bool { return errors.Is(err, errors.ErrUnsupported) }},
		"a panic":                  {action{Panic: errStorm}, 0, func(err error) bool { return errors.As(err, &panicked) }},
		"a panic of a tool's input": {action{Said: []subagent.Message{{ID: "a", Tools: []subagent.ToolCall{{Input: spiteful{}}}}}}, 0,
			func(err error) bool { return errors.As(err, &panicked) }},
		"runtime.Goexit":     {action{Panic: errExit}, 0, func(err error) bool { return errors.As(err, &panicked) }},
		"slow":               {action{Delay: 2999 * time.Millisecond}, 2999 * time.Millisecond, func(err error) bool { return err == nil }},
		"too slow":           {action{Delay: time.Hour}, 3 * time.Second, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"hangs, is deaf":     {action{Hang: true, Deaf: true}, 3 * time.Second, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"deaf, an error":     {action{Delay: time.Hour, Deaf: true, Err: errStorm}, 3 * time.Second, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"nothing goes wrong": {action{}, 0, func(err error) bool { return err == nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := subagenttest.NewClient(t, func(call subagenttest.Call) action {
					if call.Op != subagenttest.OpTranscript {
						return action{}
					}
					if c.action.Panic == errExit {
						runtime.Goexit()
					}
					return c.action
				})
				m, err := subagent.New(client, subagent.Config{})
				require.NoError(t, err)
				defer m.Close()
				task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
				require.NoError(t, err)
				synctest.Wait()
				for range 2 {
					began := time.Now()
					o, err := m.As("p").Output(t.Context(), task.ID, subagent.OutputQuery{Transcript: true, Tools: true, Timeout: 3 * time.Second})
					require.NoError(t, err)
					require.Equal(t, c.took, time.Since(began))
					require.True(t, c.is(o.TranscriptErr), "%T", o.TranscriptErr)
					require.Equal(t, "ok", o.Task.Result.Text)
					require.Contains(t, o.String(), "| ok\n")
					if o.TranscriptErr == nil {
						require.Len(t, o.Messages, 2)
						continue
					}
					require.Empty(t, o.Messages)
					require.Contains(t, o.String(), "Its messages could not be read: ")
				}
				client.Let()
			})
		})
	}
}

// The caller's context bounds the reading too.
func TestOutputTranscriptEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := subagenttest.NewClient(t, func(c subagenttest.Call) subagenttest.Action {
			return subagenttest.Action{Hang: c.Op == subagenttest.OpTranscript, Deaf: true}
		})
		m, err := subagent.New(client, subagent.Config{})
		require.NoError(t, err)
		defer m.Close()
		task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
		require.NoError(t, err)
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errStorm)
		defer cancel()
		began := time.Now()
		o, err := m.Output(ctx, task.ID, subagent.OutputQuery{Transcript: true, Timeout: time.Hour})
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, errStorm, o.TranscriptErr)
		require.Equal(t, 1, m.Stats().Calls, "it is still out")
		client.Let()
		synctest.Wait()
		require.Zero(t, m.Stats().Calls)
	})
}

// A reading that comes back when nobody waits for it any more asks for nothing else.
func TestOutputLateTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := subagenttest.NewClient(t, func(c subagenttest.Call) subagenttest.Action {
			if c.Op != subagenttest.OpTranscript {
				return subagenttest.Action{}
			}
			return subagenttest.Action{Delay: time.Minute, Deaf: true}
		})
		m, err := subagent.New(client, subagent.Config{})
		require.NoError(t, err)
		defer m.Close()
		task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
		require.NoError(t, err)
		synctest.Wait()
		o, err := m.Output(t.Context(), task.ID, subagent.OutputQuery{Transcript: true, Since: "unknown"})
		require.NoError(t, err)
		require.ErrorIs(t, o.TranscriptErr, context.DeadlineExceeded)
		time.Sleep(time.Hour)
		require.Equal(t, 1, client.Count(subagenttest.OpTranscript))
	})
}

// A reading that is out ends with the manager: who waits for it comes back at once, and
// Close lists it if it does not return.
func TestOutputAgainstClose(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client := subagenttest.NewClient(t, func(c subagenttest.Call) subagenttest.Action {
				return subagenttest.Action{Hang: c.Op == subagenttest.OpTranscript, Deaf: deaf}
			})
			m, err := subagent.New(client, subagent.Config{})
			require.NoError(t, err)
			task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
			require.NoError(t, err)
			synctest.Wait()
			task, _ = m.Get(task.ID)
			came := make(chan time.Time, 1)
			go func() {
				o, _ := m.Output(t.Context(), task.ID, subagent.OutputQuery{Transcript: true, Timeout: time.Hour})
				if errors.Is(o.TranscriptErr, subagent.ErrClosed) && o.Task.Result.Text == "ok" {
					came <- time.Now()
				}
			}()
			synctest.Wait()
			began := time.Now()
			err = m.Close()
			require.Equal(t, began, <-came)
			if !deaf {
				require.NoError(t, err)
				require.Equal(t, began, time.Now(), "nothing holds the end up")
				return
			}
			var unstopped *subagent.UnstoppedError
			require.ErrorAs(t, err, &unstopped)
			require.Equal(t, []subagent.UnstoppedCall{{Op: "transcript", Task: task.ID, Session: task.Session}}, unstopped.Calls)
			client.Let()
			synctest.Wait()
		})
	}
}
