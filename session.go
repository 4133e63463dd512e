package subagent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// SessionID names a conversation that the host's runtime owns.
type SessionID string

// SessionClient runs child sessions: it is the one thing a host must provide.
//
// All methods may be called concurrently, Abort also beside a Prompt of the same
// session; the manager never has two Prompts of one session out. Calls are made
// from goroutines of their own, never under a lock, and a panic in one fails its
// task only. Wrap what went wrong in a [SessionError] where it is known; any
// other error of Prompt means that the outcome is unknown.
//
// [Func] makes a client of an in-process agent loop, [Blocking] of a host that does
// not wait. Optional abilities are the small interfaces [Notifier],
// [LineageResolver], [Releaser], [EventSink], [Steerer], [Attacher] and
// [TranscriptReader]; a client that implements one has it, unless its method returns an error that is
// [errors.ErrUnsupported], which counts as absent so that a wrapper can pass
// abilities through.
type SessionClient interface {
	// Create opens a session and starts nothing. A session that was made although
	// the call failed should be returned beside the error: it is then stopped.
	// Nothing may be launched below the session before Create has returned: its id
	// would be taken for one in use. ctx ends at the start time-out, or when the
	// task is stopped.
	Create(ctx context.Context, req CreateRequest) (SessionID, error)

	// Prompt runs one turn and returns when it is over: everything the model does
	// until it rests. A nil error says that no work of the turn goes on.
	// ctx ends only after Abort returned or Config.AbortGrace passed; Prompt must
	// then return soon, or the child counts as one that may be running.
	Prompt(ctx context.Context, session SessionID, p Prompt) (Result, error)

	// Abort stops the turn of a session. Nil means that no work of it goes on;
	// an idle or unknown session is nil too. It may arrive before the Prompt that it
	// is meant for. Then return nil: Abort is called again when that Prompt has
	// returned, and once before if it stays out. ctx ends after Config.AbortGrace.
	Abort(ctx context.Context, session SessionID) error
}

// LineageResolver tells where a session that this manager did not launch comes
// from, so that depth and spawn limits count from the true root. Launch, CanLaunch
// and Reserve ask it, in their own goroutine, about a parent that has launched
// nothing yet. Any error refuses the launch. Without it such a session counts as a
// root.
type LineageResolver interface {
	// ParentOf returns the parent of a session; "" says that it is a root. A
	// session that can't be found is an error.
	ParentOf(ctx context.Context, session SessionID) (SessionID, error)
}

// Releaser gives up what a client keeps for a session that nobody will prompt
// again: one that came too late, and at Close every session still kept. Without
// it nothing is called and the client keeps what it keeps. nil also says that no prompt
// that was [ErrInDoubt] can begin anything there any more.
type Releaser interface {
	Release(ctx context.Context, session SessionID) error
}

// Steerer puts a message into the turn that a session is running.
type Steerer interface {
	// Steer returns nil when the running turn will see the text or, if it ends
	// before it looks, the session's next one; and an error when neither will: no
	// turn runs, or no more messages fit.
	Steer(ctx context.Context, session SessionID, text string) error
}

// Attacher waits for a turn that it did not begin, as of a session that somebody else
// prompted. Without it [BackgroundManager.Track] is refused.
type Attacher interface {
	// Attach returns as Prompt does, when the turn that the session is in is over; at
	// once, with what its last turn made, if it is in none. p has no Text. What is said
	// of Prompt, its ctx and Abort holds.
	Attach(ctx context.Context, session SessionID, p Prompt) (Result, error)
}

// TranscriptReader reads what was said in a session: Output asks it. Without it Output
// has the record alone.
type TranscriptReader interface {
	// Transcript returns messages of a session, oldest first, as they are now: the
	// model's last one may still grow. A session that can't be found is an error.
	Transcript(ctx context.Context, session SessionID, q TranscriptQuery) ([]Message, error)
}

