package subagent

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// listener ranges over a subscription in a goroutine of its own and keeps what it gets.
type listener struct {
	mu   sync.Mutex
	got  []Event
	over bool
}

func (l *listener) hear(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, e)
}

func (l *listener) all() []Event {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

func (l *listener) ended() bool {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// of are the statuses that it was told of one task, and what else in brackets.
func (l *listener) of(id TaskID) (told []string) {
	for _, e := range l.all() {
		switch {
		case e.Task.ID != id:
		case e.Topic == TopicStatus:
			told = append(told, e.Task.Status.String())
		default:
			told = append(told, "("+e.Topic.String()+")")
		}
	}
	return told
}

func (l *listener) run(events iter.Seq[Event]) {
	for e := range events {
		l.hear(e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

func subscribe(t *testing.T, m *BackgroundManager, f Filter, topics ...Topic) iter.Seq[Event] {
	t.Helper()
	events, err := m.Subscribe(t.Context(), f, topics...)
	require.NoError(t, err)
	return events
}

func listen(t *testing.T, m *BackgroundManager, f Filter, topics ...Topic) *listener {
	t.Helper()
	l, events := &listener{}, subscribe(t, m, f, topics...)
	go l.run(events)
	return l
}

// Scenario C201: however a run ends, there is one terminal event, with all of the ending
// in it, when everybody else is shown it too.
func TestOneTerminalEvent(t *testing.T) {
	began := []string{"pending", "starting", "(session)", "running"}
	for name, c := range map[string]struct {
		in   LaunchInput
		cfg  Config
		stop ReasonCode
		want []string
	}{
		"completed":         {in: taking("p", "1s"), want: append(slices.Clone(began), "completed", "(told)")},
		"failed":            {in: taking("p", "?"), want: append(slices.Clone(began), "stopping", "failed", "(told)")},
		"cancelled":         {in: taking("p", "1h"), stop: ByUser, want: append(slices.Clone(began), "stopping", "cancelled", "(told)")},
		"cancelled, silent": {in: taking("p", "1h"), stop: ByParent, want: append(slices.Clone(began), "stopping", "cancelled")},
		"interrupted":       {in: taking("p", "interrupted"), want: append(slices.Clone(began), "stopping", "interrupted", "(told)")},
		"panicked":          {in: taking("p", "panicked"), want: append(slices.Clone(began), "stopping", "failed", "(told)")},
		"cancelled in the queue": {
			in: taking("p", "1s"), stop: ByUser, want: []string{"pending", "cancelled", "(told)"},
			cfg: Config{Keys: KeyLimits{Default: 1}},
		},
		"in the queue": {
			in: taking("p", "1s"), want: []string{"pending", "failed", "(told)"},
			cfg: Config{Keys: KeyLimits{Default: 1}, Task: TaskLimits{QueueWait: time.Second}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Notifier = &inbox{}
				client := timed()
				prompt := client.prompt
				client.prompt = func(ctx context.Context, id SessionID, p Prompt) (Result, error) {
					switch p.Text {
					case "interrupted":
						return Result{}, errors.New("no line")
					case "panicked":
						panic("client")
					}
					return prompt(ctx, id, p)
				}
				m := newManager(t, client, c.cfg)
				if c.cfg.Keys.Default == 1 {
					launch(t, m, taking("q", "1h"))
				}
				l := listen(t, m, Filter{Parent: "p"})
				id := launch(t, m, c.in).ID
				pass(100 * time.Millisecond)
				if c.stop != "" {
					_, err := m.Cancel(t.Context(), id, CancelOptions{Cause: c.stop})
					require.NoError(t, err)
				}
				pass(time.Minute)
				require.Equal(t, c.want, l.of(id))
				last := uint64(0)
				for _, e := range l.all() {
					require.Equal(t, last+1, e.Seq, "nothing else became of it")
					last = e.Seq
					require.False(t, e.Time.IsZero())
					if e.Topic == TopicStatus && e.Task.Status.Terminal() {
						require.Equal(t, get(t, m, id), e.Task)
						require.Equal(t, e.Task.Ended.Round(time.Millisecond), e.Time.Round(time.Millisecond))
					}
				}
			})
		})
	}
}

// A terminal event is not there before Get, List and Wait show the ending.
func TestTerminalEventIsVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		events, n := subscribe(t, m, Filter{Statuses: []Status{Completed}}), 0
		for range 5 {
			launch(t, m, taking("p", "1s"))
		}
		for e := range events {
			require.Equal(t, e.Task, get(t, m, e.Task.ID))
			require.Contains(t, m.List(Filter{Statuses: []Status{Completed}}), e.Task)
			ended, err := m.Wait(t.Context(), e.Task.ID)
			require.NoError(t, err)
			require.Equal(t, e.Task, ended)
			if n++; n == 5 {
				break
			}
		}
	})
}

