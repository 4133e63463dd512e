package rules

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Under mu there is only plain data: what waits there holds everybody up, and
// code of the host that calls back would never return. What is called Locked
// needs mu, is called with it, and neither takes it nor gives it back.
func TestOnlyPlainDataUnderTheLock(t *testing.T) {
	none(t, "mu is held for plain data only, and by all that is called Locked", lockBreaks(checkDir(t, "."), byContract))
}

// The mechanisms are used under mu, so everything in them is plain data.
func TestMechanismsArePlainData(t *testing.T) {
	always := func(string) bool { return true }
	for _, dir := range mechanisms {
		none(t, "what the core calls with mu held computes and does nothing else", lockBreaks(checkDir(t, dir), always))
	}
}

// manager is what the fixtures below are about.
const manager = `
import ("context"; "errors"; "fmt"; "log/slog"; "slices"; "sync"; "time")

var _ = []any{context.Background, errors.As, fmt.Sprint, slices.Sort[[]int], time.Sleep}

type Client interface { Abort() error }
type taker interface { grantLocked(); since() int }
type task struct{ n int }
func (t *task) grantLocked() {}
func (t *task) since() int { return t.n }

type M struct {
	mu     sync.Mutex
	client Client
	log    *slog.Logger
	c      chan int
	hook   func(int)
	match  func(*task) bool
	cancel context.CancelCauseFunc
	once   sync.Once
	taker  taker
	n      int
}

func (m *M) unlock()            { m.n++; m.bookLocked(); m.mu.Unlock(); m.log.Info("done") }
func (m *M) goLocked(f func())  { m.n++; go func() { f() }() }
func (m *M) bookLocked()        { m.n++ }
func (m *M) transition() bool   { m.n++; return true }
func (m *M) helper() int        { return m.n }
func (m *M) Get() int           { m.mu.Lock(); defer m.mu.Unlock(); return m.n }
func (m *M) asks() error        { return m.client.Abort() }
func guard(f func() error) error { return f() }
`

