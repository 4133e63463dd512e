package opencode

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// What a session says, and what of it answers one prompt.

// pageSize is how many messages are read at once: more than most turns have.
const pageSize = 40

// maxRead bounds what one look holds of a conversation, in bytes.
const maxRead = 128 << 20

// page reads the newest messages before a cursor, oldest first, and returns how many
// bytes they take and the cursor of those before them; "" if there are none.
func (h *host) page(ctx context.Context, op string, id subagent.SessionID, limit int, before string) (page []message, size int, older string, err error) {
	c := of(op, "GET", id, "/message")
	c.query = url.Values{"limit": {strconv.Itoa(limit)}}
	if c.most = maxPage; limit == 1 {
		c.most = maxMessage
	}
	if before != "" {
		c.query.Set("before", before)
	}
	var all [pageSize + 1]message // what is behind it is not decoded
	header, err := h.api.do(ctx, c, &all)
	if err != nil {
		return nil, 0, "", err
	}
	for i := range all {
		m := &all[i]
		if m.size == 0 {
			return all[:i], size, header.Get("X-Next-Cursor"), nil
		}
		if size += m.size; m.Info.ID == "" {
			*m = message{unread: true}
		}
	}
	return nil, 0, "", h.api.wrong(c, subagent.ClassUnavailable, errForeign)
}

// back reads messages from the newest on until a page has enough, and returns them
// oldest first. Pages get smaller while the server's reply is too large to be read.
func (h *host) back(ctx context.Context, op string, id subagent.SessionID, limit int, enough func(page []message) bool) ([]message, error) {
	var pages [][]message
	before, read := "", 0
	for {
		page, size, older, err := h.page(ctx, op, id, limit, before)
		switch {
		case errors.Is(err, errTooLarge) && limit > 1:
			limit = max(limit/8, 1)
			continue
		case err != nil:
			return nil, err
		}
		pages = append(pages, page)
		if read += size; read > maxRead || older == before && older != "" {
			return nil, h.api.wrong(of(op, "GET", id, ""), subagent.ClassInvalid, errTooLong)
		}
		if older == "" || len(page) == 0 || enough(page) {
			slices.Reverse(pages)
			return slices.Concat(pages...), nil
		}
		before = older
	}
}

var (
	errTooLong = errors.New("the conversation is too long to be read")
	errUnread  = errors.New("the answer is not one that opencode gives")
)

// Output reads what a session has made of the prompt with that mark.
func (h *host) Output(ctx context.Context, id subagent.SessionID, m any) (out subagent.Answer, err error) {
	ours := func(k mark) bool { return m != nil && k.Prompt == m }
	theirs, _ := m.(messageID)
	prompted := func(m message) bool { return m.marked(ours) || theirs != "" && m.Info.ID == string(theirs) }
	all, err := h.back(ctx, "prompt", id, pageSize, func(page []message) bool { return slices.ContainsFunc(page, prompted) })
	if errors.Is(err, subagent.ErrSessionGone) || errors.Is(err, errTooLarge) || errors.Is(err, errTooLong) {
		return subagent.Answer{Err: err}, nil
	}
	h.api.log.note(ctx, "an answer was not read", string(id), err)
	if err != nil {
		return out, err
	}
	at := slices.IndexFunc(all, prompted)
	if at < 0 { // it never arrived, or is what can't be read: what else is there is older
		h.noteUnread(id, all)
		return subagent.Answer{Unfinished: true}, nil
	}
	out = h.answer(id, all[at+1:])
	if h.cfg.HoldTodos && !out.Unfinished {
		out.OpenTodos, err = h.openTodos(ctx, id)
	}
	return out, err
}

// noteUnread has the log say that a message can't be read: once, since it stays so.
func (h *host) noteUnread(id subagent.SessionID, all []message) {
	if slices.ContainsFunc(all, func(m message) bool { return m.unread }) {
		err := h.api.wrong(of("prompt", "GET", id, ""), subagent.ClassUnknown, errUnread)
		h.api.log.note(context.Background(), "an answer can't be read", string(id), err)
	}
}

// answer judges the steps that followed a prompt, up to what somebody else asked when
// it was answered.
func (h *host) answer(id subagent.SessionID, after []message) (out subagent.Answer) {
	out.Unfinished = true
	for i := range after {
		m := &after[i]
		switch {
		case m.unread:
			h.noteUnread(id, after)
			return subagent.Answer{Unfinished: true} // unless it stays so, it may be a proxy's
		case m.Info.Role == "user" && !out.Unfinished && out.Evidence && !m.marked(func(k mark) bool { return k.Steer }):
			return out
		case m.Info.Role == "assistant" && m.Info.Summary != true:
			h.step(id, m, &out)
		}
	}
	return out
}

