package subagent

import (
	"cmp"
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
	// Prompt is the child's first message. Required. Its size is not bounded, and it
	// is kept as long as the task; Config.Admit can refuse one that is too long.
	Prompt string

	Description string // a few words for people
	Model       string // "provider/model", or a bare name, which has no provider; space around it is taken off. Defaults to the agent's, else to the client's choice.
	Variant     string // of the model, as the client knows it
	System      string // extra system text
	Dir         string // working directory, in the file system of the client's host, which may want it absolute. Defaults to the client's choice.
	Origin      string // the parent's tool call that asked

	Tools    map[string]bool   // switches tools on and off; off anywhere is off
	Labels   map[string]string // for the host's own use
	Limits   *TaskLimits       // beats the agent's and the manager's, field by field
	NoNotice bool              // the parent is not told

	// ParentContext is what the parent is like, for a host that can't tell when it is
	// to be told: the latest launch's comes with each notification.
	ParentContext ParentContext
}

// ParentContext is what a parent was like when it launched.
type ParentContext struct {
	Message, Agent, Model, Variant string
	Tools                          map[string]bool
}

func (c *ParentContext) clone() *ParentContext {
	if c == nil {
		return nil
	}
	own := *c
	own.Tools = maps.Clone(c.Tools)
	return &own
}

// given is a copy of a context that says something, or nil.
func (c *ParentContext) given() *ParentContext {
	if c.Message == "" && c.Agent == "" && c.Model == "" && c.Variant == "" && c.Tools == nil {
		return nil
	}
	return c.clone()
}

// Launch adds a task and returns at once with its snapshot, pending or starting.
// It never waits for the client, but for the client's lineage and Config.Admit
// where it has to ask them. ctx bounds the call and not the task.
//
// A refusal changes nothing: *[InputError], *[AgentError] for an unknown or
// disabled agent, *[LimitError], or an error that is [ErrLineage],
// [ErrParentEnded], [ErrClosed], ctx's own, or what Config.Admit returned.
func (m *BackgroundManager) Launch(ctx context.Context, in LaunchInput) (Task, error) {
	t, o, err := m.plan(ctx, in)
	if err != nil {
		return Task{}, err
	}
	m.mu.Lock()
	defer m.unlock()
	if err := m.launchLocked(t, o); err != nil {
		return Task{}, err
	}
	m.dispatchLocked()
	return m.snapshotLocked(t), nil
}

// CanLaunch returns the error that Launch would return for the same input now,
// or nil, and records nothing. It asks whom Launch would ask, also Config.Admit.
func (m *BackgroundManager) CanLaunch(ctx context.Context, in LaunchInput) error {
	t, o, err := m.plan(ctx, in)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkLocked(m.nowLocked(o), keyOf(t.in.Agent, t.in.Model), t.silent, false)
}

// AgentError is a launch refused because of its agent.
type AgentError struct {
	Kind  error    // ErrUnknownAgent or ErrAgentDisabled
	Agent string   // as cleaned
	Known []string // the agents that may be launched, sorted
}

// Error names the agent and those that may be launched.
func (e *AgentError) Error() string {
	return fmt.Sprintf("%v: %q; those that may be launched: %q", e.Kind, e.Agent, e.Known)
}

// Unwrap returns Kind.
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
	ParentContext        *ParentContext
}

var noExtras extras

func capture(in *LaunchInput) captured {
	c := captured{in.Agent, in.Model, in.Prompt, in.Description, in.Origin, &noExtras}
	parent := in.ParentContext.given()
	if in.Variant != "" || in.System != "" || in.Dir != "" || in.Tools != nil || in.Labels != nil || parent != nil {
		c.extras = &extras{in.Variant, in.System, in.Dir, in.Tools, in.Labels, parent}
	}
	return c
}

// plan checks an input, resolves what it leaves open, asks the host where it must,
// and makes the task, which is not in the books yet. It records nothing.
func (m *BackgroundManager) plan(ctx context.Context, in LaunchInput) (*task, origin, error) {
	if err := m.made(); err != nil {
		return nil, origin{}, err
	}
	if ctx.Err() != nil {
		return nil, origin{}, context.Cause(ctx)
	}
	limits, err := m.resolve(&in)
	if err != nil {
		return nil, origin{}, err
	}
	o, err := m.trace(ctx, in.Parent)
	if err != nil {
		return nil, origin{}, err
	}
	if m.cfg.Admit != nil {
		if err := m.admit(ctx, in, o.Lineage); err != nil {
			return nil, origin{}, err
		}
	}
	t := &task{
		id: newTaskID(), in: capture(&in), limits: limits, silent: in.NoNotice,
		run: 1, status: Pending,
	}
	t.taker = t
	if ctx.Err() != nil {
		return nil, origin{}, context.Cause(ctx)
	}
	return t, o, nil
}

