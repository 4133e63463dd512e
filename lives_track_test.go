package subagent

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// trackedLives is a host with sessions of others, which have sessions below them: "f/x" is below
// x. It sees whether two turns of ours go on in one session.
type trackedLives struct {
	*attaching
	seen  sync.Mutex
	out   map[SessionID]int
	wrong []string
}

func (c *trackedLives) ParentOf(_ context.Context, id SessionID) (SessionID, error) {
	above, _ := strings.CutPrefix(string(id), "f/")
	if SessionID(above) == id {
		return "", nil
	}
	return SessionID(above), nil
}

func (c *trackedLives) enter(id SessionID) func() {
	c.seen.Lock()
	defer c.seen.Unlock()
	c.out[id]++
	if c.out[id] > 1 {
		c.wrong = append(c.wrong, "two turns in "+string(id))
	}
	return func() {
		c.seen.Lock()
		defer c.seen.Unlock()
		c.out[id]--
	}
}

func (c *trackedLives) Prompt(ctx context.Context, id SessionID, p Prompt) (Result, error) {
	defer c.enter(id)()
	return c.attaching.Prompt(ctx, id, p)
}

func (c *trackedLives) Attach(ctx context.Context, id SessionID, p Prompt) (Result, error) {
	defer c.enter(id)()
	select {
	case <-time.After(time.Duration(rand.IntN(20)) * time.Second):
		return Result{Text: "found"}, nil
	case <-ctx.Done():
		return Result{}, &SessionError{Op: "attach", Session: id, Class: ClassAborted, Err: ctx.Err()}
	}
}

// Random lives in which others' sessions are tracked, forgotten and tracked again, tasks move,
// and sessions between them are deleted: the books hold, no session has two turns of ours, each
// run that is owed is accounted for, and nothing is left at the end.
func TestTrackedLives(t *testing.T) {
	for seed := range uint64(200) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { trackedLife(t, seed) }) })
		if !ok {
			return
		}
	}
}

func trackedLife(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	c := &trackedLives{attaching: newAttaching(), out: map[SessionID]int{}}
	c.prompt = timed().prompt
	slow := func(most int) { time.Sleep(time.Duration(rand.IntN(most)) * time.Second) }
	c.abort = func(context.Context, SessionID) error { slow(8); return nil }
	c.release = func(context.Context, SessionID) error { slow(8); return nil }
	box := &answering{answer: func(Notification, int) (Delivery, error) {
		slow(3)
		return []Delivery{Accepted, Accepted, Accepted, Busy, Unknown}[rand.IntN(5)], nil
	}}
	cfg := Config{Notifier: box, Keys: KeyLimits{Default: 3, PerParent: []int{Off, 2}[r.IntN(2)]},
		Spawn:     SpawnLimits{Depth: 4, LivePerRoot: 8},
		Retention: Retention{Age: []time.Duration{time.Second, time.Minute}[r.IntN(2)], Count: []int{1, 3, 0}[r.IntN(3)], Together: Off},
		Mailbox:   MailboxPolicy{BusyMax: 10 * time.Second}}
	m := newManager(t, c, cfg)
	empty := inventory(m)
	over := map[string]bool{}
	ended := make(chan struct{})
	events, err := m.Subscribe(t.Context(), Filter{Statuses: []Status{Completed, Failed, Cancelled, Interrupted}}, TopicStatus)
	require.NoError(t, err)
	doubled := ""
	go func() {
		defer close(ended)
		for e := range events {
			key := fmt.Sprint(e.Task.ID, e.Run)
			if over[key] {
				doubled = key
			}
			over[key] = true
		}
	}()
	for range 80 {
		tasks := m.List(Filter{})
		pick := func() Task {
			if len(tasks) == 0 {
				return Task{}
			}
			return tasks[r.IntN(len(tasks))]
		}
		session := func() SessionID {
			switch p := pick(); {
			case p.Session != "" && r.IntN(2) == 0:
				return p.Session
			case p.Session != "" && r.IntN(3) == 0:
				return "f/" + p.Session
			}
			return SessionID([]string{"p", "q", "t1", "t2", "f/t1", "f/f/t1", "f/t2"}[r.IntN(7)])
		}
		dur := []string{"1s", "2s", "10s", "1m", "bad"}[r.IntN(5)]
		var wg sync.WaitGroup
		for range 1 + r.IntN(3) {
			op, id, at, to := r.IntN(12), pick().ID, session(), session()
			silent, left := r.IntN(5) == 0, r.IntN(8) == 0
			wg.Go(func() {
				ctx, stop := context.WithTimeout(context.Background(), time.Second)
				defer stop()
				switch op {
				case 0, 1, 2:
					in := taking(to, dur)
					in.NoNotice = silent
					_, _ = m.Launch(ctx, in)
				case 3, 4:
					_, _ = m.Resume(ctx, id, ResumeInput{Prompt: dur, Parent: []SessionID{"", to}[int(op)-3], NoNotice: silent})
				case 5, 6, 7:
					in := TrackInput{Session: at, Parent: to, Agent: "worker", NoNotice: silent}
					if silent {
						in.Parent = []SessionID{"", to}[len(to)%2]
					}
					_, _ = m.Track(ctx, in)
				case 8:
					_, _ = m.Cancel(ctx, id, CancelOptions{LeaveRunning: left && !strings.HasPrefix(string(at), "t")})
				case 9:
					m.HandleEvent(SessionEvent{Session: at, Kind: []EventKind{EventDeleted, EventIdle, EventInterrupted}[len(at)%3]})
				case 10:
					_, _ = m.As(to).Wait(ctx, id)
				case 11:
					if reserved, err := m.Reserve(ctx, to); err == nil {
						reserved.Release()
					}
				}
			})
		}
		if r.IntN(2) == 0 {
			wg.Wait()
		}
		pass([]time.Duration{0, 0, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute}[r.IntN(6)])
		require.NoError(t, m.CheckBooks(nil, nil))
		wg.Wait()
	}
	for _, task := range m.List(Filter{}) {
		_, _ = m.Cancel(t.Context(), task.ID, CancelOptions{})
	}
	pass(200 * time.Hour)
	require.NoError(t, m.CheckBooks(nil, nil))
	require.Empty(t, c.wrong)
	st := m.Stats()
	end := inventory(m)
	if st.Unstopped == 0 {
		maps.DeleteFunc(end, func(k string, _ int) bool { return k == "seq" })
		delete(empty, "seq")
		require.Equal(t, empty, end)
	}
	require.NoError(t, m.Close())
	<-ended
	require.Empty(t, doubled, "two endings of one run")
	for _, n := range box.all() {
		for _, notice := range n.Notices {
			require.True(t, over[fmt.Sprint(notice.Task, notice.Run)], "told of what did not end")
		}
	}
	require.Zero(t, st.Notices.Owed)
}
