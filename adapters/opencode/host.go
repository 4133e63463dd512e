package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// host is the server as a [subagent.AsyncClient]: it takes prompts, and says how they
// fare when it is asked.
type host struct {
	api  *api
	cfg  Config
	rest func(context.Context, subagent.SessionID) error // stops a turn and returns when it rests

	mu       sync.Mutex // guards all below, and all in a session
	sessions map[subagent.SessionID]*session
	dirs     map[subagent.SessionID]string // of sessions that were not made here
	warm     map[string]bool               // directories that the server has loaded
	sending  map[string]string             // by notification: the parent's last message before it was first sent
	unasked  map[string]bool               // directories whose turns may wait for what no event told of
	askAt    time.Time                     // when they are asked about, if that has failed
}

// session is what is known of a child's session until it is released.
type session struct {
	dir     string          // does not change
	denied  map[string]bool // tools that its rules are known to deny
	turn    *turn           // the one that is out; nil: none
	passing bool            // it is forgotten with its turn: nobody will release it
}

func newSession(dir string) *session { return &session{dir: dir, denied: map[string]bool{}} }

// wireSession is a session as the server has it.
type wireSession struct {
	ID        subagent.SessionID `json:"id"`
	ParentID  subagent.SessionID `json:"parentID"`
	Directory string             `json:"directory"`
	Metadata  json.RawMessage    `json:"metadata"` // others write into it too
}

// absolute paths, also of a server on Windows: others it takes from a directory of its
// own.
var absolute = regexp.MustCompile(`^(/|[A-Za-z]:[/\\]|\\\\)`)

// Create opens a session below its parent's and in its directory.
func (h *host) Create(ctx context.Context, req subagent.CreateRequest) (subagent.SessionID, error) {
	c := call{op: "create", method: "POST", path: "/session"}
	if ctx.Err() != nil {
		return "", h.api.wrong(c, subagent.ClassUnavailable, context.Cause(ctx))
	}
	if req.Dir != "" && !absolute.MatchString(req.Dir) {
		return "", h.api.wrong(c, subagent.ClassInvalid, &subagent.InputError{Field: "Dir", Value: strconv.Quote(req.Dir), Rule: "must be an absolute path on the server's machine"})
	}
	body := map[string]any{"title": req.Title(), "metadata": map[string]mark{metaKey: {Task: req.Task, Attempt: req.Attempt}}}
	dir := req.Dir
	if isSession(req.Parent) {
		body["parentID"] = req.Parent
	}
	if dir == "" && isSession(req.Parent) {
		parent, err := h.find(ctx, "create", req.Parent)
		if err != nil {
			return "", err
		}
		dir = parent.dir
	}
	if rules := rulesOf(h.cfg.Permissions, req.Tools); len(rules) > 0 {
		body["permission"] = rules
	}
	c.body = body
	var made wireSession
	_, err := h.api.do(ctx, c.in(dir), &made)
	switch {
	case unsure(err):
		made = h.madeAnyway(ctx, req)
	case err != nil:
		return "", err
	case !isSession(made.ID):
		err = h.api.wrong(c, subagent.ClassUnavailable, errors.New("the reply names no session"))
	}
	if !isSession(made.ID) {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := newSession(made.Directory)
	for tool, allowed := range req.Tools {
		s.denied[tool] = !allowed
	}
	h.sessions[made.ID] = s
	return made.ID, err
}

// warmUp has the server load a directory's configuration. It would do so with the first
// prompt there; but when that is aborted meanwhile, each later one in the directory is
// interrupted too, for as long as the server lives.
func (h *host) warmUp(ctx context.Context, dir string) {
	h.mu.Lock()
	warm := h.warm[dir]
	h.mu.Unlock()
	if warm {
		return
	}
	ctx, cancel := h.api.half(ctx)
	defer cancel()
	res, err := h.api.send(ctx, call{op: "load", method: "GET", path: "/config/providers"}.in(dir))
	h.api.log.note(ctx, "a directory was not loaded", dir, err)
	if err != nil {
		return // the first prompt will
	}
	res.Body.Close() // what it says does not matter, and may be long
	h.mu.Lock()
	defer h.mu.Unlock()
	remember(h.warm, dir, true)
}

// cold: the server may be another process than it was.
func (h *host) cold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.warm)
}

// unsure reports whether the server may have taken a call that failed.
func unsure(err error) bool {
	var said *subagent.SessionError
	return errors.As(err, &said) && said.Class == subagent.ClassUnavailable
}

