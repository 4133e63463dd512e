package subagent

import (
	"context"
	"errors"
	"fmt"
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
	err   error // of the host: looked at by the goroutine that writes
}

func (m *BackgroundManager) logLocked(level slog.Level, msg string, attrs ...slog.Attr) {
	m.logErrorLocked(level, msg, nil, attrs...)
}

func (m *BackgroundManager) logErrorLocked(level slog.Level, msg string, err error, attrs ...slog.Attr) {
	if m.log == nil || m.phase == over { // a call that comes back later is too late for the log
		return
	}
	if len(m.book.lines) >= maxLines {
		m.book.dropped++
		return
	}
	m.book.lines = append(m.book.lines, line{time.Now(), level, msg, attrs, err})
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
		slog.String("agent", t.in.Agent), slog.String("key", keyOf(t.in.Agent, t.in.Model).String()), slog.Int("attempt", int(t.attempts)),
		slog.String("from", from.String()), slog.String("to", t.status.String()),
	}
	if t.reason != nil {
		attrs = append(attrs, slog.String("reason", string(t.reason.Code)))
	}
	if t.status == Failed || t.status == Interrupted {
		m.logErrorLocked(slog.LevelWarn, "task", t.reason.Err, attrs...)
	} else {
		m.logLocked(slog.LevelInfo, "task", attrs...)
	}
}

// logDeliveryLocked notes a try to deliver the frozen batch that failed.
func (m *BackgroundManager) logDeliveryLocked(b *mailbox) {
	m.logErrorLocked(slog.LevelWarn, "notification not delivered", b.lastErr,
		slog.String("notification", b.batch.ID), slog.String("parent", string(b.origin.Parent)), slog.Int("try", b.tries))
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
		m.book.lines = append(m.book.lines, line{time.Now(), slog.LevelWarn, "log lines dropped", []slog.Attr{slog.Int("lines", n)}, nil})
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
	if l.err != nil {
		r.AddAttrs(slog.String("error", errorKind(l.err)))
	}
	return h.Handle(ctx, r)
}

// errorKind is what may be logged of an error of the host: its class, or else its type.
// Its text may hold what a model wrote, or a secret.
func errorKind(err error) string {
	kind := fmt.Sprintf("%T", err)
	_ = guard("log", func() error { // one that panics has a type all the same
		var s *SessionError
		if errors.As(err, &s) && s != nil && s.Class != ClassUnknown {
			kind = word(string(s.Class))
		}
		return nil
	})
	return kind
}
