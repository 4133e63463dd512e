package opencode

import (
	"cmp"
	"context"
	"crypto/rand"
	"regexp"
	"slices"

	"github.com/seed-48fd9ae4/subagent"
)

// Client is a [subagent.SessionClient] over one server. It is also a Notifier, a
// ReceiptChecker, a LineageResolver, a Releaser, an Attacher, an EventSink, a
// TranscriptReader and a Steerer of package subagent; the manager uses all but the last,
// and these two are of use to yourself:
//
//	said, err := client.Transcript(ctx, task.Session, subagent.TranscriptQuery{})
//	err = client.Steer(ctx, task.Session, "look at the tests too")
type Client struct {
	*subagent.BlockingClient
	host *host
}

var (
	_ subagent.SessionClient    = (*Client)(nil)
	_ subagent.Attacher         = (*Client)(nil)
	_ subagent.EventSink        = (*Client)(nil)
	_ subagent.LineageResolver  = (*Client)(nil)
	_ subagent.Notifier         = (*Client)(nil)
	_ subagent.ReceiptChecker   = (*Client)(nil)
	_ subagent.Releaser         = (*Client)(nil)
	_ subagent.Steerer          = (*Client)(nil)
	_ subagent.TranscriptReader = (*Client)(nil)

	// What Blocking makes abilities of.
	_ subagent.LastPrompter   = (*host)(nil)
	_ subagent.ReceiptChecker = (*host)(nil)
)

// New makes a client. It makes no call; the error is a *[subagent.InputError] that
// names the field.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	api, err := newAPI(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Permissions = slices.Concat([]Rule{{Permission: "question", Pattern: "*", Action: "deny"}}, cfg.Permissions)
	cfg.Blocking.Call = cmp.Or(cfg.Blocking.Call, api.timeout)
	h := &host{api: api, cfg: cfg, sessions: map[subagent.SessionID]*session{}, dirs: map[subagent.SessionID]string{}, warm: map[string]bool{}, sending: map[string]string{}, unasked: map[string]bool{}}
	c := &Client{host: h, BlockingClient: subagent.Blocking(h, cfg.Blocking)}
	h.rest = c.Abort
	if err := c.settings(); err != nil {
		return nil, err
	}
	return c, nil
}

// Prompt runs one turn and returns when it is over.
func (c *Client) Prompt(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	t := newTurn(rand.Text())
	defer c.host.turnIsOver(id, t)
	return c.BlockingClient.Prompt(context.WithValue(ctx, turnKey{}, t), id, p)
}

// Attach waits for the turn that a session is in, as one that a user has prompted.
func (c *Client) Attach(ctx context.Context, id subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	t := newTurn(rand.Text())
	defer c.host.turnIsOver(id, t)
	return c.BlockingClient.Attach(context.WithValue(ctx, turnKey{}, t), id, p)
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
