package subagent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// Off turns a limit or a duration off: where 0 means the default that a field's
// comment gives, Off means none.
const Off = -1

// Config is how a manager behaves. Its zero value works: every field's comment
// ends with its default. New copies it, so later changes to it change nothing. A
// duration is at least 1 ms: 10 is ten nanoseconds, and refused.
type Config struct {
	// Notifier is told about finished runs. Defaults to the client if it is a
	// Notifier; else nobody is told and parents read with Drain.
	Notifier Notifier

	// Keys are the concurrency limits. Defaults to 5 running tasks per model, or
	// per agent where a task names no model, and no other cap.
	Keys KeyLimits

	// Spawn limits how many tasks sessions may launch, and how deep. Defaults to
	// 3 levels and 64 live descendants per root.
	Spawn SpawnLimits

	// Task are the limits of one task; Agents[name].Limits beat them and
	// LaunchInput.Limits beat those, field by field. Defaults to 60 s for the
	// start and no limit for waiting.
	Task TaskLimits

	// Agents are the agents that may be launched. Defaults to nil: any name may.
	Agents map[string]Agent

	// Tools switches tools on and off for all children. An agent's and a launch's
	// own switches join it; a tool switched off anywhere is off. Defaults to none.
	Tools map[string]bool

	// Mailbox is how parents are told. Defaults to batches gathered for 100 ms.
	Mailbox MailboxPolicy

	// Retention is how long finished tasks are kept. Defaults to 1 h after their parent
	// was told of them, 10 000 of them, and 256 MiB of results.
	Retention Retention

	// Interrupted is what becomes of a session's children, and of all below these, when
	// the host tells, with EventInterrupted, that somebody stopped its turn. A session
	// below it that is no task has an event of its own. Defaults to InterruptedKeep.
	Interrupted InterruptedPolicy

	// AbortGrace is how long a stopped child may take to come to rest before it
	// is given up: recorded as unstopped and listed. The context of each Abort and
	// Release call ends after it. It can't be Off. Defaults to 10 s.
	AbortGrace time.Duration

	// Admit has the last word on a launch, before anything is recorded; its error
	// refuses the launch and is returned. It runs in the goroutine of Launch, and of
	// CanLaunch. Defaults to nil: all are admitted.
	Admit func(context.Context, LaunchInput, Lineage) error

	// Hooks are told what becomes of tasks. Defaults to none.
	Hooks Hooks

	// Logger gets one line per transition and per failed delivery or hook, never a prompt
	// or a result. A run that failed or was interrupted, and a delivery that failed,
	// are warnings; of the error they name the class or the Go type alone, since its
	// text may hold what a model wrote, or a secret: Task.Reason and Pending have it.
	// Lines are written in order by a goroutine of their own; a handler that is slow
	// holds up nothing, and of those that wait for it at most 10 000 are kept.
	// Defaults to nil: silent.
	Logger *slog.Logger
}

// KeyLimits are how many tasks may run at the same time. A model's own entry
// beats its provider's, and that beats Default, as the limit of the model's
// queue; a provider's entry also counts over all its models, an agent's over all
// models it runs with. In each map 0 means as if absent and Off means no limit.
type KeyLimits struct {
	Default   int            // per queue. Defaults to 5.
	Models    map[string]int // by "provider/model", or a bare name
	Providers map[string]int // by what stands before a model's first "/"; a bare name has none
	Agents    map[string]int // by name; with Config.Agents by that of one of them, and no alias
	Global    int            // over everything. Defaults to Off.
	PerParent int            // over the children of one parent session. Defaults to Off.
	Starts    int            // sessions being created at one time. Defaults to Off.

	// Fair has parents take turns within a queue, so that one with a long queue does
	// not keep the others waiting: the first task of a parent that is not at its cap
	// is passed by each other parent at most once. What one parent launched starts in
	// order of launch. Each session is a parent of its own, and so are together all
	// that name none. Task.Position stays the place by age: others may go first.
	// Defaults to false: first come, first served.
	Fair bool
}

