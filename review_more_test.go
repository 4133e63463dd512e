package subagent_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// ReasonCode's own comment: "errors.Is(task.Reason, subagent.StartTimeout) reads as it
// should". For a completed task, whose Reason is nil, it dereferences a nil pointer.
func TestReviewDocumentedReasonCheckPanics(t *testing.T) {
	m := reviewNew(t, &reviewClient{}, subagent.Config{})
	defer m.Close()
	task := reviewLaunch(t, m, reviewAsks("p", "work"))
	task, err := m.Wait(t.Context(), task.ID)
	require.NoError(t, err)
	require.Equal(t, subagent.Completed, task.Status)
	require.NotPanics(t, func() { require.False(t, errors.Is(task.Reason, subagent.StartTimeout)) })
}

// A call begins after Close has returned: between its transition and the call the
// attempt is in the log, and it does not look again. subagenttest.Client calls that a
// violation of the contract, and Close has listed a "prompt" that was not out.
func TestReviewPromptAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		var closed, after atomic.Bool
		slow := logHandler{func(to, _ string) {
			if to == "running" {
				<-let
			}
		}}
		c := &reviewClient{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			after.Store(closed.Load())
			return subagent.Result{Text: "ok"}, nil
		}}
		m := reviewNew(t, c, subagent.Config{Logger: slog.New(slow)})
		reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		err := m.Close()
		closed.Store(true)
		close(let)
		synctest.Wait()
		require.False(t, after.Load(), "Prompt was called after Close had returned %v", err)
	})
}

// docs/architecture.md: "Code of the host runs in attempts, in one delivery per parent,
// in Shutdown's release of sessions, and in the goroutine of whoever called." A log
// handler also runs in the timer's goroutine.
func TestReviewLogRunsInTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inTimer atomic.Bool
		where := logHandler{func(string, string) {
			if strings.Contains(string(debug.Stack()), "BackgroundManager).onTimer") {
				inTimer.Store(true)
			}
		}}
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{
			Logger: slog.New(where), Keys: subagent.KeyLimits{Default: 1}, Task: subagent.TaskLimits{QueueWait: time.Second},
		})
		defer m.Close()
		reviewLaunch(t, m, reviewAsks("p", "5s"))
		reviewLaunch(t, m, reviewAsks("p", "5s"))
		reviewPass(time.Minute)
		require.False(t, inTimer.Load())
	})
}

// Abort: "Nil means that no work of it goes on." Func forgets a turn with its session,
// and Close releases sessions whose children it could not stop.
func TestReviewFuncAbortAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		var running atomic.Bool
		c := subagent.Func(func(context.Context, subagent.Turn) (subagent.Result, error) {
			running.Store(true)
			<-let
			running.Store(false)
			return subagent.Result{Text: "ok"}, nil
		})
		id, err := c.Create(t.Context(), subagent.CreateRequest{})
		require.NoError(t, err)
		go c.Prompt(context.Background(), id, subagent.Prompt{})
		synctest.Wait()
		require.NoError(t, c.(subagent.Releaser).Release(t.Context(), id))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = c.Abort(ctx, id)
		require.True(t, err != nil || !running.Load(), "Abort says %v and the turn goes on", err)
	})
}

// Steer: "returns nil when the running turn will see the text". With Func nobody will,
// if the turn has looked for the last time; nobody is told, and the next turn of the
// session does not get it either.
func TestReviewFuncLosesASteer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		c := subagent.Func(func(_ context.Context, turn subagent.Turn) (subagent.Result, error) {
			for more := true; more; {
				select {
				case text := <-turn.Steered:
					seen = append(seen, text)
				default:
					more = false
				}
			}
			time.Sleep(time.Second) // the last step
			return subagent.Result{Text: "ok"}, nil
		})
		id, err := c.Create(t.Context(), subagent.CreateRequest{})
		require.NoError(t, err)
		go c.Prompt(context.Background(), id, subagent.Prompt{})
		synctest.Wait()
		err = c.(subagent.Steerer).Steer(t.Context(), id, "stop that")
		_, promptErr := c.Prompt(t.Context(), id, subagent.Prompt{}) // busy
		require.Error(t, promptErr)
		time.Sleep(2 * time.Second)
		_, promptErr = c.Prompt(t.Context(), id, subagent.Prompt{})
		require.NoError(t, promptErr)
		require.True(t, err != nil || len(seen) == 1, "Steer returned nil, and %q was seen", seen)
	})
}

// Every child of a completed task that ends later is a "final" notification of its
// own: the text says that all tasks have ended while others that the same parent will
// be told of go on, and the parent is woken for each.
func TestReviewInheritedChildrenAreNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := subagenttest.NewParent(t)
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{Notifier: p})
		defer m.Close()
		above := reviewLaunch(t, m, reviewAsks("p", "1s"))
		synctest.Wait()
		session := reviewGet(t, m, above.ID).Session
		for _, d := range []string{"10s", "20s", "30s"} {
			reviewLaunch(t, m, reviewAsks(session, d))
		}
		reviewPass(time.Minute)
		finals := 0
		for _, n := range p.Batches("p") {
			if n.Final {
				finals++
			}
		}
		require.Equal(t, 1, finals, "of one delegation; the first said that all had ended when three were going on")
	})
}

// Do ends, its child does not, and its error does not say so, as that of Cancel would.
func TestReviewDoHidesAnUnstoppedChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		m := reviewNew(t, subagent.Func(func(context.Context, subagent.Turn) (subagent.Result, error) {
			<-let
			return subagent.Result{Text: "at last"}, nil
		}), subagent.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Do(ctx, reviewAsks("p", "work"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, m.Stats().Unstopped)
		require.ErrorIs(t, err, subagent.ErrUnstopped)
	})
}
