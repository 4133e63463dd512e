package opencode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Config says where the server is and how children are made. Only URL is required.
type Config struct {
	// URL of the server, as it prints it: "http://127.0.0.1:4096".
	URL string
	// Username and Password are for servers that were started with
	// OPENCODE_SERVER_PASSWORD. Username defaults to "opencode", and is of no use
	// without a Password.
	Username, Password string
	// Transport makes the HTTP requests. Defaults to http.DefaultTransport. Redirects
	// are not followed.
	Transport http.RoundTripper
	// Timeout bounds each call but the stream of events. The first prompt in a directory
	// may take the server some seconds. Defaults to 30 s.
	Timeout time.Duration
	// Blocking says how turns are watched; see [subagent.BlockingConfig]. Its Call
	// defaults to Timeout.
	Blocking subagent.BlockingConfig

	// Permissions are the rules of every child. The last rule that matches holds: before
	// them are the tools that its launch allows, after them those that it denies, so that
	// a launch can't allow what is denied here. The first of all is one that denies
	// questions, which nobody may be there to answer: {"question", "*", "allow"} lifts
	// it. A session that was made elsewhere keeps its own rules: only what is switched
	// off is added to them. Defaults to none besides.
	Permissions []Rule
	// Keep has Release leave sessions on the server, stopped, instead of deleting them.
	// Defaults to false.
	Keep bool
	// HoldTodos says that a turn with open todos is not over: for servers with a plugin
	// that has sessions go on with them. Defaults to false, since without one such a
	// turn would never end.
	HoldTodos bool
	// Outside says that parents may also live elsewhere: an id that can't be one of the
	// server's, since it does not begin with "ses", is then a root. Give such parents a
	// Notifier of your own in subagent.Config. Defaults to false: they are refused.
	Outside bool

	// Logger hears, as warnings, of what fails and is tried again, once until it works:
	// the stream of events, the reading of a session's answer, the loading of a directory,
	// and the look, after a gap in the stream, for what is asked in one. It also hears of
	// an answer that can't be understood, and of a server that does not let Run in; and of
	// no prompt, answer or password. Defaults to nil: silence.
	Logger *slog.Logger
}

// Rule is one permission rule: what becomes of an action of a tool.
type Rule struct {
	Permission string `json:"permission"` // "bash", "edit", …, or "*"
	Pattern    string `json:"pattern"`    // of the command, the path, …, or "*"
	Action     string `json:"action"`     // "allow", "deny" or "ask"
}

// refuseField is the error of a field whose value breaks a rule.
func refuseField(name, value, rule string) error {
	return &subagent.InputError{Field: "opencode.Config." + name, Value: value, Rule: rule}
}

// check finds the first field, URL and Blocking apart, that breaks a rule. A password is
// never shown.
func (c *Config) check() error {
	type rule struct {
		broken            bool
		name, value, rule string
	}
	rules := []rule{
		{strings.Contains(c.Username, ":"), "Username", strconv.Quote(c.Username), "must not hold a colon, which parts it from the password"},
		{c.Username != "" && c.Password == "", "Username", strconv.Quote(c.Username), "must be empty without a Password"},
		{c.Timeout != 0 && (c.Timeout < time.Millisecond || c.Timeout > 24*time.Hour), "Timeout", c.Timeout.String(), "must be between 1ms and 24h, or 0 for the default"},
	}
	for i, r := range c.Permissions {
		at := fmt.Sprintf("Permissions[%d].", i)
		rules = append(rules,
			rule{r.Permission == "", at + "Permission", `""`, "must not be empty; * is for all"},
			rule{r.Pattern == "", at + "Pattern", `""`, "must not be empty; * is for all"},
			rule{r.Action != "allow" && r.Action != "deny" && r.Action != "ask", at + "Action", strconv.Quote(r.Action), "must be allow, deny or ask"},
		)
	}
	for _, r := range rules {
		if r.broken {
			return refuseField(r.name, r.value, r.rule)
		}
	}
	return nil
}

// base is the URL, if it is one that calls can be made from.
func (c *Config) base() (*url.URL, error) {
	base, err := url.Parse(c.URL)
	wrong := func(rule string) (*url.URL, error) {
		return nil, refuseField("URL", shown(c.URL, base), rule)
	}
	switch {
	case err != nil, base.Scheme != "http" && base.Scheme != "https", base.Hostname() == "":
		return wrong("must be http:// or https:// and a host")
	case base.Port() != "" && !isPort(base.Port()):
		return wrong("must have a port from 1 to 65535")
	case base.User != nil:
		return wrong("must not hold a user: set Username and Password")
	case base.RawQuery != "" || base.Fragment != "":
		return wrong("must not hold a query or a fragment")
	}
	return base, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// hostPort is what is most often given in the place of a URL.
var hostPort = regexp.MustCompile(`^([A-Za-z0-9.-]*:[0-9]{1,5})?$`)

// shown is a URL without what may be secret in it: a user and password, a query, a
// fragment. Of what can't be taken apart nothing is shown.
func shown(raw string, u *url.URL) string {
	switch {
	case hostPort.MatchString(raw):
		return strconv.Quote(raw)
	case u == nil, u.Host == "":
		return "…"
	}
	bare := *u
	bare.User, bare.RawQuery, bare.ForceQuery, bare.Fragment, bare.RawFragment = nil, "", false, "", ""
	return strconv.Quote(bare.String())
}

// settings finds what is wrong with Config.Blocking, by the rules of its own package,
// which has a Prompt that can't begin say so. The host is not called.
func (c *Client) settings() error {
	ended, end := context.WithCancel(context.Background())
	end()
	_, err := c.BlockingClient.Prompt(ended, "", subagent.Prompt{})
	var in *subagent.InputError
	if !errors.As(err, &in) {
		return nil
	}
	return refuseField("Blocking."+strings.TrimPrefix(in.Field, "BlockingConfig."), in.Value, in.Rule)
}
