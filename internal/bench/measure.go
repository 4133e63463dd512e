package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// kind makes a contestant for n tasks.
type kind func(n int, gate <-chan struct{}) contestant

// run is one gated run: everything is launched, then the gate opens and every
// child ends as soon as it is prompted.
type run struct {
	perTask  float64 // ns from the first launch to the last ending
	p50, p99 float64 // ns of one launch
	allocs   float64 // per task
	bytes    float64 // per task
	told     int
}

func names(n int) (parents, models []string) {
	for i := range (n + perParent - 1) / perParent {
		parents = append(parents, "parent"+strconv.Itoa(i))
	}
	for i := range keys {
		models = append(models, "provider/model"+strconv.Itoa(i))
	}
	return parents, models
}

func gated(make_ kind, n int) run {
	parents, models := names(n)
	took := make([]int64, n)
	gate := make(chan struct{})
	// Nobody starts on memory that the one before has left: each gets its own from
	// the system, as in a new process.
	debug.FreeOSMemory()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := make_(n, gate)
	began := time.Now()
	last := began
	for i := range n {
		c.launch(parents[i/perParent], models[i%keys])
		now := time.Now()
		took[i] = int64(now.Sub(last))
		last = now
	}
	close(gate)
	c.wait()
	all := time.Since(began)
	runtime.ReadMemStats(&after)
	settleNotices(c, len(parents))
	told := c.notified()
	c.close()
	slices.Sort(took)
	return run{
		perTask: float64(all) / float64(n),
		p50:     float64(took[n/2]), p99: float64(took[n*99/100]),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
		told:   told,
	}
}