// A subscription counts from its call on: between that, a List and the range nothing
// is missed. A second range yields nothing.
func TestSubscribeHasNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		events := subscribe(t, m, Filter{})
		id := launch(t, m, taking("p", "1s")).ID
		require.Len(t, m.List(Filter{}), 1)
		pass(time.Minute)
		l := &listener{}
		go l.run(events)
		require.Equal(t, []string{"pending", "starting", "(session)", "running", "completed"}, l.of(id))
		for range events {
			t.Fatal("a second range")
		}
		launch(t, m, taking("p", "1s"))
		require.Len(t, l.all(), 9, "the first goes on")
	})
}

// What a subscription is asked for.
func TestSubscribeFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{Notifier: &inbox{}, Agents: map[string]Agent{"worker": {Aliases: []string{"w"}}, "other": {}}})
		in := taking("p", "1s")
		in.Labels = map[string]string{"kind": "x"}
		heard := map[string]*listener{
			"all":      listen(t, m, Filter{}),
			"parent":   listen(t, m, Filter{Parent: "p"}),
			"root":     listen(t, m, Filter{Root: "q"}),
			"agent":    listen(t, m, Filter{Agent: "w"}),
			"labels":   listen(t, m, Filter{Labels: map[string]string{"kind": "x"}}),
			"statuses": listen(t, m, Filter{Statuses: []Status{Pending, Completed}}, TopicStatus),
			"ids":      listen(t, m, Filter{IDs: []TaskID{"bg_none"}}),
			"told":     listen(t, m, Filter{}, TopicTold, TopicSession),
		}
		one := launch(t, m, in).ID
		two := launch(t, m, taking("q", "2s")).ID
		pass(time.Minute)
		all := []string{"pending", "starting", "(session)", "running", "completed", "(told)"}
		none := []string(nil)
		for name, want := range map[string][2][]string{
			"all": {all, all}, "parent": {all, none}, "root": {none, all}, "agent": {all, all}, "labels": {all, none},
			"statuses": {{"pending", "completed"}, {"pending", "completed"}}, "ids": {none, none},
			"told": {{"(session)", "(told)"}, {"(session)", "(told)"}},
		} {
			require.Equal(t, want, [2][]string{heard[name].of(one), heard[name].of(two)}, name)
		}
		child := get(t, m, one).Session
		below := listen(t, m, Filter{Under: "p"})
		three := launch(t, m, taking(child, "1s")).ID
		require.Equal(t, []string{"pending", "starting", "(session)", "running"}, below.of(three))
		require.Empty(t, heard["parent"].of(three))
	})
}

func TestSubscribeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		for field, refused := range map[string]func() error{
			"Filter.Limit":       func() error { _, err := m.Subscribe(t.Context(), Filter{Limit: 1}); return err },
			"Filter.After":       func() error { _, err := m.Subscribe(t.Context(), Filter{After: "bg_x"}); return err },
			"Filter.Statuses[0]": func() error { _, err := m.Subscribe(t.Context(), Filter{Statuses: []Status{99}}); return err },
			"topics[1]":          func() error { _, err := m.Subscribe(t.Context(), Filter{}, TopicTold, numTopics); return err },
			"topics[0]":          func() error { _, err := m.Subscribe(t.Context(), Filter{}, 0); return err },
			"BackgroundManager":  func() error { _, err := new(BackgroundManager).Subscribe(t.Context(), Filter{}); return err },
		} {
			var input *InputError
			require.ErrorAs(t, refused(), &input, field)
			require.Equal(t, field, input.Field)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errStub)
		_, err := m.Subscribe(ctx, Filter{})
		require.ErrorIs(t, err, errStub)
		require.NoError(t, m.Close())
		_, err = m.Subscribe(t.Context(), Filter{})
		require.ErrorIs(t, err, ErrClosed)
		require.Zero(t, m.Stats().Events)
	})
}

var errStub = errors.New("stub")

