package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed-48fd9ae4/subagent"
)

// Where sessions are. The server tells of all that do not rest in a directory, also of
// those of others, each with as long a word as it likes about why it waits: the reply is
// read piece by piece, and what was not asked for is dropped.

// wireStatus is a session's status: "busy" or "retry", or the session is not listed.
type wireStatus struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

var statuses = map[string]subagent.HostStatus{
	"busy": subagent.HostBusy, "retry": subagent.HostRetrying, "idle": subagent.HostIdle,
}

// Statuses asks once for each directory that the sessions are in: an answer is about
// one directory, and lists who does not rest. A directory that can't be asked, or a
// session whose directory can't be, says nothing of the others.
func (h *host) Statuses(ctx context.Context, of []subagent.SessionID) (map[subagent.SessionID]subagent.HostStatus, error) {
	in, all := h.placesOf(ctx, of)
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(8)
	for dir, ids := range in {
		group.Go(func() error {
			found, err := h.status(ctx, dir, ids...)
			mu.Lock()
			defer mu.Unlock()
			for _, id := range ids {
				switch s, listed := found[id]; {
				case err != nil:
					all[id] = subagent.HostUnreachable
				case listed:
					all[id] = s
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil && !slices.ContainsFunc(of, func(id subagent.SessionID) bool { return all[id] != subagent.HostUnreachable }) {
		return nil, err
	}
	return all, nil
}

// placesOf finds the directories of sessions, with what is known of each before these are
// asked: for which half of the time is left, however many can't be found.
func (h *host) placesOf(ctx context.Context, of []subagent.SessionID) (in map[string][]subagent.SessionID, all map[subagent.SessionID]subagent.HostStatus) {
	ctx, cancel := h.api.half(ctx)
	defer cancel()
	in, all = map[string][]subagent.SessionID{}, map[subagent.SessionID]subagent.HostStatus{}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(8)
	for _, id := range of {
		group.Go(func() error {
			s, err := h.find(ctx, "status", id)
			mu.Lock()
			defer mu.Unlock()
			all[id] = subagent.HostIdle
			switch {
			case err == nil:
				in[s.dir] = append(in[s.dir], id)
			case unlessGone(err) != nil:
				all[id] = subagent.HostUnreachable
			}
			return nil
		})
	}
	_ = group.Wait() // no error is one of all
	return in, all
}

// status says where sessions of a directory are; those that rest may be missing.
func (h *host) status(ctx context.Context, dir string, of ...subagent.SessionID) (found map[subagent.SessionID]subagent.HostStatus, err error) {
	ctx, cancel := h.api.half(ctx)
	defer cancel()
	c := call{op: "status", method: "GET", path: "/session/status"}.in(dir)
	res, err := h.api.send(ctx, c)
	if err == nil {
		defer res.Body.Close()
		found, err = h.api.readStatuses(c, res.Body, of)
	}
	if err != nil {
		h.cold()
		return nil, err
	}
	return found, nil
}

// readStatuses reads one session's status after the other. An answer that is not whole
// is none: a session that is not in it would be taken for one that rests.
func (a *api) readStatuses(c call, body io.Reader, of []subagent.SessionID) (map[subagent.SessionID]subagent.HostStatus, error) {
	found := map[subagent.SessionID]subagent.HostStatus{}
	whole := &io.LimitedReader{R: body, N: maxMessage}
	piece := &io.LimitedReader{R: whole, N: maxReply}
	in := json.NewDecoder(piece)
	fail := func(err error) (map[subagent.SessionID]subagent.HostStatus, error) {
		switch {
		case whole.N <= 0:
			return nil, a.wrong(c, subagent.ClassInvalid, fmt.Errorf("%w than %d bytes", errTooLarge, maxMessage))
		case piece.N <= 0:
			return nil, a.wrong(c, subagent.ClassInvalid, fmt.Errorf("%w than %d bytes for one session", errTooLarge, maxReply))
		case isForeign(err):
			err = errForeign
		}
		return nil, a.wrong(c, subagent.ClassUnavailable, err)
	}
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return fail(err)
	}
	for in.More() {
		piece.N = maxReply
		key, err := in.Token()
		if err != nil {
			return fail(err)
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return fail(err)
		}
		name, _ := key.(string)
		id := subagent.SessionID(name)
		if !slices.Contains(of, id) {
			continue
		}
		var s wireStatus
		if err := json.Unmarshal(value, &s); err != nil || s.Type == "" {
			return fail(err)
		}
		found[id] = statuses[s.Type]
	}
	if _, err := in.Token(); err != nil {
		return fail(err)
	}
	if _, err := in.Token(); err != io.EOF {
		return fail(err)
	}
	return found, nil
}

// isForeign tells an answer that is not what was expected from a line that was cut.
func isForeign(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &syntax) || errors.As(err, &kind)
}
