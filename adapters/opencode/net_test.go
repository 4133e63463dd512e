package opencode_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// Without faults each script ends as it should, and soon.
func TestNetWithoutFaults(t *testing.T) {
	for _, c := range []struct {
		script string
		status subagent.Status
		text   string
		within time.Duration
	}{
		{"say hello", subagent.Completed, "hello", time.Second},
		{"think hm; say über 🙂", subagent.Completed, "über 🙂", time.Second},
		{"tool 1s || tool 2s || say done", subagent.Completed, "done", 4 * time.Second},
		{"work 2h; say late", subagent.Completed, "late", 2*time.Hour + time.Minute},
		{"retry 3; say again", subagent.Completed, "again", 7 * time.Second},
		{"todo 2; say left", subagent.Completed, "left", time.Second},
		{"error 400", subagent.Failed, "", 2 * time.Second},
		{"say a; error 401", subagent.Failed, "", 2 * time.Second},
		{"vanish", subagent.Interrupted, "", 5 * time.Minute},
		{"tool 0s || vanish", subagent.Interrupted, "", 5 * time.Minute},
	} {
		t.Run(c.script, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetWorld(t, newFake(t))
				began := time.Now()
				id := w.launch(c.script)
				w.settle()
				task := w.ended(id)
				require.Equal(t, c.status, task.Status, "%v", task.Reason)
				if c.status == subagent.Completed {
					w.said(id, c.text)
				}
				require.Less(t, task.Ended.Sub(began), c.within)
				w.close()
				w.check(false)
			})
		})
	}
}

// A turn that is lost before anything was heard of it ends all the same.
func TestNetTurnIsLostUnheard(t *testing.T) {
	for _, script := range []string{"vanish", "say a; vanish", "tool 0s || vanish"} {
		t.Run(script, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.streamFaults(always(lying))
				w := newNetWorld(t, f)
				id := w.launch(script)
				w.settle()
				require.Equal(t, subagent.Interrupted, w.ended(id).Status)
				w.close()
				w.check(false)
			})
		})
	}
}
