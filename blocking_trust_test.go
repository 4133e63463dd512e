package subagent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// An Abort that was under way before Prompt began is no proof that what Prompt then
// sent is at rest.
func TestBlockingAbortBeforePromptIsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.abort = func(_ context.Context, id SessionID) error {
			time.Sleep(time.Second)
			h.is(id, HostIdle)
			return nil
		}
		h.send = func(_ context.Context, id SessionID) error {
			time.Sleep(2 * time.Second)
			h.is(id, HostBusy)
			return nil
		}
		b := Blocking(h, BlockingConfig{})
		aborted := make(chan error, 1)
		go func() { aborted <- b.Abort(t.Context(), "ses_1") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := b.Prompt(ctx, "ses_1", Prompt{OnEvent: func(SessionEvent) {}})
		require.NoError(t, <-aborted)
		all, _ := h.Statuses(t.Context(), nil)
		var said *SessionError
		require.ErrorAs(t, err, &said)
		require.False(t, said.Class == ClassAborted && all["ses_1"] == HostBusy, "Prompt says that nothing of the turn goes on, and it does: %v", err)
	})
}

// laggingHost says where sessions were a second ago, unless it is asked now.
type laggingHost struct {
	*slowHost
	now atomic.Bool
}

func (h *laggingHost) Statuses(ctx context.Context, of []SessionID) (map[SessionID]HostStatus, error) {
	all, err := h.slowHost.Statuses(ctx, of)
	if !h.now.Load() {
		time.Sleep(time.Second)
	}
	return all, err
}

// A poll that was under way before the turn was aborted does not bring it back to life;
// and an event that comes late holds it up, and does not hide that it was aborted.
func TestBlockingLateSignAfterAbort(t *testing.T) {
	for name, c := range map[string]struct {
		late func(*BlockingClient)
		most time.Duration
	}{
		"poll":  {func(*BlockingClient) {}, 2 * time.Second},
		"event": {func(b *BlockingClient) { b.HandleEvent(event("ses_1", EventText)) }, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &laggingHost{slowHost: newSlowHost()}
				h.slowly(2 * time.Second)
				b := Blocking(h, BlockingConfig{})
				prompted := make(chan error, 1)
				go func() {
					_, err := b.Prompt(t.Context(), "ses_1", Prompt{OnEvent: func(SessionEvent) {}})
					prompted <- err
				}()
				time.Sleep(3 * time.Second)
				synctest.Wait() // the first poll has begun, and found it busy
				h.slowHost.is("ses_1", HostIdle)
				h.now.Store(true)
				require.NoError(t, b.Abort(t.Context(), "ses_1"))
				time.Sleep(500 * time.Millisecond)
				c.late(b)
				at := time.Now()
				var said *SessionError
				require.ErrorAs(t, <-prompted, &said)
				require.Equal(t, ClassAborted, said.Class)
				require.LessOrEqual(t, time.Since(at), c.most)
			})
		})
	}
}

// What a turn had said that was stopped is kept, although an event that came late hides that
// it rests.
func TestBlockingLateSignHidesNoText(t *testing.T) {
	for name, c := range map[string]struct {
		stops  bool
		unread error
		want   string
	}{"stopped": {stops: true, want: "so far"}, "not stopped": {}, "not read": {stops: true, unread: errors.New("no line")}} {
		synctest.Test(t, func(t *testing.T) {
			h := newSlowHost()
			b := Blocking(h, BlockingConfig{})
			ctx, cancel := context.WithCancel(t.Context())
			type turn struct {
				r   Result
				err error
			}
			over := make(chan turn, 1)
			go func() {
				r, err := b.Prompt(ctx, "ses_1", Prompt{OnEvent: func(SessionEvent) {}})
				over <- turn{r, err}
			}()
			synctest.Wait()
			h.says("ses_1", Answer{Text: "so far", Evidence: true, Unfinished: true})
			h.unreads(c.unread)
			b.HandleEvent(event("ses_1", EventText))
			h.is("ses_1", HostIdle)
			if c.stops {
				h.slowly(time.Second)
				require.NoError(t, b.Abort(t.Context(), "ses_1"))
				synctest.Wait()
				b.HandleEvent(event("ses_1", EventText)) // while the turn is looked at
			}
			cancel()
			got := <-over
			require.Equal(t, c.want, got.r.Text, name)
			var said *SessionError
			require.ErrorAs(t, got.err, &said)
			require.NotEqual(t, ClassAborted, said.Class, "it is not known to rest")
		})
	}
}

