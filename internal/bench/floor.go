package main

import (
	"context"
	"strconv"
	"sync"
	"time"
)

// store is what every contestant but ours keeps: the least that a manager of this
// kind must. One mutex guards it.
type store struct {
	mu        sync.Mutex
	byID      map[string]*record
	bySession map[string]*record
	parents   map[string]*batch
	ended     int
	notified  int
	done      chan struct{} // closed when all have ended
	want      int
}

// record is 192 bytes, as a small task record is.
type record struct {
	id, parent, session, key, prompt, text string
	status                                 int
	queued, started, ended                 time.Time
	_                                      [16]byte
}

type batch struct{ live, ended int }

func newStore(want int) *store {
	return &store{
		byID: map[string]*record{}, bySession: map[string]*record{}, parents: map[string]*batch{},
		want: want, done: make(chan struct{}),
	}
}

// addLocked enters a task.
func (s *store) addLocked(id, parent, key string) *record {
	r := &record{id: id, parent: parent, key: key, prompt: prompt, queued: time.Now()}
	s.byID[id] = r
	b := s.parents[parent]
	if b == nil {
		b = &batch{}
		s.parents[parent] = b
	}
	b.live++
	return r
}

// start notes that a task runs in a session.
func (s *store) start(r *record) {
	id := newSession()
	s.mu.Lock()
	r.session, r.status, r.started = id, 1, time.Now()
	s.bySession[id] = r
	s.mu.Unlock()
}

// running is how many tasks have a session; none has ended yet when it is asked.
func (s *store) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bySession)
}

// endLocked notes that a task has ended.
func (s *store) endLocked(r *record, text string) {
	r.status, r.text, r.ended = 2, text, time.Now()
	b := s.parents[r.parent]
	b.live--
	b.ended++
	if b.live == 0 {
		s.notified++
	}
	if s.ended++; s.ended == s.want {
		close(s.done)
	}
}

// floor is the least: a ring per key, counting slots, and a goroutine per slot
// that goes on with the next task.
type floor struct {
	*store
	gate  <-chan struct{}
	keys  map[string]*line
	limit int
	next  int
}

type line struct {
	running int
	ring    []*record
	head    int
}

func newFloor(n int, gate <-chan struct{}) contestant {
	return &floor{store: newStore(n), gate: gate, keys: map[string]*line{}, limit: perKey}
}

// newFloorAtOnce has all its tasks run at the same time.
func newFloorAtOnce(n int, gate <-chan struct{}) contestant {
	return &floor{store: newStore(n), gate: gate, keys: map[string]*line{}, limit: n}
}

func (f *floor) launch(parent, key string) string {
	f.mu.Lock()
	f.next++
	id := "bg_" + strconv.Itoa(1_000_000_000+f.next)
	r := f.addLocked(id, parent, key)
	l := f.keys[key]
	if l == nil {
		l = &line{}
		f.keys[key] = l
	}
	if l.running < f.limit {
		l.running++
		go f.work(l, r)
	} else {
		l.ring = append(l.ring, r)
	}
	f.mu.Unlock()
	return id
}

func (f *floor) work(l *line, r *record) {
	for r != nil {
		f.start(r)
		text := answer(context.Background(), f.gate)
		f.mu.Lock()
		f.endLocked(r, text)
		if l.head < len(l.ring) {
			r, l.ring[l.head] = l.ring[l.head], nil
			l.head++
		} else {
			r = nil
			l.running--
		}
		f.mu.Unlock()
	}
}

func (f *floor) wait()         { <-f.done }
func (f *floor) notified() int { return f.store.notified }
func (f *floor) close()        {}

// goPending is how such managers are often written: a goroutine per task, which
// waits on a channel for its turn.
type goPending struct {
	*store
	gate  <-chan struct{}
	slots map[string]chan struct{}
	next  int
}

func newGoPending(n int, gate <-chan struct{}) contestant {
	return &goPending{store: newStore(n), gate: gate, slots: map[string]chan struct{}{}}
}

func (g *goPending) launch(parent, key string) string {
	g.mu.Lock()
	g.next++
	id := "bg_" + strconv.Itoa(1_000_000_000+g.next)
	r := g.addLocked(id, parent, key)
	slots := g.slots[key]
	if slots == nil {
		slots = make(chan struct{}, perKey)
		g.slots[key] = slots
	}
	g.mu.Unlock()
	go func() {
		slots <- struct{}{}
		g.start(r)
		text := answer(context.Background(), g.gate)
		g.mu.Lock()
		g.endLocked(r, text)
		g.mu.Unlock()
		<-slots
	}()
	return id
}

func (g *goPending) wait()         { <-g.done }
func (g *goPending) notified() int { return g.store.notified }
func (g *goPending) close()        {}
