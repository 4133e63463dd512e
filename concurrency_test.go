package subagent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Scenario 26: which setting is the limit of what. A model's own beats its
// provider's, that beats the default, and that is 5; 0 is as if absent.
func TestKeyLimits(t *testing.T) {
	own := KeyLimits{
		Default: 7, Global: 100, PerParent: 50, Starts: 20,
		Models:    map[string]int{"a/x": 1, "a/zero": 0, "a/off": Off, "b/zero": 0, "c/x": 9},
		Providers: map[string]int{"a": 2, "b": 0, "c": Off},
		Agents:    map[string]int{"one": 3, "zero": 0, "off": Off, "a": 4},
	}
	prepared := func(k KeyLimits) KeyLimits {
		c, err := Config{Keys: k}.prepared()
		require.NoError(t, err)
		return c.Keys
	}
	for _, c := range []struct {
		keys  KeyLimits
		key   Key
		limit int
	}{
		{KeyLimits{}, Key{ModelKey, "a/x"}, 5},
		{KeyLimits{}, Key{AgentKey, "one"}, 5},
		{KeyLimits{}, Key{ProviderKey, "a"}, Off},
		{KeyLimits{}, Key{AgentTotalKey, "one"}, Off},
		{KeyLimits{}, Key{Kind: GlobalKey}, Off},
		{KeyLimits{}, Key{ParentKey, "p"}, Off},
		{KeyLimits{}, Key{Kind: StartsKey}, Off},
		{KeyLimits{Default: Off}, Key{ModelKey, "a/x"}, Off},

		{own, Key{ModelKey, "a/x"}, 1},
		{own, Key{ModelKey, "a/other"}, 2},
		{own, Key{ModelKey, "a/zero"}, 2},
		{own, Key{ModelKey, "a/off"}, Off},
		{own, Key{ModelKey, "b/x"}, 7},
		{own, Key{ModelKey, "b/zero"}, 7},
		{own, Key{ModelKey, "c/x"}, 9},
		{own, Key{ModelKey, "c/other"}, Off},
		{own, Key{ModelKey, "d/x"}, 7},
		{own, Key{ModelKey, "plain"}, 7},
		{own, Key{ModelKey, "a"}, 7}, // a model of that name, not the provider
		// Scenario 32: the provider is what stands before the first slash.
		{own, Key{ModelKey, "a/b/c"}, 2},
		{own, Key{ModelKey, "x/a/b"}, 7},

		{own, Key{AgentKey, "one"}, 3},
		{own, Key{AgentKey, "zero"}, 7},
		{own, Key{AgentKey, "off"}, Off},
		{own, Key{AgentKey, "other"}, 7},
		{own, Key{AgentTotalKey, "one"}, 3},
		{own, Key{AgentTotalKey, "zero"}, Off},
		{own, Key{ProviderKey, "a"}, 2},
		{own, Key{ProviderKey, "b"}, Off},
		{own, Key{ProviderKey, "c"}, Off},
		{own, Key{Kind: GlobalKey}, 100},
		{own, Key{ParentKey, "p"}, 50},
		{own, Key{Kind: StartsKey}, 20},
	} {
		keys := prepared(c.keys)
		require.Equal(t, c.limit, keys.limitOf(c.key), "%s", c.key)
	}
}

// Scenarios 31 and 32.
func TestKeyOf(t *testing.T) {
	for _, c := range []struct {
		agent, model string
		key          Key
		text, paidBy string
	}{
		{"one", "", Key{AgentKey, "one"}, "agent:one", ""},
		{"one", "a/x", Key{ModelKey, "a/x"}, "model:a/x", "a"},
		{"one", "a/x/y", Key{ModelKey, "a/x/y"}, "model:a/x/y", "a"},
		{"a", "", Key{AgentKey, "a"}, "agent:a", ""},
		{"one", "one", Key{ModelKey, "one"}, "model:one", ""},
		{"one", "/x", Key{ModelKey, "/x"}, "model:/x", ""},
	} {
		key := keyOf(c.agent, c.model)
		require.Equal(t, c.key, key)
		require.Equal(t, c.paidBy, providerOf(c.model), c.model)
		text, err := key.MarshalText()
		require.NoError(t, err)
		require.Equal(t, c.text, string(text))
	}
	require.Equal(t, "global", Key{Kind: GlobalKey}.String())
	require.Equal(t, "KeyKind(0):x", Key{Name: "x"}.String())
	require.Equal(t, "KeyKind(99):x", Key{99, "x"}.String())
}

