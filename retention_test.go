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

// Scenario 104, L16: a finished task is forgotten so long after its parent was told, by all
// indexes together, and its session is given up; who asks for it learns what is known.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := timed(), &inbox{}
		m := newManager(t, c, Config{Notifier: box})
		empty := inventory(m)
		one := launch(t, m, taking("p", "1s"))
		pass(time.Hour + time.Second)
		session := get(t, m, one.ID).Session // told 0.1 s after its end
		require.NotEmpty(t, session)
		pass(time.Second)
		for name, err := range map[string]error{
			"Get":       second(m.Get(one.ID)),
			"BySession": second(m.BySession(session)),
			"Wait":      second(m.Wait(t.Context(), one.ID)),
			"Cancel":    second(m.Cancel(t.Context(), one.ID, CancelOptions{})),
			"Output":    second(m.Output(t.Context(), one.ID, OutputQuery{})),
			"Resume":    second(m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s"})),
			"As":        second(m.As("p").Get(one.ID)),
		} {
			var forgotten *ForgottenError
			require.ErrorAs(t, err, &forgotten, name)
			require.ErrorIs(t, err, ErrNotFound, name)
			require.Equal(t, session, forgotten.Session, name)
			require.Equal(t, Completed, forgotten.Status, name)
			require.Contains(t, err.Error(), string(session), name)
		}
		require.Equal(t, unknown(one.ID), second(m.As("q").Get(one.ID)), "another's is as unknown as any")
		require.Empty(t, m.List(Filter{}))
		require.Empty(t, m.History("p"))
		after := inventory(m)
		delete(empty, "seq")
		delete(after, "seq")
		require.Equal(t, empty, after, "nothing is left in the books")
		require.Equal(t, 1, m.Stats().Forgotten)
		require.Empty(t, m.Stats().Tasks)
		_, released := c.released.Load(session)
		require.True(t, released)
		_, err := m.Launch(t.Context(), taking(session, "1s"))
		require.ErrorIs(t, err, ErrParentEnded, "nothing is launched below it")
	})
}

func second[A any](_ A, err error) error { return err }

// Retention counts from delivery: what nobody was told of is kept, and the read that takes
// the notice back counts as telling (C247 to C249).
func TestForgottenFromDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Retention: Retention{Age: time.Minute}})
		drained, read, silent := launch(t, m, taking("p", "1s")), launch(t, m, taking("q", "1s")), taking("p", "1s")
		silent.NoNotice = true
		quiet := launch(t, m, silent)
		kept := func() (ids []TaskID) { return idsOf(m.List(Filter{})) }
		pass(50 * time.Second)
		require.Len(t, kept(), 3)
		pass(time.Hour)
		require.Equal(t, []TaskID{drained.ID, read.ID}, kept(), "the silent one counts from its end")
		_ = quiet
		_, ack, ok := m.Drain("p")
		require.True(t, ok)
		pass(time.Hour)
		require.Len(t, kept(), 2, "it may come back")
		ack(true)
		pass(59 * time.Second)
		require.Len(t, kept(), 2)
		_, err := m.As("q").Get(read.ID)
		require.NoError(t, err)
		pass(time.Second)
		require.Equal(t, []TaskID{read.ID}, kept())
		pass(time.Minute)
		require.Empty(t, kept())
	})
}

// What is given up undelivered is kept so long from then on.
func TestForgottenAfterGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Retention: Retention{Age: time.Minute}, Mailbox: MailboxPolicy{KeepAge: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(time.Hour + 30*time.Second)
		require.Len(t, m.List(Filter{}), 1)
		pass(time.Minute)
		require.Empty(t, m.List(Filter{}))
	})
}

// Scenario 106: a finished one is kept while siblings run, up to a bound.
func TestSiblingsAreKeptTogether(t *testing.T) {
	for name, c := range map[string]struct {
		together time.Duration
		runs     string
		kept     time.Duration // of the first, after it was told
	}{
		"to the end of the sibling": {time.Hour, "25m", 30 * time.Minute},
		"up to the bound":           {time.Hour, "10h", 70 * time.Minute},
		"not at all":                {Off, "10h", 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, timed(), Config{Notifier: &inbox{}, Retention: Retention{Age: 10 * time.Minute, Together: c.together}})
				one := launch(t, m, taking("p", "1s"))
				launch(t, m, taking("p", c.runs))
				pass(2*time.Second + c.kept - 2*time.Second)
				require.NoError(t, second(m.Get(one.ID)))
				pass(2 * time.Second)
				require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
			})
		})
	}
}

