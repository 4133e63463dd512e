package opencode_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"time"
)

// fault is a call that goes wrong. next is the call as it should be: a fault that does
// not come to it is one of which the server never heard.
type fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// huge is a size that nobody may hold in memory.
var huge = 1 << 30

// cut breaks the connection off.
func cut() { panic(http.ErrAbortHandler) }

// answered is what the call says when nothing goes wrong.
func answered(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r.WithContext(context.WithoutCancel(r.Context())))
	return rec
}

// beginReply writes the head of an answer, and so much of its body that the client has
// heard of it.
func beginReply(w http.ResponseWriter, rec *httptest.ResponseRecorder, body []byte) {
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body)
	_ = http.NewResponseController(w).Flush()
}

func resetBefore(http.ResponseWriter, *http.Request, http.Handler) { cut() }

func resetAfter(_ http.ResponseWriter, r *http.Request, next http.Handler) {
	answered(r, next)
	cut()
}

// resetInBody breaks off in the middle of what it says; of an answer without a body
// even the head is lost.
func resetInBody(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answered(r, next)
	if body := rec.Body.Bytes(); len(body) > 0 {
		rec.Header().Set("Content-Length", fmt.Sprint(len(body)))
		beginReply(w, rec, body[:len(body)/2])
	}
	cut()
}

// stallInBody says the rest so much later.
func stallInBody(d time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := answered(r, next)
		body := rec.Body.Bytes()
		if len(body) > 0 {
			rec.Header().Set("Content-Length", fmt.Sprint(len(body)))
			beginReply(w, rec, body[:len(body)/2])
		}
		if !pause(r.Context(), d) {
			cut()
		}
		if len(body) > 0 {
			_, _ = w.Write(body[len(body)/2:])
		} else {
			beginReply(w, rec, nil)
		}
	}
}

// lateBefore has the server hear of the call so much later, lateAfter its client of
// the answer.
func lateBefore(d time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		pause(life(r), d) // who has gone away meanwhile is served all the same
		rec := answered(r, next)
		beginReply(w, rec, rec.Body.Bytes())
	}
}

func lateAfter(d time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := answered(r, next)
		pause(r.Context(), d)
		beginReply(w, rec, rec.Body.Bytes())
	}
}

// opensLate is a stream that begins so much later.
func opensLate(d time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if pause(r.Context(), d) {
			next.ServeHTTP(w, r)
		}
	}
}

// dripping says it a byte at a time.
func dripping(every time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := answered(r, next)
		beginReply(w, rec, nil)
		for _, b := range rec.Body.Bytes() {
			if _, err := w.Write([]byte{b}); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			if every > 0 && !pause(r.Context(), every) {
				return
			}
		}
	}
}

// instead answers something else and does nothing; and afterAll does it first.
func instead(code int, contentType, body string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func afterAll(say fault) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		answered(r, next)
		say(w, r, next)
	}
}

const page = "<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"

// redirect sends the client to another host.
func redirect(code int) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", "http://elsewhere.test:80"+r.URL.Path)
		w.WriteHeader(code)
	}
}

// endless is an answer of that size, well-formed as far as anybody will read.
func endless(before, piece string, size int) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(before))
		writeMuch(func(b []byte) error { _, err := w.Write(b); return err }, piece, size)
	}
}

// writeMuch writes a piece so often that it is of that size in all.
func writeMuch(write func([]byte) error, piece string, size int) {
	block := bytes.Repeat([]byte(piece), 1<<20/len(piece))
	for n := 0; n < size; n += len(block) {
		if write(block) != nil {
			return
		}
		if n&(16<<20-1) == 0 && watched.Load() {
			peak.Store(max(peak.Load(), heap()))
		}
	}
}

// peak is the most memory that was in use while much was written, if that is watched.
var (
	watched atomic.Bool
	peak    atomic.Int64
)

// httpFaults are the faults of calls that any call can have.
var httpFaults = map[string]fault{
	"reset before":     resetBefore,
	"reset after":      resetAfter,
	"reset in body":    resetInBody,
	"stall in body":    stallInBody(time.Minute),
	"stall for ever":   stallInBody(24 * time.Hour),
	"slow":             lateAfter(8 * time.Second),
	"late":             lateBefore(5 * time.Minute),
	"late headers":     lateAfter(5 * time.Minute),
	"dripping":         dripping(0),
	"dripping slowly":  dripping(20 * time.Millisecond),
	"500":              instead(500, "application/json", `{"name":"UnknownError","data":{"message":"Unexpected server error."}}`),
	"503":              instead(503, "text/plain", "upstream connect error"),
	"500 and done":     afterAll(instead(500, "application/json", `{"name":"UnknownError","data":{}}`)),
	"502 page":         instead(502, "text/html", page),
	"200 page":         instead(200, "text/html", page),
	"204":              instead(204, "application/json", ""),
	"200 empty":        instead(200, "application/json", ""),
	"429":              instead(429, "application/json", `{}`),
	"garbage":          instead(200, "application/json", `{"id":"ses_x`),
	"null":             instead(200, "application/json", `null`),
	"other JSON":       instead(200, "application/json", `[1,"two",{"three":null}]`),
	"redirect":         redirect(302),
	"redirect with it": redirect(307),
	"endless":          endless(`[{"info":{"id":"`, "x", huge),
	"endless list":     endless(`[{}`, `,{"info":{"role":"user"}}`, huge),
}

// openFaults are those that the opening of a stream can have.
var openFaults = map[string]fault{
	"reset":             resetBefore,
	"late headers":      opensLate(5 * time.Minute),
	"slow":              opensLate(8 * time.Second),
	"500":               httpFaults["500"],
	"503":               httpFaults["503"],
	"502 page":          httpFaults["502 page"],
	"200 page":          httpFaults["200 page"],
	"204":               httpFaults["204"],
	"200 empty":         httpFaults["200 empty"],
	"200 stream, empty": instead(200, "text/event-stream", ""),
	"404":               instead(404, "application/json", `{"name":"NotFoundError","data":{}}`),
	"429":               httpFaults["429"],
	"garbage":           httpFaults["garbage"],
	"redirect":          redirect(302),
	"redirect 308":      redirect(308),
	"endless":           endless("", "x", huge),
}

// once has the first so many calls of an operation go wrong.
func once(op string, n int, do fault) func(string, int) fault {
	return func(called string, nth int) fault {
		if called == op && nth <= n {
			return do
		}
		return nil
	}
}

// every has all calls of an operation go wrong.
func every(op string, do fault) func(string, int) fault { return once(op, math.MaxInt, do) }

// heap is how much memory is in use, garbage left out.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
