package subagent

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// L20, a waiting task that was timed out in the instant of its turn kept its
// place in the semaphore and those who waited for it. Here the two fall on the
// same instant: one wins, everybody is answered, and the place is used again.
func TestL20TimedOutInTheInstantOfItsTurn(t *testing.T) {
	outcomes := map[Status]int{}
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}})
			holds := acquire(t, m, Holder{Agent: "worker"})
			in := work("p")
			in.Limits = &TaskLimits{QueueWait: time.Second}
			task := launch(t, m, in)
			next := launch(t, m, work("p"))
			waited := make(chan Task, 1)
			go func() {
				ended, _ := m.Wait(t.Context(), task.ID)
				waited <- ended
			}()
			go func() {
				time.Sleep(time.Second)
				holds.Release()
			}()
			pass(time.Second)
			now := get(t, m, task.ID)
			outcomes[now.Status]++
			if now.Status == Running {
				require.Equal(t, Pending, get(t, m, next.ID).Status)
				_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, now.Reason, QueueTimeout)
			}
			require.Equal(t, task.ID, (<-waited).ID)
			synctest.Wait()
			require.Equal(t, Running, get(t, m, next.ID).Status)
			require.Equal(t, 1, m.deadlines.Len(), "that of what is owed to the parent")
			require.NoError(t, m.CheckBooks(nil, nil))
		})
	}
	t.Logf("how it ended: %v", outcomes)
}

// L25, a turn that never was counted as success: completed in no time, with no
// word said. Only text, or the client's word that there is none, completes a task.
func TestL25NoOutputIsNoSuccess(t *testing.T) {
	for name, c := range map[string]struct {
		result Result
		err    error
		status Status
		reason error
	}{
		"nothing":                {Result{}, nil, Failed, NoOutput},
		"blank":                  {Result{Text: " \n\t\u00a0"}, nil, Failed, NoOutput},
		"usage and no text":      {Result{Usage: Usage{OutputTokens: 5}}, nil, Failed, NoOutput},
		"refused by validation":  {Result{}, &SessionError{Op: "prompt", Class: ClassInvalid}, Failed, SessionFailed},
		"an error beside a text": {Result{Text: "half"}, errors.New("cut"), Interrupted, PromptFailed},
		"text":                   {Result{Text: "x"}, nil, Completed, nil},
		"vouched for":            {Result{Empty: true}, nil, Completed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &inbox{}
				m := newManager(t, &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { return c.result, c.err }}, Config{Notifier: box})
				task, err := m.Do(t.Context(), work("p"))
				require.Equal(t, c.status, task.Status)
				require.ErrorIs(t, err, c.reason)
				require.Equal(t, c.status == Completed, err == nil)
				launch(t, m, work("p"))
				pass(time.Second)
				require.Equal(t, c.status, box.all()[0].Notices[0].Status)
			})
		})
	}
}

// L26, those who waited for a slot at shutdown were rejected inside a loop that
// nobody awaited. Here each gets the error as the answer to its own call, and
// nothing is left waiting, which the end of the bubble shows.
func TestL26WaitersAtShutdownAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1, PerParent: 1}})
		launch(t, m, asks("p", "m/x", "runs"))
		pending := launch(t, m, asks("p", "m/x", "waits"))
		var g sync.WaitGroup
		for _, parent := range []SessionID{"", "p", "q"} {
			for range 10 {
				g.Go(func() {
					l, err := m.Acquire(context.Background(), Holder{Parent: parent, Agent: "worker", Model: "m/x"})
					if l != nil || !errors.Is(err, ErrClosed) {
						t.Errorf("Acquire returned %v, %v", l, err)
					}
				})
			}
		}
		g.Go(func() {
			ended, err := m.Wait(context.Background(), pending.ID)
			if err != nil || !errors.Is(ended.Reason, ByShutdown) {
				t.Errorf("Wait returned %v, %v", ended.Reason, err)
			}
		})
		g.Go(func() {
			if all, err := m.WaitAll(context.Background(), Filter{}); len(all) != 2 || err != nil {
				t.Errorf("WaitAll returned %v, %v", all, err)
			}
		})
		synctest.Wait()
		require.Len(t, m.waiters, 30)
		require.NoError(t, m.Close())
		g.Wait()
		require.Empty(t, m.waiters)
		require.Empty(t, m.queues())
		require.Empty(t, m.limits())
		require.Empty(t, m.watches)
	})
}

