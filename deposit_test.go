package subagent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// turning is a parent that is in a turn for a while, told to by a test.
type turning struct {
	inbox
	busy atomic.Bool
}

func busyParent() *turning {
	p := &turning{}
	p.busy.Store(true)
	return p
}

func (p *turning) Notify(ctx context.Context, n Notification) (Delivery, error) {
	_, _ = p.inbox.Notify(ctx, n)
	if p.busy.Load() && n.Handover != HandDeposit {
		return Busy, nil
	}
	return Accepted, nil
}

// hands are how the notifications came, with the turns that they ask for.
func (b *inbox) hands() (all []string) {
	for _, n := range b.all() {
		s := n.Handover.String()
		if n.Wake {
			s += "+turn"
		}
		all = append(all, s)
	}
	return all
}

// Scenario 169, L22: what a parent that stays busy is owed is deposited after BusyMax,
// without a turn; the turn is asked for at its next idle, once, and nothing loops.
func TestBusyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := busyParent()
		m := newManager(t, timed(), Config{Notifier: p, Mailbox: MailboxPolicy{Backoff: time.Hour, BackoffMax: time.Hour}})
		one := launch(t, m, taking("p", "1s"))
		pass(2 * time.Second)
		require.Equal(t, []string{"offer+turn"}, p.hands())
		pass(58 * time.Second)
		require.Equal(t, []string{"offer+turn"}, p.hands(), "60 s are not over")
		pass(2 * time.Second)
		require.Equal(t, []string{"offer+turn", "deposit"}, p.hands())
		require.Equal(t, Owed{Wake: true, Notices: []Notice{}}, zeroNotices(m.Pending("p")))
		require.Equal(t, 1, m.Stats().Notices.Notices, "it is there")

		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle}) // of our own deposit: the turn goes on
		synctest.Wait()
		require.Equal(t, []string{"offer+turn", "deposit", "wake+turn"}, p.hands())
		p.busy.Store(false)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		synctest.Wait()
		require.Equal(t, []string{"offer+turn", "deposit", "wake+turn", "wake+turn"}, p.hands())
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(time.Hour)
		got := p.all()
		require.Len(t, got, 4, "and no more")
		for _, n := range got[1:] {
			require.Equal(t, got[1].ID, n.ID)
			require.Equal(t, got[1].Text, n.Text)
			require.Equal(t, one.ID, n.Notices[0].Task)
		}
		require.Zero(t, m.Pending("p"))
	})
}

func zeroNotices(o Owed) Owed {
	if len(o.Notices) == 0 {
		o.Notices = []Notice{}
	}
	return o
}

// Where no event tells of the parent's idling, its turn is asked for all the same.
func TestWakeWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := busyParent()
		m := newManager(t, timed(), Config{Notifier: p, Mailbox: MailboxPolicy{BusyMax: 10 * time.Second, Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(35 * time.Second)
		require.Equal(t, []string{"offer+turn", "deposit", "wake+turn", "wake+turn"}, p.hands(), "each 10 s")
		p.busy.Store(false)
		pass(10 * time.Second)
		require.Len(t, p.all(), 5)
		pass(time.Hour)
		require.Len(t, p.all(), 5)
	})
}

// Scenario 173: a turn that may have been asked for is asked for once more, not for ever.
func TestUnknownWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(n Notification, call int) (Delivery, error) {
			switch n.Handover {
			case HandOffer:
				return Busy, nil
			case HandDeposit:
				return Accepted, nil
			}
			return Unknown, errors.New("the line was cut")
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{BusyMax: time.Second}})
		launch(t, m, taking("p", "1s"))
		pass(time.Hour)
		require.Equal(t, 2, strings.Count(strings.Join(box.hands(), " "), "wake+turn"), box.hands())
		require.Equal(t, 1, m.Stats().Notices.Unwoken)
		require.Zero(t, m.Pending("p"))
	})
}

