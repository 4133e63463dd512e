package subagent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// family is a tree of tasks around the session of one of them, "own".
type family struct {
	m       *BackgroundManager
	client  *talking
	session SessionID // of own
	tasks   map[string]Task
}

// relatives are the tasks of a family: how deep below "main" or "elsewhere", and whether own
// reaches them.
var relatives = []struct {
	name, above string
	reached     bool
}{
	{"own", "", true}, {"child", "own", true}, {"grandchild", "child", true},
	{"sibling", "", false}, {"niece", "sibling", false}, {"stranger", "elsewhere", false},
}

// raise makes a family whose tasks run until they are stopped or let go.
func raise(t *testing.T) *family {
	f := &family{client: &talking{stub: &stub{prompt: hang}}, tasks: map[string]Task{}}
	f.m = newManager(t, f.client, Config{Keys: KeyLimits{Default: Off}})
	for _, k := range relatives {
		parent := SessionID("main")
		if above, ok := f.tasks[k.above]; ok {
			parent = above.Session
		} else if k.above != "" {
			parent = SessionID(k.above)
		}
		in := work(parent)
		in.Description = k.name
		task := launch(t, f.m, in)
		synctest.Wait()
		f.tasks[k.name] = get(t, f.m, task.ID)
	}
	f.session = f.tasks["own"].Session
	return f
}

// byID are the verbs that name a task, with what each of them is told of it.
var byID = map[string]func(ctx context.Context, s Scoped, id TaskID, session SessionID) (Task, error){
	"Get": func(_ context.Context, s Scoped, id TaskID, _ SessionID) (Task, error) { return s.Get(id) },
	"BySession": func(_ context.Context, s Scoped, _ TaskID, session SessionID) (Task, error) {
		return s.BySession(session)
	},
	"Wait": func(ctx context.Context, s Scoped, id TaskID, _ SessionID) (Task, error) { return s.Wait(ctx, id) },
	"Output": func(ctx context.Context, s Scoped, id TaskID, _ SessionID) (Task, error) {
		o, err := s.Output(ctx, id, OutputQuery{Transcript: true})
		return o.Task, err
	},
	"Output, waiting": func(ctx context.Context, s Scoped, id TaskID, _ SessionID) (Task, error) {
		o, err := s.Output(ctx, id, OutputQuery{Wait: time.Second})
		return o.Task, err
	},
	"Cancel": func(ctx context.Context, s Scoped, id TaskID, _ SessionID) (Task, error) {
		return s.Cancel(ctx, id, CancelOptions{})
	},
	"Cancel, pending": func(ctx context.Context, s Scoped, id TaskID, _ SessionID) (Task, error) {
		return s.Cancel(ctx, id, CancelOptions{OnlyPending: true})
	},
}

// byFilter are the verbs that choose tasks, with what they chose.
var byFilter = map[string]func(ctx context.Context, s Scoped, f Filter) ([]Task, error){
	"List": func(_ context.Context, s Scoped, f Filter) ([]Task, error) { return s.List(f), nil },
	"WaitAny": func(ctx context.Context, s Scoped, f Filter) ([]Task, error) {
		task, err := s.WaitAny(ctx, f)
		return []Task{task}, err
	},
	"WaitAll": func(ctx context.Context, s Scoped, f Filter) ([]Task, error) { return s.WaitAll(ctx, f) },
	"CancelAll": func(ctx context.Context, s Scoped, f Filter) ([]Task, error) {
		return s.CancelAll(ctx, f, CancelOptions{})
	},
}

// shape is an error without the ids in it: its types, and its text.
func shape(err error, id TaskID, session SessionID) string {
	if err == nil {
		return "nil"
	}
	text := err.Error()
	if session != "" {
		text = strings.ReplaceAll(text, string(session), "SESSION")
	}
	text = strings.ReplaceAll(text, string(id), "ID")
	for ; err != nil; err = errors.Unwrap(err) {
		text = reflect.TypeOf(err).String() + " " + text
	}
	return text
}

