package subagent

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// The reason of a completed task is nil, and can be asked like any other.
func TestReasonOfACompletedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &stub{}, Config{})
		done, err := m.Do(t.Context(), work("p"))
		require.NoError(t, err)
		require.Nil(t, done.Reason)
		require.False(t, errors.Is(done.Reason, StartTimeout))
		var said *SessionError
		require.False(t, errors.As(done.Reason, &said))
		require.Empty(t, done.Reason.Error())
	})
}

// A task that was written as JSON reads back; of an error the text remains.
func TestTaskReadsBack(t *testing.T) {
	for _, k := range []Key{{}, {ModelKey, "p/m:1"}, {AgentKey, "a"}, {AgentTotalKey, "a"}, {ProviderKey, "p"}, {Kind: GlobalKey}, {ParentKey, "x"}, {Kind: StartsKey}} {
		want := Task{ID: "bg_1", Status: Failed, Key: k, Reason: because(SessionFailed, errors.New("boom"))}
		text, err := json.Marshal(want)
		require.NoError(t, err)
		var got Task
		require.NoError(t, json.Unmarshal(text, &got))
		require.Equal(t, want, got)
	}
	for _, text := range []string{`{"Key": "nothing:x"}`, `{"Key": ":x"}`, `{"Status": "lost"}`} {
		var got Task
		var input *InputError
		require.ErrorAs(t, json.Unmarshal([]byte(text), &got), &input, text)
	}
}
