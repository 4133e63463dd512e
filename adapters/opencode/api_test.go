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

// A setting that can't be is refused by name, without what may be secret in it.
func TestConfig(t *testing.T) {
	for field, c := range map[string]struct {
		cfg  Config
		rule string
	}{
		"opencode.Config.URL":     {Config{}, "must be http:// or https:// and a host"},
		"opencode.Config.Timeout": {Config{URL: "http://h", Timeout: -1}, "must be positive, or 0 for the default"},
	} {
		refusedFor(t, c.cfg, field, c.rule)
	}
	refusedFor(t, Config{URL: "127.0.0.1:4096"}, "opencode.Config.URL", "must be http:// or https:// and a host")
	refusedFor(t, Config{URL: "http://h/?token=hunter2"}, "opencode.Config.URL", "must not hold a query or a fragment")
	refusedFor(t, Config{URL: "http://me:hunter2@h"}, "opencode.Config.URL", "must not hold a user: set Username and Password")
	refusedFor(t, Config{URL: "http://me:hunter2@h\x7f"}, "opencode.Config.URL", "must be http:// or https:// and a host")
	refusedFor(t, Config{URL: "http://h", Permissions: []Rule{{"bash", "*", "allow"}, {"bash", "*", "perhaps"}}}, "opencode.Config.Permissions[1].Action", "must be allow, deny or ask")
	refusedFor(t, Config{URL: "http://h", Permissions: []Rule{{"", "*", "deny"}}}, "opencode.Config.Permissions[0].Permission", "must not be empty; * is for all")
	refusedFor(t, Config{URL: "http://h", Permissions: []Rule{{"bash", "", "deny"}}}, "opencode.Config.Permissions[0].Pattern", "must not be empty; * is for all")
	_, err := New(Config{URL: "http://h/below/"})
	require.NoError(t, err)
}

func refusedFor(t *testing.T, cfg Config, field, rule string) {
	t.Helper()
	_, err := New(cfg)
	var in *subagent.InputError
	require.ErrorAs(t, err, &in)
	require.Equal(t, field, in.Field)
	require.Equal(t, rule, in.Rule)
	require.NotContains(t, err.Error(), "hunter2")
}

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
		"not let in":      {reply(401, ""), nil, subagent.ClassAuth, "status 401"},
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
			require.ErrorContains(t, err, c.says)
			for _, secret := range []string{password, basic} {
				require.NotContains(t, err.Error()+lines.String(), secret)
			}
			require.Less(t, len(err.Error()), 1000)
		})
	}
}
