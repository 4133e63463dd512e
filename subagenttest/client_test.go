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

// recorder is a testing.TB that keeps what it is told.
type recorder struct {
	testing.TB
	errors   []string
	skipped  int
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Skip(...any)      { r.skipped++ }
func (r *recorder) Errorf(f string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(f, args...))
}

// end is the end of the recorder's test.
func (r *recorder) end() []string {
	for _, f := range r.cleanups {
		f()
	}
	r.cleanups = nil
	return r.errors
}

// play is a test of the fake without a manager, in a bubble.
type play struct {
	*testing.T
	*Client
	tb *recorder
}

func newPlay(t *testing.T, script func(Call) Action) play {
	r := &recorder{TB: t}
	p := play{t, NewClient(r, script), r}
	t.Cleanup(p.Let)
	return p
}

// do plays one action for each call of an Op.
func do(actions map[Op]Action) func(Call) Action {
	return func(c Call) Action { return actions[c.Op] }
}

var bg = context.Background()

func (p play) create() subagent.SessionID {
	p.Helper()
	id, err := p.Create(bg, subagent.CreateRequest{Task: "bg_1", Attempt: 1})
	require.NoError(p, err)
	return id
}

// answer is what a Prompt returned.
type answer struct {
	subagent.Result
	err      error
	panicked any
	after    time.Duration
}

// prompt lets a Prompt out; what it answers can be read once it has.
func (p play) prompt(ctx context.Context, id subagent.SessionID) *answer {
	a := &answer{after: -1}
	began := time.Now()
	go func() {
		defer func() { a.panicked, a.after = recover(), time.Since(began) }()
		a.Result, a.err = p.Prompt(ctx, id, subagent.Prompt{Task: "bg_1", Attempt: 1, Text: "do"})
	}()
	synctest.Wait()
	return a
}

// table is cases by name, each for a bubble of its own.
type table[C any] map[string]C

// SyncTest runs f for each case, in fake time.
func (cases table[C]) SyncTest(t *testing.T, f func(*testing.T, C)) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, c) }) })
	}
}

var errScript = errors.New("as the script says")

func TestZeroActionSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, nil)
		first, second := p.create(), p.create()
		require.NotEqual(t, first, second)
		require.Equal(t, answer{Result: subagent.Result{Text: "ok"}}, *p.prompt(bg, first))
		require.NoError(t, p.Abort(bg, second))
		require.NoError(t, p.Release(bg, first))
		require.Empty(t, p.tb.end())
		require.Equal(t, []SessionState{
			{ID: first, Task: "bg_1", Attempt: 1, Prompts: 1, AtOnce: 1, Released: true},
			{ID: second, Task: "bg_1", Attempt: 1, Aborts: 1},
		}, p.Sessions())
		require.Zero(t, p.Running())
		require.Equal(t, 1, p.MaxRunning())
	})
}

// The log has every call with what a script may want to know.
func TestCallsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []Call
		p := newPlay(t, func(c Call) Action { seen = append(seen, c); return Action{} })
		began := time.Now()
		id := p.create()
		p.prompt(bg, id)
		time.Sleep(time.Second)
		p.prompt(bg, id)
		require.NoError(t, p.Abort(bg, id))
		require.NoError(t, p.Release(bg, id))
		require.Equal(t, seen, p.Calls())
		require.Equal(t, 2, p.Count(OpPrompt))
		require.Equal(t, 1, p.Count(OpCreate))
		prompt := subagent.Prompt{Task: "bg_1", Attempt: 1, Text: "do"}
		require.Equal(t, []Call{
			{Op: OpCreate, Task: "bg_1", Attempt: 1, Create: subagent.CreateRequest{Task: "bg_1", Attempt: 1}, At: began},
			{Op: OpPrompt, Task: "bg_1", Attempt: 1, Session: id, Prompt: prompt, At: began},
			{Op: OpPrompt, Task: "bg_1", Attempt: 1, Session: id, Prompt: prompt, At: began.Add(time.Second), N: 1},
			{Op: OpAbort, Task: "bg_1", Attempt: 1, Session: id, At: began.Add(time.Second)},
			{Op: OpRelease, Task: "bg_1", Attempt: 1, Session: id, At: began.Add(time.Second)},
		}, seen)
	})
}

