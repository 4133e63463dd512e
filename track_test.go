package subagent

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// attaching is a client of a host in which others prompt sessions too: their turns are
// over when a test says so.
type attaching struct {
	stub
	mu    sync.Mutex
	turns map[SessionID]chan Result
	tries []SessionID
}

func newAttaching() *attaching {
	a := &attaching{turns: map[SessionID]chan Result{}}
	a.stub.abort = func(_ context.Context, id SessionID) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.turns, id)
		return nil
	}
	return a
}

// runs has somebody else begin a turn.
func (a *attaching) runs(id SessionID) chan Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turns[id] = make(chan Result, 9)
	return a.turns[id]
}

func (a *attaching) Attach(ctx context.Context, id SessionID, p Prompt) (Result, error) {
	a.mu.Lock()
	a.tries = append(a.tries, id)
	over := a.turns[id]
	a.mu.Unlock()
	if over == nil {
		return Result{}, &SessionError{Op: "attach", Session: id, Class: ClassInvalid, Err: errors.New("it rests, and has said nothing")}
	}
	p.OnEvent(SessionEvent{Kind: EventTool, Tool: ToolCall{ID: "1", Name: "read"}})
	select {
	case r := <-over:
		return r, nil
	case <-ctx.Done():
		return Result{}, &SessionError{Op: "attach", Session: id, Class: ClassAborted, Err: ctx.Err()}
	}
}

func track(t *testing.T, m *BackgroundManager, parent, session SessionID) Task {
	t.Helper()
	task, err := m.Track(t.Context(), TrackInput{Parent: parent, Session: session, Agent: "worker"})
	require.NoError(t, err)
	return task
}

// A session that somebody else prompts becomes a task like any other.
func TestTrack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := newAttaching(), &inbox{}
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: box, Keys: KeyLimits{Default: 1}})
		task := track(t, m, "p", "theirs")
		require.Equal(t, Starting, task.Status)
		pass(time.Second)
		now := get(t, m, task.ID)
		require.Equal(t, Running, now.Status)
		require.Equal(t, 1, now.Progress.ToolCalls)
		require.Equal(t, SessionID("theirs"), now.Session)
		waits := launch(t, m, work("p"))
		require.Equal(t, Pending, waits.Status, "it holds a lease")
		below := launch(t, m, taking("theirs", "x"))
		require.Equal(t, 2, below.Depth)
		turn <- Result{Text: "found"}
		pass(time.Minute)
		require.Equal(t, "found", get(t, m, task.ID).Result.Text)
		require.Contains(t, toldTo("p", box.all()), task.ID)
		require.Zero(t, c.creates.Load()-2, "one for each of the others")
		again := resume(t, m, task.ID, "go on")
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, again.ID).Status)
		require.Equal(t, []SessionID{"theirs"}, c.tries, "a resumed run is prompted")
		require.NoError(t, m.Close())
		_, gone := c.released.Load(SessionID("theirs"))
		require.False(t, gone, "it is not ours to give up")
	})
}

// Scenario 147: what ends while it waits for its lease has its outcome all the same.
func TestTrackedEndsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.prompt = hang
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		hold := launch(t, m, work("p"))
		task := track(t, m, "p", "theirs")
		require.Equal(t, Pending, task.Status)
		turn <- Result{Text: "found"}
		pass(time.Minute)
		_, err := m.Cancel(t.Context(), hold.ID, CancelOptions{})
		require.NoError(t, err)
		pass(time.Second)
		require.Equal(t, "found", get(t, m, task.ID).Result.Text)
	})
}

