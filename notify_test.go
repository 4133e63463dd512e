package subagent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// timed is a client whose children take as long as their prompt says.
func timed() *stub {
	return &stub{prompt: func(ctx context.Context, _ SessionID, p Prompt) (Result, error) {
		d, err := time.ParseDuration(p.Text)
		if err != nil {
			return Result{}, &SessionError{Op: "prompt", Class: ClassInvalid, Err: err}
		}
		select {
		case <-time.After(d):
			return Result{Text: "took " + p.Text}, nil
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}}
}

func taking(parent SessionID, prompt string) LaunchInput {
	in := work(parent)
	in.Prompt = prompt
	return in
}

// Scenario 161.
func TestThreeSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		var ids []TaskID
		for _, d := range []string{"1s", "2s", "3s"} {
			ids = append(ids, launch(t, m, taking("p", d)).ID)
		}
		pass(time.Minute)
		got := box.all()
		require.Len(t, got, 3)
		for i, n := range got {
			require.Len(t, n.Notices, 1)
			require.Equal(t, ids[i], n.Notices[0].Task)
			require.Equal(t, 2-i, n.Remaining)
			require.Equal(t, i == 2, n.Final)
			require.Equal(t, i == 2, n.Wake, "only the last one asks for a turn")
		}
		require.Len(t, got[2].Earlier, 2)
		for _, id := range ids {
			require.Contains(t, got[2].Text, string(id), "the final text lists all three")
		}
	})
}

// Scenarios 162 and 163: twenty that end together make one final notification.
func TestSiblingsEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Keys: KeyLimits{Default: Off}})
		for range 20 {
			launch(t, m, taking("p", "1s"))
		}
		pass(time.Minute)
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Notices, 20)
		require.True(t, box.all()[0].Final)
	})
}

// A batch gathers 100 ms after each notice, and 1 s at most.
func TestGatherIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		var mu sync.Mutex
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: Off}, Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(began))
			return Accepted, nil
		})})
		for i := range 40 {
			launch(t, m, taking("p", (time.Duration(i)*60*time.Millisecond).String()))
		}
		pass(time.Minute)
		require.Equal(t, []time.Duration{time.Second, 2020 * time.Millisecond, 2440 * time.Millisecond}, at)
	})
}

// Scenario 164: a launch in the gather window joins; the batch after closes too.
func TestLaunchWhileTheLastEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		launch(t, m, taking("p", "1s"))
		pass(time.Second + 50*time.Millisecond)
		launch(t, m, taking("p", "10s"))
		pass(time.Minute)
		got := box.all()
		require.Len(t, got, 2)
		require.False(t, got[0].Final, "decided when the batch was made")
		require.True(t, got[1].Final)
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.True(t, box.all()[2].Final, "it may happen again")
	})
}

// Scenario 166, L10: a batch that was not accepted is sent again as it is, with
// growing pauses, and what ends meanwhile comes after it.
func TestL10NoticeSurvivesFailedSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Notification
		var at []time.Time
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
			got, at = append(got, n), append(at, time.Now())
			switch len(got) {
			case 1:
				return Accepted, errors.New("cut") // an error is unknown, whatever stands beside it
			case 2:
				return Unknown, nil
			case 3:
				panic("receiver")
			case 4:
				return Delivery(77), nil
			}
			return Accepted, nil
		})})
		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "3s"))
		pass(time.Hour)
		require.Len(t, got, 6)
		for i := 1; i < 5; i++ {
			require.Equal(t, got[0], got[i], "a resend is the same")
			pause, full := at[i].Sub(at[i-1]), 500*time.Millisecond<<(i-1)
			require.GreaterOrEqual(t, pause, full/2)
			require.LessOrEqual(t, pause, full)
		}
		require.NotEqual(t, got[0].ID, got[5].ID)
		require.True(t, got[5].Final)
		require.Equal(t, NoticeStats{Deliveries: map[Delivery]int{Unknown: 4, Accepted: 2}, Notices: 2}, m.Stats().Notices)
	})
}

