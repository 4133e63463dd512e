package opencode

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// transport answers each request as the test likes.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func reply(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func redirect() *http.Response {
	r := reply(302, "")
	r.Header.Set("Location", "http://elsewhere/")
	return r
}

// A server that refuses a call, in its own words and in others.
func TestRefusals(t *testing.T) {
	const password = "hunter2"
	basic := base64.StdEncoding.EncodeToString([]byte("opencode:" + password))
	for name, c := range map[string]struct {
		reply  *http.Response
		failed error
		class  subagent.Class
		says   string
	}{
		"no such session": {reply(404, `{"name":"NotFoundError","data":{"message":"Session not found: ses_1"}}`), nil, subagent.ClassInvalid, "session gone"},
		"a bad request":   {reply(400, `{"name":"BadRequest","data":{"message":"parts missing"}}`), nil, subagent.ClassInvalid, "status 400: parts missing"},
		"other words":     {reply(400, `{"message":"x"}`), nil, subagent.ClassInvalid, `status 400: {"message":"x"}`},
		"not let in":      {reply(401, " \n"), nil, subagent.ClassAuth, "lineage ses_1: auth: status 401\n"},
		"its own failure": {reply(500, `{"name":"UnknownError","data":{"message":"x"}}`), nil, subagent.ClassUnavailable, "status 500: x"},
		"a page":          {reply(502, "<html>"+strings.Repeat("x", 9999)), nil, subagent.ClassUnavailable, "status 502: a page of HTML"},
		"a redirect":      {redirect(), nil, subagent.ClassInvalid, "the server redirects, which is refused"},
		"not JSON":        {reply(200, "<html>"), nil, subagent.ClassUnavailable, "the reply is not what opencode replies"},
		"nothing":         {reply(200, " null\n"), nil, subagent.ClassUnavailable, "the reply is not what opencode replies"},
		"too large":       {reply(200, strings.Repeat(" ", maxReply+1)), nil, subagent.ClassInvalid, "the reply is larger than 1048576 bytes"},
		"no line":         {nil, errors.New("connection refused for " + password), subagent.ClassUnavailable, "connection refused for ***"},
		"its own password": {
			reply(403, "you said "+password+" as "+basic+",\n\tand "+strings.Repeat("é", 999)), nil, subagent.ClassPermission,
			"status 403: you said *** as ***, and éé",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer
			oc, err := New(Config{
				URL: "http://h", Password: password, Logger: slog.New(slog.NewTextHandler(&lines, nil)),
				Transport: transport(func(r *http.Request) (*http.Response, error) {
					user, pass, _ := r.BasicAuth()
					require.Equal(t, "opencode "+password, user+" "+pass)
					return c.reply, c.failed
				}),
			})
			require.NoError(t, err)
			_, err = oc.ParentOf(t.Context(), "ses_1")
			var said *subagent.SessionError
			require.ErrorAs(t, err, &said)
			require.Equal(t, c.class, said.Class)
			require.Equal(t, "lineage", said.Op)
			require.Contains(t, err.Error()+"\n", c.says)
			for _, secret := range []string{password, basic} {
				require.NotContains(t, err.Error()+lines.String(), secret)
			}
			require.Less(t, len(err.Error()), 1000)
		})
	}
}

// What was asked of a child, or called it, stands in no error, whatever the server, or who
// stands before it, repeats of it.
func TestRefusalRepeatsNoPrompt(t *testing.T) {
	const secret = "the secret of the prompt"
	for name, c := range map[string]struct{ body, says string }{
		"as opencode refuses a field": {`{"_tag":"BadRequest","issues":[{"path":["variant"],"actual":{"parts":[{"text":"` + secret + `"}]}}]}`, "status 400"},
		"an error without a name":     {`{"data":{"message":"` + secret + `"}}`, "status 400"},
		"an error of another name":    {`{"name":"` + secret + `"}`, "status 400"},
		"in plain words":              {"what is " + secret + "?", "status 400"},
		"an error of the server":      {`{"name":"BadRequest","data":{"message":"parts missing"}}`, "status 400: parts missing"},
	} {
		s := &scene{answer: map[string]func(*http.Request) (*http.Response, error){
			"POST /session": always(400, c.body), "POST /session/ses_1/prompt_async": always(400, c.body),
		}}
		oc := over(t, s, Config{})
		_, created := oc.Create(t.Context(), subagent.CreateRequest{Agent: "build", Description: secret})
		_, prompted := oc.Prompt(t.Context(), "ses_1", subagent.Prompt{Text: secret, OnEvent: func(subagent.SessionEvent) {}})
		for _, err := range []error{created, prompted} {
			require.Error(t, err, name)
			require.True(t, strings.HasSuffix(err.Error(), ": invalid: "+c.says), "%s: %v", name, err)
		}
	}
}