// L11: tracked twice, at the same time, it is one record and one lease.
func TestL11TrackedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		m := newManager(t, c, Config{})
		var wg sync.WaitGroup
		ids := make([]TaskID, 10)
		for i := range ids {
			wg.Go(func() {
				task, err := m.Track(context.Background(), TrackInput{Parent: "p", Session: "theirs", Agent: "worker"})
				if err == nil {
					ids[i] = task.ID
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for _, id := range ids {
			require.Equal(t, ids[0], id)
		}
		require.Len(t, m.List(Filter{}), 1)
		require.Equal(t, 1, m.Stats().Keys[0].Held)
		turn <- Result{Text: "found"}
		pass(time.Minute)
		require.Len(t, c.tries, 1)
		require.Len(t, m.Pending("p").Notices, 1)

		turn = c.runs("theirs") // somebody prompts it again
		again := track(t, m, "p", "theirs")
		require.Equal(t, ids[0], again.ID)
		require.Equal(t, 2, again.Run)
		turn <- Result{Text: "more"}
		pass(time.Minute)
		require.Equal(t, "more", get(t, m, again.ID).Result.Text)
	})
}

// Scenario 146: tracked for another parent while it runs, only that one is told, and who
// waits for the children of either learns of it.
func TestTrackedMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := newAttaching(), &inbox{}
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: box})
		task := track(t, m, "p", "theirs")
		pass(time.Second)
		all := map[SessionID]chan []Task{"p": make(chan []Task, 1), "q": make(chan []Task, 1)}
		for parent, ended := range all {
			go func() {
				tasks, _ := m.WaitAll(context.Background(), Filter{Parent: parent})
				ended <- tasks
			}()
		}
		synctest.Wait()
		require.Empty(t, <-all["q"], "it has no children")
		go func() {
			other, _ := m.Launch(context.Background(), LaunchInput{Parent: "q", Agent: "a", Prompt: "x", NoNotice: true})
			_, _ = m.Wait(context.Background(), other.ID)
			tasks, _ := m.WaitAll(context.Background(), Filter{Parent: "q"})
			all["q"] <- tasks
		}()
		moved := track(t, m, "q", "theirs")
		require.Equal(t, task.ID, moved.ID)
		require.Equal(t, SessionID("q"), moved.Parent)
		synctest.Wait()
		require.NoError(t, m.CheckBooks(nil, nil))
		require.Empty(t, <-all["p"], "none of its children is left")
		require.Empty(t, all["q"])
		require.Zero(t, m.Pending("p"))
		turn <- Result{Text: "found"}
		pass(time.Minute)
		require.Len(t, <-all["q"], 2)
		require.Equal(t, []TaskID{task.ID}, toldTo("q", box.all()))
		require.Empty(t, toldTo("p", box.all()))
	})
}

// No child runs unseen: a tracked task that is cancelled while it waits has its turn
// stopped, and is listed until it is.
func TestTrackedIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.prompt = hang
		let := make(chan struct{})
		stop := c.abort
		c.abort = func(ctx context.Context, id SessionID) error { <-let; return stop(ctx, id) }
		c.runs("theirs")
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, work("p"))
		task := track(t, m, "p", "theirs")
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
		require.Equal(t, 1, m.Stats().Unstopped)
		synctest.Wait()
		require.Equal(t, 2, m.Stats().Calls, "a Prompt and the Abort")
		_, err = m.Resume(t.Context(), task.ID, ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, ErrUnstopped)
		close(let)
		synctest.Wait()
		require.Zero(t, m.Stats().Unstopped)
		require.Nil(t, get(t, m, task.ID).Attempts[0].Unstopped)
		require.EqualValues(t, 1, c.aborts.Load())
	})
}

// One that was left running while it waited is stopped by Shutdown.
func TestTrackedLeftRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.prompt = hang
		c.runs("theirs")
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		launch(t, m, work("p"))
		task := track(t, m, "p", "theirs")
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
		require.NoError(t, err)
		synctest.Wait()
		require.Zero(t, c.aborts.Load())
		require.Equal(t, 1, m.Stats().Unstopped)
		require.NoError(t, m.Close())
		require.Empty(t, c.turns, "its turn was stopped")
		require.Zero(t, m.Stats().Unstopped)
	})
}

