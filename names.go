package subagent

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// What models, providers, agents and tools may be called: the same in Config, in
// Launch and Acquire, and in SetLimit.

const (
	modelRule    = `must be "provider/model", or a bare name, which has no provider, without space or slashes around it`
	providerRule = "a provider is what stands before a model's first slash"
	agentRule    = "a name can't be blank or stand in quotes or slashes"
	memberRule   = "must be the name, and no alias, of one of Config.Agents"
	toolRule     = "a tool's name can't be blank"
)

// checkModel checks the name of a model where there is one.
func checkModel(field, name string) error {
	if name != strings.TrimSpace(name) || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
		return &InputError{field, strconv.Quote(name), modelRule}
	}
	return nil
}

// checkTools checks the names of tools that are switched.
func checkTools(field string, tools map[string]bool) error {
	for name := range tools {
		if strings.TrimSpace(name) == "" {
			return &InputError{fmt.Sprintf("%s[%q]", field, name), strconv.Quote(name), toolRule}
		}
	}
	return nil
}

// limitable is the rule that a name breaks under which nothing could ever be counted,
// or "": for the maps of Config.Keys and for SetLimit.
func (c *Config) limitable(k Key) string {
	_, member := c.Agents[k.Name]
	for _, r := range []struct {
		kind   KeyKind
		broken bool
		rule   string
	}{
		{k.Kind, k.Name == "", "a name must not be empty"},
		{ModelKey, checkModel("", k.Name) != nil, modelRule},
		{ProviderKey, k.Name != strings.TrimSpace(k.Name) || strings.Contains(k.Name, "/"), providerRule},
		{AgentKey, c.Agents == nil && k.Name != cleanAgent(k.Name), agentRule},
		{AgentKey, c.Agents != nil && !member, memberRule},
	} {
		if r.kind == k.Kind && r.broken {
			return r.rule
		}
	}
	return ""
}

// validate checks all that has a name.
func (c *Config) validate() error {
	for _, m := range []struct {
		field  string
		kind   KeyKind
		limits map[string]int
	}{
		{"Config.Keys.Models", ModelKey, c.Keys.Models},
		{"Config.Keys.Providers", ProviderKey, c.Keys.Providers},
		{"Config.Keys.Agents", AgentKey, c.Keys.Agents},
	} {
		for _, name := range slices.Sorted(maps.Keys(m.limits)) {
			field := fmt.Sprintf("%s[%q]", m.field, name)
			if rule := c.limitable(Key{m.kind, name}); rule != "" {
				return &InputError{field, strconv.Quote(name), rule}
			}
			if n := m.limits[name]; n < Off {
				return &InputError{field, strconv.Itoa(n), leastRule(Off)}
			}
		}
	}
	if err := checkTools("Config.Tools", c.Tools); err != nil {
		return err
	}
	return c.validateAgents()
}

// validateAgents checks each agent, and that no name stands for two.
func (c *Config) validateAgents() error {
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Agents)) {
		agent := c.Agents[name]
		field := fmt.Sprintf("Config.Agents[%q]", name)
		for _, err := range []error{
			agent.Limits.validate(field + ".Limits"),
			checkModel(field+".Model", agent.Model),
			checkTools(field+".Tools", agent.Tools),
			claimName(owner, field, name, name),
		} {
			if err != nil {
				return err
			}
		}
		for i, alias := range agent.Aliases {
			if err := claimName(owner, fmt.Sprintf("%s.Aliases[%d]", field, i), alias, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// claimName notes whose a name is.
func claimName(owner map[string]string, field, name, agent string) error {
	switch other, taken := owner[name]; {
	case cleanAgent(name) != name || name == "":
		return &InputError{field, strconv.Quote(name), agentRule}
	case taken:
		return &InputError{field, strconv.Quote(name), fmt.Sprintf("the name belongs to agent %q already", other)}
	}
	owner[name] = agent
	return nil
}

// cleanAgent takes off what models put around a name.
func cleanAgent(name string) string { return strings.Trim(name, " \t\r\n\"'`/\\") }
