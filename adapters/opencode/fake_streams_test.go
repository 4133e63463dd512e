package opencode_test

import (
	"bytes"
	"context"
	"time"
)

// What can go wrong with a stream of events.

// lying stays open and beats, and tells nothing.
func lying(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
	return func(kind string, line []byte) error {
		if kind == "server.heartbeat" || kind == "server.connected" {
			return next(kind, line)
		}
		return nil
	}
}

// silent stays open and says nothing at all after its first word.
func silent(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
	return func(kind string, line []byte) error {
		if kind == "server.connected" {
			return next(kind, line)
		}
		return nil
	}
}

// mute does not even say that it is there.
func mute(context.Context, *fakeOpencode, lineWriter) lineWriter {
	return func(string, []byte) error { return nil }
}

// cutAfter breaks off after so many events.
func cutAfter(n int) streamFault {
	return func(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
		left := n
		return func(kind string, line []byte) error {
			if left--; left < 0 {
				return errCut
			}
			return next(kind, line)
		}
	}
}

// cutInside breaks off in the middle of an event.
func cutInside(n int) streamFault {
	return func(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
		left := n
		return func(kind string, line []byte) error {
			if left--; left < 0 {
				_ = next(kind, line[:len(line)/2])
				return errCut
			}
			return next(kind, line)
		}
	}
}

// twice tells everything two times.
func twice(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
	return func(kind string, line []byte) error {
		if err := next(kind, line); err != nil {
			return err
		}
		return next(kind, line)
	}
}

// missing leaves out events of some kinds.
func missing(kinds ...string) streamFault {
	left := map[string]bool{}
	for _, kind := range kinds {
		left[kind] = true
	}
	return func(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
		return func(kind string, line []byte) error {
			if left[kind] {
				return nil
			}
			return next(kind, line)
		}
	}
}

// lossy leaves out all but one in so many events.
func lossy(n int) streamFault {
	return func(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
		seen := 0
		return func(kind string, line []byte) error {
			if seen++; seen%n != 0 && kind != "server.heartbeat" {
				return nil
			}
			return next(kind, line)
		}
	}
}

// stale says of every session that it rests, before each word.
func stale(_ context.Context, f *fakeOpencode, next lineWriter) lineWriter {
	return func(kind string, line []byte) error {
		f.mu.Lock()
		var lies [][]byte
		for _, s := range f.order {
			lies = append(lies, sseLine(s.dir, fields{"id": "evt_old", "type": "session.idle", "properties": fields{"sessionID": s.id}}))
		}
		f.mu.Unlock()
		for _, lie := range lies {
			if err := next("session.idle", lie); err != nil {
				return err
			}
		}
		return next(kind, line)
	}
}

// later holds everything up.
func later(d time.Duration) streamFault {
	return func(ctx context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
		return func(kind string, line []byte) error {
			pause(ctx, d)
			return next(kind, line)
		}
	}
}

// chopped cuts the lines to pieces, wherever that is.
func chopped(size int) streamFault {
	return func(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
		return func(kind string, line []byte) error {
			for len(line) > 0 {
				n := min(size, len(line))
				if err := next(kind, line[:n]); err != nil {
					return err
				}
				line = line[n:]
			}
			return nil
		}
	}
}

// crlf ends lines as other servers do.
func crlf(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
	return func(kind string, line []byte) error {
		return next(kind, bytes.ReplaceAll(line, []byte("\n"), []byte("\r\n")))
	}
}

// junk is what is allowed in a stream, or might get into it, and means nothing.
var junk = []string{
	": a comment\n\n", "event: message\nid: 7\nretry: 1\n\n", "\n\n\n", "data\n\n", "data:\n\n", "nonsense\n\n",
	"data: {not json\n\n", "data: null\n\n", "data: []\n\n", "data: 5\n\n", "data: {\"payload\":null}\n\n", "data: {\"payload\":{\"type\":5}}\n\n",
	"data: {\"payload\":{\"type\":\"session.idle\"}}\n\n", "data: {\"payload\":{\"type\":\"session.idle\",\"properties\":[]}}\n\n",
	"data: {\"payload\":{\"type\":\"session.status\",\"properties\":{\"sessionID\":7,\"status\":\"idle\"}}}\n\n",
	"data: {\"payload\":{\"type\":\"message.part.updated\",\"properties\":{\"part\":null}}}\n\n", "\x00\xff\xfe\n\n",
	"data: {\"payload\":{\"type\":\"message.updated\",\"properties\":{\"info\":{\"id\":{},\"time\":\"now\"}}}}\n\n",
}

func junky(_ context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
	n := 0
	return func(kind string, line []byte) error {
		n++
		if err := next("", []byte(junk[n%len(junk)])); err != nil {
			return err
		}
		return next(kind, line)
	}
}

// monstrous has a line of a gigabyte as its second.
func monstrous(ctx context.Context, _ *fakeOpencode, next lineWriter) lineWriter {
	n := 0
	return func(kind string, line []byte) error {
		if n++; n != 2 {
			return next(kind, line)
		}
		err := next("", []byte(`data: {"payload":{"type":"session.error","properties":{"text":"`))
		if err == nil {
			writeMuch(func(b []byte) error { err = next("", b); return err }, "x", huge)
		}
		if err == nil {
			err = next("", []byte("\"}}}\n\n"))
		}
		if err == nil {
			err = next(kind, line)
		}
		return err
	}
}

// both puts one fault behind the other.
func both(first, second streamFault) streamFault {
	return func(ctx context.Context, f *fakeOpencode, next lineWriter) lineWriter {
		return first(ctx, f, second(ctx, f, next))
	}
}

// streamMenu are the faults of streams that do not depend on what is told.
var streamMenu = map[string]streamFault{
	"lying heartbeat": lying,
	"silent":          silent,
	"mute":            mute,
	"cut at once":     cutAfter(0),
	"cut soon":        cutAfter(3),
	"cut later":       cutAfter(20),
	"cut inside":      cutInside(7),
	"twice":           twice,
	"no idles":        missing("session.idle", "session.status"),
	"no answers":      missing("message.updated", "message.part.updated", "message.part.delta"),
	"lossy":           lossy(3),
	"stale idles":     stale,
	"stale and twice": both(stale, twice),
	"a second late":   later(time.Second),
	"chopped":         chopped(1),
	"chopped to 7":    chopped(7),
	"CRLF":            crlf,
	"junk":            junky,
	"cut and lossy":   both(lossy(2), cutAfter(9)),
}
