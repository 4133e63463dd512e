package opencode_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fields is an object of JSON as the server has it.
type fields = map[string]any

// fakeSession is a session and the books on it. Guarded by the fake's mu.
type fakeSession struct {
	f       *fakeOpencode
	id      string
	dir     string
	parent  string
	created fields // the request that it was made from
	msgs    []*fakeMessage
	todos   []fields
	status  fields             // as /session/status shows it; nil: idle
	halt    context.CancelFunc // of the turn that goes on
	turn    *fakeTurn          // which is this
	permit  fields             // that the turn waits for
	deleted bool

	turns   int // so far
	prompts int // messages that asked for an answer
	notes   int // those that did not
}

// fakeMessage is a message as the server has it.
type fakeMessage struct {
	info  fields
	parts []fields
}

func (m *fakeMessage) id() string   { return m.info["id"].(string) }
func (m *fakeMessage) isUser() bool { return m.info["role"] == "user" }
func (m *fakeMessage) MarshalJSON() ([]byte, error) {
	return json.Marshal(fields{"info": m.info, "parts": listOf(m.parts)})
}

// listOf is a list that is not null when it is empty.
func listOf[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// text is what the message says.
func (m *fakeMessage) text() string {
	var all []string
	for _, p := range m.parts {
		if said, ok := p["text"].(string); ok && p["type"] == "text" {
			all = append(all, said)
		}
	}
	return strings.Join(all, "\n")
}

// newID makes an id that sorts behind all before it.
func (f *fakeOpencode) newID(kind string) string {
	f.ids++
	return fmt.Sprintf("%s_%012x0Fake", kind, f.ids)
}

func millis() int64 { return time.Now().UnixMilli() }

// open makes a session; f is locked.
func (f *fakeOpencode) open(dir, parent string, req fields) *fakeSession {
	s := &fakeSession{f: f, id: f.newID("ses"), dir: dir, parent: parent, created: req}
	f.sessions[s.id] = s
	f.order = append(f.order, s)
	f.emit(dir, "session.created", fields{"sessionID": s.id, "info": s.info()})
	return s
}

// root makes a session without a parent, as a person would.
func (f *fakeOpencode) root(dir string) *fakeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open(dir, "", nil)
}

func (s *fakeSession) info() fields {
	info := fields{"id": s.id, "directory": s.dir, "version": "1.18.33", "projectID": "global", "title": s.created["title"], "time": fields{"created": millis(), "updated": millis()}}
	if s.parent != "" {
		info["parentID"] = s.parent
	}
	if about := s.created["metadata"]; about != nil {
		info["metadata"] = about
	}
	return info
}

func (f *fakeOpencode) create(w http.ResponseWriter, r *http.Request) {
	req, ok := bodyOf(w, r)
	if !ok {
		return
	}
	parent, _ := req["parentID"].(string)
	if parent != "" && !strings.HasPrefix(parent, "ses") {
		reply(w, 400, fields{"_tag": "BadRequest"})
		return
	}
	f.mu.Lock()
	info := f.open(directory(r), parent, req).info()
	f.mu.Unlock()
	reply(w, 200, info)
}

func bodyOf(w http.ResponseWriter, r *http.Request) (req fields, ok bool) {
	text, err := io.ReadAll(r.Body)
	if err == nil && len(text) > 0 {
		err = json.Unmarshal(text, &req)
	}
	if err != nil {
		reply(w, 400, fields{"_tag": "BadRequest"})
	}
	return req, err == nil
}

func (f *fakeOpencode) get(s *fakeSession, w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, s.info())
}

func (f *fakeOpencode) todo(s *fakeSession, w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, listOf(s.todos))
}

func (f *fakeOpencode) children(s *fakeSession, w http.ResponseWriter, _ *http.Request) {
	all := []fields{}
	for _, c := range f.order {
		if c.parent == s.id && !c.deleted {
			all = append(all, c.info())
		}
	}
	reply(w, 200, all)
}

// remove deletes a session and those below it. What they are doing goes on.
func (f *fakeOpencode) remove(s *fakeSession, w http.ResponseWriter, _ *http.Request) {
	gone := []*fakeSession{s}
	for i := 0; i < len(gone); i++ {
		delete(f.sessions, gone[i].id)
		gone[i].deleted = true
		f.emit(gone[i].dir, "session.deleted", fields{"sessionID": gone[i].id, "info": gone[i].info()})
		for _, c := range f.order {
			if c.parent == gone[i].id && !c.deleted {
				gone = append(gone, c)
			}
		}
	}
	reply(w, 200, true)
}

// status tells of the sessions of one directory; those that rest are not in it.
func (f *fakeOpencode) status(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if f.brokenDir != "" && directory(r) == f.brokenDir {
		f.mu.Unlock()
		reply(w, 500, errorBody("UnknownError", "Unexpected server error."))
		return
	}
	all := fields{}
	for _, s := range f.order {
		if s.dir == directory(r) && s.status != nil {
			all[s.id] = s.status
		}
	}
	f.mu.Unlock()
	reply(w, 200, all)
}

