package subagent

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Topic says what an [Event] tells.
type Topic uint8

// The topics of events.
const (
	// TopicStatus: the status changed, to Task.Status. A run's first is Pending. A
	// terminal one comes exactly once per run, when Get, List and Wait show it too.
	TopicStatus Topic = iota + 1
	// TopicSession: the session was created. It is not prompted yet.
	TopicSession
	// TopicProgress: the host told of the turn, and it counts; see Event.Progress.
	// There may be very many: they come only to who asks for them.
	TopicProgress
	// TopicTold: the notice of a finished run was accepted, or drained. It comes again
	// if the session above must be told as well.
	TopicTold
	// TopicMoved: the task has another parent, by Resume or Track.
	TopicMoved
	// TopicForgotten: the task is kept no more, see Retention. It is the task's last event.
	TopicForgotten
	numTopics
)

var topicNames = [numTopics]string{
	TopicStatus: "status", TopicSession: "session", TopicProgress: "progress",
	TopicTold: "told", TopicMoved: "moved", TopicForgotten: "forgotten",
}

// String is the topic in one word: "status", "progress" and so on.
func (t Topic) String() string {
	return wordOf("Topic", topicNames[:], t)
}

// MarshalText writes the topic as its word.
func (t Topic) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a word that MarshalText wrote.
func (t *Topic) UnmarshalText(text []byte) error {
	return fromWord("Topic", topicNames[:], t, text)
}

// Event is one thing that became of a task: a value, safe to keep and to change.
type Event struct {
	// Seq counts what becomes of the task, from 1, whether or not anybody listens. It
	// grows from each of a task's events to the next; what a subscriber does not see
	// of it is of topics that it has not asked for, or Dropped.
	Seq   uint64
	Topic Topic
	Time  time.Time
	Run   int  // which run it is of: for TopicTold perhaps one before the present one
	Task  Task // as it was right after
	// Progress is what the host told, for TopicProgress; else zero. What Tool.Input
	// and Err refer to is the host's own.
	Progress SessionEvent
	// Dropped is how many events this subscription has lost right before this one; 0
	// for hooks, whose losses are counted in Stats alone.
	Dropped int
}

// clone is a copy that shares nothing with the original.
func (e Event) clone() Event {
	e.Task = e.Task.clone()
	return e
}

// maxEvents is how many events wait for one subscriber: those of well over a hundred
// whole runs, so that one that looks away for a moment loses nothing, at about 1 MB.
const maxEvents = 1024

// subscription is one Subscribe. Guarded by mu, but for what does not change.
type subscription struct {
	match  func(*task) bool
	topics [numTopics]bool
	wake   chan struct{} // has one element after an event, and at the end

	waiting []lateEvent
	lost    int  // events dropped since the last of those that wait
	ranged  bool // over its iterator
	over    bool // no more events come
}

// lateEvent is an event that waits for a subscriber; it is shared between them.
type lateEvent struct {
	*Event
	dropped int // lost right before it
}

// EventStats counts what was told by [BackgroundManager.Subscribe] and [Hooks] since New.
type EventStats struct {
	Subscribers  int // that have not ended
	Dropped      int // events that a subscriber had no room for, over all of them
	HooksWaiting int // calls of hooks that wait for those before them
	HooksDropped int // calls of hooks that found too many waiting, or waited when the manager was closed
	HooksFailed  int // calls of hooks that panicked, or ended their goroutine
}

// Subscribe registers for the events of tasks that match, as they come; without topics
// for all but TopicProgress. It counts from this call on, so that nothing is missed
// between it, a List, and the range over what it returned:
//
//	events, err := m.Subscribe(ctx, subagent.Filter{Parent: "main"})
//	…
//	tasks := m.List(subagent.Filter{Parent: "main"})
//	for e := range events {
//
// The events of a task come in their order. The iterator ends with ctx, with its loop,
// or after the last event once the manager is closed; it is good for one range, and
// further ones yield nothing. One that is never ranged over is kept until ctx ends.
//
// The manager does not wait for a subscriber: 1024 events are kept for it. On top of
// that an event of TopicProgress is dropped, and any other takes the place of the oldest.
// Event.Dropped and Stats count what was lost. The loop runs in the goroutine of the
// caller, and may call the manager.
//
// Filter.Statuses chooses events by the status that the task has at that moment: with
// TopicStatus alone, terminal ones make a subscription to endings. The error is an
// *[InputError], also for Filter.Limit and After, which are for List only; [ErrClosed];
// or ctx's own.
func (m *BackgroundManager) Subscribe(ctx context.Context, f Filter, topics ...Topic) (iter.Seq[Event], error) {
	return m.subscribeAs(ctx, host, f, topics)
}

func (m *BackgroundManager) subscribeAs(ctx context.Context, by caller, f Filter, topics []Topic) (iter.Seq[Event], error) {
	s, err := m.subscription(by, f, topics)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !m.subscribe(s) {
		return nil, ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { m.unsubscribe(s) })
	return func(yield func(Event) bool) {
		if !m.beginRange(s) {
			return
		}
		defer stop()
		defer m.unsubscribe(s)
		for e, ok := m.nextEvent(ctx, s); ok && yield(e); {
			e, ok = m.nextEvent(ctx, s)
		}
	}, nil
}

