package subagent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Scenario 64: an error of Send that leaves it open whether the prompt arrived does
// not have it sent again; the turn is looked for. A refusal ends it at once.
func TestBlockingSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.send = func(context.Context, SessionID) error { return errors.New("the line was cut") }
		m, task := blocked(t, h, BlockingConfig{})
		require.Equal(t, Running, get(t, m, task.ID).Status)
		m.HandleEvent(event(task.Session, EventText))
		h.says(task.Session, wholeAnswer)
		h.is(task.Session, HostIdle)
		ended, err := waitADay(t, m, task.ID)
		require.NoError(t, err)
		require.Equal(t, Completed, ended.Status)
		require.EqualValues(t, 1, h.sends.Load())

		lost := launch(t, m, work("p"))
		ended, err = waitADay(t, m, lost.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, PromptFailed)
		require.ErrorContains(t, ended.Reason, "the line was cut")
		require.Equal(t, time.Minute, ended.Ended.Sub(ended.Started))

		h.send = func(context.Context, SessionID) error {
			return &SessionError{Op: "prompt", Class: ClassModelNotFound, Err: errors.New("no such model")}
		}
		refused := launch(t, m, work("p"))
		ended, err = waitADay(t, m, refused.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, SessionFailed)
		require.Zero(t, ended.Ended.Sub(ended.Started))
	})
}

// An Abort returns when the session rests, and is made again until it does; what the
// turn had said is kept. An Abort that comes before the prompt is made again behind it.
func TestBlockingAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.says(task.Session, Answer{Text: "so far", Evidence: true, Unfinished: true})
		h.abort = func(_ context.Context, id SessionID) error {
			if h.aborts.Load() > 2 {
				h.is(id, HostIdle)
			}
			return nil
		}
		began := time.Now()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, 150*time.Millisecond, time.Since(began))
		require.Equal(t, "so far", ended.Result.Text)
		require.True(t, ended.Result.Partial)
		require.EqualValues(t, 3, h.aborts.Load(), "as long as the session is busy")
	})
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.abort = func(_ context.Context, id SessionID) error {
			if h.aborts.Load() < 5 {
				return errors.New("the line was cut")
			}
			h.is(id, HostIdle)
			return nil
		}
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Nil(t, ended.Attempts[0].Unstopped, "a call that fails is made again")
	})
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		h.abort = func(context.Context, SessionID) error {
			return &SessionError{Op: "abort", Class: ClassAuth, Err: errors.New("not let in")}
		}
		began := time.Now()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
		require.Zero(t, time.Since(began), "one that is refused is not")
		h.abort = nil
	})
	for _, took := range []time.Duration{settleWait / 2, 2 * settleWait} { // the manager aborts once more in between
		synctest.Test(t, func(t *testing.T) {
			h := newSlowHost()
			h.send = func(_ context.Context, id SessionID) error {
				time.Sleep(took)
				h.is(id, HostBusy)
				return nil
			}
			m, task := blocked(t, h, BlockingConfig{})
			ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
			require.NoError(t, err)
			require.Nil(t, ended.Attempts[0].Unstopped)
			pass(time.Minute)
			all, err := h.Statuses(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, HostIdle, all[task.Session], took)
		})
	}
}

// Scenarios 89, 91 and 92: one status call for all sessions, never two at a time, a
// bounded number of calls for single ones, and nothing while no turn is out.
func TestBlockingPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		h.slowly(10 * time.Millisecond)
		b := Blocking(h, BlockingConfig{})
		m := newManager(t, b, Config{Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}})
		for range 1000 {
			launch(t, m, work("p"))
		}
		pass(time.Second)
		require.Zero(t, h.polls.Load())
		pass(2500 * time.Millisecond)
		require.EqualValues(t, 1, h.polls.Load())
		for i := range 1000 {
			id := SessionID(fmt.Sprint("ses_", i+1))
			h.says(id, wholeAnswer)
			h.is(id, HostIdle)
		}
		b.Resync()
		synctest.Wait()
		require.EqualValues(t, 2, h.polls.Load(), "a gap has all looked at at once")
		pass(2 * time.Second)
		require.Equal(t, 1000, m.Stats().Tasks[Completed])
		require.LessOrEqual(t, h.most.Load(), int64(8))
		polls := h.polls.Load()
		pass(time.Hour)
		require.Equal(t, polls, h.polls.Load(), "nothing is asked while nothing runs")
	})
}

