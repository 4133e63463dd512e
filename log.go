package subagent

import (
	"context"
	"log/slog"
	"time"
)

// The log: lines are put down under mu and written, in order, by one goroutine that
// is there while there are any. A log that blocks holds up nothing else.

// maxLines is how many lines may wait. What comes on top is counted, and the count
// is logged.
const maxLines = 10_000

// logbook is what waits to be logged. Guarded by mu.
type logbook struct {
	lines   []line
	dropped int  // lines that found no room
	writing bool // the goroutine that writes them runs
}

type line struct {
	at    time.Time
	level slog.Level
	msg   string
	attrs []slog.Attr
}

func (m *BackgroundManager) logLocked(level slog.Level, msg string, attrs ...slog.Attr) {
	if m.log == nil {
		return
	}
	if len(m.book.lines) >= maxLines {
		m.book.dropped++
		return
	}
	m.book.lines = append(m.book.lines, line{time.Now(), level, msg, attrs})
	if !m.book.writing {
		m.book.writing = true
		m.goLocked(m.writeLog)
	}
}

// logTransitionLocked notes where a task went and why, in words that carry
// nothing a model wrote.
func (m *BackgroundManager) logTransitionLocked(t *task, from Status) {
	if m.log == nil {
		return
	}
	attrs := []slog.Attr{
		slog.String("task", string(t.id)), slog.String("parent", string(t.parent())),
		slog.String("key", keyOf(t.in.Agent, t.in.Model).String()), slog.Int("attempt", int(t.attempts)),
		slog.String("from", from.String()), slog.String("to", t.status.String()),
	}
	if t.reason != nil {
		attrs = append(attrs, slog.String("reason", string(t.reason.Code)))
	}
	m.logLocked(slog.LevelInfo, "task", attrs...)
}

// writeLog is the goroutine that writes the log.
func (m *BackgroundManager) writeLog() {
	over := false
	defer func() {
		if !over { // the handler ended the goroutine: the next line has another one
			m.mu.Lock()
			defer m.mu.Unlock()
			m.book.writing = false
		}
	}()
	for lines := m.nextLines(); lines != nil; lines = m.nextLines() {
		for _, l := range lines {
			_ = guard("log", func() error { return l.write(m.log.Handler()) })
		}
	}
	over = true
}

// nextLines takes what there is to write; with nothing the writer is over.
func (m *BackgroundManager) nextLines() []line {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.book.dropped; n > 0 {
		m.book.dropped = 0
		m.book.lines = append(m.book.lines, line{time.Now(), slog.LevelWarn, "log lines dropped", []slog.Attr{slog.Int("lines", n)}})
	}
	lines := m.book.lines
	m.book.lines = nil
	m.book.writing = lines != nil
	return lines
}

func (l *line) write(h slog.Handler) error {
	ctx := context.Background()
	if !h.Enabled(ctx, l.level) {
		return nil
	}
	r := slog.NewRecord(l.at, l.level, l.msg, 0)
	r.AddAttrs(l.attrs...)
	return h.Handle(ctx, r)
}
