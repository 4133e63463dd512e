package subagent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A batch is parked after so many failed tries; that the parent was busy is none.
func TestBusyUsesUpNoTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(_ Notification, call int) (Delivery, error) {
			switch {
			case call <= 10:
				return Busy, nil
			case call == 11:
				return Unknown, errors.New("the line was cut")
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Tries: 2}})
		launch(t, m, taking("p", "1s"))
		pass(time.Hour)
		require.Zero(t, m.Pending("p"))
		require.Equal(t, map[Delivery]int{Busy: 10, Unknown: 1, Accepted: 1}, m.Stats().Notices.Deliveries)
	})
}

// A notifier that says it is not supported is as good as none: it is asked once, and
// parents pull.
func TestNotifierUnsupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		wrapper := struct {
			*stub
			NotifierFunc
		}{timed(), func(context.Context, Notification) (Delivery, error) {
			calls++
			return Accepted, fmt.Errorf("wrapped: %w", errors.ErrUnsupported)
		}}
		m := newManager(t, wrapper, Config{})
		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "1m"))
		launch(t, m, taking("q", "2m"))
		pass(time.Hour)
		require.Equal(t, 1, calls)
		for parent, owed := range map[SessionID]int{"p": 2, "q": 1} {
			o := m.Pending(parent)
			require.Len(t, o.Notices, owed)
			require.False(t, o.InFlight || o.Parked)
			require.NoError(t, o.LastErr)
			for o.Notices != nil {
				_, ack, ok := m.Drain(parent)
				require.True(t, ok)
				ack(true)
				o = m.Pending(parent)
			}
		}
		require.Equal(t, 3, m.Stats().Notices.Drained)
	})
}

// A session that is being stopped is told nothing any more: no Abort would follow the
// turn that it were woken for. What it is owed goes to its own parent.
func TestStoppingSessionIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		c := timed()
		c.abort = func(context.Context, SessionID) error { time.Sleep(time.Second); return nil }
		m := newManager(t, c, Config{Notifier: box})
		above := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		session := get(t, m, above.ID).Session
		below := launch(t, m, taking(session, "1s"))
		pass(time.Second + 50*time.Millisecond) // it has ended; its notice is being gathered
		require.Len(t, m.Pending(session).Notices, 1)
		_, err := m.Cancel(t.Context(), above.ID, CancelOptions{})
		require.NoError(t, err)
		pass(time.Minute)
		require.Empty(t, toldTo(session, box.all()))
		require.ElementsMatch(t, []TaskID{above.ID, below.ID}, toldTo("p", box.all()))
	})
}

// A pause doubles up to its bound, whatever is configured, and at least half of it
// passes.
func TestPauseIsBounded(t *testing.T) {
	for _, p := range []MailboxPolicy{
		{Backoff: 1, BackoffMax: 1},
		{Backoff: time.Second, BackoffMax: time.Minute},
		{Backoff: time.Second, BackoffMax: math.MaxInt64},
		{Backoff: 1<<62 + 1, BackoffMax: math.MaxInt64},
		{Backoff: math.MaxInt64, BackoffMax: math.MaxInt64},
	} {
		full := p.Backoff
		for tries := 1; tries < 100; tries++ {
			pause := p.pause(tries)
			require.GreaterOrEqual(t, pause, full/2, "%v, try %d", p, tries)
			require.LessOrEqual(t, pause, full, "%v, try %d", p, tries)
			if full > p.BackoffMax/2 {
				full = p.BackoffMax
			} else {
				full *= 2
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // and the deadlines have room for it
		box := &answering{answer: func(Notification, int) (Delivery, error) { return Unknown, nil }}
		m := newManager(t, &stub{}, Config{Notifier: box, Mailbox: MailboxPolicy{Backoff: 1<<62 + 1, BackoffMax: math.MaxInt64, KeepAge: Off}})
		launch(t, m, work("p"))
		pass(1<<62 + time.Hour)
		require.Len(t, box.all(), 2)
		require.Equal(t, instant(math.MaxInt64), m.now().after(math.MaxInt64))
	})
}

// An answer that is none is as good as Unknown, and Pending says what was wrong with it.
func TestAnswerThatIsNone(t *testing.T) {
	for _, answer := range []Delivery{numDeliveries, -1} {
		synctest.Test(t, func(t *testing.T) {
			box := &answering{answer: func(_ Notification, call int) (Delivery, error) {
				if call < 3 {
					return answer, nil
				}
				return Accepted, nil
			}}
			m := newManager(t, timed(), Config{Notifier: box})
			launch(t, m, taking("p", "1s"))
			pass(1200 * time.Millisecond)
			wrong("Delivery", answer.String(), "Notify must return Unknown, Accepted, Busy or Gone")(t, m.Pending("p").LastErr)
			pass(time.Minute)
			require.Len(t, box.all(), 3)
			require.Empty(t, m.Pending("p").Notices)
		})
	}
}
