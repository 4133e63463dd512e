package subagent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// OutputQuery says what Output is to tell of a task. The zero value is the record as it
// is now. What concerns messages counts only with Transcript.
type OutputQuery struct {
	// Wait is how long to wait at most for a live run to end. More than 10 min is cut to
	// that. Defaults to 0: no wait.
	Wait time.Duration
	// Transcript also reads the messages of the task's session, if the client is a
	// TranscriptReader.
	Transcript bool
	// Since leaves out the message with this id and those before it: give it
	// Output.Cursor of the last read. Defaults to "": from the first on.
	Since string
	// Limit is how many messages are returned at most, the newest. More than 200 is cut
	// to that. Defaults to 100.
	Limit int
	// Thoughts and Tools keep these of each message; without them they are left out.
	Thoughts, Tools bool
	// Timeout bounds the reading of messages. Defaults to 5 s.
	Timeout time.Duration
}

const (
	maxOutputWait     = 10 * time.Minute
	defaultMessages   = 100
	maxMessages       = 200
	transcriptTimeout = 5 * time.Second
	// detailRunes is how much is kept of the thoughts of a message, and of a tool's input.
	detailRunes = 2000
)

// prepare checks a query, fills in the defaults and cuts what is too much.
func (q *OutputQuery) prepare() error {
	for _, r := range []struct {
		field, value string
		broken       bool
		rule         string
	}{
		{"OutputQuery.Wait", offOr(q.Wait, q.Wait.String()), q.Wait < leastTime && q.Wait != 0, durationRule + ", or 0 for no wait"},
		{"OutputQuery.Limit", offOr(q.Limit, strconv.Itoa(q.Limit)), q.Limit < 0, "can't be negative; 0 is the default"},
		{"OutputQuery.Timeout", offOr(q.Timeout, q.Timeout.String()), q.Timeout < leastTime && q.Timeout != 0, durationRule + ", or 0 for the default"},
	} {
		if r.broken {
			return &InputError{r.field, r.value, r.rule}
		}
	}
	q.Wait = min(q.Wait, maxOutputWait)
	if q.Limit == 0 {
		q.Limit = defaultMessages
	}
	q.Limit = min(q.Limit, maxMessages)
	if q.Timeout == 0 {
		q.Timeout = transcriptTimeout
	}
	return nil
}

// Output is what Output tells of a task: a copy, the caller's to change. Its String is
// made for a model.
type Output struct {
	// Task is the record: as the run ended, or as it is now.
	Task Task
	// Waited is how long the run was in its queue, Ran from its lease on; both up to its
	// end, or to when this was read.
	Waited, Ran time.Duration
	// TimedOut: OutputQuery.Wait has passed. The run goes on and was not touched.
	TimedOut bool

	// Messages of the task's session, oldest first, as its client returned them, but for
	// thoughts and tools: these are there if asked for, each cut to 2000 characters and
	// then ending in "…"; ToolCall.Input is its JSON as a string, one that is a string
	// itself.
	Messages []Message
	// More: there are older ones after OutputQuery.Since, which Limit left out.
	More bool
	// Cursor is what to pass as Since to read on: the id of the last message or, while the
	// model's last one may still grow, of the one before that. Where nothing was read it is
	// Since itself.
	Cursor string
	// TranscriptErr says why there are no messages although they were asked for: the
	// client's error or panic, that the time-out passed or ctx ended, an
	// [errors.ErrUnsupported] if it can't read them, ErrClosed, an *[InputError] for a Since
	// that no message of the session has, or ErrNotFound if the task has moved out of reach
	// meanwhile. All else holds good.
	TranscriptErr error
}

// Output tells what became of a task: what a tool reads with which a model asks for a
// task of its own. The result is on the record, so that it needs no session; reading
// takes nothing away, and the same call returns the same again.
//
// With OutputQuery.Wait it waits for the end of the run that is current at the call; a
// run that ends in the instant in which the wait does has ended. The error is
// [ErrNotFound], an *[InputError], or ctx's own beside the task as it is if ctx ends
// while the run goes on. What goes wrong with messages is no error: see
// Output.TranscriptErr. A client that does not come back from reading them holds up the
// caller for OutputQuery.Timeout at most; Shutdown lists it while it is out. What is on
// the record can be read after Close too, messages can't.
func (m *BackgroundManager) Output(ctx context.Context, id TaskID, q OutputQuery) (Output, error) {
	return m.output(ctx, host, id, q)
}

