package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is out to a child that has ended is no more counted above once it is taken, also where
// nobody is there to be told, and all of it is forgotten in that instant.
func TestReviewLentToTheForgotten(t *testing.T) {
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
