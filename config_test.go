package subagent

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is one of several, and what does not go together.
func TestConfigChoices(t *testing.T) {
	for _, c := range []struct {
		field, value, rule string
		cfg                Config
	}{
		{"Config.Mailbox.Push", "PushPolicy(3)", "must be one of PushAll, PushFinal and PushOff", Config{Mailbox: MailboxPolicy{Push: 3}}},
		{"Config.Mailbox.WakeEach", "true", "goes with PushAll only", Config{Mailbox: MailboxPolicy{Push: PushFinal, WakeEach: true}}},
		{"Config.Mailbox.WakeEach", "true", "goes with PushAll only", Config{Mailbox: MailboxPolicy{Push: PushOff, WakeEach: true}}},
		{"Config.Mailbox.ReadHint", "401 bytes long", "must be at most 400", Config{Mailbox: MailboxPolicy{ReadHint: strings.Repeat("x", 401)}}},
		{"Config.Mailbox.Gather", "1m0s", "must be at most GatherMax, 1s", Config{Mailbox: MailboxPolicy{Gather: time.Minute, GatherMax: time.Second}}},
		{"Config.Mailbox.Backoff", "1m0s", "must be at most BackoffMax, 1s", Config{Mailbox: MailboxPolicy{Backoff: time.Minute, BackoffMax: time.Second}}},
		{"Config.Interrupted", "InterruptedPolicy(9)", "must be one of InterruptedKeep, InterruptedStopPending and InterruptedStopAll", Config{Interrupted: 9}},
	} {
		_, err := New(&stub{}, c.cfg)
		wrong(c.field, c.value, c.rule)(t, err)
	}
	for _, cfg := range []Config{{Mailbox: MailboxPolicy{Push: PushOff, ReadHint: strings.Repeat("x", 400)}}, {Mailbox: MailboxPolicy{WakeEach: true}}, {Interrupted: InterruptedStopAll}} {
		newManager(t, &stub{}, cfg)
	}
}

// Of two durations that bound each other, the one that is set counts.
func TestConfigPairs(t *testing.T) {
	type pair [2]time.Duration
	for _, c := range []struct{ gather, gathered, backoff, backed pair }{
		{pair{}, pair{100 * time.Millisecond, time.Second}, pair{}, pair{500 * time.Millisecond, 30 * time.Second}},
		{pair{time.Minute, 0}, pair{time.Minute, time.Minute}, pair{time.Minute, 0}, pair{time.Minute, time.Minute}},
		{pair{0, time.Millisecond}, pair{time.Millisecond, time.Millisecond}, pair{0, time.Millisecond}, pair{time.Millisecond, time.Millisecond}},
		{pair{Off, 0}, pair{Off, time.Second}, pair{time.Second, time.Second}, pair{time.Second, time.Second}},
		{pair{time.Minute, Off}, pair{time.Minute, Off}, pair{0, time.Hour}, pair{500 * time.Millisecond, time.Hour}},
		{pair{0, Off}, pair{100 * time.Millisecond, Off}, pair{}, pair{500 * time.Millisecond, 30 * time.Second}},
	} {
		got, err := Config{Mailbox: MailboxPolicy{Gather: c.gather[0], GatherMax: c.gather[1], Backoff: c.backoff[0], BackoffMax: c.backoff[1]}}.prepared()
		require.NoError(t, err)
		require.Equal(t, c.gathered, pair{got.Mailbox.Gather, got.Mailbox.GatherMax})
		require.Equal(t, c.backed, pair{got.Mailbox.Backoff, got.Mailbox.BackoffMax})
	}
}

// The zero Config works, with the defaults that its comments give.
func TestConfigDefaults(t *testing.T) {
	c, err := Config{}.prepared()
	require.NoError(t, err)
	c.Mailbox.Render = nil
	require.Equal(t, Config{
		Keys:  KeyLimits{Default: 5, Global: Off, PerParent: Off, Starts: Off},
		Spawn: SpawnLimits{Depth: 3, LivePerRoot: 64, TotalPerRoot: Off, QueueDepth: Off},
		Task:  TaskLimits{QueueWait: Off, Start: time.Minute, ResultBytes: 256 << 10},
		Mailbox: MailboxPolicy{
			Gather: 100 * time.Millisecond, GatherMax: time.Second, Tries: 8,
			Backoff: 500 * time.Millisecond, BackoffMax: 30 * time.Second, Timeout: 30 * time.Second, BusyMax: time.Minute, KeepAge: 12 * time.Hour, KeepCount: 10_000,
			PreviewBytes: 700, TextBytes: 8192,
		},
		Retention:  Retention{Age: time.Hour, Together: time.Hour, Count: 10_000, Bytes: 256 << 20},
		AbortGrace: 10 * time.Second,
	}, c)
}

