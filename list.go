package subagent

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
)

// Filter chooses tasks. Every field that is set must match; the zero Filter
// matches all. IDs or Statuses that are empty and not nil match nothing. A session that
// is "" is none: Under with the Session of a task that has none yet leaves nothing out.
type Filter struct {
	IDs      []TaskID  // one of these
	Parent   SessionID // direct children of this session
	Root     SessionID // tasks below this root
	Under    SessionID // tasks below this session, at any depth; not the task that runs in it
	Agent    string
	Labels   map[string]string // all of these
	Statuses []Status          // one of these, for Subscribe at the event; not for WaitAny and WaitAll

	After TaskID // for List only: those launched after this one
	Limit int    // for List only: at most so many. Defaults to 0: all.
}

// List returns the tasks that match, in order of launch. The tasks are copied in
// pages, so that a long list holds nobody up: each task is consistent in itself.
// A filter that names an unknown After, or has a negative Limit or a value that is
// no status, matches nothing.
func (m *BackgroundManager) List(f Filter) []Task { return m.list(host, f) }

func (m *BackgroundManager) list(by caller, f Filter) []Task {
	match, err := m.matcher(by.reaches, f)
	if err != nil {
		return nil
	}
	l := listing{match: match, after: -1, left: f.Limit}
	if f.Limit == 0 {
		l.left = math.MaxInt
	}
	m.mu.Lock()
	if f.After != "" {
		t, err := m.reachLocked(by, f.After)
		if err != nil {
			m.mu.Unlock()
			return nil
		}
		l.after = t.number
	}
	if f.IDs != nil {
		l.named = m.tasksLocked(f.IDs)
	}
	m.mu.Unlock()
	for m.page(&l, f) {
	}
	return l.tasks
}

// listing is how far a List has come.
type listing struct {
	match func(*task) bool
	named []*task // of Filter.IDs
	after int32   // the number of the last task looked at
	left  int     // how many more are wanted
	tasks []Task
}

// page copies some more tasks and reports whether there may be others.
func (m *BackgroundManager) page(l *listing, f Filter) (more bool) {
	const size, looks = 256, 4096 // at most so many are copied, and looked at
	m.mu.Lock()
	defer m.mu.Unlock()
	scope := l.named
	if f.IDs == nil {
		scope = m.scopeLocked(f)
	}
	scope = scope[sort.Search(len(scope), func(i int) bool { return scope[i].number > l.after }):]
	var found [size]*task
	n := 0
	for i, t := range scope {
		if n == min(size, l.left) || i == looks {
			more = l.left > n
			break
		}
		l.after = t.number
		if l.match(t) {
			found[n] = t
			n++
		}
	}
	l.left -= n
	at := len(l.tasks)
	l.tasks = slices.Grow(l.tasks, n)[:at+n]
	for i, t := range found[:n] {
		m.copyLocked(&l.tasks[at+i], t)
	}
	return more
}

// scopeLocked is the shortest list in the books that holds all that a filter can
// match, in order of launch. Nobody may keep it or write to it.
func (m *BackgroundManager) scopeLocked(f Filter) []*task {
	switch {
	case f.IDs != nil:
		return m.tasksLocked(f.IDs)
	case f.Parent != "":
		if b := m.mailboxes[f.Parent]; b != nil {
			return b.children
		}
		return nil
	default:
		return m.tasks
	}
}

func (m *BackgroundManager) tasksLocked(ids []TaskID) []*task {
	var tasks []*task
	for _, id := range ids {
		if t, err := m.findLocked(id); err == nil {
			tasks = append(tasks, t)
		}
	}
	slices.SortFunc(tasks, func(a, b *task) int { return int(a.number - b.number) })
	return slices.Compact(tasks)
}

// whole refuses a filter for a page of a list where all that match are meant; why
// says what would happen to them.
func (f *Filter) whole(why string) error {
	for _, r := range []struct {
		field, value string
		set          bool
	}{
		{"Filter.Limit", strconv.Itoa(f.Limit), f.Limit != 0},
		{"Filter.After", strconv.Quote(string(f.After)), f.After != ""},
	} {
		if r.set {
			return &InputError{r.field, r.value, "is for List only: " + why}
		}
	}
	return nil
}

// matcher makes the test for a task out of a filter and of who may see it. The test
// reads the books. The error is an *[InputError].
func (m *BackgroundManager) matcher(visible func(*task) bool, f Filter) (func(*task) bool, error) {
	if err := m.made(); err != nil {
		return nil, err
	}
	if f.Limit < 0 {
		return nil, &InputError{"Filter.Limit", offOr(f.Limit, strconv.Itoa(f.Limit)), "can't be negative; 0 is all"}
	}
	for i, s := range f.Statuses {
		if s == none || s >= numStatuses {
			return nil, &InputError{fmt.Sprintf("Filter.Statuses[%d]", i), s.String(), "must be one from Pending to Interrupted"}
		}
	}
	var ids map[TaskID]bool
	if f.IDs != nil {
		ids = make(map[TaskID]bool, len(f.IDs))
		for _, id := range f.IDs {
			ids[id] = true
		}
	}
	agent := m.unalias(f.Agent)
	labels, statuses := maps.Clone(f.Labels), slices.Clone(f.Statuses)
	return func(t *task) bool {
		return !t.forgotten && (ids == nil || ids[t.id]) &&
			(f.Parent == "" || t.parent() == f.Parent) &&
			(f.Root == "" || t.root.id == f.Root) &&
			(f.Under == "" || t.under(f.Under)) &&
			(agent == "" || t.in.Agent == agent) &&
			(statuses == nil || slices.Contains(statuses, t.status)) &&
			hasLabels(t.in.Labels, labels) &&
			visible(t)
	}, nil
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// under reports whether a session is above the task, as far as the books know.
func (t *task) under(s SessionID) bool {
	for {
		if t.parent() == s || t.root.id == s || slices.Contains(t.owner.origin.via, s) {
			return true
		}
		above := t.owner.origin.under
		if above == nil || above.session == s {
			return above != nil
		}
		t = above
	}
}
