package subagent_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// allowed sees that an error is one of these, or a context's.
func (s *storm) allowed(err error, kinds ...error) {
	if err == nil {
		return
	}
	for _, k := range append(kinds, context.DeadlineExceeded, context.Canceled, subagent.ErrClosed) {
		if errors.Is(err, k) {
			return
		}
	}
	s.wrong("an unexpected error: %v", err)
}

func (s *storm) must(err, kind error) {
	if !errors.Is(err, kind) {
		s.wrong("the error is %v and not %v", err, kind)
	}
}

// ended compares the ending that a wait returned with what others were shown.
func (s *storm) ended(who string, t subagent.Task, err error) {
	if err != nil {
		return
	}
	if !t.Status.Terminal() {
		s.wrong("%s returned task %s, which is %v", who, t.ID, t.Status)
		return
	}
	s.sees(who, t)
}

func (s *storm) launch(name string, in subagent.LaunchInput) *life {
	l := s.asks(name, in)
	first := l.run
	launch, in := s.m.Launch, first.in
	if s.dice("as", name).IntN(3) == 0 {
		launch, in.Parent = s.m.As(in.Parent).Launch, ""
	}
	t, err := launch(context.Background(), in)
	if took := time.Since(first.asked); took > 0 && !first.slow {
		s.wrong("Launch took %v", took)
	}
	s.refusalOf(first, first.in, err)
	s.launched(l, t, err)
	return l
}

func (s *storm) refusal(in subagent.LaunchInput, err error) { s.refusalOf(nil, in, err) }

// refusalOf sees that a refused launch was refused for a reason that was true.
func (s *storm) refusalOf(r *run, in subagent.LaunchInput, err error) {
	if lost(in.Parent) && !errors.Is(err, subagent.ErrLineage) && !errors.Is(err, subagent.ErrClosed) {
		s.wrong("the parent %q is of no known origin, and the launch ends with %v", in.Parent, err)
	}
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	above, root, depth := s.trace(in.Parent)
	var limit *subagent.LimitError
	var panicked *subagent.PanicError
	switch {
	case errors.Is(err, subagent.ErrClosed):
		if s.closing.IsZero() {
			s.wrong("a launch is refused with %v, and nobody closed the manager", err)
		}
	case errors.As(err, &limit):
		s.checkRefusal(r, limit, root, depth)
	case errors.Is(err, subagent.ErrParentEnded):
		if !s.refusing(above) {
			s.wrong("a launch below %q is refused with %v, and nobody above has ended", in.Parent, err)
		}
	case errors.Is(err, subagent.ErrLineage):
		if !lost(in.Parent) {
			s.wrong("a launch below %q is refused with %v", in.Parent, err)
		}
	case errors.Is(err, errAdmit), errors.As(err, &panicked):
	default:
		s.wrong("a launch below %q is refused with %v", in.Parent, err)
	}
}

// checkRefusal: the numbers in a refusal are the configured and the true ones. Those
// can be known where operations come one at a time.
func (s *storm) checkRefusal(r *run, e *subagent.LimitError, root subagent.SessionID, depth int) {
	spawn, exact := s.cfg.Spawn, s.single && r != nil && !strings.ContainsAny(r.origin, ".'-+") && time.Since(r.asked) == 0
	limit, used := 0, 0
	switch e.Setting {
	case "Config.Spawn.Depth":
		limit, used, exact = spawn.Depth, depth, true
	case "Config.Spawn.LivePerRoot":
		limit, used = spawn.LivePerRoot, s.live(root)
	case "Config.Spawn.TotalPerRoot":
		limit, used = spawn.TotalPerRoot, s.total[root]
	case "Config.Spawn.QueueDepth":
		limit, used = spawn.QueueDepth, s.waiting(e.Key)
	}
	least := limit
	switch {
	case e.Kind == subagent.ErrDepthLimit:
		least++
		if r != nil && r.again && e.Used > depth && e.Used-depth < s.treeOf(r.of)+s.unnumbered() {
			used = e.Used // the deepest that comes along
		}
	case e.Setting == "Config.Spawn.LivePerRoot" && r != nil && r.again:
		tree := s.treeOf(r.of) + s.unnumbered() // when something has ended, or whether a Do has begun, is not known
		if exact {
			tree = s.treeIsLive(r.of)
		}
		least -= max(tree, 1) - 1 // all that comes along
	}
	if e.Limit != limit || e.Used < least || exact && e.Used != used {
		s.wrong("a refusal says %d of %d (%s), and it is %d of %d", e.Used, e.Limit, e.Setting, used, limit)
	}
}

