package subagenttest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// broken is the fake with some methods of its own, which break a rule.
type broken struct {
	*Client
	create   func(context.Context, subagent.CreateRequest) (subagent.SessionID, error)
	prompt   func(context.Context, subagent.SessionID, subagent.Prompt) (subagent.Result, error)
	abort    func(context.Context, subagent.SessionID) error
	release  func(context.Context, subagent.SessionID) error
	steer    func(subagent.SessionID) error
	parentOf func(subagent.SessionID) (subagent.SessionID, error)
	knowsAll bool                                                                           // also a session that does not exist
	said     func([]subagent.Message, subagent.TranscriptQuery) ([]subagent.Message, error) // of all of a session
}

func (b *broken) Create(ctx context.Context, r subagent.CreateRequest) (subagent.SessionID, error) {
	if b.create != nil {
		return b.create(ctx, r)
	}
	return b.Client.Create(ctx, r)
}

func (b *broken) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	if b.prompt != nil {
		return b.prompt(ctx, id, p)
	}
	return b.Client.Prompt(ctx, id, p)
}

func (b *broken) Abort(ctx context.Context, id subagent.SessionID) error {
	if b.abort != nil {
		return b.abort(ctx, id)
	}
	return b.Client.Abort(ctx, id)
}

func (b *broken) Release(ctx context.Context, id subagent.SessionID) error {
	if b.release != nil {
		return b.release(ctx, id)
	}
	return b.Client.Release(ctx, id)
}

func (b *broken) Steer(_ context.Context, id subagent.SessionID, _ string) error {
	if b.steer != nil {
		return b.steer(id)
	}
	return errors.ErrUnsupported
}

func (b *broken) ParentOf(_ context.Context, id subagent.SessionID) (subagent.SessionID, error) {
	if b.parentOf != nil {
		return b.parentOf(id)
	}
	return "", errors.ErrUnsupported
}

func (b *broken) Transcript(_ context.Context, id subagent.SessionID, q subagent.TranscriptQuery) ([]subagent.Message, error) {
	switch {
	case b.said == nil:
		return nil, errors.ErrUnsupported
	case id == unknown && !b.knowsAll:
		return nil, errBoom
	}
	var all []subagent.Message
	for i := range 4 {
		m := subagent.Message{ID: string(rune('a' + i)), Role: subagent.RoleUser, Text: "quick", Complete: true}
		if i%2 == 1 {
			m.Role, m.Text = subagent.RoleAssistant, "answer"
		}
		all = append(all, m)
	}
	return b.said(all, q)
}

// chosen is what a transcript that keeps the rules returns.
func chosen(all []subagent.Message, q subagent.TranscriptQuery) ([]subagent.Message, error) {
	all = all[slices.IndexFunc(all, func(m subagent.Message) bool { return m.ID == q.Since })+1:]
	if q.Limit > 0 {
		all = all[max(0, len(all)-q.Limit):]
	}
	return all, nil
}

// spoilt changes one message of the transcript.
func spoilt(i int, spoil func(*subagent.Message)) func(*broken) {
	return func(b *broken) {
		b.said = func(all []subagent.Message, q subagent.TranscriptQuery) ([]subagent.Message, error) {
			spoil(&all[i])
			return chosen(all, q)
		}
	}
}

// Short names, for there are many of them.
type (
	ctxOf    = context.Context
	idOf     = subagent.SessionID
	promptOf = subagent.Prompt
	resultOf = subagent.Result
)

// answer has the quick prompt end like this.
func (b *broken) answer(r resultOf, err error) { b.answerTo("quick", r, err) }

func (b *broken) answerTo(prompt string, r resultOf, err error) {
	b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
		if p.Text == prompt {
			return r, err
		}
		return b.Client.Prompt(ctx, id, p)
	}
}

var errBoom = errors.New("boom")

