package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Client is a scripted fake SessionClient. Make one with [NewClient].
type Client struct {
	tb     testing.TB
	script func(Call) Action

	mu         sync.Mutex // guards all below
	let        chan struct{}
	calls      []Call
	seen       map[callKey]int
	sessions   map[subagent.SessionID]*session
	order      []*session
	running    int
	maxRunning int
	violations []string
}

type callKey struct {
	op   Op
	task subagent.TaskID
}

type session struct {
	SessionState
	stop     chan struct{} // closed to end the turn; nil without one
	aborting int
	inPrompt bool
}

// NewClient makes a fake. script decides about each call and may be nil; it is
// called without locks, from the goroutine of the call. When the test ends, calls
// that hang are let go and [Client.Check] is run.
func NewClient(tb testing.TB, script func(Call) Action) *Client {
	if script == nil {
		script = func(Call) Action { return Action{} }
	}
	c := &Client{
		tb: tb, script: script, let: make(chan struct{}),
		seen: map[callKey]int{}, sessions: map[subagent.SessionID]*session{},
	}
	tb.Cleanup(func() {
		c.Let()
		c.Check()
	})
	return c
}

// Let ends every call that hangs, now and from now on, deaf or not.
func (c *Client) Let() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.let:
	default:
		close(c.let)
	}
}

// note logs a call and asks the script about it.
func (c *Client) note(call Call) Action {
	c.mu.Lock()
	if s := c.sessions[call.Session]; s != nil && call.Task == "" {
		call.Task, call.Attempt = s.Task, s.Attempt
	}
	key := callKey{call.Op, call.Task}
	call.N = c.seen[key]
	call.At = time.Now()
	c.seen[key]++
	c.calls = append(c.calls, call)
	c.mu.Unlock()
	return c.script(call)
}

// pause is the part before a call's answer; cut is closed by an Abort.
func (c *Client) pause(ctx context.Context, a Action, cut <-chan struct{}) error {
	var timer <-chan time.Time
	if !a.Hang {
		if a.Delay == 0 {
			return nil
		}
		t := time.NewTimer(a.Delay)
		defer t.Stop()
		timer = t.C
	}
	done := ctx.Done()
	if a.Deaf {
		done, cut = nil, nil
	}
	select {
	case <-timer:
		return nil
	case <-c.let:
		return nil
	case <-cut:
		return errAborted
	case <-done:
		return context.Cause(ctx)
	}
}

var errAborted = errors.New("aborted")

// Create implements subagent.SessionClient.
func (c *Client) Create(ctx context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	a := c.note(Call{Op: OpCreate, Task: req.Task, Attempt: req.Attempt, Create: req})
	err := c.pause(ctx, a, nil)
	switch {
	case a.Panic != nil:
		panic(a.Panic)
	case err != nil:
		return "", err
	case a.NoID:
		return "", nil
	case a.ID != "":
		c.open(req, a.ID, false)
		return a.ID, a.Err
	case a.Err != nil && !a.Made && !a.Lost:
		return "", a.Err
	}
	id := c.open(req, "", a.Lost)
	if a.Lost {
		return "", a.Err
	}
	return id, a.Err
}

// open makes a session; one whose id is in use stays what it was, and one that
// was released begins anew.
func (c *Client) open(req subagent.CreateRequest, id subagent.SessionID, lost bool) subagent.SessionID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		if s.Released && !s.Running {
			s.SessionState = SessionState{ID: id, Task: req.Task, Attempt: req.Attempt}
		}
		return id
	}
	for n := len(c.order) + 1; id == ""; n++ {
		if next := subagent.SessionID(fmt.Sprintf("ses_%d", n)); c.sessions[next] == nil {
			id = next
		}
	}
	s := &session{SessionState: SessionState{ID: id, Task: req.Task, Attempt: req.Attempt, Lost: lost}}
	c.sessions[id] = s
	c.order = append(c.order, s)
	return id
}

