package subagent

import (
	"fmt"
	"slices"
	"sort"
)

// Filter chooses tasks. Every field that is set must match; the zero Filter
// matches all.
type Filter struct {
	IDs      []TaskID  // one of these
	Parent   SessionID // direct children of this session
	Root     SessionID // tasks below this root
	Under    SessionID // tasks below this session, at any depth
	Agent    string
	Labels   map[string]string // all of these
	Statuses []Status          // one of these; not for WaitAny and WaitAll

	After TaskID // in List: only those launched after this one
	Limit int    // in List: at most so many. Defaults to 0: all.
}

// List returns the tasks that match, in order of launch. The tasks are copied in
// pages, so that a long list holds nobody up: each task is consistent in itself.
// A filter that names an unknown After, or has a negative Limit, matches nothing.
func (m *BackgroundManager) List(f Filter) []Task {
	const page = 256
	var list []Task
	for f.Limit >= 0 {
		size := page
		if f.Limit > 0 {
			size = min(page, f.Limit-len(list))
		}
		tasks, more := m.page(&f, size)
		if list == nil {
			list = tasks // mostly there is one page
		} else {
			list = append(list, tasks...)
		}
		if !more || f.Limit > 0 && len(list) >= f.Limit {
			break
		}
	}
	return list
}

// page copies up to size tasks that match and moves f.After behind the last one
// looked at.
func (m *BackgroundManager) page(f *Filter, size int) (list []Task, more bool) {
	const looks = 4096 // at most so many records are looked at in one page
	m.mu.Lock()
	defer m.mu.Unlock()
	match, err := m.matcherLocked(*f)
	if err != nil {
		return nil, false
	}
	scope := m.scopeLocked(*f)
	if f.After != "" {
		after := m.byID[f.After]
		scope = scope[sort.Search(len(scope), func(i int) bool { return scope[i].number > after.number }):]
	}
	list = make([]Task, 0, min(len(scope), size))
	for i, t := range scope {
		if len(list) == size || i == looks {
			return list, true
		}
		f.After = t.id
		if match(t) {
			list = append(list, Task{})
			m.copyLocked(&list[len(list)-1], t)
		}
	}
	return list, false
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
		if t := m.byID[id]; t != nil {
			tasks = append(tasks, t)
		}
	}
	slices.SortFunc(tasks, func(a, b *task) int { return int(a.number - b.number) })
	return slices.Compact(tasks)
}

// matcherLocked checks a filter and makes the test for a task out of it.
func (m *BackgroundManager) matcherLocked(f Filter) (func(*task) bool, error) {
	if f.Limit < 0 {
		return nil, &InputError{"Filter.Limit", fmt.Sprint(f.Limit), "can't be negative"}
	}
	if f.After != "" && m.byID[f.After] == nil {
		return nil, fmt.Errorf("%w: Filter.After is %q", ErrNotFound, f.After)
	}
	var ids map[TaskID]bool
	if f.IDs != nil {
		ids = make(map[TaskID]bool, len(f.IDs))
		for _, id := range f.IDs {
			ids[id] = true
		}
	}
	return func(t *task) bool {
		return (f.IDs == nil || ids[t.id]) &&
			(f.Parent == "" || t.parent() == f.Parent) &&
			(f.Root == "" || t.root.id == f.Root) &&
			(f.Under == "" || t.under(f.Under)) &&
			(f.Agent == "" || t.in.Agent == f.Agent) &&
			(f.Statuses == nil || slices.Contains(f.Statuses, t.status)) &&
			hasLabels(t.in.Labels, f.Labels)
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
		if t.parent() == s || t.root.id == s {
			return true
		}
		above := t.owner.origin.under
		if above == nil || above.session == s {
			return above != nil
		}
		t = above
	}
}
