package opencode

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed-48fd9ae4/subagent"
)

// How the server is called. Nothing here knows of turns.

// Bounds of what is read of a reply, in bytes.
const (
	maxReply   = 1 << 20  // of most
	maxPage    = 4 << 20  // of a page of messages with what their tools were given
	maxMessage = 32 << 20 // of a page of one
	maxError   = 64 << 10 // of one that only says what went wrong
)

type api struct {
	base     *url.URL
	http     *http.Client
	user     string
	password string
	timeout  time.Duration
	log      *outages
	large    chan struct{}     // has an element while a reply of more than maxReply is read
	hide     *strings.Replacer // of the password; nil: there is none
}

func newAPI(cfg Config) (*api, error) {
	base, err := cfg.base()
	if err != nil {
		return nil, err
	}
	a := &api{
		base: base, user: cfg.Username, password: cfg.Password,
		timeout: cmp.Or(cfg.Timeout, 30*time.Second), log: newOutages(cfg.Logger), large: make(chan struct{}, 1),
		http: &http.Client{Transport: cfg.Transport, CheckRedirect: refuse},
	}
	if a.password != "" {
		a.user = cmp.Or(a.user, "opencode")
	}
	a.hide = hiding(a.user, a.password)
	return a, nil
}

// refuse: who follows a redirect may carry the password and the prompts elsewhere.
func refuse(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// call is one request of the server.
type call struct {
	op      string // for errors
	session subagent.SessionID
	method  string
	path    string
	query   url.Values
	body    any // nil: none
	most    int // bytes of the reply; 0: maxReply
}

func (c call) in(dir string) call {
	if dir != "" {
		c.query = url.Values{"directory": {dir}}
	}
	return c
}

// of is a call about one session.
func of(op, method string, id subagent.SessionID, tail string) call {
	return call{op: op, session: id, method: method, path: "/session/" + url.PathEscape(string(id)) + tail}
}

// do makes a call and decodes its reply into into; if that is nil, the reply must be
// status 204, without a body. Errors are *[subagent.SessionError].
func (a *api) do(ctx context.Context, c call, into any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	res, err := a.send(ctx, c)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if into == nil {
		if res.StatusCode != http.StatusNoContent {
			return nil, a.wrong(c, subagent.ClassUnavailable, errForeign)
		}
		return res.Header, nil
	}
	most := cmp.Or(c.most, maxReply)
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err == nil && len(body) > maxReply && most > maxReply {
		select {
		case a.large <- struct{}{}:
			defer func() { <-a.large }()
			body, err = readOn(body, res.Body, most+1, func() { stop(errStalled) })
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	switch {
	case err != nil && context.Cause(ctx) == errStalled:
		return nil, a.wrong(c, subagent.ClassUnavailable, errStalled)
	case err != nil:
		return nil, a.wrong(c, subagent.ClassUnavailable, err)
	case len(body) > most:
		return nil, a.wrong(c, subagent.ClassInvalid, fmt.Errorf("%w than %d bytes", errTooLarge, most))
	case string(bytes.TrimSpace(body)) == "null", json.Unmarshal(body, into) != nil:
		// A null would be taken for a list of nothing: that all sessions rest.
		return nil, a.wrong(c, subagent.ClassUnavailable, errForeign)
	}
	return res.Header, nil
}

// half gives a call half of the time there is: one that hangs leaves some for what else
// is to be done.
func (a *api) half(ctx context.Context) (context.Context, context.CancelFunc) {
	most := a.timeout
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/2)
	}
	return context.WithTimeout(ctx, most)
}

// readOn reads what follows on what was read, until there is so much of both. It takes
// the memory for all of it at once: what grows is held twice while it does. If next to
// nothing comes for a while it is called off, since others wait.
func readOn(begun []byte, r io.Reader, most int, callOff func()) ([]byte, error) {
	watchdog := time.AfterFunc(stall, callOff)
	defer watchdog.Stop()
	all := bytes.NewBuffer(make([]byte, 0, most+bytes.MinRead))
	_, _ = all.Write(begun)
	_, err := all.ReadFrom(io.LimitReader(&watched{Reader: r, watchdog: watchdog}, int64(most-len(begun))))
	return all.Bytes(), err
}

// A large reply may bring fewer than so many bytes for so long: a third of what it needs to
// be whole within the time that a call has by default. One look may read several of them, and
// has to wait each time for all that stall.
const (
	stall   = time.Second
	trickle = 12 << 10
)

// watched is a reader that says so when that much has come.
type watched struct {
	io.Reader
	watchdog *time.Timer
	since    int // bytes, since it said so
}

func (w *watched) Read(p []byte) (n int, err error) {
	n, err = w.Reader.Read(p)
	if w.since += n; w.since >= trickle {
		w.since = 0
		w.watchdog.Reset(stall)
	}
	return n, err
}

var (
	errTooLarge = errors.New("the reply is larger")
	errStalled  = errors.New("the reply has stalled")
	errForeign  = errors.New("the reply is not what opencode replies")
)

// send returns the response to a call that the server took; the caller closes its body.
func (a *api) send(ctx context.Context, c call) (*http.Response, error) {
	if c.session != "" && !isSession(c.session) {
		return nil, a.wrong(c, subagent.ClassInvalid, subagent.ErrSessionGone)
	}
	req, err := a.request(ctx, c)
	if err != nil {
		return nil, a.wrong(c, subagent.ClassInvalid, err)
	}
	if ctx.Err() != nil { // what came before has taken all the time
		return nil, a.wrong(c, subagent.ClassUnavailable, fmt.Errorf("%w: %w", subagent.ErrNotSent, context.Cause(ctx)))
	}
	res, err := a.http.Do(req)
	if err != nil {
		return nil, a.wrong(c, subagent.ClassUnavailable, notSent(err))
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, a.refused(c, res)
	}
	return res, nil
}

// notSent marks what failed before there was a connection: nothing was written.
func notSent(err error) error {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("%w: %w", subagent.ErrNotSent, dial)
	}
	return err
}