// SpawnLimits keep agents from launching without end.
type SpawnLimits struct {
	Depth        int // a root's child has depth 1. Defaults to 3; at most 256, as with Off: a longer chain is taken for a cycle.
	LivePerRoot  int // descendants of one root that have not ended. Defaults to 64.
	TotalPerRoot int // descendants of one root ever launched. Defaults to Off.
	QueueDepth   int // tasks, and callers of Acquire, waiting in one queue; of these it refuses tasks alone. Defaults to Off.
}

// TaskLimits bound one task. A duration is at least 1 ms.
type TaskLimits struct {
	// QueueWait is how long a run may wait for its lease. Defaults to Off.
	QueueWait time.Duration
	// Start is how long the creation of the session may take. Defaults to 60 s.
	Start time.Duration
	// ResultBytes is how much of a result's text is kept. Defaults to 256 KiB.
	ResultBytes int
}

// Agent is one entry of Config.Agents.
type Agent struct {
	Aliases  []string        // other names for it
	Model    string          // the model of launches that name none, as in LaunchInput
	Tools    map[string]bool // switches tools on and off; off anywhere is off
	Limits   *TaskLimits     // beats Config.Task, field by field; nil: nothing of its own
	Disabled bool            // known, but not to be launched
}

// InputError is a value that breaks a rule. Nothing was changed by the call.
type InputError struct {
	Field string // as written in Go: "Config.Keys.Default"; of a parameter its name
	Value string // as text; names are quoted, and Off is spelt out
	Rule  string // what it must be
}

// Error names the field, its value and the rule.
func (e *InputError) Error() string {
	return fmt.Sprintf("subagent: %s is %s: %s", e.Field, e.Value, e.Rule)
}

// number is any type of setting that 0 and Off apply to.
type number interface{ ~int | ~int64 }

// setting is one number of a Config with its rule.
type setting struct {
	field       string
	get         func(*Config) (value int64, text string)
	def         func(*Config)
	off         bool // Off is allowed
	least, most int64
	rule        string
}

// set describes a setting. The default replaces 0.
func set[T number](field string, at func(*Config) *T, def, least T, off bool, rule string) setting {
	return setting{
		field: field, off: off, least: int64(least), most: math.MaxInt64, rule: rule,
		get: func(c *Config) (int64, string) {
			v := *at(c)
			return int64(v), fmt.Sprint(v)
		},
		def: func(c *Config) {
			if *at(c) == 0 {
				*at(c) = def
			}
		},
	}
}

// count is a setting that counts something; least is the least value allowed.
func count(field string, at func(*Config) *int, def, least int) setting {
	return set(field, at, def, max(least, 1), least == Off, leastRule(int64(least)))
}

// leastTime is the shortest duration that can be set: less is a number whose unit was
// forgotten, as 10 for ten seconds.
const (
	leastTime    = time.Millisecond
	durationRule = "must be at least 1ms"
)

// duration is a setting of at least leastTime; least is that, or Off where that is
// allowed too.
func duration(field string, at func(*Config) *time.Duration, def, least time.Duration) setting {
	rule := durationRule + ", or 0 for the default"
	if least == Off {
		rule = durationRule + ", 0 for the default, or Off"
	}
	return set(field, at, def, leastTime, least == Off, rule)
}

// upTo bounds a setting from above as well.
func (s setting) upTo(most int64) setting {
	s.most, s.rule = most, "must be from "+strconv.FormatInt(s.least, 10)+" to "+strconv.FormatInt(most, 10)+", 0 for the default, or Off"
	return s
}

func (s *setting) allows(v int64) bool { return v >= s.least && v <= s.most || v == Off && s.off }