// 44, T3: a task of another is as unknown as an id that never was: the same error, at
// once, without a call of the client, and nothing is changed. That is so for all verbs,
// whether the task goes on or has ended.
func TestForeignIsUnknown(t *testing.T) {
	for name, verb := range byID {
		for _, ended := range []bool{false, true} {
			for _, k := range relatives {
				t.Run(fmt.Sprintf("%s/%s/ended %v", name, k.name, ended), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := raise(t)
						task := f.tasks[k.name]
						if ended {
							_, err := f.m.Cancel(t.Context(), task.ID, CancelOptions{Silent: true})
							require.NoError(t, err)
							synctest.Wait()
						}
						s, before, began := f.m.As(f.session), f.m.List(Filter{}), time.Now()
						ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
						defer cancel()
						calls := f.client.calls.Load() + f.client.aborts.Load()
						got, err := verb(ctx, s, task.ID, task.Session)
						if k.reached {
							require.NotErrorIs(t, err, ErrNotFound)
							require.Equal(t, task.ID, got.ID)
							return
						}
						_, never := verb(ctx, s, "bg_never", "ses_never")
						require.ErrorIs(t, err, ErrNotFound)
						require.Equal(t, shape(never, "bg_never", "ses_never"), shape(err, task.ID, task.Session))
						require.Zero(t, got.ID)
						require.Equal(t, began, time.Now())
						require.Equal(t, calls, f.client.calls.Load()+f.client.aborts.Load())
						require.Equal(t, before, f.m.List(Filter{}))
					})
				})
			}
		}
	}
}

// A filter of a scoped call can only narrow: what names a foreign session or task
// matches what one that never was does, and that is nothing.
func TestForeignFilterMatchesNothing(t *testing.T) {
	for name, verb := range byFilter {
		for _, k := range relatives {
			if k.reached {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				f := raise(t)
				later := launch(t, f.m, work(f.session)) // which comes after all others
				synctest.Wait()
				require.Equal(t, later.ID, f.m.As(f.session).List(Filter{After: f.tasks["grandchild"].ID})[0].ID)
				s, task, before, began := f.m.As(f.session), f.tasks[k.name], f.m.List(Filter{}), time.Now()
				for i, foreign := range []Filter{
					{IDs: []TaskID{task.ID}}, {Parent: task.Session}, {Parent: task.Parent, Labels: map[string]string{}, Agent: "worker", IDs: []TaskID{task.ID}},
					{Under: task.Session}, {Root: task.Session},
				} {
					never := []Filter{
						{IDs: []TaskID{"bg_never"}}, {Parent: "ses_never"}, {Parent: "ses_never", Agent: "worker", IDs: []TaskID{"bg_never"}},
						{Under: "ses_never"}, {Root: "ses_never"},
					}[i]
					got, err := verb(t.Context(), s, foreign)
					want, wantErr := verb(t.Context(), s, never)
					require.Equal(t, want, got, "%s of %+v", name, foreign)
					require.Equal(t, shape(wantErr, "bg_never", "ses_never"), shape(err, task.ID, task.Session))
				}
				require.Equal(t, began, time.Now())
				require.Equal(t, before, f.m.List(Filter{}))
				require.Nil(t, s.List(Filter{After: task.ID}))
				require.Nil(t, s.List(Filter{After: "bg_never"}))
			})
		}
	}
}

func names(tasks []Task) (list []string) {
	for _, task := range tasks {
		list = append(list, task.Description)
	}
	return list
}

// A session sees its own task and those below it; it waits for, and cancels, what is
// below it only.
func TestScopedFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := raise(t)
		s := f.m.As(f.session)
		require.Equal(t, []string{"own", "child", "grandchild"}, names(s.List(Filter{})))
		require.Equal(t, []string{"own", "child", "grandchild"}, names(s.List(Filter{Root: "main"})))
		require.Equal(t, []string{"own"}, names(s.List(Filter{Parent: "main"})))
		require.Equal(t, []string{"child", "grandchild"}, names(s.List(Filter{After: f.tasks["own"].ID})))
		require.Equal(t, []string{"grandchild"}, names(s.List(Filter{Parent: f.tasks["child"].Session})))
		require.Equal(t, []string{"child"}, names(s.List(Filter{IDs: []TaskID{f.tasks["stranger"].ID, f.tasks["child"].ID}})))

		_, err := s.WaitAny(t.Context(), Filter{IDs: []TaskID{f.tasks["own"].ID}})
		require.ErrorIs(t, err, ErrNotFound, "it would wait for itself")
		go func() {
			time.Sleep(time.Second)
			_, _ = f.m.Cancel(t.Context(), f.tasks["child"].ID, CancelOptions{})
		}()
		all, err := s.WaitAll(t.Context(), Filter{})
		require.NoError(t, err)
		require.Equal(t, []string{"child", "grandchild"}, names(all))
		require.Equal(t, Running, get(t, f.m, f.tasks["own"].ID).Status)

		_, err = s.CancelAll(t.Context(), Filter{}, CancelOptions{})
		var input *InputError
		require.ErrorAs(t, err, &input, "a filter that names nothing")
	})
}