// So is one that was left in the instant of its lease, before it was attached to.
func TestTrackedLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.runs("theirs")
		m := newManager(t, c, Config{})
		task := track(t, m, "p", "theirs")
		_, err := m.cancelOne(host, task.ID, CancelOptions{Cause: ByUser, LeaveRunning: true}) // before anything else runs
		require.NoError(t, err)
		synctest.Wait()
		require.Zero(t, c.aborts.Load())
		require.NoError(t, m.Close())
		require.Empty(t, c.turns, "its turn was stopped")
		require.Zero(t, m.Stats().Unstopped)
	})
}

// And tracked again it is seen again: to attach is how its end is found out.
func TestTrackedAfterItWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		m := newManager(t, c, Config{})
		task := track(t, m, "p", "theirs")
		_, err := m.cancelOne(host, task.ID, CancelOptions{Cause: ByUser, LeaveRunning: true}) // before anything else runs
		require.NoError(t, err)
		synctest.Wait()
		require.ErrorIs(t, second(m.Resume(t.Context(), task.ID, ResumeInput{Prompt: "x"})), ErrUnstopped)
		require.Equal(t, 2, track(t, m, "p", "theirs").Run)
		require.Zero(t, m.Stats().Unstopped)
		turn <- Result{Text: "found"}
		synctest.Wait()
		require.Equal(t, "found", get(t, m, task.ID).Result.Text)
		require.NoError(t, m.Close())
	})
}

func TestTrackRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		m := newManager(t, c, Config{})
		launch(t, m, work("p"))
		for name, in := range map[string]TrackInput{
			"no session":   {Parent: "p", Agent: "a"},
			"no parent":    {Session: "s", Agent: "a"},
			"no agent":     {Session: "s", Parent: "p"},
			"a parent":     {Session: "p", Parent: "q", Agent: "a"},
			"its own":      {Session: "s", Parent: "s", Agent: "a"},
			"wrong limits": {Session: "s", Parent: "p", Agent: "a", Limits: &TaskLimits{Start: -2}},
		} {
			synctest.Wait()
			before := inventory(m)
			_, err := m.Track(t.Context(), in)
			var input *InputError
			require.ErrorAs(t, err, &input, name)
			require.Equal(t, before, inventory(m), name)
		}
		_, err := newManager(t, &stub{}, Config{}).Track(t.Context(), TrackInput{Session: "s", Parent: "p", Agent: "a"})
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}

// Func can attach: to a turn that another manager's task is in, and to one that is over.
func TestFuncAttaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		client := Func(s.run)
		theirs, ours := newManager(t, client, Config{}), newManager(t, client, Config{})
		one := launch(t, theirs, asks("p", "", "a"))
		synctest.Wait()
		session := get(t, theirs, one.ID).Session
		task := track(t, ours, "p", session)
		pass(time.Minute)
		require.Equal(t, Running, get(t, ours, task.ID).Status)
		s.end("a")
		require.Equal(t, "did a", get(t, ours, task.ID).Result.Text)
		again := track(t, ours, "p", session)
		synctest.Wait()
		require.Equal(t, 2, again.Run)
		require.Equal(t, "did a", get(t, ours, task.ID).Result.Text, "it was over by then")
		gone := track(t, ours, "p", "fn_none")
		synctest.Wait()
		require.ErrorIs(t, get(t, ours, gone.ID).Reason, ErrSessionGone)
	})
}

// The session of a forgotten task can be tracked again, and may launch then.
func TestTrackedAfterForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: &inbox{}, Retention: Retention{Age: time.Minute}})
		one := track(t, m, "p", "theirs")
		turn <- Result{Text: "found"}
		pass(time.Hour)
		require.ErrorIs(t, second(m.Launch(t.Context(), work("theirs"))), ErrParentEnded)
		turn = c.runs("theirs")
		two := track(t, m, "p", "theirs")
		require.NotEqual(t, one.ID, two.ID)
		launch(t, m, work("theirs"))
		turn <- Result{Text: "more"}
		pass(time.Hour)
		var forgotten *ForgottenError
		require.ErrorAs(t, second(m.BySession("theirs")), &forgotten)
		require.Equal(t, two.ID, forgotten.Task)
		require.ErrorIs(t, second(m.Launch(t.Context(), work("theirs"))), ErrParentEnded)
	})
}

