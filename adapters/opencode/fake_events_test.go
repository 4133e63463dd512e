package opencode_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// fakeStream is one client that listens to events.
type fakeStream struct {
	queue []fakeEvent   // guarded by the fake's mu
	more  chan struct{} // has an element when there is something in it
}

// fakeEvent is a line of the stream.
type fakeEvent struct {
	line []byte
	due  time.Time
	kind string
}

const heartbeat = 10 * time.Second

var errCut = errors.New("the stream is cut")

// lineWriter writes one event of a stream, as the whole of what is sent for it.
type lineWriter func(kind string, line []byte) error

// streamFault puts itself before a stream. ctx ends with the request.
type streamFault func(ctx context.Context, f *fakeOpencode, next lineWriter) lineWriter

// emit tells all who listen; f is locked. Many events are told a second time in
// another form, which clients of sessions must not count.
func (f *fakeOpencode) emit(dir, kind string, props fields) {
	f.send(dir, kind, fields{"id": f.newID("evt"), "type": kind, "properties": props})
	if kind == "message.updated" || kind == "session.updated" || kind == "session.deleted" {
		f.send(dir, "sync", fields{"type": "sync", "syncEvent": fields{"type": kind + ".1", "aggregateID": props["sessionID"], "data": props}})
	}
}

func (f *fakeOpencode) send(dir, kind string, payload fields) {
	event := fakeEvent{sseLine(dir, payload), time.Now().Add(f.lag), kind}
	for s := range f.streams {
		s.queue = append(s.queue, event)
		s.news()
	}
}

func sseLine(dir string, payload fields) []byte {
	envelope := fields{"payload": payload}
	if dir != "" {
		envelope["directory"], envelope["project"] = dir, "global"
	}
	text, err := json.Marshal(envelope)
	if err != nil {
		panic(err)
	}
	return fmt.Appendf(nil, "data: %s\n\n", text)
}

func (s *fakeStream) news() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// streamFaults says what is to go wrong with event streams; nth counts them from 1.
func (f *fakeOpencode) streamFaults(plan func(nth int) streamFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onStream = plan
}

// always has every stream go wrong in the same way.
func always(s streamFault) func(int) streamFault { return func(int) streamFault { return s } }

// events is a stream from now on: what was before is not told again.
func (f *fakeOpencode) events(w http.ResponseWriter, r *http.Request) {
	s := &fakeStream{more: make(chan struct{}, 1)}
	write := lineWriter(func(_ string, line []byte) error {
		if _, err := w.Write(line); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	f.mu.Lock()
	f.streams[s] = true
	nth := f.calls["events"]
	plan := f.onStream
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, s)
	}()
	if plan != nil {
		if fault := plan(nth); fault != nil {
			write = fault(r.Context(), f, write)
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(200)
	_ = http.NewResponseController(w).Flush()
	err := f.feed(r.Context(), s, write)
	if errors.Is(err, errCut) {
		panic(http.ErrAbortHandler) // no good end: the connection is gone
	}
}

// feed writes what comes, and heartbeats, until somebody goes away.
func (f *fakeOpencode) feed(ctx context.Context, s *fakeStream, write lineWriter) error {
	own := func(kind string) error {
		f.mu.Lock()
		line := sseLine("", fields{"id": f.newID("evt"), "type": kind, "properties": fields{}})
		f.mu.Unlock()
		return write(kind, line)
	}
	err := own("server.connected")
	beat := time.Now().Add(heartbeat)
	for err == nil {
		timer := time.NewTimer(time.Until(beat))
		select {
		case <-s.more:
			err = f.drain(ctx, s, write)
		case <-timer.C:
			beat = beat.Add(heartbeat)
			err = own("server.heartbeat")
		case <-ctx.Done():
			err = ctx.Err()
		case <-f.ctx.Done():
			err = f.ctx.Err()
		}
		timer.Stop()
	}
	return err
}

// drain writes all that waits.
func (f *fakeOpencode) drain(ctx context.Context, s *fakeStream, write lineWriter) error {
	for {
		f.mu.Lock()
		queue := s.queue
		s.queue = nil
		f.mu.Unlock()
		if len(queue) == 0 {
			return nil
		}
		for _, e := range queue {
			if !pause(ctx, time.Until(e.due)) {
				return ctx.Err()
			}
			if err := write(e.kind, e.line); err != nil {
				return err
			}
		}
	}
}
