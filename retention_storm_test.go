package subagent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// shelfStorm is one seed's random life of a manager that forgets soon: what is told, read,
// drained, resumed and launched below what, and when, is drawn; what parents have got they
// note themselves.
type shelfStorm struct {
	t    *testing.T
	m    *BackgroundManager
	seed uint64
	age  time.Duration
	calm atomic.Bool

	mu       sync.Mutex
	r        *rand.Rand
	launched []TaskID
	runs     map[TaskID]int               // the last that was begun
	free     map[TaskID]map[int]time.Time // since when nobody is owed a run
}

func (s *shelfStorm) some(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.IntN(n)
}

func (s *shelfStorm) while(most time.Duration) time.Duration { return time.Duration(s.some(int(most))) }

// got takes in that a parent has what a notification tells.
func (s *shelfStorm) got(n Notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, notice := range n.Notices {
		s.freeLocked(notice.Task, notice.Run)
	}
}

func (s *shelfStorm) freeLocked(id TaskID, run int) {
	if s.free[id] == nil {
		s.free[id] = map[int]time.Time{}
	}
	if s.free[id][run].IsZero() {
		s.free[id][run] = time.Now()
	}
}

func (s *shelfStorm) Notify(ctx context.Context, n Notification) (Delivery, error) {
	time.Sleep(s.while(2 * time.Second))
	answer := []Delivery{Accepted, Accepted, Accepted, Busy, Unknown}[s.some(5)]
	if s.calm.Load() || answer == Accepted {
		if n.Handover != HandWake {
			s.got(n)
		}
		return Accepted, nil
	}
	return answer, nil
}

// turn is a child: it launches some of its own, and ends somehow.
func (s *shelfStorm) turn(ctx context.Context, turn Turn) (Result, error) {
	for range s.some(3) {
		if !s.calm.Load() && s.some(4) == 0 {
			s.launch(turn.Session)
		}
	}
	select {
	case <-time.After(s.while(20 * time.Second)):
	case <-ctx.Done():
		return Result{Text: "so far"}, ctx.Err()
	}
	if s.some(5) == 0 {
		return Result{}, errors.New("failed")
	}
	return Result{Text: "done"}, nil
}

func (s *shelfStorm) launch(parent SessionID) {
	in := LaunchInput{Parent: parent, Agent: fmt.Sprint("a", s.some(3)), Prompt: "work", NoNotice: s.some(6) == 0}
	task, err := s.m.Launch(context.Background(), in)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launched = append(s.launched, task.ID)
	s.runs[task.ID] = 1
}

// one is some task that was launched, perhaps forgotten.
func (s *shelfStorm) one() (id TaskID, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.launched) == 0 {
		return "", false
	}
	return s.launched[s.r.IntN(len(s.launched))], true
}

func (s *shelfStorm) act() {
	parent := SessionID(fmt.Sprint("p", s.some(3)))
	id, ok := s.one()
	switch n := s.some(12); {
	case n < 5 || !ok:
		s.launch(parent)
	case n == 5:
		if n, ack, ok := s.m.Drain(parent); ok {
			time.Sleep(s.while(5 * time.Second))
			taken := s.some(3) > 0
			if taken {
				s.got(n)
			}
			ack(taken)
		}
	case n == 6:
		s.read(id)
	case n == 7:
		s.resume(id, parent)
	case n == 8:
		_, _ = s.m.Cancel(context.Background(), id, CancelOptions{Silent: s.some(2) == 0})
	case n == 9:
		s.wait(id)
	case n == 10:
		_, _ = s.m.WaitAll(context.Background(), Filter{Parent: parent})
	default:
		_ = s.m.History(parent)
		_, _ = s.m.Output(context.Background(), id, OutputQuery{Wait: s.while(5*time.Second) + time.Millisecond})
	}
}

// read plays the parent that reads a run itself.
func (s *shelfStorm) read(id TaskID) {
	task, err := s.m.Get(id)
	if err != nil {
		return
	}
	owed := slices.ContainsFunc(s.m.Pending(task.Parent).Notices, func(n Notice) bool { return n.Task == id && n.Run == task.Run })
	if seen, err := s.m.As(task.Parent).Get(id); err == nil && seen.Status.Terminal() && owed {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.freeLocked(id, seen.Run)
	}
}