// configNumber is one number of Config: where it is, and the least value it may have.
type configNumber struct {
	field string
	set   func(*Config, int)
	time  bool
	least int // Off where that is allowed
}

// rule is the rule for a number, in words, and as a test.
func (l *configNumber) rule() (words string, allows func(n int) bool) {
	at := max(l.least, 1)
	if l.time {
		at = int(time.Millisecond)
	}
	most := math.MaxInt
	if l.field == "Spawn.Depth" { // what is deeper is taken for a cycle
		most = 256
	}
	allows = func(n int) bool { return n == 0 || n >= at && n <= most || n == Off && l.least == Off }
	switch {
	case most == 256:
		return "must be from 1 to 256, 0 for the default, or Off", allows
	case l.time && l.least == Off:
		return "must be at least 1ms, 0 for the default, or Off", allows
	case l.time:
		return "must be at least 1ms, or 0 for the default", allows
	case l.least == Off:
		return "must be positive, 0 for the default, or Off", allows
	default:
		return fmt.Sprintf("must be at least %d, or 0 for the default", at), allows
	}
}

func configNumbers() []configNumber {
	d := func(n int) time.Duration { return time.Duration(n) }
	return []configNumber{
		{"Keys.Default", func(c *Config, n int) { c.Keys.Default = n }, false, Off},
		{"Keys.Global", func(c *Config, n int) { c.Keys.Global = n }, false, Off},
		{"Keys.PerParent", func(c *Config, n int) { c.Keys.PerParent = n }, false, Off},
		{"Keys.Starts", func(c *Config, n int) { c.Keys.Starts = n }, false, Off},
		{`Keys.Models["a/b"]`, func(c *Config, n int) { c.Keys.Models = map[string]int{"ok": 1, "a/b": n} }, false, Off},
		{`Keys.Providers["a"]`, func(c *Config, n int) { c.Keys.Providers = map[string]int{"ok": Off, "a": n} }, false, Off},
		{`Keys.Agents["x"]`, func(c *Config, n int) { c.Keys.Agents = map[string]int{"ok": 0, "x": n} }, false, Off},
		{"Spawn.Depth", func(c *Config, n int) { c.Spawn.Depth = n }, false, Off},
		{"Spawn.LivePerRoot", func(c *Config, n int) { c.Spawn.LivePerRoot = n }, false, Off},
		{"Spawn.TotalPerRoot", func(c *Config, n int) { c.Spawn.TotalPerRoot = n }, false, Off},
		{"Spawn.QueueDepth", func(c *Config, n int) { c.Spawn.QueueDepth = n }, false, Off},
		{"Task.QueueWait", func(c *Config, n int) { c.Task.QueueWait = d(n) }, true, Off},
		{"Task.Start", func(c *Config, n int) { c.Task.Start = d(n) }, true, Off},
		{"Task.ResultBytes", func(c *Config, n int) { c.Task.ResultBytes = n }, false, Off},
		{"Mailbox.Gather", func(c *Config, n int) { c.Mailbox.Gather = d(n) }, true, Off},
		{"Mailbox.GatherMax", func(c *Config, n int) { c.Mailbox.GatherMax = d(n) }, true, Off},
		{"Mailbox.Tries", func(c *Config, n int) { c.Mailbox.Tries = n }, false, 1},
		{"Mailbox.Backoff", func(c *Config, n int) { c.Mailbox.Backoff = d(n) }, true, 1},
		{"Mailbox.BackoffMax", func(c *Config, n int) { c.Mailbox.BackoffMax = d(n) }, true, 1},
		{"Mailbox.Timeout", func(c *Config, n int) { c.Mailbox.Timeout = d(n) }, true, 1},
		{"Mailbox.BusyMax", func(c *Config, n int) { c.Mailbox.BusyMax = d(n) }, true, Off},
		{"Mailbox.KeepAge", func(c *Config, n int) { c.Mailbox.KeepAge = d(n) }, true, Off},
		{"Mailbox.KeepCount", func(c *Config, n int) { c.Mailbox.KeepCount = n }, false, Off},
		{"Mailbox.PreviewBytes", func(c *Config, n int) { c.Mailbox.PreviewBytes = n }, false, Off},
		{"Mailbox.TextBytes", func(c *Config, n int) { c.Mailbox.TextBytes = n }, false, 1024},
		{"Retention.Age", func(c *Config, n int) { c.Retention.Age = d(n) }, true, Off},
		{"Retention.Together", func(c *Config, n int) { c.Retention.Together = d(n) }, true, Off},
		{"Retention.Count", func(c *Config, n int) { c.Retention.Count = n }, false, Off},
		{"Retention.Bytes", func(c *Config, n int) { c.Retention.Bytes = n }, false, Off},
		{"AbortGrace", func(c *Config, n int) { c.AbortGrace = d(n) }, true, 1},
	}
}

