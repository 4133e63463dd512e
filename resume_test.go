package subagent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func resume(t *testing.T, m *BackgroundManager, id TaskID, prompt string) Task {
	t.Helper()
	task, err := m.Resume(t.Context(), id, ResumeInput{Prompt: prompt})
	require.NoError(t, err)
	return task
}

// Scenarios 136 and C127: another run of the same task in the same session, through the
// same queue, and told of by itself.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, c := &inbox{}, timed()
		m := newManager(t, c, Config{Notifier: box, Keys: KeyLimits{Default: 1}})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		first := get(t, m, one.ID)
		hold := launch(t, m, taking("q", "10s"))
		two := resume(t, m, one.ID, "2s")
		require.Equal(t, one.ID, two.ID)
		require.Equal(t, Pending, two.Status)
		require.Equal(t, 2, two.Run)
		require.Equal(t, 1, two.Position, "it stands in line")
		require.Equal(t, first.Session, two.Session)
		require.Empty(t, two.Attempts)
		require.Zero(t, two.Started)
		require.Zero(t, two.Ended)
		require.Equal(t, first.Result, two.Result, "the earlier result can be read until it is replaced")
		require.Equal(t, 1, two.Result.Run)
		pass(5 * time.Second)
		require.Equal(t, Pending, get(t, m, one.ID).Status)
		pass(time.Minute)
		now := get(t, m, one.ID)
		require.Equal(t, Completed, now.Status)
		require.Equal(t, "took 2s", now.Result.Text)
		require.Equal(t, 2, now.Result.Run)
		require.Equal(t, 2*time.Second, now.Ended.Sub(now.Started))
		require.Equal(t, 2, now.Attempts[0].Run)
		require.EqualValues(t, 2, c.creates.Load(), "no second session for it")
		require.EqualValues(t, 3, c.prompts.Load())

		var runs []int
		for _, n := range box.all() {
			for _, notice := range n.Notices {
				if notice.Task == one.ID {
					runs = append(runs, notice.Run)
				}
			}
		}
		require.Equal(t, []int{1, 2}, runs)
		require.Equal(t, Completed, get(t, m, hold.ID).Status)
		require.Equal(t, 2, len(m.List(Filter{})), "no second record")
	})
}

// Whether a run's end is told is for that run alone.
func TestResumeIsToldOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		in := taking("p", "1s")
		in.NoNotice = true
		task := launch(t, m, in)
		pass(time.Minute)
		require.Empty(t, box.all())
		resume(t, m, task.ID, "1s")
		pass(time.Minute)
		require.Len(t, box.all(), 1)
		require.Equal(t, 2, box.all()[0].Notices[0].Run)
		_, err := m.Resume(t.Context(), task.ID, ResumeInput{Prompt: "1s", NoNotice: true})
		require.NoError(t, err)
		pass(time.Minute)
		require.Len(t, box.all(), 1)
	})
}

// A task that ended in any way can go on; its reason is that of the new run.
func TestResumeAfterAnyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		cancelled := launch(t, m, taking("p", "1h"))
		failed := launch(t, m, taking("p", "no duration"))
		pass(time.Second)
		_, err := m.Cancel(t.Context(), cancelled.ID, CancelOptions{})
		require.NoError(t, err)
		for _, id := range []TaskID{cancelled.ID, failed.ID} {
			require.NotNil(t, get(t, m, id).Reason)
			require.Nil(t, resume(t, m, id, "1s").Reason)
			pass(time.Minute)
			require.Equal(t, Completed, get(t, m, id).Status)
			require.Nil(t, get(t, m, id).Reason)
		}
	})
}

