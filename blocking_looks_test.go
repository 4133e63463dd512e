package subagent

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Idle events in a row are no looks with pauses: the last message may be whole only a
// moment later.
func TestBlockingBurstOfIdles(t *testing.T) {
	for name, c := range map[string]struct {
		cfg BlockingConfig
		err error
	}{
		"without polls": {BlockingConfig{Poll: Off}, nil},
		"with an error": {BlockingConfig{}, &SessionError{Class: ClassPermission}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				m, task := blocked(t, h, c.cfg)
				m.HandleEvent(event(task.Session, EventText))
				h.says(task.Session, Answer{Text: "do", Evidence: true, Unfinished: true, Err: c.err})
				for range 5 {
					m.HandleEvent(event(task.Session, EventIdle))
					time.Sleep(time.Millisecond)
				}
				time.Sleep(50 * time.Millisecond)
				h.says(task.Session, wholeAnswer)
				ended, err := waitADay(t, m, task.ID)
				require.NoError(t, err)
				require.Equal(t, Completed, ended.Status, "%v", ended.Reason)
			})
		})
	}
}

// That somebody stopped a turn is no sign of its life: one whose answer is being looked at
// meanwhile ends with that.
func TestBlockingInterruptedIsNoSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{Poll: Off})
		m.HandleEvent(event(task.Session, EventText))
		h.says(task.Session, wholeAnswer)
		h.slowly(time.Second)
		m.HandleEvent(event(task.Session, EventIdle))
		synctest.Wait()
		m.HandleEvent(event(task.Session, EventInterrupted))
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err, "its idling was forgotten")
		require.Equal(t, Completed, ended.Status, "%v", ended.Reason)
	})
}

// An idle event that was not so does not end a turn that each status says goes on, also
// when there was an error in it.
func TestBlockingStrayIdleBesideAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		m.HandleEvent(event(task.Session, EventText))
		h.says(task.Session, Answer{Evidence: true, Unfinished: true, Err: &SessionError{Class: ClassPermission, Err: errors.New("one of two calls was rejected")}})
		m.HandleEvent(event(task.Session, EventIdle))
		pass(10 * time.Second)
		require.Equal(t, Running, get(t, m, task.ID).Status)
	})
}

// That a host says it has aborted a turn is no proof that it rests: the lease stays.
func TestBlockingAbortedEventIsNoProof(t *testing.T) {
	for name, err := range map[string]error{
		"aborted": &SessionError{Op: "prompt", Class: ClassAborted, Err: errors.New("aborted")},
		"gone":    &SessionError{Op: "prompt", Class: ClassInvalid, Err: ErrSessionGone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				m := newManager(t, Blocking(h, BlockingConfig{}), Config{Keys: KeyLimits{Default: 1}})
				first, second := launch(t, m, work("p")), launch(t, m, work("p"))
				synctest.Wait()
				session := get(t, m, first.ID).Session
				e := event(session, EventFailed)
				e.Err = err
				m.HandleEvent(e)
				pass(time.Second)
				require.Equal(t, Pending, get(t, m, second.ID).Status)
				h.is(session, HostIdle)
				pass(10 * time.Second)
				require.Equal(t, Running, get(t, m, second.ID).Status)
				require.ErrorContains(t, get(t, m, first.ID).Reason, "the host ended the turn")
			})
		})
	}
}

// An error that is no SessionError is one of the turn all the same.
func TestBlockingPlainErrorOfATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, Answer{Err: errors.New("no such tool")})
		h.is(task.Session, HostIdle)
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.Equal(t, Failed, ended.Status)
		require.ErrorContains(t, ended.Reason, "no such tool")
	})
}

// The host's word that its answer is complete and empty ends a turn at once.
func TestBlockingEmptyAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, Answer{Empty: true})
		m.HandleEvent(event(task.Session, EventIdle))
		synctest.Wait()
		ended := get(t, m, task.ID)
		require.Equal(t, Completed, ended.Status, "%v", ended.Reason)
		require.True(t, ended.Result.Empty)
	})
}

// What can't be said of one session changes nothing for it, and says the rest.
func TestBlockingUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m := newManager(t, Blocking(h, BlockingConfig{}), Config{})
		lost, fine := launch(t, m, work("p")), launch(t, m, work("p"))
		synctest.Wait()
		for _, id := range []TaskID{lost.ID, fine.ID} {
			h.says(get(t, m, id).Session, wholeAnswer)
		}
		h.is(get(t, m, lost.ID).Session, HostUnreachable)
		h.is(get(t, m, fine.ID).Session, HostIdle)
		pass(2 * time.Minute)
		require.Equal(t, Running, get(t, m, lost.ID).Status)
		require.Equal(t, Completed, get(t, m, fine.ID).Status)
		h.abort = func(context.Context, SessionID) error { return nil }
		_, err := m.Cancel(t.Context(), lost.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped, "where it is was never said")
	})
}

