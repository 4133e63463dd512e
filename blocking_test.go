package subagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// slowHost is a host that does not wait: each method is what the test makes of it.
type slowHost struct {
	mu       sync.Mutex
	n        int
	statuses map[SessionID]HostStatus // missing: the session is not there
	outputs  map[SessionID]Answer
	gone     map[SessionID]bool
	down     error // of Statuses, Output and Exists
	unsure   error // of Exists alone
	unread   error // of Output alone
	send     func(context.Context, SessionID) error
	abort    func(context.Context, SessionID) error
	slow     time.Duration

	sends, aborts, polls, looks, exists atomic.Int64
	atOnce, most                        atomic.Int64 // looks at single sessions
}

func newSlowHost() *slowHost {
	return &slowHost{statuses: map[SessionID]HostStatus{}, outputs: map[SessionID]Answer{}, gone: map[SessionID]bool{}}
}

func (h *slowHost) Create(context.Context, CreateRequest) (SessionID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	return SessionID(fmt.Sprint("ses_", h.n)), nil
}

func (h *slowHost) Send(ctx context.Context, id SessionID, _ Prompt) (any, error) {
	h.sends.Add(1)
	if h.send != nil {
		return nil, h.send(ctx, id)
	}
	h.is(id, HostBusy)
	return "mark", nil
}

func (h *slowHost) Abort(ctx context.Context, id SessionID) error {
	h.aborts.Add(1)
	if h.abort != nil {
		return h.abort(ctx, id)
	}
	h.is(id, HostIdle)
	return nil
}

func (h *slowHost) Statuses(context.Context, []SessionID) (map[SessionID]HostStatus, error) {
	h.polls.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[SessionID]HostStatus{}
	for id, s := range h.statuses {
		all[id] = s
	}
	return all, h.down
}

func (h *slowHost) Output(_ context.Context, id SessionID, _ any) (Answer, error) {
	h.looks.Add(1)
	if now := h.atOnce.Add(1); now > h.most.Load() {
		h.most.Store(now)
	}
	defer h.atOnce.Add(-1)
	h.mu.Lock()
	out, err, slow := h.outputs[id], cmp.Or(h.unread, h.down), h.slow
	h.mu.Unlock()
	time.Sleep(slow)
	return out, err
}

func (h *slowHost) Exists(_ context.Context, id SessionID) (bool, error) {
	h.exists.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.gone[id], cmp.Or(h.unsure, h.down)
}

func (h *slowHost) change(what func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	what()
}

func (h *slowHost) is(id SessionID, s HostStatus) { h.change(func() { h.statuses[id] = s }) }
func (h *slowHost) forgets(id SessionID)          { h.change(func() { delete(h.statuses, id) }) }
func (h *slowHost) says(id SessionID, o Answer)   { h.change(func() { h.outputs[id] = o }) }
func (h *slowHost) loses(id SessionID)            { h.change(func() { h.gone[id] = true }) }
func (h *slowHost) fails(err error)               { h.change(func() { h.down = err }) }
func (h *slowHost) unreads(err error)             { h.change(func() { h.unread = err }) }

// slowly has looks at single sessions take their time.
func (h *slowHost) slowly(d time.Duration) { h.change(func() { h.slow = d }) }

// waitADay is Wait for a turn that must end by itself.
func waitADay(t *testing.T, m *BackgroundManager, id TaskID) (Task, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	return m.Wait(ctx, id)
}

// blocked is a manager over such a host with one task that was just prompted.
func blocked(t *testing.T, h AsyncClient, cfg BlockingConfig) (*BackgroundManager, Task) {
	t.Helper()
	m := newManager(t, Blocking(h, cfg), Config{Retention: keepAll})
	task := launch(t, m, work("p"))
	synctest.Wait()
	return m, get(t, m, task.ID)
}

func event(id SessionID, k EventKind) SessionEvent { return SessionEvent{Session: id, Kind: k} }

var wholeAnswer = Answer{Text: "done", Evidence: true}

