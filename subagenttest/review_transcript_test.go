package subagenttest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// A host whose turns have a message for each step, two of them with words, keeps the
// contract.
func TestReviewTurnsOfTwoMessages(t *testing.T) {
	all := []subagent.Message{
		{ID: "1", Role: subagent.RoleUser, Text: "quick"},
		{ID: "2", Role: subagent.RoleAssistant, Text: "I look", Complete: true},
		{ID: "3", Role: subagent.RoleAssistant, Text: "done", Complete: true},
		{ID: "4", Role: subagent.RoleUser, Text: "quick"},
		{ID: "5", Role: subagent.RoleAssistant, Text: "I look", Complete: true},
		{ID: "6", Role: subagent.RoleAssistant, Text: "done", Complete: true},
	}
	require.NoError(t, whole(all, "quick"))
}