// Under is a session above, as far as it is within reach.
func TestScopedCancelAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := raise(t)
		stopped, err := f.m.As(f.session).CancelAll(t.Context(), Filter{Under: "main"}, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, []string{"child", "grandchild"}, names(stopped))
		require.ErrorIs(t, stopped[0].Reason, ByParent)
		for _, name := range []string{"own", "sibling", "niece", "stranger"} {
			require.Equal(t, Running, get(t, f.m, f.tasks[name].ID).Status, name)
		}
		require.Empty(t, f.m.Pending(f.session).Notices)
	})
}

// The cause of a cancel that names none: the parent's own call is not told again, and
// all others are.
func TestScopedCause(t *testing.T) {
	for name, want := range map[string]ReasonCode{"own": ByUser, "child": ByParent, "grandchild": ByUser} {
		for cause, want := range map[ReasonCode]ReasonCode{"": want, Superseded: Superseded, ByParent: ByParent} {
			for verb, cancel := range map[string]func(context.Context, *family, Scoped) error{
				"Cancel": func(ctx context.Context, f *family, s Scoped) error {
					_, err := s.Cancel(ctx, f.tasks[name].ID, CancelOptions{Cause: cause})
					return err
				},
				"CancelAll": func(ctx context.Context, f *family, s Scoped) error {
					_, err := s.CancelAll(ctx, Filter{IDs: []TaskID{f.tasks[name].ID}}, CancelOptions{Cause: cause})
					return err
				},
			} {
				if name == "own" && verb == "CancelAll" {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					f := raise(t)
					require.NoError(t, cancel(t.Context(), f, f.m.As(f.session)))
					ended := get(t, f.m, f.tasks[name].ID)
					require.ErrorIs(t, ended.Reason, want, "%s of %s", verb, name)
					require.Len(t, f.m.Pending(ended.Parent).Notices, map[bool]int{true: 0, false: 1}[want == ByParent], "%s of %s", verb, name)
				})
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // deeper ones, among them all below
		f := raise(t)
		_, err := f.m.As("main").CancelAll(t.Context(), Filter{Parent: f.session}, CancelOptions{})
		require.NoError(t, err)
		require.ErrorIs(t, get(t, f.m, f.tasks["child"].ID).Reason, ByUser)
		require.Len(t, f.m.Pending(f.session).Notices, 1)
	})
}

// A scoped launch is one of the session itself.
func TestScopedLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{})
		s, own, other := m.As("p"), work(""), work("q")
		for _, in := range []LaunchInput{own, work("p")} {
			require.NoError(t, s.CanLaunch(t.Context(), in))
			task, err := s.Launch(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, SessionID("p"), task.Parent)
			task, err = s.Do(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, SessionID("p"), task.Parent)
			require.Equal(t, "ok", task.Result.Text)
		}
		other.NoNotice = true
		synctest.Wait()
		before := inventory(m)
		_, err := s.Launch(t.Context(), other)
		_, doErr := s.Do(t.Context(), other)
		for _, err := range []error{err, doErr, s.CanLaunch(t.Context(), other)} {
			require.EqualError(t, err, `subagent: LaunchInput.Parent is "q": must be the session of As, "p", or empty for it`)
		}
		require.Equal(t, before, inventory(m))
		synctest.Wait()
		require.Len(t, s.Pending().Notices, 2)
		require.Empty(t, m.As("q").Pending().Notices)
		_, _, ok := m.As("q").Drain()
		require.False(t, ok)
		n, ack, ok := s.Drain()
		require.True(t, ok)
		ack(true)
		require.Len(t, n.Notices, 2)
	})
}

