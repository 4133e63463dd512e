package opencode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// What was said to another prompt of ours is no answer, before it or after it.
func TestOutputIsOfThisPrompt(t *testing.T) {
	const exchange = `{"info":{"id":"msg_%[1]s","role":"user"},"parts":[{"type":"text","text":"?","metadata":{"subagent":{"prompt":"%[1]s"}}}]},
		{"info":{"id":"msg_a%[1]s","role":"assistant","parentID":"msg_%[1]s","finish":"stop","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"to %[1]s"}]}`
	all := "[" + fmt.Sprintf(exchange, "m1") + "," + fmt.Sprintf(exchange, "m2") + "]"
	oc := over(t, &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": always(200, all)}}, Config{})
	for m, want := range map[string]string{"m1": "to m1", "m2": "to m2", "m3": ""} {
		out, err := oc.host.Output(t.Context(), "ses_1", m)
		require.NoError(t, err)
		require.Equal(t, want, out.Text, "said to %s", m)
	}
}

// If the prompt is what can't be read, what was said before it is no answer to it.
func TestUnreadPromptHasNoOldAnswer(t *testing.T) {
	const all = `[{"info":{"id":"msg_1","role":"user"},"parts":[{"type":"text","text":"earlier"}]},
		{"info":{"id":"msg_2","role":"assistant","finish":"stop","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"an old answer"}]},
		{"info":{"id":"msg_3","role":"user"},"parts":[{"type":"text","text":"somebody"}]},
		{"info":{"id":"msg_4","role":"user","time":"now"},"parts":[{"type":"text","text":"x","metadata":{"subagent":{"prompt":"m1"}}}]}]`
	var lines bytes.Buffer
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": always(200, all)}}
	oc := over(t, s, Config{Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	out, err := oc.host.Output(t.Context(), "ses_1", "m1")
	require.NoError(t, err)
	require.Equal(t, subagent.Answer{Unfinished: true}, out)
	require.Contains(t, lines.String(), errUnread.Error())
}

// An answer that the provider's error has cut is told as failed, with what was said.
func TestAnswerCutByAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(200, `{"id":"ses_1","directory":"/d"}`),
			"GET /session/ses_1/message": func(*http.Request) (*http.Response, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				return reply(200, `[{"info":{"id":"msg_u","role":"user"},"parts":[{"type":"text","text":"x","metadata":{"subagent":{"prompt":"`+s.prompts[0].Parts[0].Metadata[metaKey].Prompt+`"}}}]},
					{"info":{"id":"msg_a","role":"assistant","finish":"error","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"It is"}]}]`), nil
			},
		}
		_, m, task := launched(t, s)
		m.HandleEvent(subagent.SessionEvent{Session: "ses_1", Kind: subagent.EventBusy})
		m.HandleEvent(subagent.SessionEvent{Session: "ses_1", Kind: subagent.EventIdle})
		ended, err := m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, subagent.SessionFailed)
		require.ErrorContains(t, ended.Reason, "cut by an error of the provider")
		require.Equal(t, "It is", ended.Result.Text)
		require.True(t, ended.Result.Partial)
	})
}