// unnumbered is how many runs were asked for of which nobody knows yet whether they began.
func (s *storm) unnumbered() (n int) {
	for _, r := range s.asked {
		if r.number == 0 {
			n++
		}
	}
	return n
}

func (s *storm) do(ctx context.Context, name string, in subagent.LaunchInput) {
	in.NoNotice = true
	l := s.asks(name, in)
	first := l.run
	s.mu.Lock()
	first.gaveUp = true // it may come to that
	s.mu.Unlock()
	t, err := s.m.Do(ctx, first.in)
	if t.ID == "" {
		if ctx.Err() == nil {
			s.refusalOf(first, first.in, err)
		}
		s.launched(l, t, err)
		return
	}
	s.launched(l, t, nil)
	s.ended("Do", t, nil)
	if ctx.Err() == nil && (err == nil) != (t.Status == subagent.Completed) {
		s.wrong("Do returned task %s, which is %v, and the error %v", t.ID, t.Status, err)
	}
}

func (s *storm) cancelOptions(r *rand.Rand) subagent.CancelOptions {
	return subagent.CancelOptions{
		Cause:  []subagent.ReasonCode{subagent.ByUser, subagent.ByParent, subagent.Superseded}[r.IntN(3)],
		Silent: r.IntN(4) == 0, OnlyPending: r.IntN(6) == 0, LeaveRunning: r.IntN(10) == 0,
	}
}

func quiet(o subagent.CancelOptions) bool { return o.Silent || o.Cause == subagent.ByParent }

func (s *storm) cancel(ctx context.Context, r *rand.Rand, l *life) {
	o, cancel := s.cancelOptions(r), s.m.Cancel
	given, parent := o, s.parentOf(l)
	if r.IntN(3) == 0 && parent != "" {
		cancel = s.m.As(parent).Cancel
	}
	if o.Cause == subagent.ByParent && r.IntN(2) == 0 && parent != "" {
		cancel, given.Cause = s.m.As(parent).Cancel, "" // the same by default
	}
	s.hushOne(l, o, 1)
	defer s.hushOne(l, o, -1)
	began := time.Now()
	t, err := cancel(ctx, l.id, given)
	if took := time.Since(began); took > s.cfg.AbortGrace+settleTime {
		s.wrong("Cancel took %v", took)
	}
	if errors.Is(err, subagent.ErrNotFound) && s.isMoving() {
		return // it is another's child by now
	}
	s.allowed(err, subagent.ErrEnded, subagent.ErrNotPending, subagent.ErrUnstopped)
	lost, leftAlone := errors.Is(err, subagent.ErrEnded), errors.Is(err, subagent.ErrNotPending)
	switch {
	case lost && t.Status < subagent.Stopping, leftAlone && t.Status == subagent.Pending:
		s.wrong("Cancel says %v, and shows task %s as %v", err, t.ID, t.Status)
	case !lost && !leftAlone:
		s.won(t, o, o.Cause)
	}
	if t.Status.Terminal() {
		s.ended("Cancel", t, nil)
	}
}

