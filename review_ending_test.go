package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What an ended child was itself owed is older than its own notice, and is given up before
// it: else a run could be forgotten in the instant of its ending, before that is told, and
// nobody who waits for it would ever hear of it.
func TestEndingIsToldBeforeItsTaskIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Mailbox: MailboxPolicy{KeepCount: 1}, Retention: Retention{Bytes: 1}})
		events, err := m.Subscribe(t.Context(), Filter{Statuses: []Status{Completed}}, TopicStatus)
		require.NoError(t, err)
		var ended []TaskID
		go func() {
			for e := range events {
				ended = append(ended, e.Task.ID)
			}
		}()
		top := launch(t, m, taking("p", "2s"))
		synctest.Wait()
		below := launch(t, m, taking(get(t, m, top.ID).Session, "1s"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = m.WaitAll(ctx, Filter{Parent: "p"})
		require.NoError(t, err, "it has ended after 2 s")
		synctest.Wait()
		require.Equal(t, []TaskID{below.ID, top.ID}, ended)
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		defer ack(true)
		require.Equal(t, top.ID, n.Notices[0].Task, "the older one is given up")
	})
}
