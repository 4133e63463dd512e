package subagenttest

import (
	"fmt"

	"github.com/seed-48fd9ae4/subagent"
)

// What the fake host knows: its sessions and the turns that go on in them. It is
// here that a manager's breaches of the contract are noticed.

// SessionState is what the fake knows about one session.
type SessionState struct {
	ID       subagent.SessionID
	Task     subagent.TaskID
	Attempt  int
	Running  bool // a turn goes on in the host
	Deaf     bool // and can't be stopped
	Prompts  int
	AtOnce   int // the most Prompts that were out at one time; more than 1 is a violation
	Aborts   int // Aborts that succeeded
	Refused  int // Aborts that did not
	Released bool
	Lost     bool // made, but nobody was told its id
}

type session struct {
	SessionState
	said     []subagent.Message
	call     Call          // the Prompt that began the turn
	stop     chan struct{} // closed when that turn ends
	prompts  int           // Prompts that are out
	aborting int           // Aborts that are out
	stops    int           // Aborts called since a turn ended, or since the session was made
	refused  int           // of those, the ones that failed
	touched  bool          // there was an Abort
	cut      bool          // the Prompt's context ended before there was an Abort of the turn
	excused  bool          // nobody need care for it: the script chose the id, or it came after Let
}

func (c *Client) violate(format string, args ...any) {
	c.violations = append(c.violations, fmt.Sprintf(format, args...))
}

// isClosed notices what a manager begins after its end.
func (c *Client) isClosed(call Call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.violate("%s for task %s after the manager was closed", call.Op, call.Task)
	}
	return c.closed
}

// open makes a session; one whose id is in use stays what it was, and one that
// was released begins anew.
func (c *Client) open(req subagent.CreateRequest, a Action) subagent.SessionID {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := a.ID
	fresh := SessionState{ID: id, Task: req.Task, Attempt: req.Attempt, Lost: a.Lost}
	if s := c.sessions[id]; s != nil {
		if s.Released && !s.Running {
			s.SessionState = fresh
		}
		return id
	}
	for n := len(c.order) + 1; id == ""; n++ {
		if next := subagent.SessionID(fmt.Sprintf("ses_%d", n)); c.sessions[next] == nil {
			id = next
		}
	}
	fresh.ID = id
	s := &session{SessionState: fresh, excused: a.ID != "" || c.over}
	c.sessions[id] = s
	c.order = append(c.order, s)
	return id
}

// begin checks that the session may be prompted now.
func (c *Client) begin(call Call) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[call.Session]
	if s == nil {
		c.violate("prompt of session %q, which was never made", call.Session)
		return nil, errNoSession
	}
	s.Prompts++
	s.AtOnce = max(s.AtOnce, s.prompts+1)
	switch {
	case s.prompts > 0:
		c.violate("two prompts of session %s at the same time", s.ID)
		return nil, errBusy
	case s.Released:
		c.violate("prompt of session %s after its release", s.ID)
		return nil, errNoSession
	case s.Running:
		c.violate("prompt of session %s while a turn of it goes on", s.ID)
		return nil, errBusy
	case s.Lost:
		c.violate("prompt of session %s, whose id was never returned", s.ID)
	case s.Task != call.Task:
		c.violate("prompt of session %s for task %s, made for task %s", s.ID, call.Task, s.Task)
	}
	s.prompts++
	return s, nil
}

func (c *Client) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.prompts--
}

// turn starts a turn in the host.
func (c *Client) turn(s *session, call Call, deaf bool) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
	c.maxRunning = max(c.maxRunning, c.running)
	s.Running, s.Deaf, s.call, s.stop = true, deaf, call, make(chan struct{})
	return s.stop
}

// cut is called when the context of a turn's Prompt ends. That is a breach only
// if the turn is aborted afterwards: one that was left running on purpose loses its
// context in the end, and is never aborted.
func (c *Client) cut(s *session, turn chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Running && s.stop == turn && s.stops == 0 {
		s.cut = true
	}
}

// rest ends the turn in the host.
func (c *Client) rest(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restLocked(s)
}

func (c *Client) restLocked(s *session) {
	if !s.Running {
		return
	}
	s.Running, s.Deaf, s.cut = false, false, false
	s.stops, s.refused = 0, 0
	c.running--
	close(s.stop)
}

// aborting notes that an Abort is out; nil is an unknown session.
func (c *Client) aborting(id subagent.SessionID) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil {
		c.violate("abort of session %q, which was never made", id)
		return nil
	}
	if s.Lost {
		c.violate("abort of session %s, whose id was never returned", id)
	}
	if s.cut {
		c.violate("abort of session %s only after the context of its prompt had ended", id)
	}
	s.aborting++
	s.stops++
	s.touched = true
	return s
}

// aborted ends an Abort and, unless that was refused, the turn. It reports whether
// the turn goes on because it is deaf.
func (c *Client) aborted(s *session, refused bool) (deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.aborting--
	deaf = !refused && s.Running && s.Deaf
	if refused || deaf {
		s.Refused++
		s.refused++
		return deaf
	}
	s.Aborts++
	c.restLocked(s)
	return false
}

// forget gives a session up.
func (c *Client) forget(id subagent.SessionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		s.Released = true
	} else {
		c.violate("release of session %q, which was never made", id)
	}
}