// crowd is n launches of the same kind.
func crowd(n int, parent SessionID, agent, model string) (list []LaunchInput) {
	for range n {
		list = append(list, LaunchInput{Parent: parent, Agent: agent, Model: model, NoNotice: parent == ""})
	}
	return list
}

func joined(lists ...[]LaunchInput) (all []LaunchInput) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// What may run at the same time, under each kind of limit: of the tasks that are
// launched, in this order, those with the numbers in runs.
func TestWhatRunsAtTheSameTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		keys   KeyLimits
		launch []LaunchInput
		runs   []int
	}{
		{"the default is 5", KeyLimits{}, crowd(7, "p", "a", ""), []int{0, 1, 2, 3, 4}},
		{"queues do not wait for each other", KeyLimits{Default: 1}, joined(crowd(3, "p", "a", "m/x"), crowd(2, "p", "a", "m/y"), crowd(2, "p", "a", "")), []int{0, 3, 5}},

		// Scenario 27: no number makes a limit by accident.
		{"0 is the default", KeyLimits{Default: 2, Models: map[string]int{"m/x": 0}, Providers: map[string]int{"m": 0}, Agents: map[string]int{"a": 0}}, joined(crowd(3, "p", "a", "m/x"), crowd(3, "p", "a", "")), []int{0, 1, 3, 4}},
		{"no limit by default", KeyLimits{Default: Off}, crowd(7, "p", "a", ""), []int{0, 1, 2, 3, 4, 5, 6}},
		{"no limit for a model", KeyLimits{Default: 1, Models: map[string]int{"m/x": Off}}, joined(crowd(3, "p", "a", "m/x"), crowd(2, "p", "a", "m/y")), []int{0, 1, 2, 3}},
		{"no limit for a provider", KeyLimits{Default: 1, Providers: map[string]int{"m": Off}}, joined(crowd(2, "p", "a", "m/x"), crowd(2, "p", "a", "n/x")), []int{0, 1, 2}},
		{"no limit for an agent", KeyLimits{Default: 1, Agents: map[string]int{"a": Off}}, joined(crowd(2, "p", "a", ""), crowd(2, "p", "b", "")), []int{0, 1, 2}},

		{"a model beats its provider", KeyLimits{Models: map[string]int{"m/x": 1}, Providers: map[string]int{"m": 3}}, joined(crowd(2, "p", "a", "m/x"), crowd(3, "p", "a", "m/y")), []int{0, 2, 3}},
		// Scenario 28: the provider's limit holds over a model without one.
		{"a provider counts over all its models", KeyLimits{Models: map[string]int{"m/x": Off}, Providers: map[string]int{"m": 1}}, crowd(2, "p", "a", "m/x"), []int{0}},
		// Scenario 29.
		{"two models of a provider", KeyLimits{Providers: map[string]int{"m": 1}}, joined(crowd(1, "p", "a", "m/x"), crowd(1, "p", "a", "m/y"), crowd(1, "p", "a", "n/x")), []int{0, 2}},
		{"an agent counts over all its models", KeyLimits{Agents: map[string]int{"a": 2}}, joined(crowd(1, "p", "a", "m/x"), crowd(1, "p", "a", ""), crowd(1, "p", "a", "n/x"), crowd(1, "p", "b", "n/x")), []int{0, 1}},
		// Scenario 31.
		{"an agent named as a provider", KeyLimits{Providers: map[string]int{"m": 1}}, joined(crowd(2, "p", "m", ""), crowd(2, "p", "a", "m/x")), []int{0, 1, 2}},
		{"a model named as an agent", KeyLimits{Models: map[string]int{"a": 1}}, joined(crowd(2, "p", "a", ""), crowd(2, "p", "b", "a")), []int{0, 1, 2}},

		{"over everything", KeyLimits{Global: 3}, joined(crowd(2, "p", "a", ""), crowd(2, "q", "b", "m/x"), crowd(2, "", "c", "")), []int{0, 1, 2}},
		{"per parent", KeyLimits{PerParent: 2}, joined(crowd(3, "p", "a", ""), crowd(1, "p", "b", ""), crowd(3, "q", "a", "")), []int{0, 1, 4, 5}},
		{"no parent, no cap", KeyLimits{PerParent: 1}, joined(crowd(2, "p", "a", ""), crowd(3, "", "a", "")), []int{0, 2, 3, 4}},
		{"the head of a queue holds up what is behind it", KeyLimits{Agents: map[string]int{"a": 1}}, joined(crowd(2, "p", "a", "m/x"), crowd(1, "p", "b", "m/x"), crowd(1, "p", "b", "m/y")), []int{0, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				m := newManager(t, Func(s.run), Config{Keys: c.keys})
				want := []string{}
				for i, in := range c.launch {
					in.Prompt = strconv.Itoa(i)
					launch(t, m, in)
				}
				for _, i := range c.runs {
					want = append(want, strconv.Itoa(i))
				}
				require.Equal(t, want, s.now())
				require.NoError(t, m.CheckBooks(nil, nil))
				for range c.launch { // and all the rest has its turn
					s.end(s.now()[0])
				}
				require.Len(t, s.order(), len(c.launch))
			})
		})
	}
}