// admit asks the host about a launch. What it is shown is its own to change.
func (m *BackgroundManager) admit(ctx context.Context, in LaunchInput, l Lineage) error {
	in.Tools, in.Labels = maps.Clone(in.Tools), maps.Clone(in.Labels)
	in.ParentContext.Tools = maps.Clone(in.ParentContext.Tools)
	if in.Limits != nil {
		limits := *in.Limits
		in.Limits = &limits
	}
	return guard("admit", func() error { return m.cfg.Admit(ctx, in, l) })
}

// resolve checks an input and fills in what its agent and the manager give it.
func (m *BackgroundManager) resolve(in *LaunchInput) (*TaskLimits, error) {
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
		{"LaunchInput.Parent", string(in.Parent), in.Parent != "" && strings.TrimSpace(string(in.Parent)) == "", "can't be blank"},
	} {
		if r.broken {
			return nil, &InputError{r.field, strconv.Quote(r.value), r.rule}
		}
	}
	in.Model = strings.TrimSpace(in.Model)
	for _, err := range []error{
		in.Limits.validate("LaunchInput.Limits"),
		checkModel("LaunchInput.Model", in.Model),
		checkTools("LaunchInput.Tools", in.Tools),
	} {
		if err != nil {
			return nil, err
		}
	}
	agent, err := m.agent(in.Agent)
	if err != nil {
		return nil, err
	}
	if agent.name != "" {
		in.Agent = agent.name
	}
	in.Model = cmp.Or(in.Model, agent.Model)
	in.Tools = maps.Clone(in.Tools)
	in.Labels = maps.Clone(in.Labels)
	limits := &m.cfg.Task
	if in.Limits != nil || agent.Limits != nil {
		own := in.Limits.over(agent.Limits.over(m.cfg.Task))
		limits = &own
	}
	return limits, nil
}

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

// checkLocked says whether a run may begin now: again tells that its task was counted
// before.
func (m *BackgroundManager) checkLocked(o origin, k Key, silent, again bool) error {
	if err := m.admitLocked(o, again); err != nil {
		return err
	}
	if err := m.heardLocked(o, silent); err != nil {
		return err
	}
	depth := m.cfg.Spawn.QueueDepth
	if depth == Off {
		return nil
	}
	if s := m.sems[k.Kind][k.Name]; s != nil && s.queue.all.n >= depth {
		return &LimitError{
			Kind: ErrQueueFull, Setting: "Config.Spawn.QueueDepth", Limit: depth, Used: s.queue.all.n,
			Parent: o.Parent, Root: o.Root, Key: k,
		}
	}
	return nil
}

// heardLocked refuses a run of whose end nobody would be told, if the host wants that.
func (m *BackgroundManager) heardLocked(o origin, silent bool) error {
	if m.cfg.Mailbox.Required && !silent && !m.listensLocked(o) {
		return fmt.Errorf("%w: of what session %q launches; Config.Mailbox.Required is set", ErrNobodyToTell, o.Parent)
	}
	return nil
}

// launchLocked enters a planned task into the books: check and reserve are one
// critical section.
func (m *BackgroundManager) launchLocked(t *task, o origin) error {
	o = m.nowLocked(o)
	if err := m.checkLocked(o, keyOf(t.in.Agent, t.in.Model), t.silent, false); err != nil {
		return err
	}
	t.depth = int16(o.Depth)
	t.number, t.queued = m.numbered, m.now()
	m.numbered++
	t.owner, t.root = m.mailboxLocked(o), m.spawnLocked(o)
	m.tasks = append(m.tasks, t)
	m.byID[t.id] = t
	t.owner.children = append(t.owner.children, t)
	t.owner.addLiveLocked()
	m.adoptChildLocked(t, o)
	m.live++
	m.count[Pending]++
	m.joinLocked(t, t.in.ParentContext)
	return nil
}

// joinLocked puts a run that begins where it waits for its turn.
func (m *BackgroundManager) joinLocked(t *task, parent *ParentContext) {
	if parent != nil {
		t.owner.context = parent
	}
	m.nameSharesLocked(&t.ticket, t.parent(), t.in.Agent, t.in.Model)
	m.enqueueLocked(&t.ticket)
	if t.limits.QueueWait != Off {
		t.queueWait = &deadline{owner: t}
		m.armLocked(t.queueWait, t.queued.after(t.limits.QueueWait))
	}
	m.countWatchesLocked(t)
	m.emitLocked(t, TopicStatus, nil)
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
