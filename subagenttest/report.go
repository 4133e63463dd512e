package subagenttest

import (
	"fmt"
	"slices"

	"github.com/seed-48fd9ae4/subagent"
)

// Calls returns the calls made so far, in order of arrival.
func (c *Client) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Count is how many calls of a kind were made.
func (c *Client) Count(op Op) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, call := range c.calls {
		if call.Op == op {
			n++
		}
	}
	return n
}

// Sessions returns all sessions, in order of their making.
func (c *Client) Sessions() []SessionState {
	c.mu.Lock()
	defer c.mu.Unlock()
	states := make([]SessionState, len(c.order))
	for i, s := range c.order {
		states[i] = s.SessionState
	}
	return states
}

// Running is how many turns go on in the fake host. That may be more than there
// are Prompts out: a turn can outlive its call.
func (c *Client) Running() int { return c.RunningUnder(nil) }

// RunningUnder is how many turns go on whose Prompt call matches, say all those of
// one model; nil matches all.
func (c *Client) RunningUnder(match func(Call) bool) int {
	n := 0
	for _, call := range c.turns() {
		if match == nil || match(call) {
			n++
		}
	}
	return n
}

// turns are the Prompt calls of the turns that go on.
func (c *Client) turns() (calls []Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.order {
		if s.Running {
			calls = append(calls, s.call)
		}
	}
	return calls
}

// MaxRunning is the largest number of turns that went on at the same time.
func (c *Client) MaxRunning() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maxRunning
}

// Closed tells the fake that Close or Shutdown of the manager has returned: from
// now on a Create or Prompt is refused, and a violation.
func (c *Client) Closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// LeftRunning tells the fake that a task was cancelled with
// subagent.CancelOptions.LeaveRunning: its turn is no leak.
func (c *Client) LeftRunning(task subagent.TaskID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[task] = true
}

// Violations lists where the manager broke the contract of a SessionClient: two
// turns in one session at a time; a call for a session that it was never told of
// or, but for Abort and Release, has given up; a prompt for another task than the
// session was made for; an abort after the prompt's context had ended already; a
// Create or Prompt after [Client.Closed].
func (c *Client) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

// Leaks lists turns that go on although nothing kept them from being stopped: no
// Abort failed or is still out, and the turn is neither Deaf nor left running as
// asked; and sessions that were handed out, and neither prompted, nor stopped, nor
// released.
func (c *Client) Leaks() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var leaks []string
	for _, s := range c.order {
		unstoppable := s.Deaf || s.refused > 0 || s.aborting > 0 || c.left[s.Task]
		forgotten := !s.touched && !s.Released && !s.Lost && !s.excused
		switch {
		case s.Running && !unstoppable:
			leaks = append(leaks, fmt.Sprintf("session %s of task %s still runs; nobody stopped it", s.ID, s.Task))
		case s.Prompts == 0 && forgotten:
			leaks = append(leaks, fmt.Sprintf("session %s of task %s was made, and nobody prompted, stopped or released it", s.ID, s.Task))
		}
	}
	return leaks
}

// leftOut lists the calls that are out and that nobody has given up. Close and
// Shutdown leave none: they end the contexts of all but what was left running.
func (c *Client) leftOut() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for call, ctx := range c.out {
		if ctx.Err() == nil && !c.left[call.Task] {
			out = append(out, fmt.Sprintf("%s for task %s", call.Op, call.Task))
		}
	}
	slices.Sort(out)
	return out
}

// Check fails the test for every violation and every leak. NewClient has it run
// when the test ends; close the manager before that.
func (c *Client) Check() {
	c.tb.Helper()
	c.fail(append(c.Violations(), c.Leaks()...))
}

func (c *Client) fail(faults []string) {
	c.tb.Helper()
	for _, f := range faults {
		c.tb.Errorf("subagenttest: %s", f)
	}
}
