package subagent

import (
	"time"
)

// MailboxPolicy is how finished runs are told to parents.
type MailboxPolicy struct {
	// Gather is how long a batch waits for one more finished run after each, and
	// GatherMax how long it waits altogether. Default to 100 ms and 1 s; where only one
	// of them is set, the other's default gives way to it.
	Gather, GatherMax time.Duration
	// Tries is how often a batch is sent before it is parked: kept for Drain and
	// for the parent's next batch. Defaults to 8. It can't be Off.
	Tries int
	// Backoff is the pause after a failed try, doubled with each and cut at
	// BackoffMax; the pause taken is drawn from its upper half. Default to 500 ms
	// and 30 s; where only one of them is set, the other's default gives way to it.
	Backoff, BackoffMax time.Duration
	// Timeout bounds one Notify call. Defaults to 30 s.
	Timeout time.Duration
	// Push is which batches are sent. Defaults to PushAll.
	Push PushPolicy
	// WakeEach asks for a turn with each batch, not only with the final one and
	// those that hold a failure. It goes with PushAll only. Defaults to false.
	WakeEach bool
	// BusyMax is how long a batch waits for a parent that is Busy. Then it is
	// deposited without a turn, see HandDeposit, and the turn is asked for when the
	// parent idles; each time that BusyMax has passed once more it is asked for too,
	// since the event may be missing, for KeepAge at most. Defaults to 60 s; Off deposits
	// nothing. What a child does not take while it works goes to the next session above
	// instead.
	BusyMax time.Duration
	// KeepAge is how long a notice, or the word that nothing is left, waits for a parent
	// that does not take it, and KeepCount how many notices may wait for one: older ones,
	// and of more the oldest, are given up, counted in Stats, and their tasks stay
	// readable. Default to 12 h and 10 000.
	KeepAge   time.Duration
	KeepCount int
	// Required refuses a launch of whose end nobody would be told, with
	// [ErrNobodyToTell]: there is no Notifier, or Push is PushOff, or no session
	// above is left. Defaults to false: parents may drain, or read.
	Required bool
	// ReadHint is the last line of each text: how a full result is read. Name the
	// tool that your agents have for it. At most 400 bytes. Defaults to a line that
	// says that results can be read by task id.
	ReadHint string
	// PreviewBytes is how much of each result stands in the text, TextBytes how
	// long the whole text may be. Default to 700 and 8192 bytes; Off for
	// PreviewBytes means no preview. TextBytes is at least 1024.
	PreviewBytes, TextBytes int
	// Render makes the text of a notification; its Text is empty then. It runs
	// outside all locks. If it returns "" or panics, the default is used: what [Render]
	// writes, within the two bounds above.
	Render func(Notification) string
}

// PushPolicy is which batches are sent to parents. What is not sent is owed all the
// same, and can be drained.
type PushPolicy uint8

const (
	PushAll   PushPolicy = iota // each, as soon as it is gathered
	PushFinal                   // the final one, and before that only one with a failure, which takes along what waits; and one that a Drain did not deliver
	PushOff                     // none
	numPushes
)

var pushNames = [numPushes]string{"all", "final", "off"}

// String is the policy in one word: "all", "final" or "off".
func (p PushPolicy) String() string {
	return wordOf("PushPolicy", pushNames[:], p)
}

// MarshalText writes the policy as its word.
func (p PushPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a word that MarshalText wrote, as from a host's settings.
func (p *PushPolicy) UnmarshalText(text []byte) error {
	return fromWord("PushPolicy", pushNames[:], p, text)
}

// InterruptedPolicy is what becomes of the children of a session whose turn somebody
// stopped.
type InterruptedPolicy uint8

const (
	InterruptedKeep        InterruptedPolicy = iota // they go on
	InterruptedStopPending                          // those that wait in a queue are cancelled, at any depth
	InterruptedStopAll                              // all are, at any depth
	numInterrupted
)

var interruptedNames = [numInterrupted]string{"keep", "stop pending", "stop all"}

// String is the policy in words: "keep", "stop pending" or "stop all".
func (p InterruptedPolicy) String() string {
	return wordOf("InterruptedPolicy", interruptedNames[:], p)
}

// MarshalText writes the policy as its words.
func (p InterruptedPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads words that MarshalText wrote, as from a host's settings.
func (p *InterruptedPolicy) UnmarshalText(text []byte) error {
	return fromWord("InterruptedPolicy", interruptedNames[:], p, text)
}
