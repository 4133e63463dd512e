package subagenttest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-48fd9ae4/subagent"
)

// Transcript implements subagent.TranscriptReader: the prompts of a session and the texts
// that they were answered with.
func (c *Client) Transcript(ctx context.Context, id subagent.SessionID, q subagent.TranscriptQuery) ([]subagent.Message, error) {
	a := c.script(c.log(Call{Op: OpTranscript, Session: id, Query: q}))
	err := c.pause(ctx, a, nil)
	if a.Panic != nil {
		panic(a.Panic)
	}
	said, known := c.said(id)
	switch err = cmp.Or(err, a.Err); {
	case err != nil:
		return nil, err
	case !known:
		return nil, fault(OpTranscript, id, subagent.ClassInvalid, errNoSession)
	case a.Said != nil:
		said = slices.Clone(a.Said)
	}
	at := slices.IndexFunc(said, func(m subagent.Message) bool { return m.ID == q.Since })
	if q.Since != "" {
		said = said[at+1:]
	}
	if over := len(said) - q.Limit; q.Limit > 0 && over > 0 {
		said = said[over:]
	}
	return said, nil
}

// say puts a message down, unless it is blank.
func (c *Client) say(s *session, role subagent.Role, text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.said = append(s.said, subagent.Message{ID: fmt.Sprintf("msg_%d", len(s.said)+1), Role: role, Text: text, Complete: true})
}

func (c *Client) said(id subagent.SessionID) (said []subagent.Message, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil || s.Released {
		return nil, false
	}
	return slices.Clone(s.said), true
}

var _ subagent.TranscriptReader = (*Client)(nil)
