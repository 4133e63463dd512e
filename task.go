package subagent

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// TaskID names a task for its whole life: "bg_" and 26 letters and digits that
// carry 122 random bits. An id is never used again.
type TaskID string

// Task is a snapshot of one delegated piece of work: a value, safe to keep and
// to change.
type Task struct {
	ID      TaskID
	Parent  SessionID // the session that asked; "" if none
	Root    SessionID // the end of the parent's own chain
	Session SessionID // the child's session; "" until there is one

	Agent, Model, Description, Origin string
	Labels                            map[string]string

	Key      Key // the queue it waits in
	Position int // place in that queue by age, from 1; 0 when it is not waiting
	// BlockedBy names the task's own ancestors when they hold all that it waits
	// for: it can't start before one of them ends or the limit is raised.
	BlockedBy []TaskID

	Depth    int // 1 for a root's child
	Run      int // 1 for the launch, and one more with each Resume
	Attempt  int // attempts so far, over all runs; a resumed run is one more, in the same session
	Status   Status
	Reason   *Reason  // why the run ended or is stopping; nil for a completed one
	Progress Progress // of the run's turn, as far as the host tells
	Result   Result   // of the last run that produced one
	// OpenChildren is how many tasks of the child's own are still live. A child
	// that completes leaves them running.
	OpenChildren int
	Attempts     []Attempt // of the last run; none while it waits for its lease

	Queued, Started, Ended time.Time // of the last run; zero where it did not come to that
}

// Attempt is one try of a run in one session.
type Attempt struct {
	Number  int
	Run     int
	Model   string
	Session SessionID
	Started time.Time
	Ended   time.Time // zero while it goes on
	// Unstopped says why the child may still be running although the attempt
	// has ended: its Abort failed, did not return in time, or was not wanted.
	// Nil: it is known to be at rest.
	Unstopped error
}

// MarshalJSON writes Unstopped as its text.
func (a Attempt) MarshalJSON() ([]byte, error) {
	type plain Attempt
	return json.Marshal(struct {
		plain
		Unstopped string `json:",omitempty"`
	}{plain(a), textOf(a.Unstopped)})
}

