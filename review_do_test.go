package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Do gives up in the instant in which its run ends and another begins.
type lateCtx struct {
	context.Context
	done chan struct{}
	err  func() error
}

func (c *lateCtx) Done() <-chan struct{} { return c.done }

func (c *lateCtx) Err() error { return c.err() }

func TestReviewDoCancelsAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *BackgroundManager
		m = newManager(t, timed(), Config{})
		c := &lateCtx{Context: context.Background(), done: make(chan struct{})}
		var id TaskID
		over := false
		c.err = func() error {
			select {
			case <-c.done:
			default:
				return nil
			}
			if !over { // the run ends now, and somebody resumes it
				over = true
				_, _ = m.Wait(context.Background(), id)
				_, err := m.Resume(context.Background(), id, ResumeInput{Prompt: "1m"})
				require.NoError(t, err)
				synctest.Wait()
			}
			return context.Canceled
		}
		done := make(chan error, 1)
		go func() { _, err := m.Do(c, taking("p", "2s")); done <- err }()
		pass(time.Second)
		id = m.List(Filter{})[0].ID
		close(c.done)
		<-done
		pass(time.Hour)
		now := get(t, m, id)
		require.Equal(t, 2, now.Run)
		require.Equal(t, Completed, now.Status, "%v", now.Reason)
	})
}