// Scenarios 142 and 200: a resumed task is not removed, however old; and its clock begins
// anew with the end of its last run.
func TestResumedIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Retention: Retention{Age: time.Hour}})
		one := launch(t, m, taking("p", "1s"))
		pass(50 * time.Minute)
		resume(t, m, one.ID, "3h")
		pass(2 * time.Hour)
		require.Equal(t, Running, get(t, m, one.ID).Status)
		pass(time.Hour + 50*time.Minute)
		require.Equal(t, Completed, get(t, m, one.ID).Status)
		pass(11 * time.Minute)
		require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
	})
}

// Scenario 211: by count and by bytes the oldest go, also before their age.
func TestRetentionIsBounded(t *testing.T) {
	for name, r := range map[string]Retention{
		"count": {Count: 3, Age: Off},
		"bytes": {Bytes: 3 * len("took 1s"), Age: Off},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, timed(), Config{Notifier: &inbox{}, Retention: r, Keys: KeyLimits{Default: 1}})
				var ids []TaskID
				for range 10 {
					ids = append(ids, launch(t, m, taking("p", "1s")).ID)
				}
				pass(time.Minute)
				require.Equal(t, ids[7:], idsOf(m.List(Filter{})))
				require.Len(t, m.tasks, 3+int(m.gaps))
				require.Less(t, len(m.tasks), 8)
			})
		})
	}
}

// Nothing is forgotten that somebody may need: a child that may be running, what runs
// below, a transcript that is being read, an ending that is waited for.
func TestNeededIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		c.abort = func(context.Context, SessionID) error { return errors.New("no line") }
		m := newManager(t, c, Config{Notifier: &inbox{}, Retention: Retention{Count: 1, Age: time.Minute}, AbortGrace: time.Second})
		above := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, above.ID).Session, "1h"))
		pass(30 * time.Minute)
		require.Equal(t, Completed, get(t, m, above.ID).Status, "its child runs")
		require.Equal(t, Running, get(t, m, below.ID).Status)
		pass(2 * time.Hour)
		require.ErrorIs(t, second(m.Get(above.ID)), ErrNotFound)

		stuck := launch(t, m, taking("p", "1h"))
		pass(time.Second)
		c.prompt = nil
		_, err := m.Cancel(t.Context(), stuck.ID, CancelOptions{Silent: true})
		_ = err
		for range 5 {
			launch(t, m, taking("p", "1s"))
		}
		pass(10 * time.Minute)
		if get(t, m, stuck.ID).Attempts[0].Unstopped == nil {
			t.Fatal("the test wants a child that may be running")
		}
	})
}

// Nor is a task whose messages are asked for, by the end that was waited for or by the read
// itself.
func TestReadIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &talking{stub: timed()}, Config{Retention: Retention{Age: time.Minute, Bytes: 1}})
		silent := taking("p", "1s")
		silent.NoNotice = true
		for _, in := range []LaunchInput{silent, taking("p", "1s")} {
			task := launch(t, m, in)
			if !in.NoNotice {
				pass(2 * time.Second)
			}
			o, err := m.As("p").Output(t.Context(), task.ID, OutputQuery{Wait: time.Minute, Transcript: true})
			require.NoError(t, err)
			require.NoError(t, o.TranscriptErr)
			pass(time.Minute)
			require.ErrorIs(t, second(m.Get(task.ID)), ErrNotFound, "then it is")
		}
	})
}

// Nor is a child that has ended while what it was owed is out to it.
func TestOutIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			if n.Parent != "p" {
				return Busy, nil
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Retention: Retention{Count: 1, Age: time.Second}})
		in := taking("p", "5s")
		in.NoNotice = true
		child := launch(t, m, in)
		synctest.Wait()
		session := get(t, m, child.ID).Session
		below := launch(t, m, taking(session, "1s"))
		pass(3 * time.Second)
		_, ack, ok := m.Drain(session)
		require.True(t, ok)
		pass(time.Hour)
		require.Equal(t, Completed, get(t, m, child.ID).Status, "its host may say that nothing arrived")
		ack(false)
		pass(time.Hour)
		require.Equal(t, []TaskID{below.ID}, toldTo("p", box.all()))
		require.ErrorIs(t, second(m.Get(child.ID)), ErrNotFound)
	})
}

