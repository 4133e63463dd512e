package subagent

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type goexitErr struct{}

func (goexitErr) Error() string { runtime.Goexit(); return "" }

// an error whose method ends the goroutine.
func TestReviewGoexitInPromptError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { return Result{}, goexitErr{} }}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		one := launch(t, m, work("p"))
		two := launch(t, m, work("p"))
		pass(time.Hour)
		require.True(t, get(t, m, one.ID).Status.Terminal(), "%v", get(t, m, one.ID).Status)
		require.True(t, get(t, m, two.ID).Status.Terminal(), "%v", get(t, m, two.ID).Status)
	})
}