// A task may move while its attempt begins; the race detector looks on.
func TestMovesWhileItBegins(t *testing.T) {
	m := newManager(t, Func(echo), Config{Notifier: &inbox{}})
	one := launch(t, m, work("p"))
	for i := range 100 {
		ended, err := m.Wait(t.Context(), one.ID)
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = m.Resume(context.Background(), one.ID, ResumeInput{Prompt: "go on"}) })
		wg.Go(func() {
			parent := []SessionID{"q", "r"}[i%2]
			_, _ = m.Track(context.Background(), TrackInput{Session: ended.Session, Parent: parent, Agent: "worker"})
		})
		wg.Wait()
	}
}

// A tracked task that is stopped in the instant in which it gets its lease was not attached to
// yet: its turn goes on until it is stopped, or is listed.
func TestTrackedIsStoppedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, left := range []bool{false, true} {
			c := newAttaching()
			c.runs("theirs")
			m := newManager(t, c, Config{})
			task := track(t, m, "p", "theirs")
			require.Equal(t, Starting, task.Status)
			e, err := m.cancelOne(host, task.ID, CancelOptions{Cause: ByUser, LeaveRunning: left}) // as Cancel, before anything else runs
			require.NoError(t, err)
			require.NoError(t, e.wait(t.Context()))
			synctest.Wait()
			if left {
				require.Equal(t, 1, m.Stats().Unstopped)
				require.Zero(t, c.aborts.Load())
				continue
			}
			require.Zero(t, m.Stats().Unstopped)
			require.EqualValues(t, 1, c.aborts.Load())
			require.Empty(t, c.turns)
			require.NoError(t, m.CheckBooks(nil, nil))
		}
	})
}

// An Abort that fails before there was an Attach says nothing of somebody else's turn.
func TestTrackedThatCantBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.abort = func(context.Context, SessionID) error { return errors.New("no") }
		c.runs("theirs")
		m := newManager(t, c, Config{})
		task := track(t, m, "p", "theirs")
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.ErrorIs(t, err, ErrUnstopped)
	})
}

// tracing is a host that knows of sessions below others, and may take its time to say so.
type tracing struct {
	*attaching
	above map[SessionID]SessionID
	wait  map[SessionID]chan struct{}
}

func (c *tracing) ParentOf(_ context.Context, id SessionID) (SessionID, error) {
	if wait := c.wait[id]; wait != nil {
		<-wait
	}
	return c.above[id], nil
}

// A session has no parent below itself, as the host tells, whenever it tells it; and what was
// launched below it before it is tracked stays as it is.
func TestTrackedBelowItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		c := &tracing{newAttaching(), map[SessionID]SessionID{"below": "theirs", "slow": "theirs", "other": "their second"}, map[SessionID]chan struct{}{"slow": slow}}
		c.runs("theirs")
		m := newManager(t, c, Config{})
		ask := func(parent, session SessionID) error {
			_, err := m.Track(t.Context(), TrackInput{Parent: parent, Session: session, Agent: "a"})
			return err
		}
		var input *InputError
		require.ErrorAs(t, ask("below", "theirs"), &input)
		late := make(chan error, 1)
		go func() { late <- ask("slow", "theirs") }()
		synctest.Wait()
		require.NoError(t, ask("p", "theirs"))
		close(slow)
		require.ErrorAs(t, <-late, &input)
		require.Equal(t, "TrackInput.Parent", input.Field)
		c.prompt = hang
		launch(t, m, work("other"))
		require.ErrorAs(t, ask("p", "their second"), &input, "something below it is live")
	})
}

