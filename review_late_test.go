package subagent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// the record of a session that came late and can't be given up.
func TestReviewLateSessionOfForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(2 * time.Minute)
			return "late", nil
		}
		c.release = func(context.Context, SessionID) error { return errors.New("no") }
		m := newManager(t, c, Config{Retention: Retention{Age: time.Minute, Together: Off}})
		in := work("p")
		in.NoNotice = true
		one := launch(t, m, in)
		pass(time.Hour)
		require.ErrorIs(t, second(m.Get(one.ID)), ErrNotFound)
		require.ErrorIs(t, second(m.BySession("late")), ErrNotFound)
	})
}
