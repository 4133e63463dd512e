package subagent

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// C262: a cancel that is meant for one run has no effect on another.
func TestCancelOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		resume(t, m, one.ID, "1h")
		pass(time.Second)
		now, err := m.Cancel(t.Context(), one.ID, CancelOptions{Run: 1})
		require.ErrorIs(t, err, ErrEnded)
		require.Equal(t, Running, now.Status)
		for _, run := range []int{3, -1} {
			now, err := m.Cancel(t.Context(), one.ID, CancelOptions{Run: run})
			wrong("CancelOptions.Run", strconv.Itoa(run), "must be 0 or a run that has begun: the task is in run 2")(t, err)
			require.Equal(t, Running, now.Status)
		}
		now, err = m.Cancel(t.Context(), one.ID, CancelOptions{Run: 2})
		require.NoError(t, err)
		require.Equal(t, Cancelled, now.Status)
		_, err = m.CancelAll(t.Context(), Filter{Parent: "p"}, CancelOptions{Run: 1})
		wrong("CancelOptions.Run", "1", "is for Cancel only: of many tasks each has runs of its own")(t, err)
	})
}

// C133: a resume against a cancel, at the same time: whichever comes second is refused, or
// stops the new run; either way one ending per run.
func TestResumeAgainstCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			box := &inbox{}
			m := newManager(t, timed(), Config{Notifier: box})
			one := launch(t, m, taking("p", "1s"))
			pass(time.Minute)
			type result struct {
				task Task
				err  error
			}
			resumed, cancelled := make(chan result, 1), make(chan result, 1)
			go func() {
				task, err := m.Resume(context.Background(), one.ID, ResumeInput{Prompt: "2s"})
				resumed <- result{task, err}
			}()
			go func() {
				task, err := m.Cancel(context.Background(), one.ID, CancelOptions{})
				cancelled <- result{task, err}
			}()
			r, c := <-resumed, <-cancelled
			require.NoError(t, r.err)
			pass(time.Minute)
			now := get(t, m, one.ID)
			require.Equal(t, 2, now.Run)
			if c.err == nil {
				require.Equal(t, Cancelled, now.Status)
				require.Equal(t, 2, c.task.Run)
			} else {
				require.ErrorIs(t, c.err, ErrEnded)
				require.Equal(t, 1, c.task.Run)
				require.Equal(t, Completed, now.Status)
			}
			require.Equal(t, []TaskID{one.ID, one.ID}, toldTo("p", box.all()))
			require.NoError(t, m.Close())
		}
	})
}

// C127: the events of a second run: it stands in line again, and has no session created.
func TestEventsOfASecondRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		created := 0
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Hooks: Hooks{SessionCreated: func(context.Context, Task) { created++ }}})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		l := listen(t, m, Filter{Parent: "p"})
		resume(t, m, one.ID, "1s")
		pass(time.Minute)
		require.Equal(t, []string{"pending", "starting", "running", "completed", "(told)"}, l.of(one.ID))
		require.Equal(t, 1, created)
	})
}

// 136: what the parent was like when it resumed is what its next notification says.
func TestResumeWithParentContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		in := taking("p", "1s")
		in.ParentContext.Model = "a/one"
		one := launch(t, m, in)
		pass(time.Minute)
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", ParentContext: ParentContext{Model: "a/two"}})
		require.NoError(t, err)
		pass(time.Minute)
		require.Equal(t, "a/one", box.all()[0].Context.Model)
		require.Equal(t, "a/two", box.all()[1].Context.Model)
	})
}

// L15 over a host that does not wait: what it said to the first prompt does not end the
// second one's turn.
func TestBlockingSecondRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, wholeAnswer)
		h.is(task.Session, HostIdle)
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, task.ID).Status)
		h.says(task.Session, Answer{}) // of the second prompt there is nothing yet
		resume(t, m, task.ID, "more")
		pass(10 * time.Second)
		require.Equal(t, Running, get(t, m, task.ID).Status, "it rests, and has said nothing to this prompt")
		h.is(task.Session, HostBusy)
		pass(10 * time.Second)
		h.says(task.Session, Answer{Text: "and more", Evidence: true})
		h.is(task.Session, HostIdle)
		pass(time.Minute)
		require.Equal(t, "and more", get(t, m, task.ID).Result.Text)
		require.Equal(t, 2, get(t, m, task.ID).Result.Run)
	})
}

// A parent that idles while it is being told, and is found busy by that, is told at once
// when the answer is there.
func TestIdleWhileBeingTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(_ Notification, call int) (Delivery, error) {
			if call == 1 {
				time.Sleep(2 * time.Second) // it looked, and the parent was busy; then it idles
				return Busy, nil
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(2 * time.Second)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(2 * time.Second)
		require.Len(t, box.all(), 2)
		require.Zero(t, m.Pending("p"))
	})
}

