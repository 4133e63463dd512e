package subagenttest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

func batch(id string, tasks ...subagent.TaskID) subagent.Notification {
	n := subagent.Notification{ID: id, Parent: "p", Text: "text", Final: true}
	for _, t := range tasks {
		n.Notices = append(n.Notices, subagent.Notice{Task: t, Run: 1, Reason: &subagent.Reason{Code: subagent.Stalled}})
	}
	return n
}

// What a reply says is what the caller hears, and decides whether the batch arrived.
func TestParentReplies(t *testing.T) {
	type reply struct {
		Reply
		says     subagent.Delivery
		err      error
		panicked any
		arrived  bool
		after    time.Duration
	}
	const second = time.Second
	table[reply]{
		"zero":            {Reply{}, subagent.Accepted, nil, nil, true, 0},
		"accepted":        {Reply{Delivery: subagent.Accepted}, subagent.Accepted, nil, nil, true, 0},
		"busy":            {Reply{Delivery: subagent.Busy}, subagent.Busy, nil, nil, false, 0},
		"gone":            {Reply{Delivery: subagent.Gone}, subagent.Gone, nil, nil, false, 0},
		"busy, and lost":  {Reply{Delivery: subagent.Busy, Lost: true}, subagent.Busy, nil, nil, true, 0},
		"refused":         {Reply{Refuse: true}, subagent.Unknown, nil, nil, false, 0},
		"refused, lost":   {Reply{Refuse: true, Lost: true}, subagent.Unknown, nil, nil, true, 0},
		"error":           {Reply{Err: errScript}, subagent.Unknown, errScript, nil, false, 0},
		"error, accepted": {Reply{Err: errScript, Delivery: subagent.Accepted}, subagent.Accepted, errScript, nil, false, 0},
		"error, lost":     {Reply{Err: errScript, Lost: true}, subagent.Unknown, errScript, nil, true, 0},
		"panic":           {Reply{Panic: errScript}, subagent.Unknown, nil, errScript, false, 0},
		"panic, lost":     {Reply{Panic: errScript, Lost: true}, subagent.Unknown, nil, errScript, true, 0},
		"slow":            {Reply{Delay: second / 2}, subagent.Accepted, nil, nil, true, second / 2},
		"too slow":        {Reply{Delay: second * 2}, subagent.Unknown, context.DeadlineExceeded, nil, false, second},
		"too slow, lost":  {Reply{Delay: second * 2, Lost: true}, subagent.Unknown, context.DeadlineExceeded, nil, true, second},
		"too slow, deaf":  {Reply{Delay: second * 2, Deaf: true}, subagent.Accepted, nil, nil, true, second * 2},
		"hangs":           {Reply{Hang: true, Delay: 1}, subagent.Unknown, context.DeadlineExceeded, nil, false, second},
		"hangs, deaf":     {Reply{Hang: true, Deaf: true}, subagent.Accepted, nil, nil, true, time.Hour}, // Let
	}.SyncTest(t, func(t *testing.T, c reply) {
		p := NewParent(t)
		p.Script = func(subagent.Notification, int) Reply { return c.Reply }
		time.AfterFunc(time.Hour, p.Let)
		ctx, cancel := context.WithTimeout(bg, second)
		defer cancel()
		began := time.Now()
		var d subagent.Delivery
		var err error
		var panicked any
		func() {
			defer func() { panicked = recover() }()
			d, err = p.Notify(ctx, batch("1", "bg_1"))
		}()
		require.Equal(t, c.says, d)
		require.Equal(t, c.err, err)
		require.Equal(t, c.panicked, panicked)
		require.Equal(t, c.after, time.Since(began))
		require.Equal(t, c.arrived, len(p.Seen("p")) == 1)
		require.Equal(t, c.arrived, len(p.Batches("p")) == 1)
	})
}

// A batch that arrived although the answer was lost counts once.
func TestParentDedupes(t *testing.T) {
	p := NewParent(t)
	var tries []int
	p.Script = func(n subagent.Notification, try int) Reply {
		tries = append(tries, try)
		if n.ID == "1" && try < 2 {
			return Reply{Err: errScript, Lost: try > 0}
		}
		return Reply{}
	}
	for range 3 {
		_, _ = p.Notify(t.Context(), batch("1", "bg_1", "bg_2"))
	}
	more := batch("2", "bg_3")
	more.Final, more.Remaining = false, 1
	d, err := p.Notify(t.Context(), more)
	require.NoError(t, err)
	require.Equal(t, subagent.Accepted, d)
	other := batch("3", "bg_4")
	other.Parent = "q"
	p.Take(other)

	require.Equal(t, []int{0, 1, 2, 0}, tries)
	require.Equal(t, 4, p.Wire())
	require.Equal(t, 2, p.Doubled())
	require.Len(t, p.Seen("p"), 3)
	require.Equal(t, []subagent.Notification{batch("1", "bg_1", "bg_2"), more}, p.Batches("p"))
	require.Equal(t, 1, p.Finals("p"))
	require.Equal(t, []subagent.Notification{other}, p.Batches("q"))
	require.Empty(t, p.Seen("nobody"))
	at, ok := p.At("bg_4", 1)
	require.True(t, ok)
	require.Equal(t, subagent.SessionID("q"), at)
	_, ok = p.At("bg_4", 2)
	require.False(t, ok)
}

// What an ended parent had without its answer arriving goes to the next one above,
// which may accept it: that is no violation, and counts as doubled.
func TestParentSeesANoticeMove(t *testing.T) {
	p := NewParent(t)
	p.Script = func(n subagent.Notification, _ int) Reply { return Reply{Refuse: n.ID == "1", Lost: true} }
	_, _ = p.Notify(t.Context(), batch("1", "bg_1"))
	above := batch("2", "bg_1")
	above.Parent = "q"
	_, err := p.Notify(t.Context(), above)
	require.NoError(t, err)
	require.Equal(t, 1, p.Doubled())
	require.Len(t, p.Seen("p"), 1)
	require.Len(t, p.Seen("q"), 1)
	at, _ := p.At("bg_1", 1)
	require.Equal(t, subagent.SessionID("p"), at)
}

