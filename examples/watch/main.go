// Watch: a table of all tasks below a session, live: what they are doing, which tools
// they call, what they say. On a terminal it is drawn in place; anywhere else, as in a
// file or a pipe, there is a line for each thing that happens. It ends by itself, when
// all tasks have ended.
//
//	go run ./examples/watch
//	go run ./examples/watch | cat
//
// There is no model here: what the children do stands in work.go. What one of them says
// is hostile to terminals, and is cleaned before it is drawn (clean.go).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// me is the session id of the parent: any name that the host gives it.
const me subagent.SessionID = "watch"

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "usage: watch")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, isTerminal(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(1)
	}
}

// isTerminal reports whether a file is a terminal that understands where to draw.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	term := os.Getenv("TERM")
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && term != "" && term != "dumb"
}

// run launches children and watches until all have ended.
func run(ctx context.Context, out io.Writer, terminal bool) error {
	h := &host{}
	var err error
	if h.manager, err = subagent.New(subagent.Func(h.work), subagent.Config{Keys: subagent.KeyLimits{Default: 2}}); err != nil {
		return err
	}
	defer h.manager.Close()
	for _, prompt := range []string{"prepare the release", "read the README", "run the tests", "write the notes"} {
		if err := h.launch(ctx, me, prompt); err != nil {
			return err
		}
	}
	var v view = &lines{out: out, began: time.Now()}
	if terminal {
		v = &screen{out: out}
	}
	return watch(ctx, h.manager, subagent.Filter{Root: me}, v)
}
