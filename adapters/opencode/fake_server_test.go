package opencode_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeOpencode is an opencode server in memory, as far as a client of sessions sees
// it: what it answers and tells, and in which order, is what a real one (1.18) was
// measured to. It keeps books of what reached it. Faults are put between it and the
// client: see faults and streams.
type fakeOpencode struct {
	net  *pipeNet
	ctx  context.Context // ends with the server
	stop context.CancelFunc

	password string        // "": none asked for
	lag      time.Duration // from an event to its delivery

	mu        sync.Mutex
	brokenDir string // whose sessions nothing can be said of; "": none
	ids       int
	sessions  map[string]*fakeSession
	order     []*fakeSession
	streams   map[*fakeStream]bool
	calls     map[string]int // by operation, those that failed before the server included
	leaked    []string       // Authorization headers seen under a name that is not the server's
	fault     func(op string, nth int) fault
	onStream  func(nth int) streamFault
}

// fakeHost is the one name under which the server expects to be called.
const fakeHost = "opencode.test:4096"

func newFake(t *testing.T) *fakeOpencode {
	f := &fakeOpencode{
		net: newPipeNet(), lag: 5 * time.Millisecond, sessions: map[string]*fakeSession{},
		streams: map[*fakeStream]bool{}, calls: map[string]int{},
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	srv := &http.Server{Handler: f.front(f.routes()), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = srv.Serve(f.net) }()
	t.Cleanup(func() {
		f.stop()
		_ = srv.Close()
	})
	return f
}

// url is what a client is configured with.
func (f *fakeOpencode) url() string { return "http://" + fakeHost }

// routes are the operations; their names are what faults and books go by.
func (f *fakeOpencode) routes() http.Handler {
	mux := http.NewServeMux()
	for _, op := range []struct {
		name, pattern string
		handle        func(http.ResponseWriter, *http.Request)
	}{
		{"create", "POST /session", f.create},
		{"get", "GET /session/{id}", f.of(f.get)},
		{"delete", "DELETE /session/{id}", f.of(f.remove)},
		{"prompt", "POST /session/{id}/prompt_async", f.of(f.prompt)},
		{"messages", "GET /session/{id}/message", f.of(f.messages)},
		{"todo", "GET /session/{id}/todo", f.of(f.todo)},
		{"children", "GET /session/{id}/children", f.of(f.children)},
		{"abort", "POST /session/{id}/abort", f.abort},
		{"status", "GET /session/status", f.status},
		{"permissions", "GET /permission", func(w http.ResponseWriter, r *http.Request) { reply(w, 200, f.asked(directory(r))) }},
		{"questions", "GET /question", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, []any{}) }},
		{"answer", "POST /permission/{id}/reply", f.answer},
		{"health", "GET /global/health", func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, map[string]any{"healthy": true, "version": "1.18.33"})
		}},
		{"events", "GET /global/event", f.events},
	} {
		mux.Handle(op.pattern, f.faulty(op.name, http.HandlerFunc(op.handle)))
	}
	return mux
}

// front is what stands before all operations: it keeps watch over where credentials
// go, and asks for them.
func (f *fakeOpencode) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != fakeHost {
			f.mu.Lock()
			f.leaked = append(f.leaked, r.Host+" "+r.Header.Get("Authorization"))
			f.mu.Unlock()
			reply(w, 200, map[string]any{"id": "ses_elsewhere"})
			return
		}
		if _, password, _ := r.BasicAuth(); password != f.password {
			w.Header().Set("WWW-Authenticate", `Basic realm="Secure Area"`)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// faulty counts a call and has it go wrong if it is to.
func (f *fakeOpencode) faulty(op string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.calls[op]++
		var do fault
		if f.fault != nil {
			do = f.fault(op, f.calls[op])
		}
		f.mu.Unlock()
		if do == nil {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body) // what is served late is served as it came in
		if err != nil {
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		do(w, r.WithContext(context.WithValue(r.Context(), lifeKey{}, f.ctx)), next)
	})
}

// lifeKey is where a request that goes wrong has the context of its server's life.
type lifeKey struct{}

func life(r *http.Request) context.Context { return r.Context().Value(lifeKey{}).(context.Context) }

// faults says what is to go wrong; nth counts the calls of an operation from 1.
func (f *fakeOpencode) faults(plan func(op string, nth int) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = plan
}

func (f *fakeOpencode) called(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// pause is a time in which nothing happens; false says that it was cut short.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func reply(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

func notFound(w http.ResponseWriter, id string) {
	reply(w, 404, errorBody("NotFoundError", "Session not found: "+id))
}

func errorBody(name, message string) map[string]any {
	return map[string]any{"name": name, "data": map[string]any{"message": message}}
}

// directory is where a request says that it belongs.
func directory(r *http.Request) string {
	for _, dir := range []string{r.URL.Query().Get("directory"), r.Header.Get("x-opencode-directory")} {
		if dir != "" {
			return dir
		}
	}
	return "/srv"
}

// of finds the session that a call names; the call runs with the fake locked.
func (f *fakeOpencode) of(handle func(*fakeSession, http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if !strings.HasPrefix(id, "ses") {
			reply(w, 500, errorBody("UnknownError", "Unexpected server error. Check server logs for details."))
			return
		}
		body, err := io.ReadAll(r.Body) // outside the lock: it comes as slowly as the client writes
		if err != nil {
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		f.mu.Lock()
		s := f.sessions[id]
		if s == nil {
			f.mu.Unlock()
			notFound(w, id)
			return
		}
		answer := &held{ResponseWriter: w, code: 200}
		handle(s, answer, r)
		f.mu.Unlock()
		answer.release()
	}
}

// held keeps an answer back until the fake is unlocked: it goes out as slowly as the
// client reads.
type held struct {
	http.ResponseWriter
	code int
	body []byte
}

func (h *held) WriteHeader(code int) { h.code = code }

func (h *held) Write(b []byte) (int, error) {
	h.body = append(h.body, b...)
	return len(b), nil
}

func (h *held) release() {
	if h.code != http.StatusNoContent {
		h.Header().Set("Content-Length", fmt.Sprint(len(h.body)))
	}
	h.ResponseWriter.WriteHeader(h.code)
	_, _ = h.ResponseWriter.Write(h.body)
}

// made counts the sessions that there ever were.
func (f *fakeOpencode) made() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.order)
}

// running are the sessions whose turns go on, deleted ones too.
func (f *fakeOpencode) running() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.order {
		if s.halt != nil {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// crash has the server go down, with all that it does, and come back later.
func (f *fakeOpencode) crash(down time.Duration) {
	f.net.set(func(p *pipeNet) { p.refuse = true })
	f.mu.Lock()
	for _, s := range f.order {
		if s.turn != nil {
			s.turn.lost = true
			s.halt()
		}
	}
	f.mu.Unlock()
	f.net.cut()
	time.Sleep(down)
	f.net.set(func(p *pipeNet) { p.refuse = false })
}

// breaks has the server say nothing of the sessions of a directory; "" of none.
func (f *fakeOpencode) breaks(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.brokenDir = dir
}