// Scenarios 33, 34 and C021: one queue starts in order of launch, however its
// tasks end.
func TestFirstInFirstOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 3}})
		var want []string
		for i := range 60 {
			want = append(want, strconv.Itoa(i))
			launch(t, m, asks("p", "m/x", want[i]))
			synctest.Wait()
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range want {
			now := s.now()
			s.end(now[r.IntN(len(now))])
		}
		require.Equal(t, want, s.order())
	})
}

// Queues that want the same limit get it by the age of their heads.
func TestQueuesCompeteByAge(t *testing.T) {
	for name, c := range map[string]struct {
		keys  KeyLimits
		model func(i int) string
	}{
		"global":   {KeyLimits{Global: 1}, func(i int) string { return fmt.Sprintf("m%d/x", i*i%7) }},
		"provider": {KeyLimits{Providers: map[string]int{"m": 1}}, func(i int) string { return fmt.Sprintf("m/%d", i*i%7) }},
		"agent":    {KeyLimits{Agents: map[string]int{"worker": 1}}, func(i int) string { return fmt.Sprintf("m%d/x", i*i%7) }},
		"parent":   {KeyLimits{PerParent: 1}, func(i int) string { return fmt.Sprintf("m%d/x", i*i%7) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				m := newManager(t, Func(s.run), Config{Keys: c.keys})
				var want []string
				for i := range 30 {
					want = append(want, strconv.Itoa(i))
					launch(t, m, asks("p", c.model(i), want[i]))
				}
				for range want {
					now := s.now()
					require.Len(t, now, 1)
					s.end(now[0])
				}
				require.Equal(t, want, s.order())
			})
		})
	}
}

// A queue is as old as the ticket it would start: one whose own head is passed by
// does not go first on the head's behalf.
func TestPassedHeadLendsNoAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1, Global: 2, PerParent: 1}})
		launch(t, m, asks("x", "k/1", "holds k/1"))
		launch(t, m, asks("y", "k/2", "holds global"))
		launch(t, m, asks("p", "k/1", "1: p is idle still"))
		s.end("holds global")
		launch(t, m, asks("p", "k/3", "p is at its cap now"))
		launch(t, m, asks("q", "k/4", "2: waits for global only"))
		launch(t, m, asks("r", "k/1", "3: waits for k/1 and global"))
		s.end("holds k/1")
		require.Equal(t, []string{"2: waits for global only", "p is at its cap now"}, s.now())
		s.end("2: waits for global only")
		require.Equal(t, []string{"3: waits for k/1 and global", "p is at its cap now"}, s.now())
		s.end("p is at its cap now")
		s.end("3: waits for k/1 and global")
		require.Equal(t, []string{"1: p is idle still"}, s.now())
	})
}

// census counts what runs at the same time, by every limit, and remembers the most.
type census struct {
	mu        sync.Mutex
	now, most map[Key]int
}

func (c *census) count(by int, keys ...Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		c.now[k] += by
		c.most[k] = max(c.most[k], c.now[k])
	}
}

