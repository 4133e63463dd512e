package subagent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Children may finish until the context ends; pending tasks are cancelled; owed
// notices are delivered; then nothing is admitted, and all stays readable.
func TestShutdownInGoodOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Keys: KeyLimits{Default: 2}})
		short := launch(t, m, taking("p", "1s"))
		long := launch(t, m, taking("p", "1h"))
		waiting := launch(t, m, taking("p", "1s"))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		require.NoError(t, m.Shutdown(ctx))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, Completed, get(t, m, short.ID).Status)
		for _, id := range []TaskID{long.ID, waiting.ID} {
			require.Equal(t, Cancelled, get(t, m, id).Status)
			require.ErrorIs(t, get(t, m, id).Reason, ByShutdown)
		}
		told := 0
		for _, n := range box.all() {
			told += len(n.Notices)
		}
		require.Equal(t, 3, told)
		require.True(t, box.all()[len(box.all())-1].Final)

		_, err := m.Launch(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, m.CanLaunch(t.Context(), work("p")), ErrClosed)
		_, err = m.Reserve(t.Context(), "p")
		require.ErrorIs(t, err, ErrClosed)
		_, err = m.Acquire(t.Context(), Holder{Agent: "a"})
		require.ErrorIs(t, err, ErrClosed)
		require.Len(t, m.List(Filter{}), 3)
	})
}

// Scenario 203: many at once have one execution, and the first context to end
// counts.
func TestShutdownConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := honest()
		m := newManager(t, c, Config{})
		launch(t, m, taking("p", "1h"))
		synctest.Wait()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i+1)*time.Second)
				defer cancel()
				require.NoError(t, m.Shutdown(ctx))
			})
		}
		wg.Wait()
		require.Equal(t, time.Second+time.Millisecond, time.Since(began))
		require.EqualValues(t, 1, c.aborts.Load())
		require.NoError(t, m.Close(), "and again")
	})
}

// Scenario 201, L7: a session that is being made when the manager closes is
// stopped, never prompted, and given up.
func TestL07CloseDuringCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(5 * time.Second)
			return "ses_1", nil
		}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		require.NoError(t, m.Close())
		require.Equal(t, Cancelled, get(t, m, task.ID).Status)
		require.Zero(t, c.prompts.Load())
		require.EqualValues(t, 1, c.aborts.Load())
		_, released := c.released.Load(SessionID("ses_1"))
		require.True(t, released)
	})
}

// Calls that never return are listed; Close is bounded by two graces.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		c := &stub{
			prompt: func(context.Context, SessionID, Prompt) (Result, error) { <-let; return Result{}, errors.New("late") },
			abort:  func(context.Context, SessionID) error { <-let; return nil },
		}
		m, err := New(c, Config{Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) { <-let; return Accepted, nil })})
		require.NoError(t, err)
		task := launch(t, m, work("p"))
		synctest.Wait()
		began := time.Now()
		err = m.Close()
		require.LessOrEqual(t, time.Since(began), 20*time.Second)
		var unstopped *UnstoppedError
		require.ErrorAs(t, err, &unstopped)
		require.ErrorIs(t, err, ErrUnstopped)
		var ops []string
		for _, call := range unstopped.Calls {
			ops = append(ops, call.Op)
		}
		require.Equal(t, []string{"notify", "abort", "prompt"}, ops)
		require.Equal(t, task.ID, unstopped.Calls[1].Task)
		require.Contains(t, err.Error(), string(task.ID))
		require.Len(t, m.Pending("p").Notices, 1, "what was not told is still owed")
	})
}

// What no receiver took stays readable after Close.
func TestDrainAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) {
			tries.Add(1)
			return Busy, nil
		})})
		launch(t, m, taking("p", "1h"))
		synctest.Wait()
		require.NoError(t, m.Close())
		require.EqualValues(t, 1, tries.Load(), "one try")
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		require.True(t, n.Final)
		ack(true)
		require.Zero(t, m.Pending("p"))
		pass(time.Hour)
		require.EqualValues(t, 1, tries.Load())
	})
}

// A session that could not be given up is listed with the error.
func TestFailedReleaseIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("disk full")
		c := &stub{release: func(context.Context, SessionID) error { return full }}
		m := newManager(t, c, Config{})
		task, err := m.Do(t.Context(), work("p"))
		require.NoError(t, err)
		err = m.Close()
		var unstopped *UnstoppedError
		require.ErrorAs(t, err, &unstopped)
		require.Equal(t, []UnstoppedCall{{Op: "release", Task: task.ID, Session: task.Session, Err: full}}, unstopped.Calls)
		require.ErrorContains(t, err, "disk full")
	})
}

// Every session that is still kept is given up at the end.
func TestCloseReleasesSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		m := newManager(t, c, Config{})
		for range 40 {
			launch(t, m, taking("p", "1s"))
		}
		pass(time.Minute)
		require.NoError(t, m.Close())
		n := 0
		c.released.Range(func(any, any) bool { n++; return true })
		require.Equal(t, 40, n)
	})
}