func (m *BackgroundManager) output(ctx context.Context, by caller, id TaskID, q OutputQuery) (Output, error) {
	if err := q.prepare(); err != nil {
		return Output{}, err
	}
	if q.Transcript {
		defer m.holdForReader(id)()
	}
	var o Output
	var err error
	if o.Task, o.TimedOut, err = m.await(ctx, by, id, q.Wait); o.Task.ID == "" {
		return Output{}, err
	}
	o.Waited, o.Ran = o.Task.spans(time.Now())
	if q.Transcript {
		o.Cursor = q.Since
		if o.TranscriptErr = err; err == nil {
			o.TranscriptErr = m.transcribe(ctx, by, &o, &q)
		}
	}
	return o, err
}

// holdForReader keeps a task, and its session with it, until what it returns is called: it
// may end, or be read, while its messages are still to be asked for.
func (m *BackgroundManager) holdForReader(id TaskID) (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.byID[id]
	if t == nil {
		return func() {}
	}
	t.readers++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		t.readers--
	}
}

// await is a task as its run ended, if that is so or comes to be within the wait, else
// as it is when the wait is over.
func (m *BackgroundManager) await(ctx context.Context, by caller, id TaskID, wait time.Duration) (t Task, timedOut bool, err error) {
	if wait == 0 {
		t, err = m.get(by, id)
		return t, false, err
	}
	m.mu.Lock()
	found, err := m.reachLocked(by, id)
	if err != nil {
		m.mu.Unlock()
		return Task{}, false, err
	}
	e := m.endingLocked(found)
	m.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if e.wait(within) != nil {
		now, live, err := m.still(by, found, e)
		if live && ctx.Err() != nil {
			return now, false, context.Cause(ctx)
		} else if live || err != nil {
			return now, live, err
		}
	}
	t, err = m.sawEnding(by, found, e)
	return t, false, err
}

// spans are how long a task was in its queue, and from its lease on, up to now or to its
// end.
func (t *Task) spans(now time.Time) (waited, ran time.Duration) {
	if !t.Ended.IsZero() {
		now = t.Ended
	}
	if t.Started.IsZero() {
		return now.Sub(t.Queued), 0
	}
	return t.Started.Sub(t.Queued), now.Sub(t.Started)
}

// read is the reading of one transcript that is out.
type read struct {
	of      *task
	task    TaskID
	session SessionID
	cancel  context.CancelCauseFunc
	done    chan struct{}
	// What came of it; read only once done is closed.
	said []Message
	more bool
	err  error
}

// transcribe adds the messages of a task's session to its output.
func (m *BackgroundManager) transcribe(ctx context.Context, by caller, o *Output, q *OutputQuery) error {
	if o.Task.Session == "" { // nothing was said yet
		_, err := q.after(nil)
		return err
	}
	ctx, stop := context.WithTimeoutCause(ctx, q.Timeout, fmt.Errorf("subagent: no transcript within %v: %w", q.Timeout, context.DeadlineExceeded))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &read{task: o.Task.ID, session: o.Task.Session, cancel: cancel, done: make(chan struct{})}
	if err := m.beginRead(ctx, by, r, *q); err != nil {
		return err
	}
	if err := r.wait(ctx); err != nil {
		return err
	}
	o.Messages, o.More = r.said, r.more
	o.Cursor = cursor(r.said, q.Since, m.saidAll(&o.Task, r.of))
	return nil
}

// saidAll reports whether nothing was said in a session after a snapshot of its task was
// taken: the run had ended, the child was at rest, and there was no other run since.
func (m *BackgroundManager) saidAll(then *Task, t *task) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(then.Attempts) - 1
	return then.Status.Terminal() && (last < 0 || then.Attempts[last].Unstopped == nil) && then.Run == int(t.run)
}