// Prompt implements subagent.SessionClient.
func (c *Client) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	s := c.begin(ctx, id, p)
	if s == nil {
		return subagent.Result{}, &subagent.SessionError{Op: "prompt", Session: id, Class: subagent.ClassInvalid, Err: errors.New("no such session")}
	}
	defer c.leave(s)
	a := c.note(Call{Op: OpPrompt, Task: p.Task, Attempt: p.Attempt, Session: id, Prompt: p})
	stop := c.turn(s, a.Deaf)
	if a.Orphan {
		if err := c.pause(ctx, Action{Delay: a.Delay}, stop); err != nil {
			return subagent.Result{}, err
		}
		return subagent.Result{}, a.Err // the turn goes on
	}
	err := c.pause(ctx, a, stop)
	if err != nil && !errors.Is(err, errAborted) {
		return subagent.Result{}, err // the caller gave up; the host's turn goes on
	}
	c.rest(s)
	if a.Panic != nil {
		panic(a.Panic)
	}
	if err == nil {
		err = a.Err
	}
	return a.result(), err
}

func (a Action) result() subagent.Result {
	switch {
	case a.Result != nil:
		return *a.Result
	case a.Empty:
		return subagent.Result{Empty: true}
	case a.Blank:
		return subagent.Result{Text: " \n"}
	case a.Text != "":
		return subagent.Result{Text: a.Text}
	}
	return subagent.Result{Text: "ok"}
}

// begin checks that the manager may prompt now.
func (c *Client) begin(ctx context.Context, id subagent.SessionID, p subagent.Prompt) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	switch {
	case s == nil:
		c.violate("prompt of session %q, which was never made", id)
		return nil
	case s.inPrompt:
		c.violate("two prompts of session %s at the same time", id)
	case s.Released:
		c.violate("prompt of session %s after its release", id)
		return nil
	case s.Lost:
		c.violate("prompt of session %s, whose id was never returned", id)
	case s.Task != p.Task:
		c.violate("prompt of session %s for task %s, made for task %s", id, p.Task, s.Task)
	}
	if ctx.Err() != nil && s.aborting == 0 && s.Aborts+s.Refused == 0 {
		c.violate("prompt of session %s with a context that has ended", id)
	}
	s.inPrompt = true
	s.Prompts++
	return s
}

func (c *Client) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.inPrompt = false
}

// turn starts a turn in the host.
func (c *Client) turn(s *session, deaf bool) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.Running {
		c.running++
		c.maxRunning = max(c.maxRunning, c.running)
	}
	s.Running, s.Deaf, s.stop = true, deaf, make(chan struct{})
	return s.stop
}

// rest ends the turn in the host.
func (c *Client) rest(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Running {
		s.Running = false
		c.running--
		close(s.stop)
	}
}

// Abort implements subagent.SessionClient.
func (c *Client) Abort(ctx context.Context, id subagent.SessionID) error {
	s := c.aborting(id, +1)
	a := c.note(Call{Op: OpAbort, Session: id})
	defer c.aborting(id, -1)
	err := c.pause(ctx, a, nil)
	if s == nil {
		return err
	}
	if err == nil {
		err = a.Err
	}
	if err != nil || a.Panic != nil {
		c.mu.Lock()
		s.Refused++
		c.mu.Unlock()
		if a.Panic != nil {
			panic(a.Panic)
		}
		return err
	}
	return c.stop(s)
}

func (c *Client) aborting(id subagent.SessionID, by int) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil {
		if by > 0 {
			c.violate("abort of session %q, which was never made", id)
		}
		return nil
	}
	s.aborting += by
	return s
}

// stop ends a turn, if it can be ended.
func (c *Client) stop(s *session) error {
	c.mu.Lock()
	deaf := s.Running && s.Deaf
	if deaf {
		s.Refused++
	} else {
		s.Aborts++
	}
	c.mu.Unlock()
	if deaf {
		return &subagent.SessionError{Op: "abort", Session: s.ID, Err: errors.New("the turn does not listen")}
	}
	c.rest(s)
	return nil
}

// Release implements subagent.Releaser.
func (c *Client) Release(ctx context.Context, id subagent.SessionID) error {
	a := c.note(Call{Op: OpRelease, Session: id})
	if err := c.pause(ctx, a, nil); err != nil {
		return err
	}
	if a.Panic != nil {
		panic(a.Panic)
	}
	if a.Err != nil {
		return a.Err
	}
	c.mu.Lock()
	s := c.sessions[id]
	if s == nil {
		c.violate("release of session %q, which was never made", id)
	} else {
		s.Released = true
	}
	c.mu.Unlock()
	return nil
}

func (c *Client) violate(format string, args ...any) {
	c.violations = append(c.violations, fmt.Sprintf(format, args...))
}
