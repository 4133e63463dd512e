package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newManager makes a manager that is closed, and its books checked, at the end.
func newManager(t *testing.T, c SessionClient, cfg Config) *BackgroundManager {
	t.Helper()
	m, err := New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = m.Close()
		require.NoError(t, m.CheckBooks(nil, nil))
	})
	return m
}

// echo answers each prompt with itself.
func echo(context.Context, Turn) (Result, error) { return Result{Text: "ok"}, nil }

// untilStopped is a child that works until it is stopped.
func untilStopped(ctx context.Context, _ Turn) (Result, error) {
	<-ctx.Done()
	return Result{Text: "so far"}, ctx.Err()
}

// pass lets fake time pass and whatever it brings come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
