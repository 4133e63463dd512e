package subagent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A mailbox is gone when its last child is forgotten, or has moved away, and it is owed
// nothing any more, in whatever order that comes.
func TestMailboxesAreLetGo(t *testing.T) {
	busy := func() Notifier {
		return &answering{answer: func(Notification, int) (Delivery, error) { return Busy, nil }}
	}
	for name, c := range map[string]struct {
		cfg   Config
		lives func(t *testing.T, m *BackgroundManager)
	}{
		"the only child moves away": {Config{Notifier: &inbox{}}, func(t *testing.T, m *BackgroundManager) {
			one := launch(t, m, taking("p", "1s"))
			pass(time.Minute)
			_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1h", Parent: "q"})
			require.NoError(t, err)
			require.Equal(t, 1, inventory(m)["mailboxes"], "that of q")
		}},
		"a grandchild is given up last": {Config{}, func(t *testing.T, m *BackgroundManager) {
			above := launch(t, m, taking("p", "1s"))
			synctest.Wait()
			launch(t, m, taking(get(t, m, above.ID).Session, "3h"))
		}},
		"given up before the next try": {Config{Notifier: busy(), Retention: Retention{Age: time.Millisecond}, Mailbox: MailboxPolicy{BusyMax: Off, KeepAge: time.Hour}}, func(t *testing.T, m *BackgroundManager) {
			launch(t, m, taking("p", "1s"))
		}},
		"a late ack with nobody above": {Config{}, func(t *testing.T, m *BackgroundManager) {
			in := taking("", "3s")
			in.NoNotice = true
			above := launch(t, m, in)
			synctest.Wait()
			session := get(t, m, above.ID).Session
			launch(t, m, taking(session, "1s"))
			pass(2 * time.Second)
			_, ack, ok := m.Drain(session)
			require.True(t, ok)
			pass(5 * time.Hour)
			ack(true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, timed(), c.cfg)
				c.lives(t, m)
				pass(100 * time.Hour)
				require.Empty(t, m.List(Filter{}))
				require.Zero(t, inventory(m)["mailboxes"])
			})
		})
	}
}

// How long a parent was busy counts from when something waits for it: not from a batch of
// long ago that it has read meanwhile.
func TestBusyCountsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := busyParent()
		m := newManager(t, timed(), Config{Notifier: p})
		one := launch(t, m, taking("p", "1s"))
		pass(10 * time.Second)
		require.NoError(t, second(m.As("p").Get(one.ID)))
		pass(30 * time.Minute)
		before := len(p.hands())
		launch(t, m, taking("p", "1s"))
		pass(30 * time.Second)
		require.Greater(t, len(p.hands()), before)
		require.NotContains(t, p.hands(), "deposit", "60 s are not over")
	})
}

// A final notification that only says that nothing is left, and that nobody takes, is given
// up as notices are.
func TestClosingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(_ Notification, call int) (Delivery, error) {
			if call == 1 {
				return Accepted, nil
			}
			return Unknown, errors.New("no line")
		}}
		for _, notifier := range []Notifier{box, nil} {
			m := newManager(t, timed(), Config{Notifier: notifier})
			launch(t, m, taking("p", "1s"))
			two := launch(t, m, taking("p", "1h"))
			pass(time.Minute)
			if notifier == nil {
				_, ack, _ := m.Drain("p")
				ack(true)
			}
			_, err := m.Cancel(t.Context(), two.ID, CancelOptions{Silent: true})
			require.NoError(t, err)
			pass(11 * time.Hour)
			n, ack, ok := m.Drain("p")
			require.True(t, ok && n.Final, "it is kept for so long")
			ack(false)
			pass(2 * time.Hour)
			_, _, ok = m.Drain("p")
			require.False(t, ok)
			require.Zero(t, inventory(m)["mailboxes"])
		}
		require.Len(t, box.all(), 10, "8 tries, and one after the ack")
	})
}

