package opencode_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent/subagenttest/scriptedllm"
)

// server is a real opencode server with a scripted model, as one test sees it. Its
// methods ask the server itself, and end the test if it does not answer well.
type server struct {
	URL      string              // http://127.0.0.1:PORT, the same after a restart
	Dir      string              // a project directory, the one it was started in
	LLM      *scriptedllm.Server // its only model
	Password string              // of the user "opencode"; "" for none

	t    testing.TB
	host *host
}

// password makes a server that wants one.
func password(p string) func(*host) {
	return func(h *host) { h.password = p }
}

// startServer starts a server that only this test uses, and ends it with the test.
// That takes seconds: most tests can do with the shared one.
func startServer(t testing.TB, set ...func(*host)) *server {
	t.Helper()
	program := findProgram(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	h := &host{program: program, root: root, llm: scriptedllm.New(t, scriptedllm.Config{})}
	for _, f := range set {
		f(h)
	}
	t.Cleanup(h.kill)
	require.NoError(t, h.setUp())
	return h.in(t)
}

var theShared struct {
	once sync.Once
	host *host
	err  error
}

// shared is the one server that tests of the package have in common. What they
// look at, they make: sessions, or directories with newDir.
func shared(t testing.TB) *server {
	t.Helper()
	program := findProgram(t)
	theShared.once.Do(func() { theShared.host, theShared.err = startShared(program) })
	require.NoError(t, theShared.err, "the shared server did not start")
	return theShared.host.in(t)
}

func startShared(program string) (*host, error) {
	root, err := os.MkdirTemp("", "opencode-test")
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	llm := scriptedllm.NewUnstarted(scriptedllm.Config{})
	h := &host{program: program, root: root, llm: llm}
	return h, errors.Join(llm.Start(""), h.setUp())
}

func TestMain(m *testing.M) {
	code := m.Run()
	if h := theShared.host; h != nil {
		h.kill()
		h.llm.Close()
		_ = os.RemoveAll(h.root)
	}
	os.Exit(code)
}

// kill ends the server as a crash would, and everything it started.
func (s *server) kill() {
	s.t.Helper()
	s.mustBeOwn()
	s.host.kill()
}

// restart starts the server again where it was, with all it has stored. One that
// runs is killed before.
func (s *server) restart() {
	s.t.Helper()
	s.mustBeOwn()
	s.host.kill()
	require.NoError(s.t, s.host.start())
}

func (s *server) mustBeOwn() {
	s.t.Helper()
	require.NotSame(s.t, theShared.host, s.host, "other tests use the shared server: start one")
}

// newDir makes another project directory. Events and statuses are told apart by it.
func (s *server) newDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, s.host.configure(dir))
	return dir
}

// host is what runs: one opencode at a time, always with the same home and port.
type host struct {
	program, root, password string
	port                    int
	llm                     *scriptedllm.Server
	ended                   chan struct{} // closed when the program is gone; nil before the first start
	cmd                     *exec.Cmd
}

func (h *host) url() string { return "http://127.0.0.1:" + strconv.Itoa(h.port) }
func (h *host) dir() string { return filepath.Join(h.root, "project") }
func (h *host) log() string { return filepath.Join(h.root, "opencode.log") }

// in is the server for one test, whose log gets the server's if it fails.
func (h *host) in(t testing.TB) *server {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of what opencode printed:\n%s", h.tail())
		}
	})
	return &server{URL: h.url(), Dir: h.dir(), LLM: h.llm, Password: h.password, t: t, host: h}
}

// setUp makes a home and a project, and starts the program.
func (h *host) setUp() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	h.port = port
	if err := errors.Join(os.MkdirAll(h.tmp(), 0o700), os.MkdirAll(h.dir(), 0o700), h.configure(h.dir())); err != nil {
		return err
	}
	return h.start()
}

// freePort finds one below those that outgoing connections get: while the server is
// down, nothing else may take it.
func freePort() (int, error) {
	var err error
	for range 20 {
		port := 10000 + rand.IntN(22000)
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("found no free port: %w", err)
}

// start runs the program and returns when it answers.
func (h *host) start() error {
	out, err := os.OpenFile(h.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := command(h.program, "serve", "--hostname", "127.0.0.1", "--port", strconv.Itoa(h.port))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.dir(), h.env(), out, out
	ended, err := begin(cmd)
	if err != nil {
		return err
	}
	h.cmd, h.ended = cmd, ended
	if err := h.waitHealthy(); err != nil {
		h.kill()
		return fmt.Errorf("%w; the end of what it printed:\n%s", err, h.tail())
	}
	return nil
}

// waitHealthy asks until the server answers. It may accept a connection that it
// never answers, so that each try is bounded as well as all of them.
func (h *host) waitHealthy() error {
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := h.healthy()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-h.ended:
			return errors.New("opencode ended before it answered")
		case <-patience.C:
			return fmt.Errorf("opencode did not answer within a minute: %w", err)
		}
	}
}

func (h *host) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a, err := ask(ctx, h.password, http.MethodGet, h.url()+"/global/health", nil)
	if err != nil {
		return err
	}
	var health struct{ Healthy bool }
	if err := a.decode(&health); err != nil || !health.Healthy {
		return fmt.Errorf("status %d, %s", a.status, a.body)
	}
	return nil
}

// kill ends the program with all it started, and returns when it is gone.
func (h *host) kill() {
	if h.ended == nil {
		return
	}
	select {
	case <-h.ended:
	default:
		killAll(h.cmd)
		<-h.ended
	}
}

// tail is the end of what the program printed.
func (h *host) tail() string {
	text, err := os.ReadFile(h.log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}
