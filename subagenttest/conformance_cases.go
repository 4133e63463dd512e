package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// clientRules is the contract of a SessionClient, as far as calls can tell.
var clientRules = []rule[Subject]{
	{"create", "Create opens a new session each time, with an id of its own, and starts nothing", checkCreate},
	{"prompt", "Prompt returns the turn's text when the turn is over, with neither Empty nor Partial set", checkPrompt},
	{"two turns", "a session takes one prompt after the other", checkTwoTurns},
	{"sessions at once", "turns of different sessions go on at the same time", checkParallel},
	{"many at once", "all methods may be called concurrently", checkMany},
	{"abort", "Abort returns nil once nothing of the turn goes on, and its Prompt returns soon, with an error or a partial result", checkAbort},
	{"abort at rest", "Abort of an idle or unknown session is nil, and so is a second one", checkAbortIdle},
	{"abort twice at once", "Aborts of one session may overlap", checkAbortTwice},
	{"prompt after abort", "a session goes on after an aborted turn: it answers the next prompt", checkAfterAbort},
	{"context", "Prompt returns with an error soon after its context has ended, and Abort then brings the turn to rest", checkContext},
	{"prompt with an ended context", "Prompt returns with an error soon if its context has ended before, and Abort then brings the turn to rest", checkEndedPrompt},
	{"create with an ended context", "Create returns an error or a session that works, never an empty id without an error", checkEndedCreate},
	{"unknown session", `Prompt of an unknown session is a *SessionError whose Op is "prompt"`, checkUnknown},
	{"failed turn", `a turn that fails, after one that went well, is a *SessionError whose Op is "prompt", and nothing of it goes on`, checkFail},
	{"blank turn", "a turn that says nothing, after one that did, is reported without text, or as a *SessionError", checkBlank},
	{"release", "Release gives a session up for good, and its Prompt is then an error; of an unknown or released session Release is nil", checkRelease},
	{"steer at rest", "Steer of a session that is in no turn, or unknown, is an error", checkSteer},
	{"transcript", "Transcript returns prompt and answer in their order, of these only those after Since and the newest up to Limit, and an error for a session that does not exist", checkTranscript},
	{"lineage", "ParentOf returns what a session was made under, and an error for one that does not exist", checkLineage},
}

const unknown subagent.SessionID = "no-such-session"

