package scriptedllm

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// ask sends a conversation and hears the answer; an HTTP error is its status.
func ask(ctx context.Context, s *Server, h host, stream bool, conversation ...Message) (heard, int, error) {
	res, err := http.DefaultClient.Do(h.request(s.URL, stream, conversation).WithContext(ctx))
	if err != nil {
		return heard{}, 0, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || !stream {
		body, err := io.ReadAll(res.Body)
		return h.whole(body), res.StatusCode, err
	}
	return h.streamed(res.Body), res.StatusCode, nil
}

func user(text string) Message { return Message{Role: RoleUser, Text: text} }

func then(conversation []Message, got heard) []Message {
	conversation = append(conversation, Message{Role: RoleAssistant, Text: got.text, Calls: got.calls})
	for _, c := range got.calls {
		id := c.ID
		if id == "" {
			id = c.Name // Gemini
		}
		conversation = append(conversation, Message{Role: RoleTool, For: id, Text: "SCRIPT: say a result is no script"})
	}
	return conversation
}

// reasons are what ends an answer that calls a tool, and one that does not.
var reasons = map[string][2]string{
	"chat": {"tool_calls", "stop"}, "responses": {"completed", "completed"}, "anthropic": {"tool_use", "end_turn"}, "gemini": {"STOP", "STOP"},
}

// A whole turn through every API: the host runs tools and calls again until the
// model rests.
func TestTurns(t *testing.T) {
	s := New(t, Config{})
	prompt := "work\nSCRIPT: think hm; tool read {\"path\":\"ä;||\"}; tool read {\"path\":\"b\"}; usage 7 3 || " +
		"say mid; tool mcp__x::y {\"prompt\":\"SCRIPT: say a || say b\"} || say do; say ne"
	ways := append(wires[:len(wires):len(wires)], struct {
		name   string
		host   host
		stream bool
	}{"responses-paired", responsesHost{paired: true}, true})
	for _, wire := range ways {
		t.Run(wire.name, func(t *testing.T) {
			reason := reasons[strings.Split(wire.name, "-")[0]]
			conversation := []Message{{Role: "system", Text: "be good"}, user(prompt)}
			var got [3]heard
			for i := range got {
				var status int
				var err error
				got[i], status, err = ask(t.Context(), s, wire.host, wire.stream, conversation...)
				require.NoError(t, err)
				require.Equal(t, 200, status)
				require.True(t, got[i].whole)
				conversation = then(conversation, got[i])
			}
			require.Equal(t, "hm", got[0].thought)
			require.Equal(t, [2]int{7, 3}, [2]int{got[0].in, got[0].out})
			require.Len(t, got[0].calls, 2)
			require.JSONEq(t, `{"path":"ä;||"}`, string(got[0].calls[0].Input))
			require.JSONEq(t, `{"path":"b"}`, string(got[0].calls[1].Input))
			require.Equal(t, reason[0], got[0].reason)
			require.Equal(t, "mid", got[1].text)
			require.Len(t, got[1].calls, 1)
			require.Equal(t, strings.HasPrefix(wire.name, "responses"), got[1].calls[0].Name == "mcp__x::y")
			require.Equal(t, [2]int{10, 5}, [2]int{got[1].in, got[1].out})
			require.Equal(t, heard{text: "done", reason: reason[1], in: 10, out: 5, whole: true}, got[2])

			end, _, err := ask(t.Context(), s, wire.host, wire.stream, conversation[:len(conversation)-1]...)
			require.NoError(t, err)
			require.Equal(t, "done", end.text, "the same request gets the same answer")
			checkRecord(t, s.Requests()[len(s.Requests())-1], wire.host, wire.stream)
		})
	}
}

// checkRecord looks at what the server knows about the third call of the turn.
func checkRecord(t *testing.T, r Request, h host, stream bool) {
	t.Helper()
	api := map[string]API{"chatHost": OpenAIChat, "responsesHost": OpenAIResponses, "anthropicHost": Anthropic, "geminiHost": Gemini}
	_, name, _ := strings.Cut(fmt.Sprintf("%T", h), ".")
	require.Equal(t, api[name], r.API)
	require.Equal(t, "m", r.Model)
	require.Equal(t, stream, r.Stream)
	require.Equal(t, "be good", r.System)
	require.Contains(t, r.Tools, "read")
	require.Equal(t, 2, r.Step)
	require.Equal(t, 200, r.Status)
	calls := 0
	for _, m := range r.Messages {
		calls += len(m.Calls)
	}
	require.Equal(t, 3, calls)
	require.Equal(t, RoleUser, r.Messages[0].Role)
}

// What becomes of a conversation that goes on after a script.
func TestWhichStep(t *testing.T) {
	s := New(t, Config{})
	answer := Message{Role: RoleAssistant, Text: "x"}
	tagged := func(script string, step int) Message {
		return Message{Role: RoleAssistant, Calls: []Call{{ID: idOf("call_", tagOf(script), step, "r"), Name: "read", Input: raw(object{})}}}
	}
	result := Message{Role: RoleTool, For: "call", Text: "r"}
	const two = " say one || say two"
	for name, c := range map[string]struct {
		conversation []Message
		want         string
	}{
		"no script":                  {[]Message{user("hi")}, "echo: hi"},
		"script":                     {[]Message{user("SCRIPT:" + two)}, "one"},
		"a line of many":             {[]Message{user("do this:\nSCRIPT: say no\nSCRIPT:" + two + "\r\nthanks, SCRIPT: say no")}, "one"},
		"second step":                {[]Message{user("SCRIPT:" + two), answer, result}, "two"},
		"over":                       {[]Message{user("SCRIPT:" + two), answer, result, answer, result}, theEnd},
		"a notice goes on":           {[]Message{user("SCRIPT:" + two), answer, user("news")}, "two"},
		"a notice before any answer": {[]Message{user("SCRIPT:" + two), user("news")}, "one"},
		"a notice after the end":     {[]Message{user("SCRIPT:" + two), answer, user("news"), answer, user("more")}, "echo: more"},
		"a new script":               {[]Message{user("SCRIPT: say no"), answer, user("SCRIPT:" + two)}, "one"},
		"its calls":                  {[]Message{user("SCRIPT:" + two), tagged(two, 0), result}, "two"},
		"calls beside their results": {[]Message{user("SCRIPT:" + two), tagged(two, 0), result, tagged(two, 0), result}, "two"},
		"calls of the turn before":   {[]Message{user("SCRIPT: say no"), user("SCRIPT:" + two), tagged(" say no", 7), result}, "one"},
		"a title":                    {[]Message{{Role: "system", Text: "You are a Title Generator."}, user("SCRIPT:" + two)}, theTitle},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := ask(t.Context(), s, chatHost{}, false, c.conversation...)
			require.NoError(t, err)
			require.Equal(t, c.want, got.text)
		})
	}
}

