package subagent

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"
	"time"
)

// AsyncClient is a host that takes a prompt and goes on by itself. How its turn fares
// is told by events, which may be missing, late or double, and found out by asking.
// [Blocking] makes a [SessionClient] of it.
//
// All methods may be called concurrently. The context of each call but Create's ends
// after BlockingConfig.Call. What is said of errors and panics of a SessionClient
// holds.
type AsyncClient interface {
	// Create opens a session and starts nothing.
	Create(ctx context.Context, req CreateRequest) (SessionID, error)

	// Send hands a prompt over and returns when the host has taken it; what came
	// before belongs to an earlier one. The mark that it returns names the prompt to
	// Output and is nobody else's business. An error of class invalid, auth,
	// permission, quota, agent_not_found, model_not_found, context_length or aborted
	// says that it was not taken, and so does one with [ErrNotSent] in its chain; after
	// any other it may have been, so that it is not sent again but looked for, and may
	// arrive whenever the line lets it: unless it was seen to, Prompt's error is
	// [ErrInDoubt].
	Send(ctx context.Context, session SessionID, p Prompt) (mark any, err error)

	// Abort has the host stop what a session does. It may return before that has
	// come to rest; an idle or unknown session is nil.
	Abort(ctx context.Context, session SessionID) error

	// Statuses says where sessions are: those that are asked for, in as few calls of
	// the host as can be, and any others. A session that is missing is not busy. An
	// error says nothing about any session.
	Statuses(ctx context.Context, of []SessionID) (map[SessionID]HostStatus, error)

	// Output reads what a session has made of the prompt with that mark; mark is nil
	// if Send returned none.
	Output(ctx context.Context, session SessionID, mark any) (Answer, error)

	// Exists reports whether the host has such a session.
	Exists(ctx context.Context, session SessionID) (bool, error)
}

// HostStatus is where a host says that a session is.
type HostStatus uint8

const (
	HostUnknown     HostStatus = iota // nothing that the adapter knows: taken for HostIdle
	HostBusy                          // a turn goes on
	HostRetrying                      // and waits to try a model call again
	HostIdle                          // none does
	HostEnded                         // none does, and the last one did not end well
	HostUnreachable                   // it can't be said now, as when Statuses failed for this session alone: changes nothing
)

func (s HostStatus) busy() bool { return s == HostBusy || s == HostRetrying }

// Answer is what a session has made of one prompt so far.
type Answer struct {
	Text  string
	Usage Usage
	// Evidence says that the model has done something for this prompt: text, thoughts
	// or a tool call. Blank text, a turn of no tokens and what was there before are
	// none. Without it a session that rests has not answered yet.
	Evidence bool
	// Empty is the host's word that this prompt was answered, and that there is no text:
	// Result.Empty. A message that is only blank so far is no such word; if nothing
	// better comes, a blank turn ends after Misses and one more polls.
	Empty bool
	// Unfinished says that the last message is not complete.
	Unfinished bool
	// OpenTodos is how many things the session's own list says are still to be done.
	OpenTodos int
	// Err says that the turn failed. Beside Unfinished it says why, if the session goes
	// on resting.
	Err error
}

// BlockingConfig says how [Blocking] watches its turns. The zero value works.
type BlockingConfig struct {
	// Poll is the pause between two looks at all sessions, beside the events; Off
	// relies on events alone. Defaults to 3 s.
	Poll time.Duration
	// Settle is the pause before a session that rests without a whole answer is looked
	// at again. Defaults to 250 ms.
	Settle time.Duration
	// Started is how long a prompt may go without a sign of life, since some errors
	// come after it was taken. While the host can't be asked it goes on. Defaults to
	// 60 s.
	Started time.Duration
	// Misses is how many polls in a row may not know a session before it is asked
	// for, and how many may find it resting with an answer that is not whole before the
	// next one decides. Defaults to 3.
	Misses int
	// Parallel bounds the calls that look after single sessions. Defaults to 8.
	Parallel int
	// Call bounds each call of the host but Create, which has TaskLimits.Start; of its
	// abilities Steer and LastPrompt, since who calls the others bounds them.
	// Defaults to 10 s.
	Call time.Duration
}

// Blocking makes a [SessionClient] of a host that does not wait. Prompt returns when
// there is evidence that the turn is over: the session rests, as an event or a poll
// says, and has made something of this prompt. What can't be found out changes
// nothing, and in particular ends no turn.
//
// Feed the host's events to BackgroundManager.HandleEvent, which passes them on; the
// client has no goroutine and no timer while no turn is out. After a gap in the
// stream call Resync. Abilities of the host ([Releaser], [Steerer],
// [LineageResolver], [Notifier], [ReceiptChecker], [TranscriptReader]) are passed
// through; with a [LastPrompter] it is an [Attacher] too. A turn into which a message is
// being steered is not over. A bad setting is an *[InputError] of [New].
func Blocking(host AsyncClient, cfg BlockingConfig) *BlockingClient {
	b := &BlockingClient{host: host, cfg: cfg, turns: map[SessionID]*hostTurn{}}
	b.err = b.cfg.prepare()
	if text := nilText(host); text != "" {
		b.err = &InputError{"the host of Blocking", text, "an AsyncClient is required"}
	}
	b.slots = make(chan struct{}, max(b.cfg.Parallel, 1))
	return b
}