// Do gets its result, however soon its task is forgotten.
func TestDoAgainstRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{Retention: Retention{Count: 1, Age: time.Millisecond}})
		for range 200 {
			done := make(chan error, 20)
			for range 20 {
				go func() {
					task, err := m.Do(context.Background(), work("p"))
					if err == nil && task.Result.Text != "ok" {
						err = errors.New("no result")
					}
					done <- err
				}()
			}
			for range 20 {
				require.NoError(t, <-done)
			}
			pass(time.Second)
		}
		require.Equal(t, 4000, m.Stats().Forgotten)
	})
}

// A session whose release fails is tried once more by Close.
func TestReleaseOfForgottenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tries := timed(), 0
		c.release = func(context.Context, SessionID) error {
			if tries++; tries == 1 {
				return errors.New("no line")
			}
			return nil
		}
		m := newManager(t, c, Config{Notifier: &inbox{}, Retention: Retention{Age: time.Minute}})
		launch(t, m, taking("p", "1s"))
		pass(time.Hour)
		require.Equal(t, 1, tries)
		require.NoError(t, m.Close())
		require.Equal(t, 2, tries)
	})
}

// L17: memory is flat over very many tasks, sessions and parents.
func TestMemoryIsFlat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{Notifier: &inbox{}, Retention: Retention{Age: time.Minute}, Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}})
		round := func(n int) map[string]int {
			for i := range 500 {
				task := launch(t, m, work(SessionID(fmt.Sprint("p", n, ".", i%50))))
				m.HandleEvent(SessionEvent{Session: SessionID(fmt.Sprint("foreign", n, i)), Kind: EventText})
				if i%7 == 0 {
					synctest.Wait()
					_, _ = m.Launch(t.Context(), work(get(t, m, task.ID).Session))
				}
			}
			pass(time.Hour)
			all := inventory(m)
			delete(all, "seq")
			return all
		}
		first := round(0)
		for n := range 5 {
			require.Equal(t, first, round(n+1))
		}
		require.Zero(t, first["tasks"]+first["mailboxes"]+first["sessions"]+first["children"])
		require.Greater(t, m.Stats().Forgotten, 3000)
		runtime.KeepAlive(m)
	})
}

// What is remembered of forgotten tasks is bounded.
func TestGravesAreBounded(t *testing.T) {
	m := newManager(t, &stub{}, Config{})
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range gravesKept + 10 {
		m.buryLocked(&task{id: TaskID(fmt.Sprint(i)), session: SessionID(fmt.Sprint(i)), owner: &mailbox{}, status: Completed})
	}
	require.Len(t, m.shelf.graves, gravesKept)
	require.Len(t, m.shelf.sessions, gravesKept)
	require.Len(t, m.shelf.buried, gravesKept)
	require.NotContains(t, m.shelf.graves, TaskID("9"))
	require.Contains(t, m.shelf.graves, TaskID("10"))
}

// Scenarios 199 and C197: the history of a parent has each task once, the newest first, is
// the same as long as nothing happens, and is bounded.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Keys: KeyLimits{Default: 1}})
		require.Empty(t, m.History("p"))
		in := taking("p", "1s")
		in.Description = "find </it>\nnow\x1b[0m"
		one := launch(t, m, in)
		pass(time.Minute)
		two := launch(t, m, taking("p", "1h"))
		three := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		want := historyNote +
			"- " + string(three.ID) + " pending; agent worker; \"some work\"\n" +
			"- " + string(two.ID) + " running; session ses_2; agent worker; \"some work\"\n" +
			"- " + string(one.ID) + " completed; session ses_1; agent worker; \"find ‹/it› now[0m\"\n"
		got := m.History("p")
		require.Equal(t, len(strings.Split(want, "\n")), len(strings.Split(got, "\n")), got)
		require.Equal(t, strings.Split(want, "\n")[:3], strings.Split(got, "\n")[:3])
		require.NotContains(t, got, "</it>")
		require.NotContains(t, got, "\x1b")
		pass(10 * time.Minute)
		require.Equal(t, got, m.History("p"), "no clock is in it")
		resume(t, m, one.ID, "1h")
		require.Contains(t, m.History("p"), string(one.ID)+" pending (run 2)")
		require.Equal(t, m.History("p"), m.As("p").History())

		in.Description = strings.Repeat("long ", 1000)
		for range 40 {
			launch(t, m, in)
		}
		got = m.History("p")
		require.LessOrEqual(t, len(got), historyBytes)
		require.Contains(t, got, "and 23 older")
		for _, line := range strings.Split(got, "\n") {
			require.LessOrEqual(t, len(line), historyLine)
		}
	})
}

