package subagent

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
)

// How a task comes to another parent: when it is resumed, or tracked, for that one.

// moveLocked gives a task whose run goes on another parent, which is told of its end unless
// it is silent.
func (m *BackgroundManager) moveLocked(t *task, o origin, silent bool) error {
	if o.Parent == t.owner.origin.Parent {
		return nil
	}
	if t.status == Stopping {
		return fmt.Errorf("%w: task %s is %s", ErrEnded, t.id, t.status)
	}
	if err := m.checkMoveLocked(t, o, "TrackInput.Parent"); err != nil {
		return err
	}
	if err := m.openLocked(o); err != nil { // within its tree it is counted already
		return err
	}
	if err := m.heardLocked(o, silent); err != nil {
		return err
	}
	old := t.owner
	heir := old.heirLocked()
	old.live--
	if heir != old {
		heir.inherited--
	}
	m.refileLocked(t, o)
	t.silent = silent
	t.owner.addLiveLocked()
	m.postLocked(heir, m.now()) // it may have been the last
	return nil
}

// checkMoveLocked refuses a parent that can't be one, which that field names.
func (m *BackgroundManager) checkMoveLocked(t *task, o origin, field string) error {
	if o.Parent == t.owner.origin.Parent {
		return nil
	}
	live, deepest := m.treeLocked(t)
	most := m.cfg.Spawn.LivePerRoot
	if t.status.Terminal() {
		live++ // it goes on
	}
	deepest += o.Depth
	used := 0
	if r := m.rootLocked(o); r != nil {
		used = r.live
	}
	switch depth := m.cfg.Spawn.Depth; {
	case o.under.isBelow(t): // or it is its own session
		return &InputError{field, strconv.Quote(string(o.Parent)), "can't be the task's own session, or below it"}
	case depth != Off && deepest > depth:
		return &LimitError{Kind: ErrDepthLimit, Setting: "Config.Spawn.Depth", Limit: depth, Used: deepest, Parent: o.Parent, Root: o.Root}
	case most != Off && o.Root != t.root.id && used+live > most:
		return &LimitError{Kind: ErrSpawnLimit, Setting: "Config.Spawn.LivePerRoot", Limit: most, Used: used, Parent: o.Parent, Root: o.Root}
	}
	return nil
}

// treeLocked is how many live tasks come along with one that moves, and how many levels
// below it the deepest of them is.
func (m *BackgroundManager) treeLocked(t *task) (live, deepest int) {
	for _, d := range m.withBelowLocked(t) {
		if !d.status.Terminal() {
			live++
			deepest = max(deepest, int(d.depth-t.depth))
		}
	}
	return live, deepest
}

// withBelowLocked is a task and all that was launched below it.
func (m *BackgroundManager) withBelowLocked(t *task) []*task {
	all := []*task{t}
	if t.own != nil {
		all = m.belowLocked(t.own, all)
	}
	return all
}

// refileLocked files a task, and all below it, under another parent.
func (m *BackgroundManager) refileLocked(t *task, o origin) {
	m.writeDownLocked(t, true) // what those above are owed for all of it they keep
	all := m.withBelowLocked(t)
	watched := m.watchedLocked(all)
	old := t.owner
	without := func(list []*task) []*task {
		if i := slices.Index(list, t); i >= 0 {
			return slices.Delete(list, i, i+1)
		}
		return list
	}
	old.children = without(old.children)
	if u := old.origin.under; u != nil && u.own != nil {
		u.own.adopted = without(u.own.adopted)
	}
	t.owner = m.mailboxLocked(o)
	i, _ := slices.BinarySearchFunc(t.owner.children, t.number, func(c *task, n int32) int { return int(c.number - n) })
	t.owner.children = slices.Insert(t.owner.children, i, t)
	m.adoptChildLocked(t, o)
	m.replantLocked(all, o)
	m.rewatchLocked(all, watched)
	if u := old.origin.under; u != nil && u.own != nil {
		m.closeMailboxLocked(u.own) // it may have been the last below it; the heir is closed when it is posted
	}
	m.emitLocked(t, TopicMoved, nil)
	m.logLocked(slog.LevelInfo, "task moved", slog.String("task", string(t.id)), slog.String("parent", string(o.Parent)))
}

// replantLocked counts a tree of tasks, the first of which is at its top, below another
// root.
func (m *BackgroundManager) replantLocked(all []*task, o origin) {
	deeper := int16(o.Depth) - all[0].depth
	for _, t := range all {
		t.depth += deeper
		before := t.root
		if t.status.Terminal() {
			t.root = m.sameRootLocked(o, before)
		} else {
			before.live--
			t.root = m.countRootLocked(o, before)
			m.forgetRootLocked(before)
		}
		if o.Root == "" {
			o.root = t.root
		}
	}
}

// asMovedLocked is an origin as its nearest task stands by now: that may have moved since
// the origin was found out, with sessions below it of which nobody has a list.
func (o origin) asMovedLocked() origin {
	t := o.under
	if t == nil {
		return o
	}
	now := t.origin()
	if now.Parent != o.Parent {
		now.Depth += len(o.via) + 1
	}
	o.Root, o.root, o.Depth = now.Root, now.root, now.Depth
	return o
}

// asKnownLocked is an origin that was found out before one of the sessions above it became
// a task's.
func (m *BackgroundManager) asKnownLocked(o origin) origin {
	if o.under != nil {
		return o.asMovedLocked()
	}
	for i := range len(o.via) + 1 {
		id := o.Root
		if i < len(o.via) {
			id = o.via[i]
		}
		if t := m.bySession[id]; t != nil && t.session == id {
			o.under, o.via = t, o.via[:i]
			return o.asMovedLocked()
		}
	}
	return o
}

// sameRootLocked is what counts below a root, for a task that is not counted.
func (m *BackgroundManager) sameRootLocked(o origin, before *root) *root {
	if r := m.rootLocked(o); r != nil {
		if r != before {
			r.total++
		}
		return r
	}
	if before.id == o.Root && o.Root != "" {
		return before
	}
	r := &root{id: o.Root}
	if o.Root != "" && m.cfg.Spawn.TotalPerRoot != Off {
		r.total++
		m.roots[o.Root] = r
	}
	return r
}

// watchedLocked is which of some tasks each watch counts.
func (m *BackgroundManager) watchedLocked(tasks []*task) map[*watch][]bool {
	if len(m.watches) == 0 {
		return nil
	}
	all := map[*watch][]bool{}
	for w := range m.watches {
		for _, t := range tasks {
			all[w] = append(all[w], w.match(t))
		}
	}
	return all
}

// rewatchLocked has each watch count those that it watches now.
func (m *BackgroundManager) rewatchLocked(tasks []*task, before map[*watch][]bool) {
	for w, matched := range before {
		for i, t := range tasks {
			if now := w.match(t); now != matched[i] && !t.status.Terminal() {
				w.recount(now)
			}
		}
	}
}