// prepare fills in the defaults and checks the rest.
func (c *BlockingConfig) prepare() error {
	for _, d := range []struct {
		field string
		at    *time.Duration
		def   time.Duration
		off   bool
	}{
		{"Poll", &c.Poll, 3 * time.Second, true}, {"Settle", &c.Settle, 250 * time.Millisecond, false},
		{"Started", &c.Started, time.Minute, false}, {"Call", &c.Call, 10 * time.Second, false},
	} {
		*d.at = cmp.Or(*d.at, d.def)
		if v := *d.at; v > maxPause || v < leastTime && (v != Off || !d.off) {
			return &InputError{"BlockingConfig." + d.field, offOr(v, v.String()), pauseRule(d.off)}
		}
	}
	for _, n := range []struct {
		field string
		at    *int
		def   int
	}{{"Misses", &c.Misses, 3}, {"Parallel", &c.Parallel, 8}} {
		if *n.at = cmp.Or(*n.at, n.def); *n.at < 1 {
			return &InputError{"BlockingConfig." + n.field, offOr(*n.at, strconv.Itoa(*n.at)), leastRule(1)}
		}
	}
	return nil
}

// maxPause is far beyond what is of use, and can be multiplied.
const maxPause = 24 * time.Hour

func pauseRule(off bool) string {
	if off {
		return "must be between 1ms and 24h, 0 for the default, or Off"
	}
	return "must be between 1ms and 24h, or 0 for the default"
}

// BlockingClient is what [Blocking] makes.
type BlockingClient struct {
	host  AsyncClient
	cfg   BlockingConfig
	err   error         // what is wrong with cfg; New returns it
	slots chan struct{} // one element per call that looks after a single session

	mu      sync.Mutex // guards all below, and the state of every turn
	turns   map[SessionID]*hostTurn
	asks    int           // calls of Statuses so far
	polling bool          // the poller runs
	resync  chan struct{} // has an element to have it look now
	looks   int           // of the poller, that have not come back …
	stuck   int           // … and of these, the ones whose context has ended
	// cancelLook has the newest one come back now.
	cancelLook context.CancelFunc
}

// hostTurn is one Prompt or Attach that is out. Guarded by the client's mu but for session and
// wake, which do not change.
type hostTurn struct {
	session SessionID
	wake    chan struct{} // has an element when there is something new
	turnState
}

// turnState is what is known of a turn.
type turnState struct {
	signs   int   // of life so far: text, tools, a busy session and so on
	resting bool  // the last word is that the session rests …
	ended   bool  // … and that its turn did not end well
	sent    bool  // Send has returned, or it was somebody else's
	gap     bool  // before it did, events may have been missed
	arrived bool  // the host has something to show for the prompt
	since   int   // which calls of Statuses began too early to know where it is: those up to this one
	asked   bool  // Abort was called …
	aborted bool  // … and has seen the session rest
	deleted bool  // the session is no more
	misses  int   // polls in a row that did not know the session
	rests   int   // polls in a row that found it resting, or did not know it
	failed  error // a terminal error that an event told of
	trouble error // the last other one
	steers  int   // calls of Steer so far …
	steered int   // … and of these, over
}

var (
	// ErrSessionGone: the host does not know the session any more.
	ErrSessionGone = errors.New("subagent: session gone")

	// ErrNotSent: the host never saw the prompt, as when there is no connection. After it
	// nothing needs to be stopped.
	ErrNotSent = errors.New("subagent: not sent")

	// ErrInDoubt: Prompt failed, and its prompt may come yet, however well the session
	// rests. The task is marked as not known to be stopped until a Release of its session
	// returns nil; an event that shows it at work has it aborted, and then it has come.
	ErrInDoubt = errors.New("the prompt may still be on its way to the host")

	errNotStarted = errors.New("there was no sign of life within BlockingConfig.Started")
	errUnfinished = errors.New("the session rests and its answer is not complete")
	errEnded      = errors.New("the host ended the turn")
)

// finalClasses are the classes of an error of Send after which nothing was sent, and of
// an error of a turn after which it does not go on.
var finalClasses = map[Class]bool{
	ClassInvalid: true, ClassAuth: true, ClassPermission: true, ClassQuota: true, ClassAgentNotFound: true,
	ClassModelNotFound: true, ClassContextLength: true, ClassAborted: true,
}

