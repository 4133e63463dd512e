package subagent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// stub is a client whose calls are functions; nil ones succeed at once.
type stub struct {
	create  func(context.Context, CreateRequest) (SessionID, error)
	prompt  func(context.Context, SessionID, Prompt) (Result, error)
	abort   func(context.Context, SessionID) error
	release func(context.Context, SessionID) error

	n                        atomic.Int64
	creates, prompts, aborts atomic.Int64
	released                 sync.Map
}

func (s *stub) Create(ctx context.Context, req CreateRequest) (SessionID, error) {
	s.creates.Add(1)
	if s.create != nil {
		return s.create(ctx, req)
	}
	return s.id(), nil
}

func (s *stub) id() SessionID { return SessionID(fmt.Sprintf("ses_%d", s.n.Add(1))) }

func (s *stub) Prompt(ctx context.Context, id SessionID, p Prompt) (Result, error) {
	s.prompts.Add(1)
	if s.prompt != nil {
		return s.prompt(ctx, id, p)
	}
	return Result{Text: "ok"}, nil
}

func (s *stub) Abort(ctx context.Context, id SessionID) error {
	s.aborts.Add(1)
	if s.abort != nil {
		return s.abort(ctx, id)
	}
	return nil
}

func (s *stub) Release(ctx context.Context, id SessionID) error {
	s.released.Store(id, true)
	if s.release != nil {
		return s.release(ctx, id)
	}
	return nil
}

// honest is a host whose Abort returns when the turn has, as Abort should.
func honest() *stub {
	stop := make(chan struct{})
	gone := make(chan struct{})
	return &stub{
		prompt: func(context.Context, SessionID, Prompt) (Result, error) {
			<-stop
			defer close(gone)
			return Result{}, &SessionError{Op: "prompt", Class: ClassAborted}
		},
		abort: func(context.Context, SessionID) error {
			close(stop)
			<-gone
			time.Sleep(time.Millisecond)
			return nil
		},
	}
}

func hang(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
	<-ctx.Done()
	return Result{}, ctx.Err()
}

func work(parent SessionID) LaunchInput {
	return LaunchInput{Parent: parent, Agent: "worker", Prompt: "work", Description: "some work"}
}

func launch(t *testing.T, m *BackgroundManager, in LaunchInput) Task {
	t.Helper()
	task, err := m.Launch(t.Context(), in)
	require.NoError(t, err)
	return task
}

func get(t *testing.T, m *BackgroundManager, id TaskID) Task {
	t.Helper()
	task, err := m.Get(id)
	require.NoError(t, err)
	return task
}

// inbox is a Notifier that keeps what it gets.
type inbox struct {
	mu  sync.Mutex
	got []Notification
}

func (b *inbox) Notify(_ context.Context, n Notification) (Delivery, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, n)
	return Accepted, nil
}

func (b *inbox) all() []Notification {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Notification(nil), b.got...)
}

// Scenario 148.
func TestCancelPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, work("p"))
		waiting := launch(t, m, work("p"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), waiting.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, Cancelled, ended.Status)
		require.ErrorIs(t, ended.Reason, ByUser)
		require.Zero(t, ended.Attempt)
		require.EqualValues(t, 1, c.creates.Load(), "the client is never called for it")
	})
}

// Scenario 149.
func TestCancelRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := honest()
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, Cancelled, ended.Status)
		require.EqualValues(t, 1, c.aborts.Load())
		require.Empty(t, m.Stats().Keys, "the lease is back")
		require.Nil(t, ended.Attempts[0].Unstopped)
	})
}

