package opencode

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// What was seen on the wire, in short.
const (
	ours        = `{"sessionID":"ses_1","part":{"type":"text","text":"do it","metadata":{"subagent":{"prompt":"m1"}},"messageID":"msg_1","id":"prt_1"}}`
	step        = `{"sessionID":"ses_1","info":{"id":"msg_2","role":"assistant","parentID":"msg_1","time":{"created":5}}}`
	stepDone    = `{"sessionID":"ses_1","info":{"id":"msg_2","role":"assistant","parentID":"msg_1","finish":"stop","time":{"created":5,"completed":9}}}`
	delta       = `{"sessionID":"ses_1","messageID":"msg_2","partID":"prt_4","field":"text","delta":"so"}`
	toolPending = `{"sessionID":"ses_1","part":{"messageID":"msg_2","type":"tool","tool":"bash","callID":"c1","state":{"status":"pending","input":{},"raw":""}}}`
	toolRuns    = `{"sessionID":"ses_1","part":{"messageID":"msg_2","type":"tool","tool":"bash","callID":"c1","state":{"status":"running","input":{"command":"ls"}}}}`
	toolOver    = `{"sessionID":"ses_1","part":{"messageID":"msg_2","type":"tool","tool":"bash","callID":"c1","state":{"status":"completed","input":{"command":"ls"},"output":"x","metadata":{"exit":0}}}}`
	toolFails   = `{"sessionID":"ses_1","part":{"messageID":"msg_2","type":"tool","tool":"bash","callID":"c1","state":{"status":"error","input":[1],"error":"no"}}}`
	otherTool   = `{"sessionID":"ses_1","part":{"messageID":"msg_2","type":"tool","tool":"read","callID":"c2","state":{"status":"running"}}}`
	stepCost    = `{"sessionID":"ses_1","part":{"id":"prt_9","messageID":"msg_2","type":"step-finish","reason":"stop","cost":0.5,"tokens":{"input":10,"output":5,"reasoning":2,"cache":{"read":3,"write":1}}}}`
	stepCost2   = `{"sessionID":"ses_1","part":{"id":"prt_10","messageID":"msg_2","type":"step-finish","reason":"stop","cost":0.5,"tokens":{"input":10,"output":5,"reasoning":2,"cache":{"read":3,"write":1}}}}`
	asked       = `{"id":"per_1","sessionID":"ses_1","permission":"bash","patterns":["ls","cat x"],"metadata":{"command":"ls"},"always":["ls *"],"tool":{"messageID":"msg_2","callID":"c1"}}`
	replied     = `{"sessionID":"ses_1","requestID":"per_1","reply":"once"}`
	question    = `{"id":"que_1","sessionID":"ses_1","questions":[{"question":"which one?","header":"h","options":[]}],"tool":{"messageID":"msg_2","callID":"c1"}}`
	busy        = `{"sessionID":"ses_1","status":{"type":"busy"}}`
	retry       = `{"sessionID":"ses_1","status":{"type":"retry","attempt":1,"message":"scripted 500","next":1795266106879}}`
	idle        = `{"sessionID":"ses_1","status":{"type":"idle"}}`
	apiError    = `{"sessionID":"ses_1","error":{"name":"APIError","data":{"message":"scripted 400","statusCode":400,"isRetryable":false,"responseHeaders":{"x":"y"},"responseBody":"secret"}}}`
	overflow    = `{"sessionID":"ses_1","error":{"name":"ContextOverflowError","data":{"message":"too long"}}}`
	noAgent     = `{"sessionID":"ses_1","error":{"name":"UnknownError","data":{"message":"Agent not found: \"nobody\". Available agents: build, plan"}}}`
	noModel     = `{"sessionID":"ses_1","error":{"name":"UnknownError","data":{"message":"Model not found: fake/nope."}}}`
	aborted     = `{"sessionID":"ses_1","error":{"name":"MessageAbortedError","data":{"message":"Aborted"}}}`
	deleted     = `{"info":{"id":"ses_1","directory":"/d","summary":{"additions":0},"time":{"created":1,"updated":2},"model":{"id":"m","providerID":"p"}}}`
)

type wire struct{ kind, properties string }