func (s *shelfStorm) resume(id TaskID, parent SessionID) {
	in := ResumeInput{Prompt: "more", NoNotice: s.some(6) == 0}
	if s.some(3) == 0 {
		in.Parent = parent
	}
	task, err := s.m.Resume(context.Background(), id, in)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[id] = max(s.runs[id], task.Run)
}

// wait: what is live when a wait begins is not forgotten before it has told how it ended.
func (s *shelfStorm) wait(id TaskID) {
	if task, err := s.m.Get(id); err != nil || task.Status.Terminal() {
		return
	}
	task, err := s.m.Wait(context.Background(), id)
	if err != nil && !errors.Is(err, ErrNotFound) || err == nil && !task.Status.Terminal() {
		s.t.Errorf("a wait for %s: %v, %v", id, task.Status, err)
	}
}

// check: what nobody was told of, or not long enough ago, is there.
func (s *shelfStorm) check() {
	synctest.Wait()
	require.NoError(s.t, s.m.CheckBooks(nil, nil), "seed %d", s.seed)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.launched {
		_, err := s.m.Get(id)
		if err == nil {
			continue
		}
		var forgotten *ForgottenError
		require.ErrorAs(s.t, err, &forgotten, "seed %d", s.seed)
		require.Equal(s.t, s.runs[id], forgotten.Run, "seed %d: it was resumed", s.seed)
		since := forgotten.Ended // of one that is told to nobody
		if at := s.free[id][forgotten.Run]; at.After(since) {
			since = at
		}
		require.False(s.t, time.Now().Before(since.Add(s.age)), "seed %d: task %s is forgotten %v after it was free, of %v: %+v", s.seed, id, time.Since(since), s.age, forgotten)
	}
}

func (s *shelfStorm) run(cfg Config) {
	m, err := New(Func(s.turn), cfg)
	require.NoError(s.t, err)
	s.m = m
	var ops sync.WaitGroup
	for range 60 {
		ops.Go(s.act)
		time.Sleep(s.while(6 * time.Second))
		s.check()
	}
	s.calm.Store(true)
	ops.Wait()
	time.Sleep(time.Hour)
	s.check()
	for p := range 3 { // what was parked
		for n, ack, ok := m.Drain(SessionID(fmt.Sprint("p", p))); ok; n, ack, ok = m.Drain(SessionID(fmt.Sprint("p", p))) {
			s.got(n)
			ack(true)
		}
	}
	time.Sleep(3 * time.Hour)
	s.check()
	stats := m.Stats()
	require.Empty(s.t, stats.Tasks, "seed %d", s.seed)
	require.Equal(s.t, len(s.launched), stats.Forgotten, "seed %d", s.seed)
	left := inventory(m)
	require.Zero(s.t, left["tasks"]+left["ids"]+left["sessions"]+left["mailboxes"]+left["children"]+left["owed"]+left["roots"]+left["deadlines"], "seed %d: %v", s.seed, left)
	require.NoError(s.t, m.Close())
	require.NoError(s.t, m.CheckBooks(nil, nil))
}

// A manager that forgets soon loses nothing that is needed, and keeps nothing else.
func TestRetentionStorm(t *testing.T) {
	seeds := flag.Lookup("storm.seeds").Value.(flag.Getter).Get().(int) / 8
	for seed := range uint64(max(seeds, 1)) {
		synctest.Test(t, func(t *testing.T) {
			s := &shelfStorm{
				t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 7)),
				runs: map[TaskID]int{}, free: map[TaskID]map[int]time.Time{},
			}
			cfg := Config{Keys: KeyLimits{Default: 1 + s.some(4)}, Mailbox: MailboxPolicy{BusyMax: time.Duration(1+s.some(20)) * time.Second, Tries: 1 + s.some(3)}}
			if s.some(4) > 0 {
				cfg.Notifier = s
			}
			s.age = time.Duration(1+s.some(30)) * time.Second
			cfg.Retention = Retention{Age: s.age, Together: []time.Duration{Off, time.Minute}[s.some(2)], Count: Off}
			if s.some(4) == 0 {
				s.age, cfg.Retention.Count = 0, 1+s.some(10)
			}
			s.run(cfg)
		})
		if t.Failed() {
			return
		}
	}
}