// breakages break one rule each. by is the case that is to notice, and says what.
// blind hides the host's work from the suite.
var breakages = []struct {
	by, says string
	blind    bool
	spoil    func(*broken)
}{
	{by: "create", says: "twice", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { return "same", nil }
	}},
	{by: "create", says: "empty id", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { return "", nil }
	}},
	{by: "create", says: "boom", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { panic(errBoom) }
	}},
	{by: "create", says: "has not returned", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { <-b.let; return "", errBoom }
	}},
	{by: "create", says: "still at work", spoil: func(b *broken) {
		b.create = func(ctx ctxOf, r subagent.CreateRequest) (idOf, error) {
			id, err := b.Client.Create(ctx, r)
			b.startLong(ctx, id)
			return id, err
		}
	}},
	{by: "prompt", says: "no text", spoil: func(b *broken) { b.answer(resultOf{Text: " "}, nil) }},
	{by: "prompt", says: "Empty", spoil: func(b *broken) { b.answer(resultOf{Text: "x", Empty: true}, nil) }},
	{by: "prompt", says: "Partial", spoil: func(b *broken) { b.answer(resultOf{Text: "x", Partial: true}, nil) }},
	{by: "prompt", says: "boom", spoil: func(b *broken) { b.answer(resultOf{}, errBoom) }},
	{by: "prompt", says: "still at work", spoil: func(b *broken) {
		b.prompt = func(ctx ctxOf, id idOf, _ promptOf) (resultOf, error) {
			b.startLong(ctx, id)
			return resultOf{Text: "begun"}, nil
		}
	}},
	{by: "two turns", says: "boom", spoil: func(b *broken) {
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
			if b.Count(OpPrompt) > 0 {
				return resultOf{}, errBoom
			}
			return b.Client.Prompt(ctx, id, p)
		}
	}},
	{by: "sessions at once", says: "has not returned", spoil: func(b *broken) {
		one := make(chan struct{}, 1)
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
			one <- struct{}{}
			defer func() { <-one }()
			return b.Client.Prompt(ctx, id, p)
		}
	}},
	{by: "many at once", says: "busy", spoil: func(b *broken) {
		one := make(chan struct{}, 1)
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
			select {
			case one <- struct{}{}:
				defer func() { <-one }()
				time.Sleep(time.Millisecond)
				return b.Client.Prompt(ctx, id, p)
			default:
				return resultOf{}, errors.New("busy")
			}
		}
	}},
	{by: "many at once", says: "twice", spoil: func(b *broken) {
		b.create = func(ctx ctxOf, r subagent.CreateRequest) (idOf, error) {
			id, err := b.Client.Create(ctx, r)
			return idOf(id[:len(id)-1]) + "0", err
		}
		b.prompt = func(ctxOf, idOf, promptOf) (resultOf, error) { return resultOf{Text: "x"}, nil }
	}},
	{by: "abort", says: "still at work", spoil: func(b *broken) { b.abort = func(ctxOf, idOf) error { return nil } }},
	{by: "abort", says: "has not returned 3s after", blind: true, spoil: func(b *broken) { b.abort = func(ctxOf, idOf) error { return nil } }},
	{by: "abort", says: "boom", spoil: func(b *broken) { b.abort = func(ctxOf, idOf) error { return errBoom } }},
	{by: "abort", says: "Abort has not returned", spoil: func(b *broken) { b.abort = func(ctxOf, idOf) error { <-b.let; return nil } }},
	{by: "abort", says: "ended by itself", spoil: func(b *broken) {
		b.prompt = func(ctxOf, idOf, promptOf) (resultOf, error) { return resultOf{Text: "short"}, nil }
	}},
	{by: "abort", says: "not under way", spoil: func(b *broken) {
		b.prompt = func(ctxOf, idOf, promptOf) (resultOf, error) { <-b.let; return resultOf{}, nil }
	}},
	{by: "abort", says: "panicked", blind: true, spoil: func(b *broken) {
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) { panic(errBoom) }
	}},
	{by: "abort", says: "without an error", spoil: func(b *broken) {
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
			r, _ := b.Client.Prompt(ctx, id, p)
			return r, nil
		}
	}},
	{by: "abort", says: "at work", spoil: func(b *broken) {
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
			_, err := b.Client.Prompt(ctx, id, p)
			b.startLong(ctx, id)
			return resultOf{}, err
		}
	}},
	{by: "abort at rest", says: "not running", spoil: func(b *broken) {
		b.abort = func(ctx ctxOf, id idOf) error {
			if id != unknown {
				return errors.New("not running")
			}
			return nil
		}
	}},
	{by: "abort at rest", says: "who?", spoil: func(b *broken) {
		b.abort = func(ctx ctxOf, id idOf) error {
			if id == unknown {
				return errors.New("who?")
			}
			return nil
		}
	}},
	{by: "abort twice at once", says: "stopping already", spoil: func(b *broken) {
		one := make(chan struct{}, 1)
		b.abort = func(ctx ctxOf, id idOf) error {
			select {
			case one <- struct{}{}:
				defer func() { <-one }()
				time.Sleep(time.Millisecond)
				return b.Client.Abort(ctx, id)
			default:
				return errors.New("stopping already")
			}
		}
	}},
	{by: "prompt after abort", says: "dead", spoil: func(b *broken) {
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
			if b.Count(OpAbort) > 0 {
				return resultOf{}, errors.New("dead")
			}
			return b.Client.Prompt(ctx, id, p)
		}
	}},
	{by: "context", says: "has not returned 3s after", spoil: func(b *broken) { b.deaf() }},
	{by: "context", says: "without an error", spoil: func(b *broken) { b.forgiving() }},
	{by: "context", says: "boom", spoil: func(b *broken) { b.abort = func(ctxOf, idOf) error { return errBoom } }},
	{by: "prompt with an ended context", says: "has not returned", spoil: func(b *broken) { b.deaf() }},
	{by: "prompt with an ended context", says: "without an error", spoil: func(b *broken) { b.forgiving() }},
	{by: "prompt with an ended context", says: "at work", spoil: func(b *broken) { b.abort = func(ctxOf, idOf) error { return nil } }},
	{by: "create with an ended context", says: "empty id", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { return "", nil }
	}},
	{by: "create with an ended context", says: "has not returned", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { <-b.let; return "", errBoom }
	}},
	{by: "create with an ended context", says: "no such session", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { return "never made", nil }
	}},
	{by: "create with an ended context", says: "boom", spoil: func(b *broken) {
		b.create = func(ctxOf, subagent.CreateRequest) (idOf, error) { return "made", errors.New("late") }
		b.abort = func(ctxOf, idOf) error { return errBoom }
	}},
	{by: "unknown session", says: "no error", spoil: func(b *broken) { b.answer(resultOf{Text: "x"}, nil) }},
	{by: "unknown session", says: "not a *SessionError", spoil: func(b *broken) { b.answer(resultOf{}, errBoom) }},
	{by: "unknown session", says: `"send"`, spoil: func(b *broken) { b.answer(resultOf{}, &subagent.SessionError{Op: "send"}) }},
	{by: "failed turn", says: "no error", spoil: func(b *broken) { b.answerTo("fail", resultOf{Text: "fine"}, nil) }},
	{by: "failed turn", says: "not a *SessionError", spoil: func(b *broken) { b.answerTo("fail", resultOf{}, errBoom) }},
	{by: "blank turn", says: "(no output)", spoil: func(b *broken) { b.answerTo("blank", resultOf{Text: "(no output)"}, nil) }},
	{by: "blank turn", says: "not a *SessionError", spoil: func(b *broken) { b.answerTo("blank", resultOf{}, errBoom) }},
	{by: "blank turn", says: "for a turn without text", spoil: func(b *broken) {
		var last resultOf
		b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) { // whatever the session said last
			r, err := b.Client.Prompt(ctx, id, p)
			if r.Text != "" {
				last = r
			}
			return last, err
		}
	}},
	{by: "release", says: "without an error", spoil: func(b *broken) { b.release = func(ctxOf, idOf) error { return nil } }},
	{by: "release", says: "who?", spoil: func(b *broken) {
		b.release = func(ctx ctxOf, id idOf) error {
			if id == unknown {
				return errors.New("who?")
			}
			return b.Client.Release(ctx, id)
		}
	}},
	{by: "release", says: "again", spoil: func(b *broken) {
		b.release = func(ctx ctxOf, id idOf) error {
			if b.Count(OpRelease) > 0 {
				return errors.New("again")
			}
			return b.Client.Release(ctx, id)
		}
	}},
	{by: "steer at rest", says: "steered without an error", spoil: func(b *broken) { b.steer = func(idOf) error { return nil } }},
	{by: "steer at rest", says: string(unknown), spoil: func(b *broken) {
		b.steer = func(id idOf) error {
			if id != unknown {
				return errBoom
			}
			return nil
		}
	}},
	{by: "transcript", says: "no error for a session", spoil: func(b *broken) { b.said, b.knowsAll = chosen, true }},
	{by: "transcript", says: "boom", spoil: func(b *broken) {
		b.said = func([]subagent.Message, subagent.TranscriptQuery) ([]subagent.Message, error) { return nil, errBoom }
	}},
	{by: "transcript", says: "asked for {Since:a Limit:0}", spoil: func(b *broken) {
		b.said = func(all []subagent.Message, q subagent.TranscriptQuery) ([]subagent.Message, error) {
			q.Since = ""
			return chosen(all, q)
		}
	}},
	{by: "transcript", says: "asked for {Since: Limit:1}", spoil: func(b *broken) {
		b.said = func(all []subagent.Message, q subagent.TranscriptQuery) ([]subagent.Message, error) {
			all, err := chosen(all, subagent.TranscriptQuery{Since: q.Since})
			if q.Limit > 0 {
				all = all[:min(q.Limit, len(all))] // the oldest
			}
			return all, err
		}
	}},
	{by: "transcript", says: "before it is asked", spoil: spoilt(0, func(m *subagent.Message) { m.Role, m.Text = subagent.RoleAssistant, "x" })},
	{by: "transcript", says: "there twice", spoil: spoilt(2, func(m *subagent.Message) { m.ID = "a" })},
	{by: "transcript", says: "1 complete answers", spoil: spoilt(3, func(m *subagent.Message) { m.Complete = false })},
	{by: "lineage", says: "no error", spoil: func(b *broken) { b.parentOf = func(idOf) (idOf, error) { return "", nil } }},
	{by: "lineage", says: "made under", spoil: func(b *broken) { b.parentOf = orphans }},
	{by: "lineage", says: "boom", spoil: func(b *broken) { b.parentOf = func(idOf) (idOf, error) { return "", errBoom } }},
}

