package subagent

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// All who wait for one run get copies of their own, to keep and to change.
func TestWaitersGetCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{prompt: hang}, Config{})
		in := work("p")
		in.Labels = map[string]string{"kind": "a"}
		task := launch(t, m, in)
		synctest.Wait()
		spoil := func(mine Task, i int) {
			mine.Labels["kind"] = strconv.Itoa(i)
			mine.Reason.Code = ReasonCode(strconv.Itoa(i))
			mine.Attempts[0].Number = i
		}
		var tasks [4]Task
		var g sync.WaitGroup
		for i := range tasks {
			g.Go(func() {
				tasks[i], _ = m.Wait(t.Context(), task.ID)
				spoil(tasks[i], i)
			})
		}
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		spoil(ended, 4)
		g.Wait()
		for i, mine := range append(tasks[:], ended) {
			require.Equal(t, strconv.Itoa(i), mine.Labels["kind"])
			require.Equal(t, strconv.Itoa(i), string(mine.Reason.Code))
			require.Equal(t, i, mine.Attempts[0].Number)
		}
		now := get(t, m, task.ID)
		require.Equal(t, "a", now.Labels["kind"])
		require.ErrorIs(t, now.Reason, ByUser)
		require.Equal(t, 1, now.Attempts[0].Number)
	})
}

// The cause of a stopped Create's context is a copy of the task's reason.
func TestCauseIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause *Reason
		m := newManager(t, &stub{create: func(ctx context.Context, _ CreateRequest) (SessionID, error) {
			<-ctx.Done()
			if errors.As(context.Cause(ctx), &cause) {
				cause.Observed = "changed by the host"
			}
			return "", ctx.Err()
		}}, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, &Reason{Code: ByUser}, ended.Reason)
		require.ErrorIs(t, cause, ByUser)
	})
}

// Admit is shown the limits of the launch, as a copy.
func TestAdmitSeesTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []TaskLimits
		m := newManager(t, &stub{}, Config{Admit: func(_ context.Context, in LaunchInput, _ Lineage) error {
			if in.Limits != nil {
				seen = append(seen, *in.Limits)
				in.Limits.ResultBytes = 1
			}
			return nil
		}})
		in := work("p")
		in.Limits = &TaskLimits{ResultBytes: 2}
		launch(t, m, work("p"))
		task := launch(t, m, in)
		require.Equal(t, []TaskLimits{{ResultBytes: 2}}, seen)
		require.Equal(t, 2, in.Limits.ResultBytes)
		require.Equal(t, 2, m.byID[task.ID].limits.ResultBytes)
	})
}