// Scenarios 27 and C026: 0 is the default, Off is none, and no other number can
// make a queue that is dead. Each number that is not allowed is refused by the
// name of its field, what it is, and what it may be.
func TestConfigNumbers(t *testing.T) {
	named := map[string]bool{}
	for _, l := range configNumbers() {
		named["Config."+l.field] = true
		t.Run(l.field, func(t *testing.T) {
			rule, allows := l.rule()
			for _, n := range []int{-1_000_000_007, -2, Off, 0, 1, 10, 256, 257, 1023, 1024, 999_999, 1_000_000, 1_000_000_007} {
				var c Config
				l.set(&c, n)
				m, err := New(&stub{}, c)
				if allows(n) {
					require.NoError(t, err, n)
					require.NoError(t, m.Close())
					continue
				}
				value := fmt.Sprint(n)
				if l.time {
					value = fmt.Sprint(time.Duration(n))
				}
				if n == Off {
					value = "Off"
				}
				require.Nil(t, m)
				wrong("Config."+l.field, value, rule)(t, err)
			}
		})
	}
	for _, s := range settings {
		require.True(t, named[s.field], "%s has no test", s.field)
	}
}

func TestConfigOffStaysOff(t *testing.T) {
	for _, l := range configNumbers() {
		if l.least != Off {
			continue
		}
		var c, want Config
		l.set(&c, Off)
		c, err := c.prepared()
		require.NoError(t, err)
		want, err = want.prepared()
		require.NoError(t, err)
		l.set(&want, Off)
		c.Mailbox.Render, want.Mailbox.Render = nil, nil
		require.Equal(t, want, c, l.field)
	}
}

// The rules for agents: each name stands for one agent, and is written as Launch
// would clean it, since nothing else could ever be found.
func TestConfigAgents(t *testing.T) {
	const shape = "a name can't be blank or stand in quotes or slashes"
	type agents = map[string]Agent
	for _, c := range []struct {
		name               string
		agents             agents
		field, value, rule string
	}{
		{"blank", agents{"": {}}, `Config.Agents[""]`, `""`, shape},
		{"spaces", agents{" a": {}}, `Config.Agents[" a"]`, `" a"`, shape},
		{"quotes", agents{"'a'": {}}, `Config.Agents["'a'"]`, `"'a'"`, shape},
		{"slash", agents{"/a": {}}, `Config.Agents["/a"]`, `"/a"`, shape},
		{"blank alias", agents{"a": {Aliases: []string{"b", ""}}}, `Config.Agents["a"].Aliases[1]`, `""`, shape},
		{"alias in quotes", agents{"a": {Aliases: []string{"`b`"}}}, `Config.Agents["a"].Aliases[0]`, "\"`b`\"", shape},
		{"alias of two", agents{"a": {Aliases: []string{"x"}}, "b": {Aliases: []string{"x"}}}, `Config.Agents["b"].Aliases[0]`, `"x"`, `the name belongs to agent "a" already`},
		{"alias is an agent", agents{"a": {Aliases: []string{"b"}}, "b": {}}, `Config.Agents["b"]`, `"b"`, `the name belongs to agent "a" already`},
		{"alias twice", agents{"a": {Aliases: []string{"x", "x"}}}, `Config.Agents["a"].Aliases[1]`, `"x"`, `the name belongs to agent "a" already`},
		{"alias is its own", agents{"a": {Aliases: []string{"a"}}}, `Config.Agents["a"].Aliases[0]`, `"a"`, `the name belongs to agent "a" already`},
		{"model without a name", agents{"a": {Model: "x/"}}, `Config.Agents["a"].Model`, `"x/"`, modelRule},
		{"model in spaces", agents{"a": {Model: " x/y"}}, `Config.Agents["a"].Model`, `" x/y"`, modelRule},
		{"tool", agents{"a": {Tools: map[string]bool{"read": true, "": false}}}, `Config.Agents["a"].Tools[""]`, `""`, toolRule},
		{"queue wait", agents{"a": {Limits: &TaskLimits{QueueWait: -2}}}, `Config.Agents["a"].Limits.QueueWait`, "-2ns", "must be at least 1ms, 0 to inherit, or Off"},
		{"start", agents{"a": {Limits: &TaskLimits{Start: -2}}}, `Config.Agents["a"].Limits.Start`, "-2ns", "must be at least 1ms, 0 to inherit, or Off"},
		{"start without a unit", agents{"a": {Limits: &TaskLimits{Start: 60}}}, `Config.Agents["a"].Limits.Start`, "60ns", "must be at least 1ms, 0 to inherit, or Off"},
		{"result bytes", agents{"a": {Limits: &TaskLimits{ResultBytes: -2}}}, `Config.Agents["a"].Limits.ResultBytes`, "-2", "must be positive, 0 to inherit, or Off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(&stub{}, Config{Agents: c.agents})
			wrong(c.field, c.value, c.rule)(t, err)
		})
	}
	m := newManager(t, &stub{}, Config{Agents: agents{
		"a": {Aliases: []string{"b", "c d"}, Limits: &TaskLimits{QueueWait: Off, Start: time.Millisecond, ResultBytes: Off}},
		"x": {Limits: &TaskLimits{}},
	}})
	require.Equal(t, []string{"a", "x"}, m.launchable())
}