// subscription checks what is asked for.
func (m *BackgroundManager) subscription(by caller, f Filter, topics []Topic) (*subscription, error) {
	if err := f.whole("a subscription is for all that match"); err != nil {
		return nil, err
	}
	match, err := m.matcher(by.reaches, f)
	if err != nil {
		return nil, err
	}
	s := &subscription{match: match, wake: make(chan struct{}, 1)}
	for i, topic := range topics {
		if topic == 0 || topic >= numTopics {
			return nil, &InputError{fmt.Sprintf("topics[%d]", i), topic.String(), "must be one from TopicStatus to TopicForgotten"}
		}
		s.topics[topic] = true
	}
	if len(topics) == 0 {
		for topic := range s.topics {
			s.topics[topic] = Topic(topic) != TopicProgress
		}
	}
	return s, nil
}

func (m *BackgroundManager) subscribe(s *subscription) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase == over {
		return false
	}
	m.subscriptions[s] = struct{}{}
	return true
}

func (m *BackgroundManager) unsubscribe(s *subscription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.waiting = nil
	m.dismissSubscriberLocked(s)
}

// dismissSubscriberLocked: what waits for it can still be taken.
func (m *BackgroundManager) dismissSubscriberLocked(s *subscription) {
	s.over = true
	delete(m.subscriptions, s)
	s.wakeLocked()
}

// beginRange reports whether this range over the iterator is the first.
func (m *BackgroundManager) beginRange(s *subscription) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !s.ranged
	s.ranged = true
	return first
}

// nextEvent waits for an event; there is none when ctx or the subscription has ended.
func (m *BackgroundManager) nextEvent(ctx context.Context, s *subscription) (Event, bool) {
	for ctx.Err() == nil {
		late, over := m.takeEvent(s)
		if late.Event != nil {
			e := late.clone()
			e.Dropped = late.dropped
			return e, true
		}
		if over {
			break
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
	return Event{}, false
}

func (m *BackgroundManager) takeEvent(s *subscription) (late lateEvent, over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(s.waiting) > 0 {
		late = s.shiftLocked()
	}
	return late, s.over
}

// shiftLocked takes the oldest event.
func (s *subscription) shiftLocked() (oldest lateEvent) {
	oldest, s.waiting[0] = s.waiting[0], oldest
	s.waiting = s.waiting[1:]
	return oldest
}

func (s *subscription) wakeLocked() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// putLocked keeps an event for a subscriber and reports whether one was lost for that.
// Each loss is noted where it was: before the event that comes after it.
func (s *subscription) putLocked(e *Event) (lost bool) {
	lost = len(s.waiting) >= maxEvents
	if lost && e.Topic == TopicProgress {
		s.lost++
		return true
	}
	if lost {
		oldest := s.shiftLocked()
		s.waiting[0].dropped += oldest.dropped + 1
	}
	s.waiting = append(s.waiting, lateEvent{e, s.lost})
	s.lost = 0
	s.wakeLocked()
	return lost
}

// emitLocked tells whoever listens what has just become of a task. heard is what the
// host told, for TopicProgress.
func (m *BackgroundManager) emitLocked(t *task, topic Topic, heard *SessionEvent) {
	m.emitOfLocked(t, t.run, topic, heard)
}

// emitOfLocked is emitLocked for a run of the task that need not be the present one.
func (m *BackgroundManager) emitOfLocked(t *task, run int32, topic Topic, heard *SessionEvent) {
	t.events++
	if len(m.subscriptions) > 0 || m.hooks.table != nil {
		m.publishLocked(t, run, topic, heard)
	}
}

// publishLocked makes the event, if anybody wants it: one for all.
func (m *BackgroundManager) publishLocked(t *task, run int32, topic Topic, heard *SessionEvent) {
	if m.phase == over {
		return
	}
	var e *Event
	for s := range m.subscriptions {
		if !s.topics[topic] || !s.match(t) {
			continue
		}
		if e == nil {
			e = m.eventLocked(t, run, topic, heard)
		}
		if s.putLocked(e) {
			m.eventsLost++
		}
	}
	if call := m.hooks.of(topic, t.status); call != nil {
		if e == nil {
			e = m.eventLocked(t, run, topic, heard)
		}
		m.callHookLocked(hookCall{call, e})
	}
}

func (m *BackgroundManager) eventLocked(t *task, run int32, topic Topic, heard *SessionEvent) *Event {
	e := &Event{Seq: t.events, Topic: topic, Time: time.Now(), Run: int(run)}
	m.copyLocked(&e.Task, t)
	if heard != nil {
		e.Progress = *heard
		e.Progress.Session = t.session // Prompt.OnEvent need not be told
	}
	return e
}

// emitToldLocked tells that the notices of runs were taken.
func (m *BackgroundManager) emitToldLocked(told []due) {
	for _, d := range told {
		m.emitOfLocked(d.task, d.run, TopicTold, nil)
	}
}

// endEventsLocked is the end of all subscriptions and hooks: the manager is closed.
func (m *BackgroundManager) endEventsLocked() {
	for s := range m.subscriptions {
		m.dismissSubscriberLocked(s)
	}
	m.hooks.dropped += len(m.hooks.calls.waiting)
	m.hooks.calls.waiting = nil
}

func (m *BackgroundManager) eventStatsLocked() EventStats {
	return EventStats{
		Subscribers: len(m.subscriptions), Dropped: m.eventsLost,
		HooksWaiting: len(m.hooks.calls.waiting), HooksDropped: m.hooks.dropped, HooksFailed: m.hooks.failed,
	}
}
