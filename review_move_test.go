package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// tracked with no parent named.
func TestReviewTrackWithoutParent(t *testing.T) {
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

// a silent one tracked for a parent.
func TestReviewTrackSilent(t *testing.T) {
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

// a move to where nobody is told, although the host asks for somebody.
func TestReviewMoveToNobody(t *testing.T) {
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
