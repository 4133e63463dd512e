package subagent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Random lives over parents that answer as they like, with notices and tasks that age
// soon: the books hold at each step, and once all is quiet there is nothing in them.
func TestLivesLeaveNothing(t *testing.T) {
	for seed := range uint64(200) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { liveAndLeave(t, seed) }) })
		if !ok {
			return
		}
	}
}

func liveAndLeave(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	quiet := false
	box := &answering{answer: func(n Notification, _ int) (Delivery, error) {
		if quiet {
			return Accepted, nil
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Second)
		return []Delivery{Accepted, Accepted, Busy, Unknown, Gone}[rand.IntN(5)], nil
	}}
	cfg := Config{Notifier: box, Keys: KeyLimits{Default: 3}, Interrupted: InterruptedPolicy(r.IntN(3)),
		Retention: Retention{Age: []time.Duration{time.Minute, time.Hour}[r.IntN(2)], Count: []int{1, 3, 0}[r.IntN(3)], Together: []time.Duration{Off, time.Minute, 0}[r.IntN(3)]},
		Mailbox:   MailboxPolicy{Push: PushPolicy(r.IntN(3)), BusyMax: []time.Duration{time.Second, 10 * time.Second, Off}[r.IntN(3)], KeepAge: []time.Duration{time.Minute, time.Hour, 0}[r.IntN(3)], KeepCount: []int{1, 3, 0}[r.IntN(3)], Tries: 1 + r.IntN(3)}}
	if r.IntN(4) == 0 {
		cfg.Notifier = nil
	}
	m := newManager(t, timed(), cfg)
	empty := inventory(m)
	var acks []func(bool)
	for range 60 {
		tasks := m.List(Filter{})
		pick := func() Task {
			if len(tasks) == 0 {
				return Task{}
			}
			return tasks[r.IntN(len(tasks))]
		}
		parent := func() SessionID {
			if p := pick(); p.Session != "" && r.IntN(2) == 0 {
				return p.Session
			}
			return SessionID([]string{"p", "q"}[r.IntN(2)])
		}
		dur := []string{"1s", "2s", "10s", "1m", "bad"}[r.IntN(5)]
		switch r.IntN(12) {
		case 0, 1, 2, 3:
			in := taking(parent(), dur)
			in.NoNotice = r.IntN(5) == 0
			_, _ = m.Launch(t.Context(), in)
		case 4, 5:
			in := ResumeInput{Prompt: dur, NoNotice: r.IntN(4) == 0}
			if r.IntN(2) == 0 {
				in.Parent = parent()
			}
			_, _ = m.Resume(t.Context(), pick().ID, in)
		case 6:
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			_, _ = m.Cancel(ctx, pick().ID, CancelOptions{Silent: r.IntN(2) == 0, LeaveRunning: r.IntN(4) == 0})
			stop()
		case 7:
			if _, ack, ok := m.Drain(parent()); ok {
				acks = append(acks, ack)
			}
		case 8:
			if len(acks) > 0 {
				acks[0](r.IntN(2) == 0)
				acks = acks[1:]
			}
		case 9:
			k := []EventKind{EventIdle, EventIdle, EventInterrupted, EventDeleted}[r.IntN(4)]
			m.HandleEvent(SessionEvent{Session: parent(), Kind: k})
		case 10:
			p := pick()
			_, _ = m.As(p.Parent).Get(p.ID)
		}
		require.NoError(t, m.CheckBooks(nil, nil))
		pass([]time.Duration{0, 100 * time.Millisecond, time.Second, time.Minute, time.Hour}[r.IntN(5)])
		require.NoError(t, m.CheckBooks(nil, nil))
	}
	for _, ack := range acks {
		ack(r.IntN(2) == 0)
	}
	quiet = r.IntN(2) == 0
	m.Stats() // in order with what comes
	pass(200 * time.Hour)
	require.NoError(t, m.CheckBooks(nil, nil))
	end := inventory(m)
	delete(empty, "seq")
	delete(end, "seq")
	require.Equal(t, empty, end, "%+v %+v", cfg.Mailbox, cfg.Retention)
}
