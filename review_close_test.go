package subagent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// No Release begins after Close has returned, however many sessions were left.
func TestNoReleaseBeginsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, let := timed(), make(chan struct{})
		var calls atomic.Int32
		c.release = func(context.Context, SessionID) error {
			calls.Add(1)
			<-let
			return nil
		}
		m, err := New(c, Config{})
		require.NoError(t, err)
		for range 20 {
			launch(t, m, taking("p", "1s"))
		}
		pass(time.Minute)
		var list *UnstoppedError
		require.True(t, errors.As(m.Close(), &list))
		require.Len(t, list.Calls, 20)
		before := calls.Load()
		close(let)
		pass(time.Minute)
		require.Equal(t, before, calls.Load())
	})
}