// Scenarios 137, 143, C122 to C124: what can't be resumed is refused, and nothing changed.
func TestResumeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := false
		admit := errors.New("not admitted")
		c := timed()
		abort := make(chan struct{})
		c.abort = func(context.Context, SessionID) error { <-abort; return nil }
		m := newManager(t, c, Config{Spawn: SpawnLimits{LivePerRoot: 4, QueueDepth: 1}, Keys: KeyLimits{Default: 2}, AbortGrace: time.Second, Admit: func(_ context.Context, in LaunchInput, _ Lineage) error {
			if in.Prompt == "refused" {
				return admit
			}
			return nil
		}})
		defer func() {
			if !over {
				close(abort)
			}
		}()
		done := launch(t, m, taking("p", "1s"))
		deleted := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		m.HandleEvent(SessionEvent{Session: get(t, m, deleted.ID).Session, Kind: EventDeleted})
		queued, err := m.Launch(t.Context(), LaunchInput{Parent: "p", Agent: "other", Prompt: "1h", Limits: &TaskLimits{}})
		require.NoError(t, err)
		synctest.Wait()
		unstopped, err := m.Launch(t.Context(), LaunchInput{Parent: "p", Agent: "other", Prompt: "1h"})
		require.NoError(t, err)
		synctest.Wait()
		never, err := m.Launch(t.Context(), LaunchInput{Parent: "p", Agent: "other", Prompt: "1h"})
		require.NoError(t, err)
		_, err = m.Cancel(t.Context(), never.ID, CancelOptions{})
		require.NoError(t, err)
		_, err = m.Cancel(t.Context(), unstopped.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for name, r := range map[string]struct {
			ctx  context.Context
			id   TaskID
			in   ResumeInput
			want error
		}{
			"unknown":        {nil, "bg_none", ResumeInput{Prompt: "1s"}, ErrNotFound},
			"runs":           {nil, queued.ID, ResumeInput{Prompt: "1s"}, ErrNotEnded},
			"no session":     {nil, never.ID, ResumeInput{Prompt: "1s"}, ErrNoSession},
			"deleted":        {nil, deleted.ID, ResumeInput{Prompt: "1s"}, ErrNoSession},
			"unstopped":      {nil, unstopped.ID, ResumeInput{Prompt: "1s"}, ErrUnstopped},
			"not admitted":   {nil, done.ID, ResumeInput{Prompt: "refused"}, admit},
			"context":        {ended, done.ID, ResumeInput{Prompt: "1s"}, context.Canceled},
			"its own child":  {nil, done.ID, ResumeInput{Prompt: "1s", Parent: get(t, m, done.ID).Session}, &InputError{}},
			"no prompt":      {nil, done.ID, ResumeInput{Prompt: " \n"}, &InputError{}},
			"a wrong number": {nil, done.ID, ResumeInput{Prompt: "1s", Limits: &TaskLimits{Start: 3}}, &InputError{}},
		} {
			synctest.Wait()
			if r.ctx == nil {
				r.ctx = t.Context()
			}
			before, was := inventory(m), get(t, m, done.ID)
			_, err := m.Resume(r.ctx, r.id, r.in)
			if input := (*InputError)(nil); errors.As(r.want, &input) {
				require.ErrorAs(t, err, &input, name)
			} else {
				require.ErrorIs(t, err, r.want, name)
			}
			require.Equal(t, before, inventory(m), name)
			require.Equal(t, was, get(t, m, done.ID), name)
		}
		_, err = m.ResumeSession(t.Context(), "", ResumeInput{Prompt: "1s"})
		wrong("ResumeSession.id", `""`, "a session is required")(t, err)
		_, err = m.ResumeSession(t.Context(), "ses_none", ResumeInput{Prompt: "1s"})
		require.ErrorIs(t, err, ErrNotFound)

		for range 3 {
			launch(t, m, taking("p", "1h"))
		}
		_, err = m.Resume(t.Context(), done.ID, ResumeInput{Prompt: "1s"})
		require.ErrorIs(t, err, ErrSpawnLimit, "it is live again")
		over = true
		close(abort)
		pass(time.Second)
	})
}

// Scenarios 138, C133, L3: of two that resume at the same time one wins: one prompt, one
// lease.
func TestL03OneResumeWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		m := newManager(t, c, Config{})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		session := get(t, m, one.ID).Session
		var wg sync.WaitGroup
		var mu sync.Mutex
		var lost []error
		for i := range 10 {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s"})
				} else {
					_, err = m.ResumeSession(t.Context(), session, ResumeInput{Prompt: "1s"})
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					lost = append(lost, err)
				}
			})
		}
		wg.Wait()
		require.Len(t, lost, 9)
		for _, err := range lost {
			require.ErrorIs(t, err, ErrNotEnded)
		}
		pass(time.Minute)
		require.EqualValues(t, 2, c.prompts.Load())
		require.Equal(t, 2, get(t, m, one.ID).Run)
	})
}

// Two that were planned before either began: the second one has been overtaken, also when
// the first run is over by then.
func TestResumeOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := make(chan struct{})
		m := newManager(t, timed(), Config{Admit: func(_ context.Context, in LaunchInput, _ Lineage) error {
			if in.Prompt == "3s" {
				<-wait
			}
			return nil
		}})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		slow := make(chan error)
		go func() {
			_, err := m.Resume(context.Background(), one.ID, ResumeInput{Prompt: "3s"})
			slow <- err
		}()
		synctest.Wait()
		resume(t, m, one.ID, "1s")
		pass(time.Minute)
		close(wait)
		require.ErrorIs(t, <-slow, ErrNotEnded)
		require.Equal(t, 2, get(t, m, one.ID).Run)
	})
}

