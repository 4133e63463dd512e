package subagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ending is what the waiters of one run share: made by the first of them, filled
// and closed by the run's settlement.
type ending struct {
	done  chan struct{} // nil: the run had ended already
	ended Task          // as it ended; read only once done is closed

	stopped *attempt // that is being stopped; set before a Cancel waits
}

// task is a copy for one of those who wait.
func (e *ending) task() Task { return e.ended.clone() }

// wait returns nil once the run has ended, also when ctx has at the same time.
func (e *ending) wait(ctx context.Context) error {
	if e.done == nil {
		return nil
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-e.done:
		return nil
	default:
		return context.Cause(ctx)
	}
}

func (m *BackgroundManager) endingLocked(t *task) *ending {
	if t.status.Terminal() {
		return &ending{ended: m.snapshotLocked(t)}
	}
	if t.ending == nil {
		t.ending = &ending{done: make(chan struct{})}
	}
	return t.ending
}

// Wait returns a task once the run that is current at the call has ended, as it
// ended. How it ended is no error. The error is ErrNotFound, or ctx's own beside
// the task as it then is: an ended wait stops nothing and leaves nothing behind.
func (m *BackgroundManager) Wait(ctx context.Context, id TaskID) (Task, error) {
	return m.wait(ctx, host, id)
}

func (m *BackgroundManager) wait(ctx context.Context, by caller, id TaskID) (Task, error) {
	m.mu.Lock()
	t, err := m.reachLocked(by, id)
	if err != nil {
		m.mu.Unlock()
		return Task{}, err
	}
	e := m.endingLocked(t)
	m.mu.Unlock()
	if err := e.wait(ctx); err != nil {
		now, _, gone := m.still(by, t, e)
		if gone != nil {
			err = gone
		}
		return now, err
	}
	return m.sawEnding(by, t, e)
}

// sawEnding is the task as its run ended, for a caller that has waited for it. Meanwhile it
// may have moved out of the caller's reach.
func (m *BackgroundManager) sawEnding(by caller, t *task, e *ending) (Task, error) {
	if by != host {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !by.reaches(t) {
			return Task{}, unknown(t.id)
		}
		if int(t.run) == e.ended.Run { // else what it may be owed is of a later run
			m.seenLocked(by, t)
		}
	}
	return e.task(), nil
}

// still is the task as it is now, for a caller that has waited for a run in vain, and whether
// that run goes on. It counts as no reading.
func (m *BackgroundManager) still(by caller, t *task, e *ending) (now Task, live bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !by.reaches(t) {
		return Task{}, false, unknown(t.id)
	}
	return m.snapshotLocked(t), t.ending == e, nil // else it was answered meanwhile
}

// Do launches a task, waits for it in the foreground and returns it as it ended;
// the parent gets no notice. The error is Launch's, or the task's Reason if it did
// not complete. When ctx ends first the task is cancelled with ByParent, and the
// error is ctx's, and also [ErrUnstopped] if the child may still be running. If it has
// moved to another parent meanwhile, by Track, that is told, and the reason is ByUser.
//
// A child that calls Do keeps its own lease meanwhile. When all leases of a queue
// are held by children that wait for that same queue, none of them goes on: give
// nested agents keys of their own, set TaskLimits.QueueWait, or Launch and return.
func (m *BackgroundManager) Do(ctx context.Context, in LaunchInput) (Task, error) {
	in.NoNotice = true
	id, e, err := m.launchAwaited(ctx, in)
	if err != nil {
		return Task{}, err
	}
	if err := e.wait(ctx); err != nil {
		// Bounded by Config.AbortGrace. An ending that came first stands.
		_, stopErr := m.Cancel(context.WithoutCancel(ctx), id, CancelOptions{Cause: ByParent, Run: 1, parent: &in.Parent}) // by now it may be in another
		if errors.Is(stopErr, ErrUnstopped) {
			err = errors.Join(err, stopErr)
		}
		return e.task(), err
	}
	if e.ended.Status != Completed {
		return e.task(), e.ended.Reason.clone()
	}
	return e.task(), nil
}

// launchAwaited launches a task whose ending is not missed, however soon it comes, and
// is forgotten.
func (m *BackgroundManager) launchAwaited(ctx context.Context, in LaunchInput) (TaskID, *ending, error) {
	t, o, err := m.plan(ctx, in)
	if err != nil {
		return "", nil, err
	}
	m.mu.Lock()
	defer m.unlock()
	if err := m.launchLocked(t, o); err != nil {
		return "", nil, err
	}
	return t.id, m.endingLocked(t), nil
}

// watch is one WaitAny or WaitAll: a count kept by launches and endings of the
// tasks that match.
type watch struct {
	by      caller
	filter  Filter
	match   func(*task) bool
	live    int
	hit     chan struct{} // has one element after an ending
	all     bool          // WaitAll: what matches in the instant in which none is live …
	settled []*task       // … is this
}

// WaitAny returns a task that matches and has ended: at once if there is one, of
// several the one that ended first. Name the tasks still awaited in Filter.IDs to
// get them one after the other. Those that are forgotten match nothing, also if they
// were meanwhile. The zero Filter is for any task there is. The error is ErrNotFound if
// nothing matches, an *[InputError], or ctx's own.
func (m *BackgroundManager) WaitAny(ctx context.Context, f Filter) (Task, error) {
	return m.waitAny(ctx, host, f)
}

