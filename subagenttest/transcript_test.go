package subagenttest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// The fake tells what was said, and whatever else its script says.
func TestTranscript(t *testing.T) {
	said := []subagent.Message{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	actions := []Action{{}, {Said: said}, {Said: said}, {Said: said}, {Err: errScript}, {Delay: time.Second}}
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(unknowing{t}, func(call Call) Action {
			if call.Op == OpTranscript {
				return actions[call.N]
			}
			return Action{Text: "an answer"}
		})
		id, err := c.Create(t.Context(), subagent.CreateRequest{Task: "bg_1", Attempt: 1})
		require.NoError(t, err)
		_, err = c.Prompt(t.Context(), id, subagent.Prompt{Task: "bg_1", Attempt: 1, Text: "a question"})
		require.NoError(t, err)
		read := func(q subagent.TranscriptQuery) []subagent.Message {
			got, err := c.Transcript(t.Context(), id, q)
			require.NoError(t, err)
			return got
		}
		require.Equal(t, []subagent.Message{
			{ID: "msg_1", Role: subagent.RoleUser, Text: "a question", Complete: true},
			{ID: "msg_2", Role: subagent.RoleAssistant, Text: "an answer", Complete: true},
		}, read(subagent.TranscriptQuery{}))
		require.Equal(t, said[1:], read(subagent.TranscriptQuery{Since: "a"}))
		require.Equal(t, said[2:], read(subagent.TranscriptQuery{Limit: 1}))
		require.Equal(t, said, read(subagent.TranscriptQuery{Since: "unknown"}), "all, as the contract says")
		_, err = c.Transcript(t.Context(), id, subagent.TranscriptQuery{})
		require.ErrorIs(t, err, errScript)
		began := time.Now()
		require.Len(t, read(subagent.TranscriptQuery{}), 2)
		require.Equal(t, time.Second, time.Since(began))
		_, err = c.Transcript(t.Context(), "ses_none", subagent.TranscriptQuery{})
		var refused *subagent.SessionError
		require.True(t, errors.As(err, &refused))
		require.Equal(t, subagent.TranscriptQuery{Since: "a"}, c.Calls()[3].Query)
	})
}