// A launch in between changes nothing: what nobody took is given up with what came later.
func TestClosingIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		launch(t, m, taking("p", "1s"))
		two := launch(t, m, taking("p", "1h"))
		pass(time.Minute)
		_, ack, _ := m.Drain("p")
		ack(true)
		_, err := m.Cancel(t.Context(), two.ID, CancelOptions{Silent: true})
		require.NoError(t, err)
		three := launch(t, m, taking("p", "20h"))
		require.NoError(t, m.CheckBooks(nil, nil))
		pass(21 * time.Hour)
		require.NoError(t, m.CheckBooks(nil, nil))
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		require.Equal(t, []TaskID{three.ID}, toldTo("p", []Notification{n}))
		require.True(t, n.Final)
		ack(true)
	})
}

// A final notification counts from when nothing is left, however long ago the parent was
// told of something.
func TestClosingAfterLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		launch(t, m, taking("p", "1s"))
		in := taking("p", "20h")
		in.NoNotice = true
		launch(t, m, in)
		pass(21 * time.Hour)
		require.Len(t, box.all(), 2)
		require.True(t, box.all()[1].Final)
	})
}

// So is that of a session of others below a task that has ended.
func TestMailboxBelowAnEndedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		above := map[SessionID]SessionID{}
		c := &ancestry{*timed(), func(_ context.Context, id SessionID) (SessionID, error) { return above[id], nil }}
		m := newManager(t, c, Config{Notifier: &inbox{}})
		child := launch(t, m, taking("p", "1s"))
		synctest.Wait()
		above["theirs"] = get(t, m, child.ID).Session
		below := launch(t, m, taking("theirs", "3s"))
		pass(time.Minute)
		require.Equal(t, 3, inventory(m)["mailboxes"], "those of p, of its child, and of the session below")
		_, err := m.Resume(t.Context(), below.ID, ResumeInput{Prompt: "1h", Parent: "q"})
		require.NoError(t, err)
		require.Equal(t, 2, inventory(m)["mailboxes"], "those of p and of q")
	})
}

// What is out to a child that has ended is no more counted above once it is taken, also where
// nobody is there to be told, and all of it is forgotten in that instant.
func TestLentToTheForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(Notification, int) (Delivery, error) { time.Sleep(5 * time.Second); return Accepted, nil }}
		m := newManager(t, timed(), Config{Notifier: box, Retention: Retention{Count: 1, Together: Off}})
		top := func(prompt string) SessionID {
			in := taking("", prompt)
			in.NoNotice = true
			task := launch(t, m, in)
			synctest.Wait()
			return get(t, m, task.ID).Session
		}
		launch(t, m, taking(top("1s"), "1h")) // kept, for its child
		launch(t, m, taking(top("3s"), "2s"))
		pass(5 * time.Second) // its child's end is on its way to it as it ends
		require.Len(t, box.all(), 1)
		require.NoError(t, m.CheckBooks(nil, nil))
		pass(time.Minute)
		require.NoError(t, m.CheckBooks(nil, nil))
		pass(48 * time.Hour)
		require.Empty(t, m.mailboxes)
	})
}

// A parent deleted while a batch, a deposit or a turn asked for is out: nothing stays behind.
func TestDeletedWhileOut(t *testing.T) {
	for _, answer := range []Delivery{Unknown, Accepted, Busy, Gone} {
		synctest.Test(t, func(t *testing.T) {
			box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
				time.Sleep(time.Minute)
				return answer, nil
			}}
			m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Timeout: time.Hour}, Retention: Retention{Age: time.Minute, Together: Off}})
			empty := inventory(m)
			launch(t, m, taking("p", "1s"))
			launch(t, m, taking("p", "20s"))
			launch(t, m, taking("p", "1h"))
			pass(30 * time.Second)
			m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted})
			require.ErrorIs(t, second(m.Launch(t.Context(), work("p"))), ErrParentEnded)
			pass(24 * time.Hour)
			end := inventory(m)
			delete(empty, "seq")
			delete(end, "seq")
			require.Equal(t, empty, end, "%v", answer)
		})
	}
}