// A name that nothing can have is refused where it stands, and so by SetLimit: no
// limit is set that would never count.
func TestLimitsOfNamesRefused(t *testing.T) {
	agents := map[string]Agent{"a": {Aliases: []string{"b"}}}
	const empty = "a name must not be empty"
	for _, c := range []struct {
		key    Key
		agents map[string]Agent
		rule   string
	}{
		{Key{ModelKey, ""}, nil, empty},
		{Key{ModelKey, " x/y"}, nil, modelRule},
		{Key{ModelKey, "x/"}, nil, modelRule},
		{Key{ModelKey, "/y"}, nil, modelRule},
		{Key{ModelKey, "/"}, nil, modelRule},
		{Key{ProviderKey, ""}, nil, empty},
		{Key{ProviderKey, "x "}, nil, providerRule},
		{Key{ProviderKey, "x/y"}, nil, providerRule},
		{Key{AgentKey, ""}, agents, empty},
		{Key{AgentKey, "'a'"}, nil, agentRule},
		{Key{AgentKey, "c"}, agents, memberRule},
		{Key{AgentKey, "b"}, agents, memberRule},
		{Key{AgentKey, "/a/"}, agents, memberRule},
		{Key{AgentKey, "a"}, map[string]Agent{}, memberRule},
		// What is a name:
		{Key{ModelKey, "x/y"}, nil, ""},
		{Key{ModelKey, "x/y/z:1"}, nil, ""},
		{Key{ModelKey, "bare"}, nil, ""},
		{Key{ProviderKey, "x"}, nil, ""},
		{Key{AgentKey, "any"}, nil, ""},
		{Key{AgentKey, "a"}, agents, ""},
	} {
		t.Run(fmt.Sprintf("%s %d agents", c.key, len(c.agents)), func(t *testing.T) {
			cfg, limits := Config{Agents: c.agents}, map[string]int{c.key.Name: 3}
			field := map[KeyKind]string{ModelKey: "Models", ProviderKey: "Providers", AgentKey: "Agents"}[c.key.Kind]
			switch c.key.Kind {
			case ModelKey:
				cfg.Keys.Models = limits
			case ProviderKey:
				cfg.Keys.Providers = limits
			case AgentKey:
				cfg.Keys.Agents = limits
			}
			m := newManager(t, &stub{}, Config{Agents: c.agents})
			_, err := New(&stub{}, cfg)
			if c.rule == "" {
				require.NoError(t, err)
				require.NoError(t, m.SetLimit(c.key, 3))
				return
			}
			wrong(fmt.Sprintf("Config.Keys.%s[%q]", field, c.key.Name), fmt.Sprintf("%q", c.key.Name), c.rule)(t, err)
			if c.key.Name != "" { // see TestSetLimitRefused
				wrong("key", c.key.String(), c.rule)(t, m.SetLimit(c.key, 3))
			}
		})
	}
}

