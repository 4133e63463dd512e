package subagent

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A Notify, or a Drain, that is out when its parent, a child, ends or is being stopped: the
// child has it, and nobody reads there any more. It was not asked to begin a turn, which
// would run unseen, and the next session above is told.
func TestNoticeOutWhenAChildEnds(t *testing.T) {
	for name, c := range map[string]struct {
		drains, stopping bool
	}{"ended": {}, "stopping": {stopping: true}, "ended, drained": {drains: true}, "stopping, drained": {true, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				var told []Notification
				client := &slowToStop{SessionClient: Func(s.run)}
				m := newManager(t, client, Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
					if c.drains && n.Parent != "root" {
						return Busy, nil
					}
					told = append(told, n) // one call at a time
					time.Sleep(time.Second)
					return Accepted, nil
				})})
				child := launch(t, m, asks("root", "", "child"))
				synctest.Wait()
				session := get(t, m, child.ID).Session
				grandchild := launch(t, m, asks(session, "", "grandchild"))
				s.end("grandchild")
				ack := func(bool) {}
				if c.drains {
					pass(200 * time.Millisecond)
					var n Notification
					n, ack, _ = m.Drain(session)
					told = append(told, n)
				}
				pass(500 * time.Millisecond) // it is being told
				if c.stopping {
					go func() { _, _ = m.Cancel(context.Background(), child.ID, CancelOptions{}) }()
				} else {
					s.end("child")
				}
				pass(100 * time.Millisecond)
				require.Equal(t, c.stopping, get(t, m, child.ID).Status == Stopping)
				ack(true)
				pass(time.Minute)
				require.Equal(t, session, told[0].Parent)
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
				require.ElementsMatch(t, []TaskID{child.ID, grandchild.ID}, above)
				require.Empty(t, m.Pending("root").Notices)
			})
		})
	}
}

// What a child took after its end, and what it was owed besides, is told above together, also
// by a shutdown, which gathers nothing: there is one final notification of it.
func TestNoticeOutAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var mu sync.Mutex
		told := map[SessionID][]Notification{}
		m := newManager(t, Func(s.run), Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
			if n.Parent != "root" {
				time.Sleep(5 * time.Second)
			}
			mu.Lock()
			defer mu.Unlock()
			told[n.Parent] = append(told[n.Parent], n)
			return Accepted, nil
		})})
		child := launch(t, m, asks("root", "", "child"))
		synctest.Wait()
		session := get(t, m, child.ID).Session
		for _, name := range []string{"first", "second"} {
			launch(t, m, asks(session, "", name))
		}
		s.end("first")
		pass(500 * time.Millisecond) // it is being told
		s.end("second")
		s.end("child")
		pass(time.Second)
		require.NoError(t, m.Shutdown(t.Context()))
		require.Len(t, told["root"], 2)
		require.Equal(t, 2, told["root"][0].Remaining)
		require.Len(t, told["root"][1].Notices, 2)
		require.True(t, told["root"][1].Final)
	})
}

// slowToStop takes five seconds to abort.
type slowToStop struct{ SessionClient }

func (c *slowToStop) Abort(ctx context.Context, id SessionID) error {
	time.Sleep(5 * time.Second)
	return c.SessionClient.Abort(ctx, id)
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
		h.says("ses_1", wholeAnswer)
		b.HandleEvent(event("ses_1", EventIdle))
	})
}

type toldHost struct{ *slowHost }

func (*toldHost) Notify(context.Context, Notification) (Delivery, error) { return Accepted, nil }

// What a child is owed whose session is deleted goes up with its ending, as with any other.
func TestOwedToADeletedChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var child SessionID
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			if n.Parent == child {
				return Busy, nil
			}
			return Accepted, nil
		}}
		c := timed()
		c.abort = func(context.Context, SessionID) error { time.Sleep(3 * time.Second); return nil }
		m := newManager(t, c, Config{Notifier: box})
		above := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		child = get(t, m, above.ID).Session
		ended := launch(t, m, taking(child, "1s"))
		pass(10 * time.Second)
		stopped := launch(t, m, taking(child, "1h"))
		synctest.Wait()
		go func() { _, _ = m.Cancel(context.Background(), stopped.ID, CancelOptions{}) }()
		pass(time.Second)
		m.HandleEvent(SessionEvent{Session: child, Kind: EventDeleted})
		pass(time.Minute)
		require.ElementsMatch(t, []TaskID{above.ID, ended.ID, stopped.ID}, toldTo("p", box.all()))
		require.Zero(t, m.Stats().Notices.Dropped)
	})
}

// A parent whose session is deleted while a Drain is out is told nothing more.
func TestDeletedWhileDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, taken := range []bool{true, false} {
			box := &inbox{}
			m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Gather: time.Minute, GatherMax: time.Minute}})
			launch(t, m, taking("p", "1s"))
			launch(t, m, taking("p", "1h"))
			pass(5 * time.Second)
			_, ack, ok := m.Drain("p")
			require.True(t, ok)
			m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted})
			ack(taken)
			pass(time.Hour)
			require.Empty(t, box.all())
			require.Zero(t, m.Pending("p"))
			require.Equal(t, !taken, m.Stats().Notices.Dropped == 1)
		}
	})
}
