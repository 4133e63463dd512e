package subagent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// promptedHost is a slowHost whose sessions others prompt.
type promptedHost struct {
	*slowHost
	last  func(context.Context, SessionID) (any, error)
	asked atomic.Int64
	marks []any // that Output was asked for
}

func newPromptedHost() *promptedHost { return &promptedHost{slowHost: newSlowHost()} }

func (h *promptedHost) LastPrompt(ctx context.Context, id SessionID) (any, error) {
	h.asked.Add(1)
	if h.last != nil {
		return h.last(ctx, id)
	}
	return "theirs", nil
}

func (h *promptedHost) Output(ctx context.Context, id SessionID, mark any) (Answer, error) {
	h.change(func() { h.marks = append(h.marks, mark) })
	return h.slowHost.Output(ctx, id, mark)
}

// tracked is a manager over such a host that has just tracked a session.
func tracked(t *testing.T, h AsyncClient, cfg BlockingConfig) (*BackgroundManager, Task) {
	t.Helper()
	m := newManager(t, Blocking(h, cfg), Config{})
	task := track(t, m, "p", "theirs")
	synctest.Wait()
	return m, get(t, m, task.ID)
}

// A turn that somebody else began is over as one of ours is: when the session rests and
// has made something of that prompt; and at once if it is over already.
func TestBlockingAttachEnds(t *testing.T) {
	const id = SessionID("theirs")
	down := errors.New("no route")
	for name, c := range map[string]struct {
		cfg    BlockingConfig
		before func(*promptedHost)
		tell   func(*promptedHost, *BackgroundManager)
		in     time.Duration
	}{
		"an idle event": {BlockingConfig{Poll: Off}, func(h *promptedHost) { h.is(id, HostBusy) }, func(h *promptedHost, m *BackgroundManager) {
			time.Sleep(time.Hour)
			h.says(id, wholeAnswer)
			h.is(id, HostIdle)
			m.HandleEvent(event(id, EventIdle))
		}, time.Hour},
		"a poll": {BlockingConfig{}, func(h *promptedHost) { h.is(id, HostBusy) }, func(h *promptedHost, m *BackgroundManager) {
			time.Sleep(10 * time.Second)
			h.says(id, wholeAnswer)
			h.is(id, HostIdle)
			time.Sleep(2 * time.Second)
		}, 12 * time.Second},
		"it is over already":                       {BlockingConfig{Poll: Off}, func(h *promptedHost) { h.is(id, HostIdle); h.says(id, wholeAnswer) }, nil, 0},
		"and the host names only sessions at work": {BlockingConfig{Poll: Off}, func(h *promptedHost) { h.says(id, wholeAnswer) }, nil, 0},
		"it has answered, and its last message comes late": {BlockingConfig{Poll: Off}, func(h *promptedHost) { h.is(id, HostIdle) }, func(h *promptedHost, m *BackgroundManager) {
			time.Sleep(200 * time.Millisecond)
			h.says(id, wholeAnswer)
			time.Sleep(50 * time.Millisecond)
		}, 250 * time.Millisecond},
		"an outage when it began": {BlockingConfig{Poll: Off}, func(h *promptedHost) {
			h.is(id, HostIdle)
			h.says(id, wholeAnswer)
			h.fails(down)
		}, func(h *promptedHost, m *BackgroundManager) {
			time.Sleep(2 * time.Hour)
			h.fails(nil)
			time.Sleep(4 * time.Second)
		}, 2*time.Hour + 3750*time.Millisecond},
		"a host that could not say which prompt": {BlockingConfig{Poll: Off}, func(h *promptedHost) {
			h.is(id, HostIdle)
			h.says(id, wholeAnswer)
			h.last = func(context.Context, SessionID) (any, error) {
				if h.asked.Load() < 4 {
					return nil, &SessionError{Op: "messages", Class: ClassUnavailable, Err: down}
				}
				return "theirs", nil
			}
		}, func(*promptedHost, *BackgroundManager) { time.Sleep(1750 * time.Millisecond) }, 1750 * time.Millisecond},
		"a session that is prompted a little later": {BlockingConfig{Poll: Off}, func(h *promptedHost) {
			h.last = func(context.Context, SessionID) (any, error) {
				if h.asked.Load() < 3 {
					return nil, nil
				}
				h.is(id, HostIdle)
				h.says(id, wholeAnswer)
				return "theirs", nil
			}
		}, func(*promptedHost, *BackgroundManager) { time.Sleep(750 * time.Millisecond) }, 750 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPromptedHost()
				c.before(h)
				m, task := tracked(t, h, c.cfg)
				if c.tell != nil {
					require.Equal(t, Running, task.Status, "%v", task.Reason)
					c.tell(h, m)
					synctest.Wait()
				}
				ended := get(t, m, task.ID)
				require.Equal(t, Completed, ended.Status, "%v", ended.Reason)
				require.Equal(t, "done", ended.Result.Text)
				require.Equal(t, c.in, ended.Ended.Sub(ended.Started))
				require.Zero(t, h.sends.Load(), "nothing is sent")
				require.Zero(t, h.aborts.Load())
				require.Subset(t, []any{"theirs"}, h.marks)
			})
		})
	}
}

