package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Subject is a client under [TestClient], and what the suite must know to use it.
type Subject struct {
	Client  subagent.SessionClient
	Request subagent.CreateRequest // what sessions are made from
	Quick   string                 // a prompt that is answered soon, with some text
	Long    string                 // a prompt that goes on until it is aborted
	Fail    string                 // a prompt that fails; "" if the host can't be made to
	Blank   string                 // a prompt whose turn ends well without text; "" if the host can't be made to

	// Working reports whether the host is at work in a session. With it the suite
	// sees turns that outlive their calls, and demands that one Abort is enough.
	// Defaults to nil: it goes by the calls, and lets a turn begin for a twentieth
	// of Settle before it aborts it.
	Working func(subagent.SessionID) bool

	// Settle is how long a call other than the long prompt, or a stop, may take.
	// A blank turn has three times as long: a client made by Blocking waits for its
	// Misses and one more polls before it believes one. Defaults to 10 s.
	Settle time.Duration
}

// TestClient checks that a SessionClient keeps the contract: run it in the tests of
// every adapter, with -race. factory makes a fresh subject for each case, and has
// t.Cleanup end what it makes; the sessions that a case makes are left as they are.
// A failure names the rule that was broken. A case about something that the client
// can't do, or that the subject has no prompt for, is skipped, and says which.
//
// The rules, each with the name of its case:
//
//   - create: Create opens a new session each time, with an id of its own, and
//     starts nothing
//   - prompt: Prompt returns the turn's text when the turn is over, with neither
//     Empty nor Partial set
//   - two turns: a session takes one prompt after the other
//   - sessions at once: turns of different sessions go on at the same time
//   - many at once: all methods may be called concurrently
//   - abort: Abort returns nil once nothing of the turn goes on, and its Prompt
//     returns soon, with an error or a partial result
//   - abort at rest: Abort of an idle or unknown session is nil, and so is a
//     second one
//   - abort twice at once: Aborts of one session may overlap
//   - prompt after abort: a session goes on after an aborted turn: it answers the
//     next prompt
//   - context: Prompt returns with an error soon after its context has ended, and
//     Abort then brings the turn to rest
//   - prompt with an ended context: Prompt returns with an error soon if its
//     context has ended before, and Abort then brings the turn to rest
//   - create with an ended context: Create returns an error or a session that
//     works, never an empty id without an error
//   - unknown session: Prompt of an unknown session is a *SessionError whose Op is
//     "prompt"
//   - failed turn: a turn that fails, after one that went well, is a *SessionError
//     whose Op is "prompt", and nothing of it goes on (with Subject.Fail)
//   - blank turn: a turn that says nothing, after one that did, is reported without
//     text, or as a *SessionError (with Subject.Blank)
//   - release: Release gives a session up for good, and its Prompt is then an
//     error; of an unknown or released session Release is nil (of a Releaser)
//   - steer at rest: Steer of a session that is in no turn, or unknown, is an
//     error (of a Steerer)
//   - transcript: Transcript returns prompt and answer in their order, of these only
//     those after Since and the newest up to Limit, and an error for a session
//     that does not exist (of a TranscriptReader)
//   - lineage: ParentOf returns what a session was made under, and an error for
//     one that does not exist (of a LineageResolver)
func TestClient(t *testing.T, factory func(t *testing.T) Subject) {
	t.Helper()
	suite(t, clientRules, factory)
}

// check says what the suite can't do without.
func (s Subject) check() error {
	for _, f := range []struct {
		name  string
		there bool
		what  string
	}{
		{"Client", s.Client != nil, "the client to test"},
		{"Quick", strings.TrimSpace(s.Quick) != "", "a prompt that is answered soon, with some text"},
		{"Long", strings.TrimSpace(s.Long) != "", "a prompt that goes on until it is aborted"},
	} {
		if !f.there {
			return fmt.Errorf("subagenttest: Subject.%s is empty: the suite needs %s", f.name, f.what)
		}
	}
	return nil
}

func (s Subject) settled() Subject {
	if s.Settle <= 0 {
		s.Settle = defaultSettle
	}
	return s
}

// moment is how long a turn is let begin that can't be seen to, and how often the
// suite looks otherwise.
func (s Subject) moment() time.Duration {
	d := max(s.Settle/20, time.Millisecond)
	if s.Working != nil {
		d = min(d, 10*time.Millisecond)
	}
	return d
}