func checkCreate(ctx context.Context, s Subject) error {
	seen := map[subagent.SessionID]bool{}
	for range 3 {
		id, err := s.create(ctx)
		if err != nil {
			return err
		}
		if seen[id] {
			return fmt.Errorf("Create returned session %q twice", id)
		}
		seen[id] = true
		if err := s.rests(id, "Create"); err != nil {
			return err
		}
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

func checkTwoTurns(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	if err := s.answers(ctx, id); err != nil {
		return err
	}
	return s.answers(ctx, id)
}

func checkParallel(ctx context.Context, s Subject) error {
	long, err := s.begin(ctx)
	if err != nil {
		return err
	}
	id, err := s.create(ctx)
	if err == nil {
		err = s.answers(ctx, id)
	}
	return errors.Join(err, s.abort(ctx, long.id), long.returned(ctx))
}

// checkMany is mostly for the race detector.
func checkMany(ctx context.Context, s Subject) error {
	const sessions = 8
	var wg sync.WaitGroup
	var errs [sessions]error
	var ids [sessions]subagent.SessionID
	for i := range sessions {
		wg.Go(func() {
			if ids[i], errs[i] = s.create(ctx); errs[i] != nil {
				return
			}
			errs[i] = errors.Join(s.answers(ctx, ids[i]), s.abort(ctx, ids[i]))
		})
	}
	wg.Wait()
	seen := map[subagent.SessionID]bool{}
	for i, id := range ids {
		if seen[id] && errs[i] == nil {
			errs[i] = fmt.Errorf("Create returned session %q twice", id)
		}
		seen[id] = true
	}
	return errors.Join(errs[:]...)
}

func checkAbort(ctx context.Context, s Subject) error {
	long, err := s.begin(ctx)
	if err != nil {
		return err
	}
	if err := s.abort(ctx, long.id); err != nil {
		return err
	}
	return long.returned(ctx)
}

func checkAbortIdle(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.abort(ctx, id), s.abort(ctx, id), s.answers(ctx, id), s.abort(ctx, id), s.abort(ctx, unknown))
}

func checkAbortTwice(ctx context.Context, s Subject) error {
	long, err := s.begin(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var errs [3]error
	for i := range errs {
		wg.Go(func() { errs[i] = s.abort(ctx, long.id) })
	}
	wg.Wait()
	return errors.Join(errors.Join(errs[:]...), long.returned(ctx))
}

func checkAfterAbort(ctx context.Context, s Subject) error {
	long, err := s.begin(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(s.abort(ctx, long.id), long.returned(ctx)); err != nil {
		return err
	}
	return s.answers(ctx, long.id)
}

func checkContext(ctx context.Context, s Subject) error {
	cut, cancel := context.WithCancel(ctx)
	defer cancel()
	long, err := s.begin(cut)
	if err != nil {
		return err
	}
	cancel()
	limit := time.NewTimer(s.Settle)
	defer limit.Stop()
	select {
	case <-long.over:
	case <-limit.C:
		return fmt.Errorf("Prompt has not returned %v after its context ended", s.Settle)
	}
	return errors.Join(cutShort(long.result, long.err), s.abort(ctx, long.id))
}

// cutShort is for a Prompt that its context ended: what becomes of the turn is not
// known, and that is an error.
func cutShort(r subagent.Result, err error) error {
	return refused(err, fmt.Sprintf("Prompt returned %q without an error though its context had ended", r.Text))
}

func checkEndedPrompt(ctx context.Context, s Subject) error {
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := cutShort(s.turn(ended, id, s.Long)); err != nil {
		return err
	}
	return s.abort(ctx, id)
}

func checkEndedCreate(ctx context.Context, s Subject) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	id, err := s.create(ended)
	switch {
	case err == nil:
		return s.answers(ctx, id)
	case refused(err, "") != nil:
		return err
	case id == "":
		return nil
	}
	return s.abort(ctx, id) // the session is there all the same
}

func checkUnknown(ctx context.Context, s Subject) error {
	_, err := s.turn(ctx, unknown, s.Quick)
	return typed(err)
}

func typed(err error) error {
	if err := refused(err, "Prompt returned no error"); err != nil {
		return err
	}
	var said *subagent.SessionError
	switch {
	case !errors.As(err, &said):
		return fmt.Errorf("the error is not a *SessionError: %w", err)
	case said.Op != "prompt":
		return fmt.Errorf("the Op of the SessionError is %q, not prompt: %w", said.Op, err)
	}
	return nil
}

func checkFail(ctx context.Context, s Subject) error {
	if s.Fail == "" {
		return absent("Subject.Fail is empty")
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	if err := s.answers(ctx, id); err != nil { // which is not to be taken for the next one
		return err
	}
	_, err = s.turn(ctx, id, s.Fail)
	return errors.Join(typed(err), s.abort(ctx, id))
}

func checkBlank(ctx context.Context, s Subject) error {
	if s.Blank == "" {
		return absent("Subject.Blank is empty")
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	if err := s.answers(ctx, id); err != nil { // which is not to be taken for the next one
		return err
	}
	s.Settle *= 3
	r, err := s.turn(ctx, id, s.Blank)
	if err != nil {
		return typed(err)
	}
	if strings.TrimSpace(r.Text) != "" {
		return fmt.Errorf("the client answered %q for a turn without text", r.Text)
	}
	return s.rests(id, "Prompt")
}

func checkRelease(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.Releaser)
	if !ok {
		return absent("the client is no subagent.Releaser")
	}
	release := func(id subagent.SessionID) error {
		return s.do("Release", func() error { return r.Release(ctx, id) })
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	switch err := release(id); {
	case errors.Is(err, errors.ErrUnsupported):
		return absent("Release is errors.ErrUnsupported")
	case err != nil:
		return err
	}
	_, err = s.turn(ctx, id, s.Quick)
	if err := refused(err, "a released session was prompted without an error"); err != nil {
		return err
	}
	return errors.Join(release(id), release(unknown), s.abort(ctx, id))
}

func checkSteer(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.Steerer)
	if !ok {
		return absent("the client is no subagent.Steerer")
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	for _, id := range []subagent.SessionID{id, unknown} {
		err := s.do("Steer", func() error { return r.Steer(ctx, id, "go on") })
		if errors.Is(err, errors.ErrUnsupported) {
			return absent("Steer is errors.ErrUnsupported")
		}
		if err := refused(err, fmt.Sprintf("session %q was steered without an error, and no turn of it runs", id)); err != nil {
			return err
		}
	}
	return s.rests(id, "Steer")
}

func checkLineage(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.LineageResolver)
	if !ok {
		return absent("the client is no subagent.LineageResolver")
	}
	parentOf := func(id subagent.SessionID) (subagent.SessionID, error) {
		return call(s.Settle, "ParentOf", func() (subagent.SessionID, error) { return r.ParentOf(ctx, id) })
	}
	parent, err := parentOf(unknown)
	if errors.Is(err, errors.ErrUnsupported) {
		return absent("ParentOf is errors.ErrUnsupported")
	}
	err = refused(err, fmt.Sprintf("ParentOf returned %q and no error for a session that does not exist", parent))
	if err != nil || s.Request.Parent == "" {
		return err
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	parent, err = parentOf(id)
	if err == nil && parent != s.Request.Parent {
		err = fmt.Errorf("ParentOf returned %q for a session made under %q", parent, s.Request.Parent)
	}
	return err
}