// A progress notification that is deposited leaves no turn to be asked for; a turn that is
// asked for with something newer makes the one put off superfluous.
func TestDepositAndWhatComesAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := busyParent()
		m := newManager(t, timed(), Config{Notifier: p, Mailbox: MailboxPolicy{BusyMax: 5 * time.Second, Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "8s"))
		pass(7 * time.Second)
		require.Equal(t, []string{"offer", "deposit"}, p.hands())
		require.False(t, m.Pending("p").Wake)
		pass(7 * time.Second) // the second one: offered at 8.1 s, deposited at 13.1 s
		require.Equal(t, []string{"offer", "deposit", "offer+turn", "deposit"}, p.hands())
		require.True(t, m.Pending("p").Wake)
		p.busy.Store(false)
		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "10h"))
		pass(time.Second + 200*time.Millisecond)
		require.Equal(t, "offer+turn", p.hands()[4], "it would be progress, and takes the turn along that was put off")
		require.False(t, m.Pending("p").Wake)
		pass(time.Hour)
		require.Len(t, p.all(), 5)
	})
}

// Scenarios 174, C182 and C183: a batch that found the parent busy is not there, so that
// what ends meanwhile joins it, the final replaces the progress, and what the parent has
// read meanwhile is left out.
func TestBusyBatchIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := busyParent()
		m := newManager(t, timed(), Config{Notifier: p, Mailbox: MailboxPolicy{Backoff: time.Hour, BackoffMax: time.Hour}})
		one := launch(t, m, taking("p", "1s"))
		two := launch(t, m, taking("p", "2s"))
		three := launch(t, m, taking("p", "3s"))
		pass(10 * time.Second)
		require.Equal(t, []string{"offer"}, p.hands())
		require.Len(t, m.Pending("p").Notices, 3)
		reads(m, two.ID)
		p.busy.Store(false)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(time.Hour)
		require.Equal(t, []string{"offer", "offer+turn"}, p.hands())
		require.Equal(t, []TaskID{one.ID, three.ID}, toldTo("p", p.all()[1:]))
		require.True(t, p.all()[1].Final)
		require.Equal(t, 1, m.Stats().Notices.Read)
	})
}

// reads plays the parent that reads a run which has ended.
func reads(m *BackgroundManager, id TaskID) {
	m.mu.Lock()
	defer m.unlock()
	m.readLocked(m.byID[id])
}

// Scenarios C181 and C199: what was read before it was sent is not sent, and nothing is
// sent if nothing is left; what was told already stays told.
func TestReadBeforeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		one := launch(t, m, taking("p", "1s"))
		pass(time.Second + 50*time.Millisecond)
		reads(m, one.ID)
		pass(time.Hour)
		require.Empty(t, box.all())
		require.Zero(t, m.Pending("p"))

		two := launch(t, m, taking("p", "1s"))
		three := launch(t, m, taking("p", "2s"))
		pass(1500 * time.Millisecond)
		require.Len(t, box.all(), 1)
		reads(m, two.ID) // told before
		pass(500*time.Millisecond + 50*time.Millisecond)
		reads(m, three.ID)
		pass(time.Hour)
		got := box.all()
		require.Len(t, got, 2, "something was told, and so a final one comes")
		require.True(t, got[1].Final)
		require.Empty(t, got[1].Notices)
		require.Equal(t, 2, m.Stats().Notices.Read)
	})
}

// checking is a receiver that can tell what it has.
type checking struct {
	answering
	asked int
	has   func(asked int) (bool, error)
}

func (c *checking) Received(_ context.Context, n Notification) (bool, error) {
	c.asked++
	return c.has(c.asked)
}

// Scenario 167: where it can be told whether a notification arrived, that is asked before
// it is sent again, and as long as it can't be told nothing is sent.
func TestAskedBeforeSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		has         func(asked int) (bool, error)
		sent, asked int
		parked      bool
	}{
		"it is there": {func(int) (bool, error) { return true, nil }, 1, 1, false},
		"it is not":   {func(int) (bool, error) { return false, nil }, 2, 1, false},
		"it can't be told": {func(n int) (bool, error) {
			if n < 3 {
				return false, errors.New("no route")
			}
			return true, nil
		}, 1, 3, false},
		"nor later":  {func(int) (bool, error) { return false, errors.New("no route") }, 1, 7, true},
		"by nobody":  {func(int) (bool, error) { return false, errors.ErrUnsupported }, 2, 1, false},
		"by a panic": {func(int) (bool, error) { panic("receipt") }, 1, 7, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &checking{has: c.has}
				p.answer = func(_ Notification, call int) (Delivery, error) {
					if call == 1 {
						return Unknown, errors.New("the line was cut")
					}
					return Accepted, nil
				}
				m := newManager(t, timed(), Config{Notifier: p})
				launch(t, m, taking("p", "1s"))
				pass(time.Hour)
				require.Len(t, p.all(), c.sent)
				require.Equal(t, c.asked, p.asked)
				require.Equal(t, c.parked, m.Pending("p").Parked)
			})
		})
	}
}