// Scenario 151.
func TestTwoCancelsOneWinner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := honest(), &inbox{}
		m := newManager(t, c, Config{Notifier: box})
		task := launch(t, m, work("p"))
		synctest.Wait()
		var won, lost atomic.Int64
		for range 2 {
			go func() {
				ended, err := m.Cancel(context.Background(), task.ID, CancelOptions{})
				if err == nil {
					won.Add(1)
				} else if errors.Is(err, ErrEnded) && ended.Status == Cancelled {
					lost.Add(1)
				}
			}()
		}
		pass(5 * time.Second)
		require.EqualValues(t, 1, won.Load())
		require.EqualValues(t, 1, lost.Load(), "the loser sees how it ended")
		require.EqualValues(t, 1, c.aborts.Load())
		require.Len(t, box.all(), 1)
	})
}

// Scenario 152: the turn ends in the instant of the cancel, many times over; the
// status, what Cancel says and the notice agree.
func TestL04CancelAgainstCompletion(t *testing.T) {
	for i := range 200 {
		synctest.Test(t, func(t *testing.T) {
			box := &inbox{}
			c := &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) {
				time.Sleep(time.Second)
				return Result{Text: "done"}, nil
			}}
			m := newManager(t, c, Config{Notifier: box})
			task := launch(t, m, work("p"))
			time.Sleep(time.Second - time.Duration(i%3-1))
			ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			if err == nil {
				require.Equal(t, Cancelled, ended.Status)
			} else {
				require.ErrorIs(t, err, ErrEnded)
				require.Equal(t, Completed, ended.Status)
			}
			pass(time.Second)
			require.Equal(t, ended.Status, get(t, m, task.ID).Status, "an ending stays")
			require.Len(t, box.all(), 1)
			require.Equal(t, ended.Status, box.all()[0].Notices[0].Status)
		})
	}
}

// Scenario 153, and the two ways in which an abort can go wrong.
func TestCancelWhenAbortFails(t *testing.T) {
	for name, abort := range map[string]func(context.Context, SessionID) error{
		"error": func(context.Context, SessionID) error { return errors.New("no route") },
		"panic": func(context.Context, SessionID) error { panic("no route") },
		"hang":  func(ctx context.Context, _ SessionID) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, box := &stub{prompt: hang, abort: abort}, &inbox{}
				m := newManager(t, c, Config{Notifier: box})
				task := launch(t, m, work("p"))
				synctest.Wait()
				began := time.Now()
				ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
				require.ErrorIs(t, err, ErrUnstopped)
				require.Equal(t, Cancelled, ended.Status)
				require.Error(t, ended.Attempts[0].Unstopped)
				require.LessOrEqual(t, time.Since(began), 10*time.Second)
				require.Equal(t, 1, m.Stats().Unstopped)
				pass(time.Second)
				require.Len(t, box.all(), 1)
				require.True(t, box.all()[0].Notices[0].Unstopped)
				out, err := m.Output(t.Context(), task.ID, OutputQuery{})
				require.NoError(t, err)
				for where, text := range map[string]string{"told": box.all()[0].Text, "output": out.String(), "history": m.History("p")} {
					require.Contains(t, text, "; it may still be running", where)
				}
				n := box.all()[0].Notices[0]
				require.Contains(t, n.shortLine(), "; it may still be running")
				require.ErrorIs(t, m.Close(), ErrUnstopped)
			})
		})
	}
}

// A child whose abort failed, and whose turn then ends by itself, is known to be
// at rest after all: the mark goes.
func TestUnstoppedChildEndsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{
			prompt: func(context.Context, SessionID, Prompt) (Result, error) {
				time.Sleep(time.Minute)
				return Result{Text: "late"}, nil
			},
			abort: func(ctx context.Context, _ SessionID) error { <-ctx.Done(); return ctx.Err() },
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		task := launch(t, m, work("p"))
		next := launch(t, m, work("p"))
		pass(time.Second)
		began := time.Now()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
		require.Equal(t, 10*time.Second, time.Since(began), "bounded by the grace")
		synctest.Wait()
		require.Equal(t, Running, get(t, m, next.ID).Status, "the lease is free after the grace")
		pass(time.Minute)
		late := get(t, m, task.ID)
		require.Nil(t, late.Attempts[0].Unstopped)
		require.Equal(t, Cancelled, late.Status)
		require.Empty(t, late.Result.Text, "a late result is fenced off")
		require.Zero(t, m.Stats().Unstopped)
		require.NotContains(t, m.History("p"), "may still be running")
	})
}