// A batch that is refused for good is parked: in Pending, to be drained, and
// taken up again with the next notice.
func TestParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accept := false
		var got []Notification
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
			got = append(got, n)
			if accept {
				return Accepted, nil
			}
			return Unknown, errors.New("down")
		})})
		first := launch(t, m, taking("p", "1s"))
		pass(time.Hour)
		require.Len(t, got, 8)
		owed := m.Pending("p")
		require.True(t, owed.Parked)
		require.EqualError(t, owed.LastErr, "down")
		require.Equal(t, 8, owed.Tries)
		require.Equal(t, first.ID, owed.Notices[0].Task)
		require.Equal(t, []int{1, 1}, []int{m.Stats().Notices.Owed, m.Stats().Notices.Parked})

		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		require.Equal(t, got[0], n)
		require.True(t, m.Pending("p").InFlight)
		_, _, ok = m.Drain("p")
		require.False(t, ok, "what is in flight is not taken")
		accept = true
		ack(false)
		ack(true) // only the first counts
		pass(time.Second)
		require.Len(t, got, 9, "handed back, it is sent again")
		require.Equal(t, got[0], got[8])
		require.Zero(t, m.Pending("p"))
		require.Equal(t, []int{0, 0}, []int{m.Stats().Notices.Owed, m.Stats().Notices.Parked})
	})
}

func TestParkedIsTakenUpByTheNextNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accept := false
		var got []Notification
		m := newManager(t, timed(), Config{
			Mailbox: MailboxPolicy{Tries: 1},
			Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
				got = append(got, n)
				if accept {
					return Accepted, nil
				}
				return Unknown, nil
			}),
		})
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.True(t, m.Pending("p").Parked)
		accept = true
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.Len(t, got, 3)
		require.Equal(t, got[0], got[1])
		require.Zero(t, m.Pending("p"))
	})
}

// Scenario 168: a busy parent is offered what it is owed until it takes it.
func TestBusyParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Notification
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
			got = append(got, n)
			if len(got) < 30 {
				return Busy, nil
			}
			return Accepted, nil
		}), Mailbox: MailboxPolicy{BusyMax: Off}})
		task := launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.Len(t, m.Pending("p").Notices, 1)
		require.False(t, m.Pending("p").Parked)
		pass(time.Hour)
		require.Len(t, got, 30)
		for _, n := range got {
			require.Equal(t, task.ID, n.Notices[0].Task)
			require.Equal(t, HandOffer, n.Handover)
		}
		require.Zero(t, m.Pending("p"))
	})
}

// Scenario 182.
func TestGoneParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) { return Gone, nil })})
		launch(t, m, taking("p", "1s"))
		pass(time.Minute)
		require.Zero(t, m.Pending("p"))
		require.Equal(t, 1, m.Stats().Notices.Dropped)
	})
}

// Scenario 176: one call at a time per parent, and a parent that hangs holds up
// no other; scenario 77: nor the next task.
func TestHangingParentHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		hanging := 0
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: 1}, Notifier: NotifierFunc(func(ctx context.Context, n Notification) (Delivery, error) {
			if n.Parent == "stuck" {
				hanging++
				<-ctx.Done()
				return Unknown, ctx.Err()
			}
			return box.Notify(ctx, n)
		})})
		launch(t, m, taking("stuck", "1s"))
		launch(t, m, taking("free", "1s"))
		launch(t, m, taking("stuck", "1s"))
		pass(4 * time.Second)
		require.Equal(t, 1, hanging)
		require.Len(t, box.all(), 1)
		require.Len(t, m.Pending("stuck").Notices, 2)
		require.True(t, m.Pending("stuck").InFlight)
	})
}

// Scenario 179: from the launch to the delivery there is no instant at which the
// parent seems to be owed nothing.
func TestPendingHasNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var delivered atomic.Bool
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(context.Context, Notification) (Delivery, error) {
			time.Sleep(time.Second)
			delivered.Store(true)
			return Accepted, nil
		})})
		launch(t, m, taking("p", "100ms"))
		for range 2000 {
			if o := m.Pending("p"); o.Live+len(o.Notices) == 0 {
				require.True(t, delivered.Load(), "owed nothing before it was told")
			}
			pass(time.Millisecond)
		}
		require.True(t, delivered.Load())
		require.Zero(t, m.Pending("p"))
	})
}

