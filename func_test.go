package subagent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A session of Func keeps its history from turn to turn until it is released.
func TestFuncKeepsHistory(t *testing.T) {
	c := Func(func(_ context.Context, turn Turn) (Result, error) {
		n, _ := turn.History.(int)
		require.Equal(t, SessionID("parent"), turn.Create.Parent)
		require.NotEmpty(t, turn.Session)
		if turn.Text == "forget nothing" {
			return Result{Text: "kept"}, nil
		}
		return Result{Text: turn.Text, History: n + 1}, nil
	})
	ctx := t.Context()
	id, err := c.Create(ctx, CreateRequest{Parent: "parent"})
	require.NoError(t, err)
	for _, text := range []string{"one", "forget nothing", "two"} {
		_, err := c.Prompt(ctx, id, Prompt{Text: text})
		require.NoError(t, err)
	}
	require.Equal(t, 2, c.(*funcClient).sessions[id].history)
	require.NoError(t, c.(Releaser).Release(ctx, id))
	require.Empty(t, c.(*funcClient).sessions)
	_, err = c.Prompt(ctx, id, Prompt{})
	var said *SessionError
	require.ErrorAs(t, err, &said)
	require.ErrorIs(t, err, errNoSession)
}

// Messages reach the turn that runs, up to the buffer, and no other.
func TestFuncSteer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Func(func(ctx context.Context, turn Turn) (Result, error) {
			var all string
			for range 2 {
				all += <-turn.Steered
			}
			<-ctx.Done()
			return Result{Text: all}, ctx.Err()
		})
		s := c.(Steerer)
		ctx := t.Context()
		id, err := c.Create(ctx, CreateRequest{})
		require.NoError(t, err)
		require.ErrorIs(t, s.Steer(ctx, id, "early"), errResting)
		require.ErrorIs(t, s.Steer(ctx, "none", "x"), errNoSession)
		var r Result
		go func() { r, _ = c.Prompt(context.Background(), id, Prompt{}) }()
		synctest.Wait()
		require.NoError(t, s.Steer(ctx, id, "a"))
		require.NoError(t, s.Steer(ctx, id, "b"))
		synctest.Wait()
		for range steerBuffer {
			require.NoError(t, s.Steer(ctx, id, "more"))
		}
		require.ErrorIs(t, s.Steer(ctx, id, "too much"), errSteerFull)
		_, err = c.Prompt(ctx, id, Prompt{})
		require.ErrorIs(t, err, errBusy)
		require.NoError(t, c.Abort(ctx, id))
		synctest.Wait()
		require.Equal(t, "ab", r.Text)
	})
}

// Abort of a loop that does not heed its context ends with its own.
func TestFuncAbortIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Func(func(context.Context, Turn) (Result, error) {
			time.Sleep(time.Minute)
			return Result{Text: "late"}, nil
		})
		id, err := c.Create(t.Context(), CreateRequest{})
		require.NoError(t, err)
		require.NoError(t, c.Abort(t.Context(), id), "a resting session")
		require.NoError(t, c.Abort(t.Context(), "none"))
		var turnErr error
		go func() { _, turnErr = c.Prompt(context.Background(), id, Prompt{}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Abort(ctx, id), context.DeadlineExceeded)
		pass(2 * time.Minute)
		require.ErrorIs(t, turnErr, context.Canceled, "an aborted turn is no success")
	})
}

// A panic in the loop leaves the session usable and reaches the manager.
func TestFuncPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		m := newManager(t, Func(func(context.Context, Turn) (Result, error) { panic(boom) }), Config{})
		_, err := m.Do(t.Context(), work("p"))
		require.ErrorIs(t, err, Panicked)
		require.ErrorIs(t, err, boom)
		var p *PanicError
		require.ErrorAs(t, err, &p)
		require.Equal(t, "prompt", p.Op)
		require.NotEmpty(t, p.Stack)
	})
}

// A turn whose context has ended does not begin: it is aborted, and the loop is not
// called.
func TestFuncBeginsNoStoppedTurn(t *testing.T) {
	turns := 0
	c := Func(func(context.Context, Turn) (Result, error) { turns++; return Result{Text: "ok"}, nil })
	id, err := c.Create(t.Context(), CreateRequest{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Prompt(ctx, id, Prompt{})
	var said *SessionError
	require.ErrorAs(t, err, &said)
	require.Equal(t, ClassAborted, said.Class)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, turns)
	_, err = c.Prompt(t.Context(), id, Prompt{})
	require.NoError(t, err)
	require.Equal(t, 1, turns)
}

// Abort answers for a turn that runs on in a session that was released; the session
// is forgotten with the turn's end.
func TestFuncAbortAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		c := Func(func(context.Context, Turn) (Result, error) { <-let; return Result{Text: "ok"}, nil })
		id, err := c.Create(t.Context(), CreateRequest{})
		require.NoError(t, err)
		go func() { _, _ = c.Prompt(context.Background(), id, Prompt{}) }()
		synctest.Wait()
		require.NoError(t, c.(Releaser).Release(t.Context(), id))
		require.ErrorIs(t, c.(Steerer).Steer(t.Context(), id, "x"), errNoSession)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Abort(ctx, id), context.DeadlineExceeded)
		close(let)
		require.NoError(t, c.Abort(t.Context(), id))
		synctest.Wait()
		require.Empty(t, c.(*funcClient).sessions)
	})
}

// A message that the turn did not look at any more is for the session's next one.
func TestFuncSteerOutlivesTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		c := Func(func(_ context.Context, turn Turn) (Result, error) {
			for len(turn.Steered) > 0 {
				seen = append(seen, turn.Text+": "+<-turn.Steered)
			}
			time.Sleep(time.Second) // the last step
			return Result{Text: "ok"}, nil
		})
		id, err := c.Create(t.Context(), CreateRequest{})
		require.NoError(t, err)
		go func() { _, _ = c.Prompt(context.Background(), id, Prompt{Text: "one"}) }()
		synctest.Wait()
		require.NoError(t, c.(Steerer).Steer(t.Context(), id, "stop that"))
		pass(2 * time.Second)
		require.Empty(t, seen)
		_, err = c.Prompt(t.Context(), id, Prompt{Text: "two"})
		require.NoError(t, err)
		require.Equal(t, []string{"two: stop that"}, seen)
	})
}
