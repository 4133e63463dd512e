package subagent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Scenario 187: a wait ends with the run, without polling; scenario 78: the
// result is on the record.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		task := launch(t, m, taking("p", "1s"))
		began := time.Now()
		done, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "took 1s", done.Result.Text)
		again, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, done, again, "L28: reading does not consume")
		require.Equal(t, done, get(t, m, task.ID))
		bySession, err := m.BySession(done.Session)
		require.NoError(t, err)
		require.Equal(t, done, bySession)
		_, err = m.Wait(t.Context(), "bg_none")
		require.ErrorIs(t, err, ErrNotFound)
		_, err = m.BySession("ses_none")
		require.ErrorIs(t, err, ErrNotFound)
	})
}

// Scenarios 188 and 189.
func TestWaitGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		task := launch(t, m, taking("p", "10s"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		now, err := m.Wait(ctx, task.ID)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, Running, now.Status)
		pass(time.Minute)
		done, err := m.Wait(ctx, task.ID)
		require.NoError(t, err, "an ending wins over an ended context")
		require.Equal(t, Completed, done.Status)
	})
}

// Thousands of waits that were given up leave nothing behind.
func TestManyWaitersLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		task := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		for range 3000 {
			go func() { _, _ = m.Wait(ctx, task.ID) }()
			go func() { _, _ = m.WaitAll(ctx, Filter{Parent: "p"}) }()
			go func() { _, _ = m.WaitAny(ctx, Filter{IDs: []TaskID{task.ID}}) }()
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.Less(t, runtime.NumGoroutine(), before+100, "9000 waits were given up")
		require.Empty(t, m.watches)
	})
}

func TestWaitAny(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		want := []string{"1s", "2s", "3s"}
		var ids []TaskID
		for _, d := range []string{"3s", "1s", "2s"} {
			ids = append(ids, launch(t, m, taking("p", d)).ID)
		}
		for _, text := range want {
			task, err := m.WaitAny(t.Context(), Filter{IDs: ids})
			require.NoError(t, err)
			require.Equal(t, "took "+text, task.Result.Text)
			for i, id := range ids {
				if id == task.ID {
					ids = append(ids[:i:i], ids[i+1:]...)
					break
				}
			}
		}
		_, err := m.WaitAny(t.Context(), Filter{IDs: []TaskID{"bg_none"}})
		require.ErrorIs(t, err, ErrNotFound)
		_, err = m.WaitAny(t.Context(), Filter{Statuses: []Status{Failed}})
		var input *InputError
		require.ErrorAs(t, err, &input)
	})
}

// WaitAll counts tasks launched while it waits.
func TestWaitAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		launch(t, m, taking("p", "2s"))
		launch(t, m, taking("other", "1h"))
		go func() {
			time.Sleep(time.Second)
			_, _ = m.Launch(context.Background(), taking("p", "5s"))
		}()
		began := time.Now()
		tasks, err := m.WaitAll(t.Context(), Filter{Parent: "p"})
		require.NoError(t, err)
		require.Len(t, tasks, 2)
		require.Equal(t, 6*time.Second, time.Since(began))
		none, err := m.WaitAll(t.Context(), Filter{Parent: "nobody"})
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

// What WaitAll returns has ended, also beside a parent that launches on: the tasks are
// those that matched in the instant in which none was live.
func TestWaitAllReturnsEndedTasks(t *testing.T) {
	m := newManager(t, &stub{}, Config{Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}})
	for round := range 60 {
		parent := SessionID(fmt.Sprint("p", round))
		var g sync.WaitGroup
		var over atomic.Bool
		g.Go(func() {
			defer over.Store(true)
			for range 40 {
				_, _ = m.Launch(t.Context(), work(parent))
			}
		})
		var live atomic.Int64
		for range 2 {
			g.Go(func() {
				for !over.Load() {
					tasks, _ := m.WaitAll(t.Context(), Filter{Parent: parent})
					for _, task := range tasks {
						if !task.Status.Terminal() {
							live.Add(1)
						}
					}
				}
			})
		}
		g.Wait()
		require.Zero(t, live.Load(), "in round %d", round)
	}
}