// Scenario 42: tasks that need places under several limits get all or none; the
// limits hold, they are used in full, and no order of arrival ends in a deadlock.
func TestManyLimitsAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			c := &census{now: map[Key]int{}, most: map[Key]int{}}
			keys := KeyLimits{
				Default: 4, Global: 9, PerParent: 4, Models: map[string]int{"a/1": 1, "b/2": Off},
				Providers: map[string]int{"a": 3, "b": 6}, Agents: map[string]int{"x": 5, "y": 2},
			}
			m := newManager(t, Func(func(ctx context.Context, turn Turn) (Result, error) {
				at := []Key{keyOf(turn.Agent, turn.Model), {AgentTotalKey, turn.Agent}, {ParentKey, string(turn.Create.Parent)}, {Kind: GlobalKey}}
				if provider := providerOf(turn.Model); provider != "" {
					at = append(at, Key{ProviderKey, provider})
				}
				c.count(1, at...)
				defer c.count(-1, at...)
				d, _ := time.ParseDuration(turn.Text)
				time.Sleep(d)
				return Result{Text: "ok"}, nil
			}), Config{Keys: keys, Spawn: SpawnLimits{LivePerRoot: Off}})
			r := rand.New(rand.NewPCG(seed, 0))
			for range 300 {
				launch(t, m, LaunchInput{
					Parent: []SessionID{"p", "q", "r"}[r.IntN(3)], Agent: []string{"x", "y", "z"}[r.IntN(3)],
					Model:  []string{"", "a/1", "a/2", "b/1", "b/2", "c/1"}[r.IntN(6)],
					Prompt: (time.Duration(r.IntN(100)+1) * time.Millisecond).String(),
				})
				if r.IntN(4) == 0 {
					time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				}
			}
			all, err := m.WaitAll(t.Context(), Filter{})
			require.NoError(t, err)
			for _, task := range all {
				require.Equal(t, Completed, task.Status)
			}
			for k, most := range c.most {
				limit := m.cfg.Keys.limitOf(k)
				require.True(t, limit == Off || most <= limit, "%d ran under %s, which is %d", most, k, limit)
			}
			require.Equal(t, 9, c.most[Key{Kind: GlobalKey}], "the limit was used in full")
		})
	}
}

// Scenarios 43 and C031: a task that holds the only place of a queue can't be
// waited for by its own child without anybody noticing: the child names it, and
// says so until there is room.
func TestBlockedByAncestors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 2, Global: 3}, Spawn: SpawnLimits{Depth: 4}})
		a := launch(t, m, asks("p", "m/x", "a"))
		synctest.Wait()
		b := launch(t, m, asks(get(t, m, a.ID).Session, "m/x", "b"))
		synctest.Wait()
		below := get(t, m, b.ID).Session
		c := launch(t, m, asks(below, "m/x", "c"))
		require.Equal(t, Pending, c.Status)
		require.Equal(t, []TaskID{b.ID, a.ID}, c.BlockedBy)

		stranger := launch(t, m, asks("q", "m/x", "stranger"))
		require.Empty(t, stranger.BlockedBy, "it waits for others")
		elsewhere := launch(t, m, asks(below, "m/y", "elsewhere"))
		require.Equal(t, Starting, elsewhere.Status)
		synctest.Wait()
		last := launch(t, m, asks(get(t, m, elsewhere.ID).Session, "m/z", "last"))
		require.Equal(t, []TaskID{elsewhere.ID, b.ID, a.ID}, last.BlockedBy, "together they hold all of the global limit")

		require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 9))
		require.Equal(t, []string{"a", "b", "elsewhere", "last"}, s.now())
		require.Equal(t, []TaskID{b.ID, a.ID}, get(t, m, c.ID).BlockedBy)
		s.end("b") // completes: its child is not stopped, and waits for a no more
		require.Equal(t, []string{"a", "c", "elsewhere", "last"}, s.now())
		require.Empty(t, get(t, m, c.ID).BlockedBy)
	})
}

// Ancestors that hold a part of what a child waits for do not block it for good:
// somebody else will give a place back.
func TestBlockedByAncestorsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 2}})
		a := launch(t, m, asks("p", "m/x", "a"))
		launch(t, m, asks("q", "m/x", "stranger"))
		synctest.Wait()
		child := launch(t, m, asks(get(t, m, a.ID).Session, "m/x", "child"))
		require.Equal(t, Pending, child.Status)
		require.Empty(t, child.BlockedBy)
		s.end("stranger")
		require.Equal(t, []string{"a", "child"}, s.now())
	})
}
