package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const printed = `0.0s  a turn, with no news; 0 tasks run
              -> why do builds fail at night? I delegate:
                 read the build log
                 compare with last week
                 ask when backups run
0.4s  a turn, with no news; 3 tasks run
              -> meanwhile I outline the answer
0.8s  a turn, with news; 2 tasks run
              <- read the build log: completed
              -> fails: the model is overloaded; owed again: 1
1.2s  a turn, with the same news; 2 tasks run
              <- read the build log: completed
              -> noted: the disk is full at 02:10
1.6s  a turn, with news; 1 tasks run
              <- compare with last week: completed
              -> noted: it began on Tuesday
2.1s  a turn, with news; 0 tasks run
              <- ask when backups run: completed
              -> the answer: the disk is full at 02:10; it began on Tuesday; backups run at 02:00 since Tuesday
2.5s  the parent is owed 0 notices, of 0 tasks that run
`

// In a bubble of fake time each run is the same.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, printed, out.String())
	})
}

// It can be stopped, in a turn and while it rests, and leaves nothing: the bubble would
// wait for that.
func TestStopped(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 2050 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			require.ErrorIs(t, run(ctx, new(strings.Builder)), context.DeadlineExceeded)
		})
	}
}
