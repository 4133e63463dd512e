package subagent_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// An Abort that overtakes its Prompt, as docs/architecture.md has it, with a host
// that only Abort can stop. Nothing was there to abort, so Abort is nil; 100 ms later
// the task has ended, its child "known to be at rest", and the lease is free, while
// the Prompt that will begin the turn is still out. Nobody aborts that turn any more:
// the second Abort comes only after the call has returned, which it never does.
func TestReviewOvertakenPromptRunsUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		stop := make(chan struct{})
		defer close(stop)
		c := &reviewClient{}
		c.prompt = func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			time.Sleep(time.Second) // on its way to the host
			most.Store(max(most.Load(), running.Add(1)))
			<-stop
			return subagent.Result{}, errors.New("stopped")
		}
		m := reviewNew(t, c, subagent.Config{Keys: subagent.KeyLimits{Default: 1}})
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		reviewLaunch(t, m, reviewAsks("p", "next"))
		_, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		reviewPass(time.Minute)
		seen := err != nil || reviewGet(t, m, task.ID).Attempts[0].Unstopped != nil || m.Stats().Unstopped > 0
		require.True(t, seen || most.Load() <= 1,
			"%d turns go on under a limit of 1, Cancel said %v, %d are listed as unstopped, and there was %d Abort",
			most.Load(), err, m.Stats().Unstopped, c.aborts.Load())
	})
}

// The same with Func: a turn whose task was stopped before it began is begun all the
// same, and one that does not listen is not "listed until it returns" (doc.go, Caveats).
func TestReviewFuncBeginsAStoppedTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began atomic.Bool
		let := make(chan struct{})
		defer close(let)
		deaf := func(context.Context, subagent.Turn) (subagent.Result, error) {
			began.Store(true)
			<-let
			return subagent.Result{Text: "at last"}, nil
		}
		// A log that takes its time is all that the race needs.
		slow := logHandler{func(to, _ string) {
			if to == "running" {
				time.Sleep(10 * time.Millisecond)
			}
		}}
		m := reviewNew(t, subagent.Func(deaf), subagent.Config{Logger: slog.New(slow)})
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		reviewPass(5 * time.Millisecond)
		require.Equal(t, subagent.Running, reviewGet(t, m, task.ID).Status)
		_, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		reviewPass(time.Minute)
		if began.Load() {
			require.Error(t, reviewGet(t, m, task.ID).Attempts[0].Unstopped, "it runs, Cancel returned %v, and nothing lists it", err)
		}
	})
}

// LeaveRunning: "it is marked unstopped until it ends". A turn that ends with an
// error has ended too; the mark stays for ever, and Close reports it.
func TestReviewLeftRunningEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, subagent.Func(func(context.Context, subagent.Turn) (subagent.Result, error) {
			time.Sleep(time.Minute)
			return subagent.Result{}, errors.New("no luck")
		}), subagent.Config{})
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{LeaveRunning: true})
		require.NoError(t, err)
		require.Equal(t, 1, m.Stats().Unstopped)
		reviewPass(time.Hour)
		require.Zero(t, m.Stats().Calls)
		require.Zero(t, m.Stats().Unstopped, "it ended an hour ago; Close says %v", m.Close())
	})
}

// "Prompt … ctx ends only after Abort returned or Config.AbortGrace passed." For a
// child that was left running it ends at Shutdown, at once and without an Abort: the
// line is cut and the turn in the host goes on, which an Abort would have stopped.
func TestReviewShutdownCutsWhatWasLeftRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var aborts atomic.Int64
		var atEnd atomic.Int64
		atEnd.Store(-1)
		c := &reviewClient{
			prompt: func(ctx context.Context, _ subagent.SessionID, _ subagent.Prompt) (subagent.Result, error) {
				<-ctx.Done()
				atEnd.Store(aborts.Load())
				return subagent.Result{}, ctx.Err()
			},
			abort: func(context.Context, subagent.SessionID) error { aborts.Add(1); return nil },
		}
		m := reviewNew(t, c, subagent.Config{})
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		_, _ = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{LeaveRunning: true})
		began := time.Now()
		err := m.Close()
		require.True(t, atEnd.Load() > 0 || time.Since(began) >= 10*time.Second,
			"the context ended after %v and %d Aborts; Close says %v", time.Since(began), atEnd.Load(), err)
	})
}