// Scenario 177: without a notifier parents pull, and all settles.
func TestPullOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		_, _, ok := m.Drain("p")
		require.False(t, ok)
		a := launch(t, m, taking("p", "1s"))
		b := launch(t, m, taking("p", "2s"))
		pass(1500 * time.Millisecond)
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		require.Equal(t, a.ID, n.Notices[0].Task)
		require.False(t, n.Final)
		require.NotEmpty(t, n.Text)
		ack(true)
		pass(time.Minute)
		n, ack, ok = m.Drain("p")
		require.True(t, ok)
		require.Equal(t, b.ID, n.Notices[0].Task)
		require.True(t, n.Final)
		ack(false)
		again, ack, ok := m.Drain("p")
		require.True(t, ok)
		require.Equal(t, n, again)
		ack(true)
		require.Zero(t, m.Pending("p"))
		require.Equal(t, 2, m.Stats().Notices.Drained)
	})
}

// Scenarios 171 and 181, failures wake, NoNotice does not: who asks for a turn.
func TestWhatWakes(t *testing.T) {
	for _, c := range []struct {
		name     string
		each     bool
		prompt   string
		wakes    bool
		noNotice bool
		sent     int
	}{
		{name: "completed", prompt: "1s", sent: 1},
		{name: "completed, wake each", each: true, prompt: "1s", wakes: true, sent: 1},
		{name: "failed", prompt: "no duration", wakes: true, sent: 1},
		{name: "no notice", prompt: "1s", noNotice: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &inbox{}
				m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{WakeEach: c.each}})
				launch(t, m, taking("p", "1h"))
				in := taking("p", c.prompt)
				in.NoNotice = c.noNotice
				launch(t, m, in)
				pass(time.Minute)
				require.Len(t, box.all(), c.sent)
				for _, n := range box.all() {
					require.Equal(t, c.wakes, n.Wake)
				}
			})
		})
	}
}

// A text that the host's Render can't make is made by ours; what it returns is
// what is sent.
func TestOwnRender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Render: func(n Notification) string {
			if n.Parent == "bad" {
				panic("render")
			}
			n.Notices[0].Description = "changed by the host"
			return "own text"
		}}})
		launch(t, m, taking("good", "1s"))
		launch(t, m, taking("bad", "2s"))
		pass(time.Minute)
		require.Equal(t, "own text", box.all()[0].Text)
		require.Equal(t, "some work", box.all()[0].Notices[0].Description)
		require.Contains(t, box.all()[1].Text, "All your background tasks have ended")
	})
}

// What a receiver does with its copy changes nothing.
func TestNotificationIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Notification
		m := newManager(t, timed(), Config{Notifier: NotifierFunc(func(_ context.Context, n Notification) (Delivery, error) {
			got = append(got, n.clone())
			n.Notices[0].Reason.Code = "changed"
			n.Notices[0].Task = "changed"
			if len(got) == 1 {
				return Unknown, nil
			}
			return Accepted, nil
		})})
		task := launch(t, m, taking("p", "bad"))
		pass(time.Minute)
		require.Equal(t, got[0], got[1])
		require.ErrorIs(t, get(t, m, task.ID).Reason, SessionFailed)
	})
}

// What a child was itself owed when it ended goes to its own parent.
func TestNoticesOfAnEndedChildGoUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		gate := make(chan struct{})
		c := &stub{prompt: func(ctx context.Context, s SessionID, p Prompt) (Result, error) {
			if p.Text == "outer" {
				<-gate
			}
			return Result{Text: "done"}, nil
		}}
		m := newManager(t, c, Config{Notifier: box})
		outer := launch(t, m, taking("p", "outer"))
		synctest.Wait()
		session := get(t, m, outer.ID).Session
		inner := launch(t, m, taking(session, "inner"))
		synctest.Wait() // inner has ended and its notice is being gathered
		require.Len(t, m.Pending(session).Notices, 1)
		close(gate)
		pass(time.Minute)
		require.Zero(t, m.Pending(session))
		require.Len(t, box.all(), 1)
		require.Equal(t, SessionID("p"), box.all()[0].Parent)
		var told []TaskID
		for _, n := range box.all()[0].Notices {
			told = append(told, n.Task)
		}
		require.ElementsMatch(t, []TaskID{outer.ID, inner.ID}, told)
	})
}