// A turn is over when its session rests and has made something of this prompt,
// whether an event says so or a poll, at once or late, once or twice.
func TestBlockingEnds(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  BlockingConfig
		tell func(*slowHost, *BackgroundManager, SessionID)
		in   time.Duration
	}{
		"an idle event": {BlockingConfig{Poll: Off}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			m.HandleEvent(event(id, EventIdle))
		}, 0},
		"two idle events": {BlockingConfig{Poll: Off}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			m.HandleEvent(event(id, EventIdle))
			m.HandleEvent(event(id, EventIdle))
		}, 0},
		"scenario 67: an idle event before there is an answer is not lost": {BlockingConfig{Poll: Off}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventIdle))
			time.Sleep(100 * time.Millisecond)
			h.says(id, wholeAnswer)
		}, 250 * time.Millisecond},
		"an idle event before the message is complete": {BlockingConfig{Poll: Off}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "do", Evidence: true, Unfinished: true})
			m.HandleEvent(event(id, EventIdle))
			time.Sleep(100 * time.Millisecond)
			h.says(id, wholeAnswer)
		}, 250 * time.Millisecond},
		"a poll": {BlockingConfig{}, func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			h.is(id, HostIdle)
		}, 3 * time.Second},
		"scenario 84: a poll with a status that nobody knows": {BlockingConfig{}, func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			h.is(id, HostUnknown)
		}, 3 * time.Second},
		"scenario 86: a poll that does not name it": {BlockingConfig{}, func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			h.forgets(id)
		}, 3 * time.Second},
		"scenario 71: its last todo is done": {BlockingConfig{}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "done", Evidence: true, OpenTodos: 1})
			m.HandleEvent(event(id, EventIdle))
			time.Sleep(time.Second)
			h.says(id, wholeAnswer)
		}, 1750 * time.Millisecond},
		"scenario 73: nothing but a tool call": {BlockingConfig{Poll: Off}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "done", Evidence: true})
			m.HandleEvent(tool("c1", "read", true))
			m.HandleEvent(event(id, EventIdle))
		}, 0},
		"the host is out of reach for a while": {BlockingConfig{}, func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.fails(errors.New("no route"))
			m.HandleEvent(event(id, EventIdle))
			time.Sleep(10 * time.Second)
			h.says(id, wholeAnswer)
			h.fails(nil)
			h.is(id, HostIdle)
		}, 11750 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				m, task := blocked(t, h, c.cfg)
				began := time.Now()
				c.tell(h, m, task.Session)
				ended, err := waitADay(t, m, task.ID)
				require.NoError(t, err)
				require.Equal(t, Completed, ended.Status, "%v", ended.Reason)
				require.Equal(t, "done", ended.Result.Text)
				require.Equal(t, c.in, time.Since(began))
				require.EqualValues(t, 1, h.sends.Load())
				require.Zero(t, h.aborts.Load())
			})
		})
	}
}

// What says nothing of the turn ends nothing.
func TestBlockingGoesOn(t *testing.T) {
	for name, tell := range map[string]func(*slowHost, *BackgroundManager, SessionID){
		"C061: busy and retrying": func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventBusy))
			h.is(id, HostRetrying)
			m.HandleEvent(event(id, EventRetrying))
		},
		"C062: somebody else's idling": func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			m.HandleEvent(event("other", EventIdle))
		},
		"scenario 69: an idling that was followed by text": func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventIdle))
			synctest.Wait()
			m.HandleEvent(event(id, EventText))
			h.says(id, wholeAnswer)
		},
		"scenario 76: text while the answer is looked at": func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			h.slowly(time.Second)
			m.HandleEvent(event(id, EventIdle))
			time.Sleep(500 * time.Millisecond)
			m.HandleEvent(event(id, EventText))
			time.Sleep(time.Second)
			h.says(id, Answer{})
		},
		"C074: the host names it as resting, and its answer can't be read": func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventText))
			h.is(id, HostIdle)
			h.unreads(errors.New("no route"))
			m.HandleEvent(event(id, EventIdle))
		},
		"C074: an outage": func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.says(id, wholeAnswer)
			h.forgets(id)
			h.fails(errors.New("no route"))
		},
		"scenario 133: an error that passes": func(h *slowHost, m *BackgroundManager, id SessionID) {
			e := event(id, EventFailed)
			e.Err = &SessionError{Class: ClassOverloaded}
			m.HandleEvent(e)
		},
		"an error beside an answer that is not whole, as long as the session goes on": func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Evidence: true, Unfinished: true, Err: &SessionError{Class: ClassPermission}})
			m.HandleEvent(event(id, EventIdle))
			synctest.Wait()
			m.HandleEvent(event(id, EventText))
		},
		"out of reach when a sign of life was due": func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.fails(errors.New("no route"))
			pass(2 * time.Minute)
			h.fails(nil)
		},
		"open todos": func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "done", Evidence: true, OpenTodos: 2})
			h.is(id, HostIdle)
		},
		"scenario 88: not named, and there": func(h *slowHost, m *BackgroundManager, id SessionID) { h.forgets(id) },
		"scenario 88: not named, and whether it is there can't be said": func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.mu.Lock()
			h.unsure, h.gone[id] = errors.New("no route"), true
			h.mu.Unlock()
			h.forgets(id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				m, task := blocked(t, h, BlockingConfig{})
				tell(h, m, task.Session)
				pass(30 * time.Second)
				require.Equal(t, Running, get(t, m, task.ID).Status)
			})
		})
	}
}

