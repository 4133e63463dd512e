package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// screen draws the table in place, a few times in a second.
type screen struct {
	out    io.Writer
	height int // lines of the table that is there
}

func (s *screen) begin(rows []*row) { s.tick(rows) }

func (s *screen) heard(subagent.Event, *row) {}

func (s *screen) over(rows []*row) { s.tick(rows) }

// tick draws all rows over those that are there, in one write, so that nothing comes in
// between. Long lines end at the edge and are not wrapped, or the count of lines would
// be wrong.
func (s *screen) tick(rows []*row) {
	var b bytes.Buffer
	if s.height > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.height)
	}
	b.WriteString("\x1b[?7l")
	s.height = 0
	for line := range strings.Lines(format(rows)) {
		b.WriteString("\x1b[K" + line)
		s.height++
	}
	b.WriteString("\x1b[?7h")
	_, _ = s.out.Write(b.Bytes())
}

// format is the table as text.
func format(rows []*row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		t := r.task
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\n", strings.Repeat("  ", t.Depth-1), clean(t.Description, 40), t.Status, ran(t), tools(t.Progress), clean(r.does(), 100))
	}
	_ = w.Flush()
	return b.String()
}

// ran is how long a task runs, or has run.
func ran(t subagent.Task) string {
	switch {
	case t.Started.IsZero():
		return "-"
	case t.Ended.IsZero():
		return fmt.Sprintf("%.1fs", time.Since(t.Started).Seconds())
	}
	return fmt.Sprintf("%.1fs", t.Ended.Sub(t.Started).Seconds())
}

func tools(p subagent.Progress) string {
	if p.ToolCalls == 0 {
		return ""
	}
	return fmt.Sprintf("tools: %d", p.ToolCalls)
}

// does says what a task is doing, or what came of it. It may be words of a child, and is
// not clean.
func (r *row) does() string {
	t := r.task
	switch p := t.Progress; {
	case t.Status == subagent.Pending: // no event tells of its place, which changes
		return "waits for " + t.Key.String()
	case t.Reason != nil:
		return why(t.Reason)
	case t.Status.Terminal():
		return t.Result.Text
	case p.Waiting != "":
		return "asks: " + p.Waiting
	case p.Retrying != "":
		return "tries again: " + p.Retrying
	case p.OpenTools > 0:
		return "calls " + p.LastTool
	}
	return lastLine(r.said)
}

// why is a reason without the session's id, which is for logs.
func why(r *subagent.Reason) string {
	var failed *subagent.SessionError
	if errors.As(r, &failed) && failed.Err != nil {
		return failed.Err.Error()
	}
	return r.Error()
}

// lines prints a line for each thing that happens.
type lines struct {
	out   io.Writer
	began time.Time
	said  map[subagent.TaskID]string // words that are no whole line yet
}

func (l *lines) begin(rows []*row) {
	for _, r := range rows {
		l.print(time.Now(), r.task, r.task.Status.String())
	}
}

func (l *lines) tick([]*row) {}

func (l *lines) heard(e subagent.Event, r *row) {
	switch call := e.Progress.Tool; {
	case e.Topic == subagent.TopicStatus && e.Task.Status.Terminal():
		l.flush(e, "\n")
		l.print(e.Time, e.Task, e.Task.Status.String()+": "+r.does())
	case e.Topic == subagent.TopicStatus:
		l.print(e.Time, e.Task, e.Task.Status.String())
	case e.Progress.Kind == subagent.EventText:
		l.flush(e, e.Progress.Text)
	case e.Progress.Kind == subagent.EventTool && !call.Over:
		l.print(e.Time, e.Task, "calls "+call.Name)
	case e.Progress.Kind == subagent.EventRetrying:
		l.print(e.Time, e.Task, r.does())
	}
}

// flush prints the lines that are whole, now that some more was said.
func (l *lines) flush(e subagent.Event, more string) {
	if l.said == nil {
		l.said = map[subagent.TaskID]string{}
	}
	text := l.said[e.Task.ID] + more
	end := strings.LastIndexByte(text, '\n') + 1
	l.said[e.Task.ID] = text[end:]
	for line := range strings.Lines(text[:end]) {
		if line = clean(line, 100); line != "" {
			l.print(e.Time, e.Task, "says: "+line)
		}
	}
}

func (l *lines) print(at time.Time, t subagent.Task, what string) {
	fmt.Fprintf(l.out, "%.1fs  %-20s  %s\n", at.Sub(l.began).Seconds(), clean(t.Description, 40), clean(what, 110))
}

func (l *lines) over(rows []*row) {
	count := map[subagent.Status]int{}
	for _, r := range rows {
		count[r.task.Status]++
	}
	var parts []string
	for s := subagent.Completed; s <= subagent.Interrupted; s++ {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	fmt.Fprintf(l.out, "all have ended: %s\n", strings.Join(parts, ", "))
}