// Within its tree a task that moves takes no more room than it has.
func TestTrackedMovesInAFullTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.prompt = hang
		c.runs("theirs")
		m := newManager(t, c, Config{Spawn: SpawnLimits{LivePerRoot: 2}})
		one := launch(t, m, work("p"))
		task := track(t, m, "p", "theirs")
		synctest.Wait()
		moved := track(t, m, get(t, m, one.ID).Session, "theirs")
		require.Equal(t, task.ID, moved.ID)
		require.Equal(t, 2, moved.Depth)
		require.NoError(t, m.CheckBooks(nil, nil))
	})
}

// Who waits for any child to end is not given one that has moved away.
func TestWaitAnyAcrossAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.runs("theirs")
		wait := make(chan struct{})
		c.prompt = func(context.Context, SessionID, Prompt) (Result, error) { <-wait; return Result{Text: "x"}, nil }
		m := newManager(t, c, Config{})
		one := launch(t, m, work("p"))
		track(t, m, "p", "theirs")
		any := make(chan Task, 1)
		go func() {
			ended, _ := m.WaitAny(context.Background(), Filter{Parent: "p"})
			any <- ended
		}()
		synctest.Wait()
		track(t, m, "q", "theirs")
		synctest.Wait()
		require.Empty(t, any)
		close(wait)
		require.Equal(t, one.ID, (<-any).ID)
	})
}

// When the last that a parent waited for moves away, it is told that nothing is left; what is
// being stopped does not move.
func TestLastMovesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := newAttaching(), &inbox{}
		abort := make(chan struct{})
		c.abort = func(context.Context, SessionID) error { <-abort; return nil }
		c.runs("theirs")
		m := newManager(t, c, Config{Notifier: box})
		launch(t, m, work("p"))
		task := track(t, m, "p", "theirs")
		pass(time.Minute)
		require.Len(t, box.all(), 1)
		require.False(t, box.all()[0].Final)
		track(t, m, "q", "theirs")
		pass(time.Minute)
		require.Len(t, box.all(), 2)
		require.Equal(t, SessionID("p"), box.all()[1].Parent)
		require.True(t, box.all()[1].Final)
		_, err := m.cancelOne(host, task.ID, CancelOptions{Cause: ByUser})
		require.NoError(t, err)
		_, err = m.Track(t.Context(), TrackInput{Parent: "p", Session: "theirs", Agent: "a"})
		require.ErrorIs(t, err, ErrEnded)
		require.Equal(t, SessionID("q"), get(t, m, task.ID).Parent)
		close(abort)
		synctest.Wait()
	})
}

// A tracked session is not ours: though it was never attached to, it has no hook.
func TestTrackedHasNoHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		c.runs("theirs")
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}, Hooks: Hooks{SessionCreated: func(_ context.Context, task Task) {
			require.NotEqual(t, SessionID("theirs"), task.Session)
		}}})
		lease, err := m.Acquire(t.Context(), Holder{Agent: "worker"})
		require.NoError(t, err)
		task := track(t, m, "p", "theirs")
		_, err = m.cancelOne(host, task.ID, CancelOptions{Cause: ByUser})
		require.NoError(t, err)
		synctest.Wait()
		lease.Release()
		resume(t, m, task.ID, "work")
		pass(time.Minute)
		require.Equal(t, Completed, get(t, m, task.ID).Status)
	})
}

// A place is taken where the parent is by then.
func TestReserveBelowTracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		c := &tracing{newAttaching(), map[SessionID]SessionID{"g": "f"}, map[SessionID]chan struct{}{"f": slow}}
		c.runs("g")
		c.prompt = hang
		m := newManager(t, c, Config{Spawn: SpawnLimits{LivePerRoot: 2}})
		one := launch(t, m, work("p"))
		got := make(chan *Reservation, 1)
		go func() { r, _ := m.Reserve(context.Background(), "g"); got <- r }()
		synctest.Wait()
		track(t, m, "p", "g")
		_ = one
		close(slow)
		r := <-got
		require.Nil(t, r, "the tree of p is full")
	})
}