// isAborted is also true of an error that says that there is no such session: after
// either, nothing would be stopped any more.
func isAborted(err error) bool {
	var said *SessionError
	return errors.As(err, &said) && said != nil && said.Class == ClassAborted || goneFrom(err)
}

func isFinal(err error) bool {
	var said *SessionError
	return errors.As(err, &said) && said != nil && finalClasses[said.Class]
}

// Create is the host's.
func (b *BlockingClient) Create(ctx context.Context, req CreateRequest) (SessionID, error) {
	if b.err != nil {
		return "", b.err
	}
	return b.host.Create(ctx, req)
}

// Prompt sends a prompt and waits for its turn to be over.
func (b *BlockingClient) Prompt(ctx context.Context, id SessionID, p Prompt) (Result, error) {
	t, err := b.begin(ctx, id, false)
	if err != nil {
		return Result{}, err
	}
	defer b.end(t)
	mark, sendErr := b.send(ctx, t, p)
	if isFinal(sendErr) || errors.Is(sendErr, ErrNotSent) {
		return Result{}, sendErr
	}
	r, err := b.turn(ctx, t, mark, sendErr)
	if s := b.state(t); sendErr != nil && err != nil && s.signs == 0 && !s.arrived && !goneFrom(err) {
		err = &SessionError{Op: "prompt", Session: id, Class: ClassUnavailable, Err: errors.Join(sendErr, ErrInDoubt)}
	}
	return r, err
}

func (b *BlockingClient) turn(ctx context.Context, t *hostTurn, mark any, sendErr error) (Result, error) {
	id := t.session
	if b.state(t).asked { // the abort may have come before the prompt
		err := b.call(context.WithoutCancel(ctx), func(ctx context.Context) error { return b.Abort(ctx, id) })
		if err != nil {
			return Result{}, &SessionError{Op: "prompt", Session: id, Err: err}
		}
	}
	return b.await(ctx, t, mark, sendErr)
}

// send hands the prompt over. It is not cut short by an abort that overtakes it: what
// had been sent by then, the host might take when nobody looks any more.
func (b *BlockingClient) send(ctx context.Context, t *hostTurn, p Prompt) (mark any, err error) {
	err = b.call(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
		mark, err = b.host.Send(ctx, t.session, p)
		return err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	t.sent, t.since = true, b.asks
	if t.gap {
		b.resyncLocked()
	}
	return mark, err
}

// call gives a call of the host its time.
func (b *BlockingClient) call(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Call)
	defer cancel()
	return do(ctx)
}

// begin enters a turn; one that somebody else began the host has already.
func (b *BlockingClient) begin(ctx context.Context, id SessionID, attached bool) (*hostTurn, error) {
	if b.err != nil {
		return nil, b.err
	}
	if ctx.Err() != nil {
		return nil, &SessionError{Op: "prompt", Session: id, Class: ClassUnknown, Err: context.Cause(ctx)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.turns[id] != nil {
		return nil, &SessionError{Op: "prompt", Session: id, Class: ClassInvalid, Err: errBusy}
	}
	t := &hostTurn{session: id, wake: make(chan struct{}, 1)}
	t.sent, t.since = attached, b.asks
	b.turns[id] = t
	if b.cfg.Poll != Off {
		b.pollLocked()
	}
	return t, nil
}

func (b *BlockingClient) end(t *hostTurn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.turns, t.session)
	if len(b.turns) > 0 {
		return
	}
	b.lookNow()
	if b.cancelLook != nil {
		b.cancelLook()
	}
}

func (b *BlockingClient) state(t *hostTurn) turnState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.turnState
}

// news is called, under mu, when something of a turn has changed.
func (t *hostTurn) news() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// HandleEvent takes in what the host tells of a session; BackgroundManager.HandleEvent
// calls it.
func (b *BlockingClient) HandleEvent(e SessionEvent) {
	final := e.Kind == EventFailed && isFinal(e.Err) // looks into an error of the host: not under mu
	aborted := final && isAborted(e.Err)
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.turns[e.Session]
	if t == nil {
		return
	}
	switch {
	case e.Kind == EventIdle:
		t.resting = true
	case e.Kind == EventInterrupted: // no sign of life, and no proof that it rests
		return
	case e.Kind == EventDeleted:
		t.deleted = true
	case aborted: // which is no proof that it rests by now
		t.ended, t.trouble = true, e.Err
	case final:
		t.failed = e.Err
	case e.Kind == EventFailed:
		t.trouble = e.Err
	default:
		t.alive()
		return
	}
	t.news()
}

// alive is a sign of life.
func (t *hostTurn) alive() {
	t.signs++
	t.resting, t.ended, t.aborted, t.misses, t.rests = false, false, false, 0, 0
}