// Scenario 154: the last child ends in silence, and the batch closes all the same.
func TestSilentCancelClosesBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		c := &stub{prompt: func(ctx context.Context, s SessionID, p Prompt) (Result, error) {
			if p.Text == "quick" {
				return Result{Text: "ok"}, nil
			}
			return hang(ctx, s, p)
		}}
		m := newManager(t, c, Config{Notifier: box})
		quick := work("p")
		quick.Prompt = "quick"
		launch(t, m, quick)
		long := launch(t, m, work("p"))
		pass(time.Second)
		require.Len(t, box.all(), 1)
		require.False(t, box.all()[0].Final)
		_, err := m.Cancel(t.Context(), long.ID, CancelOptions{Silent: true})
		require.NoError(t, err)
		pass(time.Second)
		require.Len(t, box.all(), 2)
		final := box.all()[1]
		require.True(t, final.Final)
		require.True(t, final.Wake)
		require.Empty(t, final.Notices)
		require.Len(t, final.Earlier, 1, "the final one can list what was told before")
	})
}

// Scenario 184.
func TestParentIsNotToldOfItsOwnCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, &stub{prompt: hang}, Config{Notifier: box})
		task := launch(t, m, work("p"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{Cause: ByParent})
		require.NoError(t, err)
		pass(time.Minute)
		require.Empty(t, box.all())
		require.Zero(t, m.Pending("p"))
	})
}

func TestCancelOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		running := launch(t, m, work("p"))
		pending := launch(t, m, work("p"))
		synctest.Wait()

		for _, cause := range []ReasonCode{Stalled, ParentGone, "none"} { // an ancestor's notice tells of ParentGone, and there is none
			_, err := m.Cancel(t.Context(), running.ID, CancelOptions{Cause: cause})
			var input *InputError
			require.ErrorAs(t, err, &input)
			require.Equal(t, "CancelOptions.Cause", input.Field)
			require.Equal(t, Running, get(t, m, running.ID).Status)
		}

		_, err := m.Cancel(t.Context(), "bg_none", CancelOptions{})
		require.ErrorIs(t, err, ErrNotFound)

		still, err := m.Cancel(t.Context(), running.ID, CancelOptions{OnlyPending: true})
		require.ErrorIs(t, err, ErrNotPending)
		require.Equal(t, Running, still.Status)

		ended, err := m.Cancel(t.Context(), pending.ID, CancelOptions{OnlyPending: true, Cause: Superseded})
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, Superseded)

		_, err = m.Cancel(t.Context(), pending.ID, CancelOptions{OnlyPending: true})
		require.ErrorIs(t, err, ErrEnded)
	})
}

// LeaveRunning ends the task at once, leaves the turn its context, and keeps the
// child listed until it ends by itself.
func TestCancelLeaveRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turnErr atomic.Value
		c := &stub{prompt: func(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
			time.Sleep(time.Minute)
			turnErr.Store(ctx.Err() == nil)
			return Result{Text: "done"}, nil
		}}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
		require.NoError(t, err, "as asked")
		require.Equal(t, Cancelled, ended.Status)
		require.Error(t, ended.Attempts[0].Unstopped)
		require.Zero(t, c.aborts.Load())
		require.Equal(t, 1, m.Stats().Unstopped)
		pass(2 * time.Minute)
		require.Equal(t, true, turnErr.Load())
		require.Zero(t, m.Stats().Unstopped)
	})
}

