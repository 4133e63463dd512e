package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// rooms is a receiver that keeps the rules: sessions in memory, whose turns answer at once.
type rooms struct {
	stops  bool // Rest stops a turn, which then says nothing
	mu     sync.Mutex
	n      int
	rooms  map[subagent.SessionID]*sessionRoom
	notify func(context.Context, subagent.Notification) (subagent.Delivery, error) // instead of tell
	asked  func(subagent.Notification) (bool, error)                               // instead of has
}

type sessionRoom struct {
	said       []subagent.Message
	turns      int
	works      bool
	had, woken map[string]bool
}

func newRooms() *rooms { return &rooms{rooms: map[subagent.SessionID]*sessionRoom{}} }

func (r *rooms) locked(id subagent.SessionID, f func(*sessionRoom)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.rooms[id])
}

func (r *rooms) Open() (id subagent.SessionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	id = subagent.SessionID(fmt.Sprint("room_", r.n))
	r.rooms[id] = &sessionRoom{had: map[string]bool{}, woken: map[string]bool{}}
	return id
}

func (r *rooms) Said(id subagent.SessionID) (all []subagent.Message) {
	r.locked(id, func(s *sessionRoom) { all = slices.Clone(s.said) })
	return all
}

func (r *rooms) Turns(id subagent.SessionID) (n int) {
	r.locked(id, func(s *sessionRoom) { n = s.turns })
	return n
}

func (r *rooms) Work(id subagent.SessionID) {
	r.locked(id, func(s *sessionRoom) { s.turns++; s.works = true })
}

func (r *rooms) Rest(id subagent.SessionID) {
	r.locked(id, func(s *sessionRoom) {
		if s.works && !r.stops {
			s.answer()
		}
		s.works = false
	})
}

func (r *rooms) Delete(id subagent.SessionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rooms, id)
}

func (s *sessionRoom) hear(text string) {
	s.said = append(s.said, subagent.Message{Role: subagent.RoleUser, Text: text})
}

func (s *sessionRoom) answer() {
	s.said = append(s.said, subagent.Message{Role: subagent.RoleAssistant, Text: "I see", Complete: true})
}

func (r *rooms) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	if r.notify != nil {
		return r.notify(ctx, n)
	}
	return r.tell(ctx, n)
}

func (r *rooms) tell(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.rooms[n.Parent]
	switch {
	case ctx.Err() != nil:
		return subagent.Unknown, ctx.Err()
	case s == nil:
		return subagent.Gone, nil
	case s.works && n.Handover != subagent.HandDeposit:
		return subagent.Busy, nil
	}
	if !s.had[n.ID] {
		s.had[n.ID] = true
		s.hear(n.Text)
	}
	if n.Wake && !s.woken[n.ID] {
		s.woken[n.ID] = true
		s.turns++
		s.answer()
	}
	return subagent.Accepted, nil
}

func (r *rooms) Received(_ context.Context, n subagent.Notification) (bool, error) {
	if r.asked != nil {
		return r.asked(n)
	}
	return r.has(n)
}

func (r *rooms) has(n subagent.Notification) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.rooms[n.Parent]
	return s != nil && s.had[n.ID], nil
}

// then does something to a session behind a call that went as it should.
func (r *rooms) then(f func(n subagent.Notification, s *sessionRoom)) {
	r.notify = func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
		d, err := r.tell(ctx, n)
		if d == subagent.Accepted {
			r.locked(n.Parent, func(s *sessionRoom) { f(n, s) })
		}
		return d, err
	}
}

// but has a call answer otherwise than it should, and do nothing, when when says so.
func (r *rooms) but(d subagent.Delivery, err error, when func(subagent.Notification, *sessionRoom) bool) {
	r.notify = func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
		wrong := false
		r.locked(n.Parent, func(s *sessionRoom) { wrong = when(n, s) })
		if wrong {
			return d, err
		}
		return r.tell(ctx, n)
	}
}

func TestNotifierConforms(t *testing.T) {
	for _, stops := range []bool{false, true} {
		t.Run(fmt.Sprint("turns are stopped: ", stops), func(t *testing.T) {
			TestNotifier(t, func(*testing.T) Receiver {
				r := newRooms()
				r.stops = stops
				return Receiver{Notifier: r, Parents: r, Settle: time.Second}
			})
		})
	}
}

