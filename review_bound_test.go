package subagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// deafHost never comes back from an Abort, nor from a look at its sessions.
type deafHost struct {
	*slowHost
	let chan struct{}
}

func (h *deafHost) Abort(context.Context, SessionID) error { <-h.let; return nil }

func (h *deafHost) Statuses(context.Context, []SessionID) (map[SessionID]HostStatus, error) {
	<-h.let
	return nil, nil
}

// Close returns within twice the grace also where a host's polls have not come back.
func TestCloseIsBoundedByDeafPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &deafHost{slowHost: newSlowHost(), let: make(chan struct{})}
		defer close(h.let)
		c := Blocking(h, BlockingConfig{})
		m, err := New(c, Config{AbortGrace: time.Second})
		require.NoError(t, err)
		launch(t, m, work("p"))
		pass(5 * time.Minute)
		began := time.Now()
		require.ErrorIs(t, m.Close(), ErrUnstopped)
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}