// What is bound to no session, or to no manager, sees nothing.
func TestScopedToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{})
		in := work("")
		in.NoNotice = true
		task := launch(t, m, in)
		synctest.Wait()
		task = get(t, m, task.ID)
		before := inventory(m)
		var none *BackgroundManager
		for name, s := range map[string]Scoped{"no session": m.As(""), "zero": {}, "nil": none.As("p"), "zero manager": (&BackgroundManager{}).As("p")} {
			var input *InputError
			for verb, call := range byID {
				_, err := call(t.Context(), s, task.ID, task.Session)
				require.ErrorAs(t, err, &input, "%s of %s", verb, name)
			}
			for verb, call := range byFilter {
				got, err := call(t.Context(), s, Filter{IDs: []TaskID{task.ID}})
				if verb == "List" {
					require.Empty(t, got)
				} else {
					require.ErrorAs(t, err, &input, "%s of %s", verb, name)
				}
			}
			_, err := s.Launch(t.Context(), in)
			require.ErrorAs(t, err, &input)
			_, err = s.Do(t.Context(), in)
			require.ErrorAs(t, err, &input)
			require.ErrorAs(t, s.CanLaunch(t.Context(), in), &input)
			require.Zero(t, s.Pending())
			_, _, ok := s.Drain()
			require.False(t, ok)
		}
		require.Equal(t, before, inventory(m))
	})
}

// A session that the host made below a child is below the child's parents too.
func TestScopedOverSessionsOfTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, kinOf(map[SessionID]SessionID{"host": "p", "p": "", "q": ""}), Config{})
		task := launch(t, m, work("host"))
		for session, sees := range map[SessionID]bool{"p": true, "host": true, "q": false} {
			_, err := m.As(session).Get(task.ID)
			require.Equal(t, sees, err == nil, session)
		}
	})
}

// C173, C181: a parent that has read how its child ended is not told of it, whatever it
// read it by. What was not shown to it, or not as an ending, or to another, is told.
func TestReadIsNotTold(t *testing.T) {
	id := func(f *family, name string) TaskID { return f.tasks[name].ID }
	one := func(f *family) Filter { return Filter{IDs: []TaskID{id(f, "child")}} }
	for name, c := range map[string]struct {
		read func(ctx context.Context, f *family, s Scoped)
		told int
	}{
		"Get":       {func(_ context.Context, f *family, s Scoped) { _, _ = s.Get(id(f, "child")) }, 0},
		"BySession": {func(_ context.Context, f *family, s Scoped) { _, _ = s.BySession(f.tasks["child"].Session) }, 0},
		"Wait":      {func(ctx context.Context, f *family, s Scoped) { _, _ = s.Wait(ctx, id(f, "child")) }, 0},
		"WaitAny":   {func(ctx context.Context, f *family, s Scoped) { _, _ = s.WaitAny(ctx, one(f)) }, 0},
		"WaitAll":   {func(ctx context.Context, f *family, s Scoped) { _, _ = s.WaitAll(ctx, one(f)) }, 0},
		"Output":    {func(ctx context.Context, f *family, s Scoped) { _, _ = s.Output(ctx, id(f, "child"), OutputQuery{}) }, 0},
		"Output, waiting": {func(ctx context.Context, f *family, s Scoped) {
			_, _ = s.Output(ctx, id(f, "child"), OutputQuery{Wait: time.Hour})
		}, 0},
		"List":          {func(_ context.Context, f *family, s Scoped) { _ = s.List(one(f)) }, 1},
		"a late Cancel": {func(ctx context.Context, f *family, s Scoped) { _, _ = s.Cancel(ctx, id(f, "child"), CancelOptions{}) }, 1},
		"a bad query": {func(ctx context.Context, f *family, s Scoped) {
			_, _ = s.Output(ctx, id(f, "child"), OutputQuery{Limit: -1})
		}, 1},
		"by the host":        {func(_ context.Context, f *family, _ Scoped) { _, _ = f.m.Get(id(f, "child")) }, 1},
		"by the grandparent": {func(_ context.Context, f *family, _ Scoped) { _, _ = f.m.As("main").Get(id(f, "child")) }, 1},
		"by the child": {func(_ context.Context, f *family, _ Scoped) {
			_, _ = f.m.As(f.tasks["child"].Session).Get(id(f, "child"))
		}, 1},
		"of another": {func(_ context.Context, f *family, s Scoped) { _, _ = s.Get(id(f, "own")) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := raise(t)
				_, err := f.m.Cancel(t.Context(), id(f, "child"), CancelOptions{})
				require.NoError(t, err)
				c.read(t.Context(), f, f.m.As(f.session))
				c.read(t.Context(), f, f.m.As(f.session)) // again is no more
				require.Len(t, f.m.Pending(f.session).Notices, c.told)
				require.Equal(t, 1-c.told, f.m.Stats().Notices.Read)
			})
		})
	}
}

