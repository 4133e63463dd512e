package opencode

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
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