func TestCreateMenu(t *testing.T) {
	type dish struct {
		action   Action
		id       subagent.SessionID
		err      error
		sessions int
		leaks    int // before anybody stops it
		after    time.Duration
	}
	const second = time.Second // when the context ends
	table[dish]{
		"fine":                 {Action{}, "ses_1", nil, 1, 1, 0},
		"error":                {Action{Err: errScript}, "", errScript, 0, 0, 0},
		"error, made":          {Action{Err: errScript, Made: true}, "ses_1", errScript, 1, 1, 0},
		"error, lost":          {Action{Err: errScript, Lost: true}, "", errScript, 1, 0, 0},
		"lost":                 {Action{Lost: true}, "", errLost, 1, 0, 0},
		"no id":                {Action{NoID: true}, "", nil, 0, 0, 0},
		"an id":                {Action{ID: "mine"}, "mine", nil, 1, 0, 0},
		"an id, error":         {Action{ID: "mine", Err: errScript}, "mine", errScript, 1, 0, 0},
		"slow":                 {Action{Delay: second / 2}, "ses_1", nil, 1, 1, second / 2},
		"slow, error":          {Action{Delay: second / 2, Err: errScript}, "", errScript, 0, 0, second / 2},
		"too slow":             {Action{Delay: 2 * second}, "", context.DeadlineExceeded, 0, 0, second},
		"too slow, made":       {Action{Delay: 2 * second, Made: true}, "ses_1", context.DeadlineExceeded, 1, 1, second},
		"too slow, lost":       {Action{Delay: 2 * second, Lost: true}, "", context.DeadlineExceeded, 1, 0, second},
		"too slow, and deaf":   {Action{Delay: 2 * second, Deaf: true}, "ses_1", nil, 1, 1, 2 * second},
		"hangs":                {Action{Hang: true}, "", context.DeadlineExceeded, 0, 0, second},
		"hangs, and deaf":      {Action{Hang: true, Deaf: true}, "ses_1", nil, 1, 0, time.Hour}, // Let
		"hangs, deaf, error":   {Action{Hang: true, Deaf: true, Err: errScript}, "", errScript, 0, 0, time.Hour},
		"hangs, though slower": {Action{Hang: true, Delay: second / 2}, "", context.DeadlineExceeded, 0, 0, second},
	}.SyncTest(t, func(t *testing.T, c dish) {
		p := newPlay(t, do(map[Op]Action{OpCreate: c.action}))
		began := time.Now()
		time.AfterFunc(time.Hour, p.Let)
		ctx, cancel := context.WithTimeout(bg, second)
		defer cancel()
		id, err := p.Create(ctx, subagent.CreateRequest{Task: "bg_1"})
		require.Equal(t, c.id, id)
		require.Equal(t, c.err, err)
		require.Equal(t, c.after, time.Since(began))
		require.Len(t, p.Sessions(), c.sessions)
		require.Len(t, p.Leaks(), c.leaks)
		if id != "" {
			require.NoError(t, p.Abort(bg, id))
			require.Empty(t, p.Leaks())
		}
	})
}

func TestCreatePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, func(c Call) Action { return Action{Panic: errScript, Lost: c.N == 1} })
		for made := range 2 {
			require.PanicsWithError(t, errScript.Error(), func() { p.create() })
			require.Len(t, p.Sessions(), made)
		}
		require.Empty(t, p.tb.end())
	})
}

// An id that is in use stays what it was; a released one begins anew.
func TestCreateRepeatsAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, func(c Call) Action {
			if c.Task == "bg_2" {
				return Action{ID: "ses_1"}
			}
			return Action{}
		})
		id := p.create()
		again, err := p.Create(bg, subagent.CreateRequest{Task: "bg_2"})
		require.NoError(t, err)
		require.Equal(t, id, again)
		require.Equal(t, subagent.TaskID("bg_1"), p.Sessions()[0].Task)
		require.NoError(t, p.Release(bg, id))
		_, err = p.Create(bg, subagent.CreateRequest{Task: "bg_2"})
		require.NoError(t, err)
		require.Equal(t, []SessionState{{ID: id, Task: "bg_2"}}, p.Sessions())
	})
}

