package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// rule is one case of a suite: what is demanded of an S, and the check of it.
type rule[S any] struct {
	name, says string
	check      func(context.Context, S) error
}

// tested is what a suite looks at: a [Subject] or a [Receiver].
type tested[S any] interface {
	check() error // what the suite can't do without
	settled() S   // itself, with the defaults filled in
}

// suite checks every rule, each on what factory makes for it.
func suite[S tested[S]](t *testing.T, rules []rule[S], factory func(*testing.T) S) {
	t.Helper()
	for _, r := range rules {
		var unfit error
		t.Run(r.name, func(t *testing.T) {
			t.Helper()
			s := factory(t)
			if unfit = s.check(); unfit == nil {
				r.run(t.Context(), t, s.settled())
			}
		})
		if unfit != nil {
			t.Fatal(unfit)
		}
	}
}

func (r rule[S]) run(ctx context.Context, tb testing.TB, s S) {
	tb.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what a check that failed has left behind
	switch err := r.check(ctx, s); {
	case errors.Is(err, errAbsent):
		tb.Skip(err.Error())
	case err != nil:
		tb.Errorf("%v\nThe rule: %s.", err, r.says)
	}
}

// defaultSettle is how long a call may take where the subject doesn't say.
const defaultSettle = 10 * time.Second

// errAbsent is what the check of an optional ability returns where there is none.
var errAbsent = errors.New("not checked")

// absent says what is missing.
func absent(what string) error { return fmt.Errorf("%w: %s", errAbsent, what) }

// breach is an error of the suite's own: what is tested did not even answer. It never
// stands for an error that a rule asks for.
type breach struct{ error }

// refused is for calls that must end in an error of the client.
func refused(err error, accepted string) error {
	var b breach
	if err == nil {
		return errors.New(accepted)
	}
	if errors.As(err, &b) {
		return b
	}
	return nil
}

// call makes one call, which may neither panic nor take longer than within.
func call[T any](within time.Duration, what string, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if v := recover(); v != nil {
				a.err = breach{fmt.Errorf("it panicked: %v", v)}
			}
			done <- a
		}()
		a.value, a.err = f()
	}()
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case a := <-done:
		if a.err != nil {
			a.err = fmt.Errorf("%s: %w", what, a.err)
		}
		return a.value, a.err
	case <-limit.C:
		var none T
		return none, breach{fmt.Errorf("%s has not returned within %v", what, within)}
	}
}
