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

type line struct {
	at    time.Time
	level slog.Level
	msg   string
	attrs []slog.Attr
	err   error // of the host: looked at by the goroutine that writes
	lost  int   // lines that found no room after the one before
}

func (m *BackgroundManager) logLocked(level slog.Level, msg string, attrs ...slog.Attr) {
	m.logErrorLocked(level, msg, nil, attrs...)
}

func (m *BackgroundManager) logErrorLocked(level slog.Level, msg string, err error, attrs ...slog.Attr) {
	if m.log == nil || m.phase == over { // a call that comes back later is too late for the log
		return
	}
	n := len(m.book.waiting)
	if n < maxLines {
		m.book.addLocked(m, line{at: time.Now(), level: level, msg: msg, attrs: attrs, err: err})
		return
	}
	if m.book.waiting[n-1].lost == 0 {
		m.book.addLocked(m, line{at: time.Now(), level: slog.LevelWarn, msg: "log lines dropped"})
		n++
	}
	m.book.waiting[n-1].lost++
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

func (l line) do(m *BackgroundManager) {
	_ = guard("log", func() error { return l.write(m.log.Handler()) })
}

func (l *line) write(h slog.Handler) error {
	ctx := context.Background()
	if !h.Enabled(ctx, l.level) {
		return nil
	}
	r := slog.NewRecord(l.at, l.level, l.msg, 0)
	r.AddAttrs(l.attrs...)
	if l.lost > 0 {
		r.AddAttrs(slog.Int("lines", l.lost))
	}
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