func TestPromptMenu(t *testing.T) {
	type dish struct {
		action  Action
		cut     bool // its context ends after a second; else it is aborted then
		want    answer
		running int // turns that go on when the Prompt is back, and have to be aborted
	}
	const second = time.Second
	text := subagent.Result{Text: "ok"}
	whole := subagent.Result{Text: "whole", Partial: true, Usage: subagent.Usage{Cost: 1}}
	aborted := fault(OpPrompt, "ses_1", subagent.ClassAborted, errAborted)
	table[dish]{
		"text":             {Action{Text: "text"}, false, answer{Result: subagent.Result{Text: "text"}}, 0},
		"empty":            {Action{Empty: true}, false, answer{Result: subagent.Result{Empty: true}}, 0},
		"blank":            {Action{Blank: true}, false, answer{Result: subagent.Result{Text: " \n"}}, 0},
		"whole":            {Action{Result: &whole, Text: "x"}, false, answer{Result: whole}, 0},
		"error":            {Action{Err: errScript, Text: "so far"}, false, answer{Result: subagent.Result{Text: "so far"}, err: errScript}, 0},
		"panic":            {Action{Panic: errScript}, false, answer{panicked: errScript}, 0},
		"slow":             {Action{Delay: second / 2}, false, answer{Result: text, after: second / 2}, 0},
		"aborted":          {Action{Delay: second * 2}, false, answer{Result: text, err: aborted, after: second}, 0},
		"hangs, aborted":   {Action{Hang: true}, false, answer{Result: text, err: aborted, after: second}, 0},
		"cut":              {Action{Delay: second * 2}, true, answer{err: context.Canceled, after: second}, 1},
		"hangs, cut":       {Action{Hang: true}, true, answer{err: context.Canceled, after: second}, 1},
		"deaf, aborted":    {Action{Delay: second * 2, Deaf: true}, false, answer{Result: text, after: second * 2}, 0},
		"deaf, cut":        {Action{Delay: second * 2, Deaf: true}, true, answer{Result: text, after: second * 2}, 0},
		"hangs, deaf":      {Action{Hang: true, Deaf: true}, true, answer{Result: text, after: time.Hour}, 0}, // Let
		"orphan":           {Action{Orphan: true}, true, answer{err: errLost}, 1},
		"orphan, error":    {Action{Orphan: true, Delay: second / 2, Err: errScript}, true, answer{err: errScript, after: second / 2}, 1},
		"orphan, panic":    {Action{Orphan: true, Panic: errScript}, true, answer{panicked: errScript}, 1},
		"orphan, aborted":  {Action{Orphan: true, Delay: second * 2, Err: errScript}, false, answer{Result: text, err: aborted, after: second}, 0},
		"orphan, cut":      {Action{Orphan: true, Delay: second * 2, Err: errScript}, true, answer{err: context.Canceled, after: second}, 1},
		"panic, cut first": {Action{Panic: errScript, Delay: second * 2}, true, answer{err: context.Canceled, after: second}, 1},
	}.SyncTest(t, func(t *testing.T, c dish) {
		p := newPlay(t, do(map[Op]Action{OpPrompt: c.action}))
		time.AfterFunc(time.Hour, p.Let)
		ctx, cancel := context.WithCancel(bg)
		defer cancel()
		id := p.create()
		got := p.prompt(ctx, id)
		time.Sleep(second)
		if c.cut {
			cancel()
		} else if err := p.Abort(bg, id); c.action.Deaf {
			require.ErrorIs(t, err, errDeaf)
		} else {
			require.NoError(t, err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, c.want, *got)
		require.Equal(t, c.running, p.Running())
		require.Len(t, p.Leaks(), c.running)
		require.NoError(t, p.Abort(bg, id))
		require.Zero(t, p.Running())
		require.Empty(t, p.Leaks())
	})
}

// An Abort that fails leaves the turn as it is, and then the turn is no leak.
func TestAbortMenu(t *testing.T) {
	type dish struct {
		action Action
		err    error
		after  time.Duration
	}
	const second = time.Second
	table[dish]{
		"fine":            {Action{}, nil, 0},
		"slow":            {Action{Delay: second / 2}, nil, second / 2},
		"error":           {Action{Err: errScript, Delay: second / 2}, errScript, second / 2},
		"panic":           {Action{Panic: errScript}, errScript, 0},
		"too slow":        {Action{Delay: 2 * second}, context.DeadlineExceeded, second},
		"hangs":           {Action{Hang: true}, context.DeadlineExceeded, second},
		"hangs, deaf":     {Action{Hang: true, Deaf: true}, nil, time.Hour}, // Let
		"too slow, deaf ": {Action{Delay: 2 * second, Deaf: true}, nil, 2 * second},
	}.SyncTest(t, func(t *testing.T, c dish) {
		p := newPlay(t, do(map[Op]Action{OpAbort: c.action, OpPrompt: {Orphan: true}}))
		id := p.create()
		p.prompt(bg, id)
		require.Len(t, p.Leaks(), 1)
		time.AfterFunc(time.Hour, p.Let)
		ctx, cancel := context.WithTimeout(bg, second)
		defer cancel()
		var err error
		began := time.Now()
		time.AfterFunc(1, func() {
			require.True(t, c.after == 0 || len(p.Leaks()) == 0, "an Abort that is out may stop the turn yet")
		})
		func() {
			defer func() {
				if v := recover(); v != nil {
					err = v.(error)
				}
			}()
			err = p.Abort(ctx, id)
		}()
		require.Equal(t, c.err, err)
		require.Equal(t, c.after, time.Since(began))
		require.Equal(t, c.err != nil, p.Running() == 1)
		require.Empty(t, p.tb.end())
		s := p.Sessions()[0]
		require.Equal(t, c.err != nil, s.Refused == 1)
		require.Equal(t, c.err == nil, s.Aborts == 1)
	})
}

func TestReleaseMenu(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		actions := []Action{{Err: errScript}, {Panic: errScript}, {Hang: true}, {}}
		p := newPlay(t, func(c Call) Action {
			if c.Op == OpRelease {
				return actions[c.N]
			}
			return Action{}
		})
		id := p.create()
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		require.Equal(t, errScript, p.Release(ctx, id))
		require.PanicsWithError(t, errScript.Error(), func() { _ = p.Release(ctx, id) })
		require.Equal(t, context.DeadlineExceeded, p.Release(ctx, id))
		require.False(t, p.Sessions()[0].Released)
		require.Len(t, p.Leaks(), 1)
		require.NoError(t, p.Release(bg, id))
		require.True(t, p.Sessions()[0].Released)
		require.Empty(t, p.tb.end())
	})
}
