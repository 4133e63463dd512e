package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	sse "github.com/tmaxmax/go-sse"

	"github.com/seed-48fd9ae4/subagent"
)

// The server's stream of events. One is for all directories, and it never repeats what
// was missed.

const (
	silence    = 30 * time.Second // the server says something every 10 s
	maxEvent   = 16 << 20         // bytes of one
	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
)

var (
	errSilent = errors.New("the stream of events is silent")
	errEnded  = errors.New("the stream of events has ended")
)

// noStream is what the log says while the stream does not last.
const noStream = "no stream of events; it is opened again"

// envelope is what an event comes in.
type envelope struct {
	Payload event `json:"payload"`
}

// listen is Client.Run. gap is called after each time in which events may have been
// missed, also before the first.
func (h *host) listen(ctx context.Context, handle func(subagent.SessionEvent), gap func()) error {
	pause := firstPause
	for {
		began := time.Now()
		err := h.follow(ctx, func() {
			h.cold()
			gap()
			for _, e := range h.resume(ctx) {
				handle(e)
			}
		}, func(e event) {
			for _, e := range append(h.hear(e), h.askAgain(ctx)...) {
				handle(e)
			}
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if hopeless(err) {
			h.api.log.note(ctx, "the server does not let in: there are no more events", "", err)
			return err
		}
		if time.Since(began) > silence { // it was a good one
			pause = firstPause
			h.api.log.note(ctx, noStream, "", nil)
		}
		h.api.log.note(ctx, noStream, "", err)
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

// hopeless are errors that another try would not mend: who is not let in now will not
// be. Anything else may be a proxy's word for a server that is coming back.
func hopeless(err error) bool {
	var said *subagent.SessionError
	return errors.As(err, &said) && (said.Class == subagent.ClassAuth || said.Class == subagent.ClassPermission)
}

// follow reads one stream to its end, which is an error.
func (h *host) follow(ctx context.Context, opened func(), hear func(event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	c := call{op: "events", method: "GET", path: "/global/event"}
	res, err := h.api.send(ctx, c)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	watchdog.Stop() // calls that follow have bounds of their own
	opened()
	watchdog.Reset(silence)
	for e, err := range sse.Read(res.Body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return h.api.wrong(c, subagent.ClassUnavailable, err)
		}
		watchdog.Stop()
		var in envelope
		if json.Unmarshal([]byte(e.Data), &in) == nil {
			hear(in.Payload)
		}
		watchdog.Reset(silence)
	}
	return h.api.wrong(c, subagent.ClassUnavailable, errEnded)
}
