package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	Settle  time.Duration          // how long any one call, or a stop, may take. Defaults to 10 s.
}

// TestClient checks that a SessionClient keeps the contract: run it in the tests of
// every adapter. factory makes a fresh subject for each case. A failure names the
// rule that was broken.
func TestClient(t *testing.T, factory func(t *testing.T) Subject) {
	for _, c := range clientCases {
		t.Run(c.name, func(t *testing.T) {
			s := factory(t)
			if s.Settle == 0 {
				s.Settle = 10 * time.Second
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*s.Settle)
			defer cancel()
			switch err := c.check(ctx, s); {
			case errors.Is(err, errAbsent):
				t.Skip("the client has no such ability")
			case err != nil:
				t.Errorf("%v\nThe rule: %s", err, c.rule)
			}
		})
	}
}

// clientCase is one rule with its check.
type clientCase struct {
	name, rule string
	check      func(context.Context, Subject) error
}

// errAbsent is what the check of an optional ability returns where there is none.
var errAbsent = errors.New("absent")

var clientCases = []clientCase{
	{"create", "Create opens a new session each time, with an id of its own", checkCreate},
	{"prompt", "Prompt returns the turn's text when the turn is over", checkPrompt},
	{"two turns", "a session takes one prompt after the other", checkTwoTurns},
	{"sessions at once", "turns of different sessions go on at the same time", checkParallel},
	{"abort", "Abort returns nil once nothing of the turn goes on, and its Prompt returns", checkAbort},
	{"abort at rest", "Abort of an idle or unknown session is nil, and so is a second one", checkAbortIdle},
	{"abort twice at once", "Aborts of one session may overlap", checkAbortTwice},
	{"prompt after abort", "a session goes on after an aborted turn", checkAfterAbort},
	{"context", "Prompt returns with an error soon after its context has ended", checkContext},
	{"create with an ended context", "Create returns an error or a session that works, never an empty id without an error", checkEndedCreate},
	{"unknown session", "Prompt of an unknown session is a *SessionError", checkUnknown},
	{"failed turn", "a turn that fails is a *SessionError", checkFail},
	{"release", "Release gives a session up for good; of an unknown or released one it is nil", checkRelease},
	{"steer at rest", "Steer of a session that is in no turn is an error", checkSteer},
	{"lineage", "ParentOf a session that does not exist is an error", checkLineage},
}

func (s Subject) create(ctx context.Context) (subagent.SessionID, error) {
	id, err := s.Client.Create(ctx, s.Request)
	if err == nil && id == "" {
		err = errors.New("Create returned an empty id and no error")
	}
	return id, err
}

// turn runs one prompt and returns its text.
func (s Subject) turn(ctx context.Context, id subagent.SessionID, text string) (string, error) {
	r, err := s.Client.Prompt(ctx, id, subagent.Prompt{Task: s.Request.Task, Attempt: s.Request.Attempt, Text: text, Agent: s.Request.Agent, Model: s.Request.Model})
	return r.Text, err
}

func checkCreate(ctx context.Context, s Subject) error {
	seen := map[subagent.SessionID]bool{}
	for range 3 {
		id, err := s.create(ctx)
		if err != nil {
			return err
		}
		if seen[id] {
			return fmt.Errorf("session %q was returned twice", id)
		}
		seen[id] = true
	}
	return nil
}

func checkPrompt(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	return s.answers(ctx, id)
}

// answers checks that a session answers the quick prompt.
func (s Subject) answers(ctx context.Context, id subagent.SessionID) error {
	text, err := s.turn(ctx, id, s.Quick)
	if err == nil && text == "" {
		err = errors.New("the turn has no text")
	}
	return err
}

func checkTwoTurns(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.answers(ctx, id), s.answers(ctx, id))
}

func checkParallel(ctx context.Context, s Subject) error {
	long, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	id, err := s.create(ctx)
	if err == nil {
		err = s.answers(ctx, id)
	}
	return errors.Join(err, s.Client.Abort(ctx, long), stop(s.Settle))
}

