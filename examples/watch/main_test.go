package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// said is what the program prints where there is no terminal, but for statuses before
// the end: how far a start has come when the watching begins is not always the same.
const said = `0.2s  prepare the release   calls list_tags
0.2s  read the README       calls read
0.3s  write the notes       says: # Notes
0.5s  run the tests         calls go test
0.7s  read the README       says: it still speaks of v1.2
0.8s  prepare the release   says: since v1.3 two parts have changed
0.8s  prepare the release   completed: since v1.3 two parts have changed
0.9s  read the parser       calls read
1.4s  read the README       says: and its first program does not compile
1.4s  read the README       completed: it still speaks of v1.2 and its first program does not compile
1.4s  run the tests         tries again: the model is overloaded
1.5s  read the parser       calls grep
1.6s  write the notes       says: faster than 3.1v, and smaller
1.6s  write the notes       completed: # Notes faster than 3.1v, and smaller
1.7s  read the printer      calls read
1.9s  run the tests         calls go test
2.2s  read the printer      says: nothing that breaks
2.2s  read the printer      completed: nothing that breaks
2.4s  run the tests         failed: 2 tests of the printer fail
2.4s  read the parser       says: one breaking change: Parse takes a context
2.4s  read the parser       completed: one breaking change: Parse takes a context
all have ended: 5 completed, 1 failed
`

var unsettled = regexp.MustCompile(`(?m)^.* (pending|starting|running|stopping)\n`)

// In a bubble of fake time each run is the same.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		require.NoError(t, run(t.Context(), &out, false))
		require.Equal(t, said, unsettled.ReplaceAllString(out.String(), ""))
		require.NotContains(t, out.String(), "\x1b")
		for prompt := range jobs {
			require.Regexp(t, `(?m)^\d\.\ds  `+prompt+` +running$`, out.String())
		}
		require.Regexp(t, `(?m)^0\.6s  read the printer +pending$`, out.String())
	})
}

// terminal does what a terminal does, as far as the program may ask for it.
type terminal struct {
	lines   []string
	at      int // the line that the cursor is in
	cleared bool
	frames  []string
	wraps   bool
}

var order = regexp.MustCompile(`^\x1b\[(\?7l|\?7h|K|\d+A)`)

// Write takes one frame.
func (v *terminal) Write(p []byte) (int, error) {
	for s := string(p); s != ""; {
		if o := order.FindString(s); o != "" {
			s = s[len(o):]
			if err := v.obey(o[2:]); err != nil {
				return 0, err
			}
			continue
		}
		text, rest, ok := strings.Cut(s, "\n")
		if !ok || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return 0, fmt.Errorf("what is not for a terminal: %q", s)
		}
		if v.at == len(v.lines) {
			v.lines = append(v.lines, "")
		} else if !v.cleared {
			return 0, fmt.Errorf("written over %q: %q", v.lines[v.at], text)
		}
		v.lines[v.at], v.cleared, s = text, false, rest
		v.at++
	}
	v.frames = append(v.frames, strings.Join(v.lines, "\n")+"\n")
	return len(p), nil
}

func (v *terminal) obey(o string) error {
	switch o {
	case "?7l", "?7h":
		v.wraps = o == "?7h"
	case "K":
		v.cleared = true
	default:
		var up int
		if _, err := fmt.Sscanf(o, "%dA", &up); err != nil || up > v.at {
			return fmt.Errorf("%d lines up from line %d", up, v.at)
		}
		v.at -= up
	}
	return nil
}

const drawn = `prepare the release  completed  0.8s  tools: 1  since v1.3 two parts have changed
  read the parser    completed  1.9s  tools: 2  one breaking change: Parse takes a context
  read the printer   completed  0.8s  tools: 1  nothing that breaks
read the README      completed  1.4s  tools: 1  it still speaks of v1.2 and its first program does not compile
run the tests        failed     2.4s  tools: 2  2 tests of the printer fail
write the notes      completed  1.6s            # Notes faster than 3.1v, and smaller
`

// On a terminal the table stays where it is, and nothing that a child wrote moves it.
func TestScreen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &terminal{}
		require.NoError(t, run(t.Context(), v, true))
		require.Equal(t, drawn, v.frames[len(v.frames)-1])
		require.True(t, v.wraps, "it is left as it was found")
		all := strings.Join(v.frames, "")
		for _, want := range []string{
			`(?m)^run the tests +running +0\.\ds +tools: 1 +calls go test$`,
			`(?m)^run the tests +running +1\.\ds +tools: 1 +tries again: the model is overloaded$`,
			`(?m)^  read the printer +pending +- +waits for agent:reader$`,
			`(?m)^prepare the release +running +0\.\ds +tools: 1 +since v1\.3 two parts$`,
			`(?m)^write the notes +running +1\.\ds +faster than 3\.1v, and$`,
		} {
			require.Regexp(t, want, all)
		}
		require.Greater(t, len(v.frames), 20)
	})
}

