package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// the parent idles while it is being deposited with.
func TestReviewIdleDuringDeposit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			switch n.Handover {
			case HandOffer:
				return Busy, nil
			case HandDeposit:
				time.Sleep(2 * time.Second)
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{BusyMax: time.Minute, Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(time.Second + 100*time.Millisecond + time.Minute + time.Second)
		require.Len(t, box.all(), 2)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(10 * time.Second)
		require.Len(t, box.all(), 3, "the turn is asked for")
	})
}
