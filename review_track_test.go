package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// a session with live tasks below it, of which the books know only by lineage.
func TestReviewTrackAboveLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tracing{newAttaching(), map[SessionID]SessionID{"f": "theirs", "theirs": "r"}, nil}
		c.runs("theirs")
		c.prompt = hang
		m := newManager(t, c, Config{})
		below := launch(t, m, work("f"))
		require.Equal(t, SessionID("r"), below.Root)
		task, err := m.Track(t.Context(), TrackInput{Parent: "r", Session: "theirs", Agent: "a"})
		if err != nil {
			return // refused, as documented
		}
		synctest.Wait()
		_, err = m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.True(t, get(t, m, below.ID).Status.Terminal(), "what is below it runs on unseen")
	})
}

// and it may become its own ancestor.
func TestReviewTrackCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &tracing{newAttaching(), map[SessionID]SessionID{"f": "theirs", "theirs": "r"}, nil}
		c.runs("theirs")
		c.prompt = hang
		m := newManager(t, c, Config{})
		launch(t, m, work("f"))
		_, err := m.Track(t.Context(), TrackInput{Parent: "r", Session: "theirs", Agent: "a"})
		if err != nil {
			return
		}
		_, err = m.Track(t.Context(), TrackInput{Parent: "f", Session: "theirs", Agent: "a"})
		require.Error(t, err, "below itself")
	})
}

// the session of a forgotten task is tracked while it is given up.
func TestReviewTrackWhileReleased(t *testing.T) {
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
		require.Error(t, err)
		c.turns[session] <- Result{Text: "x"}
	})
}

// an Abort that is out outlives its task's record.
func TestReviewTrackWhileAborted(t *testing.T) {
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
		c.runs("theirs")
		again, err := m.Track(t.Context(), TrackInput{Session: "theirs", Parent: "p", Agent: "worker"})
		if err == nil {
			synctest.Wait()
			close(let)
			synctest.Wait()
			require.NotNil(t, c.turns["theirs"], "the Abort of the run before has stopped the turn of %v", again.ID)
			return
		}
		close(let)
		require.ErrorIs(t, err, ErrUnstopped)
	})
}

// Nor one below which tasks are kept: what is launched or resumed there would not be its own.
func TestReviewTrackAboveKept(t *testing.T) {
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