// What the steps after a prompt say of its turn.
func TestAnswer(t *testing.T) {
	const done = `"time":{"created":1,"completed":2}`
	said := func(text string) string { return `{"type":"text","text":"` + text + `"}` }
	for name, c := range map[string]struct {
		steps      string
		text       string
		evidence   bool
		unfinished bool
		class      subagent.Class
	}{
		"none": {`[]`, "", false, true, ""},
		"one, whole": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said("yes") + `]}]`,
			"yes", true, false, "",
		},
		"one that goes on": {
			`[{"info":{"role":"assistant","time":{"created":1}},"parts":[` + said("ye") + `]}]`,
			"ye", true, true, "",
		},
		"a call, and the next step not begun": {
			`[{"info":{"role":"assistant","finish":"tool-calls",` + done + `},"parts":[{"type":"tool","state":{"status":"completed"}}]}]`,
			"", true, true, "",
		},
		"cut short in a retry": {
			`[{"info":{"role":"assistant",` + done + `},"parts":[]}]`, "", false, true, "",
		},
		"said before a call, and nothing after": {
			`[{"info":{"role":"assistant","finish":"tool-calls",` + done + `},"parts":[` + said("I look") + `,{"type":"tool"}]},
			  {"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said(" ") + `]}]`,
			"I look", true, false, "",
		},
		"two texts in a step, the last step counts": {
			`[{"info":{"role":"assistant","finish":"tool-calls",` + done + `},"parts":[` + said("first") + `]},
			  {"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said("a") + `,{"type":"reasoning","text":"hm"},` + said("b") + `]}]`,
			"a\nb", true, false, "",
		},
		"thoughts alone": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[{"type":"reasoning","text":"hm"}]}]`,
			"", true, false, "",
		},
		"blank": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said(" ") + `]}]`,
			"", false, false, "",
		},
		"an error": {
			`[{"info":{"role":"assistant","error":{"name":"APIError","data":{"message":"x","statusCode":401}},` + done + `},"parts":[` + said("so far") + `]}]`,
			"so far", true, false, subagent.ClassAuth,
		},
		"an abort": {
			`[{"info":{"role":"assistant","error":{"name":"MessageAbortedError","data":{"message":"Aborted"}},` + done + `},"parts":[]}]`,
			"", false, false, subagent.ClassAborted,
		},
		"a permission that was rejected": {
			`[{"info":{"role":"assistant","finish":"tool-calls",` + done + `},"parts":[{"type":"tool","state":{"status":"error","error":"The user rejected permission to use this specific tool call."}}]}]`,
			"", true, true, subagent.ClassPermission,
		},
		"a call that the provider made": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[{"type":"tool","tool":"web_search","metadata":{"providerExecuted":true},"state":{"status":"completed"}},` + said("rain") + `]}]`,
			"rain", true, false, "",
		},
		"a call that was interrupted": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[{"type":"tool","state":{"status":"error","error":"Tool execution aborted","metadata":{"interrupted":true}}},` + said("rain") + `]}]`,
			"rain", true, false, "",
		},
		"a call that the provider made, and nothing said": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[{"type":"tool","metadata":{"providerExecuted":true},"state":{"status":"completed"}}]}]`,
			"", true, false, "",
		},
		"a call that the provider made beside one of the server's": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[{"type":"tool","metadata":{"providerExecuted":true},"state":{"status":"completed"}},{"type":"tool","metadata":[],"state":{"status":"completed","metadata":"x"}}]}]`,
			"", true, true, "",
		},
		"a call that is over, and was interrupted before": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[{"type":"tool","state":{"status":"completed","metadata":{"interrupted":true}}}]}]`,
			"", true, true, "",
		},
		"cut at the model's limit": {
			`[{"info":{"role":"assistant","finish":"length",` + done + `},"parts":[` + said("It is") + `]}]`,
			"It is", true, false, subagent.ClassContextLength,
		},
		"cut at the model's limit before a word was said": {
			`[{"info":{"role":"assistant","finish":"length",` + done + `},"parts":[]}]`,
			"", false, false, subagent.ClassContextLength,
		},
		"cut at the model's limit beside a call": {
			`[{"info":{"role":"assistant","finish":"length",` + done + `},"parts":[` + said("I look") + `,{"type":"tool","state":{"status":"completed"}}]}]`,
			"I look", true, true, "",
		},
		"cut at the model's limit, and gone on with": {
			`[{"info":{"role":"assistant","finish":"length",` + done + `},"parts":[` + said("It is") + `]},
			  {"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said("It is 42") + `]}]`,
			"It is 42", true, false, "",
		},
		"cut by a filter": {
			`[{"info":{"role":"assistant","finish":"content-filter",` + done + `},"parts":[` + said("It is") + `]}]`,
			"It is", true, false, subagent.ClassInvalid,
		},
		"a summary between": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said("yes") + `]},
			  {"info":{"role":"assistant","summary":true,"finish":"stop",` + done + `},"parts":[` + said("in short") + `]}]`,
			"yes", true, false, "",
		},
		"a message that came too late to be answered": {
			`[{"info":{"role":"assistant","finish":"stop",` + done + `},"parts":[` + said("yes") + `]},
			  {"info":{"role":"user","summary":{"diffs":[]}},"parts":[` + said("and?") + `]}]`,
			"yes", true, false, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []message
			require.NoError(t, json.Unmarshal([]byte(c.steps), &steps))
			require.False(t, slices.ContainsFunc(steps, func(m message) bool { return m.unread }))
			out := child(t).answer("ses_1", steps)
			require.Equal(t, c.text, out.Text)
			require.Equal(t, c.evidence, out.Evidence)
			require.Equal(t, c.unfinished, out.Unfinished)
			if c.class == "" {
				require.NoError(t, out.Err)
				return
			}
			var e *subagent.SessionError
			require.ErrorAs(t, out.Err, &e)
			require.Equal(t, c.class, e.Class)
		})
	}
}

// What is read takes little more memory than it has bytes, whatever it is made of: a
// message, a part or a number of an input can be a hundred times what it is on the line.
func TestRepliesDoNotSwell(t *testing.T) {
	list := func(begin, one, end string, size int) string {
		return begin + one + strings.Repeat(","+one, (size-200)/(len(one)+1)) + end
	}
	const tool = `[{"info":{"id":"msg_1","role":"assistant"},"parts":[{"type":"tool","state":{"status":"completed","input":`
	for name, c := range map[string]struct {
		body string
		err  error
	}{
		"messages": {list("[", "{}", "]", maxPage), errForeign},
		"nulls":    {list("[", "null", "]", maxPage), errForeign},
		"parts":    {list(`[{"info":{"id":"msg_1","role":"user"},"parts":[`, "{}", "]}]", maxPage), nil},
		"numbers":  {list(tool+"[", "0", "]}}]}]", maxPage), nil},
		"objects":  {list(tool+"[", `{"a":0}`, "]}}]}]", maxPage), nil},
	} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": always(200, c.body)}}
		oc := over(t, s, Config{})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		page, _, _, err := oc.host.page(t.Context(), "prompt", "ses_1", pageSize, "")
		require.ErrorIs(t, err, c.err, name)
		for i := range page {
			oc.host.transcribe("ses_1", &page[i])
		}
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8*maxPage), name)
	}
}

// Of a message with more parts than any has, nothing is believed.
func TestTooManyParts(t *testing.T) {
	for n, unread := range map[int]bool{maxParts: false, maxParts + 1: true} {
		var m message
		require.NoError(t, json.Unmarshal([]byte(`{"info":{"id":"msg_1"},"parts":[{"type":"text","text":"a,\\\",b"}`+strings.Repeat(`,{"a":[1,2]}`, n-1)+`]}`), &m))
		require.Equal(t, unread, m.unread)
		require.Equal(t, unread, len(m.Parts) == 0)
	}
}