// Scenario 139 and C126: a resumed run that is cancelled while it waits ends cancelled, and
// the record keeps the earlier result; one that runs is stopped itself.
func TestCancelResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		launch(t, m, taking("q", "1m"))
		synctest.Wait()
		resume(t, m, one.ID, "1s")
		_, err := m.Cancel(t.Context(), one.ID, CancelOptions{})
		require.NoError(t, err)
		now := get(t, m, one.ID)
		require.Equal(t, Cancelled, now.Status)
		require.Equal(t, "took 1s", now.Result.Text)
		require.Equal(t, 1, now.Result.Run)
		require.EqualValues(t, 2, c.prompts.Load(), "it never came to a prompt")
		require.Len(t, m.Pending("p").Notices, 2)
		require.Zero(t, m.Pending("p").Notices[1].Size, "of this run there is no result")

		pass(2 * time.Minute)
		resume(t, m, one.ID, "1h")
		pass(time.Second)
		_, err = m.Cancel(t.Context(), one.ID, CancelOptions{})
		require.NoError(t, err)
		require.NotZero(t, c.aborts.Load())
		require.Equal(t, Cancelled, get(t, m, one.ID).Status)
		require.Equal(t, 3, get(t, m, one.ID).Run)
	})
}

// C121: who waits for a run gets that one's outcome, whatever begins then.
func TestWaitAcrossResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		waited := make(chan Task, 1)
		go func() {
			ended, _ := m.Wait(context.Background(), one.ID)
			waited <- ended
		}()
		all := make(chan []Task, 1)
		pass(time.Second)
		resume(t, m, one.ID, "10s")
		go func() {
			ended, _ := m.WaitAll(context.Background(), Filter{Parent: "p"})
			all <- ended
		}()
		synctest.Wait()
		require.Equal(t, 1, (<-waited).Run)
		require.Empty(t, all, "the new run is live")
		pass(time.Minute)
		require.Equal(t, 2, (<-all)[0].Run)
	})
}

// C128: what the parent is owed for the first run it is told as it was, once, although the
// task goes on; and a final notification waits for the second.
func TestResumeWhileOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Second + 50*time.Millisecond)
		resume(t, m, one.ID, "no duration") // fails at once
		synctest.Wait()
		require.Equal(t, Failed, get(t, m, one.ID).Status)
		resume(t, m, one.ID, "2s")
		pass(time.Minute)
		got := box.all()
		require.Len(t, got, 2)
		require.Len(t, got[0].Notices, 2)
		require.False(t, got[0].Final)
		for i, want := range []Notice{{Run: 1, Status: Completed, Preview: "took 1s"}, {Run: 2, Status: Failed}} {
			n := got[0].Notices[i]
			require.Equal(t, want, Notice{Run: n.Run, Status: n.Status, Preview: n.Preview})
		}
		require.Equal(t, 3, got[1].Notices[0].Run)
		require.True(t, got[1].Final)
		require.Equal(t, 1, strings.Count(got[1].Text, "(run 3)"))
	})
}

// A notice of a run before is not withdrawn by a read of the present one.
func TestReadAfterResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		resume(t, m, one.ID, "1s")
		pass(time.Minute)
		reads(m, one.ID)
		o := m.Pending("p")
		require.Len(t, o.Notices, 1)
		require.Equal(t, 1, o.Notices[0].Run)
	})
}

