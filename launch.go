package subagent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// LaunchInput is what a task is made of. It is captured whole: what its owner
// changes after Launch returned changes nothing.
type LaunchInput struct {
	// Parent is the session that asks and will be told. Required unless NoNotice.
	Parent SessionID
	// Agent runs the task. Required. Space, quotes, slashes and backslashes around
	// the name are taken off, as models write them; an alias becomes its agent.
	Agent string
	// Prompt is the child's first message. Required.
	Prompt string

	Description string // a few words for people
	Model       string // "provider/model". Defaults to the agent's, else to the client's choice.
	Variant     string // of the model, as the client knows it
	System      string // extra system text
	Dir         string // working directory. Defaults to the client's choice.
	Origin      string // the parent's tool call that asked

	Tools    map[string]bool   // switches tools on and off; off anywhere is off
	Labels   map[string]string // for the host's own use
	Limits   *TaskLimits       // beats the agent's and the manager's, field by field
	NoNotice bool              // the parent is not told
}

// Launch adds a task and returns at once with its snapshot, pending or starting.
// It never waits for the client, but for the client's lineage and Config.Admit
// where it has to ask them. ctx bounds the call and not the task.
//
// A refusal changes nothing: *[InputError], *[AgentError] for an unknown or
// disabled agent, *[LimitError], or an error that is [ErrLineage],
// [ErrParentEnded], [ErrClosed], ctx's own, or what Config.Admit returned.
func (m *BackgroundManager) Launch(ctx context.Context, in LaunchInput) (Task, error) {
	p, err := m.plan(ctx, in)
	if err != nil {
		return Task{}, fmt.Errorf("subagent: launch: %w", err)
	}
	m.mu.Lock()
	defer m.unlock()
	t, err := m.launchLocked(p)
	if err != nil {
		return Task{}, fmt.Errorf("subagent: launch: %w", err)
	}
	m.dispatchLocked()
	return m.snapshotLocked(t), nil
}

// CanLaunch returns the error that Launch would return for the same input now,
// or nil, and changes nothing.
func (m *BackgroundManager) CanLaunch(ctx context.Context, in LaunchInput) error {
	p, err := m.plan(ctx, in)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		err = m.checkLocked(p)
	}
	if err != nil {
		return fmt.Errorf("subagent: launch: %w", err)
	}
	return nil
}

// AgentError is a launch refused because of its agent.
type AgentError struct {
	Kind  error    // ErrUnknownAgent or ErrAgentDisabled
	Agent string   // as cleaned
	Known []string // the agents that may be launched, sorted
}

func (e *AgentError) Error() string {
	return fmt.Sprintf("%v: %q; there are %q", e.Kind, e.Agent, e.Known)
}

func (e *AgentError) Unwrap() error { return e.Kind }

// captured is what a task keeps of its LaunchInput; its owner knows the parent.
type captured struct {
	Agent, Model, Prompt, Description, Origin string
	*extras
}

// extras are what few launches set. The others share noExtras.
type extras struct {
	Variant, System, Dir string
	Tools                map[string]bool
	Labels               map[string]string
}

var noExtras extras

func capture(in *LaunchInput) captured {
	c := captured{in.Agent, in.Model, in.Prompt, in.Description, in.Origin, &noExtras}
	if in.Variant != "" || in.System != "" || in.Dir != "" || in.Tools != nil || in.Labels != nil {
		c.extras = &extras{in.Variant, in.System, in.Dir, in.Tools, in.Labels}
	}
	return c
}

// plan is a launch that was checked as far as that goes without the lock.
type plan struct {
	id     TaskID
	in     LaunchInput
	limits *TaskLimits
	origin origin
}

// plan checks an input, resolves what it leaves open and asks the host where it
// must. It records nothing.
func (m *BackgroundManager) plan(ctx context.Context, in LaunchInput) (p plan, err error) {
	if err := ctx.Err(); err != nil {
		return p, context.Cause(ctx)
	}
	if p.in, p.limits, err = m.resolve(in); err != nil {
		return p, err
	}
	if p.origin, err = m.trace(ctx, in.Parent); err != nil {
		return p, err
	}
	if m.cfg.Admit != nil {
		seen := p.in // with maps of its own
		seen.Tools, seen.Labels = maps.Clone(seen.Tools), maps.Clone(seen.Labels)
		err = guard("admit", func() error { return m.cfg.Admit(ctx, seen, p.origin.Lineage) })
		if err != nil {
			return p, err
		}
	}
	p.id = newTaskID()
	if ctx.Err() != nil {
		return p, context.Cause(ctx)
	}
	return p, nil
}