// A cancel whose own wait ends goes on; the task says where it is.
func TestCancelWaitIsBoundedByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang, abort: func(ctx context.Context, _ SessionID) error {
			time.Sleep(3 * time.Second)
			return nil
		}}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		now, err := m.Cancel(ctx, task.ID, CancelOptions{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, Stopping, now.Status)
		require.ErrorIs(t, now.Reason, ByUser, "the outcome is fixed")
		late, err := m.Cancel(t.Context(), task.ID, CancelOptions{Cause: Superseded})
		require.ErrorIs(t, err, ErrEnded)
		require.ErrorIs(t, late.Reason, ByUser)
	})
}

// Text that a stopped in-process child returns while it unwinds is kept.
func TestPartialResultIsKept(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, Func(untilStopped), Config{})
			task := launch(t, m, work("p"))
			synctest.Wait()
			ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			require.NoError(t, err)
			require.Equal(t, "so far", ended.Result.Text)
			require.True(t, ended.Result.Partial)
		})
	}
}

// tree launches three levels below "p", one child each, and returns them.
func tree(t *testing.T, m *BackgroundManager) (a, b, c Task) {
	a = launch(t, m, work("p"))
	synctest.Wait()
	b = launch(t, m, work(get(t, m, a.ID).Session))
	synctest.Wait()
	c = launch(t, m, work(get(t, m, b.ID).Session))
	synctest.Wait()
	return a, b, c
}

// Descendants of a stopped task stop with it, at the same time, and their parent
// is told once, by their ancestor's notice.
func TestCascade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		client := &stub{prompt: hang, abort: func(context.Context, SessionID) error {
			time.Sleep(time.Second)
			return nil
		}}
		m := newManager(t, client, Config{Notifier: box})
		a, b, c := tree(t, m)
		other := launch(t, m, work("q"))
		synctest.Wait()
		began := time.Now()
		_, err := m.Cancel(t.Context(), a.ID, CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 2*time.Second, time.Since(began), "two aborts of a second, for all at the same time")
		for _, id := range []TaskID{b.ID, c.ID} {
			task := get(t, m, id)
			require.Equal(t, Cancelled, task.Status)
			require.ErrorIs(t, task.Reason, ParentGone)
		}
		require.Equal(t, Running, get(t, m, other.ID).Status)
		pass(time.Minute)
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Notices, 1)
	})
}

// Scenario 158: below a task that is stopping nothing is launched.
func TestLaunchDuringCascade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &stub{prompt: hang, abort: func(context.Context, SessionID) error {
			time.Sleep(time.Second)
			return nil
		}}
		m := newManager(t, client, Config{})
		a := launch(t, m, work("p"))
		synctest.Wait()
		session := get(t, m, a.ID).Session
		go func() { _, _ = m.Cancel(context.Background(), a.ID, CancelOptions{}) }()
		synctest.Wait()
		_, err := m.Launch(t.Context(), work(session))
		require.ErrorIs(t, err, ErrParentEnded)
		pass(time.Minute)
		_, err = m.Launch(t.Context(), work(session))
		require.ErrorIs(t, err, ErrParentEnded)
	})
}

// A child that completes leaves its own children running and says so.
func TestCompletedTaskLeavesChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		gate := make(chan struct{})
		client := &stub{prompt: func(ctx context.Context, s SessionID, p Prompt) (Result, error) {
			if p.Text == "outer" {
				<-gate
				return Result{Text: "outer done"}, nil
			}
			time.Sleep(time.Hour)
			return Result{Text: "inner done"}, nil
		}}
		m := newManager(t, client, Config{Notifier: box, Retention: keepAll})
		in := work("p")
		in.Prompt = "outer"
		outer := launch(t, m, in)
		synctest.Wait()
		inner := launch(t, m, work(get(t, m, outer.ID).Session))
		synctest.Wait()
		close(gate)
		pass(time.Second)
		require.Equal(t, Completed, get(t, m, outer.ID).Status)
		require.Equal(t, 1, get(t, m, outer.ID).OpenChildren)
		require.Equal(t, 1, box.all()[0].Notices[0].Open)
		pass(2 * time.Hour)
		require.Equal(t, Completed, get(t, m, inner.ID).Status)
		last := box.all()[len(box.all())-1]
		require.Equal(t, SessionID("p"), last.Parent, "its parent has ended: the next ancestor is told")
		require.Equal(t, inner.ID, last.Notices[0].Task)
	})
}