// Scenario 146: with a new parent the task moves, with all below it: only that one is
// told, limits and trees are counted there, and what the old one waited for is over.
func TestResumeForAnotherParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Spawn: SpawnLimits{Depth: 4}})
		above := launch(t, m, taking("q", "1h"))
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, one.ID).Session
		below := launch(t, m, taking(session, "1h"))
		pass(time.Minute)
		require.Equal(t, 1, m.Pending("p").Live, "what it left running")
		up := get(t, m, above.ID).Session
		moved, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "5m", Parent: up, Origin: "call_2"})
		require.NoError(t, err)
		require.NoError(t, m.CheckBooks(nil, nil))
		require.Equal(t, up, moved.Parent)
		require.Equal(t, "call_2", moved.Origin)
		require.Equal(t, SessionID("q"), moved.Root)
		require.Equal(t, 2, moved.Depth)
		require.Equal(t, 3, get(t, m, below.ID).Depth)
		require.Equal(t, SessionID("q"), get(t, m, below.ID).Root)
		require.Zero(t, m.Pending("p").Live, "the old parent waits for nothing any more")
		require.Equal(t, 1, m.Pending(up).Live)
		require.Equal(t, 1, m.Pending(session).Live, "its own child is told to itself again")
		require.Equal(t, []TaskID{one.ID, below.ID}, idsOf(m.List(Filter{Under: up})))
		require.Empty(t, m.List(Filter{Under: "p"}))
		require.Empty(t, m.List(Filter{Parent: "p"}))
		_, err = m.Launch(t.Context(), taking(get(t, m, below.ID).Session, "1h"))
		require.NoError(t, err, "depth 4")

		before := len(toldTo("p", box.all()))
		pass(10 * time.Minute)
		require.Equal(t, []TaskID{one.ID}, toldTo(up, box.all()))
		require.Len(t, toldTo("p", box.all()), before)
		_, err = m.Cancel(t.Context(), above.ID, CancelOptions{})
		require.NoError(t, err)
		require.ErrorIs(t, get(t, m, below.ID).Reason, ParentGone, "it goes with its new ancestor")
		_, err = m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s"})
		require.ErrorIs(t, err, ErrParentEnded)
		_, err = m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", Parent: "p"})
		require.NoError(t, err, "another parent helps")
	})
}

func idsOf(tasks []Task) (ids []TaskID) {
	for _, t := range tasks {
		ids = append(ids, t.ID)
	}
	return ids
}

// A move is bounded by the depth and by the live descendants of the new root, which gets
// the whole tree.
func TestMoveIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Spawn: SpawnLimits{Depth: 2, LivePerRoot: 2}})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, one.ID).Session
		launch(t, m, taking(session, "1h"))
		pass(time.Minute)
		deep := launch(t, m, taking("q", "1h"))
		synctest.Wait()
		deepest := launch(t, m, taking(get(t, m, deep.ID).Session, "1h"))
		synctest.Wait()
		for parent, want := range map[SessionID]error{
			get(t, m, deepest.ID).Session: ErrDepthLimit, // it would be one too deep
			"q":                           ErrSpawnLimit,
		} {
			before := inventory(m)
			_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", Parent: parent})
			require.ErrorIs(t, err, want)
			require.Equal(t, before, inventory(m))
		}
	})
}

// L15 with a real session: what the session said before is no evidence for the new run,
// and its history is there.
func TestResumeGoesOnInItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Func(func(_ context.Context, turn Turn) (Result, error) {
			before, _ := turn.History.(string)
			if turn.Text == "silence" {
				return Result{}, nil
			}
			return Result{Text: before + turn.Text, History: before + turn.Text}, nil
		}), Config{})
		one := launch(t, m, asks("p", "", "a"))
		pass(time.Second)
		resume(t, m, one.ID, "b")
		pass(time.Second)
		require.Equal(t, "ab", get(t, m, one.ID).Result.Text)
		resume(t, m, one.ID, "silence")
		pass(time.Second)
		now := get(t, m, one.ID)
		require.ErrorIs(t, now.Reason, NoOutput)
		require.Zero(t, m.Pending("p").Notices[2].Size, "the old output does not pass for its own")
		out, err := m.Output(t.Context(), one.ID, OutputQuery{})
		require.NoError(t, err)
		require.Contains(t, out.String(), "Result of run 2, an earlier one:")
		require.NotContains(t, out.String(), "artial")
	})
}

// A task that is forgotten while the host is asked about its resume is not brought back to
// life outside of the books.
func TestForgottenDuringResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Retention: Retention{Age: time.Minute}, Admit: func(context.Context, LaunchInput, Lineage) error {
			if slow {
				time.Sleep(time.Hour)
			}
			return nil
		}})
		one := launch(t, m, taking("p", "1s"))
		pass(10 * time.Second)
		slow = true
		var forgotten *ForgottenError
		require.ErrorAs(t, second(m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s"})), &forgotten)
		require.Empty(t, m.Stats().Tasks)
	})
}