func TestConfigTools(t *testing.T) {
	_, err := New(&stub{}, Config{Tools: map[string]bool{"read": true, " ": true}})
	wrong(`Config.Tools[" "]`, `" "`, toolRule)(t, err)
}

// A client or notifier that can't be called is refused by New, and not found out by a
// panic in the first task.
func TestNewNeedsAClient(t *testing.T) {
	var notifier *inbox
	const client, rule = "a SessionClient is needed", "can't be called; leave it out for the default"
	for _, c := range []struct {
		client             SessionClient
		notifier           Notifier
		field, value, rule string
	}{
		{nil, nil, "client", "nil", client},
		{(*stub)(nil), nil, "client", "(*subagent.stub)(nil)", client},
		{(*BlockingClient)(nil), nil, "client", "(*subagent.BlockingClient)(nil)", client},
		{&stub{}, NotifierFunc(nil), "Config.Notifier", "(subagent.NotifierFunc)(nil)", rule},
		{&stub{}, notifier, "Config.Notifier", "(*subagent.inbox)(nil)", rule},
	} {
		m, err := New(c.client, Config{Notifier: c.notifier})
		require.Nil(t, m)
		wrong(c.field, c.value, c.rule)(t, err)
	}
	require.Panics(t, func() { Func(nil) })
}

// A manager that New did not make says so, whatever it is asked to do.
func TestManagerNotMadeByNew(t *testing.T) {
	for name, m := range map[string]*BackgroundManager{"zero": {}, "nil": nil} {
		ctx := t.Context()
		for verb, call := range map[string]func() error{
			"Launch":    func() error { _, err := m.Launch(ctx, work("p")); return err },
			"CanLaunch": func() error { return m.CanLaunch(ctx, work("p")) },
			"Do":        func() error { _, err := m.Do(ctx, work("p")); return err },
			"Reserve":   func() error { _, err := m.Reserve(ctx, "p"); return err },
			"Acquire":   func() error { _, err := m.Acquire(ctx, Holder{Agent: "a"}); return err },
			"WaitAny":   func() error { _, err := m.WaitAny(ctx, Filter{}); return err },
			"WaitAll":   func() error { _, err := m.WaitAll(ctx, Filter{}); return err },
			"CancelAll": func() error { _, err := m.CancelAll(ctx, Filter{Parent: "p"}, CancelOptions{}); return err },
			"SetLimit":  func() error { return m.SetLimit(Key{Kind: GlobalKey}, 1) },
			"Shutdown":  func() error { return m.Shutdown(ctx) },
			"Close":     func() error { return m.Close() },
		} {
			t.Run(name+" "+verb, func(t *testing.T) {
				wrong("BackgroundManager", "nil or its zero value", "make one with New")(t, call())
			})
		}
		require.Empty(t, m.List(Filter{}))
	}
	var m BackgroundManager
	_, err := m.Get("bg_1")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = m.Cancel(t.Context(), "bg_1", CancelOptions{})
	require.ErrorIs(t, err, ErrNotFound)
	require.Zero(t, m.Pending("p"))
}

// A limit that a launch leaves open comes from its agent, then from the manager.
func TestTaskLimitsOver(t *testing.T) {
	base := TaskLimits{QueueWait: 1, Start: 2, ResultBytes: 3}
	var none *TaskLimits
	require.Equal(t, base, none.over(base))
	require.Equal(t, base, (&TaskLimits{}).over(base))
	require.Equal(t, TaskLimits{QueueWait: Off, Start: 2, ResultBytes: 3}, (&TaskLimits{QueueWait: Off}).over(base))
	require.Equal(t, TaskLimits{QueueWait: 1, Start: 7, ResultBytes: Off}, (&TaskLimits{Start: 7, ResultBytes: Off}).over(base))
}

// Off is no bound, and not a bound of nought: a batch without one is gathered for
// as long as its children keep ending.
func TestGatherMaxOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := newManager(t, Func(echo), Config{Notifier: box, Mailbox: MailboxPolicy{Gather: time.Second, GatherMax: Off}})
		for range 10 {
			launch(t, m, work("p"))
			time.Sleep(time.Second / 2)
		}
		require.Empty(t, box.all())
		pass(time.Second / 2)
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Notices, 10)
	})
}