// madeAnyway looks among a parent's children for one that was made though no reply
// said so.
func (h *host) madeAnyway(ctx context.Context, req subagent.CreateRequest) wireSession {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.api.timeout/6)
	defer cancel()
	var children []wireSession
	if isSession(req.Parent) {
		_, _ = h.api.do(ctx, of("create", "GET", req.Parent, "/children"), &children)
	}
	for _, c := range children {
		if m := markIn(c.Metadata); m.Task == req.Task && m.Attempt == req.Attempt {
			return c
		}
	}
	return wireSession{}
}

// rulesOf makes rules of a launch's tools too. As a field of the prompt they would
// take the place of all the session's rules.
func rulesOf(rules []Rule, tools map[string]bool) []Rule {
	var allowed, denied []Rule
	for _, tool := range sortedKeys(tools) {
		if tools[tool] {
			allowed = append(allowed, Rule{tool, "*", "allow"})
		} else {
			denied = append(denied, Rule{tool, "*", "deny"})
		}
	}
	return slices.Concat(allowed, rules, denied)
}

// find returns what is known of a session, asking the server for one that was not
// made here. Of those only the directory is kept, which never changes.
func (h *host) find(ctx context.Context, op string, id subagent.SessionID) (*session, error) {
	h.mu.Lock()
	s, dir := h.sessions[id], h.dirs[id]
	h.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if dir == "" {
		w, err := h.get(ctx, op, id)
		if err != nil {
			return nil, err
		}
		dir = w.Directory
		h.mu.Lock()
		defer h.mu.Unlock()
		remember(h.dirs, id, dir)
	}
	return newSession(dir), nil
}

// remembered is how much is kept of what nobody says is needed no more.
const remembered = 1000

// remember keeps one more thing, and forgets another if there are too many.
func remember[K comparable, V any](all map[K]V, key K, value V) {
	if _, known := all[key]; !known && len(all) >= remembered {
		for other := range all {
			delete(all, other)
			break
		}
	}
	all[key] = value
}

func (h *host) get(ctx context.Context, op string, id subagent.SessionID) (w wireSession, err error) {
	c := of(op, "GET", id, "")
	if _, err = h.api.do(ctx, c, &w); err == nil && w.ID != id {
		err = h.api.wrong(c, subagent.ClassUnavailable, errForeign)
	}
	return w, err
}

// Abort has the server stop what a session does. It replies before that has ended.
func (h *host) Abort(ctx context.Context, id subagent.SessionID) error {
	s, err := h.find(ctx, "abort", id)
	if err == nil {
		_, err = h.api.do(ctx, of("abort", "POST", id, "/abort").in(s.dir), new(bool))
	}
	return unlessGone(err)
}

// unlessGone: of a session that is not there nothing goes on, and nothing is kept.
func unlessGone(err error) error {
	if errors.Is(err, subagent.ErrSessionGone) {
		return nil
	}
	return err
}

// Release stops a session's turn, waits until it rests, and deletes it: the server
// would have the turn of a deleted session go on.
func (h *host) Release(ctx context.Context, id subagent.SessionID) error {
	if err := h.rest(ctx, id); err != nil {
		return err
	}
	if !h.cfg.Keep {
		if _, err := h.api.do(ctx, of("release", "DELETE", id, ""), new(bool)); unlessGone(err) != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, id)
	delete(h.dirs, id) // the server may have told of the deletion before it replied
	if h.cfg.Keep {
		return errors.ErrUnsupported // it was not given up: a prompt that comes late would find it
	}
	return nil
}

// Exists reports whether the server has a session.
func (h *host) Exists(ctx context.Context, id subagent.SessionID) (bool, error) {
	_, err := h.get(ctx, "exists", id)
	if err == nil || errors.Is(err, subagent.ErrSessionGone) {
		return err == nil, nil
	}
	return false, err
}

// ParentOf returns the session above one.
func (h *host) ParentOf(ctx context.Context, id subagent.SessionID) (subagent.SessionID, error) {
	if h.cfg.Outside && !isSession(id) {
		return "", nil
	}
	if !isSession(id) {
		return "", h.api.wrong(of("lineage", "GET", id, ""), subagent.ClassInvalid, fmt.Errorf("%q is no session id of an opencode server, see opencode.Config.Outside: %w", id, subagent.ErrSessionGone))
	}
	w, err := h.get(ctx, "lineage", id)
	return w.ParentID, err
}