var heardOurs = []wire{{"message.part.updated", ours}, {"message.updated", step}}

// What the server's events mean for a child whose prompt has the mark m1.
func TestEvents(t *testing.T) {
	usage := subagent.Usage{InputTokens: 14, OutputTokens: 7, CachedTokens: 3, Cost: 0.5}
	call := func(over, failed bool, input any) subagent.SessionEvent {
		return subagent.SessionEvent{Kind: subagent.EventTool, Tool: subagent.ToolCall{ID: "c1", Name: "bash", Input: input, Over: over, Failed: failed}}
	}
	waits := subagent.SessionEvent{Kind: subagent.EventWaiting, Text: "bash: ls, cat x"}
	command := map[string]any{"command": "ls"}
	for name, c := range map[string]struct {
		before []wire
		event  wire
		want   []subagent.SessionEvent
	}{
		"busy":                          {nil, wire{"session.status", busy}, []subagent.SessionEvent{{Kind: subagent.EventBusy}}},
		"idle, as a status":             {nil, wire{"session.status", idle}, []subagent.SessionEvent{{Kind: subagent.EventIdle}}},
		"idle":                          {nil, wire{"session.idle", `{"sessionID":"ses_1"}`}, []subagent.SessionEvent{{Kind: subagent.EventIdle}}},
		"a retry":                       {nil, wire{"session.status", retry}, []subagent.SessionEvent{{Kind: subagent.EventRetrying, Text: "scripted 500"}}},
		"deleted":                       {nil, wire{"session.deleted", deleted}, []subagent.SessionEvent{{Kind: subagent.EventDeleted}}},
		"our own prompt":                {nil, wire{"message.part.updated", ours}, nil},
		"a step":                        {heardOurs[:1], wire{"message.updated", step}, []subagent.SessionEvent{{Kind: subagent.EventActivity}}},
		"a step of an earlier prompt":   {nil, wire{"message.updated", step}, nil},
		"a step that is over":           {heardOurs, wire{"message.updated", stepDone}, nil},
		"words":                         {heardOurs, wire{"message.part.delta", delta}, []subagent.SessionEvent{{Kind: subagent.EventText, Text: "so"}}},
		"words of an earlier prompt":    {nil, wire{"message.part.delta", delta}, nil},
		"a call":                        {heardOurs, wire{"message.part.updated", toolPending}, []subagent.SessionEvent{call(false, false, map[string]any{})}},
		"a call that runs":              {heardOurs, wire{"message.part.updated", toolRuns}, []subagent.SessionEvent{call(false, false, command)}},
		"a call that is over":           {heardOurs, wire{"message.part.updated", toolOver}, []subagent.SessionEvent{call(true, false, command)}},
		"a call that failed":            {heardOurs, wire{"message.part.updated", toolFails}, []subagent.SessionEvent{call(true, true, []any{1.0})}},
		"what a step cost":              {heardOurs, wire{"message.part.updated", stepCost}, []subagent.SessionEvent{{Kind: subagent.EventUsage, Usage: usage}, {Kind: subagent.EventStep, Step: 1}}},
		"what a step cost, once more":   {append(heardOurs, wire{"message.part.updated", stepCost}), wire{"message.part.updated", stepCost}, []subagent.SessionEvent{{Kind: subagent.EventUsage, Usage: usage}, {Kind: subagent.EventStep, Step: 1}}},
		"what two steps cost":           {append(heardOurs, wire{"message.part.updated", stepCost}), wire{"message.part.updated", stepCost2}, []subagent.SessionEvent{{Kind: subagent.EventUsage, Usage: subagent.Usage{InputTokens: 28, OutputTokens: 14, CachedTokens: 6, Cost: 1}}, {Kind: subagent.EventStep, Step: 2}}},
		"a permission":                  {heardOurs, wire{"permission.asked", asked}, []subagent.SessionEvent{waits}},
		"the call that waits for it":    {append(heardOurs, wire{"permission.asked", asked}), wire{"message.part.updated", toolRuns}, nil},
		"a call beside it":              {append(heardOurs, wire{"permission.asked", asked}), wire{"message.part.updated", otherTool}, []subagent.SessionEvent{{Kind: subagent.EventTool, Tool: subagent.ToolCall{ID: "c2", Name: "read"}}, waits}},
		"a permission that is answered": {append(heardOurs, wire{"permission.asked", asked}), wire{"permission.replied", replied}, []subagent.SessionEvent{{Kind: subagent.EventText}}},
		"an answer to what is unknown":  {heardOurs, wire{"permission.replied", replied}, nil},
		"a question":                    {heardOurs, wire{"question.asked", question}, []subagent.SessionEvent{{Kind: subagent.EventQuestion, Text: "which one?"}}},
		"an error of an earlier prompt": {nil, wire{"session.error", noModel}, nil},
		"an abort":                      {heardOurs, wire{"session.error", aborted}, nil},
		"todos":                         {nil, wire{"todo.updated", `{"sessionID":"ses_1","todos":[]}`}, []subagent.SessionEvent{{Kind: subagent.EventActivity}}},
		"what comes after idle":         {heardOurs, wire{"session.updated", `{"sessionID":"ses_1","info":{"id":"ses_1"}}`}, nil},
		"what is said twice":            {heardOurs, wire{"sync", `{"sessionID":"ses_1"}`}, nil},
		"what can't be read":            {heardOurs, wire{"session.idle", `{"sessionID":7}`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := child(t)
			for _, w := range c.before {
				h.hear(event{Type: w.kind, Properties: json.RawMessage(w.properties)})
			}
			for i := range c.want {
				c.want[i].Session = "ses_1"
			}
			require.Equal(t, c.want, h.hear(event{Type: c.event.kind, Properties: json.RawMessage(c.event.properties)}))
		})
	}
}