// A prompt that is sent while an Abort finds the session at rest is aborted too.
func TestBlockingAbortIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &laggingHost{slowHost: newSlowHost()}
		h.is("ses_1", HostIdle)
		b := Blocking(h, BlockingConfig{})
		aborted := make(chan error, 1)
		go func() { aborted <- b.Abort(t.Context(), "ses_1") }()
		time.Sleep(100 * time.Millisecond)
		prompted := make(chan error, 1)
		go func() {
			_, err := b.Prompt(t.Context(), "ses_1", Prompt{OnEvent: func(SessionEvent) {}})
			prompted <- err
		}()
		require.NoError(t, <-aborted)
		all, err := h.Statuses(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, HostIdle, all["ses_1"])
		var said *SessionError
		require.ErrorAs(t, <-prompted, &said)
		require.Equal(t, ClassAborted, said.Class)
	})
}

// A host that took the prompt and is then out of reach for a while: that says nothing
// of the turn ("what can't be found out ends no turn").
func TestBlockingOutageOverStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.fails(errors.New("no route")) // right after Send returned nil
		pass(90 * time.Second)
		now := get(t, m, task.ID)
		require.Equal(t, Running, now.Status, "%v", now.Reason)
	})
}

// The same at the default Started, when just the one look at 60 s fails.
func TestBlockingOneFailedLookEndsATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(context.Context, SessionID) error { return nil } // idle, as far as polls see
		m, task := blocked(t, h, BlockingConfig{Poll: Off})
		pass(59 * time.Second)
		h.fails(errors.New("one reset connection"))
		pass(2 * time.Second)
		h.fails(nil)
		h.says(task.Session, wholeAnswer)
		m.HandleEvent(event(task.Session, EventIdle))
		pass(time.Second)
		now := get(t, m, task.ID)
		require.Equal(t, Completed, now.Status, "%v", now.Reason)
	})
}

// A turn over in less than one poll, without events (the doc says that polls do): it
// used a tool, and was cut short or a permission was rejected. The session rests, the
// answer stays as it is: that can be decided.
func TestBlockingRestsUnfinishedWithoutSigns(t *testing.T) {
	for name, out := range map[string]Answer{
		"cut short":           {Text: "so far", Evidence: true, Unfinished: true},
		"rejected permission": {Evidence: true, Unfinished: true, Err: &SessionError{Op: "prompt", Class: ClassPermission, Err: errors.New("rejected")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				h.send = func(_ context.Context, id SessionID) error {
					h.is(id, HostIdle)
					h.says(id, out)
					return nil
				}
				m, task := blocked(t, h, BlockingConfig{})
				pass(24 * time.Hour)
				now := get(t, m, task.ID)
				require.True(t, now.Status.Terminal(), "%s after a day; %d looks at its answer", now.Status, h.looks.Load())
			})
		})
	}
}

// Prompt must return soon after its context has ended, whatever was heard meanwhile.
func TestBlockingPromptHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		b := Blocking(h, BlockingConfig{Poll: Off})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() {
			_, err := b.Prompt(ctx, "ses_1", Prompt{OnEvent: func(SessionEvent) {}})
			over <- err
		}()
		synctest.Wait()
		h.slowly(time.Second) // the answer is being read …
		require.NoError(t, b.Abort(t.Context(), "ses_1"))
		cancel()
		time.Sleep(500 * time.Millisecond)
		b.HandleEvent(event("ses_1", EventText)) // … when a late event comes
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		select {
		case <-over:
		default:
			t.Error("ten minutes after its context has ended, Prompt is out")
			h.slowly(0)
			b.HandleEvent(event("ses_1", EventDeleted)) // lets go
			<-over
		}
	})
}

// A host may go on with the turn of a session that was deleted (docs/adapters.md says
// so of itself): the lease is held until it is known to rest.
func TestBlockingDeletedSessionHoldsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.abort = func(_ context.Context, id SessionID) error {
			time.Sleep(5 * time.Second)
			h.is(id, HostIdle)
			return nil
		}
		m := newManager(t, Blocking(h, BlockingConfig{}), Config{Keys: KeyLimits{Default: 1}})
		first, second := launch(t, m, work("p")), launch(t, m, work("p"))
		synctest.Wait()
		m.HandleEvent(event(get(t, m, first.ID).Session, EventDeleted))
		pass(time.Second)
		all, _ := h.Statuses(t.Context(), nil)
		one, two := get(t, m, first.ID), get(t, m, second.ID)
		require.Equal(t, HostBusy, all[one.Session])
		require.False(t, two.Status == Running, "two run under a limit of one: %s (%s, unstopped: %v) goes on in the host beside %s", one.ID, one.Status, one.Attempts[0].Unstopped, two.ID)
	})
}

