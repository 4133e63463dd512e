package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// waits over a move.
func TestReviewWaitOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAttaching()
		turn := c.runs("theirs")
		m := newManager(t, c, Config{Notifier: &inbox{}})
		task := track(t, m, "p", "theirs")
		type got struct {
			t   Task
			err error
		}
		waited, read, gaveUp := make(chan got, 1), make(chan got, 1), make(chan got, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { now, err := m.As("p").Wait(t.Context(), task.ID); waited <- got{now, err} }()
		go func() {
			o, err := m.As("p").Output(t.Context(), task.ID, OutputQuery{Wait: time.Minute})
			read <- got{o.Task, err}
		}()
		go func() { now, err := m.As("p").Wait(ctx, task.ID); gaveUp <- got{now, err} }()
		pass(time.Second)
		track(t, m, "q", "theirs")
		require.ErrorIs(t, second(m.As("p").Get(task.ID)), ErrNotFound)
		cancel()
		synctest.Wait()
		turn <- Result{Text: "for q alone"}
		pass(time.Minute)
		for name, ch := range map[string]chan got{"Wait": waited, "Output": read, "Wait given up": gaveUp} {
			g := <-ch
			require.Equal(t, unknown(task.ID), g.err, "%s: %+v", name, g.t.Result)
			require.Zero(t, g.t, name)
		}
	})
}