// Broken promises are noticed, and fail the test.
func TestParentReportsViolations(t *testing.T) {
	send := func(p *Parent, n subagent.Notification, change func(*subagent.Notification)) {
		change(&n)
		_, _ = p.Notify(bg, n)
	}
	changed := func(change func(*subagent.Notification)) func(*Parent) {
		return func(p *Parent) {
			for i := range 2 {
				send(p, batch("refused", "bg_1", "bg_2"), func(n *subagent.Notification) {
					n.Final, n.Remaining = false, 1
					if i == 1 {
						change(n)
					}
				})
			}
		}
	}
	const changes = "notification refused changed between two sends"
	type breach struct {
		says string
		does func(*Parent)
	}
	table[breach]{
		"overlap": {`two calls for parent "p" at the same time`, func(p *Parent) {
			go send(p, batch("slow", "bg_1"), func(*subagent.Notification) {})
			synctest.Wait()
			send(p, batch("2", "bg_2"), func(*subagent.Notification) {})
		}},
		"another text":      {changes, changed(func(n *subagent.Notification) { n.Text = "other" })},
		"other notices":     {changes, changed(func(n *subagent.Notification) { n.Notices = n.Notices[:1] })},
		"another reason":    {changes, changed(func(n *subagent.Notification) { n.Notices[1].Reason.Code = subagent.Deadline })},
		"final only later":  {changes, changed(func(n *subagent.Notification) { n.Final, n.Remaining = true, 0 })},
		"wake only later":   {changes, changed(func(n *subagent.Notification) { n.Wake = true })},
		"another parent":    {changes, changed(func(n *subagent.Notification) { n.Parent = "q" })},
		"no id":             {`a notification for "p" has no id`, func(p *Parent) { send(p, batch(""), func(*subagent.Notification) {}) }},
		"no parent":         {"notification 1 has no parent", func(p *Parent) { send(p, batch("1"), func(n *subagent.Notification) { n.Parent = "" }) }},
		"no text":           {"notification 1 has no text", func(p *Parent) { send(p, batch("1"), func(n *subagent.Notification) { n.Text = "" }) }},
		"final too early":   {"notification 1 is final: true, with 2 remaining", func(p *Parent) { send(p, batch("1"), func(n *subagent.Notification) { n.Remaining = 2 }) }},
		"final never":       {"notification 1 is final: false, with 0 remaining", func(p *Parent) { send(p, batch("1"), func(n *subagent.Notification) { n.Final = false }) }},
		"twice in a batch":  {"notification refused tells of task bg_1 run 1 twice", func(p *Parent) { send(p, batch("refused", "bg_1", "bg_1"), func(*subagent.Notification) {}) }},
		"twice, in another": {"task bg_1 run 1 was accepted with 1 and comes again with 2", func(p *Parent) { twice(p, "1", "2") }},
		"twice, in itself":  {"task bg_1 run 1 was accepted with 1 and comes again with 1", func(p *Parent) { twice(p, "1", "1") }},
		"twice, drained": {"task bg_1 run 1 was accepted with 1 and comes again with 2", func(p *Parent) {
			twice(p, "1")
			p.Take(batch("2", "bg_1"))
		}},
	}.SyncTest(t, func(t *testing.T, c breach) {
		r := &recorder{TB: t}
		p := NewParent(r)
		p.Script = func(n subagent.Notification, _ int) Reply {
			return map[string]Reply{"slow": {Delay: time.Second}, "refused": {Err: errScript}}[n.ID]
		}
		c.does(p)
		time.Sleep(time.Minute)
		require.Equal(t, []string{c.says}, p.Violations())
		require.Equal(t, []string{"subagenttest: " + c.says}, r.end())
	})
}

// twice sends one run with each of the batches.
func twice(p *Parent, ids ...string) {
	for _, id := range ids {
		_, _ = p.Notify(bg, batch(id, "bg_1"))
	}
}

// A script that changes what it is given changes nothing.
func TestParentKeepsItsOwn(t *testing.T) {
	p := NewParent(t)
	p.Script = func(n subagent.Notification, try int) Reply {
		n.Notices[0].Preview = "changed"
		return Reply{Refuse: try == 0}
	}
	for range 2 {
		_, _ = p.Notify(t.Context(), batch("1", "bg_1"))
	}
	require.Len(t, p.Seen("p"), 1)
}

// The end of the test lets calls go that hang.
func TestParentLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		p := NewParent(r)
		p.Script = func(subagent.Notification, int) Reply { return Reply{Hang: true, Deaf: true} }
		go func() { _, _ = p.Notify(bg, batch("1", "bg_1")) }()
		synctest.Wait()
		require.Empty(t, p.Batches("p"))
		require.Empty(t, r.end())
		synctest.Wait()
		require.Len(t, p.Batches("p"), 1)
	})
}

// What a child accepted in the instant of its end comes to the parent above it too, once.
func TestParentsAbove(t *testing.T) {
	p := NewParent(t)
	for _, parent := range []subagent.SessionID{"child", "root"} {
		d, err := p.Notify(t.Context(), subagent.Notification{
			ID: "nt_" + string(parent), Parent: parent, Text: "x", Remaining: 1, Notices: []subagent.Notice{{Task: "bg_1", Run: 1}},
		})
		require.NoError(t, err)
		require.Equal(t, subagent.Accepted, d)
	}
	require.Empty(t, p.Violations())
}