// Many sessions at once, through all APIs, each of which is refused twice.
func TestParallelSessions(t *testing.T) {
	s := New(t, Config{Keep: 10_000})
	const each = 20
	var wg sync.WaitGroup
	for _, wire := range wires {
		for i := range each {
			wg.Go(func() {
				conversation := []Message{user(fmt.Sprintf("%s %d\nSCRIPT: error 503 x2; say n%d; tool read {\"n\":%d} || slow 2 1ms; say m%d", wire.name, i, i, i, i))}
				var said []string
				for range 4 {
					got, status, err := ask(t.Context(), s, wire.host, wire.stream, conversation...)
					if err != nil {
						t.Error(err)
						return
					}
					said = append(said, fmt.Sprint(status, got.text))
					if status == 200 {
						conversation = then(conversation, got)
					}
				}
				want := []string{"503", "503", fmt.Sprintf("200n%d", i), fmt.Sprintf("200word1 word2 m%d", i)}
				if fmt.Sprint(said) != fmt.Sprint(want) {
					t.Errorf("%s %d: %q, want %q", wire.name, i, said, want)
				}
			})
		}
	}
	wg.Wait()
	require.NoError(t, s.WaitIdle(t.Context()))
	tries := map[int]int{}
	ids := map[string]bool{}
	for _, r := range s.Requests() {
		tries[r.Try]++
		for _, m := range r.Messages {
			for _, c := range m.Calls {
				require.False(t, c.ID != "" && ids[c.ID], "an id is used once")
				ids[c.ID] = true
			}
		}
	}
	n := each * len(wires)
	require.Equal(t, map[int]int{0: 2 * n, 1: n, 2: n}, tries)
}