// step takes in one step of an answer.
func (h *host) step(id subagent.SessionID, m *message, out *subagent.Answer) {
	said := m.text("text")
	if said != "" {
		out.Text = said
	}
	calls := slices.ContainsFunc(m.Parts, func(p part) bool { return p.Type == "tool" })
	out.Usage = m.Info.Tokens.add(out.Usage, m.Info.Cost)
	out.Evidence = out.Evidence || calls || said != "" || m.text("reasoning") != ""
	// After a step with calls the server calls the model again, whatever it is said
	// to have ended with.
	out.Unfinished = m.Info.Time.Completed == 0 || goesOn[m.Info.Finish] || slices.ContainsFunc(m.Parts, func(p part) bool { return p.goesOn() })
	out.Err = nil
	cut, isCut := cutShort[m.Info.Finish]
	switch {
	case m.Info.Error != nil:
		out.Err, out.Unfinished = h.api.turnError(id, m.Info.Error), false
	case isCut && !out.Unfinished:
		out.Err = &subagent.SessionError{Op: "prompt", Session: id, Class: cut.class, Err: cut.err}
	case out.Unfinished && slices.ContainsFunc(m.Parts, rejected):
		out.Err = &subagent.SessionError{Op: "prompt", Session: id, Class: subagent.ClassPermission, Err: errRejected}
	}
}

// goesOn are the ways for a step to end after which the model is called again: with
// none, it was cut short.
var goesOn = map[string]bool{"": true, "tool-calls": true, "unknown": true}

// cutShort are the ways for a step to end after which the model is not called again,
// though its answer is not whole. What it said so far is kept.
var cutShort = map[string]struct {
	class subagent.Class
	err   error
}{
	"length":         {subagent.ClassContextLength, errors.New("the answer was cut: the model's limit of output, or its context, is reached")},
	"content-filter": {subagent.ClassInvalid, errors.New("the answer was cut by the provider's content filter")},
	"error":          {subagent.ClassUnknown, errors.New("the answer was cut by an error of the provider")},
}

var errRejected = errors.New("a permission that the turn asked for was rejected")

// rejected: after the rejection of a permission the server ends the turn without a
// word.
func rejected(p part) bool {
	return p.Type == "tool" && p.State.Status == "error" && strings.Contains(p.State.Error, "rejected permission")
}

// openTodos counts what a session's own list says is still to be done.
func (h *host) openTodos(ctx context.Context, id subagent.SessionID) (open int, err error) {
	var todos []struct {
		Status string `json:"status"`
	}
	_, err = h.api.do(ctx, of("prompt", "GET", id, "/todo"), &todos)
	for _, t := range todos {
		if t.Status != "completed" && t.Status != "cancelled" {
			open++
		}
	}
	return open, err
}

// Transcript returns what was said in a session.
func (h *host) Transcript(ctx context.Context, id subagent.SessionID, q subagent.TranscriptQuery) ([]subagent.Message, error) {
	since := func(m message) bool { return m.Info.ID == q.Since }
	limit := pageSize
	if q.Limit > 0 {
		limit = min(limit, q.Limit+1) // and the one before, to see whether it is Since
	}
	read := 0
	all, err := h.back(ctx, "transcript", id, limit, func(page []message) bool {
		read += len(page)
		return q.Limit > 0 && read >= q.Limit || q.Since != "" && slices.ContainsFunc(page, since)
	})
	if err != nil {
		return nil, err
	}
	if at := slices.IndexFunc(all, since); q.Since != "" && at >= 0 {
		all = all[at+1:]
	}
	if q.Limit > 0 && len(all) > q.Limit {
		all = all[len(all)-q.Limit:]
	}
	said := make([]subagent.Message, len(all))
	for i := range all {
		said[i] = h.transcribe(id, &all[i])
	}
	return said, nil
}

func (h *host) transcribe(id subagent.SessionID, m *message) subagent.Message {
	said := subagent.Message{
		ID: m.Info.ID, Role: subagent.Role(m.Info.Role), Time: time.UnixMilli(int64(m.Info.Time.Created)),
		Text: m.text("text"), Thoughts: m.text("reasoning"), Complete: m.Info.Role == "user" || m.Info.Time.Completed != 0,
	}
	for _, p := range m.Parts {
		if p.Type == "tool" {
			said.Tools = append(said.Tools, p.call())
		}
	}
	if m.Info.Error != nil {
		said.Err = h.api.turnError(id, m.Info.Error)
	}
	return said
}
