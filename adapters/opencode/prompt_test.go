package opencode

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// A turn that waits to try its model again goes on, and takes messages. One that is over
// takes none.
func TestSteerWhileATurnGoesOn(t *testing.T) {
	for status, takes := range map[string]bool{
		`{"ses_1":{"type":"busy"}}`: true, `{"ses_1":{"type":"retry","message":"x"}}`: true,
		`{"ses_1":{"type":"idle"}}`: false, `{}`: false, `{"ses_2":{"type":"busy"}}`: false,
	} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/status": always(200, status)}}
		err := over(t, s, Config{}).Steer(t.Context(), "ses_1", "look")
		require.Equal(t, takes, err == nil, "%s: %v", status, err)
		require.Equal(t, takes, s.count("POST /session/ses_1/prompt_async") == 1, status)
	}
}

// A message into a turn does not make another of it: as a prompt for no agent, the
// child's own would be the server's default from its next step on.
func TestSteerChangesNothingElse(t *testing.T) {
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
		"GET /session/status": always(200, `{"ses_1":{"type":"busy"}}`),
	}}
	asked := `{"info":{"id":"msg_u","role":"user","agent":"plan","system":"be brief","model":{"providerID":"p","modelID":"m","variant":"high"}},"parts":[{"type":"text","text":"x"}]}`
	s.answer["GET /session/ses_1/message"] = s.conversation(append([]string{asked}, steps(30)...))
	require.NoError(t, over(t, s, Config{}).Steer(t.Context(), "ses_1", "look"))
	sent := s.prompts[0]
	require.Equal(t, prompt{Agent: "plan", System: "be brief", Variant: "high", Model: &model{Provider: "p", Model: "m"}, NoReply: true, Parts: sent.Parts}, sent)
	require.Equal(t, "look", sent.Parts[0].Text)
}

// The Prompt of the client that is embedded works too.
func TestEmbeddedPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{}
		s.answer = map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1/message": func(*http.Request) (*http.Response, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return reply(200, `[{"info":{"id":"msg_u","role":"user"},"parts":[{"type":"text","text":"x","metadata":{"subagent":{"prompt":"`+s.prompts[0].Parts[0].Metadata[metaKey].Prompt+`"}}}]},
				{"info":{"id":"msg_a","role":"assistant","finish":"stop","time":{"created":1,"completed":2}},"parts":[{"type":"text","text":"yes"}]}]`), nil
		}}
		r, err := over(t, s, Config{}).BlockingClient.Prompt(t.Context(), "ses_1", subagent.Prompt{Text: "x", OnEvent: func(subagent.SessionEvent) {}})
		require.NoError(t, err)
		require.Equal(t, "yes", r.Text)
		require.NotEmpty(t, s.prompts[0].Parts[0].Metadata[metaKey].Prompt)
	})
}

func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Tools that are switched off in a session that was made elsewhere are added to its rules,
// once. As a field of the prompt they would take the place of these.
func TestToolsKeepTheRulesOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"PATCH /session/ses_1": func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			bodies = append(bodies, string(body))
			return reply(200, `{"id":"ses_1"}`), err
		}}}
		oc := over(t, s, Config{})
		for _, tools := range []map[string]bool{nil, {"bash": true}, {"bash": true, "edit": false}, {"edit": false, "bash": true}} {
			_, err := oc.host.Send(t.Context(), "ses_1", subagent.Prompt{Text: "x", Tools: tools})
			require.NoError(t, err)
		}
		require.Equal(t, []string{`{"permission":[{"permission":"edit","pattern":"*","action":"deny"}]}`}, bodies)
		require.Len(t, s.prompts, 4)
		s.answer["PATCH /session/ses_1"] = always(500, "")
		_, err := oc.host.Send(t.Context(), "ses_1", subagent.Prompt{Text: "x", Tools: map[string]bool{"bash": false}})
		require.ErrorIs(t, err, subagent.ErrNotSent)
		require.Len(t, s.prompts, 4, "what is not switched off might be used")
	})
}

// What is switched off is looked at with each prompt, also in a map that its caller has
// changed; and denied once, whatever prompts there were between.
func TestToolsOfAMapThatChanges(t *testing.T) {
	patched := 0
	s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"PATCH /session/ses_1": func(*http.Request) (*http.Response, error) {
		patched++
		return reply(200, `{"id":"ses_1"}`), nil
	}}}
	oc := over(t, s, Config{})
	send := func(tools map[string]bool) {
		_, err := oc.host.Send(t.Context(), "ses_1", subagent.Prompt{Text: "x", Tools: tools})
		require.NoError(t, err)
	}
	tools := map[string]bool{"bash": true}
	send(tools)
	tools["bash"] = false
	send(tools)
	require.Equal(t, 1, patched)
	send(nil)
	send(tools)
	require.Equal(t, 1, patched, "its rules deny that already")
}

// A prompt that did not go out, since its session could not be read, is not waited for,
// and leaves no doubt.
func TestPromptThatNeverWentOut(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){"503": always(503, ""), "429": always(429, "{}"), "too late": hang} {
		synctest.Test(t, func(t *testing.T) {
			s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /session/ses_1": answer}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			_, err := over(t, s, Config{}).Prompt(ctx, "ses_1", subagent.Prompt{Text: "x"})
			require.Zero(t, s.count("POST /session/ses_1/prompt_async"), name)
			require.ErrorIs(t, err, subagent.ErrNotSent, name)
			require.LessOrEqual(t, time.Since(began), 30*time.Second, name)
		})
	}
}

// A call for which no time was left was not sent.
func TestNoTimeLeft(t *testing.T) {
	s := &scene{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := over(t, s, Config{}).host.post(ctx, "prompt", "ses_1", "/d", prompt{})
	require.ErrorIs(t, err, subagent.ErrNotSent)
	require.Empty(t, s.asked)
}

// A directory that loads without end has its prompt all the same.
func TestPromptIsSentThoughLoadingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){"GET /config/providers": hang}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, _ = over(t, s, Config{}).Prompt(ctx, "ses_1", subagent.Prompt{Text: "x"})
		require.Equal(t, 1, s.count("POST /session/ses_1/prompt_async"))
	})
}
