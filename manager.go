package subagent

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/seed-48fd9ae4/subagent/internal/heap"
)

var (
	// ErrClosed: the manager was shut down.
	ErrClosed = errors.New("subagent: manager closed")
	// ErrNotFound: no task of this manager has the id or session, or matches.
	ErrNotFound = errors.New("subagent: no such task")
)

var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// BackgroundManager launches child agents, holds them to their limits, and tells
// each parent when its children have ended. Make one with [New]: the zero value is
// not usable, and what would change it is refused. All methods may be called from any
// number of goroutines, also from within a child.
//
// An idle manager has no goroutine.
type BackgroundManager struct {
	client SessionClient
	caps   capabilities
	epoch  time.Time    // a moment before New; instants count from it
	log    *slog.Logger // nil: silent

	// life ends when Shutdown has waited long enough for deliveries and releases.
	life context.Context
	end  context.CancelFunc

	// mu guards everything below, and every record that hangs off it: the books.
	// Under it there is only plain data and the start of goroutines: no I/O, no
	// code of the host, no blocking send. It is the only lock.
	mu  sync.Mutex
	cfg Config // only the limits of Keys ever change

	seq       uint64  // enqueues so far
	numbered  int32   // launches so far
	tasks     []*task // in order of launch; of these …
	gaps      int32   // … so many are forgotten
	byID      map[TaskID]*task
	bySession map[SessionID]*task
	mailboxes map[SessionID]*mailbox
	roots     map[SessionID]*root
	live      int              // tasks that have not ended
	count     [numStatuses]int // tasks by status

	sems           semaphores        // with their queues
	global, starts *semaphore        // among them, for good
	fresh          heap.Heap[*queue] // queues to try in the next dispatch
	freed          []*semaphore      // semaphores with room to look at in it
	claimant       *ticket           // for which places are kept; see claim.go
	waiters        map[*waiter]struct{}

	attempts  []*attempt         // those with a call out
	spare     *attempt           // for one task to start in the goroutine that dispatches …
	handed    *attempt           // … and the same once it was taken
	reads     map[*read]struct{} // transcripts that are being read
	unstopped map[*task]struct{} // tasks with a child that may still be running
	watches   map[*watch]struct{}
	told      deliveries

	subscriptions map[*subscription]struct{}
	eventsLost    int // to subscribers
	hooks         hooking

	silent bool // the notifier turned out to be none

	deadlines heap.Heap[*deadline]
	timer     *time.Timer // the one timer; fires at or before the first deadline
	timerAt   instant     // 0: it is not set

	shelf    shelf
	book     serial[line]  // lines to be logged
	routines int           // goroutines of ours that run
	quiet    chan struct{} // closed when the last of them ends; made by Shutdown

	phase     phase
	releasing map[SessionID]release // sessions to be given up that are not yet
	hurry     chan struct{}         // closed when Shutdown may not wait for children any more
	hurried   bool
	shutdown  chan struct{} // closed when Shutdown is over
	closeErr  error         // its outcome
}

// New makes a manager over a client. It copies cfg, fills in the defaults and
// checks it; the error is an *[InputError] that names the field and the rule.
func New(client SessionClient, cfg Config) (*BackgroundManager, error) {
	if text := nilText(client); text != "" {
		return nil, &InputError{"client", text, "a SessionClient is needed"}
	}
	if text := nilText(cfg.Notifier); text != "" && cfg.Notifier != nil {
		return nil, &InputError{"Config.Notifier", text, "can't be called; leave it out for the default"}
	}
	if c, ok := client.(interface{ settings() error }); ok { // also a client that embeds one
		if err := c.settings(); err != nil {
			return nil, err
		}
	}
	cfg, err := cfg.prepared()
	if err != nil {
		return nil, err
	}
	m := &BackgroundManager{
		client:        client,
		caps:          capabilitiesOf(client),
		log:           cfg.Logger,
		cfg:           cfg,
		epoch:         time.Now().Add(-time.Nanosecond), // so that no instant is 0
		byID:          map[TaskID]*task{},
		bySession:     map[SessionID]*task{},
		mailboxes:     map[SessionID]*mailbox{},
		roots:         map[SessionID]*root{},
		waiters:       map[*waiter]struct{}{},
		reads:         map[*read]struct{}{},
		unstopped:     map[*task]struct{}{},
		watches:       map[*watch]struct{}{},
		subscriptions: map[*subscription]struct{}{},
		hooks:         hooking{table: cfg.Hooks.table(), out: map[*attempt]struct{}{}},
		releasing:     map[SessionID]release{},
		hurry:         make(chan struct{}),
		shutdown:      make(chan struct{}),
	}
	m.global = m.sems.add(&semaphore{key: Key{Kind: GlobalKey}, limit: cfg.Keys.Global})
	m.starts = m.sems.add(&semaphore{key: Key{Kind: StartsKey}, limit: cfg.Keys.Starts})
	m.shelf.deadline.owner = &m.shelf
	m.life, m.end = context.WithCancel(context.Background())
	if cfg.Notifier != nil {
		m.caps.notifier = cfg.Notifier
	}
	return m, nil
}

