package subagent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A Notify that is out when its parent, a child, ends: the child says that it has it, and
// nobody reads there any more. It was not asked to begin a turn, which would run unseen,
// and the next session above is told.
func TestNoticeOutWhenAChildEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var told []Notification
		m := newManager(t, Func(s.run), Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
			told = append(told, n) // one call at a time
			time.Sleep(time.Second)
			return Accepted, nil
		})})
		child := launch(t, m, asks("root", "", "child"))
		synctest.Wait()
		grandchild := launch(t, m, asks(get(t, m, child.ID).Session, "", "grandchild"))
		synctest.Wait()
		s.end("grandchild")
		pass(500 * time.Millisecond) // it is being told
		s.end("child")
		pass(time.Minute)
		require.Equal(t, get(t, m, child.ID).Session, told[0].Parent)
		require.True(t, told[0].Final)
		require.False(t, told[0].Wake)
		var above []TaskID
		for _, n := range told[1:] {
			require.Equal(t, SessionID("root"), n.Parent)
			for _, notice := range n.Notices {
				above = append(above, notice.Task)
			}
		}
		require.True(t, told[len(told)-1].Wake)
		slices.Sort(above)
		want := []TaskID{child.ID, grandchild.ID}
		slices.Sort(want)
		require.Equal(t, want, above)
		require.Empty(t, m.Pending("root").Notices)
	})
}

// A session whose Prompt is out is busy for Blocking, also when the host rests.
func TestBlockingNotifiesNoChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &toldHost{newSlowHost()}
		b := Blocking(h, BlockingConfig{})
		go func() { _, _ = b.Prompt(t.Context(), "ses_1", Prompt{}) }()
		synctest.Wait()
		h.is("ses_1", HostIdle)
		for parent, want := range map[SessionID]Delivery{"ses_1": Busy, "ses_2": Accepted} {
			d, err := b.Notify(t.Context(), Notification{Parent: parent})
			require.NoError(t, err)
			require.Equal(t, want, d)
		}
		h.says("ses_1", wholeOutput)
		b.HandleEvent(event("ses_1", EventIdle))
	})
}

type toldHost struct{ *slowHost }

func (*toldHost) Notify(context.Context, Notification) (Delivery, error) { return Accepted, nil }
