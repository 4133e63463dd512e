package subagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// Turn is what a function given to [Func] works on: one prompt in one session.
// The text of the prompt is turn.Text, and so on for all fields of [Prompt].
type Turn struct {
	Prompt
	Create  CreateRequest // what the session was made from
	Session SessionID     // names the session; a child that launches is its Parent
	// History is the Result.History of the session's last turn that returned one;
	// nil at first.
	History any
	// Steered receives messages that came in while the turn runs, and those that
	// the session's last turn did not look at. Read it without blocking, say
	// before each step.
	Steered <-chan string
}

// steerBuffer is how many messages a turn of Func may be behind with.
const steerBuffer = 16

// Func makes a SessionClient of an agent loop that runs in this process: run is
// called once per turn and returns when the turn is over. It must end soon after
// ctx does; until then the child counts as running. An error fails the task, and
// text beside it is kept as partial; a [SessionError] says more. Func panics if run is
// nil.
//
// The client keeps each session's History until the session is released. It is
// also a [Steerer], an [Attacher] and a [Releaser]; what wraps it must pass these on. A child that
// launches children of its own names turn.Session as their Parent.
func Func(run func(ctx context.Context, turn Turn) (Result, error)) SessionClient {
	if run == nil {
		panic("subagent: Func of nil")
	}
	return &funcClient{run: run, sessions: map[SessionID]*funcSession{}}
}

type funcClient struct {
	run func(context.Context, Turn) (Result, error)

	mu       sync.Mutex // guards sessions and all in them
	sessions map[SessionID]*funcSession
}

type funcSession struct {
	create   CreateRequest
	history  any
	steered  chan string
	turn     *funcTurn // nil while the session rests
	last     *funcTurn // the one that was over last
	released bool      // to be forgotten once it rests
}

type funcTurn struct {
	cancel context.CancelFunc
	over   chan struct{} // closed when run has returned
	result Result        // when it has
	err    error
}

var (
	errNoSession = errors.New("no such session")
	errBusy      = errors.New("the session is in a turn already")
	errNoTurn    = errors.New("the session has had no turn yet")
	errFuncPanic = errors.New("the function of the turn panicked")
	errResting   = errors.New("the session is in no turn")
	errSteerFull = fmt.Errorf("%d messages wait already", steerBuffer)
)

func (c *funcClient) Create(_ context.Context, req CreateRequest) (SessionID, error) {
	id := SessionID("fn_" + uuid.NewString())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[id] = &funcSession{create: req, steered: make(chan string, steerBuffer)}
	return id, nil
}

func (c *funcClient) Prompt(ctx context.Context, id SessionID, p Prompt) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if ctx.Err() != nil {
		return Result{}, &SessionError{Op: "prompt", Session: id, Class: ClassAborted, Err: context.Cause(ctx)}
	}
	turn, live, err := c.begin(id, p, cancel)
	if err != nil {
		return Result{}, &SessionError{Op: "prompt", Session: id, Class: ClassInvalid, Err: err}
	}
	live.err = errFuncPanic // unless it returns
	defer func() { c.finish(id, live) }()
	r, err := c.told(ctx, id, turn)
	live.result, live.err = r, err
	return r, err
}

// told calls run, and makes a SessionError of what it returns.
func (c *funcClient) told(ctx context.Context, id SessionID, turn Turn) (Result, error) {
	r, err := c.run(ctx, turn)
	if err == nil && ctx.Err() != nil {
		// Some frameworks end a cancelled loop without an error.
		err = context.Cause(ctx)
	}
	var said *SessionError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err = &SessionError{Op: "prompt", Session: id, Class: ClassAborted, Err: err}
	case !errors.As(err, &said):
		err = &SessionError{Op: "prompt", Session: id, Err: err}
	}
	return r, err
}

func (c *funcClient) begin(id SessionID, p Prompt, cancel context.CancelFunc) (Turn, *funcTurn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil || s.released {
		return Turn{}, nil, errNoSession
	}
	if s.turn != nil {
		return Turn{}, nil, errBusy
	}
	s.turn = &funcTurn{cancel: cancel, over: make(chan struct{})}
	return Turn{Prompt: p, Create: s.create, Session: id, History: s.history, Steered: s.steered}, s.turn, nil
}

func (c *funcClient) finish(id SessionID, live *funcTurn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(live.over)
	s := c.sessions[id]
	s.turn, s.last = nil, live
	if h := live.result.History; h != nil {
		s.history = h
	}
	if s.released {
		delete(c.sessions, id)
	}
}

// Attach waits for the turn that the session is in, and returns what the last one did.
func (c *funcClient) Attach(ctx context.Context, id SessionID, _ Prompt) (Result, error) {
	c.mu.Lock()
	s := c.sessions[id]
	if s == nil || s.released {
		c.mu.Unlock()
		return Result{}, &SessionError{Op: "attach", Session: id, Class: ClassInvalid, Err: fmt.Errorf("%w: %w", errNoSession, ErrSessionGone)}
	}
	turn := cmp.Or(s.turn, s.last)
	c.mu.Unlock()
	if turn == nil {
		return Result{}, &SessionError{Op: "attach", Session: id, Class: ClassInvalid, Err: errNoTurn}
	}
	select {
	case <-turn.over:
		return turn.result, turn.err
	case <-ctx.Done():
		return Result{}, &SessionError{Op: "attach", Session: id, Err: context.Cause(ctx)}
	}
}

// Abort cancels the turn's context and returns when run has returned.
func (c *funcClient) Abort(ctx context.Context, id SessionID) error {
	c.mu.Lock()
	var live *funcTurn
	if s := c.sessions[id]; s != nil {
		live = s.turn
	}
	c.mu.Unlock()
	if live == nil {
		return nil
	}
	live.cancel()
	select {
	case <-live.over:
		return nil
	case <-ctx.Done():
		return &SessionError{Op: "abort", Session: id, Err: context.Cause(ctx)}
	}
}

// Steer puts a message into the turn that runs.
func (c *funcClient) Steer(_ context.Context, id SessionID, text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	switch {
	case s == nil || s.released:
		return &SessionError{Op: "steer", Session: id, Class: ClassInvalid, Err: errNoSession}
	case s.turn == nil:
		return &SessionError{Op: "steer", Session: id, Class: ClassInvalid, Err: errResting}
	}
	select {
	case s.steered <- text:
		return nil
	default:
		return &SessionError{Op: "steer", Session: id, Class: ClassOverloaded, Err: errSteerFull}
	}
}

// Release forgets a session and its history, once its turn is over.
func (c *funcClient) Release(_ context.Context, id SessionID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.turn != nil {
		s.released = true
	} else {
		delete(c.sessions, id)
	}
	return nil
}

var (
	_ Releaser = (*funcClient)(nil)
	_ Steerer  = (*funcClient)(nil)
	_ Attacher = (*funcClient)(nil)
)
