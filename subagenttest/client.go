package subagenttest

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Client is a scripted fake SessionClient. Make one with [NewClient].
type Client struct {
	tb     testing.TB
	script func(Call) Action
	let    chan struct{} // closed by Let
	letGo  sync.Once

	mu         sync.Mutex // guards all below, and all of every session
	over       bool       // Let was called
	closed     bool       // Closed was called
	calls      []Call
	seen       map[callKey]int
	out        map[*Call]context.Context // the Creates and Prompts that have not returned
	left       map[subagent.TaskID]bool  // LeftRunning
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

// NewClient makes a fake. script decides about each call and may be nil; it is
// called without locks, from the goroutine of the call. When the test ends, a
// manager that still has children out, and so was never closed, is reported, calls
// that hang are let go and [Client.Check] is run.
func NewClient(tb testing.TB, script func(Call) Action) *Client {
	if script == nil {
		script = func(Call) Action { return Action{} }
	}
	c := &Client{
		tb: tb, script: script, let: make(chan struct{}), seen: map[callKey]int{},
		out: map[*Call]context.Context{}, left: map[subagent.TaskID]bool{}, sessions: map[subagent.SessionID]*session{},
	}
	tb.Cleanup(func() {
		tb.Helper()
		out := c.leftOut() // before Let ends them
		c.Let()
		if out == nil {
			c.Check()
			return
		}
		tb.Errorf("subagenttest: close the manager before the test ends: calls are out: %s", strings.Join(out, ", "))
		c.fail(c.Violations()) // that turns go on is no wonder
	})
	return c
}

// Let ends every call that hangs or waits, now and from now on, deaf or not. It is
// called when the test ends; before that it plays a host that recovers.
func (c *Client) Let() {
	c.letGo.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.over = true
		close(c.let)
	})
}

// log puts a call down in the order of arrival.
func (c *Client) log(call Call) Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[call.Session]; s != nil && call.Task == "" {
		call.Task, call.Attempt = s.Task, s.Attempt
	}
	key := callKey{call.Op, call.Task}
	call.N = c.seen[key]
	call.At = time.Now()
	c.seen[key]++
	c.calls = append(c.calls, call)
	return call
}

// goesOut notes that a call is out, until back is called.
func (c *Client) goesOut(ctx context.Context, call *Call) (back func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out[call] = ctx
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.out, call)
	}
}

// pause is the part before a call's answer; stop is closed by an Abort.
func (c *Client) pause(ctx context.Context, a Action, stop <-chan struct{}) error {
	if !a.Hang && a.Delay <= 0 {
		return nil
	}
	var timer <-chan time.Time
	if !a.Hang {
		t := time.NewTimer(a.Delay)
		defer t.Stop()
		timer = t.C
	}
	done := ctx.Done()
	if a.Deaf {
		done, stop = nil, nil
	}
	select {
	case <-timer:
		return nil
	case <-c.let:
		return nil
	case <-stop:
		return errAborted
	case <-done:
		return context.Cause(ctx)
	}
}

var (
	errAborted   = errors.New("the turn was aborted")
	errDeaf      = errors.New("the turn does not listen")
	errClosed    = errors.New("the manager was closed")
	errNoSession = errors.New("no such session")
	errBusy      = errors.New("the session is in a turn already")
	errLost      = errors.New("the answer was lost")
)

// fault is an error of the fake's own, as an adapter would type it.
func fault(op Op, id subagent.SessionID, class subagent.Class, err error) error {
	return &subagent.SessionError{Op: string(op), Session: id, Class: class, Err: err}
}

// Create implements subagent.SessionClient.
func (c *Client) Create(ctx context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	call := c.log(Call{Op: OpCreate, Task: req.Task, Attempt: req.Attempt, Create: req})
	if c.isClosed(call) {
		return "", fault(OpCreate, "", subagent.ClassInvalid, errClosed)
	}
	defer c.goesOut(ctx, &call)()
	a := c.script(call)
	err := c.pause(ctx, a, nil)
	if err == nil {
		err = a.Err
	}
	var id subagent.SessionID
	answered := err == nil && a.Panic == nil && !a.NoID
	if answered || a.Made || a.Lost || a.ID != "" {
		id = c.open(req, a)
	}
	switch {
	case a.Panic != nil:
		panic(a.Panic)
	case a.Lost:
		return "", cmp.Or(err, errLost)
	}
	return id, err
}

// Prompt implements subagent.SessionClient.
func (c *Client) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	call := c.log(Call{Op: OpPrompt, Task: p.Task, Attempt: p.Attempt, Session: id, Prompt: p})
	if c.isClosed(call) {
		return subagent.Result{}, fault(OpPrompt, id, subagent.ClassInvalid, errClosed)
	}
	s, err := c.begin(call)
	if err != nil {
		return subagent.Result{}, fault(OpPrompt, id, subagent.ClassInvalid, err)
	}
	defer c.leave(s)
	c.say(s, subagent.RoleUser, p.Text)
	defer c.goesOut(ctx, &call)()
	a := c.script(call)
	stop := c.turn(s, call, a.Deaf)
	unwatch := context.AfterFunc(ctx, func() { c.cut(s, stop) })
	defer unwatch()

	err = c.pause(ctx, a, stop)
	cut := err != nil && !errors.Is(err, errAborted) // the caller gave up, not the host
	if !cut && !a.Orphan {
		c.rest(s)
	}
	switch {
	case cut:
		return subagent.Result{}, err
	case a.Panic != nil:
		panic(a.Panic)
	case err == nil && a.Orphan:
		return subagent.Result{}, cmp.Or(a.Err, errLost)
	}
	result := a.result()
	c.say(s, subagent.RoleAssistant, result.Text)
	if err != nil {
		return result, fault(OpPrompt, id, subagent.ClassAborted, err)
	}
	return result, a.Err
}

func (a Action) result() subagent.Result {
	switch {
	case a.Result != nil:
		return *a.Result
	case a.Empty:
		return subagent.Result{Empty: true}
	case a.Blank:
		return subagent.Result{Text: " \n"}
	}
	return subagent.Result{Text: cmp.Or(a.Text, "ok")}
}

// Abort implements subagent.SessionClient.
func (c *Client) Abort(ctx context.Context, id subagent.SessionID) error {
	call := c.log(Call{Op: OpAbort, Session: id})
	s := c.aborting(id)
	a := c.script(call)
	err := c.pause(ctx, a, nil)
	if err == nil {
		err = a.Err
	}
	refused := err != nil || a.Panic != nil
	if s != nil && c.aborted(s, refused) {
		err = fault(OpAbort, id, subagent.ClassUnknown, errDeaf)
	}
	if a.Panic != nil {
		panic(a.Panic)
	}
	return err
}

// Release implements subagent.Releaser.
func (c *Client) Release(ctx context.Context, id subagent.SessionID) error {
	a := c.script(c.log(Call{Op: OpRelease, Session: id}))
	err := c.pause(ctx, a, nil)
	if a.Panic != nil {
		panic(a.Panic)
	}
	if err = cmp.Or(err, a.Err); err == nil {
		c.forget(id)
	}
	return err
}

var (
	_ subagent.SessionClient = (*Client)(nil)
	_ subagent.Releaser      = (*Client)(nil)
)