// A subscription ends with its context, its loop or the manager, and leaves nothing: no
// goroutine is there while nobody ranges, and after the end no entry.
func TestSubscribeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		idle := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		forgotten, err := m.Subscribe(ctx, Filter{}) // nobody ranges over it
		require.NoError(t, err)
		byContext := &listener{}
		events, err := m.Subscribe(ctx, Filter{})
		require.NoError(t, err)
		require.Equal(t, idle, runtime.NumGoroutine())
		go byContext.run(events)
		byClose := listen(t, m, Filter{})
		events = subscribe(t, m, Filter{})
		require.Equal(t, 4, m.Stats().Events.Subscribers)
		id := launch(t, m, taking("p", "1s")).ID
		for range events {
			break
		}
		require.Equal(t, 3, m.Stats().Events.Subscribers)
		require.False(t, byContext.ended())
		cancel()
		require.True(t, byContext.ended())
		require.Equal(t, 1, m.Stats().Events.Subscribers)
		for range forgotten {
			t.Fatal("its context has ended")
		}
		require.False(t, byClose.ended())
		require.NoError(t, m.Close())
		require.True(t, byClose.ended())
		require.Equal(t, "cancelled", last(byClose.of(id)), "after the last event")
		require.Zero(t, m.Stats().Events.Subscribers)
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), idle)
	})
}

func last(list []string) string { return list[len(list)-1] }

// What waits is handed out when the manager has closed, also to who only ranges then.
func TestSubscribeAcrossClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		events := subscribe(t, m, Filter{})
		id := launch(t, m, taking("p", "1h")).ID
		synctest.Wait()
		require.NoError(t, m.Close())
		l := &listener{}
		l.run(events)
		require.Equal(t, []string{"pending", "starting", "(session)", "running", "stopping", "cancelled"}, l.of(id))
		require.True(t, l.over)
	})
}

// A loop that panics leaves no subscription.
func TestSubscriberPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		events := subscribe(t, m, Filter{})
		launch(t, m, taking("p", "1s"))
		require.Panics(t, func() {
			for range events {
				panic("subscriber")
			}
		})
		require.Zero(t, m.Stats().Events.Subscribers)
	})
}

// Scenario C207: a subscriber that does not read holds up nothing, and is told how much
// it has lost. Another one loses nothing.
func TestStuckSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		m := newManager(t, timed(), Config{Keys: KeyLimits{Default: 100}, Spawn: SpawnLimits{LivePerRoot: Off}})
		stuck := subscribe(t, m, Filter{})
		l := listen(t, m, Filter{}, TopicStatus)
		began := time.Now()
		for range n {
			launch(t, m, taking("p", "1s"))
			synctest.Wait()
		}
		require.Zero(t, time.Since(began))
		pass(time.Hour)
		require.Len(t, m.List(Filter{Statuses: []Status{Completed}}), n)
		require.Len(t, l.all(), 4*n)
		for _, e := range l.all() {
			require.Zero(t, e.Dropped)
		}
		require.Equal(t, 5*n-maxEvents, m.Stats().Events.Dropped)
		require.NoError(t, m.Close())
		kept := &listener{}
		kept.run(stuck)
		require.Len(t, kept.got, maxEvents)
		require.Equal(t, 5*n-maxEvents, kept.got[0].Dropped)
		for _, e := range kept.got[1:] {
			require.Zero(t, e.Dropped)
		}
		require.Equal(t, Completed, kept.got[maxEvents-1].Task.Status)
	})
}

