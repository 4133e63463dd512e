package main

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// What is measured on the side of whoever has launched: how it is told, how soon it goes
// on, and what it costs that others listen.

const (
	family      = 10_000 // siblings that end at once
	subscribers = 10     // of which one never looks
)

// siblings has n children of one parent run at the same time and end at once. perTask is
// the time from the opening of the gate to the last ending.
func siblings(make_ kind, n int) run {
	gate := make(chan struct{})
	c := make_(n, gate)
	for range n {
		c.launch("parent", "provider/model")
	}
	for c.running() < n {
		runtime.Gosched()
	}
	runtime.GC() // that of the launches
	began := time.Now()
	close(gate)
	c.wait()
	all := time.Since(began)
	settleNotices(c, 1)
	told := c.notified()
	c.close()
	return run{perTask: float64(all) / float64(n), told: told}
}

// fanOut is what an event of a child's turn costs whoever brings it, and what it allocates
// altogether, while some listen, of whom the last never looks. The others are waited for
// before they lose any, so that each has all of them.
func fanOut(listeners, n int) (perEvent, allocs float64) {
	gate := make(chan struct{})
	o := manager(1, gate, 0)
	defer o.close()
	defer close(gate)
	o.launch("parent", "provider/model")
	for o.running() < 1 {
		runtime.Gosched()
	}
	var heard atomic.Int64
	readers := max(listeners-1, 0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range listeners {
		events, err := o.m.Subscribe(ctx, subagent.Filter{}, subagent.TopicProgress)
		if err != nil {
			panic(err)
		}
		if i < readers {
			go func() {
				for range events {
					heard.Add(1)
				}
			}()
		}
	}
	e := subagent.SessionEvent{Session: o.m.List(subagent.Filter{})[0].Session, Kind: subagent.EventText, Text: "so"}
	const batch = 512 // half of what is kept for one
	batches, sent := 0, 0
	var took time.Duration
	send := func() {
		began := time.Now()
		for range batch {
			o.m.HandleEvent(e)
		}
		took += time.Since(began)
		for sent += batch; int(heard.Load()) < readers*sent; {
			runtime.Gosched()
		}
	}
	for range 4 { // until there is no room left for the one that never looks
		send()
	}
	took = 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for ; batches*batch < n; batches++ {
		send()
	}
	runtime.ReadMemStats(&after)
	events := float64(batches * batch)
	return float64(took) / events, float64(after.Mallocs-before.Mallocs) / events
}

// turns wait at one gate, and readers for their ends.
type turns interface {
	begin(n int, gate <-chan struct{})
	wait(i int) time.Time // until turn i is over; when it said so
	close()
}

// wakes is how long a reader takes to go on after what it waits for was over.
func wakes(t turns, readers, rounds int) (p50, p99 float64) {
	defer t.close()
	took := make([]float64, readers*rounds)
	for round := range rounds {
		gate := make(chan struct{})
		t.begin(readers, gate)
		var all sync.WaitGroup
		for i := range readers {
			all.Go(func() {
				over := t.wait(i)
				took[round*readers+i] = float64(time.Since(over))
			})
		}
		time.Sleep(time.Millisecond + time.Duration(readers)*50*time.Microsecond) // until they wait
		close(gate)
		all.Wait()
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

// channels are turns without a manager.
type channels struct {
	over []chan struct{}
	at   []time.Time
}

func (c *channels) begin(n int, gate <-chan struct{}) {
	c.over, c.at = make([]chan struct{}, n), make([]time.Time, n)
	for i := range n {
		c.over[i] = make(chan struct{})
		go func() {
			<-gate
			c.at[i] = time.Now()
			close(c.over[i])
		}()
	}
}

func (c *channels) wait(i int) time.Time {
	<-c.over[i]
	return c.at[i]
}

func (c *channels) close() {}

// readers are turns of a manager in which many other tasks wait. It is the client too:
// a prompt is the number of its turn.
type readers struct {
	m    *subagent.BackgroundManager
	ids  []subagent.TaskID
	gate <-chan struct{}
	at   []time.Time
}

const otherModel = "provider/others"

func newReaders(others int) *readers {
	r := &readers{}
	m, err := subagent.New(r, subagent.Config{
		Keys:  subagent.KeyLimits{Default: subagent.Off, Models: map[string]int{otherModel: 1}},
		Spawn: subagent.SpawnLimits{LivePerRoot: subagent.Off},
	})
	if err != nil {
		panic(err)
	}
	r.m = m
	for i := range others {
		r.launch("parent"+strconv.Itoa(i/perParent), otherModel, -1)
	}
	return r
}

func (r *readers) launch(parent, model string, turn int) subagent.TaskID {
	t, err := r.m.Launch(context.Background(), subagent.LaunchInput{
		Parent: subagent.SessionID(parent), Agent: "explore", Prompt: strconv.Itoa(turn), Model: model,
	})
	if err != nil {
		panic(err)
	}
	return t.ID
}

func (r *readers) begin(n int, gate <-chan struct{}) {
	r.gate, r.ids, r.at = gate, make([]subagent.TaskID, n), make([]time.Time, n)
	for i := range n {
		r.ids[i] = r.launch("reader", "provider/model", i)
	}
}

func (r *readers) wait(i int) time.Time {
	if _, err := r.m.Wait(context.Background(), r.ids[i]); err != nil {
		panic(err)
	}
	return r.at[i]
}

func (r *readers) close() { _ = r.m.Close() }

func (r *readers) Create(context.Context, subagent.CreateRequest) (subagent.SessionID, error) {
	return subagent.SessionID(newSession()), nil
}

func (r *readers) Prompt(ctx context.Context, _ subagent.SessionID, p subagent.Prompt) (subagent.Result, error) {
	turn, _ := strconv.Atoi(p.Text)
	if turn < 0 {
		<-ctx.Done()
		return subagent.Result{}, ctx.Err()
	}
	<-r.gate
	r.at[turn] = time.Now()
	return subagent.Result{Text: "done"}, nil
}

func (r *readers) Abort(context.Context, subagent.SessionID) error { return nil }