// resolve checks an input and fills in what its agent and the manager give it.
func (m *BackgroundManager) resolve(in LaunchInput) (LaunchInput, *TaskLimits, error) {
	name := in.Agent
	in.Agent = cleanAgent(in.Agent)
	for _, r := range []struct {
		field, value string
		broken       bool
		rule         string
	}{
		{"LaunchInput.Agent", name, in.Agent == "", "a name is required"},
		{"LaunchInput.Prompt", in.Prompt, strings.TrimSpace(in.Prompt) == "", "a text is required"},
		{"LaunchInput.Parent", string(in.Parent), in.Parent == "" && !in.NoNotice, "required unless NoNotice is set"},
	} {
		if r.broken {
			return in, nil, &InputError{r.field, strconv.Quote(r.value), r.rule}
		}
	}
	if err := in.Limits.validate("LaunchInput.Limits"); err != nil {
		return in, nil, err
	}
	agent, err := m.agent(in.Agent)
	if err != nil {
		return in, nil, err
	}
	if agent.name != "" {
		in.Agent = agent.name
	}
	if in.Model = strings.TrimSpace(in.Model); in.Model == "" {
		in.Model = agent.Model
	}
	in.Tools = maps.Clone(in.Tools)
	in.Labels = maps.Clone(in.Labels)
	limits := &m.cfg.Task
	if in.Limits != nil || agent.Limits != nil {
		own := in.Limits.over(agent.Limits.over(m.cfg.Task))
		limits = &own
	}
	in.Limits = nil
	return in, limits, nil
}

// cleanAgent takes off what models put around a name.
func cleanAgent(name string) string { return strings.Trim(name, " \t\r\n\"'`/\\") }

type namedAgent struct {
	Agent
	name string
}

// agent finds an agent by name or alias. Without a configured set any name will
// do, and nothing is known about it.
func (m *BackgroundManager) agent(name string) (namedAgent, error) {
	if m.cfg.Agents == nil {
		return namedAgent{}, nil
	}
	name = m.unalias(name)
	a, ok := m.cfg.Agents[name]
	switch {
	case !ok:
		return namedAgent{}, &AgentError{ErrUnknownAgent, name, m.launchable()}
	case a.Disabled:
		return namedAgent{}, &AgentError{ErrAgentDisabled, name, m.launchable()}
	}
	return namedAgent{a, name}, nil
}

// unalias returns the agent that an alias stands for, and any other name as it is.
func (m *BackgroundManager) unalias(name string) string {
	if _, ok := m.cfg.Agents[name]; ok {
		return name
	}
	for agent, a := range m.cfg.Agents {
		if slices.Contains(a.Aliases, name) {
			return agent
		}
	}
	return name
}

func (m *BackgroundManager) launchable() []string {
	var names []string
	for name, a := range m.cfg.Agents {
		if !a.Disabled {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// checkLocked says whether a plan may be carried out now.
func (m *BackgroundManager) checkLocked(p plan) error {
	if err := m.admitLocked(p.origin); err != nil {
		return err
	}
	depth := m.cfg.Spawn.QueueDepth
	if depth == Off {
		return nil
	}
	k := keyOf(p.in.Agent, p.in.Model)
	if s := m.sems[k.Kind][k.Name]; s != nil && s.queue.all.n >= depth {
		return &LimitError{
			Kind: ErrQueueFull, Setting: "Config.Spawn.QueueDepth", Limit: depth, Used: s.queue.all.n,
			Parent: p.in.Parent, Root: p.origin.Root, Key: k,
		}
	}
	return nil
}

// launchLocked carries a plan out: check and reserve are one critical section.
func (m *BackgroundManager) launchLocked(p plan) (*task, error) {
	if err := m.checkLocked(p); err != nil {
		return nil, err
	}
	now := m.now()
	t := &task{
		id: p.id, number: int32(len(m.tasks)), in: capture(&p.in), limits: p.limits, silent: p.in.NoNotice,
		owner: m.mailboxLocked(p.origin), root: m.spawnLocked(p.origin),
		depth: int16(p.origin.Depth), run: 1, status: Pending, queued: now,
	}
	t.taker = t
	m.tasks = append(m.tasks, t)
	m.byID[t.id] = t
	t.owner.children = append(t.owner.children, t)
	t.owner.live++
	m.adoptChildLocked(t, p.origin)
	m.live++
	m.count[Pending]++
	m.nameSharesLocked(&t.ticket, p.in.Parent, t.in.Agent, t.in.Model)
	m.enqueueLocked(&t.ticket)
	if t.limits.QueueWait != Off {
		t.queueWait = &deadline{owner: t}
		m.armLocked(t.queueWait, now.after(t.limits.QueueWait))
	}
	m.countWatchesLocked(t)
	return t, nil
}

// dueLocked is a pending task's deadline: it waited too long.
func (t *task) dueLocked(m *BackgroundManager, now instant) {
	if t.status != Pending {
		return
	}
	m.stopLocked(t, &Reason{
		Code: QueueTimeout, Limit: "queue wait", Value: t.limits.QueueWait.String(),
		Observed: time.Duration(now - t.queued).String(), Setting: "TaskLimits.QueueWait",
	}, false)
}
