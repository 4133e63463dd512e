package subagent

import (
	"context"
	"fmt"
	"sync"
)

// origin is where a launch comes from, as far as the books need it.
type origin struct {
	Lineage
	via   []SessionID // foreign sessions above the parent, up to under or the root
	under *task       // the nearest ancestor that is a task of ours, or nil
	root  *root       // counts for a root that has no session; nil: found by Lineage.Root
	gone  bool        // the parent's session was deleted
}

// maxLineage bounds the walk to a root: a chain that goes on longer is taken
// for one without an end.
const maxLineage = 256

var errLineageCycle = fmt.Errorf("the parent chain has no end, or more than %d links", maxLineage)

// trace finds out where a parent session comes from: from memory where the
// session is known, else from the client, one step at a time up to a session
// that is known or a root. It fails closed.
func (m *BackgroundManager) trace(ctx context.Context, parent SessionID) (origin, error) {
	above := parent
	var walked []SessionID
	for steps := range maxLineage {
		o, ok, err := m.known(above)
		if err != nil {
			return origin{}, err
		}
		if ok {
			if steps > 0 {
				via := walked[1:]
				if o.under == nil || o.under.session != above {
					via = append(via, above)
				}
				o.via = append(via, o.via...)
			}
			o.Parent = parent
			if o.Depth += steps; o.Depth > maxLineage {
				break
			}
			return o, nil
		}
		next, err := m.caps.parentOf(ctx, above)
		if err != nil {
			return origin{}, fmt.Errorf("%w: %s: %w", ErrLineage, ancestor(above, parent), err)
		}
		if ctx.Err() != nil {
			return origin{}, context.Cause(ctx)
		}
		if next == "" {
			return origin{Lineage: Lineage{Parent: parent, Root: above, Depth: steps + 1}, via: walked[min(steps, 1):]}, nil
		}
		walked = append(walked, above)
		above = next
	}
	return origin{}, fmt.Errorf("%w: session %q: %w", ErrLineage, parent, errLineageCycle)
}

// ancestor names a session above a parent, or the parent itself.
func ancestor(above, parent SessionID) string {
	if above == parent {
		return fmt.Sprintf("session %q", parent)
	}
	return fmt.Sprintf("session %q, an ancestor of %q", above, parent)
}

// known tells the origin of a child of a session that is in the books: a task's
// own, or one that has launched before. A launch without a parent is its own root.
// The error is ErrClosed once nothing is admitted any more, and ErrParentEnded for the
// session of a task that was forgotten.
func (m *BackgroundManager) known(s SessionID) (o origin, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != admitting {
		return o, false, ErrClosed
	}
	if id, ok := m.shelf.sessions[s]; ok && m.bySession[s] == nil { // else it has a task again
		return o, false, fmt.Errorf("%w: task %s is forgotten", ErrParentEnded, id)
	}
	o, ok = m.knownLocked(s)
	return o, ok, nil
}

func (m *BackgroundManager) knownLocked(s SessionID) (o origin, ok bool) {
	if s == "" {
		return origin{Lineage: Lineage{Depth: 1}}, true
	}
	if b := m.mailboxes[s]; b != nil {
		return b.origin.asMovedLocked(), true
	}
	if t := m.bySession[s]; t != nil {
		return t.origin(), true
	}
	return origin{}, false
}

// origin is that of what a task's session launches.
func (t *task) origin() origin {
	o := origin{Lineage: Lineage{t.session, t.root.id, int(t.depth) + 1}, under: t}
	if t.root.id == "" {
		o.root = t.root
	}
	return o
}

// Reservation is a place under the spawn limits for a child that is made without
// the manager. It counts as a live descendant until it is given back; Release and
// Rollback may be called at any time and together count once.
type Reservation struct {
	Lineage Lineage // of the child it was made for
	m       *BackgroundManager
	root    *root
	once    sync.Once
}

// Reserve takes a place under the spawn limits for a child of parent that will be
// made elsewhere. Its errors are those of Launch.
func (m *BackgroundManager) Reserve(ctx context.Context, parent SessionID) (*Reservation, error) {
	if err := m.made(); err != nil {
		return nil, err
	}
	if parent == "" {
		return nil, &InputError{"parent", `""`, "a session is required"}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	o, err := m.trace(ctx, parent)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o = m.nowLocked(o)
	if err := m.admitLocked(o, false); err != nil {
		return nil, err
	}
	return &Reservation{Lineage: o.Lineage, m: m, root: m.spawnLocked(o)}, nil
}

// Release gives the place back because the child has ended.
func (r *Reservation) Release() { r.giveBack(0) }

// Rollback gives the place back because there never was a child: it does not
// count under SpawnLimits.TotalPerRoot either.
func (r *Reservation) Rollback() { r.giveBack(1) }

func (r *Reservation) giveBack(total int) {
	r.once.Do(func() {
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		r.root.live--
		r.root.total -= total
		r.m.forgetRootLocked(r.root)
	})
}