// begin starts a long turn. stop waits until its Prompt has returned.
func (s Subject) begin(ctx context.Context) (id subagent.SessionID, stop func(time.Duration) error, err error) {
	id, err = s.create(ctx)
	if err != nil {
		return "", nil, err
	}
	over := make(chan struct{})
	var text string
	var turnErr error
	go func() {
		defer close(over)
		text, turnErr = s.turn(ctx, id, s.Long)
	}()
	stop = func(most time.Duration) error {
		limit := time.NewTimer(most)
		defer limit.Stop()
		for {
			select {
			case <-over:
				if turnErr == nil {
					return fmt.Errorf("the stopped turn returned %q without an error", text)
				}
				return nil
			case <-limit.C:
				return fmt.Errorf("Prompt has not returned %v after its turn was stopped", most)
			case <-time.After(most / 50):
				// The turn may not have begun when it was stopped first.
				if err := s.Client.Abort(ctx, id); err != nil {
					return err
				}
			}
		}
	}
	return id, stop, nil
}

func checkAbort(ctx context.Context, s Subject) error {
	id, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.Client.Abort(ctx, id), stop(s.Settle))
}

func checkAbortIdle(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.Client.Abort(ctx, id), s.Client.Abort(ctx, id), s.answers(ctx, id), s.Client.Abort(ctx, id),
		s.Client.Abort(ctx, "no-such-session"))
}

func checkAbortTwice(ctx context.Context, s Subject) error {
	id, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Client.Abort(ctx, id) })
	}
	wg.Wait()
	return errors.Join(append(errs, stop(s.Settle))...)
}

func checkAfterAbort(ctx context.Context, s Subject) error {
	id, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.Client.Abort(ctx, id), stop(s.Settle), s.answers(ctx, id))
}

func checkContext(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, s.Settle/20)
	defer cancel()
	began := time.Now()
	text, err := s.turn(short, id, s.Long)
	switch took := time.Since(began); {
	case err == nil:
		return fmt.Errorf("Prompt returned %q without an error though its context had ended", text)
	case took > s.Settle:
		return fmt.Errorf("Prompt returned %v after it began, with a context of %v", took, s.Settle/20)
	}
	return s.Client.Abort(ctx, id)
}

func checkEndedCreate(ctx context.Context, s Subject) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	id, err := s.Client.Create(ended, s.Request)
	switch {
	case err != nil:
		return nil
	case id == "":
		return errors.New("Create returned an empty id and no error")
	}
	return s.answers(ctx, id)
}

func checkUnknown(ctx context.Context, s Subject) error {
	_, err := s.turn(ctx, "no-such-session", s.Quick)
	return typed(err)
}

func typed(err error) error {
	var said *subagent.SessionError
	switch {
	case err == nil:
		return errors.New("Prompt returned no error")
	case !errors.As(err, &said):
		return fmt.Errorf("the error is a %T, and no *SessionError: %w", err, err)
	case said.Op == "":
		return fmt.Errorf("the SessionError has no Op: %w", err)
	}
	return nil
}

func checkFail(ctx context.Context, s Subject) error {
	if s.Fail == "" {
		return errAbsent
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	_, err = s.turn(ctx, id, s.Fail)
	return typed(err)
}

func checkRelease(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.Releaser)
	if !ok {
		return errAbsent
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	if err := r.Release(ctx, id); errors.Is(err, errors.ErrUnsupported) {
		return errAbsent
	} else if err != nil {
		return err
	}
	if _, err := s.turn(ctx, id, s.Quick); err == nil {
		return errors.New("a released session was prompted without an error")
	}
	return errors.Join(r.Release(ctx, id), r.Release(ctx, "no-such-session"))
}

func checkSteer(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.Steerer)
	if !ok {
		return errAbsent
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	switch err := r.Steer(ctx, id, "go on"); {
	case errors.Is(err, errors.ErrUnsupported):
		return errAbsent
	case err == nil:
		return errors.New("no error from Steer")
	}
	return nil
}

func checkLineage(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.LineageResolver)
	if !ok {
		return errAbsent
	}
	switch parent, err := r.ParentOf(ctx, "no-such-session"); {
	case errors.Is(err, errors.ErrUnsupported):
		return errAbsent
	case err == nil:
		return fmt.Errorf("ParentOf returned %q and no error", parent)
	}
	return nil
}