// The same when the abort fails: the child runs, and nobody is told.
func TestBlockingDeletedSessionIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.abort = func(context.Context, SessionID) error { return errors.New("no route") }
		m := newManager(t, Blocking(h, BlockingConfig{}), Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		m.HandleEvent(event(get(t, m, task.ID).Session, EventDeleted))
		pass(time.Minute)
		all, _ := h.Statuses(t.Context(), nil)
		now := get(t, m, task.ID)
		require.Equal(t, HostBusy, all[now.Session])
		require.NotNil(t, now.Attempts[0].Unstopped, "its turn goes on, its Abort failed, and it is not marked")
	})
}

// To stop a child must not wait for slow reads of others.
func TestBlockingAbortDoesNotQueueBehindReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m := newManager(t, Blocking(h, BlockingConfig{Call: 30 * time.Second}), Config{Keys: KeyLimits{Default: Off}})
		var tasks []Task
		for range 9 {
			tasks = append(tasks, launch(t, m, work("p")))
		}
		synctest.Wait()
		h.slowly(29 * time.Second)
		for _, task := range tasks[:8] {
			m.HandleEvent(event(get(t, m, task.ID).Session, EventIdle)) // eight reads of answers, slow ones
		}
		synctest.Wait()
		_, err := m.Cancel(t.Context(), tasks[8].ID, CancelOptions{})
		require.NoError(t, err)
		require.NotZero(t, h.aborts.Load(), "the abort was never sent")
		h.slowly(0)
		pass(time.Minute) // until the slow reads are over
	})
}

// One call of Abort that fails is made again while there is time.
func TestBlockingAbortIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.abort = func(_ context.Context, id SessionID) error {
			if h.aborts.Load() == 1 {
				return &SessionError{Op: "abort", Class: ClassUnavailable, Err: errors.New("connection reset")}
			}
			h.is(id, HostIdle)
			return nil
		}
		m, task := blocked(t, h, BlockingConfig{})
		began := time.Now()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		all, _ := h.Statuses(t.Context(), nil)
		require.NoError(t, err, "after %v, of a grace of 10 s: the session is busy=%v", time.Since(began), all[ended.Session] == HostBusy)
	})
}

// "After a gap in the stream call Resync": also if there is no poller.
func TestBlockingResyncWithoutPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		b := Blocking(h, BlockingConfig{Poll: Off})
		m := newManager(t, b, Config{Retention: keepAll})
		task := launch(t, m, work("p"))
		synctest.Wait()
		id := get(t, m, task.ID).Session
		m.HandleEvent(event(id, EventText))
		h.says(id, wholeAnswer)
		h.is(id, HostIdle) // its idle event was in the gap
		b.Resync()
		pass(24 * time.Hour)
		require.Equal(t, Completed, get(t, m, task.ID).Status)
	})
}

// What an error event said is not lost: a turn that then comes to nothing has failed
// with it.
func TestBlockingUnclassifiedErrorIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, Answer{Unfinished: true})
		h.is(task.Session, HostIdle)
		e := event(task.Session, EventFailed)
		e.Err = &SessionError{Op: "prompt", Err: errors.New("Invalid config: agent explore has no prompt file")}
		m.HandleEvent(event(task.Session, EventBusy))
		m.HandleEvent(e)
		m.HandleEvent(event(task.Session, EventIdle))
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.ErrorContains(t, ended.Reason, "Invalid config")
	})
}

// A task that has ended needs no table of its tool calls any more.
func TestEndedTaskKeepsNoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		for i := range 10000 {
			e := tool(fmt.Sprint("call_", strings.Repeat("x", 25), i), "read", true)
			e.Session = task.Session
			m.HandleEvent(e)
		}
		h.says(task.Session, wholeAnswer)
		m.HandleEvent(event(task.Session, EventIdle))
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.Equal(t, 10000, ended.Progress.ToolCalls)
		m.mu.Lock()
		defer m.mu.Unlock()
		require.Empty(t, len(m.byID[task.ID].said.heard.calls), "kept until Close")
	})
}

