package subagent

import (
	"context"
	"errors"
	"time"
)

// How a turn is waited for that somebody else began.

// LastPrompter is an [AsyncClient] that can name a prompt which was sent by somebody else:
// with it the client that [Blocking] makes is an [Attacher]. Without it Attach is
// [errors.ErrUnsupported].
type LastPrompter interface {
	// LastPrompt returns the mark of the last prompt of a session, whoever sent it, as
	// Output takes it. nil says that there was none yet: it is asked again for as long as
	// BlockingConfig.Started. A message that asked for no answer is no prompt. What it
	// can't find out is an error, and asked again; for a session that the host does not
	// know [ErrSessionGone] is in its chain.
	LastPrompt(ctx context.Context, session SessionID) (mark any, err error)
}

var errNoPrompt = errors.New("the session was not prompted within BlockingConfig.Started")

// Attach waits, as Prompt does, until the turn is over that the session is in, and returns
// what it made; at once if the session rests. While the host can't be asked it waits on.
func (b *BlockingClient) Attach(ctx context.Context, id SessionID, _ Prompt) (Result, error) {
	host, ok := b.host.(LastPrompter)
	if !ok {
		return Result{}, errors.ErrUnsupported
	}
	t, err := b.begin(ctx, id, true)
	if err != nil {
		return Result{}, err
	}
	defer b.end(t)
	mark, err := b.lastPrompt(ctx, host, t)
	if err != nil {
		return Result{}, b.ofTurn(t, err)
	}
	return b.await(ctx, t, mark, nil)
}

// lastPrompt asks until the host has said which prompt it is, and where its session is: no
// event may come any more.
func (b *BlockingClient) lastPrompt(ctx context.Context, host LastPrompter, t *hostTurn) (any, error) {
	startBy := time.Now().Add(b.cfg.Started)
	for tries := 0; ; tries++ {
		var mark any
		err := b.slot(ctx, func(ctx context.Context) (err error) {
			mark, err = host.LastPrompt(ctx, t.session)
			return err
		})
		found := err == nil && mark != nil && b.where(ctx, t)
		switch {
		case b.state(t).aborted:
			return nil, &SessionError{Op: "prompt", Session: t.session, Class: ClassAborted, Err: errAborted}
		case found:
			return mark, nil
		case isFinal(err), err != nil && errors.Is(err, errors.ErrUnsupported), goneFrom(err) && !b.busy(ctx, t):
			return nil, err
		case err == nil && mark == nil && !time.Now().Before(startBy):
			return nil, &SessionError{Op: "prompt", Session: t.session, Class: ClassInvalid, Err: errNoPrompt}
		}
		if !b.pause(ctx, t, b.cfg.Settle<<min(tries, 4)) && !b.state(t).aborted {
			return nil, context.Cause(ctx)
		}
	}
}

// where takes in whether a session rests that was not followed so far, if that can be
// found out and nothing was heard of it meanwhile.
func (b *BlockingClient) where(ctx context.Context, t *hostTurn) (known bool) {
	before := b.state(t).signs
	s, err := b.status(ctx, t) // which takes in that it is at work
	if err != nil || s == HostUnreachable {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !s.busy() && t.signs == before {
		t.resting, t.ended = true, t.ended || s == HostEnded
		t.news()
	}
	return true
}

var _ Attacher = (*BlockingClient)(nil)
