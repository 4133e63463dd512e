package subagent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// abortsLate is a host whose turns end half a second after the call of their Abort, and
// half a second before that returns.
func abortsLate() *stub {
	stop := map[SessionID]chan struct{}{}
	c := &stub{}
	c.create = func(context.Context, CreateRequest) (SessionID, error) {
		id := c.id()
		stop[id] = make(chan struct{})
		return id, nil
	}
	c.prompt = func(_ context.Context, id SessionID, _ Prompt) (Result, error) {
		<-stop[id]
		time.Sleep(500 * time.Millisecond)
		return Result{}, &SessionError{Op: "prompt", Class: ClassAborted}
	}
	c.abort = func(_ context.Context, id SessionID) error {
		close(stop[id])
		time.Sleep(time.Second)
		return nil
	}
	return c
}

// CancelAll waits for the Aborts of all that it was called for, also of those that their
// ancestor took along, and a Cancel for that of a task which was being stopped already.
func TestCancelWaitsForAbortsOfOthers(t *testing.T) {
	for name, cancel := range map[string]func(m *BackgroundManager, top, below TaskID) error{
		"taken along by its ancestor": func(m *BackgroundManager, _, _ TaskID) error {
			tasks, err := m.CancelAll(context.Background(), Filter{Under: "p"}, CancelOptions{})
			if len(tasks) != 2 {
				return errors.New("not both")
			}
			return err
		},
		"being stopped already": func(m *BackgroundManager, top, below TaskID) error {
			go func() { _, _ = m.Cancel(context.Background(), top, CancelOptions{}) }()
			time.Sleep(time.Millisecond)
			if _, err := m.Cancel(context.Background(), below, CancelOptions{}); !errors.Is(err, ErrEnded) {
				return err
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, abortsLate(), Config{})
				top := launch(t, m, work("p"))
				synctest.Wait()
				below := launch(t, m, work(get(t, m, top.ID).Session))
				synctest.Wait()
				require.NoError(t, cancel(m, top.ID, below.ID))
				m.mu.Lock()
				defer m.mu.Unlock()
				require.NoError(t, m.canResumeLocked(m.byID[below.ID], false))
			})
		})
	}
}
