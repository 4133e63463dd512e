package subagent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// Who starts when, in one queue for one at a time. The steps are: "p1" is the first
// ticket of parent p and so on, "_1" one without a parent; "-p1" gives up; "." has
// the one with the lease give it back. In the end all of them have their turn.
func TestParentsTakeTurns(t *testing.T) {
	for _, c := range []struct {
		name, steps, want string
		keys              KeyLimits
	}{
		{"first come, first served", "p1 p2 p3 q1 q2 r1", "p1 p2 p3 q1 q2 r1", KeyLimits{}},
		{"turns", "p1 p2 p3 q1 q2 r1", "p1 p2 q1 r1 p3 q2", KeyLimits{Fair: true}},
		{"a long queue and a newcomer", "p1 p2 p3 p4 p5 . q1 . .", "p1 p2 p3 q1 p4 p5", KeyLimits{Fair: true}},
		{"a newcomer goes last", "p1 p2 q1 q2 p3 . r1", "p1 p2 q1 p3 r1 q2", KeyLimits{Fair: true}},
		{"nobody saves turns up", "x1 p1 p2 p3 q1 . . . . q2 q3 q4 p4", "x1 p1 q1 p2 p3 q2 p4 q3 q4", KeyLimits{Fair: true}},
		{"one at a time starves nobody", "x1 p1 q1 r1 q2 r2 . p2 . . . p3 .", "x1 p1 q1 r1 p2 q2 r2 p3", KeyLimits{Fair: true}},
		{"who has left and come back goes last", "x1 p1 q1 r1 -p1 p2", "x1 q1 r1 p2", KeyLimits{Fair: true}},
		{"who gives up in front uses up no turn", "x1 p1 p2 q1 q2 -p1", "x1 p2 q1 q2", KeyLimits{Fair: true}},
		{"giving up in the middle and at the end", "x1 p1 p2 p3 q1 q2 -p2 -p3", "x1 p1 q1 q2", KeyLimits{Fair: true}},
		{"no parent is a parent of its own", "x1 _1 _2 p1 p2", "x1 _1 p1 _2 p2", KeyLimits{Fair: true}},
		{"a cap that holds up nobody", "p1 p2 p3 q1 q2 r1", "p1 p2 q1 r1 p3 q2", KeyLimits{Fair: true, PerParent: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.keys.Default = 1
				m := newManager(t, &stub{}, Config{Keys: c.keys})
				line := newCallers(m)
				for _, step := range strings.Fields(c.steps) {
					switch name := strings.TrimPrefix(step, "-"); {
					case step == ".":
						line.release(line.got[len(line.got)-1])
					case name != step:
						line.off[name](errors.New("gives up"))
						synctest.Wait()
					default:
						line.call(name, Holder{Parent: SessionID(strings.Trim(name[:1], "_")), Agent: "a"})
					}
				}
				for m.Stats().Keys[0].Waiting > 0 {
					line.release(line.got[len(line.got)-1])
				}
				require.Equal(t, c.want, strings.Join(line.got, " "))
				line.release(line.got[len(line.got)-1])
				require.Empty(t, m.limits())
			})
		})
	}
}

// Scenario 44: the first task of a parent is passed by at most one of each other
// parent, however many wait and whoever comes meanwhile.
func TestEachParentPassesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 2, Fair: true}, Spawn: SpawnLimits{LivePerRoot: Off}})
		parent := func(i int) SessionID { return SessionID(fmt.Sprint("p", i)) }
		next := map[int]int{}
		ask := func(i int) {
			next[i]++
			launch(t, m, asks(parent(i), "m/x", fmt.Sprintf("p%d %d", i, next[i])))
		}
		for i := range 9 { // p0 has 80, p1 70, and so on
			for range 80 - 10*i {
				ask(i)
			}
		}
		late := launch(t, m, asks("late", "m/x", "late"))
		require.Equal(t, 80+70+60+50+40+30+20+10-1, late.Position, "by age")
		before := len(s.order())
		for i := 0; get(t, m, late.ID).Status == Pending; i++ {
			ask(i % 20) // parents that are there, and new ones
			s.end(s.now()[0])
		}
		passed := map[string]int{}
		for _, text := range s.order()[before:] {
			who, _, _ := strings.Cut(text, " ")
			passed[who]++
			require.LessOrEqual(t, passed[who], 1, text)
		}
		require.Equal(t, map[string]int{"p0": 1, "p1": 1, "p2": 1, "p3": 1, "p4": 1, "p5": 1, "p6": 1, "p7": 1, "late": 1}, passed)
	})
}