// Scenario C208: what the host tells of a turn reaches who asks for it. When there is no
// room, progress is dropped before anything else, and each loss is noted where it was.
func TestProgressEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChatty()
		m := newManager(t, c, Config{})
		quiet := listen(t, m, Filter{})
		full := subscribe(t, m, Filter{}, TopicProgress, TopicStatus)
		l := listen(t, m, Filter{}, TopicProgress)
		id := launch(t, m, work("p")).ID
		on := <-c.on
		call := SessionEvent{Kind: EventTool, Tool: ToolCall{ID: "c1", Name: "read", Input: map[string]any{"path": "x"}}}
		on(call)
		on(SessionEvent{Kind: EventText, Text: "so"})
		on(SessionEvent{Kind: EventIdle}) // counts for nothing
		m.HandleEvent(SessionEvent{Session: "ses_of_somebody", Kind: EventText})
		got := l.all()
		require.Len(t, got, 2)
		call.Session = get(t, m, id).Session
		require.Equal(t, call, got[0].Progress)
		require.Equal(t, 1, got[0].Task.Progress.OpenTools, "it was applied")
		require.Equal(t, "so", got[1].Progress.Text)
		require.Equal(t, []uint64{5, 6}, []uint64{got[0].Seq, got[1].Seq})

		for range 2000 {
			on(SessionEvent{Kind: EventText})
			synctest.Wait()
		}
		lost := m.Stats().Events.Dropped
		require.Equal(t, 3+2+2000-maxEvents, lost, "the one that did not read")
		close(c.over)
		synctest.Wait()
		require.Equal(t, lost+1, m.Stats().Events.Dropped, "the oldest made room for the ending")
		require.NoError(t, m.Close())
		kept := &listener{}
		kept.run(full)
		require.Len(t, kept.got, maxEvents)
		require.Equal(t, Starting, kept.got[0].Task.Status)
		require.Equal(t, 1, kept.got[0].Dropped)
		ending := kept.got[maxEvents-1]
		require.Equal(t, Completed, ending.Task.Status)
		require.Equal(t, lost, ending.Dropped)
		require.Equal(t, uint64(4+2+2000+1), ending.Seq, "counted whether or not anybody listens")
		require.Equal(t, []string{"pending", "starting", "(session)", "running", "completed"}, quiet.of(id))
		for _, e := range quiet.all() {
			require.Zero(t, e.Dropped)
			require.Zero(t, e.Progress)
		}
	})
}

// A question is told before the status that follows from it.
func TestProgressBeforeItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChatty()
		m := newManager(t, c, Config{})
		l := listen(t, m, Filter{}, TopicProgress, TopicStatus)
		id := launch(t, m, work("p")).ID
		on := <-c.on
		on(SessionEvent{Kind: EventQuestion, Text: "sure?"})
		on(SessionEvent{Kind: EventText})
		require.Equal(t, []string{"pending", "starting", "running", "(progress)", "input_required", "(progress)", "running"}, l.of(id))
		close(c.over)
	})
}

// What one subscriber does to an event, another does not see.
func TestEventsAreCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooked := &listener{}
		m := newManager(t, timed(), Config{Hooks: Hooks{Starting: func(e Event) { e.Task.Labels["k"] = "hook"; hooked.hear(e) }}})
		one, two := subscribe(t, m, Filter{}), subscribe(t, m, Filter{})
		in := taking("p", "1s")
		in.Labels = map[string]string{"k": "v"}
		id := launch(t, m, in).ID
		pass(time.Minute)
		for _, events := range []iter.Seq[Event]{one, two} {
			for e := range events {
				require.Equal(t, "v", e.Task.Labels["k"])
				e.Task.Labels["k"] = "changed"
				if e.Task.Attempts != nil {
					require.NotEqual(t, 99, e.Task.Attempts[0].Number)
					e.Task.Attempts[0].Number = 99
				}
				if e.Task.Status.Terminal() {
					break
				}
			}
		}
		require.Len(t, hooked.all(), 1)
		require.Equal(t, "v", get(t, m, id).Labels["k"])
	})
}

// A subscriber may call the manager from its loop.
func TestSubscriberCallsTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, timed(), Config{})
		events := subscribe(t, m, Filter{}, TopicStatus)
		launch(t, m, taking("p", "1h"))
		ended := 0
		for e := range events {
			switch {
			case e.Task.Status == Running:
				_, err := m.Cancel(t.Context(), e.Task.ID, CancelOptions{})
				require.NoError(t, err)
			case e.Task.Status == Cancelled && ended < 3:
				ended++
				launch(t, m, taking("p", "1h"))
				m.List(Filter{})
				m.Stats()
			case e.Task.Status == Cancelled:
				require.NoError(t, m.Close())
			}
		}
		require.Equal(t, 4, m.Stats().Tasks[Cancelled])
	})
}

// Without a listener a launch and what the host tells cost what they did.
func TestEventsCostNothing(t *testing.T) {
	m := &BackgroundManager{subscriptions: map[*subscription]struct{}{}}
	task, e := &task{}, &SessionEvent{Kind: EventText}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.emitLocked(task, TopicProgress, e)
		m.emitLocked(task, TopicStatus, nil)
	}))
	require.EqualValues(t, 202, task.events)
}