func (m *BackgroundManager) waitAny(ctx context.Context, by caller, f Filter) (Task, error) {
	w, err := m.watch(by, f)
	if err != nil {
		return Task{}, err
	}
	defer m.unwatch(w)
	for {
		if t, ok, err := m.firstEnded(w); ok || err != nil {
			return t, err
		}
		select {
		case <-w.hit: // what has ended may have gone on since, or moved away
		case <-ctx.Done():
			if t, ok, err := m.firstEnded(w); ok && err == nil {
				return t, nil // it ended at the same time
			}
			return Task{}, context.Cause(ctx)
		}
	}
}

// WaitAll returns all tasks that match, as they ended, once none of them is live,
// counting those launched or resumed meanwhile, but for those that were forgotten
// meanwhile, see Retention.Together; nothing that matches is no error. The zero Filter is
// for all tasks there are: a child that waits so waits for itself. The error is an
// *[InputError], or ctx's own.
func (m *BackgroundManager) WaitAll(ctx context.Context, f Filter) ([]Task, error) {
	return m.waitAll(ctx, host, f)
}

func (m *BackgroundManager) waitAll(ctx context.Context, by caller, f Filter) ([]Task, error) {
	w, err := m.watch(by, f)
	if err != nil {
		return nil, err
	}
	defer m.unwatch(w)
	w.all = true
	for m.awaitSettled(w, ctx.Done()) {
		if list, ended := m.copies(by, w.settled); ended {
			m.seenAll(by, list)
			return list, nil
		}
	}
	return nil, context.Cause(ctx)
}

// copies are snapshots of tasks that a caller has waited for, made in pages so that
// many hold nobody up. One may have gone on meanwhile: then not all have ended.
func (m *BackgroundManager) copies(by caller, tasks []*task) (list []Task, ended bool) {
	list, ended = make([]Task, 0, len(tasks)), true
	for page := range slices.Chunk(tasks, waitPage) {
		m.mu.Lock()
		for _, t := range page {
			if by.above(t) { // else it has moved since
				list = append(list, m.snapshotLocked(t))
				ended = ended && t.status.Terminal()
			}
		}
		m.mu.Unlock()
	}
	return list, ended
}

// seenAll takes in that a caller is shown these runs.
func (m *BackgroundManager) seenAll(by caller, list []Task) {
	for page := range slices.Chunk(list, waitPage) {
		m.mu.Lock()
		for i := range page {
			if t := m.byID[page[i].ID]; t != nil && int(t.run) == page[i].Run {
				m.seenLocked(by, t)
			}
		}
		m.mu.Unlock()
	}
}

// waitPage is how many tasks WaitAll looks at without letting go of the lock.
const waitPage = 256

// awaitSettled reports whether nothing that is watched was live before giveUp.
func (m *BackgroundManager) awaitSettled(w *watch, giveUp <-chan struct{}) bool {
	for !m.settled(w) {
		select {
		case <-w.hit:
		case <-giveUp:
			return m.settled(w)
		}
	}
	return true
}

// watch starts to count the live tasks that match.
func (m *BackgroundManager) watch(by caller, f Filter) (*watch, error) {
	if f.Statuses != nil {
		return nil, &InputError{"Filter.Statuses", fmt.Sprint(f.Statuses), "can't be set: a wait is for tasks whatever their status"}
	}
	if err := f.whole("a wait is for all that match"); err != nil {
		return nil, err
	}
	match, err := m.matcher(by.above, f)
	if err != nil {
		return nil, err
	}
	f.IDs = slices.Clone(f.IDs) // it is looked at again, and the caller's to change
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &watch{by: by, filter: f, match: match, hit: make(chan struct{}, 1)}
	for _, t := range m.scopeLocked(f) {
		if !t.status.Terminal() && match(t) {
			w.live++
		}
	}
	m.watches[w] = struct{}{}
	return w, nil
}

func (m *BackgroundManager) unwatch(w *watch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watches, w)
}

func (m *BackgroundManager) settled(w *watch) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.live > 0 {
		return false
	}
	if w.all {
		w.settled = w.settled[:0]
		for _, t := range m.scopeLocked(w.filter) {
			if w.match(t) {
				w.settled = append(w.settled, t)
			}
		}
	}
	return true
}

// firstEnded finds the matching task that ended first.
func (m *BackgroundManager) firstEnded(w *watch) (first Task, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *task
	some := false
	for _, t := range m.scopeLocked(w.filter) {
		if !w.match(t) {
			continue
		}
		some = true
		if t.status.Terminal() && (best == nil || t.ended < best.ended) {
			best = t
		}
	}
	if !some {
		return first, false, fmt.Errorf("%w matches the filter", ErrNotFound)
	}
	if best == nil {
		return first, false, nil
	}
	m.seenLocked(w.by, best)
	return m.snapshotLocked(best), true, nil
}

// countWatchesLocked counts a task that begins a run.
func (m *BackgroundManager) countWatchesLocked(t *task) {
	if len(m.watches) == 0 {
		return // as mostly; the loop alone would cost more than all else here
	}
	for w := range m.watches {
		if w.match(t) {
			w.live++
		}
	}
}

// tellWatchesLocked counts a run that has ended and wakes who waits for it.
func (m *BackgroundManager) tellWatchesLocked(t *task) {
	if len(m.watches) == 0 {
		return
	}
	for w := range m.watches {
		if !w.match(t) {
			continue
		}
		w.recount(false)
	}
}

// recount counts a task that is live and watched from now on, or not any more.
func (w *watch) recount(more bool) {
	if more {
		w.live++
		return
	}
	w.live--
	select {
	case w.hit <- struct{}{}:
	default:
	}
}