// TranscriptQuery chooses messages of a session. The zero value chooses all.
type TranscriptQuery struct {
	Since string // only those after the message with this ID; all if there is none
	Limit int    // only the newest so many of these; 0: all
}

// Message is one message of a session.
type Message struct {
	ID       string
	Role     Role
	Time     time.Time
	Text     string
	Thoughts string // of the model, before or beside its text
	Tools    []ToolCall
	Complete bool  // it does not grow any more
	Err      error // what it ended with
}

// MarshalJSON writes Err as its text.
func (m Message) MarshalJSON() ([]byte, error) {
	type plain Message
	return json.Marshal(struct {
		plain
		Err string `json:",omitempty"`
	}{plain(m), textOf(m.Err)})
}

// UnmarshalJSON reads what MarshalJSON wrote; of the error the text remains.
func (m *Message) UnmarshalJSON(text []byte) error {
	type plain Message
	var j struct {
		plain
		Err string
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*m = Message(j.plain)
	m.Err = errorOf(j.Err)
	return nil
}

// Role says whose message one is.
type Role string

// The roles of messages.
const (
	RoleUser      Role = "user" // also what a notification said
	RoleAssistant Role = "assistant"
)

// CreateRequest is what a new session is made from. Empty fields leave the
// choice to the client.
type CreateRequest struct {
	Task        TaskID
	Attempt     int       // counts the task's sessions, from 1
	Parent      SessionID // "" when the task was launched without one
	Agent       string    // cleaned, aliases resolved
	Model       string    // "provider/model", or "" for the agent's own
	Variant     string
	Description string // of the launch; see Title
	Dir         string // working directory, as the launch named it: in the host's file system, which may want it absolute; "": the parent's, as far as the client knows it
	System      string // extra system text
	Tools       map[string]bool
	Labels      map[string]string
}

// Title is a name for the session that tells it apart from others of the same
// task: "description (@agent)", with the attempt's number from the second on.
func (r CreateRequest) Title() string {
	title := cmp.Or(r.Description, string(r.Task)) + " (@" + r.Agent + ")"
	if r.Attempt > 1 {
		title += fmt.Sprintf(", attempt %d", r.Attempt)
	}
	return title
}

// Prompt is one turn's input. It repeats what a host may want with each turn.
type Prompt struct {
	Task    TaskID
	Attempt int
	Text    string
	Agent   string
	Model   string
	Variant string
	System  string
	Tools   map[string]bool
	// OnEvent takes in progress of this turn while it runs; what comes when Prompt
	// has returned, or for a task that was stopped, is dropped. It is never nil, does
	// not block, and may be called from any goroutine. Session may be left empty.
	OnEvent func(SessionEvent)
}

// Result is what a turn produced.
type Result struct {
	Text  string
	Usage Usage
	// Empty is the client's word that the turn ended well without text. A turn
	// with blank text and without it fails with [NoOutput].
	Empty bool
	// Partial marks text of a turn that was stopped before its end.
	Partial bool
	// Size is the length of the whole text in bytes; Text is cut at
	// TaskLimits.ResultBytes, on a rune's border, and is then shorter.
	Size int
	// Run is the run of the task that produced it. The manager fills it in.
	Run int
	// History is for clients made with [Func]: what the next turn of the session
	// gets as Turn.History. The manager does not keep it.
	History any
}

// Cut reports whether Text is not the whole text.
func (r Result) Cut() bool { return len(r.Text) < r.Size }

// Usage is what a turn cost, as far as the client knows.
type Usage struct {
	InputTokens, OutputTokens, CachedTokens int64
	Cost                                    float64 // in the host's currency
}

// Class says what kind of failure a [SessionError] is.
type Class string

// The classes of failure. A client maps its host's errors to them.
const (
	ClassUnknown       Class = ""                // it can't be told
	ClassRateLimited   Class = "rate_limited"    // too many requests; RetryAfter may say how long
	ClassOverloaded    Class = "overloaded"      // the provider can't serve now
	ClassUnavailable   Class = "unavailable"     // the host could not be reached
	ClassModelNotFound Class = "model_not_found" // the host knows no such model
	ClassQuota         Class = "quota"           // credit or quota is used up
	ClassAuth          Class = "auth"            // not, or wrongly, authenticated
	ClassContextLength Class = "context_length"  // the conversation is too long for the model
	ClassPermission    Class = "permission"      // not allowed
	ClassInvalid       Class = "invalid"         // the request makes no sense to the host
	ClassAgentNotFound Class = "agent_not_found" // the host knows no such agent
	ClassAborted       Class = "aborted"         // of a Prompt: the turn was stopped, by whomever, and no work of it goes on
)

// SessionError is a client's account of what went wrong.
type SessionError struct {
	Op         string // "create", "prompt", "abort", …
	Session    SessionID
	Class      Class
	RetryAfter time.Duration // 0: the host named none
	Err        error
}

// Error joins the call, the session, the class and what went wrong.
func (e *SessionError) Error() string {
	if e == nil {
		return "a SessionError that is nil"
	}
	s := e.Op
	if e.Session != "" {
		s += " " + string(e.Session)
	}
	if e.Class != ClassUnknown {
		s += ": " + string(e.Class)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns what went wrong.
func (e *SessionError) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// PanicError is a panic of host code, caught at the border.
type PanicError struct {
	Op    string // the call that panicked
	Value any
	Stack []byte
}

// Error names the call and the value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic in %s: %v", e.Op, e.Value) }

// Unwrap returns the value of the panic if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// capabilities are the optional interfaces of a client, found once in New.
type capabilities struct {
	notifier Notifier
	lineage  LineageResolver
	releaser Releaser
	sink     EventSink
	attacher Attacher
	reader   TranscriptReader
}

func capabilitiesOf(c SessionClient) (caps capabilities) {
	caps.notifier, _ = c.(Notifier)
	caps.lineage, _ = c.(LineageResolver)
	caps.releaser, _ = c.(Releaser)
	caps.sink, _ = c.(EventSink)
	caps.attacher, _ = c.(Attacher)
	caps.reader, _ = c.(TranscriptReader)
	if b, ok := c.(*BlockingClient); ok { // one that embeds it may have methods of its own
		b.narrow(&caps)
	}
	return caps
}

// parentOf is the one place that asks a client for lineage.
func (c capabilities) parentOf(ctx context.Context, id SessionID) (parent SessionID, err error) {
	if c.lineage == nil {
		return "", nil
	}
	err = guard("lineage", func() error {
		above, err := c.lineage.ParentOf(ctx, id)
		if err == nil {
			parent = above
		}
		return supported(err)
	})
	return parent, err
}

// release is the one place that asks a client to give a session up. A client that can't
// gives up nothing, which is no error.
func (c capabilities) release(ctx context.Context, id SessionID) (given bool, err error) {
	if c.releaser == nil {
		return false, nil
	}
	err = guard("release", func() error {
		err := c.releaser.Release(ctx, id)
		given = err == nil
		return supported(err)
	})
	return given, err
}

// transcript is the one place that asks a client what was said. One that can't tell is an
// error here: somebody wants to know.
func (c capabilities) transcript(ctx context.Context, id SessionID, q TranscriptQuery) (said []Message, err error) {
	if c.reader == nil {
		return nil, errNoTranscript
	}
	err = guard("transcript", func() error {
		said, err = c.reader.Transcript(ctx, id, q)
		if supported(err) == nil && err != nil {
			return errNoTranscript
		}
		return err
	})
	return said, err
}

var errNoTranscript = fmt.Errorf("subagent: the client reads no transcripts: %w", errors.ErrUnsupported)

// supported makes no error of one that says that the ability is absent. It looks
// into an error of the host: call it under guard.
func supported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}