// L27, a read handed out the live record, so that whoever changed it changed the
// manager.
func TestL27ReadsAreCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1}})
		in := asks("p", "m/x", "above")
		in.Labels = map[string]string{"kind": "a"}
		above := launch(t, m, in)
		synctest.Wait()
		session := get(t, m, above.ID).Session
		in.Parent, in.Prompt = session, "below"
		below := launch(t, m, in)
		require.Equal(t, []TaskID{above.ID}, below.BlockedBy)
		spoil := func(task Task) {
			task.Labels["kind"] = "spoiled"
			if task.Reason != nil {
				*task.Reason = Reason{Code: Deadline}
			}
			if len(task.Attempts) > 0 {
				task.Attempts[0] = Attempt{Number: 99}
			}
			if len(task.BlockedBy) > 0 {
				task.BlockedBy[0] = "spoiled"
			}
		}
		check := func() {
			for _, id := range []TaskID{above.ID, below.ID} {
				want, again := get(t, m, id), get(t, m, id)
				spoil(again)
				for _, task := range m.List(Filter{}) {
					spoil(task)
				}
				require.Equal(t, want, get(t, m, id))
			}
			byKey, err := m.BySession(session)
			require.NoError(t, err)
			want := get(t, m, above.ID)
			spoil(byKey)
			require.Equal(t, want, get(t, m, above.ID))
		}
		spoil(above)
		spoil(below)
		check()

		var g sync.WaitGroup // beside everything that writes to the records
		for range 4 {
			g.Go(func() {
				for range 50 {
					for _, task := range m.List(Filter{}) {
						spoil(task)
					}
				}
			})
		}
		g.Go(func() { _, _ = m.Cancel(t.Context(), above.ID, CancelOptions{}) })
		g.Wait()
		synctest.Wait()
		ended, err := m.Wait(t.Context(), below.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, ParentGone)
		spoil(ended)
		require.ErrorIs(t, get(t, m, below.ID).Reason, ParentGone)
		require.ErrorIs(t, get(t, m, above.ID).Reason, ByUser)
		check()
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		*n.Notices[0].Reason = Reason{Code: Deadline}
		ack(false)
		require.ErrorIs(t, m.Pending("p").Notices[0].Reason, ByUser)
		require.ErrorIs(t, get(t, m, above.ID).Reason, ByUser)
	})
}

// L28, a second read of a finished task said that there was nothing new. A result
// stays, for every kind of read, however often, and after Close; and a read takes
// nothing of what the parent is owed.
func TestL28ReadingDoesNotConsume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Func(echo), Config{})
		task := launch(t, m, work("p"))
		done, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, "ok", done.Result.Text)
		owed := m.Pending("p")
		require.Len(t, owed.Notices, 1)
		readAll := func() {
			for range 3 {
				require.Equal(t, done, get(t, m, task.ID))
				require.Equal(t, []Task{done}, m.List(Filter{Parent: "p"}))
				again, err := m.Wait(t.Context(), task.ID)
				require.NoError(t, err)
				require.Equal(t, done, again)
				again, err = m.BySession(done.Session)
				require.NoError(t, err)
				require.Equal(t, done, again)
				first, err := m.WaitAny(t.Context(), Filter{Parent: "p"})
				require.NoError(t, err)
				require.Equal(t, done, first)
			}
		}
		readAll()
		require.Equal(t, owed, m.Pending("p"))
		_, ack, ok := m.Drain("p")
		require.True(t, ok)
		ack(true)
		readAll()
		require.NoError(t, m.Close())
		readAll()
	})
}