// A head that waits for its parent's turn is not held up by a cap: however many
// pass it by, its queue goes on.
func TestTurnsStopNoQueue(t *testing.T) {
	for _, perParent := range []int{Off, 1} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage()
			m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1, PerParent: perParent, Fair: true}})
			launch(t, m, asks("p", "m/x", "first"))
			second := launch(t, m, asks("p", "m/x", "second"))
			third := launch(t, m, asks("p", "m/x", "third"))
			const others = 2 * maxPasses
			for i := range others {
				launch(t, m, asks(SessionID(fmt.Sprint("q", i)), "m/x", fmt.Sprint(i)))
			}
			s.end("first", "second")
			require.Equal(t, []int{0, 1}, positions(t, m, []Task{second, third}))
			for i := range others {
				s.end(fmt.Sprint(i))
			}
			require.Equal(t, []string{"third"}, s.now())
		})
	}
}

// A parent at its cap keeps its turn, and has it when there is room; a task that
// passes it meanwhile is counted as ever. Caps that come and go change no turn.
func TestTurnsAndCaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 1, Fair: true}})
		launch(t, m, asks("x", "m/x", "x"))
		launch(t, m, asks("p", "m/y", "p elsewhere"))
		for _, prompt := range []string{"p1", "p2", "p3", "p4", "q1", "q2", "q3", "q4", "r1"} {
			launch(t, m, asks(SessionID(prompt[:1]), "m/x", prompt))
		}
		s.end("x")
		require.Equal(t, []string{"p elsewhere", "p1"}, s.now())
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, 1)) // p has two
		require.NoError(t, m.CheckBooks(nil, nil))
		s.end("p1", "q1", "r1")
		require.Equal(t, []string{"p elsewhere", "q2"}, s.now(), "p is at its cap")
		s.end("p elsewhere", "q2")
		require.Equal(t, []string{"p2"}, s.now())
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, Off))
		require.NoError(t, m.CheckBooks(nil, nil))
		s.end("p2")
		require.Equal(t, []string{"q3"}, s.now(), "its turn, and p is older")
		s.end("q3", "p3", "q4", "p4")
		require.Empty(t, m.limits())
	})
}

// A queue competes with others by the age of the ticket that has its turn there.
func TestTurnsLendNoAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Default: 5, Global: 1, Fair: true}})
		for _, of := range []string{"x p1", "x p2", "x p3", "y r1", "x q1", "y r2"} {
			model, prompt, _ := strings.Cut(of, " ")
			launch(t, m, asks(SessionID(prompt[:1]), "m/"+model, prompt))
		}
		s.end("p1", "p2", "r1", "q1", "p3", "r2")
		require.Equal(t, []string{"p1", "p2", "r1", "q1", "p3", "r2"}, s.order())
	})
}

// almost has a task come too late once less than gives it a claim.
func almost(m *BackgroundManager, task Task) *ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &m.byID[task.ID].ticket
	t.late = maxPasses - 1
	return t
}

func claimantOf(m *BackgroundManager) *ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claimant
}

// A claim is no obstacle to who has its turn before the claimant: nobody would start
// any more. If that one comes too late as well, the claim is its own.
func TestClaimYieldsToATurn(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				m := newManager(t, Func(s.run), Config{Keys: KeyLimits{
					Fair: true, PerParent: 2, Models: map[string]int{"m/x": 2}, Agents: map[string]int{"a": 1, "b": 1},
				}})
				ask := func(parent SessionID, agent, model, prompt string) Task {
					return launch(t, m, LaunchInput{Parent: parent, Agent: agent, Model: model, Prompt: prompt})
				}
				ask("o", "z", "m/x", "holds x")
				ask("o", "z", "m/x", "holds x too")
				ask("h", "a", "m/other", "holds a")
				ask("h", "b", "m/third", "holds b")
				ask("u", "z", "m/y", "u is")
				ask("u", "z", "m/y", "at its cap")
				ask("c", "z", "m/x", "c's first")
				older := ask("c", "a", "m/x", "older")
				younger := ask("u", map[bool]string{false: "z", true: "b"}[late], "m/x", "younger")
				s.end("holds x")
				require.NoError(t, m.SetLimit(Key{ModelKey, "m/x"}, 1))
				s.end("holds x too")
				claimant := almost(m, older)
				s.end("c's first") // x has room for the older one, a has none
				require.Equal(t, claimant, claimantOf(m))
				if late {
					lateTurn(t, s, m, younger, ask)
				} else {
					s.end("u is")
				}
				require.Contains(t, s.now(), "younger", "it has its turn before the claimant")
				require.NoError(t, m.CheckBooks(nil, nil))
				s.end("holds a", "younger")
				require.Contains(t, s.now(), "older")
				require.Nil(t, claimantOf(m))
			})
		})
	}
}