// Nor beside resumes, which come between the pages in which many are copied.
func TestWaitAllBesideResumes(t *testing.T) {
	m := newManager(t, &stub{}, Config{Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}, Retention: keepAll})
	var last TaskID
	for range 3 * waitPage {
		last = launch(t, m, work("p")).ID
	}
	var over atomic.Bool
	var g sync.WaitGroup
	g.Go(func() {
		for !over.Load() {
			_, _ = m.Resume(t.Context(), last, ResumeInput{Prompt: "again"})
		}
	})
	for range 200 {
		tasks, err := m.WaitAll(t.Context(), Filter{Parent: "p"})
		assert.NoError(t, err)
		if !assert.True(t, len(tasks) == 3*waitPage && tasks[len(tasks)-1].Status.Terminal()) {
			break
		}
	}
	over.Store(true)
	g.Wait()
}

// One that goes on before it is copied is waited for again.
func TestWaitAllWaitsForWhatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		task := launch(t, m, taking("p", "1s"))
		pass(2 * time.Second)
		w, err := m.watch(host, Filter{Parent: "p"})
		require.NoError(t, err)
		defer m.unwatch(w)
		w.all = true
		for run := range 2 {
			require.True(t, m.awaitSettled(w, nil))
			if run == 0 {
				resume(t, m, task.ID, "1h")
			}
			list, ended := m.copies(host, w.settled)
			require.Equal(t, run == 1, ended)
			require.Len(t, list, 1, "each time anew")
		}
	})
}

// What a parent is shown of one run takes back no notice of the next.
func TestWaitAllReadsWhatItShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		shown := []Task{launch(t, m, taking("p", "1s"))}
		pass(2 * time.Second)
		resume(t, m, shown[0].ID, "1s")
		pass(2 * time.Second)
		m.seenAll("p", shown)
		require.Len(t, m.Pending("p").Notices, 2)
		m.seenAll("p", []Task{get(t, m, shown[0].ID)})
		require.Len(t, m.Pending("p").Notices, 1, "the first is written down, and told")
	})
}

// An ending that comes together with the end of a wait's context wins, in WaitAny as
// in Wait.
func TestWaitAnyAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, work("p"))
		pending := launch(t, m, work("p"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := m.WaitAny(ctx, Filter{IDs: []TaskID{pending.ID}})
			done <- err
		}()
		synctest.Wait()
		m.mu.Lock() // so that the wait, which its context ends, looks again when the task has ended
		cancel()
		m.stopLocked(m.byID[pending.ID], because(ByUser, nil), false)
		m.unlock()
		require.NoError(t, <-done)
	})
}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		done, err := m.Do(t.Context(), taking("p", "1s"))
		require.NoError(t, err)
		require.Equal(t, "took 1s", done.Result.Text)

		failed, err := m.Do(t.Context(), taking("p", "bad"))
		require.ErrorIs(t, err, SessionFailed)
		require.Equal(t, Failed, failed.Status)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cut, err := m.Do(ctx, taking("p", "1h"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, Cancelled, cut.Status)
		require.ErrorIs(t, cut.Reason, ByParent)

		_, err = m.Do(t.Context(), LaunchInput{})
		var input *InputError
		require.True(t, errors.As(err, &input))
		pass(time.Minute)
		require.Empty(t, box.all())
	})
}

