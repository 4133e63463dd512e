package subagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// How long a parent is owed the word that nothing is left counts anew once something was.
func TestLastWordAgesFromWhenItIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Mailbox: MailboxPolicy{KeepAge: time.Hour}})
		launch(t, m, taking("p", "1s"))
		silent := taking("p", "2s")
		silent.NoNotice = true
		launch(t, m, silent)
		pass(1500 * time.Millisecond)
		_, ack, ok := m.Drain("p")
		require.True(t, ok)
		ack(true)
		pass(time.Second) // now nothing is left
		silent.Prompt = "50m"
		launch(t, m, silent)
		pass(70 * time.Minute)
		n, ack, ok := m.Drain("p")
		require.True(t, ok, "it is owed for 20 minutes")
		require.True(t, n.Final)
		ack(true)
	})
}
