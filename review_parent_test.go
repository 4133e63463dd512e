package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// what is launched below a session that was deleted.
func TestReviewLaunchBelowDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}})
		one := launch(t, m, taking("p", "1s"))
		pass(10 * time.Second)
		session := get(t, m, one.ID).Session
		m.HandleEvent(SessionEvent{Session: session, Kind: EventDeleted})
		_, err := m.Launch(t.Context(), taking(session, "1s"))
		require.ErrorIs(t, err, ErrParentEnded)
	})
}