// Waiters that were there when the run ended have seen it too.
func TestWaitedForIsNotTold(t *testing.T) {
	for name, verb := range map[string]func(ctx context.Context, s Scoped, id TaskID) error{
		"Wait": func(ctx context.Context, s Scoped, id TaskID) error { _, err := s.Wait(ctx, id); return err },
		"WaitAny": func(ctx context.Context, s Scoped, id TaskID) error {
			_, err := s.WaitAny(ctx, Filter{IDs: []TaskID{id}})
			return err
		},
		"WaitAll": func(ctx context.Context, s Scoped, id TaskID) error { _, err := s.WaitAll(ctx, Filter{}); return err },
		"Output": func(ctx context.Context, s Scoped, id TaskID) error {
			_, err := s.Output(ctx, id, OutputQuery{Wait: time.Minute})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &inbox{}
				m := newManager(t, timed(), Config{Notifier: box})
				task := launch(t, m, taking("p", "1s"))
				require.NoError(t, verb(t.Context(), m.As("p"), task.ID))
				pass(time.Minute)
				require.Empty(t, box.all())
				require.Equal(t, 1, m.Stats().Notices.Read)
			})
		})
	}
}

// Of several siblings those that were not read are told, and a batch that was begun is
// closed although the last one was read.
func TestReadOfOneOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		first, second := launch(t, m, taking("p", "1s")), launch(t, m, taking("p", "1s"))
		third := launch(t, m, taking("p", "10s"))
		pass(time.Second)
		_, err := m.As("p").Get(second.ID)
		require.NoError(t, err)
		pass(5 * time.Second)
		require.Equal(t, []TaskID{first.ID}, toldTo("p", box.all()))
		_, err = m.As("p").Wait(t.Context(), third.ID)
		require.NoError(t, err)
		pass(time.Minute)
		require.Equal(t, []TaskID{first.ID}, toldTo("p", box.all()))
		require.Len(t, box.all(), 2)
		require.True(t, box.all()[1].Final)
	})
}

// What is on its way when it is read may have arrived: it stays as it is.
func TestReadOfWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		task := launch(t, m, taking("p", "1s"))
		pass(time.Second)
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		_, err := m.As("p").Get(task.ID)
		require.NoError(t, err)
		ack(false)
		again, ack, ok := m.Drain("p")
		require.True(t, ok)
		ack(true)
		require.Equal(t, n, again)
		require.Zero(t, m.Stats().Notices.Read)
	})
}