// brokenNotifiers break one rule each. by is the case that is to notice, and says what.
var brokenNotifiers = []struct {
	by, says string
	spoil    func(*rooms)
}{
	{"accepted", "0 times", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.said = nil }) }},
	{"accepted", "2 times", func(r *rooms) { r.then(func(n subagent.Notification, s *sessionRoom) { s.hear(n.Text) }) }},
	{"accepted", "0 times", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { s.said[0].Role = subagent.RoleAssistant })
	}},
	{"accepted", "of another parent", func(r *rooms) {
		r.then(func(n subagent.Notification, _ *sessionRoom) {
			for _, other := range r.rooms {
				other.said = nil
				other.hear(n.Text)
			}
		})
	}},
	{"accepted", "says unknown", func(r *rooms) {
		r.but(subagent.Unknown, nil, func(subagent.Notification, *sessionRoom) bool { return true })
	}},
	{"accepted", "panicked", func(r *rooms) {
		r.but(0, nil, func(subagent.Notification, *sessionRoom) bool { panic("boom") })
	}},
	{"again", "sent again: the text stands in the transcript 2 times", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { clear(s.had) })
	}},
	{"again", "sent again: 2 turns", func(r *rooms) {
		r.then(func(n subagent.Notification, s *sessionRoom) {
			if n.Wake && len(s.said) > 2 {
				s.turns = 2
			}
			s.answer()
		})
	}},
	{"again", "says gone", func(r *rooms) {
		r.but(subagent.Gone, nil, func(n subagent.Notification, s *sessionRoom) bool { return s.had[n.ID] })
	}},
	{"wake", "0 turns", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.turns = 0 }) }},
	{"wake", "2 turns", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.turns = 2 }) }},
	{"wake", "nothing was said", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { s.said = s.said[:1] })
	}},
	{"wake", "nothing was said", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { slices.Reverse(s.said) })
	}},
	{"wake", "nothing was said", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { s.said[1].Err = errBoom })
	}},
	{"no wake", "1 turns", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.turns++ }) }},
	{"no wake", "0 times", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.said = nil }) }},
	{"in order", "before the first", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { slices.Reverse(s.said) })
	}},
	{"in order", "0 times", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { s.said = s.said[len(s.said)-1:] })
	}},
	{"busy", "says accepted", func(r *rooms) {
		r.but(subagent.Accepted, nil, func(_ subagent.Notification, s *sessionRoom) bool { return s.works })
	}},
	{"busy", "1 times, where it should be there 0", func(r *rooms) {
		r.but(subagent.Busy, nil, func(n subagent.Notification, s *sessionRoom) bool {
			if s.works {
				s.hear(n.Text)
			}
			return s.works
		})
	}},
	{"busy", "when it rests: ", func(r *rooms) {
		r.but(subagent.Busy, nil, func(_ subagent.Notification, s *sessionRoom) bool { return s.turns > 0 })
	}},
	{"deposit", "says busy", func(r *rooms) {
		r.but(subagent.Busy, nil, func(_ subagent.Notification, s *sessionRoom) bool { return s.works })
	}},
	{"deposit", "0 times", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.said = nil }) }},
	{"deposit", "2 times", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { clear(s.had) }) }},
	{"deposit", "turns", func(r *rooms) { r.then(func(_ subagent.Notification, s *sessionRoom) { s.turns++ }) }},
	{"deposit", "1 turns have begun, where it should be 0", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { s.turns = 1 })
	}},
	{"wake later", "says accepted", func(r *rooms) {
		r.but(subagent.Accepted, nil, func(n subagent.Notification, s *sessionRoom) bool {
			return s.works && n.Handover == subagent.HandWake
		})
	}},
	{"wake later", "3 times", func(r *rooms) {
		r.then(func(n subagent.Notification, s *sessionRoom) {
			if n.Handover == subagent.HandWake {
				s.hear(n.Text)
			}
		})
	}},
	{"wake later", "1 turns have begun after", func(r *rooms) {
		r.stops = true
		r.but(subagent.Accepted, nil, func(n subagent.Notification, s *sessionRoom) bool {
			return !s.works && n.Handover == subagent.HandWake
		})
	}},
	{"wake later", "3 turns", func(r *rooms) {
		r.then(func(n subagent.Notification, s *sessionRoom) {
			if n.Handover == subagent.HandWake {
				s.turns++
			}
		})
	}},
	{"wake later", "asked for again: 3 turns", func(r *rooms) {
		r.then(func(_ subagent.Notification, s *sessionRoom) { clear(s.woken) })
	}},
	{"wake later", "nothing was said", func(r *rooms) {
		r.stops = true
		r.then(func(n subagent.Notification, s *sessionRoom) { s.said = s.said[:1] })
	}},
	{"gone", "says accepted", func(r *rooms) {
		r.but(subagent.Accepted, nil, func(_ subagent.Notification, s *sessionRoom) bool { return s == nil })
	}},
	{"gone", "(deposit) says busy", func(r *rooms) {
		r.but(subagent.Busy, nil, func(n subagent.Notification, s *sessionRoom) bool {
			return s == nil && n.Handover == subagent.HandDeposit
		})
	}},
	{"gone", "(wake) says accepted", func(r *rooms) {
		r.but(subagent.Accepted, nil, func(n subagent.Notification, s *sessionRoom) bool {
			return s == nil && n.Handover == subagent.HandWake
		})
	}},
	{"gone", "boom", func(r *rooms) {
		r.but(subagent.Unknown, errBoom, func(_ subagent.Notification, s *sessionRoom) bool { return s == nil })
	}},
	{"unknown parent", "says accepted", func(r *rooms) {
		r.but(subagent.Accepted, nil, func(_ subagent.Notification, s *sessionRoom) bool { return s == nil })
	}},
	{"unknown parent", "says unknown", func(r *rooms) {
		r.but(subagent.Unknown, nil, func(_ subagent.Notification, s *sessionRoom) bool { return s == nil })
	}},
	{"received", "says true", func(r *rooms) { r.asked = func(subagent.Notification) (bool, error) { return true, nil } }},
	{"received", "says false", func(r *rooms) { r.asked = func(subagent.Notification) (bool, error) { return false, nil } }},
	{"received", "boom", func(r *rooms) { r.asked = func(subagent.Notification) (bool, error) { return false, errBoom } }},
	{"received", "never was", func(r *rooms) {
		r.asked = func(n subagent.Notification) (bool, error) {
			there, _ := r.has(n)
			return there || n.Parent == unknown, nil
		}
	}},
	{"received", "deposit", func(r *rooms) {
		r.asked = func(n subagent.Notification) (bool, error) {
			there, _ := r.has(n)
			return there && n.Handover != subagent.HandDeposit, nil
		}
	}},
	{"many at once", "says busy", func(r *rooms) {
		out := 0
		r.notify = func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			r.mu.Lock()
			out++
			alone := out == 1
			r.mu.Unlock()
			if !alone {
				return subagent.Busy, nil
			}
			return r.tell(ctx, n)
		}
	}},
	{"many at once", "0 times", func(r *rooms) {
		r.then(func(n subagent.Notification, s *sessionRoom) {
			if n.Parent == "room_3" {
				s.said = nil
			}
		})
	}},
	{"ended context", "has not returned", func(r *rooms) {
		r.notify = func(context.Context, subagent.Notification) (subagent.Delivery, error) { select {} }
	}},
	{"ended context", "says gone", func(r *rooms) {
		r.notify = func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			if ctx.Err() != nil {
				return subagent.Gone, nil
			}
			return r.tell(ctx, n)
		}
	}},
	{"ended context", "0 times", func(r *rooms) {
		r.notify = func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			if ctx.Err() != nil {
				return subagent.Accepted, nil
			}
			return r.tell(ctx, n)
		}
	}},
	{"ended context", "2 times", func(r *rooms) {
		r.notify = func(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
			if ctx.Err() != nil {
				r.locked(n.Parent, func(s *sessionRoom) { s.hear(n.Text) })
			}
			return r.tell(ctx, n)
		}
	}},
}