func TestLockRuleFindsWhatIsWrong(t *testing.T) {
	for name, bad := range map[string]string{
		"the client under the lock":        `func (m *M) f() { m.mu.Lock(); m.client.Abort(); m.mu.Unlock() }`,
		"the client in a Locked function":  `func (m *M) fLocked() { m.client.Abort() }`,
		"the client in transition's kin":   `func (m *M) f() { m.mu.Lock(); defer m.unlock(); m.asks() }`,
		"through a guard":                  `func (m *M) fLocked() { _ = guard(func() error { return nil }) }`,
		"in a literal that runs at once":   `func (m *M) f() { m.once.Do(func() { m.mu.Lock(); defer m.mu.Unlock(); m.client.Abort() }) }`,
		"in a literal that is returned":    `func (m *M) f() func() { return func() { m.mu.Lock(); m.c <- 1; m.mu.Unlock() } }`,
		"in a literal given to a plain":    `func (m *M) fLocked(s []int) { slices.SortFunc(s, func(a, b int) int { m.client.Abort(); return 0 }) }`,
		"in a literal that is ours":        `func (m *M) f() { m.match = func(*task) bool { return m.client.Abort() == nil } }`,
		"in a branch":                      `func (m *M) f() { m.mu.Lock(); if m.n > 0 { m.client.Abort() }; m.mu.Unlock() }`,
		"after a branch that returned":     `func (m *M) f() { m.mu.Lock(); if m.n > 0 { m.mu.Unlock(); return }; m.client.Abort(); m.mu.Unlock() }`,
		"in a loop's condition":            `func (m *M) fLocked() { for m.client.Abort() != nil { } }`,
		"in a switch":                      `func (m *M) fLocked() { switch { case m.n > 1: m.c <- 1 } }`,
		"deferred before the release":      `func (m *M) f() { m.mu.Lock(); defer m.unlock(); defer m.client.Abort() }`,
		"beside a select's default":        `func (m *M) fLocked() { select { case m.c <- 1: m.client.Abort(); default: } }`,
		"before the release in unlock":     `func (m *N) unlock() { m.client.Abort(); m.mu.Unlock() }; type N M`,
		"a hook":                           `func (m *M) fLocked() { m.hook(1) }`,
		"a logger":                         `func (m *M) fLocked() { m.log.Info("x") }`,
		"a logger at the package":          `func (m *M) fLocked() { slog.Info("x") }`,
		"a send":                           `func (m *M) fLocked() { m.c <- 1 }`,
		"a receive":                        `func (m *M) fLocked() { <-m.c }`,
		"a receive in an expression":       `func (m *M) fLocked() { m.n = 1 + <-m.c }`,
		"a receiving loop":                 `func (m *M) fLocked() { for range m.c { } }`,
		"a select that waits":              `func (m *M) fLocked() { select { case m.c <- 1: } }`,
		"sleep":                            `func (m *M) fLocked() { time.Sleep(1) }`,
		"Wait":                             `func (m *M) fLocked(g *sync.WaitGroup) { g.Wait() }`,
		"a once":                           `func (m *M) fLocked() { m.once.Do(func() {}) }`,
		"the host's error":                 `func (m *M) fLocked(err error) { m.n = len(err.Error()) }`,
		"the host's error in errors.As":    `func (m *M) fLocked(err error) { var e *time.ParseError; errors.As(err, &e) }`,
		"the host's context":               `func (m *M) fLocked(ctx context.Context) error { return ctx.Err() }`,
		"the cause of the host's context":  `func (m *M) fLocked(ctx context.Context) error { return context.Cause(ctx) }`,
		"locking again":                    `func (m *M) fLocked() { m.mu.Lock(); m.mu.Unlock() }`,
		"locking again in a callee":        `func (m *M) fLocked() { m.Get() }`,
		"locking another":                  `func (m *M) f(o *M) { m.mu.Lock(); defer m.mu.Unlock(); o.mu.Lock() }`,
		"giving the caller's lock back":    `func (m *M) fLocked() { m.mu.Unlock() }`,
		"giving the caller's lock back by": `func (m *M) fLocked() { defer m.unlock() }`,
		"releasing what is not held":       `func (m *M) f() { m.mu.Unlock() }`,
		"never releasing":                  `func (m *M) f() { m.mu.Lock() }`,
		"not releasing in a branch":        `func (m *M) f() { m.mu.Lock(); if m.n > 0 { return }; m.mu.Unlock() }`,
		"releasing in one branch":          `func (m *M) f() { m.mu.Lock(); if m.n > 0 { m.mu.Unlock() }; m.n++ }`,
		"Locked after a branch that locks": `func (m *M) f() { if m.n > 0 { m.mu.Lock(); defer m.mu.Unlock() }; m.bookLocked() }`,
		"the client after such a branch":   `func (m *M) f() { if m.n > 0 { m.mu.Lock(); defer m.mu.Unlock() }; m.client.Abort() }`,
		"locking in each turn of a loop":   `func (m *M) f() { for range 3 { m.mu.Lock(); defer m.mu.Unlock() } }`,
		"leaving a loop with the lock":     `func (m *M) f() { for { m.mu.Lock(); if m.n > 0 { break }; m.mu.Unlock() } }`,
		"going on with the lock":           `func (m *M) f() { for range 2 { m.mu.Lock(); if m.n > 0 { continue }; m.mu.Unlock() } }`,
		"after a switch with a break":      `func (m *M) fLocked() { switch m.n { case 1: break; default: return }; m.client.Abort() }`,
		"in a type switch":                 `func (m *M) fLocked(x any) { switch x.(type) { case int: m.c <- 1 } }`,
		"in a loop's step":                 `func (m *M) fLocked() { for ; m.n > 0; m.c <- 1 { } }`,
		"in a labelled loop": `func (m *M) fLocked() {
out: for { for { break out }; m.c <- 1 } }`,
		"in a method value":            `func (m *M) fLocked() { f := m.client.Abort; f() }`,
		"in a deferred literal":        `func (m *M) f() { m.mu.Lock(); defer m.mu.Unlock(); defer func() { m.client.Abort() }() }`,
		"in a variable of the package": `var f = func(m *M) { m.mu.Lock(); m.client.Abort(); m.mu.Unlock() }`,
		"Locked without the lock":      `func (m *M) f() { m.bookLocked() }`,
		"Locked after the release":     `func (m *M) f() { m.mu.Lock(); m.mu.Unlock(); m.bookLocked() }`,
		"transition without the lock":  `func (m *M) f() bool { return m.transition() }`,
		"Locked in another goroutine":  `func (m *M) fLocked() { m.goLocked(func() { m.bookLocked() }) }`,
		"Locked in a go statement":     `func (m *M) fLocked() { go m.bookLocked2() }; func (m *M) bookLocked2() { m.bookLocked() }`,
		"Locked handed on":             `func (m *M) f() { m.mu.Lock(); defer m.mu.Unlock(); m.goLocked(m.bookLocked) }`,
		"Locked by way of a helper":    `func (m *M) tidy() { m.bookLocked() }`,
		"Locked of an interface":       `func (m *M) f() { m.taker.grantLocked() }`,
	} {
		require.NotEmpty(t, lockBreaks(checkText(t, manager+bad), byContract), "%s: %s", name, bad)
	}
}

