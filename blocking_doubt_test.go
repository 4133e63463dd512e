package subagent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A prompt that was neither taken nor refused may come when its task has ended. Until
// then the child is listed, for nobody knows; when an event shows it at work it is stopped.
func TestPromptInDoubt(t *testing.T) {
	for how, end := range map[string]func(*BackgroundManager, TaskID){
		"given up":  func(m *BackgroundManager, id TaskID) { _, _ = m.Wait(context.Background(), id) },
		"cancelled": func(m *BackgroundManager, id TaskID) { _, _ = m.Cancel(context.Background(), id, CancelOptions{}) },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				h.send = func(context.Context, SessionID) error { return errors.New("the line was cut") }
				m, task := blocked(t, h, BlockingConfig{})
				end(m, task.ID)
				require.True(t, get(t, m, task.ID).Status.Terminal())
				require.ErrorIs(t, get(t, m, task.ID).Attempts[0].Unstopped, ErrInDoubt)
				aborts := h.aborts.Load()
				pass(time.Hour)
				require.Equal(t, aborts, h.aborts.Load(), "of what rests")

				h.is(task.Session, HostBusy)
				h.abort = func(context.Context, SessionID) error { return &SessionError{Class: ClassPermission} }
				m.HandleEvent(event(task.Session, EventText))
				m.HandleEvent(event(task.Session, EventText)) // one at a time
				pass(time.Second)
				require.Equal(t, aborts+1, h.aborts.Load())
				require.ErrorIs(t, get(t, m, task.ID).Attempts[0].Unstopped, ErrInDoubt, "it was not stopped")

				h.abort = nil
				m.HandleEvent(event(task.Session, EventText))
				pass(time.Second)
				h.mu.Lock()
				require.Equal(t, HostIdle, h.statuses[task.Session])
				h.mu.Unlock()
				require.NoError(t, get(t, m, task.ID).Attempts[0].Unstopped, "it has come, and comes once")

				h.is(task.Session, HostBusy) // somebody talks to it
				m.HandleEvent(event(task.Session, EventText))
				pass(time.Second)
				require.Equal(t, aborts+2, h.aborts.Load())
			})
		})
	}
}

// Somebody who talks to the session of a task that has ended is left alone.
func TestBlockingLateTalkIsNotStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, wholeAnswer)
		h.is(task.Session, HostIdle)
		m.HandleEvent(event(task.Session, EventIdle))
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.Equal(t, Completed, ended.Status)
		h.is(task.Session, HostBusy)
		m.HandleEvent(event(task.Session, EventBusy))
		launch(t, m, work("p"))
		pass(time.Minute)
		require.Zero(t, h.aborts.Load())
	})
}

// A prompt that certainly was not sent is not looked for, and leaves no doubt.
func TestBlockingNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(_ context.Context, id SessionID) error {
			return &SessionError{Op: "prompt", Session: id, Class: ClassUnavailable, Err: errors.Join(ErrNotSent, errors.New("connection refused"))}
		}
		m, task := blocked(t, h, BlockingConfig{})
		pass(time.Second)
		ended := get(t, m, task.ID)
		require.True(t, ended.Status.Terminal())
		require.ErrorIs(t, ended.Reason, ErrNotSent)
		require.NoError(t, ended.Attempts[0].Unstopped)
	})
}

// Prompt says so itself: a Send that failed, a session that was seen to rest, and no sign
// of the prompt.
func TestBlockingSaysThatItIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(context.Context, SessionID) error { return errors.New("the line was cut") }
		_, err := Blocking(h, BlockingConfig{}).Prompt(t.Context(), "ses_1", Prompt{})
		require.ErrorIs(t, err, ErrInDoubt)
		require.ErrorContains(t, err, "the line was cut")
		h.loses("ses_1")
		_, err = Blocking(h, BlockingConfig{}).Prompt(t.Context(), "ses_1", Prompt{})
		require.NotErrorIs(t, err, ErrInDoubt)
	})
}

