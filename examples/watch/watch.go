package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// view shows what is watched.
type view interface {
	begin(rows []*row)
	heard(e subagent.Event, r *row) // the row is as it is after the event
	tick(rows []*row)               // some time has passed
	over(rows []*row)
}

// row is a task with what it did last.
type row struct {
	task subagent.Task
	said string // the end of its words so far, as they came
}

// watch shows the tasks that match, from those that are there on, until none is live.
func watch(ctx context.Context, m *subagent.BackgroundManager, f subagent.Filter, v view) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// First Subscribe and then List: what happens in between comes as an event too.
	events, err := m.Subscribe(ctx, f, subagent.TopicStatus, subagent.TopicProgress)
	if err != nil {
		return err
	}
	t := &table{}
	t.list(m.List(f))
	v.begin(t.rows)
	heard := make(chan subagent.Event)
	go func() { // so that events and the clock can be waited for together
		defer close(heard)
		for e := range events {
			select {
			case heard <- e:
			case <-ctx.Done():
			}
		}
	}()
	clock := time.NewTicker(100 * time.Millisecond)
	defer clock.Stop()
	for t.live() {
		select {
		case e, more := <-heard:
			if e.Dropped > 0 { // we were too slow
				t.list(m.List(f))
			}
			if !more { // ctx has ended, or the manager was closed
				return cmp.Or(context.Cause(ctx), subagent.ErrClosed)
			}
			v.heard(e, t.hear(e))
		case <-clock.C:
			v.tick(t.rows)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	v.over(t.rows)
	return nil
}

// table is all that is watched, each task below its parent.
type table struct{ rows []*row }

func (t *table) live() bool {
	return slices.ContainsFunc(t.rows, func(r *row) bool { return !r.task.Status.Terminal() })
}

// list takes in tasks as they are now.
func (t *table) list(tasks []subagent.Task) {
	for _, task := range tasks {
		t.row(task).task = task
	}
}

// row finds or makes the row of a task.
func (t *table) row(task subagent.Task) *row {
	if i := slices.IndexFunc(t.rows, func(r *row) bool { return r.task.ID == task.ID }); i >= 0 {
		return t.rows[i]
	}
	at := len(t.rows)
	if i := slices.IndexFunc(t.rows, func(r *row) bool { return r.task.Session == task.Parent }); i >= 0 {
		depth := t.rows[i].task.Depth
		for at = i + 1; at < len(t.rows) && t.rows[at].task.Depth > depth; at++ {
		}
	}
	r := &row{task: task}
	t.rows = slices.Insert(t.rows, at, r)
	return r
}

// saidKept is how much is kept of what a task says.
const saidKept = 1000

// hear takes in an event.
func (t *table) hear(e subagent.Event) *row {
	r := t.row(e.Task)
	r.task = e.Task
	if e.Topic == subagent.TopicProgress && e.Progress.Kind == subagent.EventText {
		r.said += e.Progress.Text
		r.said = r.said[max(0, len(r.said)-saidKept):]
	}
	return r
}
