package subagent

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Scenarios 41, C024 and C026: a raised limit starts what waits at once; under a
// lowered one nothing is stopped, and nothing starts until there is room.
func TestSetLimit(t *testing.T) {
	for name, c := range map[string]struct {
		keys KeyLimits
		key  Key
	}{
		"model":    {KeyLimits{Default: 4, Models: map[string]int{"m/x": 1}}, Key{ModelKey, "m/x"}},
		"unnamed":  {KeyLimits{Default: 1}, Key{ModelKey, "m/x"}},
		"provider": {KeyLimits{Default: Off, Providers: map[string]int{"m": 1}}, Key{ProviderKey, "m"}},
		"agent":    {KeyLimits{Default: Off, Agents: map[string]int{"worker": 1}}, Key{AgentKey, "worker"}},
		"global":   {KeyLimits{Default: Off, Global: 1}, Key{Kind: GlobalKey}},
		"parent":   {KeyLimits{Default: Off, PerParent: 1}, Key{Kind: ParentKey}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				m := newManager(t, Func(s.run), Config{Keys: c.keys})
				for i := range 10 {
					launch(t, m, asks("p", "m/x", fmt.Sprint(i)))
				}
				require.Equal(t, []string{"0"}, s.now())

				require.NoError(t, m.SetLimit(c.key, 3))
				require.Equal(t, []string{"0", "1", "2"}, s.now())
				require.NoError(t, m.SetLimit(c.key, 1))
				require.Equal(t, []string{"0", "1", "2"}, s.now())
				s.end("1", "0")
				require.Equal(t, []string{"2"}, s.now())
				require.NoError(t, m.CheckBooks(nil, nil))
				s.end("2")
				require.Equal(t, []string{"3"}, s.now())
				require.NoError(t, m.SetLimit(c.key, 2))
				require.Equal(t, []string{"3", "4"}, s.now())

				require.NoError(t, m.SetLimit(c.key, Off))
				require.Equal(t, []string{"3", "4", "5", "6", "7", "8", "9"}, s.now())
				require.NoError(t, m.SetLimit(c.key, 0))
				require.Len(t, s.now(), 7)
				keys := &m.cfg.Keys
				require.Zero(t, len(keys.Models)+len(keys.Providers)+len(keys.Agents), "nothing is kept of it")
				require.NoError(t, m.CheckBooks(nil, nil))
			})
		})
	}
}

// 0 goes back to what holds without a setting of its own.
func TestSetLimitToTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 3, Models: map[string]int{"m/x": 1}}})
		for i := range 5 {
			launch(t, m, asks("p", "m/x", fmt.Sprint(i)))
		}
		require.NoError(t, m.SetLimit(Key{ModelKey, "m/x"}, 0))
		require.Equal(t, []string{"0", "1", "2"}, s.now())
		require.NoError(t, m.SetLimit(Key{ProviderKey, "m"}, 4))
		require.Equal(t, []string{"0", "1", "2", "3"}, s.now(), "a model's limit comes from its provider's, where it has none")
		require.NoError(t, m.SetLimit(Key{AgentKey, "worker"}, 1))
		require.NoError(t, m.SetLimit(Key{ProviderKey, "m"}, 0))
		s.end("0", "1", "2")
		require.Equal(t, []string{"3"}, s.now())
		require.NoError(t, m.SetLimit(Key{AgentKey, "worker"}, 0))
		require.Equal(t, []string{"3", "4"}, s.now())
		require.Equal(t, map[Key]int{{ModelKey, "m/x"}: 2}, held(m))
	})
}

// A cap per parent that is switched on while tasks run and wait counts those that
// run; what waits is parted and joined again without a change of order.
func TestPerParentSwitchedWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 3}})
		for i, parent := range []SessionID{"p", "p", "p", "p", "q", "p", "r", "q", "p"} {
			launch(t, m, asks(parent, "m/x", fmt.Sprint(i)))
		}
		require.Equal(t, []string{"0", "1", "2"}, s.now())
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, 1))
		require.NoError(t, m.CheckBooks(nil, nil))
		s.end("0")
		require.Equal(t, []string{"1", "2", "4"}, s.now(), "p has two still, so that q goes first")
		s.end("1")
		require.Equal(t, []string{"2", "4", "6"}, s.now(), "q has one")
		s.end("4")
		require.Equal(t, []string{"2", "6", "7"}, s.now())
		require.NoError(t, m.CheckBooks(nil, nil))
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, Off))
		s.end("6")
		require.Equal(t, []string{"2", "3", "7"}, s.now())
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, 2))
		s.end("7")
		require.Equal(t, []string{"2", "3"}, s.now())
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, 3))
		require.Equal(t, []string{"2", "3", "5"}, s.now())
		s.end("2", "3", "5", "8")
		require.Empty(t, m.limits())
	})
}