// settings is every number of Config: its name, its default, its least value.
var settings = []setting{
	count("Config.Keys.Default", func(c *Config) *int { return &c.Keys.Default }, 5, Off),
	count("Config.Keys.Global", func(c *Config) *int { return &c.Keys.Global }, Off, Off),
	count("Config.Keys.PerParent", func(c *Config) *int { return &c.Keys.PerParent }, Off, Off),
	count("Config.Keys.Starts", func(c *Config) *int { return &c.Keys.Starts }, Off, Off),
	count("Config.Spawn.Depth", func(c *Config) *int { return &c.Spawn.Depth }, 3, Off).upTo(maxLineage),
	count("Config.Spawn.LivePerRoot", func(c *Config) *int { return &c.Spawn.LivePerRoot }, 64, Off),
	count("Config.Spawn.TotalPerRoot", func(c *Config) *int { return &c.Spawn.TotalPerRoot }, Off, Off),
	count("Config.Spawn.QueueDepth", func(c *Config) *int { return &c.Spawn.QueueDepth }, Off, Off),
	duration("Config.Task.QueueWait", func(c *Config) *time.Duration { return &c.Task.QueueWait }, Off, Off),
	duration("Config.Task.Start", func(c *Config) *time.Duration { return &c.Task.Start }, 60*time.Second, Off),
	count("Config.Task.ResultBytes", func(c *Config) *int { return &c.Task.ResultBytes }, 256<<10, Off),
	duration("Config.Mailbox.Gather", func(c *Config) *time.Duration { return &c.Mailbox.Gather }, 100*time.Millisecond, Off),
	duration("Config.Mailbox.GatherMax", func(c *Config) *time.Duration { return &c.Mailbox.GatherMax }, time.Second, Off),
	count("Config.Mailbox.Tries", func(c *Config) *int { return &c.Mailbox.Tries }, 8, 1),
	duration("Config.Mailbox.Backoff", func(c *Config) *time.Duration { return &c.Mailbox.Backoff }, 500*time.Millisecond, leastTime),
	duration("Config.Mailbox.BackoffMax", func(c *Config) *time.Duration { return &c.Mailbox.BackoffMax }, 30*time.Second, leastTime),
	duration("Config.Mailbox.Timeout", func(c *Config) *time.Duration { return &c.Mailbox.Timeout }, 30*time.Second, leastTime),
	duration("Config.Mailbox.BusyMax", func(c *Config) *time.Duration { return &c.Mailbox.BusyMax }, 60*time.Second, Off),
	duration("Config.Mailbox.KeepAge", func(c *Config) *time.Duration { return &c.Mailbox.KeepAge }, 12*time.Hour, Off),
	count("Config.Mailbox.KeepCount", func(c *Config) *int { return &c.Mailbox.KeepCount }, 10_000, Off),
	count("Config.Mailbox.PreviewBytes", func(c *Config) *int { return &c.Mailbox.PreviewBytes }, 700, Off),
	count("Config.Mailbox.TextBytes", func(c *Config) *int { return &c.Mailbox.TextBytes }, 8<<10, 1<<10),
	duration("Config.Retention.Age", func(c *Config) *time.Duration { return &c.Retention.Age }, time.Hour, Off),
	duration("Config.Retention.Together", func(c *Config) *time.Duration { return &c.Retention.Together }, time.Hour, Off),
	count("Config.Retention.Count", func(c *Config) *int { return &c.Retention.Count }, 10_000, Off),
	count("Config.Retention.Bytes", func(c *Config) *int { return &c.Retention.Bytes }, 256<<20, Off),
	duration("Config.AbortGrace", func(c *Config) *time.Duration { return &c.AbortGrace }, 10*time.Second, leastTime),
}

// prepared is the configuration a manager runs with: a copy, with defaults, checked.
func (c Config) prepared() (Config, error) {
	c.Keys.Models = maps.Clone(c.Keys.Models)
	c.Keys.Providers = maps.Clone(c.Keys.Providers)
	c.Keys.Agents = maps.Clone(c.Keys.Agents)
	c.Tools = maps.Clone(c.Tools)
	c.Agents = cloneAgents(c.Agents)
	within(&c.Mailbox.Gather, &c.Mailbox.GatherMax, 100*time.Millisecond, time.Second)
	within(&c.Mailbox.Backoff, &c.Mailbox.BackoffMax, 500*time.Millisecond, 30*time.Second)
	for _, s := range settings {
		s.def(&c)
		if v, text := s.get(&c); !s.allows(v) {
			return c, &InputError{s.field, offOr(v, text), s.rule}
		}
	}
	if err := c.choices(); err != nil {
		return c, err
	}
	return c, c.validate()
}

