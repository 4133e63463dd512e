package mutants

// mutant is one way to break the core. old stands exactly once in its file.
type mutant struct {
	name     string
	file     string
	old, new string
}

var table = []mutant{
	// Leases.
	{"a lease is never given back", "attempt.go", "	m.releaseLocked(&t.ticket, &a.lease)\n", ""},
	{"the starts share is kept", "attempt.go", "	m.freeLocked(&a.task.ticket, &a.lease, shareStarts)\n", ""},
	{"limits are ignored", "concurrency.go", "s.limit != Off && s.held >= s.limit", "false && s.held >= s.limit"},
	{"a limit lets one more in", "concurrency.go", "s.limit != Off && s.held >= s.limit", "s.limit != Off && s.held > s.limit"},
	{"a lease is taken in part", "concurrency.go", "			if s.fullFor(t) {\n				return 0, s", "			if share == shareKey && s.fullFor(t) {\n				return 0, s"},
	{"limits are not forgotten", "shares.go", "if s.refs--; s.refs == 0 {", "if s.refs--; s.refs < 0 {"},
	{"the lease goes back before the child rests", "stop.go", "	session := a.session\n", "	session := a.session\n	m.releaseLocked(&a.task.ticket, &a.lease)\n"},

	// Queues and dispatch.
	{"room wakes nobody", "concurrency.go", "		m.freed = append(m.freed, s)\n", ""},
	{"a parked lane is not woken", "concurrency.go", "			m.freshenLocked(l.queue)\n", ""},
	{"a removal wakes nobody", "concurrency.go", "	m.unclaimLocked(t)\n	m.freshenLocked(q)\n", "	m.unclaimLocked(t)\n"},
	{"the youngest queue goes first", "queue.go", "return q.age < o.age }", "return q.age > o.age }"},
	{"the youngest lane goes first", "queue.go", "return l.head.before(o.head) }", "return o.head.before(l.head) }"},
	{"a head is passed for ever", "concurrency.go", "head.passes >= maxPasses", "head.passes >= 1<<14"},
	{"Acquire takes a start", "concurrency.go", "		if _, creates := t.taker.(*task); creates {", "		if _, creates := t.taker.(*task); creates || true {"},
	{"a cancelled task stays queued", "concurrency.go", "	m.unqueueLocked(&t.ticket)\n	m.dropSharesLocked(&t.ticket)\n}\n\n// unqueueLocked", "}\n\n// unqueueLocked"},
	{"a full key is not waited for", "concurrency.go", "		home = &own.waiting\n", "		return\n"},
	{"positions count from the block", "queue.go", "			n += int(p.live)\n", ""},
	{"a raised limit starts nobody", "stats.go", "		s.limit = m.cfg.Keys.limitOf(s.key)\n		m.roomLocked(s)\n", "		s.limit = m.cfg.Keys.limitOf(s.key)\n"},
	{"a claim keeps no place", "claim.go", "		kept = 1\n", "		kept = 0\n"},
	{"a claim is never given up", "concurrency.go", "	m.unclaimLocked(t)\n", ""},
	{"queues are not parted at run time", "stats.go", "			m.splitLocked(unlimited != Off)\n", ""},
	{"a queue wait has no end", "launch.go", "	if t.limits.QueueWait != Off {", "	if false {"},
	{"Acquire given up stays in line", "acquire.go", "	delete(m.waiters, w)\n	m.unqueueLocked(&w.ticket)\n	m.dropSharesLocked(&w.ticket)\n	return nil, cause", "	return nil, cause"},

	// The table and endings.
	{"endings are not final", "task.go", "	Completed:   {onResume: Pending},", "	Completed:   {onResume: Pending, onStop: byReason},"},
	{"stopping can complete", "attempt.go", "	case !a.current() || t.status == Stopping:\n		m.restLocked(a)\n", "	case !a.current():\n		m.restLocked(a)\n"},
	{"a blank answer completes", "attempt.go", `strings.TrimSpace(turn.Text) == "" && !turn.Empty`, `strings.TrimSpace(turn.Text) == "?"`},
	{"results are not cut", "said.go", "		s.text = cut(s.text, limit)\n", ""},
	{"waiters are not told", "task.go", "	close(t.ending.done)\n", ""},
	{"waiters share one record", "wait.go", "return e.ended.clone()", "return e.ended"},
	{"watchers are not told", "task.go", "	m.tellWatchesLocked(t)\n", ""},
	{"launches are not watched", "launch.go", "	m.countWatchesLocked(t)\n", ""},
	{"a partial result is lost", "stop.go", "			m.armLocked(&a.deadline, min(m.now().after(settleWait), a.giveUp))\n", "			m.endStoppedLocked(a, nil)\n"},

	// Children.
	{"a stop does not abort", "stop.go", "	m.goLocked(func() { m.abort(a, session) })\n", "	_ = session\n	a.aborting, a.aborted = false, true\n"},
	{"the context ends before the abort", "stop.go", "	session := a.session\n", "	session := a.session\n	a.cancel(nil)\n"},
	{"a late session is not aborted", "attempt.go", "		a.release = true\n		m.abortLocked(a)\n", "		a.release = true\n"},
	{"a late session is not released", "attempt.go", "		a.release = true\n", ""},
	{"a session of another is aborted", "attempt.go", "		a.session = \"\"\n		why = because", "		why = because"},
	{"the grace has no end", "stop.go", "	m.armLocked(&a.deadline, a.giveUp)\n	if a.session", "	if a.session"},
	{"the start has no end", "attempt.go", "		m.armLocked(&a.deadline, t.started.after(t.limits.Start))\n", ""},
	{"a started child is timed out", "attempt.go", "	m.disarmLocked(&a.deadline)\n	m.transition(a.task, onPrompted, nil)", "	m.transition(a.task, onPrompted, nil)"},
	{"nobody is marked unstopped", "stop.go", "	a.task.looseLocked().err = why\n	m.unstopped[a.task] = struct{}{}\n", ""},
	{"the mark stays", "stop.go", "	t.loose.err = nil\n	delete(m.unstopped, t)\n", ""},
	{"a failed abort is taken for rest", "stop.go", "		m.endStoppedLocked(a, a.abortErr)\n", "		m.endStoppedLocked(a, nil)\n"},
	{"a stopped attempt is prompted", "attempt.go", "	if a.ctx.Err() == nil {", "	if true {"},
	{"an aborted turn is not believed", "said.go", "		return PromptFailed, true\n", "		return PromptFailed, false\n"},
	{"the id of a late session can be taken", "attempt.go", "		m.bySession[a.session] = t // taken until it is given up\n", ""},
	{"a late session's id stays taken", "stop.go", "		delete(m.bySession, session)\n", ""},
	{"an abort that came too early is not repeated", "stop.go", "	case a.aborted && !a.again:\n", "	case false:\n"},
	{"a left child that failed stays listed", "stop.go", "	case a.left && !a.aborting:\n", "	case false:\n"},
	{"a left child is cut off", "attempt.go", "	if a.call != returned && !a.left {", "	if a.call != returned {"},

	// Trees.
	{"a completed task shields its children", "cancel.go", "				m.cascadeLocked(child) // it", "				// it"},
	{"an early abort is believed", "stop.go", "a.turnOver || a.aborted && !a.early", "a.turnOver || a.aborted"},
	{"descendants go on", "task.go", "		m.cascadeLocked(t)\n", ""},
	{"a stopped parent may launch", "limits.go", "if above.refusesChildren() {", "if false {"},
	{"places are not given back", "task.go", "	t.root.live--\n", ""},
	{"a reservation counts twice", "lineage.go", "	r.once.Do(func() {", "	func(f func()) { f() }(func() {"},
	{"live descendants are not limited", "limits.go", "live, live >= m.cfg.Spawn.LivePerRoot", "live, false"},
	{"depth is not limited", "limits.go", "o.Depth, o.Depth > m.cfg.Spawn.Depth", "o.Depth, false"},

	// Telling.
	{"live children are not counted down", "mailbox.go", "	t.owner.live--\n", ""},
	{"a notice is dropped when the parent is busy", "notify.go", "	default:\n		b.state = mailWaiting\n", "	case d == Busy:\n		m.emptyLocked(b)\n	default:\n		b.state = mailWaiting\n"},
	{"a notice is dropped on an error", "notify.go", "	case d == Unknown && b.failed >= m.cfg.Mailbox.Tries:\n		b.state = mailParked\n", "	case d == Unknown:\n		m.emptyLocked(b)\n"},
	{"an unknown delivery is taken for accepted", "notify.go", "	case d == Accepted:\n		m.told", "	case d == Accepted || d == Unknown:\n		m.told"},
	{"a resend is a new batch", "notify.go", "	if b.batch == nil {\n", "	if b.batch != nil {\n		b.ended = append(b.batched, b.ended...)\n	}\n	if true {\n"},
	{"two deliveries at once", "notify.go", "	case mailGathering:\n	default:\n		return\n	}\n", "	case mailGathering:\n	default:\n		b.state = mailGathering\n	}\n"},
	{"final is not decided with the batch", "notify.go", "Remaining: b.remaining(), Final: b.remaining() == 0,", "Remaining: b.remaining(), Final: len(b.ended) > 1,"},
	{"a silent last child leaves the batch open", "notify.go", "len(b.ended) > 0 || b.remaining() == 0 && b.open", "len(b.ended) > 0"},
	{"a drain takes what is in flight", "mailbox.go", "b == nil || b.state == mailSending || b.state == mailDrained {\n		m.mu.Unlock()", "b == nil || b.state == mailDrained {\n		m.mu.Unlock()"},
	{"Busy uses up the tries", "notify.go", "	if d == Unknown {\n		b.failed++", "	if true {\n		b.failed++"},
	{"a session that is being stopped is woken", "notify.go", "u.own == b && u.status == Stopping", "false"},
	{"what ended children left running is not counted", "mailbox.go", "		heir.inherited++\n", ""},
	{"what is stopped with an ancestor still counts", "task.go", "		m.doomLocked(t)\n", "		t.owner.doomed++\n"},
	{"what a task's end leaves to its heir is not counted", "task.go", "		t.inheritLocked()\n", ""},
	{"a gone child takes its notices along", "notify.go", "	case d == Gone && b.orphaned():\n", "	case false:\n"},
	{"nobody's notices are kept", "mailbox.go", "	if b.origin.Parent == \"\" || b.origin.gone {\n", "	if b.origin.gone {\n"},
	{"a nack loses", "mailbox.go", "		if delivered {\n			m.told", "		if true {\n			m.told"},
	{"parked notices are never taken up", "notify.go", "	case mailIdle, mailParked:\n		b.state, b.first", "	case mailIdle:\n		b.state, b.first"},
	{"what an ended child was owed stays with it", "mailbox.go", "	m.bequeathLocked(t, t.ended)\n}", "}"},
	{"notices go to ended children", "mailbox.go", "	b := t.owner.heirLocked()\n", "	b := t.owner\n"},
	{"an own cancel is told", "cancel.go", "t.silent || o.Silent || o.Cause == ByParent", "t.silent || o.Silent"},

	// Events.
	{"late events count", "event.go", "a == nil || a.call != prompting || t.status == Stopping || ", "a == nil || "},
	{"each report of a call counts", "event.go", "	if !known || c.ID == \"\" {", "	if true {"},
	{"a call that is over begins again", "event.go", "!c.Over && (open || !known)", "!c.Over"},
	{"steps add up", "event.go", "p.steps = max(p.steps, e.Step)", "p.steps += e.Step"},
	{"who waits goes on waiting", "event.go", "	case !asks && t.status == InputNeeded:\n", "	case false:\n"},
	{"a deleted session's task goes on", "event.go", "		m.stopLocked(t, because(SessionDeleted, nil), false)\n", ""},
	{"what is below a deleted session goes on", "event.go", "		m.stopBelowLocked(b)\n", ""},
	{"a deleted parent is told", "event.go", "			m.dropLocked(b)\n", ""},
	{"a deleted parent may launch", "event.go", "		b.origin.gone = true\n", ""},
	{"an idle parent has to wait", "event.go", "		m.sendLocked(b)\n", ""},
	{"progress ends with the turn", "said.go", "		s.heard = t.said.heard\n", ""},

	// Hosts that do not wait.
	{"any answer counts", "blocking_turn.go", "	whole := out.Evidence && !out.Unfinished && out.OpenTodos == 0\n", "	whole := true\n"},
	{"old output counts", "blocking_turn.go", "	whole := out.Evidence && ", "	whole := "},
	{"an incomplete answer counts", "blocking_turn.go", "out.Evidence && !out.Unfinished && out", "out.Evidence && out"},
	{"open todos do not hold", "blocking_turn.go", " && out.OpenTodos == 0\n", "\n"},
	{"an early idling is dropped", "blocking_turn.go", "			lookAt = time.Now().Add(b.cfg.Settle << min(looks-1, 4))\n", ""},
	{"a sign of life during the look is overlooked", "blocking_turn.go", "now.signs != s.signs || now", "now"},
	{"an outage is an answer", "blocking_turn.go", " || err != nil && !s.aborted && s.failed == nil {", " {"},
	{"an outage means that nobody is there", "blocking_turn.go", "err == nil && !there {", "err != nil || !there {"},
	{"a session that is not named is gone", "blocking_turn.go", "s.misses >= b.cfg.Misses:\n", "s.misses >= 1:\n"},
	{"a prompt that was lost is waited for", "blocking_turn.go", "begun = b.begun(ctx, t, mark); !begun {", "begun = true; !begun {"},
	{"an error of an answer that is not whole ends the turn", "blocking_turn.go", "	case out.Err != nil && !out.Unfinished:
", "	case out.Err != nil:
"},
	{"a turn that is steered may end", "blocking_turn.go", "	case s.steers > s.steered && !s.aborted, ", "	case "},
	{"an answer from before the message ends the turn", "blocking_turn.go", "now.signs != s.signs || now.steers != s.steers || ", "now.signs != s.signs || "},
	{"a refused prompt is waited for", "blocking.go", "	if isFinal(sendErr) {", "	if false {"},
	{"an uncertain prompt is given up", "blocking.go", "	if isFinal(sendErr) {", "	if sendErr != nil {"},
	{"an abort before the prompt is believed", "blocking.go", "	if b.state(t).asked { // the", "	if false { // the"},
	{"an abort does not wait for rest", "blocking.go", "		if misses >= b.cfg.Misses {\n			break\n", "		if true {\n			break\n"},
	{"an error that passes ends the turn", "blocking.go", "e.Kind == EventFailed && isFinal(e.Err) //", "e.Kind == EventFailed //"},
	{"the poller never ends", "blocking_poll.go", "		if turns == nil {\n", "		if false {\n"},
	{"a busy poll is no sign of life", "blocking_poll.go", "			t.alive()\n			continue\n", "			continue\n"},
	{"a gap is not followed up", "blocking_poll.go", "	case b.resync <- struct{}{}:\n", "	case make(chan struct{}) <- struct{}{}:\n"},
	{"single look-ups are not bounded", "blocking_turn.go", "	case b.slots <- struct{}{}:\n		defer func() { <-b.slots }()\n", "	default:\n"},

	// The end.
	{"pending tasks start during shutdown", "shutdown.go", "		if t.status == Pending {\n", "		if false {\n"},
	{"a launch that Close has overtaken goes on", "limits.go", "	if m.phase != admitting {\n		return ErrClosed\n	}\n	if o.gone", "	if o.gone"},
	{"Shutdown leaves what was left running", "shutdown.go", "		if a.left && a.call == prompting {", "		if false {"},
	{"Close leaves children", "shutdown.go", "		m.stopAll()\n", ""},
	{"who waits in Acquire is forgotten", "shutdown.go", "	m.dismissLocked()\n", ""},
	{"nothing is flushed", "shutdown.go", "			m.sendLocked(b)\n", ""},
	{"sessions are not given up", "shutdown.go", "	m.goLocked(func() { m.releaseAll(sessions) })\n", "	_ = sessions\n"},
}
