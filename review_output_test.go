package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The last message of a child that was left running may still grow: reading on begins
// with it.
func TestCursorOfALeftRunningChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []Message{{ID: "u", Role: RoleUser, Text: "1h"}, {ID: "a", Role: RoleAssistant, Text: "half"}}
		m := newManager(t, &talking{stub: timed(), said: func(_ context.Context, _ SessionID, q TranscriptQuery) ([]Message, error) {
			return newest(all, q), nil
		}}, Config{})
		task := launch(t, m, taking("p", "1h"))
		synctest.Wait()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{LeaveRunning: true})
		require.NoError(t, err)
		o := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.Equal(t, Cancelled, o.Task.Status)
		require.Equal(t, "u", o.Cursor, "the rest is not said yet")
		pass(2 * time.Hour)
		all[1].Text = "half, and the rest"
		o = output(t, m, task.ID, OutputQuery{Transcript: true, Since: o.Cursor})
		require.Equal(t, []string{"a"}, messageIDs(o))
		require.Equal(t, "a", o.Cursor, "it is at rest, whether or not its host calls that complete")
	})
}

// So may that of a run which begins while the messages of the one before are read.
func TestCursorOfAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &talking{stub: timed(), said: func(context.Context, SessionID, TranscriptQuery) ([]Message, error) {
			time.Sleep(time.Second)
			return []Message{{ID: "a", Role: RoleAssistant, Complete: true}, {ID: "b", Role: RoleAssistant, Text: "half"}}, nil
		}}, Config{})
		task := launch(t, m, taking("p", "1s"))
		pass(2 * time.Second)
		go func() {
			time.Sleep(100 * time.Millisecond)
			_, _ = m.Resume(context.Background(), task.ID, ResumeInput{Prompt: "1h"})
		}()
		o := output(t, m, task.ID, OutputQuery{Transcript: true})
		require.Equal(t, Completed, o.Task.Status)
		require.Equal(t, Running, get(t, m, task.ID).Status)
		require.Equal(t, "a", o.Cursor)
	})
}
