package subagent

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A session whose Release ended its goroutine is given up once more by Close.
func TestGoexitInRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, calls := timed(), 0
		c.release = func(context.Context, SessionID) error {
			if calls++; calls == 1 {
				runtime.Goexit()
			}
			return nil
		}
		m := newManager(t, c, Config{Retention: Retention{Age: time.Minute}})
		in := taking("p", "1s")
		in.NoNotice = true
		launch(t, m, in)
		pass(time.Hour)
		require.Equal(t, 1, calls)
		require.NoError(t, m.Close())
		require.Equal(t, 2, calls)
	})
}

// So is one that came too late.
func TestGoexitInLateRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := &stub{create: func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(5 * time.Second)
			return "late", nil
		}}
		c.release = func(context.Context, SessionID) error {
			if calls++; calls == 1 {
				runtime.Goexit()
			}
			return nil
		}
		m := newManager(t, c, Config{Task: TaskLimits{Start: time.Second}})
		launch(t, m, work("p"))
		pass(time.Minute)
		require.Equal(t, 1, calls)
		require.NoError(t, m.Close())
		require.Equal(t, 2, calls)
	})
}