// How a turn ends that does not end well.
func TestBlockingFails(t *testing.T) {
	quota := &SessionError{Op: "prompt", Class: ClassQuota, Err: errors.New("spent")}
	for name, c := range map[string]struct {
		tell   func(*slowHost, *BackgroundManager, SessionID)
		status Status
		code   ReasonCode
		text   string
	}{
		"a terminal error, and no idling": {func(h *slowHost, m *BackgroundManager, id SessionID) {
			e := event(id, EventFailed)
			e.Err = quota
			h.says(id, Answer{Text: "so far", Evidence: true, Unfinished: true})
			m.HandleEvent(e)
		}, Failed, SessionFailed, "so far"},
		"an error in the message": {func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "so far", Evidence: true, Err: quota})
			m.HandleEvent(event(id, EventIdle))
		}, Failed, SessionFailed, "so far"},
		"scenario 83: a status that says so": {func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "so far", Evidence: true})
			h.is(id, HostEnded)
		}, Interrupted, PromptFailed, "so far"},
		"scenario 87: the session is gone": {func(h *slowHost, _ *BackgroundManager, id SessionID) {
			h.forgets(id)
			h.loses(id)
		}, Interrupted, SessionGone, ""},
		"scenario 74: a turn that said nothing": {func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventBusy))
			h.is(id, HostIdle)
		}, Failed, NoOutput, ""},
		"an answer that stays incomplete": {func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventText))
			h.says(id, Answer{Text: "so far", Evidence: true, Unfinished: true})
			h.is(id, HostIdle)
		}, Interrupted, PromptFailed, "so far"},
		"an answer that stays incomplete, and the host knows why": {func(h *slowHost, m *BackgroundManager, id SessionID) {
			m.HandleEvent(event(id, EventText))
			h.says(id, Answer{Text: "so far", Evidence: true, Unfinished: true, Err: &SessionError{Op: "prompt", Class: ClassPermission, Err: errors.New("rejected")}})
			h.is(id, HostIdle)
		}, Failed, SessionFailed, "so far"},
		"something that was read, no sign of life, and no more": {func(h *slowHost, m *BackgroundManager, id SessionID) {
			h.says(id, Answer{Text: "so far", Evidence: true, Unfinished: true})
			h.is(id, HostIdle)
		}, Interrupted, PromptFailed, "so far"},
		"no sign of life": {func(h *slowHost, _ *BackgroundManager, id SessionID) { h.is(id, HostIdle) }, Interrupted, PromptFailed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSlowHost()
				m, task := blocked(t, h, BlockingConfig{})
				c.tell(h, m, task.Session)
				ended, err := waitADay(t, m, task.ID)
				require.NoError(t, err)
				require.Equal(t, c.status, ended.Status, "%v", ended.Reason)
				require.ErrorIs(t, ended.Reason, c.code)
				require.Equal(t, c.text, ended.Result.Text)
				require.Nil(t, ended.Attempts[0].Unstopped)
				require.EqualValues(t, 1, h.sends.Load())
			})
		})
	}
}