// What says nothing of the turn ends none: an answer that is not whole, a session at
// work, an outage, polls that do not name it.
func TestBlockingAttachGoesOn(t *testing.T) {
	const id = SessionID("theirs")
	for name, before := range map[string]func(*promptedHost){
		"at work, though there is an answer": func(h *promptedHost) { h.is(id, HostBusy); h.says(id, wholeAnswer) },
		"nothing can be asked":               func(h *promptedHost) { h.says(id, wholeAnswer); h.fails(errors.New("no route")) },
		"where it is can't be said":          func(h *promptedHost) { h.says(id, wholeAnswer); h.is(id, HostUnreachable) },
		"gone, and at work": func(h *promptedHost) {
			h.is(id, HostBusy)
			h.last = func(context.Context, SessionID) (any, error) { return nil, ErrSessionGone }
		},
		"not prompted yet": func(h *promptedHost) {
			h.last = func(context.Context, SessionID) (any, error) { return nil, nil }
		},
		"rests unfinished": func(h *promptedHost) { h.says(id, Answer{Text: "so", Unfinished: true, Evidence: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPromptedHost()
				before(h)
				m, task := tracked(t, h, BlockingConfig{Poll: time.Hour, Settle: 20 * time.Second})
				time.Sleep(50 * time.Second)
				require.Equal(t, Running, get(t, m, task.ID).Status)
				require.Zero(t, h.aborts.Load())
			})
		})
	}
}

// A turn of somebody else that does not end well, and one that can't be found.
func TestBlockingAttachFails(t *testing.T) {
	const id = SessionID("theirs")
	says := func(mark any, err error) func(*promptedHost) {
		return func(h *promptedHost) {
			h.last = func(context.Context, SessionID) (any, error) { return mark, err }
		}
	}
	for name, c := range map[string]struct {
		before func(*promptedHost)
		status Status
		code   ReasonCode
		err    error
		in     time.Duration
	}{
		"its model refused":     {func(h *promptedHost) { h.says(id, Answer{Err: errors.New("no credit")}) }, Failed, SessionFailed, nil, 0},
		"the host ended it":     {func(h *promptedHost) { h.is(id, HostEnded); h.says(id, wholeAnswer) }, Interrupted, PromptFailed, errEnded, 0},
		"gone":                  {says(nil, ErrSessionGone), Interrupted, SessionGone, ErrSessionGone, 0},
		"refused":               {says(nil, &SessionError{Op: "messages", Class: ClassPermission, Err: errors.New("no")}), Failed, SessionFailed, nil, 0},
		"a wrapper can't":       {says(nil, errors.ErrUnsupported), Failed, SessionFailed, errors.ErrUnsupported, 0},
		"never prompted":        {says(nil, nil), Failed, SessionFailed, errNoPrompt, 75 * time.Second},
		"prompted, not a trace": {says("theirs", nil), Interrupted, PromptFailed, errNotStarted, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPromptedHost()
				c.before(h)
				m, task := tracked(t, h, BlockingConfig{Poll: Off})
				ended, err := waitADay(t, m, task.ID)
				require.NoError(t, err)
				require.Equal(t, c.status, ended.Status, "%v", ended.Reason)
				require.True(t, ended.Reason.Code == c.code, "%v", ended.Reason)
				if c.err != nil {
					require.ErrorIs(t, ended.Reason, c.err)
				}
				require.LessOrEqual(t, ended.Ended.Sub(ended.Started), c.in)
			})
		})
	}
}

