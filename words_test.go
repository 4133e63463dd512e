package subagent

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each value of a closed set is written as its word, is read back from it, and
// nothing else is read.
func TestWords(t *testing.T) {
	words(t, Pending, numStatuses, "by reason", "Status(10)")
	words(t, TopicStatus, numTopics, "Topic(0)", "Topic(7)")
	words(t, Unknown, numDeliveries, "told", "Delivery(4)")
	words(t, HandOffer, numHandovers, "Wake", "Handover(3)")
	words(t, PushAll, numPushes, "none", "PushPolicy(3)")
	words(t, InterruptedKeep, numInterrupted, "stop", "InterruptedPolicy(3)")
	require.Equal(t, "Topic(0) Delivery(-1)", fmt.Sprint(Topic(0), " ", Delivery(-1)))
	var topic Topic
	require.EqualError(t, topic.UnmarshalText([]byte("x")), `subagent: Topic is "x": must be one of status, session, progress, told, moved, forgotten`)
}

func words[T interface {
	worded
	fmt.Stringer
	encoding.TextMarshaler
}, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, first, end T, bad, beyond string) {
	t.Helper()
	seen := map[string]bool{}
	for v := first; v < end; v++ {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%q", v.String()), string(text))
		require.False(t, seen[v.String()], v)
		seen[v.String()] = true
		var read T
		require.NoError(t, json.Unmarshal(text, P(&read)))
		require.Equal(t, v, read)
	}
	for _, text := range []string{"", bad, beyond} {
		read := first
		var in *InputError
		require.ErrorAs(t, P(&read).UnmarshalText([]byte(text)), &in, text)
		require.Equal(t, first, read, "it changes nothing")
	}
	if end.String() != "by reason" { // the state machine's own
		require.Equal(t, beyond, end.String())
	}
}

// What a host writes down of a task keeps the text of each error in it.
func TestErrorsAreWrittenDown(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Output{
		Task: Task{
			ID: "bg_1", Status: Failed, Reason: &Reason{Code: PromptFailed, Err: errors.New("no model")},
			Attempts: []Attempt{{Number: 1, Started: at, Unstopped: errors.New("it hangs")}, {Number: 2, Session: "s", Ended: at}},
		},
		Ran:           time.Second,
		Messages:      []Message{{ID: "a", Role: RoleAssistant, Time: at, Err: errors.New("aborted")}, {ID: "b", Tools: []ToolCall{{Name: "bash", Input: "{}"}}, Complete: true}},
		TranscriptErr: errors.New("no transcript"),
	}
	text, err := json.Marshal(want)
	require.NoError(t, err)
	var got Output
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)
	require.Error(t, json.Unmarshal([]byte(`{"TranscriptErr":1}`), &got))
	require.Error(t, json.Unmarshal([]byte(`{"Unstopped":1}`), &got.Task.Attempts[0]))
	require.Error(t, json.Unmarshal([]byte(`{"Err":1}`), &got.Messages[0]))

	text, err = json.Marshal(Message{Err: hostileError{}})
	require.NoError(t, err)
	require.Contains(t, string(text), unreadableError)

	text, err = json.Marshal(Attempt{})
	require.NoError(t, err)
	require.NotContains(t, string(text), "Unstopped")
}