// The cause of a stopped Create's context is the record's own Reason, and not a copy:
// what the host writes to it, without any lock, stands in the books.
func TestReviewCauseIsTheRecordItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &reviewClient{create: func(ctx context.Context, _ subagent.CreateRequest) (subagent.SessionID, error) {
			<-ctx.Done()
			var r *subagent.Reason
			if errors.As(context.Cause(ctx), &r) {
				r.Code, r.Observed = subagent.Budget, "spoiled"
			}
			return "", ctx.Err()
		}}
		m := reviewNew(t, c, subagent.Config{})
		defer m.Close()
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, subagent.ByUser, "the task is now %s because of %v", ended.Status, ended.Reason)
	})
}

// "After ctx has ended it returns within two times Config.AbortGrace": it takes
// settleWait more, which TestCloseIsBounded knows and adds to its bound.
func TestReviewCloseTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		c := &reviewClient{
			prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
				<-let
				return subagent.Result{}, errors.New("late")
			},
			abort: func(context.Context, subagent.SessionID) error { <-let; return nil },
		}
		m := reviewNew(t, c, subagent.Config{})
		reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		began := time.Now()
		_ = m.Close()
		require.LessOrEqual(t, time.Since(began), 2*10*time.Second)
	})
}

// Cancel: "until the child is at rest, for Config.AbortGrace at most, its status is
// Stopping". An Abort that answers just in time makes it longer, with a grace below
// settleWait many times longer.
func TestReviewCancelTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		const grace = 10 * time.Millisecond
		c := &reviewClient{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			<-let
			return subagent.Result{}, errors.New("late")
		}}
		m := reviewNew(t, c, subagent.Config{AbortGrace: grace})
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		synctest.Wait()
		began := time.Now()
		_, _ = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.LessOrEqual(t, time.Since(began), grace)
	})
}

// A Release that failed is no call that is out, no child that may be running, and
// its error is worth more than nil.
func TestReviewFailedReleaseIsListedAsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &reviewClient{prompt: takes, release: func(context.Context, subagent.SessionID) error { return errors.New("disk full") }}
		m := reviewNew(t, c, subagent.Config{})
		reviewLaunch(t, m, reviewAsks("p", "1s"))
		reviewPass(time.Minute)
		err := m.Close()
		var unstopped *subagent.UnstoppedError
		if errors.As(err, &unstopped) {
			require.ErrorContains(t, unstopped.Calls[0].Err, "disk full", `Err is "nil if only the call is out", and none is: %v`, err)
		}
	})
}

// Guarantee 11: Close leaves "no goroutine but calls of the host that never return,
// which they list". The log is the host's too, is called in the goroutine of the timer,
// and is neither counted nor listed.
func TestReviewLogOfTheTimerIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		var inside atomic.Bool
		slow := logHandler{func(_, reason string) {
			if reason == string(subagent.QueueTimeout) {
				inside.Store(true)
				<-let
				inside.Store(false)
			}
		}}
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{
			Logger: slog.New(slow), Keys: subagent.KeyLimits{Default: 1}, Task: subagent.TaskLimits{QueueWait: time.Second},
		})
		reviewLaunch(t, m, reviewAsks("p", "5s"))
		reviewLaunch(t, m, reviewAsks("p", "5s"))
		reviewPass(time.Minute)
		err := m.Close()
		require.False(t, inside.Load() && err == nil, "a goroutine of the manager is still in the host's code, and Close says nil")
	})
}

// A cut falls on a rune's border at most three bytes back. With text that is not
// UTF-8, as a tool's binary output is, all of it may be lost.
func TestReviewCutLosesText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, &reviewClient{prompt: func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error) {
			return subagent.Result{Text: strings.Repeat("\x80", 2000)}, nil
		}}, subagent.Config{Task: subagent.TaskLimits{ResultBytes: 1000}})
		defer m.Close()
		task := reviewLaunch(t, m, reviewAsks("p", "work"))
		ended, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(ended.Result.Text), 997, "of %d bytes", ended.Result.Size)
	})
}