// Scenario C184, and 161 by option: with PushFinal nothing is told before the last, but a
// failure, which takes along what waits (C188).
func TestPushFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Push: PushFinal}})
		for _, d := range []string{"1s", "2s", "3s"} {
			launch(t, m, taking("p", d))
		}
		pass(2500 * time.Millisecond)
		require.Empty(t, box.all())
		require.Len(t, m.Pending("p").Notices, 2, "they are owed all the same")
		pass(time.Minute)
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Notices, 3)

		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "no duration")) // fails at once
		launch(t, m, taking("p", "3s"))
		pass(500 * time.Millisecond)
		require.Len(t, box.all(), 2)
		require.True(t, box.all()[1].Wake)
		require.False(t, box.all()[1].Final)
		pass(time.Minute)
		require.Len(t, box.all(), 3)
		require.Len(t, box.all()[2].Notices, 2)
	})
}

// Scenario 177: with PushOff nobody is called, and everything settles and is owed.
func TestPushOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Push: PushOff}})
		one := launch(t, m, taking("p", "1s"))
		two := launch(t, m, taking("p", "2s"))
		pass(time.Minute)
		n, ack, ok := m.Drain("p")
		require.True(t, ok)
		ack(true)
		require.Equal(t, []TaskID{one.ID, two.ID}, toldTo("p", []Notification{n}))
		require.True(t, n.Final)
		require.NoError(t, m.Close())
		require.Empty(t, box.all())
	})
}

// What nobody takes is given up when it is too old, or too much, and counted; what it
// told of stays readable.
func TestNoticesAreKeptSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Mailbox: MailboxPolicy{KeepAge: time.Hour, KeepCount: 3}, Retention: keepAll, Keys: KeyLimits{Default: 1}})
		var ids []TaskID
		for range 5 {
			ids = append(ids, launch(t, m, taking("p", "10m")).ID)
		}
		pass(45 * time.Minute)
		require.Len(t, m.Pending("p").Notices, 3, "the oldest of four is one too many")
		require.Equal(t, 1, m.Stats().Notices.Expired)
		pass(10 * time.Minute)
		require.Equal(t, 2, m.Stats().Notices.Expired, "and of five two")
		pass(35*time.Minute - time.Second)
		require.Len(t, m.Pending("p").Notices, 3)
		pass(time.Second) // after 90 minutes the one that ended after 30 is too old
		require.Equal(t, ids[3:], toldTo("p", []Notification{{Parent: "p", Notices: m.Pending("p").Notices}}))
		pass(time.Hour)
		require.Zero(t, m.Pending("p"))
		require.Equal(t, 5, m.Stats().Notices.Expired)
		require.Equal(t, Completed, get(t, m, ids[0]).Status)
	})
}

// A parked batch is given up whole, and what is newer is told.
func TestParkedBatchIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		box := &answering{answer: func(Notification, int) (Delivery, error) {
			if down.Load() {
				return Unknown, nil
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{KeepAge: time.Hour, Tries: 1}})
		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "70m"))
		pass(30 * time.Minute)
		require.True(t, m.Pending("p").Parked)
		pass(35 * time.Minute)
		require.Empty(t, m.Pending("p").Notices)
		require.Equal(t, 1, m.Stats().Notices.Expired)
		down.Store(false)
		pass(10 * time.Minute)
		require.Len(t, box.all(), 2)
		require.True(t, box.all()[1].Final)
		require.Empty(t, box.all()[1].Earlier, "it was never told")
	})
}