// What can't be set is refused by name, and nothing changes.
func TestSetLimitRefused(t *testing.T) {
	const rule = "must be a named model, agent or provider, or the whole of global, starts or parent"
	m := newManager(t, Func(echo), Config{})
	before := fmt.Sprint(m.cfg.Keys)
	for _, c := range []struct {
		key  Key
		text string
	}{
		{Key{}, "none"},
		{Key{Kind: ModelKey}, "model"},
		{Key{Kind: AgentKey}, "agent"},
		{Key{Kind: ProviderKey}, "provider"},
		{Key{AgentTotalKey, "a"}, "agent_total:a"},
		{Key{GlobalKey, "x"}, "global:x"},
		{Key{StartsKey, "x"}, "starts:x"},
		{Key{ParentKey, "p"}, "parent:p"},
		{Key{99, "x"}, "KeyKind(99):x"},
	} {
		wrong("key", c.text, rule)(t, m.SetLimit(c.key, 1))
	}
	wrong("limit", "-2", "must be positive, 0 for the default, or Off")(t, m.SetLimit(Key{ModelKey, "m/x"}, -2))
	require.Equal(t, before, fmt.Sprint(m.cfg.Keys))
}

// Stats tells for each limit in use its value, what is held, and who waits since
// when; scenario 53.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{
			Default: 2, Global: 9, PerParent: 8, Starts: 7,
			Models: map[string]int{"m/x": 2}, Providers: map[string]int{"m": 3}, Agents: map[string]int{"other": 1},
		}})
		require.Equal(t, []KeyStats{
			{Key: Key{Kind: GlobalKey}, Limit: 9}, {Key: Key{Kind: StartsKey}, Limit: 7},
		}, m.Stats().Keys)
		for i := range 4 {
			launch(t, m, asks("p", "m/x", fmt.Sprint(i)))
		}
		time.Sleep(time.Minute)
		launch(t, m, asks("p", "m/y", "y"))
		late := launch(t, m, asks("q", "m/y", "late"))
		launch(t, m, LaunchInput{Parent: "q", Agent: "other", Prompt: "alone"})
		c := newCallers(m)
		c.call("waits", Holder{Agent: "other"})
		time.Sleep(time.Second)

		require.Equal(t, Stats{
			Keys: []KeyStats{
				{Key{ModelKey, "m/x"}, 2, 2, 2, 61 * time.Second},
				{Key{ModelKey, "m/y"}, 3, 1, 1, time.Second},
				{Key{AgentKey, "other"}, 1, 1, 1, time.Second},
				{Key{ProviderKey, "m"}, 3, 3, 0, 0},
				{Key{AgentTotalKey, "other"}, 1, 1, 0, 0},
				{Key{Kind: GlobalKey}, 9, 4, 0, 0},
				{Key{ParentKey, "p"}, 8, 3, 0, 0},
				{Key{ParentKey, "q"}, 8, 1, 0, 0},
				{Key{Kind: StartsKey}, 7, 0, 0, 0},
			},
			Tasks: map[Status]int{Running: 4, Pending: 3},
			Calls: 4, Notices: NoticeStats{Deliveries: map[Delivery]int{}},
		}, m.Stats())
		require.Equal(t, 1, get(t, m, late.ID).Position)
		require.Equal(t, time.Second, time.Since(get(t, m, late.ID).Queued))

		s.end("alone", "0", "1", "2", "3", "y", "late")
		c.release("waits")
		time.Sleep(time.Minute)
		after := m.Stats()
		require.Equal(t, map[Status]int{Completed: 7}, after.Tasks)
		require.Equal(t, []KeyStats{
			{Key: Key{Kind: GlobalKey}, Limit: 9}, {Key: Key{Kind: StartsKey}, Limit: 7},
		}, after.Keys)
		require.Zero(t, after.Calls)
	})
}

// A cap on starts counts sessions that are being created, and no more than that.
func TestStartsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var creating, most int
		c := &stub{prompt: hang}
		c.create = func(context.Context, CreateRequest) (SessionID, error) {
			c.n.Add(1)
			creating++ // the sleep below parts the steps; -race watches
			most = max(most, creating)
			time.Sleep(50 * time.Millisecond)
			creating--
			return c.id(), nil
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: Off, Starts: 1}})
		for range 10 {
			launch(t, m, work("p"))
		}
		synctest.Wait()
		require.Equal(t, map[Key]int{{AgentKey, "worker"}: 1, {Kind: StartsKey}: 1}, held(m))
		pass(500 * time.Millisecond)
		require.Equal(t, map[Status]int{Running: 10}, m.Stats().Tasks)
		require.Equal(t, 1, most)

		require.NoError(t, m.SetLimit(Key{Kind: StartsKey}, Off))
	})
}