// While its parent is at its cap a claimant keeps its place also from its own queue:
// who passes it would use up what it has claimed.
func TestClaimAtTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{Fair: true, PerParent: 3, Models: map[string]int{"m/x": 1}, Agents: map[string]int{"a": 1}}})
		launch(t, m, LaunchInput{Parent: "h", Agent: "a", Model: "m/other", Prompt: "holds a"})
		launch(t, m, asks("c", "m/y", "c elsewhere"))
		launch(t, m, asks("c", "m/x", "c's first"))
		older := launch(t, m, LaunchInput{Parent: "c", Agent: "a", Model: "m/x", Prompt: "older"})
		claimant := almost(m, older)
		s.end("c's first")
		require.Equal(t, claimant, claimantOf(m))
		require.NoError(t, m.SetLimit(Key{Kind: ParentKey}, 1))
		launch(t, m, asks("u", "m/x", "younger"))
		require.Equal(t, []string{"c elsewhere", "holds a"}, s.now())
		require.NoError(t, m.CheckBooks(nil, nil))
		s.end("c elsewhere", "holds a")
		require.Equal(t, []string{"older"}, s.now())
		s.end("older")
		require.Equal(t, []string{"younger"}, s.now())
	})
}

// lateTurn has the younger task, whose turn it is, come too late.
func lateTurn(t *testing.T, s *stage, m *BackgroundManager, younger Task, ask func(SessionID, string, string, string) Task) {
	next := almost(m, younger)
	require.NoError(t, m.SetLimit(Key{ModelKey, "m/x"}, 2))
	s.end("u is") // now it waits for b
	require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 4))
	ask("v", "z", "m/y", "one more")
	s.end("at its cap")
	require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 2))
	s.end("holds b") // and finds no room over all
	require.Equal(t, next, claimantOf(m))
	require.NoError(t, m.CheckBooks(nil, nil))
	s.end("one more")
	require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, Off))
}

// A place that is kept for a claimant is open to who has the turn in its own queue, also
// where an older ticket of another queue, which has to leave it free, waits before that one.
func TestClaimYieldsBehindAnotherQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		m := newManager(t, Func(s.run), Config{Keys: KeyLimits{
			Fair: true, PerParent: 2, Models: map[string]int{"m/x": 1}, Agents: map[string]int{"a": 1},
		}})
		ask := func(parent SessionID, agent, model, prompt string) Task {
			return launch(t, m, LaunchInput{Parent: parent, Agent: agent, Model: model, Prompt: prompt})
		}
		ask("o", "z", "m/x", "holds x")
		ask("h", "a", "m/other", "holds a")
		ask("u", "z", "m/y", "u is")
		ask("u", "z", "m/y", "at its cap")
		ask("c", "z", "m/x", "c's first")
		older := ask("c", "a", "m/x", "older")
		require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 4))
		ask("d", "z", "m/w", "elsewhere")
		ask("u", "z", "m/x", "younger")
		s.end("holds x")
		claimant := almost(m, older)
		s.end("c's first") // x has room for the older one, a has none
		require.Equal(t, claimant, claimantOf(m))
		require.NoError(t, m.SetLimit(Key{Kind: GlobalKey}, 1))
		s.end("u is") // the younger one has its turn, and waits behind the one elsewhere
		s.end("at its cap", "holds a")
		require.Equal(t, []string{"younger"}, s.now(), "one place is free, and nothing runs")
		require.NoError(t, m.CheckBooks(nil, nil))
		s.end("younger", "older", "elsewhere")
		require.Nil(t, claimantOf(m))
	})
}