// A launch of whose end nobody would be told is refused where that is asked for.
func TestNobodyToTell(t *testing.T) {
	required := MailboxPolicy{Required: true}
	off := required
	off.Push = PushOff
	box := &inbox{}
	for name, c := range map[string]struct {
		cfg  Config
		want error
	}{
		"no notifier":        {Config{Mailbox: required}, ErrNobodyToTell},
		"pushes are off":     {Config{Mailbox: off, Notifier: box}, ErrNobodyToTell},
		"there is a parent":  {Config{Mailbox: required, Notifier: box}, nil},
		"nobody asks for it": {Config{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, timed(), c.cfg)
				before := inventory(m)
				in := taking("p", "1s")
				require.ErrorIs(t, m.CanLaunch(t.Context(), in), c.want)
				_, err := m.Launch(t.Context(), in)
				require.ErrorIs(t, err, c.want)
				if c.want != nil {
					require.Equal(t, before, inventory(m))
				}
				in.NoNotice = true
				_, err = m.Launch(t.Context(), in)
				require.NoError(t, err, "it is not to be told of")
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // below a task that has ended and has no parent
		m := newManager(t, timed(), Config{Mailbox: required, Notifier: box})
		top, err := m.Launch(t.Context(), LaunchInput{Agent: "a", Prompt: "1s", NoNotice: true})
		require.NoError(t, err)
		synctest.Wait()
		session := get(t, m, top.ID).Session
		require.NoError(t, m.CanLaunch(t.Context(), taking(session, "1s")), "it can be told while it works")
		pass(time.Minute)
		require.ErrorIs(t, m.CanLaunch(t.Context(), taking(session, "1s")), ErrNobodyToTell)
	})
}

// Scenario 178: what the parent was like at its last launch comes along, for hosts that
// can't tell what it is like now.
func TestParentContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, timed(), Config{Notifier: box})
		in := taking("p", "1s")
		launch(t, m, in)
		pass(time.Minute)
		require.Nil(t, box.all()[0].Context)
		in.ParentContext = ParentContext{Message: "msg_1", Agent: "build", Model: "a/b", Tools: map[string]bool{"bash": true}}
		launch(t, m, in)
		in.ParentContext.Tools["bash"] = false // it was captured
		in.ParentContext = ParentContext{}
		launch(t, m, in)
		pass(time.Minute)
		got := box.all()[1].Context
		require.Equal(t, &ParentContext{Message: "msg_1", Agent: "build", Model: "a/b", Tools: map[string]bool{"bash": true}}, got)
		got.Tools["bash"] = false // a copy
		launch(t, m, in)
		pass(time.Minute)
		require.True(t, box.all()[2].Context.Tools["bash"])
	})
}

// Scenarios 155, C148 and C149: what a parent's interruption does to its children is a
// policy; those that it stops are told of without a turn.
func TestInterruptedParent(t *testing.T) {
	for policy, want := range map[InterruptedPolicy][]Status{
		InterruptedKeep:        {Completed, Completed, Completed},
		InterruptedStopPending: {Completed, Cancelled, Completed},
		InterruptedStopAll:     {Cancelled, Cancelled, Completed},
	} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &inbox{}
				m := newManager(t, timed(), Config{Notifier: box, Interrupted: policy, Keys: KeyLimits{Default: 1}})
				runs := launch(t, m, taking("p", "10s"))
				waits := launch(t, m, taking("p", "10s"))
				other := launch(t, m, taking("q", "10s"))
				pass(time.Second)
				m.HandleEvent(SessionEvent{Session: "p", Kind: EventInterrupted})
				pass(time.Hour)
				for i, task := range []Task{runs, waits, other} {
					require.Equal(t, want[i], get(t, m, task.ID).Status, i)
					if want[i] == Cancelled {
						require.ErrorIs(t, get(t, m, task.ID).Reason, ByUser)
					}
				}
				require.Equal(t, []TaskID{waits.ID, runs.ID}, ordered(toldTo("p", box.all()), waits.ID, runs.ID))
				for _, n := range box.all() {
					if n.Parent == "p" && n.Final {
						require.Equal(t, policy != InterruptedStopAll, n.Wake)
					}
				}
			})
		})
	}
}

// ordered is the list, or what it should be if it holds the same.
func ordered(list []TaskID, as ...TaskID) []TaskID {
	if len(list) == len(as) && has(map[TaskID]bool{list[0]: true, list[1]: true}, as[0]) && has(map[TaskID]bool{list[0]: true, list[1]: true}, as[1]) {
		return as
	}
	return list
}

// The last line says how results are read, in the host's own words if it has any.
func TestReadHint(t *testing.T) {
	n := Notification{Parent: "p", Final: true, Notices: []Notice{{Task: "bg_1", Run: 1, Status: Completed}}}
	p := MailboxPolicy{TextBytes: 1024, ReadHint: "Read results with task_output."}
	require.True(t, strings.HasSuffix(p.render(n), "\nRead results with task_output.\n"))
	p.ReadHint = strings.Repeat("x", maxReadHint)
	for i := range 200 {
		n.Notices = append(n.Notices, Notice{Task: "bg_2", Run: i, Status: Failed, Description: strings.Repeat("d", 200)})
	}
	require.LessOrEqual(t, len(p.render(n)), 1024)
}