// Each broken notifier is noticed by the case for its rule, and each case notices one.
func TestNotifierSuiteNotices(t *testing.T) {
	rules, missed := map[string]rule[Receiver]{}, map[string]bool{}
	for _, r := range notifierRules {
		rules[r.name], missed[r.name] = r, true
	}
	for i, c := range brokenNotifiers {
		require.Contains(t, rules, c.by)
		delete(missed, c.by)
		r := newRooms()
		c.spoil(r)
		err := rules[c.by].check(t.Context(), Receiver{Notifier: r, Parents: r, Settle: 20 * time.Millisecond})
		require.ErrorContains(t, err, c.says, "%d, by %s", i, c.by)
		require.NotErrorIs(t, err, errAbsent, c.by)
	}
	require.Empty(t, missed, "cases that nothing broken was shown to")
}

// What the suite can't use, or can't look at, it says, as [TestClient] does.
func TestNotifierSuiteReports(t *testing.T) {
	r := newRooms()
	require.NoError(t, Receiver{Notifier: r, Parents: r}.check())
	require.ErrorContains(t, Receiver{Parents: r}.check(), "Receiver.Notifier is empty")
	require.ErrorContains(t, Receiver{Notifier: r}.check(), "Receiver.Parents is empty")
	bare := Receiver{Notifier: subagent.NotifierFunc(r.Notify), Parents: r}
	require.EqualError(t, checkReceived(t.Context(), bare), "not checked: the notifier is no subagent.ReceiptChecker")
	r.asked = func(subagent.Notification) (bool, error) { return false, errors.ErrUnsupported }
	require.EqualError(t, checkReceived(t.Context(), Receiver{Notifier: r, Parents: r, Settle: time.Second}), "not checked: Received is errors.ErrUnsupported")
}

// A turn that begins late is waited for, one that never should is seen.
func TestNotifierSuiteWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRooms()
		id := r.Open()
		time.AfterFunc(5*time.Second, func() { r.Work(id) })
		require.NoError(t, Receiver{Parents: r, Settle: 10 * time.Second}.begins(id, 1))
		time.AfterFunc(400*time.Millisecond, func() { r.Work(id) })
		require.EqualError(t, Receiver{Parents: r, Settle: 10 * time.Second}.still(id, 1), "2 turns have begun, where it should be 1")
	})
}