// A host without an ability of its own has none through Blocking.
func TestBlockingAbilities(t *testing.T) {
	b := Blocking(newSlowHost(), BlockingConfig{})
	_, err := b.ParentOf(t.Context(), "s")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = b.Notify(t.Context(), Notification{})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = b.Received(t.Context(), Notification{})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = b.Transcript(t.Context(), "s", TranscriptQuery{})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, b.Release(t.Context(), "s"), errors.ErrUnsupported)
	require.ErrorIs(t, b.Steer(t.Context(), "s", "x"), errors.ErrUnsupported)
}

// A setting that can't be is refused by New, by name.
func TestBlockingConfig(t *testing.T) {
	for field, c := range map[string]struct {
		cfg   BlockingConfig
		value string
		rule  string
	}{
		"Poll":     {BlockingConfig{Poll: -2}, "-2ns", "must be between 1ms and 24h, 0 for the default, or Off"},
		"Settle":   {BlockingConfig{Settle: Off}, "Off", "must be between 1ms and 24h, or 0 for the default"},
		"Started":  {BlockingConfig{Started: 25 * time.Hour}, "25h0m0s", "must be between 1ms and 24h, or 0 for the default"},
		"Call":     {BlockingConfig{Call: 10}, "10ns", "must be between 1ms and 24h, or 0 for the default"},
		"Misses":   {BlockingConfig{Misses: Off}, "Off", "must be at least 1, or 0 for the default"},
		"Parallel": {BlockingConfig{Parallel: -8}, "-8", "must be at least 1, or 0 for the default"},
	} {
		b := Blocking(newSlowHost(), c.cfg)
		for _, client := range []SessionClient{b, struct{ *BlockingClient }{b}} {
			m, err := New(client, Config{})
			require.Nil(t, m)
			wrong("BlockingConfig."+field, c.value, c.rule)(t, err)
		}
	}
}

// Without a host there is nothing to make a client of.
func TestBlockingNilHost(t *testing.T) {
	_, err := New(Blocking(nil, BlockingConfig{}), Config{})
	wrong("the host of Blocking", "nil", "an AsyncClient is required")(t, err)
}

// A session is asked for only when three polls did not know it, and a poll that finds it
// busy is a sign of life, also when no event ever comes.
func TestBlockingByPollsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSlowHost()
		m, task := blocked(t, h, BlockingConfig{})
		pass(5 * time.Minute)
		require.Equal(t, Running, get(t, m, task.ID).Status)
		h.loses(task.Session)
		h.forgets(task.Session)
		pass(7 * time.Second)
		require.Equal(t, Running, get(t, m, task.ID).Status)
		require.Zero(t, h.exists.Load())
		pass(3 * time.Second)
		require.ErrorIs(t, get(t, m, task.ID).Reason, SessionGone)
	})
}

// steeredHost takes messages into a running turn.
type steeredHost struct {
	*slowHost
	steer func(SessionID) error
}

func (h *steeredHost) Steer(_ context.Context, id SessionID, _ string) error { return h.steer(id) }

// While a message is being steered into a turn, no answer of before ends it; nor does
// one that was read before the message was on its way. An abort does.
func TestBlockingSteer(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		stop bool
		text string
	}{
		"taken":           {nil, false, "done as steered"},
		"refused":         {errors.New("too late"), false, "done"},
		"out for an hour": {nil, true, "done"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &steeredHost{slowHost: newSlowHost()}
				b := Blocking(h, BlockingConfig{})
				m := newManager(t, b, Config{})
				task := launch(t, m, work("p"))
				synctest.Wait()
				task = get(t, m, task.ID)
				h.steer = func(id SessionID) error {
					if c.stop {
						time.Sleep(time.Hour)
					}
					time.Sleep(5 * time.Second)
					h.says(id, Answer{Text: c.text, Evidence: true})
					return c.err
				}
				h.slowly(time.Second) // the answer is being read when the message comes
				h.says(task.Session, wholeAnswer)
				h.is(task.Session, HostIdle)
				m.HandleEvent(event(task.Session, EventIdle))
				time.Sleep(100 * time.Millisecond)
				steered := make(chan error, 1)
				go func() { steered <- b.Steer(t.Context(), task.Session, "and then") }()
				time.Sleep(4 * time.Second)
				require.Equal(t, Running, get(t, m, task.ID).Status)
				if c.stop {
					_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
					require.NoError(t, err)
				}
				ended, err := waitADay(t, m, task.ID)
				require.NoError(t, err)
				require.Equal(t, c.text, ended.Result.Text)
				require.Equal(t, c.stop, ended.Status == Cancelled)
				require.Equal(t, c.err, <-steered)
			})
		})
	}
}
