package subagent

import (
	"encoding/json"
	"fmt"
)

// ReasonCode says why a run ended, in one stable word. It is an error, so that
// errors.Is(task.Reason, subagent.StartTimeout) reads as it should.
type ReasonCode string

// Why a run was cancelled: somebody asked for it.
const (
	ByUser         ReasonCode = "by_user"
	ByParent       ReasonCode = "by_parent"       // the parent's own tool call: it is not told again
	ParentGone     ReasonCode = "parent_gone"     // an ancestor's run was stopped or failed, or its root's session was deleted
	SessionDeleted ReasonCode = "session_deleted" // its session was, or that of the ended task which left it running
	Superseded     ReasonCode = "superseded"      // for hosts, as CancelOptions.Cause
	ByShutdown     ReasonCode = "shutdown"
)

// Why a run was interrupted: its outcome is unknown, or it was ended from outside.
const (
	Restart      ReasonCode = "restart"
	SessionGone  ReasonCode = "session_gone"
	PromptFailed ReasonCode = "prompt_failed" // the prompt call itself failed; what became of the turn is not known
)

// Why a run failed: everything else. Deadline, Stalled, StepLimit, ToolLimit,
// ToolLoop, Budget and FallbackExhausted, and Restart above, are reserved: nothing
// ends a run in this way yet.
const (
	QueueTimeout      ReasonCode = "queue_timeout"
	StartTimeout      ReasonCode = "start_timeout"
	Deadline          ReasonCode = "deadline"
	Stalled           ReasonCode = "stalled"
	StepLimit         ReasonCode = "step_limit"
	ToolLimit         ReasonCode = "tool_limit"
	ToolLoop          ReasonCode = "tool_loop"
	Budget            ReasonCode = "budget"
	NoOutput          ReasonCode = "no_output"     // the turn ended well but said nothing
	SessionFailed     ReasonCode = "session_error" // the client reported an error of the session
	FallbackExhausted ReasonCode = "fallback_exhausted"
	Panicked          ReasonCode = "panic" // host code panicked
)

// outcomes is the status that each reason ends a run in.
var outcomes = map[ReasonCode]Status{
	ByUser: Cancelled, ByParent: Cancelled, ParentGone: Cancelled,
	SessionDeleted: Cancelled, Superseded: Cancelled, ByShutdown: Cancelled,

	Restart: Interrupted, SessionGone: Interrupted, PromptFailed: Interrupted,

	QueueTimeout: Failed, StartTimeout: Failed, Deadline: Failed, Stalled: Failed,
	StepLimit: Failed, ToolLimit: Failed, ToolLoop: Failed, Budget: Failed,
	NoOutput: Failed, SessionFailed: Failed, FallbackExhausted: Failed, Panicked: Failed,
}

// Error is the code itself.
func (c ReasonCode) Error() string { return string(c) }

// Reason is why a run ended as it did: the second axis beside [Status]. It is an
// error that matches its Code and what it wraps.
type Reason struct {
	Code     ReasonCode
	Limit    string // the limit's name, where one was hit
	Value    string // what the limit was
	Observed string // what was seen
	Setting  string // the setting that changes the limit
	Err      error  // the error behind it, where there is one
}

// Error says all of it in one line. The reason of a completed run, nil, is "".
func (r *Reason) Error() string {
	if r == nil {
		return ""
	}
	s := string(r.Code)
	if r.Limit != "" {
		s += fmt.Sprintf(": %s: %s (%s is %s)", r.Limit, r.Observed, r.Setting, r.Value)
	}
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

// Is matches the reason's code; nil matches none.
func (r *Reason) Is(target error) bool { return r != nil && target == error(r.Code) }

// Unwrap returns the error behind the reason.
func (r *Reason) Unwrap() error {
	if r == nil {
		return nil
	}
	return r.Err
}

// MarshalJSON writes the error behind the reason as its text.
func (r *Reason) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("null"), nil
	}
	return json.Marshal(reasonJSON{r.Code, r.Limit, r.Value, r.Observed, r.Setting, textOf(r.Err)})
}

// UnmarshalJSON reads what MarshalJSON wrote; of the error the text remains.
func (r *Reason) UnmarshalJSON(text []byte) error {
	var j reasonJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*r = Reason{j.Code, j.Limit, j.Value, j.Observed, j.Setting, errorOf(j.Error)}
	return nil
}

type reasonJSON struct {
	Code                            ReasonCode
	Limit, Value, Observed, Setting string `json:",omitempty"`
	Error                           string `json:",omitempty"`
}

func (r *Reason) is(code ReasonCode) bool { return r != nil && r.Code == code }

func (r *Reason) clone() *Reason {
	if r == nil {
		return nil
	}
	c := *r
	return &c
}

func because(code ReasonCode, err error) *Reason { return &Reason{Code: code, Err: err} }
