package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A parent that is deleted while a deposit is on its way is not woken for it.
func TestDeletedParentIsNotWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			if n.Handover == HandDeposit {
				time.Sleep(5 * time.Second)
				return Accepted, nil
			}
			return Busy, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{BusyMax: 10 * time.Second, Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(13 * time.Second)
		require.Equal(t, []string{"offer+turn", "deposit"}, box.hands())
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted})
		pass(time.Hour)
		require.Equal(t, []string{"offer+turn", "deposit"}, box.hands(), "it is told nothing more")
		require.Zero(t, m.Pending("p"))
	})
}
