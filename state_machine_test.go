package subagent

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// triggerWords say what each trigger means, for the document.
var triggerWords = [numTriggers]string{
	onSlot:     "its lease was taken; its session is being created",
	onPrompted: "its session is there and the prompt goes out",
	onDone:     "the turn ended well",
	onFail:     "the attempt failed and left nothing running",
	onStop:     "it is to end, whatever the child does: a cancel, a time-out, a failed call, an ancestor's end, a shutdown",
	onStopped:  "the stopped child is at rest, or was given up after `Config.AbortGrace`",
	onAsk:      "the turn waits for an answer (not yet fired)",
	onAnswer:   "the answer is there (not yet fired)",
	onRetry:    "the run goes back to a queue for another attempt (not yet fired)",
	onResume:   "a new run begins (not yet fired)",
	onRestore:  "found after a restart with its child out of reach (not yet fired)",
}

func stateMachineDoc() string {
	var b strings.Builder
	b.WriteString("# The state machine of a task\n\nGenerated from `transitions` in task.go by `go test -run TestStateMachineDoc -update .`; do not edit.\n\n")
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> pending\n")
	for s := Pending; s < numStatuses; s++ {
		for on := range numTriggers {
			switch to := transitions[s][on]; to {
			case none:
			case byReason:
				fmt.Fprintf(&b, "    %s --> ended: %s\n", s, triggerNames[on])
			default:
				fmt.Fprintf(&b, "    %s --> %s: %s\n", s, to, triggerNames[on])
			}
		}
	}
	b.WriteString("    state \"failed, cancelled or interrupted, by reason\" as ended\n```\n\n")
	b.WriteString("An empty cell refuses the trigger, so that the first ending wins. \"by reason\" is the status that the reason calls for.\n\n| status |")
	for on := range numTriggers {
		fmt.Fprintf(&b, " %s |", triggerNames[on])
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", int(numTriggers)) + "\n")
	for s := Pending; s < numStatuses; s++ {
		fmt.Fprintf(&b, "| %s |", s)
		for on := range numTriggers {
			cell := ""
			if to := transitions[s][on]; to != none {
				cell = to.String()
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Triggers\n\n")
	for on := range numTriggers {
		fmt.Fprintf(&b, "- `%s`: %s\n", triggerNames[on], triggerWords[on])
	}
	b.WriteString("\n## Reasons\n\n")
	for _, s := range []Status{Cancelled, Interrupted, Failed} {
		var codes []string
		for _, c := range slices.Sorted(maps.Keys(outcomes)) {
			if outcomes[c] == s {
				codes = append(codes, "`"+string(c)+"`")
			}
		}
		fmt.Fprintf(&b, "- **%s**: %s\n", s, strings.Join(codes, ", "))
	}
	return b.String()
}

func TestStateMachineDoc(t *testing.T) {
	const file = "docs/state_machine.md"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(stateMachineDoc()), 0o644))
	}
	doc, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, stateMachineDoc(), string(doc), "go test -run TestStateMachineDoc -update .")
}

// TestEveryCell fires every trigger in every status: an empty cell refuses and
// changes nothing, all others lead where the table says.
func TestEveryCell(t *testing.T) {
	for s := Pending; s < numStatuses; s++ {
		for on := range numTriggers {
			for _, code := range []ReasonCode{ByUser, Restart, Deadline} {
				m, err := New(&stub{}, Config{})
				require.NoError(t, err)
				b := m.mailboxLocked(origin{Lineage: Lineage{Parent: "p"}})
				before := because(ByUser, nil)
				task := &task{id: "bg_x", in: work("p"), owner: b, root: &root{live: 1}, status: s, reason: before}
				b.live, m.live, m.count[s] = 1, 1, 1
				to := next(s, on, because(code, nil))
				applied := m.transition(task, on, because(code, nil))
				require.Equal(t, to != none, applied, "%s on %s", s, triggerNames[on])
				if !applied {
					require.Equal(t, s, task.status)
					require.Same(t, before, task.reason)
					require.Equal(t, 1, m.count[s])
					require.Equal(t, 1, b.live)
					continue
				}
				require.Equal(t, to, task.status)
				require.Equal(t, 1, m.count[to])
				require.Equal(t, to.Terminal(), b.live == 0, "an ending, and nothing else, settles")
				if transitions[s][on] == byReason {
					require.Equal(t, outcomes[code], to)
				}
			}
		}
	}
}

// A terminal status is left by nothing but a new run; every reason ends a run in
// one of three ways.
func TestTableIsSound(t *testing.T) {
	for s := Completed; s < numStatuses; s++ {
		for on := range numTriggers {
			require.True(t, transitions[s][on] == none || on == onResume, "%s on %s", s, triggerNames[on])
		}
	}
	for code, s := range outcomes {
		require.Contains(t, []Status{Cancelled, Failed, Interrupted}, s, code)
	}
	for s := Pending; s < numStatuses; s++ {
		var back Status
		text, err := s.MarshalText()
		require.NoError(t, err)
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, s, back)
	}
	var bad Status
	require.Error(t, bad.UnmarshalText([]byte("by reason")))
}
