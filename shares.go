package subagent

// Which semaphores there are, and which of them a ticket names.

// semaphores are those in the books, by kind and name.
type semaphores [numKinds]map[string]*semaphore

func (all *semaphores) add(s *semaphore) *semaphore {
	named := &all[s.key.Kind]
	if *named == nil {
		*named = map[string]*semaphore{}
	}
	(*named)[s.key.Name] = s
	return s
}

// each goes through all of them, in no order.
func (all *semaphores) each(yield func(*semaphore) bool) {
	for _, named := range all {
		for _, s := range named {
			if !yield(s) {
				return
			}
		}
	}
}

// nameSharesLocked resolves, once, the semaphores that work falls under.
func (m *BackgroundManager) nameSharesLocked(t *ticket, parent SessionID, agent, model string) {
	if parent != "" {
		t.sems[shareParent] = m.semaphoreLocked(Key{ParentKey, string(parent)})
	}
	t.sems[shareKey] = m.semaphoreLocked(keyOf(agent, model))
	t.sems[shareAgent] = m.semaphoreLocked(Key{AgentTotalKey, agent})
	if provider := providerOf(model); provider != "" {
		t.sems[shareProvider] = m.semaphoreLocked(Key{ProviderKey, provider})
	}
}

// dropSharesLocked is the other end of nameSharesLocked: the ticket will take
// nothing any more.
func (m *BackgroundManager) dropSharesLocked(t *ticket) {
	for _, s := range t.sems {
		if s == nil {
			continue
		}
		if s.refs--; s.refs == 0 {
			delete(m.sems[s.key.Kind], s.key.Name)
		}
	}
	t.sems = [numShares]*semaphore{}
}

func (m *BackgroundManager) semaphoreLocked(k Key) *semaphore {
	s := m.sems[k.Kind][k.Name]
	if s == nil {
		s = &semaphore{key: k, limit: m.cfg.Keys.limitOf(k)}
		if k.Kind == ModelKey || k.Kind == AgentKey {
			s.queue = newQueue(&m.cfg.Keys)
		}
		m.sems.add(s)
	}
	s.refs++
	return s
}
