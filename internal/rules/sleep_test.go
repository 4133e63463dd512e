package rules

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sleeps are the calls of time.Sleep that tests come to outside a bubble of fake
// time, by calls and by functions handed on in calls. A table of functions is taken
// to be played where its test has its bubble.
func sleeps(s *source) (found []string) {
	bodies := map[types.Object]*ast.BlockStmt{}
	for _, fn := range s.functions() {
		bodies[s.info.Defs[fn.Name]] = fn.Body
	}
	reached := map[*ast.BlockStmt]bool{}
	var visit func(body *ast.BlockStmt)
	reach := func(e ast.Expr) {
		if id := lastName(e); id != nil {
			visit(bodies[s.info.Uses[id]])
		}
	}
	visit = func(body *ast.BlockStmt) {
		if body == nil || reached[body] {
			return
		}
		reached[body] = true
		tables := hasBubble(body)
		ast.Inspect(body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if bubble(n) {
					return false
				}
				reach(n.Fun)
				for _, arg := range n.Args {
					reach(arg)
				}
			case *ast.CompositeLit:
				return !tables
			case *ast.SelectorExpr:
				if text(n) == "time.Sleep" {
					found = append(found, s.at(n))
				}
			}
			return true
		})
	}
	for _, fn := range s.functions() {
		if isRoot(fn.name) {
			visit(fn.Body)
		}
	}
	return found
}

// lastName is the identifier that says what an expression means.
func lastName(e ast.Expr) *ast.Ident {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return e.Sel
	case *ast.IndexExpr:
		return lastName(e.X)
	}
	return nil
}

// bubble tells the calls whose functions run in fake time.
func bubble(call *ast.CallExpr) bool {
	name := text(call.Fun)
	return name == "synctest.Test" || strings.HasSuffix(name, ".SyncTest")
}

func hasBubble(n ast.Node) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		found = found || ok && bubble(call)
		return !found
	})
	return found
}

// isRoot tells the functions that `go test` calls itself.
func isRoot(name string) bool {
	return name == "init" || slices.ContainsFunc([]string{"Test", "Benchmark", "Fuzz", "Example"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// No test waits for a clock: one that does is slow, and fails on a slow machine.
func TestNoTestSleeps(t *testing.T) {
	own, nested := folders(t)
	for _, dir := range append(own, nested...) {
		for _, s := range testsOf(t, dir) {
			inTests := slices.DeleteFunc(sleeps(s), func(at string) bool { return !strings.Contains(at, "_test.go:") })
			none(t, "a test sleeps in a bubble of testing/synctest, or not at all", inTests)
		}
	}
	fixture := func(code string) *source {
		s := parseText(t, "import (\"testing\"; \"testing/synctest\"; \"time\"; \"pgregory.net/rapid\")\ntype world int\ntype other int\n"+code)
		_ = s.checkWith(func(error) {})
		return s
	}
	for _, bad := range []string{
		"func TestX(t *testing.T) { time.Sleep(1) }",
		"func TestX(t *testing.T) { pass() }\nfunc pass() { time.Sleep(1) }",
		"func TestX(t *testing.T) { var w *world; w.pass() }\nfunc (w *world) pass() { time.Sleep(1) }",
		"func TestX(t *testing.T) { t.Run(``, testX) }\nfunc testX(t *testing.T) { time.Sleep(1) }",
		"func TestX(t *testing.T) { t.Run(``, func(t *testing.T) { time.Sleep(1) }) }",
		"func TestX(t *testing.T) { for _, f := range []func(){func() { time.Sleep(1) }} { f() } }",
		"func TestX(t *testing.T) { synctest.Test(t, func(t *testing.T) {}); time.Sleep(1) }",
		"func BenchmarkX(b *testing.B) { run(time.Sleep) }",
	} {
		require.Len(t, sleeps(fixture(bad)), 1, bad)
	}
	for _, good := range []string{
		"func TestX(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }",
		"func TestX(t *testing.T) { synctest.Test(t, testX) }\nfunc testX(t *testing.T) { pass() }\nfunc pass() { time.Sleep(1) }",
		"func TestX(t *testing.T) { for _, f := range []func(){func() { time.Sleep(1) }} { synctest.Test(t, func(*testing.T) { f() }) } }",
		"func TestX(t *testing.T) { other(1).pass() }\nfunc (other) pass() {}\nfunc (world) pass() { time.Sleep(1) }",
		"func TestX(t *testing.T) { rapid.Check(t, rapid.SyncTest(func(t *rapid.T) { time.Sleep(1) })) }",
	} {
		require.Empty(t, sleeps(fixture(good)), good)
	}
}