// settleNotices waits until every parent has its final notification, a few
// seconds at most.
func settleNotices(c contestant, parents int) {
	o, ok := c.(*ours)
	if !ok {
		return
	}
	for range 2000 {
		if int(o.final.Load()) >= parents {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// medians runs contestants in turn and returns the median of each figure.
func medians(kinds []kind, n, runs int) []run {
	all := make([][]run, len(kinds))
	for range runs {
		for i, k := range kinds {
			all[i] = append(all[i], gated(k, n))
		}
	}
	middle := make([]run, len(kinds))
	for i, list := range all {
		figure := func(of func(run) float64) float64 {
			values := make([]float64, len(list))
			for j, r := range list {
				values[j] = of(r)
			}
			return median(values)
		}
		middle[i] = run{
			perTask: figure(func(r run) float64 { return r.perTask }),
			p50:     figure(func(r run) float64 { return r.p50 }),
			p99:     figure(func(r run) float64 { return r.p99 }),
			allocs:  figure(func(r run) float64 { return r.allocs }),
			bytes:   figure(func(r run) float64 { return r.bytes }),
			told:    int(figure(func(r run) float64 { return float64(r.told) })),
		}
	}
	return middle
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// heapNow is the live heap, and goroutines how many there are.
func heapNow() (bytes float64, goroutines int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), runtime.NumGoroutine()
}

// kept is what a task costs while it waits, and after it has ended and was told.
type kept struct {
	pending, ended                 float64 // bytes
	pendingRoutines, endedRoutines int     // beyond those of running tasks
	told                           int
}

// keep measures n tasks at rest. The caller's own strings are made before.
func keep(n int) kept {
	parents, models := names(n)
	gate := make(chan struct{})
	o := manager(n, gate, evenly)
	defer o.close()
	before, routines := heapNow()
	for i := range n {
		o.launch(parents[i/perParent], models[i%keys])
	}
	time.Sleep(50 * time.Millisecond) // until those that run have begun to wait at the gate
	waiting, waitingRoutines := heapNow()
	close(gate)
	o.wait()
	settleNotices(o, len(parents))
	time.Sleep(50 * time.Millisecond)
	after, afterRoutines := heapNow()
	runtime.KeepAlive(parents)
	return kept{
		pending: (waiting - before) / float64(n), ended: (after - before) / float64(n),
		pendingRoutines: waitingRoutines - routines - keys*perKey, endedRoutines: afterRoutines - routines,
		told: o.notified(),
	}
}

// operations are single calls on a manager with n pending tasks, in ns.
type operations struct {
	cancel, find, position float64
	list, copyTasks        float64 // of one parent's
	page, copyPage         float64 // of as many from the middle of all
	listEnded, copyEnded   float64 // of one parent's, once they have ended
}

func operate(n int) operations {
	parents, models := names(n)
	gate := make(chan struct{})
	o := manager(n, gate, evenly)
	defer o.close()
	ids := make([]subagent.TaskID, n)
	for i := range n {
		ids[i] = subagent.TaskID(o.launch(parents[i/perParent], models[i%keys]))
	}
	ctx := context.Background()
	var sessions []subagent.SessionID
	for _, t := range o.m.List(subagent.Filter{Statuses: []subagent.Status{subagent.Running}}) {
		sessions = append(sessions, t.Session)
	}
	var ops operations
	ops.find = each(2000, func(i int) { _, _ = o.m.BySession(sessions[i%len(sessions)]) })
	middle := subagent.Filter{Parent: subagent.SessionID(parents[len(parents)/2])}
	ops.list, ops.copyTasks = o.listing(middle)
	ops.page, ops.copyPage = o.listing(subagent.Filter{After: ids[n/2], Limit: perParent})
	ops.position = each(200, func(int) { _, _ = o.m.Get(ids[n-1]) })
	quiet := subagent.CancelOptions{OnlyPending: true, Silent: true}
	step := max(n/2/500, 1)
	ops.cancel = each(min(500, n/4), func(i int) { _, _ = o.m.Cancel(ctx, ids[n/4+i*step], quiet) })
	close(gate)
	for len(o.m.List(subagent.Filter{Parent: middle.Parent, Statuses: []subagent.Status{subagent.Completed}})) == 0 ||
		o.m.Pending(middle.Parent).Live > 0 {
		runtime.Gosched()
	}
	ops.listEnded, ops.copyEnded = o.listing(middle)
	return ops
}

// listing is the time of a List, and that of a plain copy of what it gives.
func (o *ours) listing(f subagent.Filter) (list, plain float64) {
	sample := o.m.List(f)
	return inTurn(200, func(int) { _ = o.m.List(f) }, func(int) { _ = slices.Clone(sample) })
}

// each is the median time of a call.
func each(times int, call func(i int)) float64 {
	own, _ := inTurn(times, call, func(int) {})
	return own
}

// inTurn is the median time of each of two calls, made in turn so that the state of
// the heap is the same for both.
func inTurn(times int, one, other func(i int)) (_, _ float64) {
	took := [2][]float64{make([]float64, times), make([]float64, times)}
	for i := range times {
		for j, call := range []func(int){one, other} {
			began := time.Now()
			call(i)
			took[j][i] = float64(time.Since(began))
		}
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	return took[0][times/2], took[1][times/2]
}

// foreign is what the events of sessions that are nobody's children allocate. A
// hundredth of one leaves room for the runtime's own.
func foreign(n int) float64 {
	o := manager(1, nil, 0)
	defer o.m.Close()
	e := subagent.SessionEvent{Session: "somebody else's", Kind: subagent.EventText, Text: "so"}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		o.m.HandleEvent(e)
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

// flow is a run whose gate is open from the start and whose parents take turns:
// how many notifications go out, and how many there may be.
func flow(n int) (told, most int) {
	parents, models := names(n)
	gate := make(chan struct{})
	close(gate)
	o := manager(n, gate, 0)
	defer o.close()
	began := time.Now()
	for i := range n {
		o.launch(parents[i%len(parents)], models[i%keys])
	}
	o.wait()
	windows := int(time.Since(began)/(100*time.Millisecond)) + 1
	settleNotices(o, len(parents))
	return o.notified(), len(parents) * (windows + 1)
}
