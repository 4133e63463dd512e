package subagent

import (
	"errors"
	"fmt"
)

// Why a launch is refused. Each is wrapped in an error that carries the numbers.
var (
	// ErrDepthLimit: the child would be deeper than Config.Spawn.Depth.
	ErrDepthLimit = errors.New("subagent: too deep")
	// ErrSpawnLimit: the root has as many descendants as Config.Spawn allows.
	ErrSpawnLimit = errors.New("subagent: too many tasks")
	// ErrQueueFull: as many tasks, and callers of Acquire, wait in the queue as
	// Config.Spawn.QueueDepth allows.
	ErrQueueFull = errors.New("subagent: queue full")
	// ErrLineage: where the parent session comes from could not be found out.
	ErrLineage = errors.New("subagent: lineage unknown")
	// ErrParentEnded: the parent is a task that was stopped or failed, or is forgotten,
	// or is below one, or its session was deleted.
	ErrParentEnded = errors.New("subagent: parent ended")
	// ErrNobodyToTell: MailboxPolicy.Required is set, and nobody would be told of the end.
	ErrNobodyToTell = errors.New("subagent: nobody to tell")
	// ErrUnknownAgent: Config.Agents is set and has no such name.
	ErrUnknownAgent = errors.New("subagent: unknown agent")
	// ErrAgentDisabled: the agent may not be launched.
	ErrAgentDisabled = errors.New("subagent: agent disabled")
)

// totalSetting is the one limit that no end makes room under.
const totalSetting = "Config.Spawn.TotalPerRoot"

// LimitError is a launch refused by a limit: errors.Is finds which kind.
type LimitError struct {
	Kind    error     // ErrDepthLimit, ErrSpawnLimit or ErrQueueFull
	Setting string    // "Config.Spawn.LivePerRoot"
	Limit   int       // its value
	Used    int       // how much of it is used; for a depth, the one asked for
	Parent  SessionID // who asked
	Root    SessionID // whose descendants are counted
	Key     Key       // the queue that is full
}

// Error names the setting, its value, what is used of it, and what to do.
func (e *LimitError) Error() string {
	s := fmt.Sprintf("%v: %s is %d, ", e.Kind, e.Setting, e.Limit)
	switch {
	case e.Kind == ErrDepthLimit:
		return s + fmt.Sprintf("and a child of session %q would have depth %d; do the work in this session", e.Parent, e.Used)
	case e.Kind == ErrQueueFull:
		return s + fmt.Sprintf("and %d wait for %s; wait for one to start", e.Used, e.Key)
	case e.Setting == totalSetting: // an end gives none back
		return s + fmt.Sprintf("and %d are taken below root session %q; do the work in this session", e.Used, e.Root)
	default:
		return s + fmt.Sprintf("and %d are taken below root session %q; wait for one to end", e.Used, e.Root)
	}
}

// Unwrap returns Kind.
func (e *LimitError) Unwrap() error { return e.Kind }

// Lineage is where a launch stands in its tree of sessions.
type Lineage struct {
	Parent SessionID
	Root   SessionID // the session at the top; Parent itself if that is a root
	Depth  int       // of the child: 1 below a root
}

// root counts the descendants of one root session. Guarded by mu; it stays in
// the books while it counts anything that a limit looks at.
type root struct {
	id          SessionID
	live, total int
}

// rootLocked finds what counts for an origin; nil if nothing was counted yet.
func (m *BackgroundManager) rootLocked(o origin) *root {
	if o.Root == "" {
		return o.root
	}
	return m.roots[o.Root]
}

// forgetRootLocked drops a count that no limit looks at any more.
func (m *BackgroundManager) forgetRootLocked(r *root) {
	if r.live == 0 && (r.total == 0 || m.cfg.Spawn.TotalPerRoot == Off) && m.roots[r.id] == r {
		delete(m.roots, r.id)
	}
}

// openLocked says whether a session may have children.
func (m *BackgroundManager) openLocked(o origin) error {
	if m.phase != admitting {
		return ErrClosed
	}
	if o.gone {
		return fmt.Errorf("%w: session %q was deleted", ErrParentEnded, o.Parent)
	}
	for above := o.under; above != nil; above = above.owner.origin.under {
		if above.forgotten {
			return fmt.Errorf("%w: task %s is forgotten", ErrParentEnded, above.id)
		}
		if above.deleted {
			return fmt.Errorf("%w: the session of task %s was deleted", ErrParentEnded, above.id)
		}
		if above.refusesChildren() {
			return fmt.Errorf("%w: task %s is %s", ErrParentEnded, above.id, above.status)
		}
	}
	return nil
}

// admitLocked checks the spawn limits and changes nothing. What it allows must
// be taken in the same critical section. A task that begins again was counted before,
// and is where it is.
func (m *BackgroundManager) admitLocked(o origin, again bool) error {
	if err := m.openLocked(o); err != nil {
		return err
	}
	var live, total int
	if r := m.rootLocked(o); r != nil {
		live, total = r.live, r.total
	}
	for _, c := range []struct {
		kind        error
		setting     string
		limit, used int
		over        bool
	}{
		{ErrDepthLimit, "Config.Spawn.Depth", m.cfg.Spawn.Depth, o.Depth, !again && o.Depth > m.cfg.Spawn.Depth},
		{ErrSpawnLimit, "Config.Spawn.LivePerRoot", m.cfg.Spawn.LivePerRoot, live, live >= m.cfg.Spawn.LivePerRoot},
		{ErrSpawnLimit, totalSetting, m.cfg.Spawn.TotalPerRoot, total, !again && total >= m.cfg.Spawn.TotalPerRoot},
	} {
		if c.limit != Off && c.over {
			return &LimitError{Kind: c.kind, Setting: c.setting, Limit: c.limit, Used: c.used, Parent: o.Parent, Root: o.Root}
		}
	}
	return nil
}

// refusesChildren: a task that ended other than well, or is about to, takes its
// descendants with it and must not get new ones.
func (t *task) refusesChildren() bool {
	return t.status == Stopping || t.status.Terminal() && t.status != Completed
}

// spawnLocked takes what admitLocked allowed.
func (m *BackgroundManager) spawnLocked(o origin) *root { return m.countRootLocked(o, nil) }

// countRootLocked counts a task below a root. Where it was counted before its total
// includes it.
func (m *BackgroundManager) countRootLocked(o origin, before *root) *root {
	r := m.rootLocked(o)
	if r == nil {
		r = &root{id: o.Root}
		if r.id != "" {
			m.roots[r.id] = r
		}
	}
	r.live++
	if r != before {
		r.total++
	}
	return r
}
