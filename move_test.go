package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A tree that moves keeps to the limit on depth as a whole.
func TestMoveOfADeepTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Spawn: SpawnLimits{Depth: 2}})
		one := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, one.ID).Session, "1h"))
		pass(time.Minute)
		other := launch(t, m, taking("q", "1h"))
		synctest.Wait()
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1s", Parent: get(t, m, other.ID).Session})
		var limit *LimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, []any{ErrDepthLimit, 2, 3}, []any{limit.Kind, limit.Limit, limit.Used})
		require.Equal(t, 2, get(t, m, below.ID).Depth)
	})
}

// Tracked with no parent named, a task stays with the one that it has.
func TestTrackWithoutParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := newAttaching(), &inbox{}
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: box})
		task := track(t, m, "p", "theirs")
		_, err := m.Track(t.Context(), TrackInput{Session: "theirs", Agent: "worker", NoNotice: true})
		require.NoError(t, err)
		turn <- Result{Text: "found"}
		pass(time.Minute)
		require.Equal(t, SessionID("p"), get(t, m, task.ID).Parent)
		require.Equal(t, []TaskID{task.ID}, toldTo("p", box.all()))
	})
}

// Whether the end is told is what the last one to track it wants.
func TestTrackOfASilentTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, box := newAttaching(), &inbox{}
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: box})
		task, err := m.Track(t.Context(), TrackInput{Session: "theirs", Agent: "worker", NoNotice: true})
		require.NoError(t, err)
		track(t, m, "p", "theirs")
		turn <- Result{Text: "found"}
		pass(time.Minute)
		require.Equal(t, []TaskID{task.ID}, toldTo("p", box.all()))
	})
}

// A task does not move to where nobody is told if the host asks for somebody.
func TestMoveToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		box := &inbox{}
		m := newManager(t, c, Config{Notifier: box, Mailbox: MailboxPolicy{Required: true}})
		in := work("")
		in.NoNotice = true
		top := launch(t, m, in)
		synctest.Wait()
		nobody := get(t, m, top.ID).Session
		require.ErrorIs(t, second(m.Launch(t.Context(), work(nobody))), ErrNobodyToTell)
		task := track(t, m, "p", "theirs")
		_, err := m.Track(t.Context(), TrackInput{Session: "theirs", Parent: nobody, Agent: "worker"})
		require.ErrorIs(t, err, ErrNobodyToTell)
		turn <- Result{Text: "x"}
		pass(time.Minute)
		require.Equal(t, []TaskID{task.ID}, toldTo("p", box.all()))
	})
}