// Do whose context has ended tells of a child that could not be stopped, as Cancel does.
func TestDoTellsOfAnUnstoppedChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		defer close(let)
		m := newManager(t, Func(func(context.Context, Turn) (Result, error) { <-let; return Result{Text: "at last"}, nil }), Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		task, err := m.Do(ctx, work("p"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, ErrUnstopped)
		require.Equal(t, Cancelled, task.Status)
		require.Equal(t, 1, m.Stats().Unstopped)
	})
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: Off}, Spawn: SpawnLimits{LivePerRoot: Off}})
		var all []TaskID
		for i := range 1000 {
			in := taking([]SessionID{"p", "q"}[i%2], "1s")
			in.Labels = map[string]string{"n": string(rune('a' + i%3))}
			all = append(all, launch(t, m, in).ID)
		}
		ids := func(list []Task) (got []TaskID) {
			for _, task := range list {
				got = append(got, task.ID)
			}
			return got
		}
		require.Equal(t, all, ids(m.List(Filter{})), "in order of launch, over all pages")
		require.Len(t, m.List(Filter{Parent: "p"}), 500)
		require.Len(t, m.List(Filter{Root: "q"}), 500)
		require.Len(t, m.List(Filter{Labels: map[string]string{"n": "a"}}), 334)
		require.Equal(t, all[10:15], ids(m.List(Filter{After: all[9], Limit: 5})))
		require.Equal(t, all[998:], ids(m.List(Filter{After: all[997]})))
		require.Empty(t, m.List(Filter{After: "bg_none"}))
		require.Empty(t, m.List(Filter{Limit: -1}))
		require.Equal(t, []TaskID{all[1], all[7]}, ids(m.List(Filter{IDs: []TaskID{all[7], all[1], all[7], "bg_none"}})))
		require.Empty(t, m.List(Filter{Statuses: []Status{Completed}}))
		pass(time.Minute)
		require.Len(t, m.List(Filter{Statuses: []Status{Completed}, Agent: "worker", Under: "p"}), 500)

		// What is handed out is a copy.
		list := m.List(Filter{Limit: 1})
		list[0].Labels["n"], list[0].Attempts[0].Model = "changed", "changed"
		again := m.List(Filter{Limit: 1})
		require.Equal(t, "a", again[0].Labels["n"])
		require.Empty(t, again[0].Attempts[0].Model)
	})
}

// Under finds descendants at every depth, also from the middle.
func TestUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{})
		a, b, c := tree(t, m)
		launch(t, m, work("elsewhere"))
		synctest.Wait()
		for _, x := range []struct {
			under SessionID
			want  []TaskID
		}{
			{"p", []TaskID{a.ID, b.ID, c.ID}},
			{get(t, m, a.ID).Session, []TaskID{b.ID, c.ID}},
			{get(t, m, b.ID).Session, []TaskID{c.ID}},
			{get(t, m, c.ID).Session, nil},
			{"unknown", nil},
		} {
			var got []TaskID
			for _, task := range m.List(Filter{Under: x.under}) {
				got = append(got, task.ID)
			}
			require.Equal(t, x.want, got)
		}
	})
}

// CancelAll cancels what its filter names, and all of it; a wait is for all that match,
// too. A filter that names nothing, a page of a list, or what is no status is refused
// by its field, and cancels nothing.
func TestFilterRefused(t *testing.T) {
	const (
		page   = "is for List only: all that match are cancelled"
		wait   = "is for List only: a wait is for all that match"
		empty  = "must say what to cancel; to cancel everything, set Statuses to Pending, Starting, Running and InputNeeded"
		status = "must be one from Pending to Interrupted"
		any    = "can't be set: a wait is for tasks whatever their status"
	)
	cancel := func(ctx context.Context, m *BackgroundManager, f Filter) error {
		ended, err := m.CancelAll(ctx, f, CancelOptions{})
		require.Empty(t, ended)
		return err
	}
	waitAny := func(ctx context.Context, m *BackgroundManager, f Filter) error {
		_, err := m.WaitAny(ctx, f)
		return err
	}
	waitAll := func(ctx context.Context, m *BackgroundManager, f Filter) error {
		_, err := m.WaitAll(ctx, f)
		return err
	}
	for _, c := range []struct {
		call               func(context.Context, *BackgroundManager, Filter) error
		filter             Filter
		field, value, rule string
	}{
		{cancel, Filter{}, "Filter", "empty", empty},
		{cancel, Filter{Labels: map[string]string{}}, "Filter", "empty", empty},
		{cancel, Filter{Parent: "p", Limit: 1}, "Filter.Limit", "1", page},
		{cancel, Filter{Parent: "p", Limit: -1}, "Filter.Limit", "-1", page},
		{cancel, Filter{Parent: "p", After: "bg_1"}, "Filter.After", `"bg_1"`, page},
		{cancel, Filter{After: "bg_1", Limit: 1}, "Filter.Limit", "1", page},
		{cancel, Filter{Statuses: []Status{Pending, 99}}, "Filter.Statuses[1]", "Status(99)", status},
		{cancel, Filter{Statuses: []Status{0}}, "Filter.Statuses[0]", "none", status},
		{cancel, Filter{Statuses: []Status{Interrupted, numStatuses}}, "Filter.Statuses[1]", "by reason", status},
		{waitAny, Filter{Limit: 3}, "Filter.Limit", "3", wait},
		{waitAny, Filter{Statuses: []Status{Failed}}, "Filter.Statuses", "[failed]", any},
		{waitAll, Filter{After: "bg_1"}, "Filter.After", `"bg_1"`, wait},
		{waitAll, Filter{Statuses: []Status{}}, "Filter.Statuses", "[]", any},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, &stub{prompt: hang}, Config{})
			launch(t, m, work("p"))
			launch(t, m, work("p"))
			wrong(c.field, c.value, c.rule)(t, c.call(t.Context(), m, c.filter))
			require.Empty(t, m.List(Filter{Statuses: []Status{Pending, 99}}))
			ended, err := m.CancelAll(t.Context(), Filter{Parent: "p"}, CancelOptions{})
			require.NoError(t, err)
			require.Len(t, ended, 2)
		})
	}
}

