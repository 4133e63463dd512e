package subagent_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// A task without a parent that completes leaves its child running. What the child
// ends with is then sent to the session "": nobody, and the same nobody for all
// parentless tasks of the manager.
func TestReviewNotifyOfNoParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &told{}
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{Notifier: box})
		defer m.Close()
		above := reviewLaunch(t, m, subagent.LaunchInput{Agent: "worker", Prompt: "1s", NoNotice: true})
		synctest.Wait()
		reviewLaunch(t, m, reviewAsks(reviewGet(t, m, above.ID).Session, "5s"))
		reviewPass(time.Minute)
		for _, n := range box.all() {
			require.NotEmpty(t, n.Parent, "a notification for no session: %s", n.Text)
		}
	})
}

// "When a task ends, what it was itself owed goes to its parent's mailbox", says
// docs/architecture.md; but when a call to the ended session is out at that time, and
// its answer is the natural one, Gone, all of it is dropped, also what no call had out.
func TestReviewGoneChildTakesItsNoticesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var child subagent.SessionID
		box := &told{}
		box.answer = func(n subagent.Notification, _ int) (subagent.Delivery, error) {
			if n.Parent == child {
				time.Sleep(5 * time.Second)
				return subagent.Gone, nil
			}
			return subagent.Accepted, nil
		}
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{Notifier: box})
		defer m.Close()
		above := reviewLaunch(t, m, reviewAsks("p", "3s"))
		synctest.Wait()
		child = reviewGet(t, m, above.ID).Session
		first := reviewLaunch(t, m, reviewAsks(child, "1s"))
		second := reviewLaunch(t, m, reviewAsks(child, "2s")) // in no batch when the session goes
		reviewPass(time.Minute)
		require.Len(t, box.of("p", above.ID), 1)
		require.Len(t, box.of("p", second.ID), 1, "owed, never sent to anybody, and its heir is alive")
		require.Len(t, box.of("p", first.ID), 1)
	})
}

// Unknown "is sent again after a backoff, MailboxPolicy.Tries times in all"; Busy is
// offered "as often as it takes". But Busy answers use the tries up: after eight of
// them one lost packet parks the batch, and a parent without further children is never told.
func TestReviewBusyUsesUpTheTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &told{answer: func(_ subagent.Notification, call int) (subagent.Delivery, error) {
			switch {
			case call < 10:
				return subagent.Busy, nil
			case call == 10:
				return subagent.Unknown, errors.New("the line was cut")
			}
			return subagent.Accepted, nil
		}}
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{Notifier: box})
		defer m.Close()
		reviewLaunch(t, m, reviewAsks("p", "1s"))
		reviewPass(time.Hour)
		owed := m.Pending("p")
		require.False(t, owed.Parked, "after a single failed try: %v", owed.LastErr)
		require.Empty(t, owed.Notices)
	})
}

// ParentGone follows from the end of an ancestor, whose notice tells of it: a cancel
// can't claim it, or its run would be told of by nobody.
func TestCancelForParentGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := reviewNew(t, &reviewClient{prompt: takes}, subagent.Config{})
		defer m.Close()
		task := reviewLaunch(t, m, reviewAsks("p", "1h"))
		_, err := m.Cancel(t.Context(), task.ID, subagent.CancelOptions{Cause: subagent.ParentGone})
		var wrong *subagent.InputError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "CancelOptions.Cause", wrong.Field)
		require.False(t, reviewGet(t, m, task.ID).Status.Terminal())
	})
}

// "a client that implements one has it, unless its method returns an error that is
// errors.ErrUnsupported, which counts as absent so that a wrapper can pass abilities
// through": said of Notifier too, which is tried eight times and parked.
func TestReviewUnsupportedNotifierCountsAsAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &told{answer: func(subagent.Notification, int) (subagent.Delivery, error) {
			return subagent.Unknown, errors.ErrUnsupported
		}}
		wrapper := struct {
			*reviewClient
			*told
		}{&reviewClient{prompt: takes}, box}
		m := reviewNew(t, wrapper, subagent.Config{})
		defer m.Close()
		reviewLaunch(t, m, reviewAsks("p", "1s"))
		reviewPass(time.Hour)
		require.LessOrEqual(t, len(box.all()), 1, "absent, and asked again and again")
		require.NoError(t, m.Pending("p").LastErr)
	})
}

// Notice.Open is "children of its own that the child left running". It is counted
// before the cascade stops them: the parent is told of a task that runs on, and
// is never told that it does not.
func TestReviewOpenCountsChildrenThatAreStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &told{}
		c := &reviewClient{}
		c.prompt = func(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
			if p.Text == "says nothing" {
				time.Sleep(time.Second)
				return subagent.Result{}, nil
			}
			return takes(ctx, id, p)
		}
		m := reviewNew(t, c, subagent.Config{Notifier: box, Keys: subagent.KeyLimits{Default: 1}})
		defer m.Close()
		above := reviewLaunch(t, m, reviewAsks("p", "says nothing"))
		synctest.Wait()
		below := reviewLaunch(t, m, reviewAsks(reviewGet(t, m, above.ID).Session, "1h")) // pending
		ended, err := m.Wait(t.Context(), above.ID)
		require.NoError(t, err)
		require.Equal(t, subagent.Failed, ended.Status)
		reviewPass(time.Minute)
		require.Equal(t, subagent.Cancelled, reviewGet(t, m, below.ID).Status)
		require.Len(t, box.all(), 1)
		require.NotContains(t, box.all()[0].Text, "of its own running")
		require.Zero(t, box.all()[0].Notices[0].Open)
		require.Zero(t, ended.OpenChildren, "as it ended")
	})
}

// A task that is being stopped is told, and woken: the turn that this begins is one
// that no Prompt stands for and no Abort follows.
func TestReviewStoppingSessionIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var child subagent.SessionID
		var cancelled atomic.Bool
		box := &told{}
		box.answer = func(n subagent.Notification, _ int) (subagent.Delivery, error) {
			if n.Parent == child && n.Wake && cancelled.Load() {
				t.Errorf("session %s was asked for a turn while it was being stopped", n.Parent)
			}
			return subagent.Accepted, nil
		}
		c := &reviewClient{prompt: takes, abort: func(context.Context, subagent.SessionID) error {
			time.Sleep(time.Second)
			return nil
		}}
		m := reviewNew(t, c, subagent.Config{Notifier: box})
		defer m.Close()
		above := reviewLaunch(t, m, reviewAsks("p", "1h"))
		synctest.Wait()
		child = reviewGet(t, m, above.ID).Session
		reviewLaunch(t, m, reviewAsks(child, "1s"))
		reviewPass(time.Second + 50*time.Millisecond) // it has ended; its notice is being gathered
		cancelled.Store(true)
		_, err := m.Cancel(t.Context(), above.ID, subagent.CancelOptions{})
		require.NoError(t, err)
	})
}

// "Everything a child wrote is cleaned: … no control or invisible characters".
func TestReviewInvisibleCharacters(t *testing.T) {
	for name, r := range map[string]string{"braille blank": "\u2800", "null notehead": "\U0001d159", "khitan filler": "\U00016fe4"} {
		text := subagent.Render(subagent.Notification{Notices: []subagent.Notice{{
			Task: "bg_1", Status: subagent.Completed, Agent: "a", Description: "x" + r + "y", Preview: r + r + r, Size: len(r) * 3,
		}}})
		require.NotContains(t, text, r, name)
	}
}