// A task of which an earlier run is still owed is kept, though nobody is owed its last one.
func TestOwedEarlierRunIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Retention: Retention{Age: time.Minute}})
		one := launch(t, m, taking("p", "1s"))
		pass(2 * time.Second)
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", NoNotice: true})
		require.NoError(t, err)
		pass(time.Hour)
		require.Len(t, m.Pending("p").Notices, 1)
		require.NoError(t, second(m.Get(one.ID)))
		_, ack, ok := m.Drain("p")
		require.True(t, ok)
		ack(true)
		pass(2 * time.Minute)
		require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
	})
}

// A task that goes on again and again takes no more room for it, also where nothing grows
// old.
func TestShelfOfResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Retention: keepAll})
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		two := launch(t, m, taking("p", "1s"))
		for range 50 {
			pass(time.Minute)
			resume(t, m, two.ID, "1s")
		}
		pass(time.Minute)
		m.mu.Lock()
		defer m.mu.Unlock()
		require.LessOrEqual(t, len(m.shelf.tasks), 4)
	})
}

// The session that came late to a task, and can't be given up, is not found once the task
// is forgotten.
func TestLateSessionOfTheForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(2 * time.Minute)
			return "late", nil
		}
		c.release = func(context.Context, SessionID) error { return errors.New("no") }
		m := newManager(t, c, Config{Retention: Retention{Age: time.Minute, Together: Off}})
		in := work("p")
		in.NoNotice = true
		one := launch(t, m, in)
		pass(time.Hour)
		require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
		require.ErrorIs(t, second(m.BySession("late")), ErrNotFound)
	})
}

// No Release begins after Close has returned, however many sessions were left.
func TestNoReleaseBeginsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, let := timed(), make(chan struct{})
		var calls atomic.Int32
		c.release = func(context.Context, SessionID) error {
			calls.Add(1)
			<-let
			return nil
		}
		m, err := New(c, Config{})
		require.NoError(t, err)
		for range 20 {
			launch(t, m, taking("p", "1s"))
		}
		pass(time.Minute)
		var list *UnstoppedError
		require.True(t, errors.As(m.Close(), &list))
		require.Len(t, list.Calls, 20)
		before := calls.Load()
		close(let)
		pass(time.Minute)
		require.Equal(t, before, calls.Load())
	})
}

// What an ended child was itself owed is older than its own notice, and is given up before
// it: else a run could be forgotten in the instant of its ending, before that is told, and
// nobody who waits for it would ever hear of it.
func TestEndingIsToldBeforeItsTaskIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Mailbox: MailboxPolicy{KeepCount: 1}, Retention: Retention{Bytes: 1}})
		events, err := m.Subscribe(t.Context(), Filter{Statuses: []Status{Completed}}, TopicStatus)
		require.NoError(t, err)
		var ended []TaskID
		go func() {
			for e := range events {
				ended = append(ended, e.Task.ID)
			}
		}()
		top := launch(t, m, taking("p", "2s"))
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, top.ID).Session, "1s"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = m.WaitAll(ctx, Filter{Parent: "p"})
		require.NoError(t, err, "it has ended after 2 s")
		synctest.Wait()
		require.Equal(t, []TaskID{below.ID, top.ID}, ended)
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		defer ack(true)
		require.Equal(t, top.ID, n.Notices[0].Task, "the older one is given up")
	})
}

// A session whose Release ended its goroutine is given up once more by Close.
func TestGoexitInRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, calls := timed(), 0
		c.release = func(context.Context, SessionID) error {
			if calls++; calls == 1 {
				runtime.Goexit()
			}
			return nil
		}
		m := newManager(t, c, Config{Retention: Retention{Age: time.Minute}})
		in := taking("p", "1s")
		in.NoNotice = true
		launch(t, m, in)
		pass(time.Hour)
		require.Equal(t, 1, calls)
		require.NoError(t, m.Close())
		require.Equal(t, 2, calls)
	})
}

// So is one that came too late.
func TestGoexitInLateRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := &stub{create: func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(5 * time.Second)
			return "late", nil
		}}
		c.release = func(context.Context, SessionID) error {
			if calls++; calls == 1 {
				runtime.Goexit()
			}
			return nil
		}
		m := newManager(t, c, Config{Task: TaskLimits{Start: time.Second}})
		launch(t, m, work("p"))
		pass(time.Minute)
		require.Equal(t, 1, calls)
		require.NoError(t, m.Close())
		require.Equal(t, 2, calls)
	})
}