// crowdedHost counts the calls of Statuses that are out at once, and may keep them.
type crowdedHost struct {
	*slowHost
	now, most atomic.Int64
	stuck     chan struct{} // the first call waits for it, and heeds no context
	exits     atomic.Bool
}

func (h *crowdedHost) Statuses(ctx context.Context, of []SessionID) (map[SessionID]HostStatus, error) {
	if n := h.now.Add(1); n > h.most.Load() {
		h.most.Store(n)
	}
	defer h.now.Add(-1)
	first := h.polls.Load() == 0
	all, err := h.slowHost.Statuses(ctx, of)
	switch {
	case h.exits.Load():
		runtime.Goexit()
	case h.stuck != nil && first:
		<-h.stuck
	default:
		time.Sleep(100 * time.Millisecond)
	}
	return all, err
}

// A host that comes back from an outage is not asked for each of a thousand turns at once.
func TestBlockingStatusesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &crowdedHost{slowHost: newSlowHost()}
		h.fails(errors.New("no route"))
		m := newManager(t, Blocking(h, BlockingConfig{}), Config{Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}})
		for range 1000 {
			launch(t, m, work("p"))
		}
		pass(2 * time.Minute)
		h.fails(nil)
		require.LessOrEqual(t, h.most.Load(), int64(9), "Parallel, and the poll")
	})
}

// Without polls each gap is one look, and never two at a time; a host that ends the
// goroutine ends the look alone.
func TestBlockingResyncs(t *testing.T) {
	for _, exits := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := &crowdedHost{slowHost: newSlowHost()}
			h.exits.Store(exits)
			b := Blocking(h, BlockingConfig{Poll: Off})
			m := newManager(t, b, Config{})
			launch(t, m, work("p"))
			synctest.Wait()
			for range 50 {
				b.Resync()
				time.Sleep(time.Millisecond)
			}
			pass(time.Second)
			require.EqualValues(t, 1, h.most.Load(), "at once")
			require.LessOrEqual(t, h.polls.Load(), int64(50))
			h.exits.Store(false)
			before := h.polls.Load()
			b.Resync()
			synctest.Wait()
			require.Equal(t, before+1, h.polls.Load())
		})
	}
}

// A gap while the host is being given a prompt is looked into when it has it.
func TestBlockingGapDuringSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(_ context.Context, id SessionID) error {
			time.Sleep(5 * time.Second)
			h.says(id, wholeAnswer)
			h.is(id, HostIdle)
			return nil
		}
		b := Blocking(h, BlockingConfig{Poll: Off})
		m, err := New(b, Config{})
		require.NoError(t, err)
		defer m.Close()
		task := launch(t, m, work("p"))
		pass(time.Second)
		b.Resync()
		pass(5 * time.Second)
		require.Equal(t, Completed, get(t, m, task.ID).Status)
	})
}

// A poll that does not come back is left behind, and those after it find out.
func TestBlockingStuckPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &crowdedHost{slowHost: newSlowHost(), stuck: make(chan struct{})}
		defer close(h.stuck)
		m, task := blocked(t, h, BlockingConfig{})
		pass(4 * time.Second)
		h.says(task.Session, wholeAnswer)
		h.is(task.Session, HostIdle)
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, task.ID).Status)
		var left *UnstoppedError
		require.ErrorAs(t, m.Close(), &left)
		require.Equal(t, []UnstoppedCall{{Op: "statuses"}}, left.Calls)
	})
}

// A poll that is out when the last turn ends is called back.
func TestBlockingPollEndsWithTheLastTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &waitingHost{slowHost: newSlowHost()}
		m, task := blocked(t, h, BlockingConfig{})
		pass(4 * time.Second)
		require.EqualValues(t, 1, h.out.Load())
		h.says(task.Session, wholeAnswer)
		m.HandleEvent(event(task.Session, EventIdle))
		synctest.Wait()
		require.Equal(t, Completed, get(t, m, task.ID).Status)
		require.Zero(t, h.out.Load())
		require.NoError(t, m.Close())
	})
}

// waitingHost answers no Statuses before its context ends.
type waitingHost struct {
	*slowHost
	out atomic.Int64
}

func (h *waitingHost) Statuses(ctx context.Context, _ []SessionID) (map[SessionID]HostStatus, error) {
	h.out.Add(1)
	defer h.out.Add(-1)
	<-ctx.Done()
	return nil, ctx.Err()
}
