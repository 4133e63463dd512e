package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// dish is what goes wrong with the calls for one task, and what the manager makes
// of it. Every task is cancelled in the end, if it has not ended before.
type dish struct {
	create, prompt, abort Action
	status                subagent.Status
	reason                subagent.ReasonCode
	unstopped             bool // the child may still be running, and the manager knows
	sessions, running     int
}

const (
	completed, failed      = subagent.Completed, subagent.Failed
	interrupted, cancelled = subagent.Interrupted, subagent.Cancelled
)

var menu = table[dish]{
	"fine":                 {status: completed, sessions: 1},
	"text":                 {prompt: Action{Text: "a text"}, status: completed, sessions: 1},
	"empty":                {prompt: Action{Empty: true}, status: completed, sessions: 1},
	"blank":                {prompt: Action{Blank: true}, status: failed, reason: subagent.NoOutput, sessions: 1},
	"create fails":         {create: Action{Err: errScript}, status: failed, reason: subagent.SessionFailed},
	"create fails, made":   {create: Action{Err: errScript, Made: true}, status: failed, reason: subagent.SessionFailed, sessions: 1},
	"create fails, lost":   {create: Action{Err: errScript, Lost: true}, status: failed, reason: subagent.SessionFailed, sessions: 1},
	"create, no id":        {create: Action{NoID: true}, status: failed, reason: subagent.SessionFailed},
	"create, parent's id":  {create: Action{ID: "p"}, status: failed, reason: subagent.SessionFailed, sessions: 1},
	"create panics":        {create: Action{Panic: errScript}, status: failed, reason: subagent.Panicked},
	"create hangs":         {create: Action{Hang: true}, status: failed, reason: subagent.StartTimeout},
	"create hangs, made":   {create: Action{Hang: true, Made: true}, status: failed, reason: subagent.StartTimeout, sessions: 1},
	"create deaf":          {create: Action{Hang: true, Deaf: true}, status: failed, reason: subagent.StartTimeout, unstopped: true},
	"create late":          {create: Action{Delay: 2 * time.Minute, Deaf: true}, status: failed, reason: subagent.StartTimeout, sessions: 1},
	"prompt fails":         {prompt: Action{Err: errScript}, status: interrupted, reason: subagent.PromptFailed, sessions: 1},
	"prompt panics":        {prompt: Action{Panic: errScript}, status: failed, reason: subagent.Panicked, sessions: 1},
	"prompt hangs":         {prompt: Action{Hang: true}, status: cancelled, reason: subagent.ByUser, sessions: 1},
	"prompt deaf":          {prompt: Action{Hang: true, Deaf: true}, status: cancelled, reason: subagent.ByUser, unstopped: true, sessions: 1, running: 1},
	"prompt leaves a turn": {prompt: Action{Orphan: true, Err: errScript}, status: interrupted, reason: subagent.PromptFailed, sessions: 1},
	"panic leaves a turn":  {prompt: Action{Orphan: true, Panic: errScript}, status: failed, reason: subagent.Panicked, sessions: 1},
	"abort fails":          {prompt: Action{Hang: true}, abort: Action{Err: errScript}, status: cancelled, reason: subagent.ByUser, unstopped: true, sessions: 1, running: 1},
	"abort hangs":          {prompt: Action{Hang: true}, abort: Action{Hang: true}, status: cancelled, reason: subagent.ByUser, unstopped: true, sessions: 1, running: 1},
	"abort deaf":           {prompt: Action{Hang: true}, abort: Action{Hang: true, Deaf: true}, status: cancelled, reason: subagent.ByUser, unstopped: true, sessions: 1, running: 1},
	"abort panics":         {prompt: Action{Hang: true}, abort: Action{Panic: errScript}, status: cancelled, reason: subagent.ByUser, unstopped: true, sessions: 1, running: 1},
	"abort slow":           {prompt: Action{Hang: true}, abort: Action{Delay: 4 * time.Second}, status: cancelled, reason: subagent.ByUser, sessions: 1},
}

// A manager over the fake, through the whole menu, keeps the contract, leaks nothing
// and knows what it could not stop.
func TestManagerOverTheMenu(t *testing.T) {
	menu.SyncTest(t, func(t *testing.T, d dish) {
		client := NewClient(t, do(map[Op]Action{OpCreate: d.create, OpPrompt: d.prompt, OpAbort: d.abort}))
		parent := NewParent(t)
		m, err := subagent.New(client, subagent.Config{Notifier: parent})
		require.NoError(t, err)
		task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		task, err = m.Cancel(t.Context(), task.ID, subagent.CancelOptions{})
		require.Equal(t, d.status != cancelled, errors.Is(err, subagent.ErrEnded), err)
		require.Equal(t, d.unstopped, errors.Is(err, subagent.ErrUnstopped), err)
		require.Equal(t, d.status, task.Status)
		if d.reason != "" {
			require.ErrorIs(t, task.Reason, d.reason)
		}
		time.Sleep(time.Minute)
		require.Len(t, client.Sessions(), d.sessions)
		require.Equal(t, d.running, client.Running())
		require.Len(t, parent.Seen("p"), 1)
		require.Equal(t, 1, parent.Finals("p"))
		require.Equal(t, d.unstopped, errors.Is(m.Close(), subagent.ErrUnstopped))
		client.Closed()
	})
}

// A manager whose receiver does anything but accept still delivers once.
func TestManagerOverReplies(t *testing.T) {
	type reply struct {
		Reply
		wire, doubled int
	}
	table[reply]{
		"fine":        {Reply{}, 1, 0},
		"error":       {Reply{Err: errScript}, 3, 0},
		"error, lost": {Reply{Err: errScript, Lost: true}, 3, 2},
		"busy":        {Reply{Delivery: subagent.Busy}, 3, 0},
		"panic":       {Reply{Panic: errScript}, 3, 0},
		"hangs":       {Reply{Hang: true}, 3, 0},
		"late":        {Reply{Delay: 40 * time.Second, Deaf: true}, 1, 0},
		"gone":        {Reply{Delivery: subagent.Gone}, 1, 0},
	}.SyncTest(t, func(t *testing.T, c reply) {
		parent := NewParent(t)
		calls := 0
		parent.Script = func(subagent.Notification, int) Reply {
			if calls++; calls <= 2 {
				return c.Reply
			}
			return Reply{}
		}
		m, err := subagent.New(NewClient(t, nil), subagent.Config{Notifier: parent})
		require.NoError(t, err)
		_, err = m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		require.NoError(t, m.Close())
		require.Equal(t, c.wire, parent.Wire())
		require.Equal(t, c.doubled, parent.Doubled())
		require.Equal(t, c.Delivery != subagent.Gone, parent.Finals("p") == 1)
	})
}

// Many tasks under a limit: the fake counts what really runs.
func TestManagerKeepsToItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := NewClient(t, do(map[Op]Action{OpPrompt: {Delay: time.Second}}))
		parent := NewParent(t)
		m, err := subagent.New(client, subagent.Config{Notifier: parent, Keys: subagent.KeyLimits{Default: 3}})
		require.NoError(t, err)
		for i := range 20 {
			_, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: fmt.Sprint("agent", i%2), Prompt: "x"})
			require.NoError(t, err)
		}
		_, err = m.WaitAll(context.Background(), subagent.Filter{})
		require.NoError(t, err)
		require.NoError(t, m.Close())
		require.Equal(t, 6, client.MaxRunning())
		require.Len(t, parent.Seen("p"), 20)
	})
}
