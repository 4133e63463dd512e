package subagent

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// What a turn said, and what the errors of a child's calls stand for.

// said is what is kept of a run's turn.
type said struct {
	text                     string
	usage                    Usage
	size                     int
	run                      int32 // that said it
	produced, empty, partial bool
	heard                    *progress // from events; nil: there were none
}

func (s *said) result() Result {
	return Result{Text: s.text, Usage: s.usage, Empty: s.empty, Partial: s.partial, Size: s.size, Run: int(s.run)}
}

// blank reports whether it says nothing, and is not meant to.
func (s *said) blank() bool { return strings.TrimSpace(s.text) == "" && !s.empty }

// kept is what is put on the record of what a turn said: cut to its bound. It is
// called without the lock.
func (a *attempt) kept(r Result) *said {
	s := &said{text: r.Text, usage: r.Usage, size: len(r.Text), run: a.run, empty: r.Empty, partial: r.Partial, produced: true}
	if limit := a.task.limits.ResultBytes; limit != Off {
		s.text = cut(s.text, limit)
	}
	return s
}

// keepLocked puts it there, unless it is of a stopped turn and says nothing.
func (a *attempt) keepLocked(s *said) {
	t := a.task
	s.partial = s.partial || t.status == Stopping
	if s.partial && s.size == 0 && s.usage == (Usage{}) {
		return
	}
	if before := t.said; before != nil && before.run != s.run && before.size > 0 && s.blank() {
		return // what an earlier run said can be read until another says something
	}
	if t.said != nil {
		s.heard = t.said.heard
	}
	t.said = s
}

// cut shortens s to at most n bytes, on a rune's border, and lets go of the rest.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax && i >= 0; i-- {
		if utf8.RuneStart(s[i]) {
			return strings.Clone(s[:i])
		}
	}
	return strings.Clone(s[:n]) // it is no UTF-8 there
}

// failure is the reason that an error of a call stands for, nil for no error, whether
// the error says that the turn was stopped, and whether its prompt may still come. The
// methods of an error are code of the host too: one that panics is put down as that.
func failure(op string, err error) (r *Reason, stopped, inDoubt bool) {
	if err == nil {
		return nil, false, false
	}
	panicked := guard(op, func() error {
		var code ReasonCode
		code, stopped = classify(op, err)
		inDoubt = errors.Is(err, ErrInDoubt)
		r = because(code, err)
		_ = r.Error()
		return nil
	})
	if panicked != nil {
		return because(Panicked, panicked), false, false
	}
	return r, stopped && !inDoubt, inDoubt
}

// classify: a session that could not be made has failed; a turn whose error says
// nothing is of unknown outcome.
func classify(op string, err error) (code ReasonCode, stopped bool) {
	var panicked *PanicError
	var session *SessionError
	typed := errors.As(err, &session) && session != nil
	switch {
	case errors.As(err, &panicked):
		return Panicked, false
	case op == "create":
		return SessionFailed, false
	case errors.Is(err, ErrSessionGone):
		return SessionGone, true
	case errors.Is(err, ErrNotSent), typed && session.Class == ClassAborted:
		return PromptFailed, true
	case typed && session.Class != ClassUnavailable:
		return SessionFailed, false
	default:
		return PromptFailed, false
	}
}
