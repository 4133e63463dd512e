package subagent_test

import (
	"reflect"
	"slices"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// mail is what was seen of the telling of one parent.
type mail struct {
	batches map[string]*post
	cur     *post     // made, and not taken yet
	calls   int       // Notify calls out
	drains  int       // Drains not acknowledged
	gone    bool      // it said so once: what it was owed then is dropped
	free    time.Time // when it last had nothing to take
	back    time.Time // when a call or a Drain last came back
	last    *post
	finals  []time.Time // when those that were final and taken were made
	tries   int         // since something was taken
	puts    bool        // a turn may have been put off, with a deposit
}

// post is one batch.
type post struct {
	n       subagent.Notification
	made    time.Time
	drained bool // first seen by a Drain
	tries   int
	unsure  bool      // it may have arrived
	thawed  bool      // it certainly had not, and was taken apart
	puts    bool      // a turn may have been put off when it was made
	wakes   int       // its turn was asked for so often, after it was deposited
	back    time.Time // when it last came back, not taken
	sure    bool      // and with an answer that is tried for ever
	since   time.Time // from when on its parent was free to be told
}

func (s *storm) mail(id subagent.SessionID) *mail {
	b := s.mails[id]
	if b == nil {
		b = &mail{batches: map[string]*post{}, free: s.born}
		s.mails[id] = b
	}
	return b
}

// posted finds a batch or opens its record, and sees that it is as it was.
func (s *storm) posted(n subagent.Notification, drained bool) *post {
	b := s.mail(n.Parent)
	if p := b.batches[n.ID]; p != nil {
		as := n
		as.Handover, as.Wake = p.n.Handover, p.n.Wake
		if !reflect.DeepEqual(p.n, as) {
			s.wrong("batch %s for %q changed from %v to %v", n.ID, n.Parent, p.n, n)
		}
		if p.thawed && b.cur == nil {
			b.cur = p // it was kept after all: the shutdown sends nothing twice
		}
		if b.cur != p {
			s.wrong("batch %s for %q comes again after it was taken", n.ID, n.Parent)
		}
		return p
	}
	if l := s.bySess[n.Parent]; b.cur != nil && l != nil && (s.askingAt(n.Parent).out > 0 || !l.asked.Before(b.cur.made) && l.number > 1) {
		b.cur = nil // it went to the next above when the last run ended
	}
	if b.cur != nil {
		s.wrong("%q gets another batch before the last one, %s, was taken", n.Parent, b.cur.n.ID)
	}
	p := &post{n: n, made: time.Now(), drained: drained, since: b.free, puts: b.puts}
	for _, notice := range n.Notices {
		if r := s.runOf(notice); r != nil && r.read {
			s.wrong("%q is told of run %d of task %s, which it has read before", n.Parent, r.number, r.of.id)
		}
	}
	b.batches[n.ID], b.cur, b.last = p, p, p
	s.posts = append(s.posts, p)
	return p
}

// sent takes in that a Notify has begun.
func (s *storm) sent(n subagent.Notification) (c *call, try int) {
	c = s.enter(opNotify, nil, n.Parent)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mail(n.Parent)
	b.calls++
	if b.calls+b.drains > 1 {
		s.wrong("%q is told by %d calls at once, and %d drains", n.Parent, b.calls, b.drains)
	}
	if !s.closed.IsZero() && s.closed.Before(time.Now()) { // in that instant it is listed
		s.wrong("%q is told after the manager was closed", n.Parent)
	}
	if l := s.bySess[n.Parent]; l != nil && s.askingAt(n.Parent).out == 0 && l.ended != nil && l.ended.Ended.Before(time.Now()) {
		s.wrong("%q is told though its task %s ended before", n.Parent, l.id)
	}
	if n.Handover != subagent.HandOffer && (s.bySess[n.Parent] != nil || s.cfg.Mailbox.BusyMax == subagent.Off) {
		s.wrong("batch %s is handed to %q as %v", n.ID, n.Parent, n.Handover)
	}
	if n.Handover == subagent.HandWake {
		p := b.batches[n.ID]
		if p == nil {
			s.wrong("%q is to begin the turn of %s, which was never there", n.Parent, n.ID)
			p = &post{}
		}
		return c, 100 + p.wakes
	}
	return c, s.posted(n, false).tries
}

// cameBack takes in how a Notify ended.
func (s *storm) cameBack(c *call, n subagent.Notification, d subagent.Delivery, answered bool) {
	s.leave(c, outcome{})
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mail(n.Parent)
	b.calls--
	b.back = time.Now()
	p := b.batches[n.ID]
	if n.Handover == subagent.HandWake && (!answered || d != subagent.Gone) {
		p.wakes++
		if b.free.Before(b.back) {
			b.free = b.back
		}
		if b.puts = !answered || d != subagent.Accepted; !b.puts && p.wakes > 99 {
			s.wrong("%q is asked for ever to begin the turn of %s", n.Parent, n.ID)
		}
		return
	}
	if answered && d == subagent.Accepted {
		b.puts = n.Handover == subagent.HandDeposit && s.wants(n) || b.puts && !n.Wake
	}
	switch {
	case answered && d == subagent.Accepted && s.bySess[n.Parent] != nil:
		b.cur, b.free = nil, time.Now()
		s.claims = append(s.claims, claim{p, s.bySess[n.Parent].run, time.Now()})
	case answered && d == subagent.Accepted:
		s.taken(b, p)
	case answered && d == subagent.Gone:
		b.gone, b.cur, b.free, s.gone = true, nil, time.Now(), true
	default:
		p.tries, b.tries = p.tries+1, b.tries+1
		p.back, p.sure = time.Now(), answered && d == subagent.Busy
		p.unsure = p.unsure || !p.sure
		if !p.unsure { // it is made anew
			p.thawed, b.cur = true, nil
			b.free = p.back.Add(s.pause(b.tries))
		}
	}
}

// wants reports whether a batch asks for a turn, or may, which its deposit does not say.
func (s *storm) wants(n subagent.Notification) bool {
	failed := func(n subagent.Notice) bool { return n.Status != subagent.Completed }
	return s.cfg.Mailbox.WakeEach || n.Final || slices.ContainsFunc(n.Notices, failed)
}

// taken takes in that a parent has a batch.
func (s *storm) taken(b *mail, p *post) {
	b.cur, b.free, b.tries = nil, time.Now(), 0
	if p.n.Final {
		b.finals = append(b.finals, p.made)
	}
	for _, n := range p.n.Notices {
		k := toldRun{n.Task, n.Run}
		if s.told[k] {
			s.wrong("run %d of task %s was told twice, the second time to %q", n.Run, n.Task, p.n.Parent)
		}
		s.told[k] = true
	}
}

// claim is a batch that the session of a child took.
type claim struct {
	p  *post
	by *run // that the child was in
	at time.Time
}

// settleClaims counts what children took while they worked. What one took after its end
// is told to the next above; in the instant of its end, or of the beginning of its next
// run, or if it was stopped some time later, it may be.
func (s *storm) settleClaims() {
	for _, c := range s.claims {
		end, next := c.by.ended, c.by.later()
		again := next != nil && !next.asked.After(c.at)
		switch {
		case !again && (end == nil && c.by.seen.Status != subagent.Stopping || end != nil && end.Ended.After(c.at) && end.Status == subagent.Completed):
			b := s.mail(c.p.n.Parent)
			cur, free := b.cur, b.free
			s.taken(b, c.p)
			b.cur, b.free = cur, free
		case again, end == nil, end.Ended.Equal(c.at), end.Ended.After(c.at):
			for _, n := range c.p.n.Notices {
				s.perhaps[toldRun{n.Task, n.Run}] = true
			}
		}
	}
	s.claims = nil
}

// drain takes what a parent is owed, and keeps it for a while.
func (s *storm) drain(id subagent.SessionID, keep time.Duration, delivered bool) (got bool) {
	n, ack, ok := s.m.Drain(id)
	if !ok {
		return false
	}
	s.mu.Lock()
	b := s.mail(id)
	if b.drains++; b.calls+b.drains > 1 {
		s.wrong("a Drain takes what %q is just told: %d calls are out, and %d drains", id, b.calls, b.drains)
	}
	p := s.posted(n, true)
	s.mu.Unlock()

	time.Sleep(keep)

	s.mu.Lock()
	b.drains--
	b.back = time.Now()
	p.back, p.sure = time.Now(), true
	switch by := s.bySess[id]; {
	case delivered && by != nil:
		b.cur, b.free = nil, time.Now()
		s.claims = append(s.claims, claim{p, by.run, time.Now()})
	case delivered:
		s.taken(b, p)
	}
	s.mu.Unlock()
	if delivered {
		s.parent.Take(n)
	}
	ack(delivered)
	ack(!delivered) // counts for nothing
	return true
}

// sample sees that a parent which is owed something never seems to be owed less,
// whatever happens meanwhile. Only roots: their children are told of in any case. What
// may be moving elsewhere just now is left out.
func (s *storm) sample(parent subagent.SessionID) {
	s.mu.Lock()
	var expect []*run
	ended, asks := map[*run]bool{}, map[*run]int{}
	for _, r := range s.allRuns() {
		if r.parent() == parent && s.above(r.of) == nil && r.queued != 0 && r.owing() && !s.told[r.notice()] && s.askingAt(r.of.session).out == 0 {
			expect = append(expect, r)
			ended[r], asks[r] = r.ended != nil, s.askingAt(r.of.session).n
		}
	}
	s.mu.Unlock()
	o := s.m.Pending(parent)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySess[parent] != nil || s.mail(parent).gone {
		return
	}
	listed := map[toldRun]bool{}
	for _, n := range o.Notices {
		listed[toldRun{n.Task, n.Run}] = true
	}
	missing := 0
	for _, r := range expect {
		if listed[r.notice()] || s.told[r.notice()] || !r.owing() || asks[r] != s.askingAt(r.of.session).n {
			continue
		}
		if missing++; ended[r] {
			s.wrong("%q is owed run %d of task %s, and Pending does not know", parent, r.number, r.of.id)
		}
	}
	if missing > o.Live {
		s.wrong("%q waits for %d tasks, and Pending knows of %d and %v", parent, missing, o.Live, o.Notices)
	}
}

// owing reports whether a run's parent will certainly be told of it. It may be
// told of one more, if a cancel that is silent did not win, or if a read came too late.
func (r *run) owing() bool {
	return !r.in.NoNotice && !r.mayHush && !r.of.mayRead && (r.ended == nil || codeOf(*r.ended) != subagent.ParentGone)
}

// owed reports whether somebody is to be told of a run that has ended.
func (r *run) owed() bool {
	return r.ended != nil && !r.in.NoNotice && !r.hushed && codeOf(*r.ended) != subagent.ParentGone
}

// checkMail looks at a rest at what was made since the last one, and at what waits.
func (s *storm) checkMail() {
	for _, p := range s.posts {
		s.judge(p)
	}
	s.posts = s.posts[:0]
	s.settleClaims()
	owed, told, waiting, perhaps := 0, len(s.told), 0, 0
	parents := map[subagent.SessionID]bool{}
	for _, r := range s.allRuns() {
		if r.owed() {
			owed++
			if r.of.hushing > 0 { // by a cancel that has not said yet whether it has won
				perhaps++
			}
		}
		for _, st := range r.stays {
			parents[st.parent] = true
		}
	}
	for id := range parents {
		o := s.m.Pending(id)
		waiting += len(o.Notices)
		s.checkBox(id, o)
	}
	for id := range s.perhaps {
		if !s.told[id] {
			perhaps++
		}
	}
	dropped, read := s.m.Stats().Notices.Dropped, s.m.Stats().Notices.Read
	if missing := owed - told - waiting - dropped - read; s.hushing == 0 && (missing < 0 || missing > perhaps) {
		s.wrong("%d endings are owed; %d were told, %d wait, %d were dropped and %d read", owed, told, waiting, dropped, read)
	}
}

// checkBox: a mailbox is busy only with a call that is out; and what it keeps goes out
// in time, unless it was given up.
func (s *storm) checkBox(id subagent.SessionID, o subagent.Owed) {
	b, now, live := s.mail(id), time.Now(), 0
	for _, l := range s.byID {
		if l.ended == nil && !l.doomed() && s.heir(l.run) == id {
			live++
		}
		if m := s.mails[l.session]; (l.ended != nil || l.doomed()) && m != nil && m.calls+m.drains > 0 && l.session != "" && s.heir(l.run) == id {
			live += len(s.m.Pending(l.session).Notices) // what is out to it comes here, if nobody took it
		}
	}
	if o.Live != live {
		s.wrong("%q waits for %d tasks, and Pending says %d", id, live, o.Live)
	}
	if out := b.calls+b.drains > 0; o.InFlight != out {
		s.wrong("what %q is owed is in flight: %v; calls are out: %v", id, o.InFlight, out)
	}
	l := s.bySess[id]
	gone := l != nil && l.ended != nil
	for _, n := range o.Notices {
		if b.calls == 0 && !b.gone && b.cur == nil && b.back.Before(s.closing) && s.cfg.Mailbox.Push != subagent.PushOff && s.arrived(s.runOf(n), id, b.back).Add(100*time.Millisecond).Before(s.closed) { // then it is cut off
			s.wrong("%q is owed task %s, and the shutdown did not try to tell it", id, n.Task)
		}
	}
	if b.calls+b.drains > 0 || !s.closing.IsZero() {
		return
	}
	if gone && len(o.Notices) > 0 {
		s.wrong("%q has ended and is still owed %v", id, o.Notices)
	}
	if gone {
		b.cur = nil // what it was not told its parent will be
		return
	}
	if l != nil && l.seen.Status == subagent.Stopping {
		return // it is not told while it is being stopped
	}
	if p := b.cur; p != nil && s.cfg.Mailbox.Push != subagent.PushOff {
		parked := !p.sure && p.tries >= s.cfg.Mailbox.Tries
		for _, n := range o.Notices { // the next one takes up what is parked
			at := s.arrived(s.runOf(n), id, s.born)
			parked = parked && (!at.After(p.back) || !now.After(at.Add(s.cfg.Mailbox.GatherMax)))
		}
		if due := p.back.Add(s.pause(b.tries)); now.After(due) && !parked {
			s.wrong("%q waits for a resend of %s since %v, after %d tries", id, p.n.ID, p.back.Sub(s.born), p.tries)
		}
		return
	}
	for _, n := range o.Notices {
		if s.cfg.Mailbox.Push != subagent.PushAll {
			break
		}
		if due := s.arrived(s.runOf(n), id, b.free).Add(s.cfg.Mailbox.GatherMax); now.After(due) {
			s.wrong("%q was to be told of task %s at %v", id, n.Task, due.Sub(s.born))
		}
	}
}

// doomed reports whether a run is, or was, stopped with an ancestor, whose notice
// tells of both.
func (r *run) doomed() bool { return codeOf(r.seen) == subagent.ParentGone }

// pause is the longest that a resend waits: its backoff, or the gathering of what a
// Drain gave back.
func (s *storm) pause(tries int) time.Duration {
	d := s.cfg.Mailbox.Backoff
	for range tries - 1 {
		d = min(2*d, s.cfg.Mailbox.BackoffMax)
	}
	return max(d, s.cfg.Mailbox.GatherMax)
}

// onItsWay reports whether a run's notice may have been out to a session whose task had
// ended when a batch for the next above was made.
func (s *storm) onItsWay(r *run, p *post) (yes bool) {
	if r.ended == nil || r.ended.Ended.After(p.made) || !s.heirs(r, p.made)[p.n.Parent] {
		return false
	}
	s.between(r, p.n.Parent, func(l *life) {
		b := s.mail(l.session)
		yes = yes || b.calls+b.drains > 0 || !b.back.Before(p.made)
	})
	return yes
}

// judge looks at a batch once it is known what had ended when it was made.
func (s *storm) judge(p *post) {
	id := p.n.Parent
	least, most := 0, 0
	for _, r := range s.allRuns() {
		if next := r.later(); next != nil && !next.began.IsZero() && next.began.Before(p.made) && !s.onItsWay(r, p) {
			continue
		}
		heirs := s.heirs(r, p.made)
		if heirs[id] && len(heirs) == 1 && !r.doomed() && r.queued != 0 && r.began.Before(p.made) && (r.ended == nil || r.ended.Ended.After(p.made)) {
			least++
		}
		if heirs[id] && !r.asked.After(p.made) && (r.ended == nil || !r.ended.Ended.Before(p.made)) || s.onItsWay(r, p) {
			most++
		}
	}
	if p.n.Remaining < least || p.n.Remaining > most {
		s.wrong("batch %s tells %q of %d that remain; there were %d to %d", p.n.ID, id, p.n.Remaining, least, most)
	}
	failed, hushed := false, false
	for _, n := range p.n.Notices {
		r := s.runOf(n)
		if r == nil || !r.owed() && s.hushing == 0 || r.ended == nil || !s.tells(n, *r.ended) {
			s.wrong("%q is told of %+v, which is not so, or not owed", id, n)
			continue
		}
		failed = failed || n.Status != subagent.Completed
		hushed = hushed || s.interrupts && codeOf(*r.ended) == subagent.ByUser
		for _, f := range s.mail(id).finals {
			if f.Before(p.made) && !r.began.IsZero() && r.began.Before(f) && !s.stirred(r, id, f) {
				s.wrong("%q is told of run %d of task %s, begun at %v, ended %v, launched by %q, and was told at %v that nothing was left", id, n.Run, n.Task, r.began.Sub(s.born), r.ended.Ended.Sub(s.born), r.in.Parent, f.Sub(s.born))
			}
		}
		due := s.arrived(r, id, p.since).Add(s.cfg.Mailbox.GatherMax)
		if !p.drained && s.closing.IsZero() && p.made.After(due) && s.cfg.Mailbox.Push == subagent.PushAll {
			s.wrong("%q was to be told of task %s at %v, and was at %v", id, n.Task, due.Sub(s.born), p.made.Sub(s.born))
		}
	}
	child := s.bySess[id] != nil
	wake := !child && (s.cfg.Mailbox.WakeEach || p.n.Remaining == 0 || failed || p.puts && p.n.Wake) // it may have been given up to ask for what was put off
	if p.n.Handover == subagent.HandDeposit || hushed || p.puts && s.interrupts {
		wake = p.n.Wake
	}
	if p.n.Wake != wake || p.n.Final != (p.n.Remaining == 0) {
		s.wrong("batch %s for %q wakes: %v, and is final: %v, with %d that remain", p.n.ID, id, p.n.Wake, p.n.Final, p.n.Remaining)
	}
	if s.cfg.Mailbox.Push == subagent.PushFinal && !p.drained && !p.n.Final && !failed && s.closing.IsZero() {
		s.wrong("batch %s for %q is neither final nor of a failure", p.n.ID, id)
	}
	if len(p.n.Notices) == 0 && !p.n.Final {
		s.wrong("%q is told nothing with batch %s", id, p.n.ID)
	}
}

// tells reports whether a notice is of a run as it ended, whatever its task did since.
func (s *storm) tells(n subagent.Notice, t subagent.Task) bool {
	size, own := 0, t.Result.Run == t.Run
	if own {
		size = t.Result.Size
	}
	code := subagent.ReasonCode("")
	if n.Reason != nil {
		code = n.Reason.Code
	}
	waited, ran := t.Started.Sub(t.Queued), t.Ended.Sub(t.Started)
	if t.Started.IsZero() {
		waited, ran = t.Ended.Sub(t.Queued), 0
	}
	return n.Status == t.Status && n.Run == t.Run && code == codeOf(t) && n.Session == t.Session && n.Origin == t.Origin &&
		n.Size == size && n.Partial == (own && t.Result.Partial) && (n.Preview == "") == (!own || t.Result.Text == "") &&
		n.Waited == waited && n.Ran == ran
}