func TestLockRuleLetsPassWhatIsRight(t *testing.T) {
	for name, good := range map[string]string{
		"nothing":                       ``,
		"the client after the release":  `func (m *M) f() { m.mu.Lock(); m.n++; m.mu.Unlock(); m.client.Abort() }`,
		"the client in a goroutine":     `func (m *M) fLocked() { m.goLocked(func() { m.client.Abort() }) }`,
		"a branch that returns":         `func (m *M) f() error { m.mu.Lock(); if m.n > 0 { m.mu.Unlock(); return m.client.Abort() }; m.bookLocked(); m.mu.Unlock(); return nil }`,
		"a select with a default":       `func (m *M) fLocked() { select { case m.c <- 1: default: } }`,
		"close":                         `func (m *M) fLocked() { close(m.c) }`,
		"a helper":                      `func (m *M) fLocked() { m.n = m.helper() }`,
		"a method of our interface":     `func (m *M) fLocked() { m.taker.grantLocked(); m.n = m.taker.since() }`,
		"a function value of ours":      `func (m *M) fLocked(t *task) { if m.match(t) { m.n++ } }`,
		"cancelling":                    `func (m *M) fLocked() { m.cancel(nil) }`,
		"a panic":                       `func (m *M) fLocked() { if m.n < 0 { panic("negative") } }`,
		"a literal that locks":          `func (m *M) f() { m.once.Do(func() { m.mu.Lock(); defer m.unlock(); m.bookLocked() }) }`,
		"a branch that locks":           `func (m *M) f() { if m.n > 0 { m.mu.Lock(); defer m.mu.Unlock(); m.bookLocked() }; m.n++ }`,
		"a break in a locked switch":    `func (m *M) f() { for range 2 { m.mu.Lock(); switch { case m.n > 0: if m.n > 1 { break }; m.n++ }; m.mu.Unlock() } }`,
		"a search":                      `func (m *M) f() { for range 2 { m.mu.Lock(); if m.n > 0 { m.mu.Unlock(); break }; m.mu.Unlock() }; m.client.Abort() }`,
		"deferred, to run after":        `func (m *M) f() { defer m.client.Abort(); m.mu.Lock(); defer m.mu.Unlock(); m.n++ }`,
		"computing":                     `func (m *M) fLocked(s []int) { slices.SortFunc(s, func(a, b int) int { m.bookLocked(); return a - b }) }`,
		"in a loop":                     `func (m *M) f() { for range 3 { m.mu.Lock(); m.n++; m.mu.Unlock(); m.asks() } }`,
		"a switch that releases always": `func (m *M) f() { m.mu.Lock(); switch m.n { case 1: m.mu.Unlock(); return; default: m.mu.Unlock() }; m.asks() }`,
	} {
		require.Empty(t, lockBreaks(checkText(t, manager+good), byContract), "%s: %s", name, good)
	}
}
