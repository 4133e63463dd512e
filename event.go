package subagent

import (
	"cmp"
	"fmt"
	"maps"
	"time"
)

// EventKind says what a [SessionEvent] tells.
type EventKind uint8

// The kinds of events. All but EventIdle, EventDeleted and EventInterrupted are
// activity: they move Progress.LastActivity.
const (
	EventActivity    EventKind = iota + 1 // something goes on; no more is known
	EventText                             // Text is a piece of the answer, or of the thoughts before it
	EventTool                             // Tool is a tool call that began, or has something new, or is over
	EventStep                             // a model call is over; Step is its number within the turn, from 1
	EventUsage                            // Usage is the turn's running total
	EventQuestion                         // the turn waits for an answer, until EventText, EventTool or EventStep; Text is the question
	EventWaiting                          // the turn waits for a permission; Text says for what
	EventRetrying                         // the host tries a model call again; Text says why
	EventBusy                             // a turn of the session goes on
	EventIdle                             // the session rests
	EventFailed                           // something went wrong; Err says what. It ends no task; a turn of [Blocking], if its class is final and not aborted
	EventDeleted                          // the session is no more
	EventInterrupted                      // somebody stopped the session's turn, as a user does; Config.Interrupted says what becomes of its children
	numEventKinds
)

var eventKinds = [numEventKinds]string{
	EventActivity: "activity", EventText: "text", EventTool: "tool", EventStep: "step", EventUsage: "usage",
	EventQuestion: "question", EventWaiting: "waiting", EventRetrying: "retrying",
	EventBusy: "busy", EventIdle: "idle", EventFailed: "failed", EventDeleted: "deleted",
	EventInterrupted: "interrupted",
}