// Scenario 156, and L18: all at the same time.
func TestL18CancelAllInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &stub{prompt: hang, abort: func(context.Context, SessionID) error {
			time.Sleep(time.Second)
			return nil
		}}
		m := newManager(t, client, Config{Keys: KeyLimits{Default: 4}})
		a, b, c := tree(t, m)
		var more []Task
		for range 4 {
			more = append(more, launch(t, m, work("p")))
		}
		stranger := launch(t, m, work("q"))
		began := time.Now()
		ended, err := m.CancelAll(t.Context(), Filter{Under: "p"}, CancelOptions{Cause: ByParent})
		require.NoError(t, err)
		require.Equal(t, 2*time.Second, time.Since(began), "two aborts of a second, for all at the same time")
		require.Len(t, ended, 7)
		for i, want := range append([]Task{a, b, c}, more...) {
			require.Equal(t, want.ID, ended[i].ID)
			require.Equal(t, Cancelled, ended[i].Status)
		}
		synctest.Wait()
		require.Equal(t, Running, get(t, m, stranger.ID).Status)

		left, err := m.CancelAll(t.Context(), Filter{Under: "p"}, CancelOptions{})
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// A task that completed and left children running does not shield them from a
// stop further up, nor may its session launch below a stopped ancestor.
func TestCascadeReachesPastCompletedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		client := &stub{prompt: func(ctx context.Context, s SessionID, p Prompt) (Result, error) {
			if p.Text == "middle" {
				<-gate
				return Result{Text: "done"}, nil
			}
			return hang(ctx, s, p)
		}}
		m := newManager(t, client, Config{})
		a := launch(t, m, work("p"))
		synctest.Wait()
		in := work(get(t, m, a.ID).Session)
		in.Prompt = "middle"
		b := launch(t, m, in)
		synctest.Wait()
		c := launch(t, m, work(get(t, m, b.ID).Session))
		synctest.Wait()
		close(gate)
		synctest.Wait()
		require.Equal(t, Completed, get(t, m, b.ID).Status)
		require.Equal(t, Running, get(t, m, c.ID).Status)
		_, err := m.Cancel(t.Context(), a.ID, CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.ErrorIs(t, get(t, m, c.ID).Reason, ParentGone)
		_, err = m.Launch(t.Context(), work(get(t, m, b.ID).Session))
		require.ErrorIs(t, err, ErrParentEnded)
	})
}

// A host whose code ends its goroutine fails one task, as a panic would.
func TestGoexitInTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []*stub{
			{create: func(context.Context, CreateRequest) (SessionID, error) { runtime.Goexit(); return "", nil }},
			{prompt: func(context.Context, SessionID, Prompt) (Result, error) { runtime.Goexit(); return Result{}, nil }},
		} {
			m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
			for range 2 {
				_, err := m.Do(t.Context(), work("p"))
				require.ErrorIs(t, err, Panicked)
			}
			require.NoError(t, m.Close())
		}
	})
}

// An abort that overtakes the prompt finds nothing to stop; the turn that begins
// behind it is aborted when its call has come back.
func TestAbortThatOvertakesThePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Bool
		c := &stub{
			prompt: func(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
				time.Sleep(1500 * time.Millisecond) // on its way to the host
				running.Store(true)
				<-ctx.Done()
				return Result{}, ctx.Err() // the line is cut; the turn goes on
			},
			abort: func(context.Context, SessionID) error { running.Store(false); return nil },
		}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, Cancelled, ended.Status)
		pass(time.Minute)
		require.False(t, running.Load())
		require.EqualValues(t, 3, c.aborts.Load(), "at once, while the call stays out, and when it has come back")
	})
}