// What a session is shown after its own task has ended, or while that is being stopped,
// nobody reads: the next session above is told of it.
func TestReadByAnEndedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{})
		own := launch(t, m, asks("main", "", "own"))
		synctest.Wait()
		own = get(t, m, own.ID)
		child := launch(t, m, asks(own.Session, "", "child"))
		s.end("own", "child")
		_, err := m.As(own.Session).Get(child.ID)
		require.NoError(t, err)
		require.Len(t, m.Pending("main").Notices, 2)
		require.Zero(t, m.Stats().Notices.Read)
	})
	synctest.Test(t, func(t *testing.T) {
		client := &stub{prompt: hang, abort: func(context.Context, SessionID) error { time.Sleep(time.Second); return nil }}
		m := newManager(t, client, Config{})
		own := launch(t, m, work("main"))
		synctest.Wait()
		own = get(t, m, own.ID)
		child := launch(t, m, work(own.Session))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), child.ID, CancelOptions{Cause: Superseded})
		require.NoError(t, err)
		go func() { _, _ = m.Cancel(t.Context(), own.ID, CancelOptions{}) }()
		synctest.Wait()
		require.Equal(t, Stopping, get(t, m, own.ID).Status)
		_, err = m.As(own.Session).Get(child.ID)
		require.NoError(t, err)
		pass(time.Minute)
		require.Len(t, m.Pending("main").Notices, 2)
	})
}

// 198: what is still said of a task that is not kept any more.
func TestForgottenError(t *testing.T) {
	e := &ForgottenError{Task: "bg_1", Session: "ses_1", Status: Completed, Run: 2}
	require.ErrorIs(t, e, ErrNotFound)
	require.NotErrorIs(t, e, ErrEnded)
	require.EqualError(t, e, `subagent: no such task any more: "bg_1"; run 2 was completed, in session "ses_1"`)
	e.Session = ""
	require.NotContains(t, e.Error(), "session")
}

// Who waits through As is not shown a task that has moved out of reach meanwhile.
func TestWaitOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: &inbox{}})
		task := track(t, m, "p", "theirs")
		type got struct {
			t   Task
			err error
		}
		waited, read, gaveUp := make(chan got, 1), make(chan got, 1), make(chan got, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { now, err := m.As("p").Wait(t.Context(), task.ID); waited <- got{now, err} }()
		go func() {
			o, err := m.As("p").Output(t.Context(), task.ID, OutputQuery{Wait: time.Minute})
			read <- got{o.Task, err}
		}()
		go func() { now, err := m.As("p").Wait(ctx, task.ID); gaveUp <- got{now, err} }()
		pass(time.Second)
		track(t, m, "q", "theirs")
		require.ErrorIs(t, second(m.As("p").Get(task.ID)), ErrNotFound)
		cancel()
		synctest.Wait()
		turn <- Result{Text: "for q alone"}
		pass(time.Minute)
		for name, ch := range map[string]chan got{"Wait": waited, "Output": read, "Wait given up": gaveUp} {
			g := <-ch
			require.Equal(t, unknown(task.ID), g.err, "%s: %+v", name, g.t.Result)
			require.Zero(t, g.t, name)
		}
	})
}

// What is bound to no manager, or to no session, is refused and told how to be made.
func TestScopedOfNothing(t *testing.T) {
	unmade := wrong("Scoped", "nil or its zero value", "make one with As, of a manager that New has made")
	unmade(t, second(Scoped{}.Launch(t.Context(), work("p"))))
	unmade(t, second((*BackgroundManager)(nil).As("p").Get("bg_1")))
	m := newManager(t, &stub{}, Config{})
	for _, session := range []SessionID{"", " \n"} {
		wrong("As.session", strconv.Quote(string(session)), "a session is required")(t, second(m.As(session).Launch(t.Context(), LaunchInput{Agent: "a", Prompt: "x"})))
	}
}

// Nor who gives up to wait for its own Cancel.
func TestCancelOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := timed()
		let := make(chan struct{})
		c.abort = func(context.Context, SessionID) error { <-let; return nil }
		m := newManager(t, c, Config{})
		task := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		ctx := &lateCtx{Context: context.Background(), done: make(chan struct{})}
		moved := false
		ctx.err = func() error {
			if !moved { // its turn ends now, and it goes on for q
				moved = true
				close(let)
				_, _ = m.Wait(context.Background(), task.ID)
				synctest.Wait()
				_, err := m.Resume(context.Background(), task.ID, ResumeInput{Prompt: "1h", Parent: "q"})
				require.NoError(t, err)
			}
			return context.Canceled
		}
		close(ctx.done)
		got, err := m.As("p").Cancel(ctx, task.ID, CancelOptions{})
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, moved)
		require.Zero(t, got)
		require.Equal(t, SessionID("q"), get(t, m, task.ID).Parent)
	})
}
