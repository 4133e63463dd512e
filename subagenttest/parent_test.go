package subagenttest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

func batch(id string, tasks ...subagent.TaskID) subagent.Notification {
	n := subagent.Notification{ID: id, Parent: "p", Text: "text", Final: true}
	for _, t := range tasks {
		n.Notices = append(n.Notices, subagent.Notice{Task: t, Run: 1})
	}
	return n
}

// A batch that arrived although the answer was lost counts once.
func TestParentDedupes(t *testing.T) {
	p := NewParent(t)
	p.Script = func(_ subagent.Notification, try int) Reply {
		if try == 0 {
			return Reply{Err: errors.New("lost"), Lost: true}
		}
		return Reply{}
	}
	d, err := p.Notify(t.Context(), batch("1", "bg_1", "bg_2"))
	require.Error(t, err)
	require.Equal(t, subagent.Unknown, d)
	d, err = p.Notify(t.Context(), batch("1", "bg_1", "bg_2"))
	require.NoError(t, err)
	require.Equal(t, subagent.Accepted, d)
	require.Len(t, p.Seen("p"), 2)
	require.Len(t, p.Batches("p"), 1)
	require.Equal(t, 2, p.Wire())
	require.Equal(t, 2, p.Doubled())
	at, ok := p.At("bg_1", 1)
	require.True(t, ok)
	require.Equal(t, subagent.SessionID("p"), at)
}

// Broken promises are noticed.
func TestParentReportsViolations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		p := NewParent(r)
		p.Script = func(n subagent.Notification, _ int) Reply { return Reply{Delay: time.Second} }
		go func() { _, _ = p.Notify(context.Background(), batch("1", "bg_1")) }()
		go func() { _, _ = p.Notify(context.Background(), batch("2", "bg_1")) }()
		time.Sleep(time.Minute)
		changed := batch("1", "bg_1")
		changed.Text = "other"
		_, _ = p.Notify(t.Context(), changed)
		require.Len(t, r.end(), 4, "overlap, a run accepted twice (and again), a changed batch")
	})
}