// A pending task, and one that has ended, has no goroutine, context or deadline.
func TestTasksAtRestCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: 2}, Spawn: SpawnLimits{LivePerRoot: Off}})
		for range 500 {
			launch(t, m, taking("p", "1s"))
		}
		synctest.Wait()
		rest := func(running int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			require.Equal(t, running, m.routines)
			require.Len(t, m.attempts, running)
			require.LessOrEqual(t, m.deadlines.Len(), 1, "that of what is owed to the parent")
		}
		rest(2)
		pass(time.Hour)
		require.Len(t, m.List(Filter{Statuses: []Status{Completed}}), 500)
		rest(0)
	})
}

// lateCtx ends a wait when its err does.
type lateCtx struct {
	context.Context
	done chan struct{}
	err  func() error
}

func (c *lateCtx) Done() <-chan struct{} { return c.done }

func (c *lateCtx) Err() error { return c.err() }

// Do gives up in the instant in which its run ends and another begins: that one goes on.
func TestDoGivesUpItsOwnRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		c := &lateCtx{Context: context.Background(), done: make(chan struct{})}
		var id TaskID
		over := false
		c.err = func() error {
			select {
			case <-c.done:
			default:
				return nil
			}
			if !over { // the run ends now, and somebody resumes it
				over = true
				_, _ = m.Wait(context.Background(), id)
				_, err := m.Resume(context.Background(), id, ResumeInput{Prompt: "1m"})
				require.NoError(t, err)
				synctest.Wait()
			}
			return context.Canceled
		}
		done := make(chan error, 1)
		go func() { _, err := m.Do(c, taking("p", "2s")); done <- err }()
		pass(time.Second)
		id = m.List(Filter{})[0].ID
		close(c.done)
		<-done
		pass(time.Hour)
		now := get(t, m, id)
		require.Equal(t, 2, now.Run)
		require.Equal(t, Completed, now.Status, "%v", now.Reason)
	})
}

// WaitAny over a resume: what has gone on by the time somebody looks is waited for again.
func TestWaitAnyOverResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		any := make(chan Task, 1)
		go func() { ended, _ := m.WaitAny(context.Background(), Filter{IDs: []TaskID{one.ID}}); any <- ended }()
		all := make(chan []Task, 1)
		go func() { ended, _ := m.WaitAll(context.Background(), Filter{IDs: []TaskID{one.ID}}); all <- ended }()
		_, _ = m.Wait(t.Context(), one.ID)
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1m"})
		require.NoError(t, err)
		pass(time.Hour / 2)
		require.True(t, (<-any).Status.Terminal())
		for _, task := range <-all {
			require.True(t, task.Status.Terminal())
		}
		require.Empty(t, m.watches)
	})
}

// What a wait is for was captured when it began.
func TestWaitKeepsItsFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		other, awaited := launch(t, m, taking("p", "1h")).ID, launch(t, m, taking("p", "1s")).ID
		ids, got := []TaskID{awaited}, make(chan TaskID, 1)
		go func() {
			ended, _ := m.WaitAny(t.Context(), Filter{IDs: ids})
			got <- ended.ID
		}()
		synctest.Wait()
		ids[0] = other
		require.Equal(t, awaited, <-got)
	})
}
