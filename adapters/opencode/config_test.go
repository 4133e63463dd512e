package opencode

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// A setting that can't be is refused by New, which names it, its value and the rule, and
// nothing that may be secret.
func TestConfig(t *testing.T) {
	const needHost, needPort = "must be http:// or https:// and a host", "must have a port from 1 to 65535"
	const noUser, noQuery = "must not hold a user: set Username and Password", "must not hold a query or a fragment"
	const needTime = "must be between 1ms and 24h, or 0 for the default"
	for _, c := range []struct {
		cfg                Config
		field, value, rule string
	}{
		{Config{}, "URL", `""`, needHost},
		{Config{URL: "127.0.0.1:4096"}, "URL", `"127.0.0.1:4096"`, needHost},
		{Config{URL: "localhost:4096"}, "URL", `"localhost:4096"`, needHost},
		{Config{URL: "http://:4096"}, "URL", `"http://:4096"`, needHost},
		{Config{URL: "http:///x"}, "URL", "…", needHost},
		{Config{URL: "ftp://h/x"}, "URL", `"ftp://h/x"`, needHost},
		{Config{URL: "htp://h/?token=hunter2"}, "URL", `"htp://h/"`, needHost},
		{Config{URL: "opencode:hunter2@127.0.0.1:4096"}, "URL", "…", needHost},
		{Config{URL: "hunter2@h"}, "URL", "…", needHost},
		{Config{URL: "http://me:hunter2"}, "URL", "…", needHost},
		{Config{URL: "http://me:hunter2@h\x7f"}, "URL", "…", needHost},
		{Config{URL: "http://me:hunter2@:1"}, "URL", `"http://:1"`, needHost},
		{Config{URL: "http://h:65536"}, "URL", `"http://h:65536"`, needPort},
		{Config{URL: "http://h:0"}, "URL", `"http://h:0"`, needPort},
		{Config{URL: "http://me:hunter2@h:4096"}, "URL", `"http://h:4096"`, noUser},
		{Config{URL: "http://hunter2@h"}, "URL", `"http://h"`, noUser},
		{Config{URL: "http://h/?token=hunter2"}, "URL", `"http://h/"`, noQuery},
		{Config{URL: "http://h/#hunter2"}, "URL", `"http://h/"`, noQuery},
		{Config{Username: "a:b", Password: "hunter2"}, "Username", `"a:b"`, "must not hold a colon, which parts it from the password"},
		{Config{Username: "a"}, "Username", `"a"`, "must be empty without a Password"},
		{Config{Timeout: -1}, "Timeout", "-1ns", needTime},
		{Config{Timeout: time.Millisecond - 1}, "Timeout", "999.999µs", needTime},
		{Config{Timeout: 24*time.Hour + 1}, "Timeout", "24h0m0.000000001s", needTime},
		{Config{Permissions: []Rule{{"bash", "*", "allow"}, {"bash", "*", "perhaps"}}}, "Permissions[1].Action", `"perhaps"`, "must be allow, deny or ask"},
		{Config{Permissions: []Rule{{"", "*", "deny"}}}, "Permissions[0].Permission", `""`, "must not be empty; * is for all"},
		{Config{Permissions: []Rule{{"bash", "", "deny"}}}, "Permissions[0].Pattern", `""`, "must not be empty; * is for all"},
		{Config{Blocking: subagent.BlockingConfig{Misses: -2}}, "Blocking.Misses", "-2", ""},
		{Config{Blocking: subagent.BlockingConfig{Call: -5}}, "Blocking.Call", "-5ns", ""},
	} {
		if c.field != "URL" {
			c.cfg.URL = "http://h"
		}
		_, err := New(c.cfg)
		var in *subagent.InputError
		require.ErrorAs(t, err, &in, "%+v", c)
		if c.rule == "" { // it is the core's
			require.NotEmpty(t, in.Rule)
			c.rule = in.Rule
		}
		require.Equal(t, subagent.InputError{Field: "opencode.Config." + c.field, Value: c.value, Rule: c.rule}, *in)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// What can be is not refused.
func TestConfigThatWorks(t *testing.T) {
	for _, cfg := range []Config{
		{URL: "http://127.0.0.1:4096"}, {URL: "https://h"}, {URL: "http://h/below/"}, {URL: "http://h:"}, {URL: "http://[::1]:65535"},
		{URL: "http://h", Username: "a", Password: "b:c"}, {URL: "http://h", Password: "b"},
		{URL: "http://h", Timeout: time.Millisecond}, {URL: "http://h", Timeout: 24 * time.Hour},
		{URL: "http://h", Timeout: time.Second, Blocking: subagent.BlockingConfig{Poll: subagent.Off, Misses: 1}},
	} {
		_, err := New(cfg)
		require.NoError(t, err)
	}
}

// Secrets in a URL that is refused are in no error.
func TestConfigSecrets(t *testing.T) {
	for _, u := range []string{
		"opencode:hunter2@127.0.0.1:4096", "http://hunter2@h", "htp://h/?token=hunter2", "hunter2@h", "me:hunter2", "http://me:hunter2",
		"http://me:hunter2@h\x7f", "//me:hunter2@h", "http://h:x/?hunter2", "http://h/#hunter2", "http://h?hunter2", "http://hunter2@:80", "h/?hunter2",
	} {
		_, err := New(Config{URL: u})
		require.Error(t, err, u)
		require.NotContains(t, err.Error(), "hunter2", u)
	}
}
