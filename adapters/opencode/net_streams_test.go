package opencode_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// goodScripts are turns that end well, and what they say.
var goodScripts = map[string]string{
	"say hello":                           "hello",
	"think hm; say über 🙂🙂 ende":          "über 🙂🙂 ende",
	"work 2m; say late":                   "late",
	"tool 5s || tool 40s || say done":     "done",
	"retry 4; say again":                  "again",
	"say a first word || work 7s; say it": "it",
}

// goWell runs children that should end well, and has them do so.
func (w *netWorld) goWell() {
	w.t.Helper()
	ids := map[subagent.TaskID]string{}
	for script, text := range goodScripts {
		ids[w.launch(script)] = text
	}
	w.settle()
	w.close()
	for id, text := range ids {
		w.said(id, text)
	}
	w.check(false)
}

// However events come, if they come: every turn ends as it does on the server.
func TestNetStreamFaults(t *testing.T) {
	for name, fault := range streamMenu {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.streamFaults(always(fault))
				newNetWorld(t, f).goWell()
			})
		})
	}
}

// Nor does it matter whether a stream can be opened.
func TestNetStreamDoesNotOpen(t *testing.T) {
	for name, fault := range openFaults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.faults(every("events", fault))
				newNetWorld(t, f).goWell()
			})
		})
	}
}

// A network that hands over single bytes changes nothing.
func TestNetChopped(t *testing.T) {
	for _, size := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.net.set(func(p *pipeNet) { p.chop = size })
			newNetWorld(t, f).goWell()
		})
	}
}

// A stream that is gone is opened again: soon, then less and less often, and soon
// again when it was good for something.
func TestNetStreamIsOpenedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		stream      streamFault
		least, most int // openings in ten minutes
	}{
		"silent":      {silent, 15, 25},
		"mute":        {mute, 10, 25},
		"lying":       {lying, 1, 1},
		"cut at once": {cutAfter(0), 50, 130},
		"good":        {nil, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.streamFaults(always(c.stream))
				w := newNetWorld(t, f)
				time.Sleep(10 * time.Minute)
				require.GreaterOrEqual(t, f.called("events"), c.least)
				require.LessOrEqual(t, f.called("events"), c.most)
				w.close()
			})
		})
	}
}