// UnmarshalJSON reads what MarshalJSON wrote; of the error the text remains.
func (a *Attempt) UnmarshalJSON(text []byte) error {
	type plain Attempt
	var j struct {
		plain
		Unstopped string
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*a = Attempt(j.plain)
	a.Unstopped = errorOf(j.Unstopped)
	return nil
}

// Status is where a task is. Why it is there is its [Reason].
type Status uint8

// The statuses. The last four are terminal.
const (
	none        Status = iota
	Pending            // waits in its queue
	Starting           // holds its lease; its session is being created
	Running            // its turn goes on
	InputNeeded        // its turn waits for an answer or a permission, as Progress.Waiting says
	Stopping           // its outcome is fixed; the child is coming to rest
	Completed          // ended well
	Failed             // ended without success
	Cancelled          // ended because somebody asked for it
	Interrupted        // ended with its outcome unknown, or from outside
	numStatuses

	byReason = numStatuses // in the table: the status that the reason calls for
)

var statusNames = [numStatuses + 1]string{
	none: "none", Pending: "pending", Starting: "starting", Running: "running",
	InputNeeded: "input_required", Stopping: "stopping", Completed: "completed",
	Failed: "failed", Cancelled: "cancelled", Interrupted: "interrupted", byReason: "by reason",
}

// String is the status in one word: "pending", "input_required" and so on.
func (s Status) String() string {
	return wordOf("Status", statusNames[:], s)
}

// MarshalText writes the status as its word.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a word that MarshalText wrote.
func (s *Status) UnmarshalText(text []byte) error {
	return fromWord("Status", statusNames[:numStatuses], s, text)
}

// Terminal reports whether a run in this status has ended.
func (s Status) Terminal() bool { return s >= Completed && s < numStatuses }

// trigger is what can happen to a task.
type trigger uint8

const (
	onSlot     trigger = iota // its lease was taken
	onPrompted                // its session is there and the prompt goes out
	onDone                    // the turn ended well
	onFail                    // the attempt failed and left nothing running
	onStop                    // it is to end, whatever the child does
	onStopped                 // the stopped child is at rest, or was given up
	onAsk                     // the turn waits for an answer
	onAnswer                  // the answer is there
	onRetry                   // the run goes back to a queue for another attempt
	onResume                  // a new run begins
	onRestore                 // found after a restart, its child out of reach
	numTriggers
)

var triggerNames = [numTriggers]string{
	"slot", "prompted", "done", "fail", "stop", "stopped", "ask", "answer", "retry", "resume", "restore",
}

// transitions is the whole state machine. An empty cell refuses the trigger, so
// that the first ending wins; docs/state_machine.md is printed from it.
var transitions = [numStatuses][numTriggers]Status{
	Pending:     {onSlot: Starting, onStop: byReason},
	Starting:    {onPrompted: Running, onFail: byReason, onStop: Stopping, onRetry: Pending, onRestore: byReason},
	Running:     {onDone: Completed, onFail: byReason, onStop: Stopping, onAsk: InputNeeded, onRetry: Pending, onRestore: byReason},
	InputNeeded: {onDone: Completed, onFail: byReason, onStop: Stopping, onAnswer: Running, onRetry: Pending, onRestore: byReason},
	Stopping:    {onStopped: byReason, onRetry: Pending, onRestore: byReason},
	Completed:   {onResume: Pending},
	Failed:      {onResume: Pending},
	Cancelled:   {onResume: Pending},
	Interrupted: {onResume: Pending},
}

// next is where a trigger takes a status for a reason; none if it is refused.
func next(s Status, on trigger, r *Reason) Status {
	to := transitions[s][on]
	if to == byReason {
		to = outcomes[r.Code]
	}
	return to
}

// task is the record behind a Task. Everything in it is guarded by the manager's mu.
type task struct {
	ticket // its place in the queues while it waits, and the limits it falls under

	id                 TaskID
	in                 captured    // at Launch; of it Prompt and Origin are the run's, and change only while none goes on
	limits             *TaskLimits // resolved; may be shared, and is never written to
	owner              *mailbox    // of the parent session
	own                *mailbox    // of its own session; nil while nothing was launched there
	root               *root
	number             int32 // order of launch
	run                int32
	attempts           int32  // made so far
	depth              int16  // at most maxLineage
	status             Status // written by transition alone
	silent             bool   // its ending is not told
	quiet              bool   // its ending asks for no turn
	attach             bool   // the run is a turn that somebody else began
	deleted            bool   // its session is no more
	shelved, forgotten bool   // by the retention
	tracked            bool   // its session was made elsewhere, and is not ours to give up
	prompted           bool   // a turn of its session has begun, or was to
	readers            int32  // that read its transcript
	past               int32  // notices that are owed for it and were written down
	session            SessionID
	reason             *Reason
	said               *said // nil: nothing was heard of it

	cur   *attempt // the live one, from its lease on to its end
	loose *loose   // what the last attempt left behind, if anything

	queueWait              *deadline // while it waits, if that is limited
	queued, started, ended instant
	events                 uint64  // told of it so far
	ending                 *ending // made by the first who waits for the run's end
}

// parent is the session that asked.
func (t *task) parent() SessionID { return t.owner.origin.Parent }

// instant is a time as the books keep it: since the manager was made, by the
// monotonic clock, and never 0 for one that has come.
type instant time.Duration

func (m *BackgroundManager) now() instant { return instant(time.Since(m.epoch)) }

// after is a later instant; for a d without end the last there is.
func (i instant) after(d time.Duration) instant {
	if d > math.MaxInt64-time.Duration(i) {
		return math.MaxInt64
	}
	return i + instant(d)
}

func (m *BackgroundManager) time(i instant) time.Time {
	if i == 0 {
		return time.Time{}
	}
	return m.epoch.Add(time.Duration(i))
}

// loose is what is known about a session that outlived its attempt, or that never
// became the task's.
type loose struct {
	session SessionID
	err     error // why it is not known to be at rest; nil once it is
	inDoubt bool  // as its prompt may still come …
	// … which is stopped just now, and can't once the session was given up.
	stopping, released bool
}

// randomness reads the system's in blocks, so that an id does not cost a call of it.
var randomness = sync.Pool{New: func() any { return bufio.NewReaderSize(rand.Reader, 512) }}

// newTaskID makes an id; it is called without the lock.
func newTaskID() TaskID {
	random := randomness.Get().(*bufio.Reader)
	defer randomness.Put(random)
	id := uuid.Must(uuid.NewRandomFromReader(random))
	text := [29]byte{'b', 'g', '_'}
	idEncoding.Encode(text[3:], id[:])
	return TaskID(text[:])
}

// transition is the only writer of a task's status. It reports whether the table
// allows the trigger; a refused one changes nothing. Whatever follows from where
// the task now is, for it and for its descendants, follows here.
func (m *BackgroundManager) transition(t *task, on trigger, r *Reason) bool {
	to := next(t.status, on, r)
	if to == none {
		return false
	}
	from := t.status
	m.count[from]--
	m.count[to]++
	t.status = to
	if r != nil {
		t.reason = r
	}
	m.logTransitionLocked(t, from)
	if !to.Terminal() && to != Pending { // that comes when it stands in line
		m.emitLocked(t, TopicStatus, nil)
	}
	doomed := t.reason.is(ParentGone)
	if doomed && from < Stopping || to.Terminal() && !doomed {
		t.inheritLocked()
	}
	if doomed && from < Stopping {
		m.doomLocked(t)
	}
	if to == Stopping || to.Terminal() && to != Completed {
		m.cascadeLocked(t)
	}
	if to.Terminal() {
		owed := m.settleLocked(t)
		m.emitLocked(t, TopicStatus, nil) // only now: it shows the whole ending
		if !owed {
			m.shelveLocked(t, t.run)
		}
	}
	return true
}

// settleLocked is the only ending: it gives back what the run held in the books
// and puts down what the parent is owed for it, if it is.
func (m *BackgroundManager) settleLocked(t *task) (owed bool) {
	t.ended = m.now()
	m.leaveQueueLocked(t)
	if t.queueWait != nil {
		m.disarmLocked(t.queueWait)
		t.queueWait = nil
	}
	if t.said != nil {
		t.said.heard.over()
	}
	m.live--
	t.root.live--
	m.forgetRootLocked(t.root)
	owed = m.oweLocked(t)
	if t.ending != nil {
		m.answerLocked(t)
	}
	m.tellWatchesLocked(t)
	return owed
}

// answerLocked gives everybody who waits for the run its ending.
func (m *BackgroundManager) answerLocked(t *task) {
	t.ending.ended = m.snapshotLocked(t)
	close(t.ending.done)
	t.ending = nil
}

// snapshotLocked copies a task out of the books.
func (m *BackgroundManager) snapshotLocked(t *task) (s Task) {
	m.copyLocked(&s, t)
	return s
}

// copyLocked makes a snapshot in place of a zero Task.
func (m *BackgroundManager) copyLocked(s *Task, t *task) {
	s.ID, s.Parent, s.Root, s.Session = t.id, t.parent(), t.root.id, t.session
	s.Agent, s.Model, s.Description, s.Origin = t.in.Agent, t.in.Model, t.in.Description, t.in.Origin
	s.Labels = maps.Clone(t.in.Labels)
	s.Key = keyOf(t.in.Agent, t.in.Model)
	s.Depth, s.Run, s.Attempt = int(t.depth), int(t.run), int(t.attempts)
	s.Status, s.Reason = t.status, t.reason.clone()
	s.Queued, s.Started, s.Ended = m.time(t.queued), m.time(t.started), m.time(t.ended)
	if t.said != nil {
		s.Progress = t.said.heard.snapshot(m)
		if t.said.produced {
			s.Result = t.said.result()
		}
	}
	if t.status == Pending {
		s.Position = t.position()
		s.BlockedBy = m.blockedByLocked(t)
	}
	if t.started != 0 || t.loose != nil {
		s.Attempts = []Attempt{m.attemptLocked(t)}
	}
	if t.own != nil {
		s.OpenChildren = t.own.live
	}
}

// clone is a copy that shares nothing with the original.
func (t Task) clone() Task {
	t.Labels, t.BlockedBy = maps.Clone(t.Labels), slices.Clone(t.BlockedBy)
	t.Reason, t.Attempts = t.Reason.clone(), slices.Clone(t.Attempts)
	return t
}

// attemptLocked is the record of a task's last attempt.
func (m *BackgroundManager) attemptLocked(t *task) Attempt {
	a := Attempt{
		Number: int(t.attempts), Run: int(t.run), Model: t.in.Model, Session: t.session,
		Started: m.time(t.started), Ended: m.time(t.ended),
	}
	if t.loose != nil {
		a.Session, a.Unstopped = t.loose.session, t.loose.err
	}
	return a
}