func (a *api) request(ctx context.Context, c call) (*http.Request, error) {
	var body io.Reader
	if c.body != nil {
		b, err := json.Marshal(c.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	at := a.base.JoinPath(c.path)
	at.RawQuery = c.query.Encode()
	req, err := http.NewRequestWithContext(ctx, c.method, at.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.user != "" {
		req.SetBasicAuth(a.user, a.password)
	}
	return req, nil
}

// refused makes an error of a reply that is none.
func (a *api) refused(c call, res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxError))
	if len(text) == maxError {
		text = text[:maxError/2] // what is cut may be half a password, which would not be known for one
	}
	class, err := replyClass(res.StatusCode), error(nil)
	switch {
	case res.StatusCode/100 == 3:
		err = errors.New("the server redirects, which is refused")
	case res.StatusCode != http.StatusNotFound || c.session == "":
	case strings.Contains(string(text), `"NotFoundError"`):
		err = subagent.ErrSessionGone
	default: // the word of a proxy whose server is just down
		class = subagent.ClassUnavailable
	}
	if err == nil {
		status := fmt.Sprintf("status %d", res.StatusCode)
		if why := said(text, c.body != nil); why != "" {
			status += ": " + why
		}
		err = errors.New(status)
	}
	return a.wrong(c, class, err)
}

// said finds the message in a body that tells what went wrong. If the call gave text of
// ours, what is no error of the server's own is not shown: it may hold that text.
func said(body []byte, gave bool) string {
	var e wireError
	known := json.Unmarshal(body, &e) == nil && errorName.MatchString(e.Name)
	text := strings.TrimSpace(string(body))
	switch {
	case known:
		return e.text()
	case strings.HasPrefix(text, "<"):
		return "a page of HTML"
	case gave:
		return ""
	}
	return text
}

// errorName is what names of the server's errors look like.
var errorName = regexp.MustCompile(`^[A-Za-z]{1,50}$`)

// wrong is what went wrong with a call, and nothing that is secret.
func (a *api) wrong(c call, class subagent.Class, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which the reader knows
	}
	session := c.session
	if !isSession(session) {
		session = "" // it would be shown
	}
	return &subagent.SessionError{Op: c.op, Session: session, Class: class, Err: &cleaned{a.clean(err.Error()), err}}
}

// cleaned is an error whose text may be shown.
type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }
func (e *cleaned) Unwrap() error { return e.err }

// clean makes text from elsewhere fit for an error: short, of one line, of characters
// that show, and without the password, in whatever form it may have been echoed.
func (a *api) clean(s string) string {
	if a.hide != nil {
		s = a.hide.Replace(s)
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return s
}

// hiding replaces a password in the forms in which it goes over the line, or is
// repeated: as JSON, as JavaScript and Go write that, and as Go quotes it.
func hiding(user, password string) *strings.Replacer {
	var pairs []string
	for _, p := range []string{password, strings.TrimSpace(password)} {
		if p == "" {
			continue
		}
		forms := []string{base64.StdEncoding.EncodeToString([]byte(user + ":" + p)), p, url.QueryEscape(p), url.PathEscape(p)}
		for _, quoted := range []string{inJSON(p, false), inJSON(p, true), strconv.Quote(p), strconv.QuoteToASCII(p)} {
			forms = append(forms, quoted[1:len(quoted)-1])
		}
		for _, form := range forms {
			pairs = append(pairs, form, "***")
		}
	}
	if pairs == nil {
		return nil
	}
	return strings.NewReplacer(pairs...)
}

// inJSON is a string as JSON has it, also with what HTML would take for its own escaped.
func inJSON(s string, forHTML bool) string {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(forHTML)
	_ = to.Encode(s) // a string always has a form
	return strings.TrimSpace(b.String())
}