// L22: a host that tells of an idling with each call, and is busy, is not called in a loop.
func TestIdlingWithEachCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		box := &answering{answer: func(n Notification, call int) (Delivery, error) {
			m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
			if n.Handover == HandDeposit || call > 500 { // so that a loop ends
				return Accepted, nil
			}
			return Busy, nil
		}}
		m = newManager(t, timed(), Config{Notifier: box})
		launch(t, m, taking("p", "1s"))
		pass(10 * time.Minute)
		require.Less(t, len(box.all()), 60, "two calls for each of its times, at most")
		require.True(t, m.Pending("p").Wake)
	})
}

// A deposit that has arrived although its answer was lost still has its turn to come.
func TestDepositFoundLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &checking{has: func(int) (bool, error) { return true, nil }}
		p.answer = func(n Notification, _ int) (Delivery, error) {
			switch n.Handover {
			case HandOffer:
				return Busy, nil
			case HandDeposit:
				return Unknown, errNoLine
			}
			return Accepted, nil
		}
		m := newManager(t, timed(), Config{Notifier: p, Mailbox: MailboxPolicy{BusyMax: time.Second}})
		launch(t, m, taking("p", "1s"))
		pass(time.Hour)
		hands := p.hands()
		require.Equal(t, []string{"deposit", "wake+turn"}, hands[len(hands)-2:])
		require.Zero(t, m.Pending("p"))
	})
}

var errNoLine = errors.New("no line")

// C264: an event for a session whose task was forgotten changes nothing and is forgotten too.
func TestEventForTheForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Retention: Retention{Age: time.Minute}})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, one.ID).Session
		pass(time.Hour)
		before := inventory(m)
		for k := EventActivity; k < numEventKinds; k++ {
			m.HandleEvent(SessionEvent{Session: session, Kind: k, Err: errNoLine})
			m.HandleEvent(SessionEvent{Session: "p", Kind: k, Err: errNoLine})
		}
		require.Equal(t, before, inventory(m))
		require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
	})
}

// A task without a parent that goes on counts with what it has left running.
func TestRootOfTheParentless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Spawn: SpawnLimits{LivePerRoot: 2}})
		in := taking("", "1s")
		in.NoNotice = true
		top := launch(t, m, in)
		synctest.Wait()
		session := get(t, m, top.ID).Session
		launch(t, m, taking(session, "1h"))
		pass(time.Minute)
		resume(t, m, top.ID, "1h") // 2 live: it, and what it left running
		_, err := m.Launch(t.Context(), taking(session, "1h"))
		require.ErrorIs(t, err, ErrSpawnLimit)
	})
}

// How often it was passed in its queue counts for one run.
func TestPassesEndWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		m.mu.Lock()
		m.byID[one.ID].passes, m.byID[one.ID].late = maxPasses, maxPasses // as by 64 others
		m.mu.Unlock()
		resume(t, m, one.ID, "1h")
		m.mu.Lock()
		defer m.mu.Unlock()
		require.Zero(t, m.byID[one.ID].passes)
		require.Zero(t, m.byID[one.ID].late)
	})
}

// abortsLate is a host whose turns end half a second after the call of their Abort, and
// half a second before that returns.
func abortsLate() *stub {
	stop := map[SessionID]chan struct{}{}
	c := &stub{}
	c.create = func(context.Context, CreateRequest) (SessionID, error) {
		id := c.id()
		stop[id] = make(chan struct{})
		return id, nil
	}
	c.prompt = func(_ context.Context, id SessionID, _ Prompt) (Result, error) {
		<-stop[id]
		time.Sleep(500 * time.Millisecond)
		return Result{}, &SessionError{Op: "prompt", Class: ClassAborted}
	}
	c.abort = func(_ context.Context, id SessionID) error {
		close(stop[id])
		time.Sleep(time.Second)
		return nil
	}
	return c
}

// CancelAll waits for the Aborts of all that it was called for, also of those that their
// ancestor took along, and a Cancel for that of a task which was being stopped already.
func TestCancelWaitsForAbortsOfOthers(t *testing.T) {
	for name, cancel := range map[string]func(m *BackgroundManager, top, below TaskID) error{
		"taken along by its ancestor": func(m *BackgroundManager, _, _ TaskID) error {
			tasks, err := m.CancelAll(context.Background(), Filter{Under: "p"}, CancelOptions{})
			if len(tasks) != 2 {
				return errors.New("not both")
			}
			return err
		},
		"being stopped already": func(m *BackgroundManager, top, below TaskID) error {
			go func() { _, _ = m.Cancel(context.Background(), top, CancelOptions{}) }()
			time.Sleep(time.Millisecond)
			if _, err := m.Cancel(context.Background(), below, CancelOptions{}); !errors.Is(err, ErrEnded) {
				return err
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, abortsLate(), Config{})
				top := launch(t, m, work("p"))
				synctest.Wait()
				below := launch(t, m, work(get(t, m, top.ID).Session))
				synctest.Wait()
				require.NoError(t, cancel(m, top.ID, below.ID))
				m.mu.Lock()
				defer m.mu.Unlock()
				require.NoError(t, m.canResumeLocked(m.byID[below.ID], false))
			})
		})
	}
}
