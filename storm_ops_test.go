package subagent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing/synctest"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// operation is one thing that a host does. It may block.
type operation struct {
	weight int
	do     func(*storm, *rand.Rand)
}

var operations = []operation{
	{40, (*storm).launch},
	{8, (*storm).cancel},
	{2, (*storm).cancelAll},
	{4, (*storm).wait},
	{3, (*storm).do},
	{4, (*storm).acquire},
	{3, (*storm).reserve},
	{4, (*storm).setLimit},
	{4, (*storm).drain},
	{3, (*storm).look},
}

func pick(r *rand.Rand) operation {
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	n := r.IntN(total)
	for _, o := range operations {
		if n -= o.weight; n < 0 {
			return o
		}
	}
	panic("unreachable")
}

// start has an operation run beside the driver.
func (s *storm) start(i int) {
	r := s.dice("op", i)
	op := pick(s.rng)
	s.ops.Go(func() { op.do(s, r) })
}

// stepped starts one operation at a time and checks all in between.
func (s *storm) stepped() {
	for i := range 15 + s.rng.IntN(15) {
		s.start(i)
		synctest.Wait()
		s.check()
		if s.rng.IntN(3) > 0 {
			time.Sleep(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
			synctest.Wait()
			s.check()
		}
	}
}

// free starts operations at the same time and looks only now and then.
func (s *storm) free() {
	for i := range 15 + s.rng.IntN(20) {
		s.start(i)
		switch s.rng.IntN(6) {
		case 0:
			time.Sleep(time.Duration(s.rng.Int64N(int64(5 * time.Second))))
		case 1:
			synctest.Wait()
			s.check()
		}
	}
	if s.rng.IntN(4) == 0 {
		ctx, cancel := s.ctx(s.rng)
		defer cancel()
		s.ops.Go(func() { _ = s.m.Shutdown(ctx) })
		s.closed = true
		time.Sleep(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
	}
	synctest.Wait()
	s.check()
}

// roots are the sessions that no task runs in.
func root(r *rand.Rand) subagent.SessionID {
	return subagent.SessionID(fmt.Sprintf("root%d", r.IntN(3)))
}

// someone is a session that may launch: a root, or a child's.
func (s *storm) someone(r *rand.Rand) subagent.SessionID {
	if r.IntN(3) > 0 {
		return root(r)
	}
	if t, ok := s.anyTask(r); ok && t.Session != "" {
		return t.Session
	}
	return root(r)
}

func (s *storm) anyTask(r *rand.Rand) (subagent.Task, bool) {
	list := s.m.List(subagent.Filter{})
	if len(list) == 0 {
		return subagent.Task{}, false
	}
	return list[r.IntN(len(list))], true
}

func (s *storm) input(r *rand.Rand) subagent.LaunchInput {
	s.mu.Lock()
	s.launched++
	n := s.launched
	s.mu.Unlock()
	return subagent.LaunchInput{
		Parent: s.someone(r), Agent: []string{"a", "b"}[r.IntN(2)], Prompt: "work", Description: fmt.Sprintf("work %d", n),
		Model: []string{"", "", "x/one", "x/two", "y/one"}[r.IntN(5)], NoNotice: r.IntN(8) == 0,
		Labels: map[string]string{"n": fmt.Sprint(n)},
	}
}

// refused are the errors that a launch may be refused with.
var refused = []error{
	subagent.ErrClosed, subagent.ErrDepthLimit, subagent.ErrSpawnLimit, subagent.ErrQueueFull, subagent.ErrParentEnded,
}

func (s *storm) allowed(err error, kinds ...error) {
	if err == nil {
		return
	}
	for _, k := range append(kinds, context.DeadlineExceeded, context.Canceled) {
		if errors.Is(err, k) {
			return
		}
	}
	s.wrong("an unexpected error: %v", err)
}

func (s *storm) launch(r *rand.Rand) {
	in := s.input(r)
	began := time.Now()
	t, err := s.m.Launch(context.Background(), in)
	if took := time.Since(began); took > 0 {
		s.wrong("Launch took %v", took)
	}
	s.allowed(err, refused...)
	if err == nil {
		s.mu.Lock()
		s.inputs[t.ID] = in
		s.mu.Unlock()
	}
}

func (s *storm) cancelOptions(r *rand.Rand) subagent.CancelOptions {
	o := subagent.CancelOptions{
		Cause:  []subagent.ReasonCode{"", subagent.ByParent, subagent.Superseded}[r.IntN(3)],
		Silent: r.IntN(4) == 0, OnlyPending: r.IntN(6) == 0, LeaveRunning: r.IntN(10) == 0,
	}
	if o.LeaveRunning {
		s.mu.Lock()
		s.loosened = true
		s.mu.Unlock()
	}
	return o
}

// quieted notes that a cancel which tells nobody has won.
func (s *storm) quieted(o subagent.CancelOptions, ids ...subagent.TaskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if o.Silent || o.Cause == subagent.ByParent {
			s.silenced[id] = true
		}
	}
}

func (s *storm) cancel(r *rand.Rand) {
	t, ok := s.anyTask(r)
	if !ok {
		return
	}
	o := s.cancelOptions(r)
	ctx := context.Background()
	if r.IntN(4) == 0 {
		var stop context.CancelFunc
		ctx, stop = s.ctx(r)
		defer stop()
	}
	began := time.Now()
	ended, err := s.m.Cancel(ctx, t.ID, o)
	if took := time.Since(began); took > s.grace+time.Second {
		s.wrong("Cancel took %v", took)
	}
	s.allowed(err, subagent.ErrEnded, subagent.ErrNotPending, subagent.ErrUnstopped)
	if errors.Is(err, subagent.ErrEnded) || errors.Is(err, subagent.ErrNotPending) {
		return
	}
	s.quieted(o, t.ID)
	if want := (map[subagent.ReasonCode]subagent.ReasonCode{"": subagent.ByUser}); ended.Reason == nil ||
		ended.Reason.Code != o.Cause && ended.Reason.Code != want[o.Cause] {
		s.wrong("a cancel for %q won, and the reason is %v", o.Cause, ended.Reason)
	}
	if err == nil && ended.Status != subagent.Cancelled {
		s.wrong("a cancel that won shows %v", ended.Status)
	}
}

func (s *storm) cancelAll(r *rand.Rand) {
	o := s.cancelOptions(r)
	f := subagent.Filter{Under: root(r)}
	if r.IntN(2) == 0 {
		f = subagent.Filter{Parent: s.someone(r)}
	}
	ended, err := s.m.CancelAll(context.Background(), f, o)
	s.allowed(err, subagent.ErrUnstopped)
	for _, t := range ended {
		if t.Reason.Code != subagent.ParentGone {
			s.quieted(o, t.ID)
		}
	}
}

func (s *storm) wait(r *rand.Rand) {
	ctx, cancel := s.ctx(r)
	defer cancel()
	switch t, ok := s.anyTask(r); {
	case !ok:
	case r.IntN(3) == 0:
		_, err := s.m.WaitAny(ctx, subagent.Filter{Parent: t.Parent})
		s.allowed(err, subagent.ErrNotFound)
	case r.IntN(2) == 0:
		tasks, err := s.m.WaitAll(ctx, subagent.Filter{Root: t.Root})
		s.allowed(err)
		if err == nil && len(tasks) == 0 {
			s.wrong("WaitAll lost tasks")
		}
	default:
		ended, err := s.m.Wait(ctx, t.ID)
		s.allowed(err)
		if err == nil && !ended.Status.Terminal() {
			s.wrong("Wait returned a task that is %v", ended.Status)
		}
	}
}

func (s *storm) do(r *rand.Rand) {
	in := s.input(r)
	in.NoNotice = true
	ctx, cancel := s.ctx(r)
	defer cancel()
	t, err := s.m.Do(ctx, in)
	if t.ID == "" {
		s.allowed(err, refused...)
		return
	}
	s.mu.Lock()
	s.inputs[t.ID] = in
	s.mu.Unlock()
	if !t.Status.Terminal() {
		s.wrong("Do returned a task that is %v", t.Status)
	}
}

func (s *storm) acquire(r *rand.Rand) {
	ctx, cancel := s.ctx(r)
	defer cancel()
	l, err := s.m.Acquire(ctx, subagent.Holder{Parent: s.someone(r), Agent: []string{"a", "b"}[r.IntN(2)], Model: []string{"", "x/one"}[r.IntN(2)]})
	s.allowed(err, subagent.ErrClosed)
	if err != nil {
		return
	}
	time.Sleep(time.Duration(r.Int64N(int64(10 * time.Second))))
	l.Release()
	l.Release()
}

func (s *storm) reserve(r *rand.Rand) {
	res, err := s.m.Reserve(context.Background(), s.someone(r))
	s.allowed(err, refused...)
	if err != nil {
		return
	}
	time.Sleep(time.Duration(r.Int64N(int64(10 * time.Second))))
	if r.IntN(2) == 0 {
		res.Rollback()
	}
	res.Release()
}

func (s *storm) setLimit(r *rand.Rand) {
	keys := []subagent.Key{
		{Kind: subagent.ModelKey, Name: "x/one"}, {Kind: subagent.ProviderKey, Name: "x"}, {Kind: subagent.AgentKey, Name: "b"},
		{Kind: subagent.GlobalKey}, {Kind: subagent.ParentKey}, {Kind: subagent.StartsKey},
	}
	s.mu.Lock()
	s.limited = true
	s.mu.Unlock()
	s.allowed(s.m.SetLimit(keys[r.IntN(len(keys))], r.IntN(5)-1))
}

func (s *storm) drain(r *rand.Rand) {
	n, ack, ok := s.m.Drain(s.someone(r))
	if !ok {
		return
	}
	time.Sleep(time.Duration(r.Int64N(int64(5 * time.Second))))
	delivered := r.IntN(2) == 0
	if delivered {
		s.parent.Take(n)
	}
	ack(delivered)
	ack(!delivered)
}

func (s *storm) look(r *rand.Rand) {
	_ = s.m.Stats()
	_ = s.m.Pending(s.someone(r))
	_ = s.m.CanLaunch(context.Background(), s.input(r))
	if t, ok := s.anyTask(r); ok && t.Session != "" {
		if same, err := s.m.BySession(t.Session); err != nil || same.ID != t.ID {
			s.wrong("session %s is of task %s, and found is %s: %v", t.Session, t.ID, same.ID, err)
		}
	}
}

// settle stops the faults and sees that all comes to an end.
func (s *storm) settle() {
	s.calm.Store(true)
	s.client.Let()
	s.parent.Let()
	for _, k := range []subagent.KeyKind{subagent.GlobalKey, subagent.ParentKey, subagent.StartsKey} {
		_ = s.m.SetLimit(subagent.Key{Kind: k}, subagent.Off)
	}
	time.Sleep(5 * time.Minute)
	s.ops.Wait()
	synctest.Wait()
	s.check()
	s.takeParked()
	s.checkSettled()
	s.checkTold()
	if !s.closed {
		s.fullBatch()
	}
}

// takeParked drains what was given up on.
func (s *storm) takeParked() {
	for _, p := range s.parents() {
		for {
			n, ack, ok := s.m.Drain(p)
			if !ok {
				break
			}
			s.parent.Take(n)
			ack(true)
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
}

// fullBatch sees that nothing was lost on the way: as many tasks as the limit
// allows start at once.
func (s *storm) fullBatch() {
	_ = s.m.SetLimit(subagent.Key{Kind: subagent.ModelKey, Name: "fresh/one"}, 4)
	for i := range 4 {
		t, err := s.m.Launch(context.Background(), subagent.LaunchInput{
			Parent: "fresh", Agent: "c", Prompt: "work", Model: "fresh/one", Labels: map[string]string{"n": fmt.Sprint("fresh", i)},
		})
		if err != nil || t.Status != subagent.Starting {
			s.wrong("of a full batch, task %d is %v: %v", i, t.Status, err)
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if n := len(s.parent.Seen("fresh")); n != 4 {
		s.wrong("of a full batch, %d were told", n)
	}
}