// Scenario 202 and L26: who waits gets an answer.
func TestCloseAnswersWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}})
		running := launch(t, m, work("p"))
		waiting := launch(t, m, work("p"))
		var acquire error
		var statuses [2]Status
		var wg sync.WaitGroup
		wg.Go(func() { _, acquire = m.Acquire(context.Background(), Holder{Agent: "worker"}) })
		for i, id := range []TaskID{running.ID, waiting.ID} {
			wg.Go(func() {
				task, err := m.Wait(context.Background(), id)
				require.NoError(t, err)
				statuses[i] = task.Status
			})
		}
		synctest.Wait()
		require.NoError(t, m.Close())
		wg.Wait()
		require.ErrorIs(t, acquire, ErrClosed)
		require.Equal(t, [2]Status{Cancelled, Cancelled}, statuses)
	})
}

// Logs name tasks, statuses and reasons, and never what a model wrote; a handler
// that panics, or calls back, does no harm.
func TestLogging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var out strings.Builder
		var m *BackgroundManager
		handler := slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			_ = m.Stats()
			out.Write(p)
			if strings.Contains(string(p), "to=starting") {
				panic("handler")
			}
			return len(p), nil
		}), nil)
		m = newManager(t, Func(func(context.Context, Turn) (Result, error) {
			return Result{Text: "canary-result"}, errors.New("canary-error")
		}), Config{Logger: slog.New(handler)})
		in := work("p")
		in.Prompt, in.Description, in.System = "canary-prompt", "canary-description", "canary-system"
		task := launch(t, m, in)
		ended, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, Failed, ended.Status)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Contains(t, out.String(), "to=failed reason=session_error")
		require.NotContains(t, out.String(), "canary")
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A Release of a session that came too late, out when the manager is closed, is
// listed as a call that is out.
func TestLateReleaseIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		m, err := New(&deafRelease{let: let}, Config{Task: TaskLimits{Start: time.Second}})
		require.NoError(t, err)
		launch(t, m, work("root"))
		pass(time.Minute)
		var list *UnstoppedError
		require.True(t, errors.As(m.Close(), &list), "a Release is out")
		require.Equal(t, "release", list.Calls[0].Op)
	})
}

// deafRelease makes sessions late, and never comes back from their Release.
type deafRelease struct {
	stub
	let chan struct{}
}

func (d *deafRelease) Create(context.Context, CreateRequest) (SessionID, error) {
	time.Sleep(5 * time.Second)
	return "late", nil
}

func (d *deafRelease) Release(context.Context, SessionID) error {
	<-d.let
	return nil
}

// A delivery that Close has given up while it was in Render does not call Notify when
// Render comes back: nothing begins after Close has returned.
func TestNoNotifyAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, box := make(chan struct{}), &inbox{}
		m, err := New(&stub{}, Config{Notifier: box, Mailbox: MailboxPolicy{Render: func(Notification) string { <-let; return "told" }}})
		require.NoError(t, err)
		launch(t, m, work("root"))
		pass(time.Minute)
		require.ErrorIs(t, m.Close(), ErrUnstopped)
		close(let)
		synctest.Wait()
		require.Empty(t, box.all(), "Notify was called after Close had returned")
	})
}

// deafHost never comes back from an Abort, nor from a look at its sessions.
type deafHost struct {
	*slowHost
	let chan struct{}
}

func (h *deafHost) Abort(context.Context, SessionID) error { <-h.let; return nil }

func (h *deafHost) Statuses(context.Context, []SessionID) (map[SessionID]HostStatus, error) {
	<-h.let
	return nil, nil
}

// Close returns within twice the grace also where a host's polls have not come back.
func TestCloseIsBoundedByDeafPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &deafHost{slowHost: newSlowHost(), let: make(chan struct{})}
		defer close(h.let)
		c := Blocking(h, BlockingConfig{})
		m, err := New(c, Config{AbortGrace: time.Second})
		require.NoError(t, err)
		launch(t, m, work("p"))
		pass(5 * time.Minute)
		began := time.Now()
		require.ErrorIs(t, m.Close(), ErrUnstopped)
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}

// A pending task is cancelled at once, and takes along what its earlier run left running;
// others may finish.
func TestShutdownOfAResumedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: 1}, Retention: keepAll})
		above := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		in := taking(get(t, m, above.ID).Session, "1h")
		in.Model = "a/b"
		below := launch(t, m, in)
		pass(2 * time.Second)
		other := launch(t, m, taking("p", "1h"))
		require.Equal(t, Pending, resume(t, m, above.ID, "1s").Status)
		require.NoError(t, m.Shutdown(t.Context()))
		require.ErrorIs(t, get(t, m, above.ID).Reason, ByShutdown)
		require.ErrorIs(t, get(t, m, below.ID).Reason, ParentGone)
		require.Equal(t, Completed, get(t, m, other.ID).Status)
	})
}
