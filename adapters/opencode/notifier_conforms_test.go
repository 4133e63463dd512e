package opencode_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// saidBy is a transcript as the suite wants it.
func saidBy(role, text string, complete bool, failed bool) subagent.Message {
	m := subagent.Message{Role: subagent.Role(role), Text: text, Complete: complete}
	if failed {
		m.Err = fmt.Errorf("it says so")
	}
	return m
}

// fakeParents are sessions of a fake server. A turn ends as it would, or is stopped.
type fakeParents struct {
	*visitor
	stops bool
}

func (p *fakeParents) Open() subagent.SessionID { return subagent.SessionID(p.create(`{}`)) }

func (p *fakeParents) Said(id subagent.SessionID) (all []subagent.Message) {
	for _, m := range p.messages(string(id), "") {
		text := ""
		for _, part := range m.Parts {
			text += part.Text
		}
		all = append(all, saidBy(m.Info.Role, text, m.Info.Time.Completed != 0, m.Info.Error != nil))
	}
	return all
}

func (p *fakeParents) look(id subagent.SessionID, f func(*fakeSession)) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	f(p.f.find(string(id)))
}

func (p *fakeParents) Turns(id subagent.SessionID) (turns int) {
	p.look(id, func(s *fakeSession) { turns = s.turns })
	return turns
}

func (p *fakeParents) Work(id subagent.SessionID) {
	p.prompt(string(id), "SCRIPT: ask; say done")
	p.until(func() (asks bool) {
		p.look(id, func(s *fakeSession) { asks = s.permit != nil })
		return asks
	})
}

func (p *fakeParents) Rest(id subagent.SessionID) {
	var permit fields
	p.look(id, func(s *fakeSession) { permit = s.permit })
	switch {
	case permit == nil:
	case p.stops:
		p.call(200, "POST", "/session/"+string(id)+"/abort", "")
	default:
		p.call(200, "POST", "/permission/"+permit["id"].(string)+"/reply?directory=/d", `{"reply":"once"}`)
	}
	p.until(func() (rests bool) {
		p.look(id, func(s *fakeSession) { rests = s.halt == nil })
		return rests
	})
}

func (p *fakeParents) Delete(id subagent.SessionID) {
	p.call(200, "DELETE", "/session/"+string(id), "")
}

func (p *fakeParents) until(is func() bool) {
	p.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		if is() {
			return
		}
		<-tick.C
	}
	p.t.Fatal("waited in vain")
}

func TestNetNotifierConforms(t *testing.T) {
	for _, stops := range []bool{false, true} {
		t.Run(fmt.Sprint("turns are stopped: ", stops), func(t *testing.T) {
			subagenttest.TestNotifier(t, func(t *testing.T) subagenttest.Receiver {
				f := newFake(t)
				transport := f.net.transport()
				t.Cleanup(transport.CloseIdleConnections)
				client, err := opencode.New(opencode.Config{URL: f.url(), Transport: transport})
				require.NoError(t, err)
				return subagenttest.Receiver{Notifier: client, Parents: &fakeParents{newVisitor(t, f), stops}, Settle: 4 * time.Second}
			})
		})
	}
}

// realParents are sessions of a real server. Its events say when a turn begins. Work has a
// tool wait for a file that Rest makes, or stops for good.
type realParents struct {
	*server
	dir   string
	stops bool

	mu    sync.Mutex
	busy  map[string]bool
	turns map[string]int
	works map[subagent.SessionID]bool
}

// watch counts turns until the test ends.
func (p *realParents) watch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/global/event", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	over := make(chan struct{})
	go func() {
		defer close(over)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			p.hear(lines.Bytes())
		}
	}()
	t.Cleanup(func() {
		cancel()
		resp.Body.Close()
		<-over
	})
}

func (p *realParents) hear(line []byte) {
	var e struct {
		Payload struct {
			Type       string
			Properties struct {
				SessionID string
				Status    struct{ Type string }
			}
		}
	}
	data, ok := bytes.CutPrefix(line, []byte("data: "))
	if !ok || json.Unmarshal(data, &e) != nil || e.Payload.Type != "session.status" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id, busy := e.Payload.Properties.SessionID, e.Payload.Properties.Status.Type != "idle"
	if busy && !p.busy[id] {
		p.turns[id]++
	}
	p.busy[id] = busy
}

func (p *realParents) raw(id subagent.SessionID) rawSession {
	return rawSession{ID: string(id), Directory: p.dir}
}

func (p *realParents) Open() subagent.SessionID {
	return subagent.SessionID(p.createSession(p.dir, nil).ID)
}

func (p *realParents) Said(id subagent.SessionID) (all []subagent.Message) {
	for _, m := range p.messages(p.raw(id)) {
		all = append(all, saidBy(m.Info.Role, m.text(), m.Info.Time.Completed != 0, m.Info.Error != nil))
	}
	return all
}

func (p *realParents) Turns(id subagent.SessionID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turns[string(id)]
}

func (p *realParents) Work(id subagent.SessionID) {
	p.prompt(p.raw(id), fmt.Sprintf(`SCRIPT: tool bash {"command":"while [ ! -e go-%s ]; do sleep 0.1; done","description":"wait"} || say done`, id))
	p.works[id] = true
	p.waitUntil("the tool runs", func() bool {
		for _, m := range p.messages(p.raw(id)) {
			if tools := m.tools(); len(tools) > 0 && tools[0].State.Status == "running" {
				return true
			}
		}
		return false
	})
}

func (p *realParents) Rest(id subagent.SessionID) {
	switch {
	case !p.works[id]:
	case p.stops:
		p.abort(p.raw(id))
	default:
		require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, "go-"+string(id)), nil, 0o600))
	}
	p.works[id] = false
	p.waitIdle(p.raw(id))
	p.waitUntil("its events say so", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.busy[string(id)]
	})
}

func (p *realParents) Delete(id subagent.SessionID) {
	p.call(http.MethodDelete, "/session/"+string(id), p.dir, nil, nil)
}

func TestRealNotifierConforms(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := s.newDir(t)
	for _, stops := range []bool{false, true} {
		t.Run(fmt.Sprint("turns are stopped: ", stops), func(t *testing.T) {
			subagenttest.TestNotifier(t, func(t *testing.T) subagenttest.Receiver {
				mine := *s
				mine.t = t
				client, err := opencode.New(opencode.Config{URL: s.URL})
				require.NoError(t, err)
				parents := &realParents{server: &mine, dir: dir, stops: stops, busy: map[string]bool{}, turns: map[string]int{}, works: map[subagent.SessionID]bool{}}
				parents.watch(t)
				return subagenttest.Receiver{Notifier: client, Parents: parents, Settle: 20 * time.Second}
			})
		})
	}
}
