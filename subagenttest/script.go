package subagenttest

import (
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// Op names a call of the client.
type Op string

// The calls that a script decides about.
const (
	OpCreate     Op = "create"
	OpPrompt     Op = "prompt"
	OpAbort      Op = "abort"
	OpRelease    Op = "release"
	OpTranscript Op = "transcript"
)

// Call is one call, as a script sees it.
type Call struct {
	Op      Op
	Task    subagent.TaskID
	Attempt int
	Session subagent.SessionID // "" for a Create
	N       int                // calls of this Op for this task before it
	Create  subagent.CreateRequest
	Prompt  subagent.Prompt
	Query   subagent.TranscriptQuery
	At      time.Time
}

// Action is what the fake does with a call. The zero Action succeeds at once: a
// Create makes a session, a Prompt answers "ok", an Abort stops the turn.
type Action struct {
	// Delay passes before the answer. The end of the context cuts it short, and
	// for a Prompt an Abort, unless the call is Deaf.
	Delay time.Duration
	// Hang keeps the call until then, without a bound of its own.
	Hang bool
	// Deaf ignores the context and, for a Prompt, the Abort, which fails: the turn
	// goes on. Client.Let ends it.
	Deaf  bool
	Err   error // returned after the delay
	Panic any   // panicked with after the delay

	Text   string           // of a Prompt's result; "" is "ok"
	Empty  bool             // no text, and Result.Empty
	Blank  bool             // no text, and no Result.Empty
	Result *subagent.Result // the whole result, instead of those three
	// Orphan has Prompt return Err, or panic, while the turn goes on in the host
	// until it is aborted.
	Orphan bool

	Said []subagent.Message // what a Transcript finds, instead of what was said

	Made bool               // Create returns the session it made beside its error
	Lost bool               // Create makes a session and returns, or panics with, only the error
	NoID bool               // Create returns "" and nil
	ID   subagent.SessionID // Create returns this id
}