// Progress of a task that has ended says of nothing that it is waited for.
func TestEndedTaskWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		e := event(task.Session, EventWaiting)
		e.Text = "bash: pwd"
		m.HandleEvent(e)
		m.HandleEvent(event(task.Session, EventRetrying))
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Empty(t, ended.Progress.Waiting+ended.Progress.Retrying)
	})
}

// An event of no session is of none.
func TestEventOfNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m := newManager(t, Blocking(h, BlockingConfig{}), Config{})
		in := work("")
		in.NoNotice = true
		task := launch(t, m, in)
		synctest.Wait()
		m.HandleEvent(SessionEvent{Kind: EventDeleted})
		pass(time.Minute)
		now := get(t, m, task.ID)
		require.Equal(t, Running, now.Status, "%v", now.Reason)
	})
}

// A Send that was cut off because its task was cancelled may have been taken: what the
// host does with it later is not unseen.
func TestBlockingCutSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(ctx context.Context, id SessionID) error {
			taken := make(chan struct{})
			go func() { // on its way
				time.Sleep(2 * time.Second)
				h.is(id, HostBusy)
				close(taken)
			}()
			select {
			case <-taken:
				return nil
			case <-ctx.Done():
				return &SessionError{Op: "prompt", Class: ClassUnavailable, Err: ctx.Err()}
			}
		}
		m, task := blocked(t, h, BlockingConfig{})
		pass(500 * time.Millisecond)
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		pass(time.Minute)
		all, _ := h.Statuses(t.Context(), nil)
		require.NoError(t, err, "it need not stay in doubt")
		require.Equal(t, HostIdle, all[ended.Session])
	})
}

// A method of the host that ends the goroutine fails nothing but itself: the poller goes on.
func TestBlockingPollerOutlivesGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &exitingHost{slowHost: newSlowHost()}
		m := newManager(t, Blocking(h, BlockingConfig{}), Config{Retention: keepAll})
		task := launch(t, m, work("p"))
		pass(10 * time.Second)
		id := get(t, m, task.ID).Session
		h.says(id, wholeAnswer)
		h.is(id, HostIdle)
		pass(24 * time.Hour)
		require.Equal(t, Completed, get(t, m, task.ID).Status)
	})
}

type exitingHost struct {
	*slowHost
	done bool
}

func (h *exitingHost) Statuses(ctx context.Context, of []SessionID) (map[SessionID]HostStatus, error) {
	if !h.done {
		h.done = true
		runtime.Goexit()
	}
	return h.slowHost.Statuses(ctx, of)
}

// Where a session was before its prompt was taken says nothing of its turn: two polls
// that missed it after that are not three.
func TestBlockingPollsBeforeThePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(_ context.Context, id SessionID) error {
			time.Sleep(8 * time.Second) // two polls
			h.says(id, Answer{Text: "so far", Evidence: true, Unfinished: true})
			return nil
		}
		m, task := blocked(t, h, BlockingConfig{})
		time.Sleep(14 * time.Second) // two more, which find no turn
		h.is(task.Session, HostBusy)
		pass(time.Minute)
		require.Equal(t, Running, get(t, m, task.ID).Status)
	})
}

// Two polls that missed a turn which went on, and a third that saw it end: its last
// message may be whole only a moment later.
func TestBlockingLastMessageIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		m.HandleEvent(event(task.Session, EventText))
		h.says(task.Session, Answer{Text: "so far", Evidence: true, Unfinished: true})
		h.forgets(task.Session)
		pass(9*time.Second + 100*time.Millisecond)
		require.Equal(t, Running, get(t, m, task.ID).Status)
		h.says(task.Session, wholeAnswer)
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.Equal(t, Completed, ended.Status, "%v", ended.Reason)
	})
}

// A session that a poll finds busy is not looked at again and again because of an idling
// that was not so.
func TestBlockingBusyPollEndsTheLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, Answer{Text: "so far", Evidence: true, Unfinished: true})
		m.HandleEvent(event(task.Session, EventIdle))
		pass(10 * time.Second)
		before := h.looks.Load()
		require.Positive(t, before)
		pass(time.Minute)
		require.Equal(t, before, h.looks.Load())
		require.Equal(t, Running, get(t, m, task.ID).Status)
	})
}
