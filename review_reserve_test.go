package subagent

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// a place is taken where the parent is by then.
func TestReviewReserveBelowTracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		c := &tracing{newAttaching(), map[SessionID]SessionID{"g": "f"}, map[SessionID]chan struct{}{"f": slow}}
		c.runs("g")
		c.prompt = hang
		m := newManager(t, c, Config{Spawn: SpawnLimits{LivePerRoot: 2}})
		one := launch(t, m, work("p"))
		got := make(chan *Reservation, 1)
		go func() { r, _ := m.Reserve(context.Background(), "g"); got <- r }()
		synctest.Wait()
		track(t, m, "p", "g")
		_ = one
		close(slow)
		r := <-got
		require.Nil(t, r, "the tree of p is full")
	})
}