// won takes in that a cancel says it ended a task.
func (s *storm) won(t subagent.Task, o subagent.CancelOptions, want subagent.ReasonCode) {
	if codeOf(t) != want || t.Status.Terminal() && t.Status != subagent.Cancelled {
		s.wrong("a cancel for %q won, and task %s is %v because of %v", want, t.ID, t.Status, t.Reason)
	}
	if err := mark(t); o.LeaveRunning && err != nil && strings.Contains(err.Error(), "left running") {
		s.client.LeftRunning(t.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lifeOf(t); l != nil {
		r := s.bind(l, t)
		r.wins++
		r.hushed = r.hushed || quiet(o)
	}
}

func (s *storm) cancelAll(ctx context.Context, r *rand.Rand, f subagent.Filter) {
	o := s.cancelOptions(r)
	s.hush(o, 1)
	tasks, err := s.m.CancelAll(ctx, f, o)
	s.allowed(err, subagent.ErrUnstopped)
	for _, t := range tasks {
		if codeOf(t) != subagent.ParentGone { // taken along by another of them
			s.won(t, o, o.Cause)
		}
		if t.Status.Terminal() {
			s.ended("CancelAll", t, nil)
		}
	}
	s.hush(o, -1)
}

// hush notes that any task may be ended without a word, until it is known which.
func (s *storm) hush(o subagent.CancelOptions, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !quiet(o) {
		return
	}
	s.hushing += n
	for _, r := range s.asked {
		r.mayHush = r.mayHush || r.ended == nil
	}
}

// hushOne is hush for one task, whichever run of it is current by then.
func (s *storm) hushOne(l *life, o subagent.CancelOptions, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !quiet(o) {
		return
	}
	l.hushing += n
	for _, r := range s.asked {
		r.mayHush = r.mayHush || r.of == l && r.ended == nil
	}
}

func (s *storm) acquire(r *rand.Rand, _ string) {
	keep, patience := s.while(r, 10*time.Second), s.while(r, 30*time.Second)
	if s.ties && r.IntN(2) == 0 {
		keep, patience = time.Second, time.Second // one gives up when another gives back
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := subagent.Holder{Parent: s.someone(r), Agent: []string{"a", "b"}[r.IntN(2)], Model: []string{"", "x/one"}[r.IntN(2)]}
	s.mu.Lock()
	p := s.newPlace(h.Parent, h.Agent, h.Model, nil)
	s.line(p.key).add(&p)
	s.mu.Unlock()
	lease, err := s.m.Acquire(ctx, h)
	s.allowed(err)
	s.mu.Lock()
	if err != nil {
		p.left = time.Now()
		s.mu.Unlock()
		return
	}
	p.lease = lease
	s.took(&p)
	s.mu.Unlock()
	time.Sleep(keep)
	s.mu.Lock()
	s.gaveBack(&p, time.Now())
	s.mu.Unlock()
	lease.Release()
	lease.Release()
}

func (s *storm) reserve(r *rand.Rand, name string) {
	parent := s.someone(r)
	res, err := s.m.Reserve(context.Background(), parent)
	s.refusal(subagent.LaunchInput{Parent: parent}, err)
	if err != nil {
		return
	}
	s.mu.Lock()
	_, root, depth := s.trace(parent)
	s.reserved[root]++
	s.total[root]++
	s.mu.Unlock()
	if res.Lineage.Root != root || res.Lineage.Depth != depth {
		s.wrong("a place below %q is at %+v, and should be below %q at depth %d", parent, res.Lineage, root, depth)
	}
	time.Sleep(s.while(r, 10*time.Second))
	undo := r.IntN(2) == 0
	s.mu.Lock()
	s.reserved[root]--
	if undo {
		s.total[root]--
	}
	s.mu.Unlock()
	if undo {
		res.Rollback()
	}
	res.Release()
}

func (s *storm) setLimit(r *rand.Rand, _ string) {
	keys := []subagent.Key{
		{Kind: subagent.ModelKey, Name: "x/one"}, {Kind: subagent.ProviderKey, Name: "x"}, {Kind: subagent.AgentKey, Name: "b"},
		{Kind: subagent.GlobalKey}, {Kind: subagent.ParentKey}, {Kind: subagent.StartsKey},
	}
	s.limit(keys[r.IntN(len(keys))], r.IntN(5)-1)
}

// limit sets a limit and writes it down before that: both are in force in this instant.
func (s *storm) limit(k subagent.Key, n int) {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	s.mu.Lock()
	set := maps.Clone(s.epochs[len(s.epochs)-1].set)
	set[k] = n
	s.epochs = append(s.epochs, epoch{time.Now(), set})
	s.mu.Unlock()
	s.allowed(s.m.SetLimit(k, n))
}