// A turn that a deposit has left to be asked for is not asked for for ever: not where the
// notifier turns out to be none, nor of a parent that is busy for longer than KeepAge.
func TestWakeEnds(t *testing.T) {
	for name, answer := range map[string]error{"nobody to ask": errors.ErrUnsupported, "busy": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
					if n.Handover == HandWake {
						return Busy, answer
					}
					return map[Handover]Delivery{HandOffer: Busy, HandDeposit: Accepted}[n.Handover], nil
				}}
				m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{KeepAge: time.Hour}})
				launch(t, m, taking("p", "1s"))
				pass(time.Hour)
				require.True(t, m.Pending("p").Wake == (answer == nil))
				pass(10 * time.Hour)
				require.False(t, m.Pending("p").Wake)
				require.Equal(t, 1, m.Stats().Notices.Unwoken)
				require.Less(t, len(box.all()), 80)
				require.Zero(t, inventory(m)["mailboxes"])
				require.Zero(t, inventory(m)["deadlines"])
			})
		})
	}
}

// A parent whose later batch was parked is woken for the earlier deposit all the same when
// it idles, and what was parked goes out after it.
func TestWakeBeforeParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offers atomic.Int32
		offers.Store(int32(Busy))
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			if n.Handover == HandDeposit {
				return Accepted, nil
			}
			return Delivery(offers.Load()), nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{Backoff: time.Second, BackoffMax: time.Second}})
		one := launch(t, m, taking("p", "1s"))
		pass(65 * time.Second)
		require.True(t, m.Pending("p").Wake)
		offers.Store(int32(Unknown))
		two := launch(t, m, taking("p", "1s"))
		pass(20 * time.Second)
		require.True(t, m.Pending("p").Wake && m.Pending("p").Parked)
		offers.Store(int32(Accepted))
		before := len(box.all())
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(time.Second)
		require.Equal(t, []string{"wake+turn", "offer+turn"}, box.hands()[before:])
		require.Equal(t, []TaskID{one.ID, two.ID}, toldTo("p", box.all()[before:]))
		require.Zero(t, m.Pending("p"))
	})
}

// A frozen batch grows old with its last notice; until then its clock does not go off again
// and again, with the books locked.
func TestBatchGrowsOldWithItsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Mailbox: MailboxPolicy{KeepAge: 2 * time.Hour}})
		launch(t, m, taking("p", "1s"))
		launch(t, m, taking("p", "1h"))
		pass(61 * time.Minute)
		_, ack, ok := m.Drain("p")
		require.True(t, ok)
		ack(false)
		pass(119*time.Minute - time.Second)
		require.Len(t, m.Pending("p").Notices, 2)
		pass(time.Minute)
		require.Empty(t, m.Pending("p").Notices)
		require.Equal(t, 2, m.Stats().Notices.Expired)
	})
}

// A parent that idles while it is being deposited with is woken at once.
func TestIdleDuringDeposit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			switch n.Handover {
			case HandOffer:
				return Busy, nil
			case HandDeposit:
				time.Sleep(2 * time.Second)
			}
			return Accepted, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{BusyMax: time.Minute, Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(time.Second + 100*time.Millisecond + time.Minute + time.Second)
		require.Len(t, box.all(), 2)
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventIdle})
		pass(10 * time.Second)
		require.Len(t, box.all(), 3, "the turn is asked for")
	})
}

// A parent that is deleted while a deposit is on its way is not woken for it.
func TestDeletedParentIsNotWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
			if n.Handover == HandDeposit {
				time.Sleep(5 * time.Second)
				return Accepted, nil
			}
			return Busy, nil
		}}
		m := newManager(t, timed(), Config{Notifier: box, Mailbox: MailboxPolicy{BusyMax: 10 * time.Second, Backoff: time.Hour, BackoffMax: time.Hour}})
		launch(t, m, taking("p", "1s"))
		pass(13 * time.Second)
		require.Equal(t, []string{"offer+turn", "deposit"}, box.hands())
		m.HandleEvent(SessionEvent{Session: "p", Kind: EventDeleted})
		pass(time.Hour)
		require.Equal(t, []string{"offer+turn", "deposit"}, box.hands(), "it is told nothing more")
		require.Zero(t, m.Pending("p"))
	})
}

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
