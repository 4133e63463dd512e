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
// then the child is listed, for nobody knows; when it comes it is stopped on sight.
func TestBlockingPromptComesLate(t *testing.T) {
	sight := map[string]func(*slowHost, *BackgroundManager, SessionID){
		"by an event": func(_ *slowHost, m *BackgroundManager, id SessionID) { m.HandleEvent(event(id, EventText)) },
		"by a poll": func(h *slowHost, m *BackgroundManager, _ SessionID) {
			launch(t, m, work("p")) // whose turn is polled
			pass(4 * time.Second)
		},
	}
	for name, seen := range sight {
		for how, end := range map[string]func(*BackgroundManager, TaskID){
			"given up":  func(m *BackgroundManager, id TaskID) { _, _ = m.Wait(context.Background(), id) },
			"cancelled": func(m *BackgroundManager, id TaskID) { _, _ = m.Cancel(context.Background(), id, CancelOptions{}) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newSlowHost()
					h.send = func(context.Context, SessionID) error {
						h.change(func() { h.send = nil }) // of the next
						return errors.New("the line was cut")
					}
					m, task := blocked(t, h, BlockingConfig{})
					end(m, task.ID)
					ended := get(t, m, task.ID)
					require.True(t, ended.Status.Terminal())
					require.ErrorContains(t, ended.Attempts[0].Unstopped, "on its way")
					aborts := h.aborts.Load()
					pass(time.Hour)
					require.Equal(t, aborts, h.aborts.Load(), "of what rests")
					h.is(task.Session, HostBusy)
					seen(h, m, task.Session)
					synctest.Wait()
					require.Greater(t, h.aborts.Load(), aborts)
					h.mu.Lock()
					require.Equal(t, HostIdle, h.statuses[task.Session])
					h.mu.Unlock()
				})
			})
		}
	}
}

// Somebody who talks to the session of a task that has ended is left alone.
func TestBlockingLateTalkIsNotStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, wholeOutput)
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

// What the host knows of what it was released, nothing can come of.
func TestBlockingDoubtEndsWithRelease(t *testing.T) {
	h := &releasingHost{slowHost: newSlowHost()}
	b := Blocking(h, BlockingConfig{})
	b.doubtful(&hostTurn{session: "s"})
	require.Error(t, b.settled("s"))
	h.err = errors.New("no route")
	require.Error(t, b.Release(t.Context(), "s"))
	require.Error(t, b.settled("s"))
	h.err = nil
	require.NoError(t, b.Release(t.Context(), "s"))
	require.NoError(t, b.settled("s"))
	for i := range 2 * maxDoubts {
		b.doubtful(&hostTurn{session: SessionID(rune(i))})
	}
	require.Len(t, b.doubts, maxDoubts)
}

// A child in doubt is listed by Close, unless its session could be given up.
func TestBlockingDoubtAtClose(t *testing.T) {
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
