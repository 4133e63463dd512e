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
	n := 0
	for _, call := range c.Calls() {
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

// Running is how many turns go on in the fake host, and MaxRunning how many did
// at the same time.
func (c *Client) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// MaxRunning is the largest number of turns that went on at the same time.
func (c *Client) MaxRunning() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maxRunning
}

// Violations lists where the manager broke the contract of a SessionClient.
func (c *Client) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

// Leaks lists turns that go on although nothing kept them from being stopped:
// no Abort failed or is still out, and the turn is not Deaf.
func (c *Client) Leaks() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var leaks []string
	for _, s := range c.order {
		if s.Running && !s.Deaf && s.Refused == 0 && s.aborting == 0 {
			leaks = append(leaks, fmt.Sprintf("session %s of task %s still runs; nobody stopped it", s.ID, s.Task))
		}
	}
	return leaks
}

// Check fails the test for every violation and every leak. NewClient has it run
// when the test ends; close the manager before that.
func (c *Client) Check() {
	c.tb.Helper()
	for _, v := range append(c.Violations(), c.Leaks()...) {
		c.tb.Errorf("subagenttest: %s", v)
	}
}

var (
	_ subagent.SessionClient = (*Client)(nil)
	_ subagent.Releaser      = (*Client)(nil)
)