// The host has something to show for the prompt: it has arrived, and says itself how it
// fared.
func TestBlockingLostReplyIsNoDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(_ context.Context, id SessionID) error {
			h.says(id, Answer{Err: &SessionError{Op: "prompt", Class: ClassAuth, Err: errors.New("no credential")}})
			h.is(id, HostIdle)
			return errors.New("the line was cut")
		}
		m, task := blocked(t, h, BlockingConfig{})
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.ErrorContains(t, ended.Reason, "no credential")
		require.NoError(t, ended.Attempts[0].Unstopped)
	})
}

// A session that was given up while its Send was out is in no doubt.
func TestDoubtAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &releasingHost{slowHost: newSlowHost()}
		h.send = func(context.Context, SessionID) error {
			time.Sleep(15 * time.Second)
			return errors.New("the line was cut")
		}
		m, task := blocked(t, h, BlockingConfig{})
		require.NoError(t, m.Close())
		require.NoError(t, get(t, m, task.ID).Attempts[0].Unstopped)
	})
}

// A late stop that is out at Close, and heeds no context, is listed by its name; also when
// the session could be given up meanwhile.
func TestLateStopAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &releasingHost{slowHost: newSlowHost()}
		h.send = func(context.Context, SessionID) error { return errors.New("the line was cut") }
		m, task := blocked(t, h, BlockingConfig{})
		_, _ = waitADay(t, m, task.ID)
		let := make(chan struct{})
		defer close(let)
		h.abort = func(context.Context, SessionID) error { <-let; return nil }
		m.HandleEvent(event(task.Session, EventText))
		var left *UnstoppedError
		require.ErrorAs(t, m.Close(), &left)
		require.Len(t, left.Calls, 1)
		require.Equal(t, "abort", left.Calls[0].Op)
		require.Equal(t, task.Session, left.Calls[0].Session)
		require.ErrorIs(t, left, ErrInDoubt)
	})
}

// A turn that was never sent needs no abort, which could only fail there too.
func TestNotSentIsNotAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(context.Context, SessionID) error { return ErrNotSent }
		h.abort = func(context.Context, SessionID) error { return errors.New("connection refused") }
		m, task := blocked(t, h, BlockingConfig{})
		pass(time.Second)
		ended := get(t, m, task.ID)
		require.Equal(t, Interrupted, ended.Status)
		require.NoError(t, ended.Attempts[0].Unstopped)
		require.Zero(t, h.aborts.Load())
	})
}

// A child in doubt is listed by Close, unless its session could be given up.
func TestDoubtAtClose(t *testing.T) {
	for err, want := range map[error]error{nil: nil, errors.New("no route"): ErrUnstopped, errors.ErrUnsupported: ErrUnstopped} {
		synctest.Test(t, func(t *testing.T) {
			h := &releasingHost{slowHost: newSlowHost(), err: err}
			h.send = func(context.Context, SessionID) error { return errors.New("the line was cut") }
			m, task := blocked(t, h, BlockingConfig{})
			_, _ = waitADay(t, m, task.ID)
			require.ErrorIs(t, get(t, m, task.ID).Attempts[0].Unstopped, ErrInDoubt)
			require.ErrorIs(t, m.Close(), want)
			require.Equal(t, want == nil, get(t, m, task.ID).Attempts[0].Unstopped == nil)
		})
	}
}

type releasingHost struct {
	*slowHost
	err error
}

func (h *releasingHost) Release(context.Context, SessionID) error { return h.err }

// An Abort whose first call hangs is made again while there is time.
func TestBlockingAbortHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.abort = func(ctx context.Context, id SessionID) error {
			if h.aborts.Load() == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			h.is(id, HostIdle)
			return nil
		}
		m, task := blocked(t, h, BlockingConfig{})
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 2, h.aborts.Load())
	})
}
