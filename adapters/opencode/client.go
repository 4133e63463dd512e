package opencode

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Config says where the server is and how children are made. Only URL is required.
type Config struct {
	// URL of the server, as it prints it: "http://127.0.0.1:4096".
	URL string
	// Username and Password are for servers that were started with
	// OPENCODE_SERVER_PASSWORD. Username defaults to "opencode" if there is a password.
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
	// it. Defaults to none besides.
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

	// Logger hears of streams that were cut. Defaults to nil: silence.
	Logger *slog.Logger
}

// Rule is one permission rule: what becomes of an action of a tool.
type Rule struct {
	Permission string `json:"permission"` // "bash", "edit", …, or "*"
	Pattern    string `json:"pattern"`    // of the command, the path, …, or "*"
	Action     string `json:"action"`     // "allow", "deny" or "ask"
}

func (r Rule) check(i int) error {
	for _, f := range []struct {
		name, value string
		ok          bool
		rule        string
	}{
		{"Permission", r.Permission, r.Permission != "", "must not be empty; * is for all"},
		{"Pattern", r.Pattern, r.Pattern != "", "must not be empty; * is for all"},
		{"Action", r.Action, r.Action == "allow" || r.Action == "deny" || r.Action == "ask", "must be allow, deny or ask"},
	} {
		if !f.ok {
			return &subagent.InputError{Field: fmt.Sprintf("opencode.Config.Permissions[%d].%s", i, f.name), Value: strconv.Quote(f.value), Rule: f.rule}
		}
	}
	return nil
}

// Client is a [subagent.SessionClient] over one server. It is also a Notifier, a
// LineageResolver, a Releaser, an EventSink, a Steerer and a TranscriptReader of package
// subagent; the manager uses the first four, and the last two are for calls of your own:
//
//	said, err := client.Transcript(ctx, task.Session, subagent.TranscriptQuery{})
//	err = client.Steer(ctx, task.Session, "look at the tests too")
type Client struct {
	*subagent.BlockingClient
	host *host
}

var (
	_ subagent.SessionClient    = (*Client)(nil)
	_ subagent.EventSink        = (*Client)(nil)
	_ subagent.LineageResolver  = (*Client)(nil)
	_ subagent.Notifier         = (*Client)(nil)
	_ subagent.Releaser         = (*Client)(nil)
	_ subagent.Steerer          = (*Client)(nil)
	_ subagent.TranscriptReader = (*Client)(nil)
)

// New makes a client. It makes no call; the error is a *[subagent.InputError] that
// names the field.
func New(cfg Config) (*Client, error) {
	api, err := newAPI(cfg)
	if err != nil {
		return nil, err
	}
	for i, r := range cfg.Permissions {
		if err := r.check(i); err != nil {
			return nil, err
		}
	}
	cfg.Permissions = slices.Concat([]Rule{{Permission: "question", Pattern: "*", Action: "deny"}}, cfg.Permissions)
	cfg.Blocking.Call = cmp.Or(cfg.Blocking.Call, api.timeout)
	h := &host{api: api, cfg: cfg, sessions: map[subagent.SessionID]*session{}, dirs: map[subagent.SessionID]string{}, warm: map[string]bool{}, sending: map[string]string{}}
	c := &Client{host: h, BlockingClient: subagent.Blocking(h, cfg.Blocking)}
	h.rest = c.Abort
	return c, nil
}

// Prompt runs one turn and returns when it is over.
func (c *Client) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	t := newTurn(rand.Text())
	defer c.host.turnIsOver(id, t)
	return c.BlockingClient.Prompt(context.WithValue(ctx, turnKey{}, t), id, p)
}

// Run reads the server's events and hands them to handle, which is
// BackgroundManager.HandleEvent, until ctx ends. A stream that breaks, or is silent for
// longer than the server ever is, is opened again, and the sessions are looked at for
// what was missed. It returns ctx's error; or, since trying again would not help, that
// of a server that does not let it in.
func (c *Client) Run(ctx context.Context, handle func(subagent.SessionEvent)) error {
	return c.host.listen(ctx, handle, c.Resync)
}

// sessionIDs are what ids look like. Others make the server fail, and are not fit to be
// shown.
var sessionIDs = regexp.MustCompile(`^ses[A-Za-z0-9_-]{1,100}$`)

func isSession(id subagent.SessionID) bool { return sessionIDs.MatchString(string(id)) }
