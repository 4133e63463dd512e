package main

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

const (
	keys      = 8   // models
	perKey    = 5   // running tasks of each
	perParent = 100 // tasks of each parent, launched one after the other
	prompt    = "look at this part"
)

// evenly gathers longer than a machine of any speed takes between two endings.
const evenly = 2 * time.Second

// contestant is a manager under measurement.
type contestant interface {
	launch(parent, key string) string
	running() int
	wait() // until all tasks have ended
	notified() int
	close()
}

var sessions atomic.Int64

func newSession() string { return strconv.FormatInt(1_000_000_000+sessions.Add(1), 36) }

// answer is what every child does: it waits for the gate and speaks.
func answer(ctx context.Context, gate <-chan struct{}) string {
	select {
	case <-gate:
	case <-ctx.Done():
	}
	return "done"
}

// host is the client under our manager.
type host struct {
	gate     <-chan struct{}
	answered atomic.Int64
	want     int64
	done     chan struct{} // closed with the last answer
}

func (h *host) Create(context.Context, subagent.CreateRequest) (subagent.SessionID, error) {
	return subagent.SessionID(newSession()), nil
}

func (h *host) Prompt(ctx context.Context, _ subagent.SessionID, _ subagent.Prompt) (subagent.Result, error) {
	r := subagent.Result{Text: answer(ctx, h.gate)}
	if h.answered.Add(1) == h.want {
		close(h.done)
	}
	return r, nil
}

func (h *host) Abort(context.Context, subagent.SessionID) error { return nil }

type ours struct {
	m     *subagent.BackgroundManager
	sent  atomic.Int64
	final atomic.Int64
	want  int
	host  *host
}

func newOurs(n int, gate <-chan struct{}) contestant { return manager(n, gate, evenly) }

// newOursAtOnce has all its tasks run at the same time.
func newOursAtOnce(n int, gate <-chan struct{}) contestant {
	return manager(n, gate, evenly, func(c *subagent.Config) { c.Keys.Default = subagent.Off })
}

func manager(n int, gate <-chan struct{}, gather time.Duration, changes ...func(*subagent.Config)) *ours {
	o := &ours{want: n, host: &host{gate: gate, want: int64(n), done: make(chan struct{})}}
	cfg := subagent.Config{
		Keys:  subagent.KeyLimits{Default: perKey},
		Spawn: subagent.SpawnLimits{LivePerRoot: subagent.Off},
		// All that have ended are kept, as they are counted, and stand on the shelf.
		Retention: subagent.Retention{Count: subagent.Off},
		// Children that end at once are not served evenly: those of one parent may
		// end some time slices of the scheduler apart. This gathers them whatever
		// the machine does, so that what is counted does not depend on its clock.
		Mailbox: subagent.MailboxPolicy{Gather: gather, GatherMax: time.Minute},
		Notifier: subagent.NotifierFunc(func(_ context.Context, n subagent.Notification) (subagent.Delivery, error) {
			o.sent.Add(1)
			if n.Final {
				o.final.Add(1)
			}
			return subagent.Accepted, nil
		}),
	}
	for _, change := range changes {
		change(&cfg)
	}
	m, err := subagent.New(o.host, cfg)
	if err != nil {
		panic(err)
	}
	o.m = m
	return o
}

func (o *ours) launch(parent, key string) string {
	t, err := o.m.Launch(context.Background(), subagent.LaunchInput{
		Parent: subagent.SessionID(parent), Agent: "explore", Prompt: prompt, Model: key,
	})
	if err != nil {
		panic(err)
	}
	return string(t.ID)
}

func (o *ours) running() int { return o.m.Stats().Tasks[subagent.Running] }

func (o *ours) wait() {
	// WaitAll would copy every task. So the client counts its answers, and what
	// comes after the last of them is looked for, without a pause.
	<-o.host.done
	for o.m.Stats().Tasks[subagent.Completed] < o.want {
		runtime.Gosched()
	}
}

func (o *ours) notified() int { return int(o.sent.Load()) }

func (o *ours) close() { _ = o.m.Close() }
