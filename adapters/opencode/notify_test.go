package opencode

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// A notification in doubt is not written a second time, however many others came to
// nothing since, and however far the parent went on.
func TestNotifyInDoubtAmongOthers(t *testing.T) {
	lost := true
	s := &scene{}
	s.answer = map[string]func(*http.Request) (*http.Response, error){
		"GET /session/ses_p/message": func(r *http.Request) (*http.Response, error) {
			messages := []string{userAsPlan}
			if !lost { // it had come through, and the parent went on
				later := strings.ReplaceAll(userAsPlan, "msg_u", "msg_later")
				messages = append(append(messages, toldBefore, later), steps(19)...)
			}
			return (&scene{}).conversation(messages)(r)
		},
		"POST /session/ses_p/prompt_async": func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") },
		"POST /session/ses_q/prompt_async": always(404, `{"name":"NotFoundError"}`),
	}
	oc := over(t, s, Config{})
	_, err := oc.Notify(t.Context(), subagent.Notification{ID: "nt_1", Parent: "ses_p", Text: "x", Wake: true})
	require.Error(t, err)
	lost = false
	for i := range 4 * remembered {
		d, err := oc.Notify(t.Context(), subagent.Notification{ID: fmt.Sprint("nt_q", i), Parent: "ses_q", Text: "x"})
		require.NoError(t, err)
		require.Equal(t, subagent.Gone, d)
	}
	require.Len(t, oc.host.sending, 1, "who is gone is told of nothing more")
	d, err := oc.Notify(t.Context(), subagent.Notification{ID: "nt_1", Parent: "ses_p", Text: "x", Wake: true})
	require.NoError(t, err)
	require.Equal(t, subagent.Accepted, d)
	require.Equal(t, 1, s.count("POST /session/ses_p/prompt_async"), "times written")
	require.Empty(t, oc.host.sending)
}

// What is remembered is bounded, and one thing more costs one thing and not all.
func TestRemember(t *testing.T) {
	all := map[int]bool{}
	for i := range remembered + 5 {
		remember(all, i, true)
		require.True(t, all[i])
	}
	require.Len(t, all, remembered)
	for i := range all {
		remember(all, i, false)
	}
	require.Len(t, all, remembered, "what is known already takes no place")
}
