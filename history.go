package subagent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-48fd9ae4/subagent/internal/clean"
)

// Bounds of History: entries, bytes of a line, and bytes in all. The figures are those of
// oh-my-openagent's context for compaction.
const historyEntries, historyLine, historyBytes = 20, 240, 6000

const historyNote = "Your background tasks, the newest first:\n"

// History is what a session's tasks were, in a few lines for a model that is about to
// lose its conversation, as in compaction: the newest first, one line each, without what
// changes by itself, so that it is the same from call to call as long as nothing happened.
// At most 20 tasks in 6000 bytes; those that were forgotten are not among them. It is ""
// for a session that launched nothing; "" as a session has the tasks without a parent.
func (m *BackgroundManager) History(parent SessionID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.mailboxes[parent]
	if b == nil || len(b.children) == int(b.gaps) {
		return ""
	}
	var text strings.Builder
	text.WriteString(historyNote)
	entries, more := 0, 0
	for i := len(b.children) - 1; i >= 0; i-- {
		t := b.children[i]
		if t.forgotten {
			continue
		}
		line := t.historyLineLocked()
		if entries == historyEntries || text.Len()+len(line) > historyBytes-moreRoom {
			more++
			continue
		}
		text.WriteString(line)
		entries++
	}
	if more > 0 {
		fmt.Fprintf(&text, "- … and %d older\n", more)
	}
	return text.String()
}

// historyLineLocked is a task in one line.
func (t *task) historyLineLocked() string {
	b := append([]byte("- "), t.id...)
	b = append(append(b, ' '), t.status.String()...)
	if t.run > 1 {
		b = append(strconv.AppendInt(append(b, " (run "...), int64(t.run), 10), ')')
	}
	if t.unstoppedLocked() != nil {
		b = append(b, unstoppedNote...)
	}
	for _, field := range []struct{ label, value string }{
		{"; session ", word(string(t.session))}, {"; agent ", word(t.in.Agent)}, {"; ", asTitle(t.in.Description)},
	} {
		if more := appendField(b, field.label, field.value); len(more) < historyLine {
			b = more
		}
	}
	return string(append(b, '\n'))
}

// asTitle is a description in quotes, "" if there is none. Quoting may make it longer.
func asTitle(description string) string {
	d := clean.Line(description, historyLine/2)
	if d == "" {
		return ""
	}
	return strconv.Quote(d)
}