// A tracked session is stopped like any other, also while the host can't say what its
// turn is, or hangs when it is asked.
func TestBlockingAttachIsStopped(t *testing.T) {
	for name, last := range map[string]func(context.Context, SessionID) (any, error){
		"at work":  nil,
		"unknown":  func(context.Context, SessionID) (any, error) { return nil, errors.New("no route") },
		"it hangs": func(ctx context.Context, _ SessionID) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPromptedHost()
				h.last = last
				h.is("theirs", HostBusy)
				m, task := tracked(t, h, BlockingConfig{Poll: Off})
				time.Sleep(time.Second)
				ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
				require.NoError(t, err)
				require.Equal(t, Cancelled, ended.Status)
				require.NoError(t, ended.Attempts[0].Unstopped)
				require.Equal(t, int64(1), h.aborts.Load(), "it says that it was aborted")
				require.Less(t, ended.Ended.Sub(ended.Started), 2*time.Second)
			})
		})
	}
}

// There is one turn of a session, whoever began it, and a parent with one is busy,
// however it is to be told.
func TestBlockingAttachIsATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &tellingHost{promptedHost: newPromptedHost()}
		h.is("theirs", HostBusy)
		b := Blocking(h, BlockingConfig{Poll: Off})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _, _ = b.Attach(ctx, "theirs", Prompt{}) }()
		synctest.Wait()
		_, err := b.Attach(t.Context(), "theirs", Prompt{})
		require.ErrorIs(t, err, errBusy)
		_, err = b.Prompt(t.Context(), "theirs", Prompt{Text: "x"})
		require.ErrorIs(t, err, errBusy)
		for how := range numHandovers {
			d, err := b.Notify(t.Context(), Notification{Parent: "theirs", Handover: how})
			require.NoError(t, err)
			require.Equal(t, Busy, d, how)
			d, err = b.Notify(t.Context(), Notification{Parent: "p", Handover: how})
			require.NoError(t, err)
			require.Equal(t, Accepted, d, how)
		}
		there, err := b.Received(t.Context(), Notification{ID: "nt_1"})
		require.NoError(t, err)
		require.True(t, there)
	})
}

// tellingHost can tell parents too, and whether they have been told.
type tellingHost struct{ *promptedHost }

func (h *tellingHost) Notify(context.Context, Notification) (Delivery, error) { return Accepted, nil }
func (h *tellingHost) Received(_ context.Context, n Notification) (bool, error) {
	return n.ID == "nt_1", nil
}

// A host that can't do something leaves the manager without it from the start: Track is
// refused, and so is what must be told. One that embeds the client may have its own way.
func TestBlockingHostsThatCant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unable := Blocking(newSlowHost(), BlockingConfig{})
		m := newManager(t, unable, Config{Mailbox: MailboxPolicy{Required: true}})
		_, err := m.Track(t.Context(), TrackInput{Parent: "p", Session: "s", Agent: "a"})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Empty(t, m.List(Filter{}))
		_, err = m.Launch(t.Context(), work("p"))
		require.ErrorIs(t, err, ErrNobodyToTell)
		require.Equal(t, capabilities{sink: unable}, m.caps)

		able := Blocking(&tellingHost{newPromptedHost()}, BlockingConfig{})
		require.Equal(t, capabilities{sink: able, attacher: able, notifier: able}, newManager(t, able, Config{}).caps)
		own := ownAttach{unable}
		require.Equal(t, Attacher(own), newManager(t, own, Config{}).caps.attacher)
		_, err = unable.Attach(t.Context(), "s", Prompt{})
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}

type ownAttach struct{ *BlockingClient }

func (ownAttach) Attach(context.Context, SessionID, Prompt) (Result, error) { return Result{}, nil }
