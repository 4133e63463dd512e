package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// WaitAny over a resume: what has gone on by the time somebody looks is waited for again.
func TestReviewWaitAnyOverResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		one := launch(t, m, taking("p", "1s"))
		any := make(chan Task, 1)
		go func() { ended, _ := m.WaitAny(context.Background(), Filter{IDs: []TaskID{one.ID}}); any <- ended }()
		all := make(chan []Task, 1)
		go func() { ended, _ := m.WaitAll(context.Background(), Filter{IDs: []TaskID{one.ID}}); all <- ended }()
		_, _ = m.Wait(t.Context(), one.ID)
		_, err := m.Resume(t.Context(), one.ID, ResumeInput{Prompt: "1m"})
		require.NoError(t, err)
		pass(time.Hour / 2)
		require.True(t, (<-any).Status.Terminal())
		for _, task := range <-all {
			require.True(t, task.Status.Terminal())
		}
		require.Empty(t, m.watches)
	})
}

// A parent deleted while a batch, a deposit or a turn asked for is out: nothing stays behind.
func TestReviewDeletedWhileOut(t *testing.T) {
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