// A session with live tasks below it, of which the books know only by lineage, is not tracked:
// they would not end with it, and it could come to be below itself.
func TestTrackAboveLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tracing{newAttaching(), map[SessionID]SessionID{"f": "theirs", "theirs": "r"}, nil}
		c.runs("theirs")
		c.prompt = hang
		m := newManager(t, c, Config{})
		below := launch(t, m, work("f"))
		require.Equal(t, SessionID("r"), below.Root)
		_, err := m.Track(t.Context(), TrackInput{Parent: "r", Session: "theirs", Agent: "a"})
		wrong("TrackInput.Session", `"theirs"`, "has launched tasks of its own already, or those below it have: track it before that")(t, err)
	})
}

// Nor is the session of a forgotten task while it is given up.
func TestTrackWhileReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		let := make(chan struct{})
		c.release = func(context.Context, SessionID) error { <-let; return nil }
		defer close(let)
		m := newManager(t, c, Config{Retention: Retention{Age: time.Minute, Together: Off}, AbortGrace: time.Hour})
		in := work("p")
		in.NoNotice = true
		one := launch(t, m, in)
		synctest.Wait()
		session := get(t, m, one.ID).Session
		pass(2 * time.Minute)
		require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
		c.runs(session)
		_, err := m.Track(t.Context(), TrackInput{Session: session, Parent: "q", Agent: "worker"})
		wrong("TrackInput.Session", strconv.Quote(string(session)), "is being given up by task "+string(one.ID))(t, err)
	})
}

// Nor one with an Abort out of a run that is forgotten.
func TestTrackWhileAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		let := make(chan struct{})
		stop := c.abort
		c.abort = func(ctx context.Context, id SessionID) error { <-let; return stop(ctx, id) }
		m := newManager(t, c, Config{Retention: Retention{Age: time.Second, Together: Off}})
		task := track(t, m, "p", "theirs")
		synctest.Wait()
		turn <- Result{Text: "x"} // its turn ends by itself, as it is cancelled
		e, err := m.cancelOne(host, task.ID, CancelOptions{Cause: ByParent})
		require.NoError(t, err)
		require.NoError(t, e.wait(t.Context()))
		_, err = m.Track(t.Context(), TrackInput{Session: "theirs", Parent: "p", Agent: "worker"})
		require.ErrorIs(t, err, ErrUnstopped)
		pass(2 * time.Second)
		require.ErrorIs(t, second(m.Get(task.ID)), ErrNotFound)
		c.runs("theirs")
		_, err = m.Track(t.Context(), TrackInput{Session: "theirs", Parent: "p", Agent: "worker"})
		require.ErrorIs(t, err, ErrUnstopped, "the Abort of the run before would stop this one's turn")
		close(let)
		synctest.Wait()
		c.runs("theirs")
		track(t, m, "p", "theirs")
	})
}

// Nor one below which tasks are kept: what is launched or resumed there would not be its own.
func TestTrackAboveKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tracing{newAttaching(), map[SessionID]SessionID{"f": "theirs"}, nil}
		m := newManager(t, c, Config{})
		below := launch(t, m, work("f"))
		synctest.Wait()
		require.Equal(t, Completed, get(t, m, below.ID).Status)
		_, err := m.Track(t.Context(), TrackInput{Parent: "p", Session: "theirs", Agent: "a"})
		var input *InputError
		require.ErrorAs(t, err, &input)
	})
}

// A parent that tracks the task of a Do is told when that is given up.
func TestDoGivenUpAfterAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := newAttaching(), &inbox{}
		c.prompt = hang
		m := newManager(t, c, Config{Notifier: box})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan Task, 1)
		go func() { done, _ := m.Do(ctx, work("p")); over <- done }()
		synctest.Wait()
		task := m.List(Filter{})[0]
		track(t, m, "q", task.Session)
		cancel()
		require.ErrorIs(t, (<-over).Reason, ByUser)
		pass(time.Minute)
		require.Equal(t, []TaskID{task.ID}, toldTo("q", box.all()))
		require.Empty(t, toldTo("p", box.all()))
	})
}