// do is call for methods that return only an error.
func (s Subject) do(what string, f func() error) error {
	_, err := call(s.Settle, what, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// create makes a session that works.
func (s Subject) create(ctx context.Context) (subagent.SessionID, error) {
	return call(s.Settle, "Create", func() (subagent.SessionID, error) {
		id, err := s.Client.Create(ctx, s.Request)
		if err == nil && id == "" {
			err = breach{errors.New("it returned an empty id and no error")}
		}
		return id, err
	})
}

func (s Subject) prompt(text string) subagent.Prompt {
	return subagent.Prompt{
		Task: s.Request.Task, Attempt: s.Request.Attempt, Text: text,
		Agent: s.Request.Agent, Model: s.Request.Model, Variant: s.Request.Variant,
	}
}

// turn runs one prompt that ends by itself, or with its context.
func (s Subject) turn(ctx context.Context, id subagent.SessionID, text string) (subagent.Result, error) {
	return call(s.Settle, "Prompt", func() (subagent.Result, error) { return s.Client.Prompt(ctx, id, s.prompt(text)) })
}

// answers checks that a session answers the quick prompt.
func (s Subject) answers(ctx context.Context, id subagent.SessionID) error {
	r, err := s.turn(ctx, id, s.Quick)
	switch {
	case err != nil:
		return err
	case strings.TrimSpace(r.Text) == "":
		return errors.New("Prompt: the turn has no text")
	case r.Empty:
		return fmt.Errorf("Prompt: the result is %q, and Empty is set", r.Text)
	case r.Partial:
		return errors.New("Prompt: the turn came to its end, and Partial is set")
	}
	return s.rests(id, "Prompt")
}

// rests checks, as far as that can be seen, that nothing goes on in a session.
func (s Subject) rests(id subagent.SessionID, after string) error {
	if s.Working != nil && s.Working(id) {
		return fmt.Errorf("after %s the host is still at work in session %q", after, id)
	}
	return nil
}

// abort stops a turn. Nothing may go on when it returns.
func (s Subject) abort(ctx context.Context, id subagent.SessionID) error {
	if err := s.do("Abort", func() error { return s.Client.Abort(ctx, id) }); err != nil {
		return err
	}
	return s.rests(id, "Abort returned nil,")
}

// longTurn is a long prompt that is out.
type longTurn struct {
	s      Subject
	id     subagent.SessionID
	over   chan struct{} // closed when Prompt has returned
	result subagent.Result
	err    error
}

// begin makes a session and starts a long turn in it.
func (s Subject) begin(ctx context.Context) (*longTurn, error) {
	id, err := s.create(ctx)
	if err != nil {
		return nil, err
	}
	t := &longTurn{s: s, id: id, over: make(chan struct{})}
	go t.run(ctx)
	return t, t.begun()
}

func (t *longTurn) run(ctx context.Context) {
	defer close(t.over)
	defer func() {
		if v := recover(); v != nil {
			t.err = fmt.Errorf("Prompt panicked: %v", v)
		}
	}()
	t.result, t.err = t.s.Client.Prompt(ctx, t.id, t.s.prompt(t.s.Long))
}

// begun waits until the turn is under way, as far as that can be told.
func (t *longTurn) begun() error {
	limit := time.NewTimer(t.s.Settle)
	defer limit.Stop()
	look := time.NewTicker(t.s.moment())
	defer look.Stop()
	for {
		select {
		case <-t.over:
			return fmt.Errorf("the long prompt ended by itself: %q, %v", t.result.Text, t.err)
		case <-limit.C:
			return fmt.Errorf("the long prompt is not under way after %v", t.s.Settle)
		case <-look.C:
			if t.s.Working == nil || t.s.Working(t.id) {
				return nil
			}
		}
	}
}

// returned waits until the Prompt of a stopped turn is back, and checks what it
// says.
func (t *longTurn) returned(ctx context.Context) error {
	limit := time.NewTimer(t.s.Settle)
	defer limit.Stop()
	again := time.NewTicker(t.s.moment())
	defer again.Stop()
	for {
		select {
		case <-t.over:
			if t.err == nil && !t.result.Partial {
				return fmt.Errorf("the stopped Prompt returned %q without an error, and Partial is not set", t.result.Text)
			}
			return t.s.rests(t.id, "the stopped Prompt returned")
		case <-limit.C:
			return fmt.Errorf("Prompt has not returned %v after its turn was stopped", t.s.Settle)
		case <-again.C:
			if t.s.Working != nil {
				continue
			}
			// The Abort may have come before the turn.
			if err := t.s.abort(ctx, t.id); err != nil {
				return err
			}
		}
	}
}
