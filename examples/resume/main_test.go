package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

const printed = `billing  run 1  read the log of billing
               -> 5 lines, the last at 09:44
      (run 2 is starting; run 1 can still be read: 5 lines, the last at 09:44)
      (who asks on now as well is refused: it has not ended)
billing  run 2  what came right before the alert?
               -> answers take 3 s
billing  run 3  how long from the alert to the end?
               -> 28m0s
      (a session of the user's is a task now; tracked once more it is the same one)
mail     run 1  the user: read the log of mail
               -> 3 lines, the last at 09:20
mail     run 2  how long from the alert to the end?
               -> 10m0s

the parent is told, in one notification:
  billing  run 1  completed  5 lines, the last at 09:44
  billing  run 2  completed  answers take 3 s
  billing  run 3  completed  28m0s
  mail     run 1  completed  3 lines, the last at 09:20
  mail     run 2  completed  10m0s
`

// In a bubble of fake time each run is the same.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		began := time.Now()
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, printed, out.String())
		require.Equal(t, 2600*time.Millisecond, time.Since(began), "two read, and three answers")
	})
}

// It can be stopped, also while the user's own turn goes on, and leaves nothing: the
// bubble would wait for that.
func TestStopped(t *testing.T) {
	for _, after := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			require.ErrorIs(t, run(ctx, new(strings.Builder)), context.DeadlineExceeded)
		})
	}
}

// A session that has read nothing answers nothing.
func TestNothingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for question := range questions {
			_, err := work(t.Context(), subagent.Turn{Prompt: subagent.Prompt{Text: question}})
			require.ErrorContains(t, err, question)
		}
	})
}
