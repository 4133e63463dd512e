package opencode

import (
	"context"
	"log/slog"
	"sync"
)

// outages is what the log has been told of that has not worked since: an outage is one
// line for each thing that fails, however often it is tried.
type outages struct {
	log *slog.Logger

	mu  sync.Mutex
	out map[outage]bool
}

// outage is what fails, and for which session or directory.
type outage struct{ what, of string }

func newOutages(log *slog.Logger) *outages {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &outages{log: log, out: map[outage]bool{}}
}

// note takes in how a try has ended. What was called off has not failed.
func (o *outages) note(ctx context.Context, what, of string, err error) {
	if ctx.Err() == context.Canceled {
		return
	}
	key := outage{what, of}
	o.mu.Lock()
	known := o.out[key]
	if err == nil {
		delete(o.out, key)
	} else {
		remember(o.out, key, true)
	}
	o.mu.Unlock()
	if err != nil && !known {
		o.log.Warn("opencode: "+what, "error", err)
	}
}