// It can be interrupted, and leaves nothing: the bubble would wait for that.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v := &terminal{}
		require.ErrorIs(t, run(ctx, v, true), context.DeadlineExceeded)
		require.True(t, v.wraps)
	})
}

// What has ended before the watching begins is shown, and is all.
func TestNothingIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		h.manager, _ = subagent.New(subagent.Func(h.work), subagent.Config{})
		defer h.manager.Close()
		require.NoError(t, h.launch(t.Context(), me, "read the README"))
		time.Sleep(time.Minute)
		v := &terminal{}
		require.NoError(t, watch(t.Context(), h.manager, subagent.Filter{Root: me}, &screen{out: v}))
		require.Contains(t, v.frames[0], "read the README  completed  1.4s  tools: 1")
	})
}

// A watcher that is too slow, so that it is not told of all, asks again what there is.
func TestTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := subagent.New(subagent.Func(func(_ context.Context, turn subagent.Turn) (subagent.Result, error) {
			d, err := time.ParseDuration(turn.Text)
			time.Sleep(d)
			return subagent.Result{Text: "done"}, err
		}), subagent.Config{Keys: subagent.KeyLimits{Default: subagent.Off}, Spawn: subagent.SpawnLimits{LivePerRoot: subagent.Off}})
		require.NoError(t, err)
		defer m.Close()
		in := subagent.LaunchInput{Parent: me, Agent: "worker", Prompt: "1m"}
		_, err = m.Launch(t.Context(), in)
		require.NoError(t, err)
		go func() {
			time.Sleep(time.Second)
			in.Prompt = "1ns"
			for range 500 { // each ends before the next is launched
				_, _ = m.Launch(context.Background(), in)
				time.Sleep(2 * time.Nanosecond)
			}
		}()
		v := &slow{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.NoError(t, watch(ctx, m, subagent.Filter{Root: me}, v))
		require.Positive(t, v.dropped)
		require.Len(t, v.last, 501)
	})
}

// The manager is closed: all tasks have ended, and are shown so.
func TestManagerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		h.manager, _ = subagent.New(subagent.Func(h.work), subagent.Config{})
		require.NoError(t, h.launch(t.Context(), me, "run the tests"))
		go func() {
			time.Sleep(time.Second)
			_ = h.manager.Close()
		}()
		var out strings.Builder
		require.NoError(t, watch(t.Context(), h.manager, subagent.Filter{Root: me}, &lines{out: &out, began: time.Now()}))
		require.True(t, strings.HasSuffix(out.String(), "run the tests         cancelled: shutdown\nall have ended: 1 cancelled\n"), out.String())
	})
}

// slow is a view that takes its time with each event.
type slow struct {
	dropped int
	last    []*row
}

func (s *slow) begin([]*row) {}

func (s *slow) heard(e subagent.Event, _ *row) {
	s.dropped += e.Dropped
	time.Sleep(time.Millisecond)
}

func (s *slow) tick([]*row) {}

func (s *slow) over(rows []*row) { s.last = rows }

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"two  words\n":                 "two words",
		"\x1b[31mred\x1b[0m":           "red",
		"\x1b]0;title\x07text":         "text",
		"\x1b]8;;http://x\x1b\\link":   "link",
		"\x1b]52;c;Zm9v no end":        "",
		"\x1b(0box":                    "box",
		"\x1bcreset":                   "reset",
		"a\rb\bc\x7fd\u009b2Je":        "a bcd2Je",
		"to \u202eright\u202c\u2066":   "to right",
		"z\u200be\u200dr\ufeffo":       "zero",
		"cut\xff here":                 "cut here",
		"naïve 日本語":                    "naïve 日本語",
		strings.Repeat("x", 30) + "yz": strings.Repeat("x", 19) + "…",
	} {
		require.Equal(t, want, clean(text, 20), "%q", text)
	}
}

func TestIsTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.False(t, isTerminal(w))
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer f.Close()
	require.False(t, isTerminal(f))
	if runtime.GOOS != "linux" {
		return
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	defer tty.Close()
	require.True(t, isTerminal(tty))
	t.Setenv("TERM", "dumb")
	require.False(t, isTerminal(tty))
}