// offOr is a number as an InputError shows it.
func offOr[N number](v N, text string) string {
	if v == Off {
		return "Off"
	}
	return text
}

// within fills in one of two durations, the second of which bounds the first, where only
// the other is said: its default, or what the other one asks for.
func within(d, most *time.Duration, def, defMost time.Duration) {
	switch {
	case *most == 0:
		*most = max(defMost, *d)
	case *d == 0 && *most >= leastTime:
		*d = min(def, *most)
	}
}

// beyond reports whether a duration is longer than what bounds it.
func beyond(d, most time.Duration) bool { return most != Off && d > most }

// maxReadHint bounds MailboxPolicy.ReadHint, so that the least text has room for more.
const maxReadHint = 400

// choices checks what is one of several, and what does not go together.
func (c *Config) choices() error {
	for _, r := range []struct {
		field, value string
		broken       bool
		rule         string
	}{
		{"Config.Mailbox.Push", c.Mailbox.Push.String(), c.Mailbox.Push >= numPushes, "must be one of PushAll, PushFinal and PushOff"},
		{"Config.Mailbox.WakeEach", "true", c.Mailbox.WakeEach && c.Mailbox.Push != PushAll, "goes with PushAll only"},
		{"Config.Mailbox.ReadHint", strconv.Itoa(len(c.Mailbox.ReadHint)) + " bytes long", len(c.Mailbox.ReadHint) > maxReadHint, "must be at most " + strconv.Itoa(maxReadHint)},
		{"Config.Mailbox.Gather", c.Mailbox.Gather.String(), beyond(c.Mailbox.Gather, c.Mailbox.GatherMax), "must be at most GatherMax, " + c.Mailbox.GatherMax.String()},
		{"Config.Mailbox.Backoff", c.Mailbox.Backoff.String(), beyond(c.Mailbox.Backoff, c.Mailbox.BackoffMax), "must be at most BackoffMax, " + c.Mailbox.BackoffMax.String()},
		{"Config.Interrupted", c.Interrupted.String(), c.Interrupted >= numInterrupted, "must be one of InterruptedKeep, InterruptedStopPending and InterruptedStopAll"},
	} {
		if r.broken {
			return &InputError{r.field, r.value, r.rule}
		}
	}
	return nil
}

func leastRule(least int64) string {
	if least == Off {
		return "must be positive, 0 for the default, or Off"
	}
	return "must be at least " + strconv.FormatInt(least, 10) + ", or 0 for the default"
}

// validate checks the limits of one launch or agent, where 0 means inherited.
func (l *TaskLimits) validate(field string) error {
	if l == nil {
		return nil
	}
	for _, v := range []struct {
		name         string
		value, least int64
		text, rule   string
	}{
		{".QueueWait", int64(l.QueueWait), int64(leastTime), l.QueueWait.String(), durationRule},
		{".Start", int64(l.Start), int64(leastTime), l.Start.String(), durationRule},
		{".ResultBytes", int64(l.ResultBytes), 1, strconv.Itoa(l.ResultBytes), "must be positive"},
	} {
		if v.value < v.least && v.value != 0 && v.value != Off {
			return &InputError{field + v.name, v.text, v.rule + ", 0 to inherit, or Off"}
		}
	}
	return nil
}

// over returns l with what it leaves open taken from base.
func (l *TaskLimits) over(base TaskLimits) TaskLimits {
	if l == nil {
		return base
	}
	return TaskLimits{
		QueueWait:   cmp.Or(l.QueueWait, base.QueueWait),
		Start:       cmp.Or(l.Start, base.Start),
		ResultBytes: cmp.Or(l.ResultBytes, base.ResultBytes),
	}
}

func cloneAgents(agents map[string]Agent) map[string]Agent {
	agents = maps.Clone(agents)
	for name, a := range agents {
		a.Aliases = slices.Clone(a.Aliases)
		a.Tools = maps.Clone(a.Tools)
		if a.Limits != nil {
			limits := *a.Limits
			a.Limits = &limits
		}
		agents[name] = a
	}
	return agents
}