func orphans(id subagent.SessionID) (subagent.SessionID, error) {
	if id == unknown {
		return "", errBoom
	}
	return "", nil
}

// startLong starts a turn that nobody asked for.
func (b *broken) startLong(ctx context.Context, id subagent.SessionID) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = b.Client.Prompt(context.WithoutCancel(ctx), id, subagent.Prompt{Task: "bg_1", Text: "long"})
	}()
	select {
	case <-over: // the test is over
	case <-time.After(time.Millisecond): // in fake time: once it is under way
	}
}

// deaf has prompts ignore their contexts.
func (b *broken) deaf() {
	b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
		return b.Client.Prompt(context.WithoutCancel(ctx), id, p)
	}
}

// forgiving has prompts lose their contexts' errors.
func (b *broken) forgiving() {
	b.prompt = func(ctx ctxOf, id idOf, p promptOf) (resultOf, error) {
		r, err := b.Client.Prompt(ctx, id, p)
		if ctx.Err() != nil {
			err = nil
		}
		return r, err
	}
}

// The suite can fail, and for the right reason: each broken client is noticed by the
// case for its rule, and each case notices one.
func TestSuiteNotices(t *testing.T) {
	rules, missed := map[string]rule[Subject]{}, map[string]bool{}
	for _, r := range clientRules {
		rules[r.name], missed[r.name] = r, true
	}
	for _, c := range breakages {
		require.Contains(t, rules, c.by)
		delete(missed, c.by)
		synctest.Test(t, func(t *testing.T) {
			good, s := obedient(t)
			bad := &broken{Client: good}
			c.spoil(bad)
			s.Client = bad
			if c.blind {
				s.Working = nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			err := rules[c.by].check(ctx, s)
			cancel()
			good.Let()
			require.ErrorContains(t, err, c.says, c.by)
			require.NotErrorIs(t, err, errAbsent, c.by)
		})
	}
	require.Empty(t, missed, "cases that nothing broken was shown to")
}