// String is the kind in one word: "activity", "tool" and so on.
func (k EventKind) String() string {
	if k == 0 || k >= numEventKinds {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return eventKinds[k]
}

// SessionEvent is what a host tells of a session while it lives. It is progress and
// never an ending: a turn is over when Prompt returns. An event that comes twice does
// no harm.
type SessionEvent struct {
	Session SessionID // Prompt.OnEvent need not be told
	Kind    EventKind
	Text    string
	Tool    ToolCall
	Step    int
	Usage   Usage
	Err     error
}

// ToolCall is the state of one call of a tool.
type ToolCall struct {
	ID     string // of the call; calls are counted by it. "" counts as a call of its own
	Name   string
	Input  any // as the host has it; nil: unknown
	Over   bool
	Failed bool // and it is over
}

// Progress is what is known of a running turn, from the host's events.
type Progress struct {
	LastActivity time.Time // zero: none was heard of
	ToolCalls    int       // begun so far
	OpenTools    int       // of these, not over
	LastTool     string
	Steps        int
	Usage        Usage
	Retrying     string // why the host tries again; "" once it goes on
	Waiting      string // the question or permission that the turn waits for; "" once it goes on
}

// progress is a Progress as the books keep it, while there is any. Guarded by mu.
type progress struct {
	last             instant
	calls            map[string]bool // by id: whether it is open
	begun, open      int
	tool             string
	steps            int
	usage            Usage
	retrying, asking string
}

const (
	wordsKept = 200    // bytes of a text that only people read, and of a call's id
	callsKept = 10_000 // calls of one turn that are known by their ids, at most half of them open
)

// heard is what each kind of event does to the progress of a turn. Events go by value: a
// pointer in a call of one of these would cost each event an allocation.
var heard = [numEventKinds]func(*progress, SessionEvent){
	EventText:     func(p *progress, _ SessionEvent) { p.goesOn() },
	EventTool:     (*progress).toolCall,
	EventStep:     func(p *progress, e SessionEvent) { p.goesOn(); p.steps = max(p.steps, e.Step) },
	EventUsage:    func(p *progress, e SessionEvent) { p.usage = e.Usage },
	EventQuestion: func(p *progress, e SessionEvent) { p.asking = cmp.Or(cut(e.Text, wordsKept), "a question") },
	EventWaiting:  func(p *progress, e SessionEvent) { p.asking = cmp.Or(cut(e.Text, wordsKept), "a permission") },
	EventRetrying: func(p *progress, e SessionEvent) { p.retrying = cmp.Or(cut(e.Text, wordsKept), "a model call") },
	EventBusy:     func(p *progress, _ SessionEvent) { p.retrying = "" },
}

// goesOn: what the model says or does, it does not do while it waits.
func (p *progress) goesOn() { p.retrying, p.asking = "", "" }

// toolCall counts a call once, however often the host tells of it.
func (p *progress) toolCall(e SessionEvent) {
	p.goesOn()
	c := &e.Tool
	p.tool = cmp.Or(cut(c.Name, wordsKept), p.tool)
	id := cut(c.ID, wordsKept)
	open, known := p.calls[id]
	if !known || id == "" {
		p.begun++
	}
	if id == "" {
		return
	}
	if p.calls == nil {
		p.calls = map[string]bool{}
	}
	if !known && len(p.calls) >= callsKept {
		if p.open > callsKept/2 { // a host that never says that a call is over
			return
		}
		maps.DeleteFunc(p.calls, func(_ string, open bool) bool { return !open })
	}
	now := !c.Over && !c.Failed && (open || !known) // one that is over does not begin again
	p.calls[id] = now
	switch {
	case now && !open:
		p.open++
	case open && !now:
		p.open--
	}
}

// over lets go of what nobody needs once the run has ended.
func (p *progress) over() {
	if p != nil {
		p.goesOn()
		p.calls = nil
	}
}

func (p *progress) snapshot(m *BackgroundManager) Progress {
	if p == nil {
		return Progress{}
	}
	return Progress{
		LastActivity: m.time(p.last), ToolCalls: p.begun, OpenTools: p.open, LastTool: p.tool,
		Steps: p.steps, Usage: p.usage, Retrying: p.retrying, Waiting: p.asking,
	}
}

// EventSink is a client that wants the events of its host which are fed to
// BackgroundManager.HandleEvent, as the one of [Blocking] does. Without it they
// are for the manager alone.
type EventSink interface{ HandleEvent(SessionEvent) }

// HandleEvent takes in what a host tells of any session. For a child it counts only
// between the call and the return of its Prompt; but for EventDeleted, which at any
// time stops the session's task, with SessionDeleted, and all below it. What a task had
// left running that has ended before is then stopped with SessionDeleted too, and told to
// the next session above. The idling of a parent that was busy has it told what waits for
// it; a parent that is deleted and is no child is told nothing more, and what it launched,
// with all below that, is stopped with ParentGone (a session below it that is no task has
// an event of its own); for one that was interrupted see Config.Interrupted. What it
// does not know costs a look-up.
//
// It may be called from any goroutine and does not block. A host whose events come
// with the turn itself uses Prompt.OnEvent instead.
func (m *BackgroundManager) HandleEvent(e SessionEvent) {
	if m.handleEvent(e) && m.caps.sink != nil {
		m.passOn(e)
	}
}

func (m *BackgroundManager) passOn(e SessionEvent) {
	_ = guard("event", func() error { m.caps.sink.HandleEvent(e); return nil })
}

// handleEvent reports whether the session is known.
func (m *BackgroundManager) handleEvent(e SessionEvent) (known bool) {
	if e.Session == "" {
		return false
	}
	m.mu.Lock()
	t, b := m.bySession[e.Session], m.mailboxes[e.Session]
	if t == nil && b == nil {
		m.mu.Unlock()
		return false
	}
	defer m.unlock()
	if t != nil && t.session == e.Session {
		m.hearTaskLocked(t, e)
	}
	if b != nil {
		m.hearParentLocked(b, e)
	}
	return true
}

// onEvent is Prompt.OnEvent of one attempt.
func (m *BackgroundManager) onEvent(a *attempt, e SessionEvent) {
	m.mu.Lock()
	defer m.unlock()
	if a.current() {
		m.hearTaskLocked(a.task, e)
	}
}

func (m *BackgroundManager) hearTaskLocked(t *task, e SessionEvent) {
	if e.Kind == EventDeleted {
		t.deleted = true
		m.stopLocked(t, because(SessionDeleted, nil), false)
		return
	}
	if t.cur == nil && e.Kind != EventIdle && e.Kind != EventFailed && e.Kind != EventInterrupted {
		m.cameLateLocked(t)
	}
	if a := t.cur; a == nil || a.call != prompting || t.status == Stopping || e.Kind == EventIdle || e.Kind == EventInterrupted {
		return
	}
	p := t.progressLocked()
	p.last = m.now()
	if e.Kind < numEventKinds && heard[e.Kind] != nil {
		heard[e.Kind](p, e)
	}
	m.emitLocked(t, TopicProgress, &e)
	switch asks := p.asking != ""; {
	case asks && t.status == Running:
		m.transition(t, onAsk, nil)
	case !asks && t.status == InputNeeded:
		m.transition(t, onAnswer, nil)
	}
}

func (t *task) progressLocked() *progress {
	if t.said == nil {
		t.said = &said{}
	}
	if t.said.heard == nil {
		t.said.heard = &progress{}
	}
	return t.said.heard
}

func (m *BackgroundManager) hearParentLocked(b *mailbox, e SessionEvent) {
	switch {
	case e.Kind == EventIdle:
		m.idleLocked(b)
	case e.Kind == EventInterrupted:
		m.interruptedLocked(b)
	case e.Kind == EventDeleted:
		b.origin.gone = true
		m.stopBelowLocked(b, b.deletedCause())
		if !b.out() && b.deaf() {
			m.dropLocked(b)
		}
	}
}

// deletedCause is why what is below a deleted session is stopped. A task that had ended has
// no notice any more which could tell of what it left running: that is told by itself.
func (b *mailbox) deletedCause() ReasonCode {
	if b.child() != nil {
		return SessionDeleted
	}
	return ParentGone
}