// nilText is v as Go writes it if it is nil, or holds a nil pointer or function; else "".
func nilText(v any) string {
	if v == nil {
		return "nil"
	}
	if r := reflect.ValueOf(v); (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil() {
		return fmt.Sprintf("(%T)(nil)", v)
	}
	return ""
}

// made refuses a manager that New did not make. What looks a task up by its id needs
// not ask: there is none.
func (m *BackgroundManager) made() error {
	if m == nil || m.client == nil {
		return &InputError{"BackgroundManager", "nil or its zero value", "make one with New"}
	}
	return nil
}

// Get returns a task. The error is [ErrNotFound], and a *[ForgottenError] for one of the
// last 10 000 tasks that were forgotten, see [Retention].
func (m *BackgroundManager) Get(id TaskID) (Task, error) { return m.get(host, id) }

func (m *BackgroundManager) get(by caller, id TaskID) (Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.reachLocked(by, id)
	if err != nil {
		return Task{}, err
	}
	m.seenLocked(by, t)
	return m.snapshotLocked(t), nil
}

// BySession returns the task that runs, or last ran, in a session. The error is
// as that of Get.
func (m *BackgroundManager) BySession(id SessionID) (Task, error) { return m.inSession(host, id) }

func (m *BackgroundManager) inSession(by caller, id SessionID) (Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.reachSessionLocked(by, id)
	if err != nil {
		return Task{}, err
	}
	m.seenLocked(by, t)
	return m.snapshotLocked(t), nil
}

// goLocked starts a goroutine of the manager's own: the only go statement.
func (m *BackgroundManager) goLocked(f func()) {
	m.routines++
	go func() {
		defer m.routineEnded()
		f()
	}()
}

func (m *BackgroundManager) routineEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routines--
	if m.routines == 0 && m.quiet != nil {
		m.phase = over // in this instant, so that nothing begins behind it
		close(m.quiet)
		m.quiet = nil
	}
}

// guard calls host code and makes a panic in it an error. What it can't stop is
// runtime.Goexit: whoever must know that the call is over has it in a defer.
func guard(op string, call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Op: op, Value: v, Stack: debug.Stack()}
		}
	}()
	return call()
}

// unlock releases mu after a change to the books: it starts what can start now.
func (m *BackgroundManager) unlock() {
	m.dispatchLocked()
	m.mu.Unlock()
}

// deadline is one entry of the heap that a single timer serves.
type deadline struct {
	at    instant
	owner interface {
		// dueLocked is called once the deadline has passed and left the heap.
		dueLocked(m *BackgroundManager, now instant)
	}
	place int
}

func (d *deadline) Before(o *deadline) bool { return d.at < o.at }
func (d *deadline) Place() *int             { return &d.place }

// armLocked sets a deadline, or moves it.
func (m *BackgroundManager) armLocked(d *deadline, at instant) {
	d.at = at
	m.deadlines.Push(d)
	m.setTimerLocked()
}

// setTimerLocked has the timer fire at the first deadline. A timer that fires
// too early is left alone: it looks and is set again.
func (m *BackgroundManager) setTimerLocked() {
	first, ok := m.deadlines.Top()
	if !ok || m.timerAt != 0 && first.at >= m.timerAt {
		return
	}
	m.timerAt = first.at
	wait := time.Duration(first.at - m.now())
	if m.timer == nil {
		m.timer = time.AfterFunc(wait, m.onTimer)
	} else {
		m.timer.Reset(wait)
	}
}

// disarmLocked takes a deadline back. The timer is left as it is: stopping and
// setting it with each task would cost more than one idle look.
func (m *BackgroundManager) disarmLocked(d *deadline) { m.deadlines.Remove(d) }

func (m *BackgroundManager) onTimer() {
	m.mu.Lock()
	defer m.unlock()
	m.timerAt = 0
	now := m.now()
	for d, ok := m.deadlines.Top(); ok && d.at <= now; d, ok = m.deadlines.Top() {
		m.deadlines.Remove(d)
		d.owner.dueLocked(m, now)
	}
	m.setTimerLocked()
}