// messages are the newest so many before a cursor, the oldest of them first.
func (f *fakeOpencode) messages(s *fakeSession, w http.ResponseWriter, r *http.Request) {
	page := s.msgs
	if before := r.URL.Query().Get("before"); before != "" {
		id, err := base64.RawURLEncoding.DecodeString(before)
		at := slices.IndexFunc(page, func(m *fakeMessage) bool { return m.id() == string(id) })
		if err != nil || at < 0 {
			reply(w, 400, fields{"_tag": "BadRequest"})
			return
		}
		page = page[:at]
	}
	if limit, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && limit > 0 && len(page) > limit {
		page = page[len(page)-limit:]
		w.Header().Set("X-Next-Cursor", base64.RawURLEncoding.EncodeToString([]byte(page[0].id())))
	}
	reply(w, 200, listOf(page))
}

// prompt stores a message, and has a turn answer it unless it asks for none. A turn
// that goes on takes it in with its next step, whether it asks for an answer or not.
func (f *fakeOpencode) prompt(s *fakeSession, w http.ResponseWriter, r *http.Request) {
	req, ok := bodyOf(w, r)
	if !ok {
		return
	}
	id, _ := req["messageID"].(string)
	if id != "" && !strings.HasPrefix(id, "msg") {
		reply(w, 400, fields{"_tag": "BadRequest"})
		return
	}
	if s.refuses(id, req) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	silent, _ := req["noReply"].(bool)
	if silent {
		s.notes++
	} else {
		s.prompts++
	}
	repeated := s.store(id, req)
	if s.halt == nil && !silent {
		s.begin(repeated)
	}
	w.WriteHeader(http.StatusNoContent)
}

// refuses tells of an agent or a model that there is not, after it has said yes.
func (s *fakeSession) refuses(id string, req fields) bool {
	model, _ := req["model"].(fields)
	wrong := func(what string) {
		s.tell("session.error", fields{"error": errorBody("UnknownError", what+" not found: nope")})
	}
	switch {
	case req["agent"] == "nope":
		wrong("Agent")
		wrong("Agent")
	case model["modelID"] == "nope":
		s.prompts++
		s.store(id, req)
		s.tell("session.status", fields{"status": fields{"type": "busy"}})
		wrong("Model")
		s.rest()
		wrong("Model")
	default:
		return false
	}
	return true
}

// store appends a message of the user, or to the message that has its id already.
func (s *fakeSession) store(id string, req fields) (repeated bool) {
	at := slices.IndexFunc(s.msgs, func(m *fakeMessage) bool { return m.id() == id })
	if id == "" {
		id = s.f.newID("msg")
	}
	m := &fakeMessage{info: fields{"id": id, "sessionID": s.id, "role": "user", "time": fields{"created": millis()}, "agent": "build", "model": fields{"providerID": "fake", "modelID": "scripted"}}}
	for _, name := range []string{"agent", "model"} {
		if req[name] != nil {
			m.info[name] = req[name]
		}
	}
	if at >= 0 { // what is known of it is replaced, what it says is not
		m.parts = s.msgs[at].parts
		s.msgs[at] = m
	} else {
		s.msgs = append(s.msgs, m)
	}
	s.tell("message.updated", fields{"info": m.info})
	parts, _ := req["parts"].([]any)
	for _, p := range parts {
		if part, ok := p.(fields); ok {
			s.part(m, part)
		}
	}
	s.tell("session.updated", fields{"info": s.info()})
	return at >= 0
}

// part adds a part to a message and tells of it.
func (s *fakeSession) part(m *fakeMessage, part fields) fields {
	part["id"], part["messageID"], part["sessionID"] = s.f.newID("prt"), m.id(), s.id
	m.parts = append(m.parts, part)
	s.tell("message.part.updated", fields{"part": part, "time": millis()})
	return part
}

// tell emits an event of the session.
func (s *fakeSession) tell(kind string, props fields) {
	props["sessionID"] = s.id
	s.f.emit(s.dir, kind, props)
}

// rest says that the session is idle, in the two words that the server has for it.
func (s *fakeSession) rest() {
	s.tell("session.status", fields{"status": fields{"type": "idle"}})
	s.tell("session.idle", fields{})
}

// be sets the status and tells of it.
func (s *fakeSession) be(status fields) {
	s.status = status
	s.tell("session.status", fields{"status": status})
}

// abort always says yes: a turn stops soon after; without one an idle event is all
// that comes, for a session that there never was too.
func (f *fakeOpencode) abort(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	f.mu.Lock()
	switch s := f.find(id); {
	case s == nil:
		f.emit(directory(r), "session.idle", fields{"sessionID": id})
	case s.halt != nil:
		s.halt()
	default:
		s.rest()
	}
	f.mu.Unlock()
	reply(w, 200, true)
}

// find also finds what was deleted: its turn may still go on.
func (f *fakeOpencode) find(id string) *fakeSession {
	for _, s := range f.order {
		if s.id == id {
			return s
		}
	}
	return nil
}