// What goes out of a session's reach while the host is asked is as unknown to it as ever.
func TestOutOfReachDuringResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		var above, below Task
		m = newManager(t, timed(), Config{Notifier: &inbox{}, Admit: func(ctx context.Context, in LaunchInput, _ Lineage) error {
			if in.Prompt == "2s" {
				return second(m.Resume(ctx, above.ID, ResumeInput{Prompt: "1h", Parent: "q"}))
			}
			return nil
		}})
		above = launch(t, m, taking("p", "1s"))
		synctest.Wait()
		below = launch(t, m, taking(get(t, m, above.ID).Session, "1s"))
		pass(10 * time.Second)
		_, err := m.As("p").Resume(t.Context(), below.ID, ResumeInput{Prompt: "2s"})
		require.Equal(t, unknown(below.ID), err)
		require.Equal(t, Completed, get(t, m, below.ID).Status)
	})
}

// What a parent is owed for a grandchild it is told as it was, though the child between
// them has moved away and the grandchild goes on there: each run once, to one parent.
func TestOwedOfWhatMovedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		above := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, above.ID).Session
		below := launch(t, m, taking(session, "2s"))
		pass(5 * time.Second)
		before := m.Pending("p").Notices
		require.Len(t, before, 2)
		_, err := m.Resume(t.Context(), above.ID, ResumeInput{Prompt: "1h", Parent: "q"})
		require.NoError(t, err)
		resume(t, m, below.ID, "1s")
		require.Equal(t, before, m.Pending("p").Notices)
		pass(time.Minute)
		require.Equal(t, before, m.Pending("p").Notices)
		require.Equal(t, 2, m.Pending(session).Notices[0].Run)
	})
}

// While an Abort of a run is out, although its turn has ended by itself, there is no other
// run: the Abort would stop that one's turn.
func TestResumeWaitsForAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		let := make(chan struct{})
		c.abort = func(context.Context, SessionID) error { <-let; return nil }
		m := newManager(t, c, Config{})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		began := time.Now()
		_, err := m.Cancel(t.Context(), one.ID, CancelOptions{})
		require.NoError(t, err, "the turn is over")
		require.Equal(t, 10*time.Second, time.Since(began), "Config.AbortGrace")
		var list *UnstoppedError
		_, err = m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s"})
		require.ErrorAs(t, err, &list)
		require.Equal(t, []UnstoppedCall{{Op: "abort", Task: one.ID, Session: get(t, m, one.ID).Session}}, list.Calls)
		close(let)
		synctest.Wait()
		resume(t, m, one.ID, "1s")
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, one.ID).Status)
	})
}

// A cancel that has returned is no hindrance for another run, though the Abort comes back
// later than the turn ends.
func TestResumeAfterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		c.abort = func(context.Context, SessionID) error { time.Sleep(300 * time.Millisecond); return nil }
		c.prompt = func(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
			select {
			case <-ctx.Done():
			case <-time.After(2*time.Second + 100*time.Millisecond):
			}
			return Result{Text: "what there was"}, nil
		}
		m := newManager(t, c, Config{})
		one := launch(t, m, work("p"))
		pass(2 * time.Second)
		_, err := m.Cancel(t.Context(), one.ID, CancelOptions{})
		require.NoError(t, err)
		resume(t, m, one.ID, "go on")

		pass(2 * time.Second)
		all, err := m.CancelAll(t.Context(), Filter{Parent: "p"}, CancelOptions{})
		require.NoError(t, err)
		require.Len(t, all, 1)
		resume(t, m, one.ID, "go on")

		pass(2 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		_, err = m.Cancel(ctx, one.ID, CancelOptions{})
		require.NoError(t, err, "it has ended; ctx bounds the wait")
		require.ErrorIs(t, second(m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "go on"})), ErrUnstopped)
	})
}

// What a session launches counts from where its task is now, also when none of what it
// launched before is below it any more, or none but by a session between them.
func TestLaunchBelowAMovedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		above := map[SessionID]SessionID{}
		c := &ancestry{parent: func(_ context.Context, id SessionID) (SessionID, error) { return above[id], nil }}
		c.prompt = timed().prompt
		m := newManager(t, c, Config{Spawn: SpawnLimits{Depth: 9}})
		deep := launch(t, m, taking("r", "1h"))
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, one.ID).Session
		above["between"] = session
		gone := launch(t, m, taking(session, "1s"))
		launch(t, m, taking("between", "1s"))
		pass(time.Minute)
		_, err := m.Resume(t.Context(), gone.ID, ResumeInput{Prompt: "1s", Parent: "q"})
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1h", Parent: get(t, m, deep.ID).Session})
		require.NoError(t, err)
		for parent, depth := range map[SessionID]int{session: 3, "between": 4} {
			below := launch(t, m, taking(parent, "1h"))
			require.Equal(t, depth, below.Depth, parent)
			require.Equal(t, SessionID("r"), below.Root, parent)
		}
		require.NoError(t, m.CheckBooks(nil, nil))

		pass(time.Second)
		away := m.List(Filter{Parent: "between"})
		require.Len(t, away, 2)
		_, err = m.Resume(t.Context(), away[0].ID, ResumeInput{Prompt: "1h", Parent: "q"})
		require.NoError(t, err)
		synctest.Wait()
		_, err = m.Cancel(t.Context(), one.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, Running, get(t, m, away[0].ID).Status, "the old ancestor is none of its own")
		require.ErrorIs(t, get(t, m, away[1].ID).Reason, ParentGone)
	})
}

