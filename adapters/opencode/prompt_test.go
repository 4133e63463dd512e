package opencode

import (
	"net/http"
	"testing"
	"testing/synctest"

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
