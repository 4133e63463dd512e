package scriptedllm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Config is what can be chosen; its zero value works.
type Config struct {
	// Models are the ones listed. Others answer as well. Default: "scripted".
	Models []string
	// MaxBody bounds the body of a request, in bytes. Default: 16 MiB.
	MaxBody int64
	// Keep is the number of requests that Requests and WaitFor know. The oldest
	// that ended are forgotten first. Default: 1000.
	Keep int
}

// Server is a scripted model server. Make one with [New] or [NewUnstarted].
type Server struct {
	// URL is http://127.0.0.1:PORT once the server listens. Hosts that speak
	// OpenAI want "/v1" behind it.
	URL string

	cfg   Config
	mux   *http.ServeMux
	done  chan struct{} // closed by Close
	newID func() string // the random part of ids; golden tests have their own

	conns sync.WaitGroup // the connections of http, and what accepts them
	close sync.Once

	mu       sync.Mutex    // guards all below
	http     *http.Server  // nil before Start
	changed  chan struct{} // closed and replaced when anything below changes
	requests []*Request
	arrived  int
	open     int
	tries    map[try]int
}

// try is an operation that counts how often it was come to.
type try struct {
	prompt   [32]byte // a hash
	step, op int
}

// New starts a server on the loopback interface and closes it when the test ends.
// If the test failed, its log then says what was asked.
func New(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	s := NewUnstarted(cfg)
	if err := s.Start(""); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.Close()
		if tb.Failed() {
			for _, r := range s.Requests() {
				tb.Log(r)
			}
		}
	})
	return s
}

// NewUnstarted makes a server for programs that are no test. It answers through
// its Handler, or at an address after [Server.Start]. Close it in the end.
func NewUnstarted(cfg Config) *Server {
	if len(cfg.Models) == 0 {
		cfg.Models = []string{"scripted"}
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 16 << 20
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 1000
	}
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), done: make(chan struct{}), changed: make(chan struct{}), tries: map[try]int{},
		newID: func() string { return fmt.Sprintf("%016x", rand.Uint64()) },
	}
	s.routes()
	return s
}

// Handler answers requests, for a server of your own. Close ends what hangs in it:
// call that before you wait for your server to end.
func (s *Server) Handler() http.Handler { return s.mux }

// Start listens at an address of the loopback interface, such as "127.0.0.1:4010".
// "" stands for any free port of 127.0.0.1. When it returns the server answers.
func (s *Server) Start(addr string) error {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("scriptedllm: start: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("scriptedllm: start: %q is not an address of the loopback interface", addr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		return ErrClosed
	default:
	}
	if s.http != nil {
		return errors.New("scriptedllm: start: it was started before")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("scriptedllm: start: %w", err)
	}
	server := &http.Server{Handler: s.mux, ReadHeaderTimeout: time.Minute, ConnState: s.connection}
	s.http, s.URL = server, "http://"+l.Addr().String()
	s.conns.Go(func() { _ = server.Serve(l) }) // until Close
	return nil
}

// connection counts connections, each of which is a goroutine.
func (s *Server) connection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}

// Close ends all that hangs, breaks all connections and returns when nothing is
// left running. It may be called more than once.
func (s *Server) Close() {
	s.close.Do(func() { close(s.done) })
	s.mu.Lock()
	server := s.http
	s.mu.Unlock()
	if server != nil {
		_ = server.Close() // of the listener, which nobody needs any more
	}
	s.conns.Wait()
	_ = s.WaitIdle(context.Background()) // those of Handler elsewhere
}

func (s *Server) routes() {
	s.mux.HandleFunc("POST /v1/chat/completions", s.model(chat{}))
	s.mux.HandleFunc("POST /v1/responses", s.model(responses{}))
	s.mux.HandleFunc("POST /v1/messages", s.model(anthropic{}))
	s.mux.HandleFunc("POST /v1beta/models/{call...}", s.geminiCall)
	s.mux.HandleFunc("POST /v1/messages/count_tokens", s.side(func(_ *http.Request, body []byte) any {
		return object{"input_tokens": len(body) / 4}
	}))
	s.mux.HandleFunc("GET /v1/models", s.side(s.models))
	s.mux.HandleFunc("GET /v1beta/models", s.side(s.geminiModels))
	s.mux.HandleFunc("GET /{$}", s.side(func(*http.Request, []byte) any { return object{"server": "scriptedllm"} }))
	s.mux.HandleFunc("/", s.unknown)
}

// side answers what calls no model.
func (s *Server) side(answer func(r *http.Request, body []byte) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := s.begin(w, r)
		defer x.end()
		body, f := s.body(w, r)
		s.update(func() { s.addLocked(x.Request) })
		if f != nil {
			x.refuse(dialectOf(r), *f)
			return
		}
		x.json(http.StatusOK, answer(r, body))
		x.complete = true
	}
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r)
	defer x.end()
	s.update(func() { s.addLocked(x.Request) })
	x.refuse(dialectOf(r), fault{code: http.StatusNotFound, message: fmt.Sprintf("scriptedllm: no such call: %s %s; there are "+
		"POST /v1/chat/completions, /v1/responses, /v1/messages, /v1beta/models/{model}:generateContent and :streamGenerateContent, GET /v1/models", r.Method, r.URL.Path)})
}

// body reads all of a request.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, *fault) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, &fault{code: http.StatusUnsupportedMediaType, message: fmt.Sprintf("scriptedllm: the body is in the encoding %q, and may be in none", e)}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &fault{code: http.StatusRequestEntityTooLarge, message: fmt.Sprintf("scriptedllm: the body is larger than Config.MaxBody, %d bytes", s.cfg.MaxBody)}
	case err != nil:
		return nil, &fault{code: http.StatusBadRequest, message: fmt.Sprintf("scriptedllm: read the body: %v", err)}
	}
	return body, nil
}
