package subagent

import (
	"context"
	"sync/atomic"
)

// talking is a stub whose sessions have transcripts.
type talking struct {
	*stub
	said  func(context.Context, SessionID, TranscriptQuery) ([]Message, error) // nil: nothing was said
	calls atomic.Int64
}

func (c *talking) Transcript(ctx context.Context, id SessionID, q TranscriptQuery) ([]Message, error) {
	c.calls.Add(1)
	if c.said == nil {
		return nil, nil
	}
	return c.said(ctx, id, q)
}

// newest is what a transcript that keeps the contract returns of all messages.
func newest(all []Message, q TranscriptQuery) []Message {
	for i, m := range all {
		if q.Since != "" && m.ID == q.Since {
			all = all[i+1:]
			break
		}
	}
	if over := len(all) - q.Limit; q.Limit > 0 && over > 0 {
		all = all[over:]
	}
	return all
}