// child is a host with one child, which was given the prompt with the mark m1.
func child(t *testing.T) *host {
	oc, err := New(Config{URL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	oc.host.sessions["ses_1"] = &session{dir: "/d", turn: newTurn("m1")}
	return oc.host
}

// Errors that end a turn have their classes, others only the text that people read. One
// about the agent comes before anything else of the turn.
func TestErrorEvents(t *testing.T) {
	for _, c := range []struct {
		before []wire
		error  string
		class  subagent.Class
		says   string
	}{
		{heardOurs, apiError, subagent.ClassUnknown, "scripted 400"}, // the answer decides
		{heardOurs, overflow, subagent.ClassUnknown, "too long"},     // the server shortens it and goes on
		{heardOurs, noModel, subagent.ClassModelNotFound, "Model not found: fake/nope."},
		{nil, noAgent, subagent.ClassAgentNotFound, `Agent not found: "nobody". Available agents: build, plan`},
	} {
		h := child(t)
		for _, w := range c.before {
			h.hear(event{Type: w.kind, Properties: json.RawMessage(w.properties)})
		}
		events := h.hear(event{Type: "session.error", Properties: json.RawMessage(c.error)})
		require.Len(t, events, 1)
		var said *subagent.SessionError
		require.ErrorAs(t, events[0].Err, &said)
		require.Equal(t, c.class, said.Class)
		require.EqualError(t, said.Err, c.says)
		require.NotContains(t, events[0].Err.Error(), "secret")
	}
}

// A turn that was stopped in a session that we never prompted, a user has stopped. The turns
// of children we may have stopped ourselves, and what was told late is no news.
func TestInterruptedEvents(t *testing.T) {
	h := child(t)
	tell := func(id string) []subagent.SessionEvent {
		return h.hear(event{Type: "session.error", Properties: json.RawMessage(strings.ReplaceAll(aborted, "ses_1", id))})
	}
	require.Equal(t, []subagent.SessionEvent{{Session: "ses_2", Kind: subagent.EventInterrupted}}, tell("ses_2"))
	require.Empty(t, tell("ses_1"))
	h.sessions["ses_1"].turn = nil
	require.Empty(t, tell("ses_1"), "its turn is over")
	require.Empty(t, h.hear(event{Type: "session.error", Properties: json.RawMessage(`{"sessionID":"ses_2"}`)}))
}

// Of sessions that are not children only rest, work and end are told.
func TestEventsOfParents(t *testing.T) {
	h := child(t)
	for kind, properties := range map[string]string{
		"message.part.updated": `{"sessionID":"ses_9","part":{"type":"text","text":"x","messageID":"msg_1"}}`,
		"message.updated":      `{"sessionID":"ses_9","info":{"id":"msg_1","role":"assistant"}}`,
		"message.part.delta":   `{"sessionID":"ses_9","messageID":"msg_1","field":"text","delta":"x"}`,
		"session.error":        `{"sessionID":"ses_9","error":{"name":"APIError","data":{"message":"x"}}}`,
		"permission.asked":     `{"id":"per_1","sessionID":"ses_9","permission":"bash"}`,
		"permission.replied":   `{"sessionID":"ses_9","requestID":"per_1"}`,
		"todo.updated":         `{"sessionID":"ses_9"}`,
	} {
		require.Empty(t, h.hear(event{Type: kind, Properties: json.RawMessage(properties)}), kind)
	}
	require.Equal(t, []subagent.SessionEvent{{Kind: subagent.EventIdle, Session: "ses_9"}},
		h.hear(event{Type: "session.idle", Properties: json.RawMessage(`{"sessionID":"ses_9"}`)}))
}

// A session that is deleted is forgotten, as nobody releases it: with its turn, which goes
// on in its directory.
func TestDeletedSessionIsForgotten(t *testing.T) {
	for _, works := range []bool{false, true} {
		h := child(t)
		s := h.sessions["ses_1"]
		out := s.turn
		if !works {
			h.turnIsOver("ses_1", out)
		}
		require.Len(t, h.hear(event{Type: "session.deleted", Properties: json.RawMessage(`{"sessionID":"ses_1","info":{"id":"ses_1"}}`)}), 1)
		require.Equal(t, works, h.sessions["ses_1"] == s)
		h.turnIsOver("ses_1", out)
		require.Empty(t, h.sessions)
		found, err := h.find(t.Context(), "abort", "ses_1")
		require.NoError(t, err, "nothing is asked")
		require.Equal(t, "/d", found.dir)
	}
}

// Nor is anything kept of one that is released, of whose deletion the server tells too:
// before it answers, or after.
func TestReleasedSessionIsForgotten(t *testing.T) {
	for _, early := range []bool{true, false} {
		h := child(t)
		h.turnIsOver("ses_1", h.sessions["ses_1"].turn)
		tell := func() {
			h.hear(event{Type: "session.deleted", Properties: json.RawMessage(`{"sessionID":"ses_1","info":{"id":"ses_1"}}`)})
		}
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"DELETE /session/ses_1": func(*http.Request) (*http.Response, error) {
			if early {
				tell()
			}
			return reply(200, "true"), nil
		}}}
		h.api = over(t, s, Config{}).host.api
		h.rest = func(context.Context, subagent.SessionID) error { return nil }
		require.NoError(t, h.Release(t.Context(), "ses_1"))
		if !early {
			tell()
		}
		require.Empty(t, h.sessions)
		require.Empty(t, h.dirs, "it would take the place of one that is needed")
	}
}

// What can't be read, one of a directory or all of it, keeps nothing else from being asked.
func TestAskingBesideWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"GET /permission": hang,
			"GET /question": func(r *http.Request) (*http.Response, error) {
				if r.URL.Query().Get("directory") == "/a" {
					return hang(r)
				}
				time.Sleep(100 * time.Millisecond)
				return reply(200, `[{"id":"que_1","sessionID":"ses_2","questions":[{"question":"which?"}]}]`), nil
			},
		}}
		h := over(t, s, Config{}).host
		for id, dir := range map[subagent.SessionID]string{"ses_1": "/a", "ses_2": "/b"} {
			h.sessions[id] = &session{dir: dir, turn: newTurn("m")}
			h.unasked[dir] = true
		}
		require.Equal(t, []subagent.SessionEvent{{Kind: subagent.EventQuestion, Session: "ses_2", Text: "which?"}}, h.askAgain(t.Context()))
		require.Equal(t, map[string]bool{"/a": true, "/b": true}, h.unasked, "asked again, later")
		require.Empty(t, h.askAgain(t.Context()))
	})
}
