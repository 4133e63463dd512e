package subagent

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
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
	onAsk:      "the turn waits for an answer",
	onAnswer:   "the answer is there",
	onRetry:    "the run goes back to a queue for another attempt",
	onResume:   "a new run begins",
	onRestore:  "found after a restart with its child out of reach",
}

// fired are the triggers that some function of the package uses, by the names of
// their constants.
func fired(t *testing.T) map[string]bool {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	used := map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				ast.Inspect(fn, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok {
						used[id.Name] = true
					}
					return true
				})
			}
		}
	}
	return used
}

func stateMachineDoc(fired map[string]bool) string {
	var b strings.Builder
	b.WriteString("# The state machine of a task\n\nGenerated from `transitions` in task.go by `go test -run TestStateMachineDoc -update .`; do not edit.\n\n")
	b.WriteString("```mermaid\nstateDiagram-v2\n    state by_reason <<choice>>\n    [*] --> pending\n")
	for s := Pending; s < numStatuses; s++ {
		for on := range numTriggers {
			switch to := transitions[s][on]; to {
			case none:
			case byReason:
				fmt.Fprintf(&b, "    %s --> by_reason: %s\n", s, triggerNames[on])
			default:
				fmt.Fprintf(&b, "    %s --> %s: %s\n", s, to, triggerNames[on])
			}
		}
	}
	for _, s := range []Status{Failed, Cancelled, Interrupted} {
		fmt.Fprintf(&b, "    by_reason --> %s\n", s)
	}
	for s := Completed; s < numStatuses; s++ {
		fmt.Fprintf(&b, "    %s --> [*]\n", s)
	}
	b.WriteString("```\n\n")
	b.WriteString("An empty cell refuses the trigger, so that the first ending wins. \"by reason\" is the status that the reason calls for, as listed under Reasons.\n\n| status |")
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
		name, note := triggerNames[on], ""
		if !fired["on"+strings.ToUpper(name[:1])+name[1:]] {
			note = " (not yet fired)"
		}
		fmt.Fprintf(&b, "- `%s`: %s%s\n", name, triggerWords[on], note)
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
	want := stateMachineDoc(fired(t))
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
	}
	doc, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(doc), "go test -run TestStateMachineDoc -update .")
	slot := "- `slot`: " + triggerWords[onSlot]
	require.Contains(t, want, slot+"\n", "what is used is found")
	require.Contains(t, stateMachineDoc(nil), slot+" (not yet fired)\n")
}

// books is all that transition may change in them for one task.
type books struct {
	task              Task
	reason            *Reason
	count             [numStatuses]int
	live, root, owner int
	notices, lines    int
}

func (m *BackgroundManager) booksOf(t *task) books {
	return books{
		m.snapshotLocked(t), t.reason, m.count, m.live, t.root.live, t.owner.live, len(t.owner.ended), len(m.book.waiting),
	}
}

// placed is a manager whose only task is in a status, as if it had come there.
func placed(t *testing.T, s Status) (*BackgroundManager, *task) {
	t.Helper()
	m, err := New(&stub{}, Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	m.book.working = true // nobody is: the lines stay to be counted
	task, o, err := m.plan(t.Context(), work("p"))
	require.NoError(t, err)
	require.NoError(t, m.launchLocked(task, o))
	if s != Pending {
		m.leaveQueueLocked(task)
	}
	if s.Terminal() {
		m.live, task.root.live, task.owner.live, task.ended = 0, 0, 0, 1
	}
	task.status, task.reason = s, because(ByUser, nil)
	m.count[Pending], m.count[s] = 0, 1
	return m, task
}

// TestEveryCell fires every trigger in every status: an empty cell refuses and
// changes nothing, all others lead where the table says.
func TestEveryCell(t *testing.T) {
	for s := Pending; s < numStatuses; s++ {
		for on := range numTriggers {
			for _, code := range []ReasonCode{ByParent, Restart, Deadline} {
				m, task := placed(t, s)
				before, r := m.booksOf(task), because(code, nil)
				to := transitions[s][on]
				if to == byReason {
					to = outcomes[code]
				}
				applied := m.transition(task, on, r)
				after := m.booksOf(task)
				require.Equal(t, to != none, applied, "%s on %s", s, triggerNames[on])
				if !applied {
					require.Equal(t, before, after, "%s on %s", s, triggerNames[on])
					require.Same(t, before.reason, after.reason)
					continue
				}
				require.Equal(t, to, task.status)
				require.Same(t, r, task.reason)
				require.Equal(t, before.lines+1, after.lines, "one line is logged")
				require.Equal(t, 1, m.count[to])
				settled := 0
				if to.Terminal() {
					settled = 1
				}
				require.Equal(t, []int{before.live - settled, before.root - settled, before.owner - settled},
					[]int{after.live, after.root, after.owner}, "an ending, and nothing else, settles")
				require.Equal(t, before.notices+settled, after.notices, "an ending, and nothing else, is owed")
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
}
