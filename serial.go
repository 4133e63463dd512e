package subagent

// job is one piece of work that calls code of the host.
type job interface{ do(m *BackgroundManager) }

// serial is work that is put down under mu and done, in order, by one goroutine, which
// is there while there is any: code of the host that blocks holds up nothing but what
// stands behind it here. How much may wait is for who puts it down to say. Guarded by mu.
type serial[J job] struct {
	waiting []J
	working bool // the goroutine runs
}

func (s *serial[J]) addLocked(m *BackgroundManager, j J) {
	s.waiting = append(s.waiting, j)
	s.serveLocked(m)
}

func (s *serial[J]) serveLocked(m *BackgroundManager) {
	if s.working || len(s.waiting) == 0 {
		return
	}
	s.working = true
	m.goLocked(func() { s.serve(m) })
}

// serve is the goroutine.
func (s *serial[J]) serve(m *BackgroundManager) {
	over := false
	defer func() {
		if !over { // a job ended it: another goroutine does the rest
			m.mu.Lock()
			defer m.mu.Unlock()
			s.working = false
			s.serveLocked(m)
		}
	}()
	for j, ok := s.next(m); ok; j, ok = s.next(m) {
		j.do(m)
	}
	over = true
}

// next takes the oldest job; with none the goroutine is over.
func (s *serial[J]) next(m *BackgroundManager) (j J, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.working = len(s.waiting) > 0
	if !s.working {
		s.waiting = nil
		return j, false
	}
	j, s.waiting[0] = s.waiting[0], j
	s.waiting = s.waiting[1:]
	return j, true
}