// beginRead starts the goroutine of a read.
func (m *BackgroundManager) beginRead(ctx context.Context, by caller, r *read, q OutputQuery) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if m.caps.reader == nil {
		return errNoTranscript
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase >= flushing { // sessions are given up from then on
		return ErrClosed
	}
	t, err := m.reachLocked(by, r.task)
	if err != nil {
		return err
	}
	t.readers++ // it is not forgotten meanwhile
	r.of = t
	m.reads[r] = struct{}{}
	m.goLocked(func() { m.read(ctx, r, q) })
	return nil
}

// wait returns the error of the read, or why it was given up.
func (r *read) wait(ctx context.Context) error {
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	select {
	case <-r.done:
		if r.err == nil || ctx.Err() == nil {
			return r.err
		}
	default:
	}
	return context.Cause(ctx)
}

// read is the goroutine of a read. All that has to do with the client's messages is done
// in it, as what their tools were called with may be code of the host too.
func (m *BackgroundManager) read(ctx context.Context, r *read, q OutputQuery) {
	r.err = &PanicError{Op: "transcript", Value: errGoexit} // unless it returns
	defer func() {
		m.mu.Lock()
		r.of.readers--
		delete(m.reads, r)
		m.mu.Unlock()
		close(r.done)
	}()
	var said []Message
	var more bool
	r.err = guard("transcript", func() (err error) {
		said, more, err = q.read(ctx, m.caps, r.session)
		return err
	})
	if r.err == nil {
		r.said, r.more = said, more
	}
}

// read asks for the newest messages, one more than wanted, and for all only if Since is
// not among these: a client takes an unknown one for the beginning and does not say so.
func (q *OutputQuery) read(ctx context.Context, c capabilities, session SessionID) (said []Message, more bool, err error) {
	var rest []Message
	for _, ask := range []TranscriptQuery{{Limit: q.Limit + 1}, {}} {
		if ctx.Err() != nil { // nobody waits any more, or the manager is closed
			return nil, false, context.Cause(ctx)
		}
		all, err := c.transcript(ctx, session, ask)
		if err != nil {
			return nil, false, err
		}
		if rest, err = q.after(all); err == nil {
			break
		} else if ask.Limit == 0 {
			return nil, false, err
		}
	}
	over := max(len(rest)-q.Limit, 0)
	for _, message := range rest[over:] {
		said = append(said, q.keep(message))
	}
	return said, over > 0, nil
}

// after are the messages after Since.
func (q *OutputQuery) after(all []Message) ([]Message, error) {
	at := slices.IndexFunc(all, func(m Message) bool { return m.ID == q.Since })
	if q.Since != "" && at < 0 {
		return nil, &InputError{"OutputQuery.Since", strconv.Quote(q.Since), "must be the id of a message of the task's session"}
	}
	if q.Since == "" {
		return all, nil
	}
	return all[at+1:], nil
}

// keep is a copy of a message with what the query asks for.
func (q *OutputQuery) keep(m Message) Message {
	m.Thoughts = cutRunes(m.Thoughts, detailRunes)
	if !q.Thoughts {
		m.Thoughts = ""
	}
	tools := m.Tools
	m.Tools = nil
	if !q.Tools {
		return m
	}
	for _, call := range tools {
		call.Input = inputText(call.Input)
		m.Tools = append(m.Tools, call)
	}
	return m
}

// inputText is what a tool was called with, as text; nil if that can't be told.
func inputText(input any) any {
	switch s, ok := input.(string); {
	case ok:
		return cutRunes(s, detailRunes)
	case input == nil:
		return nil
	}
	text, err := json.Marshal(input)
	if err != nil {
		return nil
	}
	return cutRunes(string(text), detailRunes)
}

// cutRunes shortens s to at most n characters, of which the last is then "…".
func cutRunes(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	at := 0
	for range n - 1 {
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	return s[:at] + "…"
}

// cursor is where to read on. The model's last message may still grow, as long as the run
// goes on, also behind one that was put into its turn: then it is read again.
func cursor(said []Message, since string, ended bool) string {
	n := len(said)
	for i, m := range slices.Backward(said) {
		if m.Role == RoleUser {
			continue
		}
		if !ended && !m.Complete {
			n = i
		}
		break
	}
	if n == 0 {
		return since
	}
	return said[n-1].ID
}