// A notice waits where the one above was when its run ended. Though that moves, the next run
// does not pass for the one before.
func TestResumeBelowAMovedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, one.ID).Session, "1m"))
		pass(time.Hour)
		require.Len(t, m.Pending("p").Notices, 2)
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", Parent: "q"})
		require.NoError(t, err)
		pass(time.Minute)
		resume(t, m, below.ID, "no duration")
		pass(time.Minute)
		owed := m.Pending("p").Notices
		require.Len(t, owed, 2)
		require.Equal(t, Notice{Task: below.ID, Run: 1, Status: Completed}, Notice{Task: owed[1].Task, Run: owed[1].Run, Status: owed[1].Status})
	})
}

// A task that goes on below another root is one more there, and so is each of those that
// come along; the total counts all of them.
func TestMoveIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Spawn: SpawnLimits{LivePerRoot: 3, TotalPerRoot: 4}})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		session := get(t, m, one.ID).Session
		launch(t, m, taking(session, "1s"))
		synctest.Wait()
		launch(t, m, taking(session, "1h"))
		pass(time.Minute)
		for range 2 {
			launch(t, m, taking("full", "1h"))
		}
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1h", Parent: "full"})
		require.ErrorIs(t, err, ErrSpawnLimit, "two and two are more than three")
		_, err = m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", Parent: "q"})
		require.NoError(t, err)
		pass(time.Minute)
		launch(t, m, taking("q", "1s"))
		pass(time.Minute)
		var limit *LimitError
		_, err = m.Launch(t.Context(), taking("q", "1s"))
		require.ErrorAs(t, err, &limit)
		require.Equal(t, 4, limit.Used)
	})
}

// What is owed above for a task is found also when those between them are forgotten and
// their mailboxes gone.
func TestOwedPastTheForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Retention: Retention{Age: time.Minute}})
		parent, ids := SessionID("p"), []TaskID{}
		for _, d := range []string{"1s", "2s", "3s"} {
			in := taking(parent, d)
			in.NoNotice = d != "3s"
			task := launch(t, m, in)
			synctest.Wait()
			parent, ids = get(t, m, task.ID).Session, append(ids, task.ID)
		}
		pass(time.Hour)
		require.Equal(t, ids[2:], idsOf(m.List(Filter{})))
		before := m.Pending("p").Notices
		_, err := m.Resume(t.Context(), ids[2], ResumeInput{Prompt: "1s", Parent: "q"})
		require.NoError(t, err)
		require.Equal(t, before, m.Pending("p").Notices)
		require.Equal(t, 1, before[0].Run)
	})
}

// A session that was never prompted, as its task was stopped in the hook before that, has its
// hook again before it is; one that was prompted has not.
func TestResumeBeforeTheFirstPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, calls, over := timed(), 0, 0
		m := newManager(t, c, Config{Hooks: Hooks{SessionCreated: func(ctx context.Context, _ Task) {
			require.Zero(t, c.prompts.Load())
			calls++
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
				over++
			}
		}}})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), one.ID, CancelOptions{})
		require.NoError(t, err)
		for range 2 {
			resume(t, m, one.ID, "1s")
			pass(time.Minute)
			require.Equal(t, Completed, get(t, m, one.ID).Status)
			require.Equal(t, []int{2, 1}, []int{calls, over})
		}
	})
}

// Nothing is launched below a session that was deleted, whatever became of its task.
func TestLaunchBelowDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}})
		one := launch(t, m, taking("p", "1s"))
		pass(10 * time.Second)
		session := get(t, m, one.ID).Session
		m.HandleEvent(SessionEvent{Session: session, Kind: EventDeleted})
		_, err := m.Launch(t.Context(), taking(session, "1s"))
		require.ErrorIs(t, err, ErrParentEnded)
	})
}
