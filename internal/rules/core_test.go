package rules

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// isStatus reports whether an expression is the status field of a task's record.
func (s *source) isStatus(e ast.Expr) bool {
	sel, ok := ast.Unparen(e).(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "status" {
		return false
	}
	selection := s.info.Selections[sel]
	return selection != nil && selection.Kind() == types.FieldVal && isTask(selection.Recv())
}

func isTask(t types.Type) bool {
	if p, ok := t.Underlying().(*types.Pointer); ok {
		t = p.Elem()
	}
	named, ok := types.Unalias(t).(*types.Named)
	return ok && named.Obj().Name() == "task"
}

// statusWrites are the places that write a task's status, or could once they have
// its address.
func statusWrites(s *source) (found []string) {
	s.visit(func(within string, n ast.Node) {
		var written []ast.Expr
		switch n := n.(type) {
		case *ast.AssignStmt:
			written = n.Lhs
		case *ast.IncDecStmt:
			written = []ast.Expr{n.X}
		case *ast.RangeStmt:
			written = []ast.Expr{n.Key, n.Value}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				written = []ast.Expr{n.X}
			}
		}
		for _, e := range written {
			if e != nil && s.isStatus(e) {
				found = append(found, s.at(n)+" writes a status in "+within)
			}
		}
	})
	return found
}

// statusBirths are the composite literals that make a task with a status, and
// the assignments that replace a task whole.
func statusBirths(s *source) (found []string) {
	s.visit(func(within string, n ast.Node) {
		switch n := n.(type) {
		case *ast.CompositeLit:
			if isTask(s.info.Types[n].Type) && len(n.Elts) > 0 {
				found = append(found, s.at(n)+" makes a task in "+within)
			}
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if star, ok := ast.Unparen(left).(*ast.StarExpr); ok && isTask(s.info.Types[star].Type) {
					found = append(found, s.at(n)+" replaces a task in "+within)
				}
			}
		}
	})
	return found
}

// only wants exactly one of the things found, and that in the place named.
func only(t *testing.T, rule, place string, found []string) {
	t.Helper()
	ok := slices.DeleteFunc(slices.Clone(found), func(f string) bool { return !strings.HasSuffix(f, " "+place) })
	if len(ok) != 1 || len(found) != 1 {
		t.Errorf("%s: want exactly one, %s; found %q", rule, place, found)
	}
}

// One function writes a task's status, so that the table is asked every time.
func TestOneWriterOfStatus(t *testing.T) {
	core := checkDir(t, ".")
	only(t, "the table of transitions decides every status", "in BackgroundManager.transition", statusWrites(core))
	only(t, "a task is born pending, in one place", "in BackgroundManager.plan", statusBirths(core))

	fixture := "type task struct{ status int }\ntype other struct{ status int }\n"
	for _, bad := range []string{
		"func f(t *task) { t.status = 1 }",
		"func f(t *task) { t.status++ }",
		"func f(t *task) (x int) { x, t.status = 1, 2; return }",
		"func f(t *task) *int { return &t.status }",
		"var f = func(t task) { (t.status) = 1 }",
	} {
		require.Len(t, statusWrites(checkText(t, fixture+bad)), 1, bad)
	}
	require.Empty(t, statusWrites(checkText(t, fixture+"func f(o *other) { o.status = 1 }")))
	for _, bad := range []string{"var t = &task{status: 1}", "var t = task{1}", "func f(t *task, u task) { *t = u }"} {
		require.Len(t, statusBirths(checkText(t, fixture+bad)), 1, bad)
	}
}

// starts are the places where goroutines begin, and timers that make them.
func starts(s *source) (found []string) {
	s.visit(func(within string, n ast.Node) {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, fmt.Sprintf("%s go in %s", s.at(n), within))
		case *ast.SelectorExpr: // also where it is handed on and not called
			if fn, ok := s.info.Uses[n.Sel].(*types.Func); ok && startsGoroutine(fn.FullName()) {
				found = append(found, fmt.Sprintf("%s %s in %s", s.at(n), fn.FullName(), within))
			}
		}
	})
	return found
}

func startsGoroutine(name string) bool {
	return name == "time.AfterFunc" || strings.HasSuffix(name, ".Go") || strings.HasSuffix(name, ".TryGo")
}

// where drops the file and line of each thing found.
func where(found []string) (rest []string) {
	for _, f := range found {
		_, what, _ := strings.Cut(f, " ")
		rest = append(rest, what)
	}
	slices.Sort(rest)
	return rest
}

// Goroutines start in one place, which counts them, so that Shutdown can wait for
// all of them; the one timer is set in one place. Those of Blocking are a client's: its
// poller, which ends with the last turn, and a look, which a host that does not
// answer may keep.
func TestGoroutinesStartInOnePlace(t *testing.T) {
	found := starts(checkDir(t, "."))
	require.Equal(t, []string{
		"(*golang.org/x/sync/errgroup.Group).Go in BackgroundManager.releaseAll",
		"go in BackgroundManager.goLocked",
		"go in BlockingClient.look",
		"go in BlockingClient.pollLocked",
		"time.AfterFunc in BackgroundManager.setTimerLocked",
	}, where(found), "Shutdown waits for what goLocked counts; found %q", found)
	for _, dir := range mechanisms {
		none(t, "a mechanism has no goroutine of its own", starts(checkDir(t, dir)))
	}
	for _, bad := range []string{
		"func f() { go f() }",
		"var f = func() { go println() }",
		"import \"time\"\nvar t = time.AfterFunc(0, nil)",
		"import \"time\"\nvar start = time.AfterFunc",
		"import \"sync\"\nfunc f(g *sync.WaitGroup) { g.Go(nil) }",
		"import \"golang.org/x/sync/errgroup\"\nfunc f(g *errgroup.Group) { g.TryGo(nil) }",
	} {
		require.Len(t, starts(checkText(t, bad)), 1, bad)
	}
}

// releases are the calls of releaseLocked, with what is given back.
func releases(s *source) (found []string) {
	s.visit(func(within string, n ast.Node) {
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
			if fn := s.callee(call); fn != nil && fn.Name() == "releaseLocked" {
				found = append(found, fmt.Sprintf("%s %s in %s", s.at(n), text(call.Args[0]), within))
			}
		}
	})
	return found
}

// A task's lease goes back where its attempt ends, and one taken with Acquire in
// its Release: nowhere else, so that none is given back twice or forgotten.
func TestOneRelease(t *testing.T) {
	found := releases(checkDir(t, "."))
	require.Equal(t, []string{"&t.ticket in BackgroundManager.endLocked", "l.ticket in Lease.Release"}, where(found), "found %q", found)

	bad := checkText(t, "type m struct{ lease int }\nfunc (m) releaseLocked(*int) {}\nfunc (a *m) cancelLocked() { a.releaseLocked(&a.lease) }")
	require.Equal(t, []string{"&a.lease in m.cancelLocked"}, where(releases(bad)))
}

// uncoded are the reason codes that no outcome belongs to. Such a run could not end.
func uncoded(s *source) (found []string) {
	known := map[types.Object]bool{}
	s.visit(func(_ string, n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "outcomes" || len(spec.Values) != 1 {
			return
		}
		for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
			if id, ok := e.(*ast.KeyValueExpr).Key.(*ast.Ident); ok {
				known[s.info.Uses[id]] = true
			}
		}
	})
	for id, obj := range s.info.Defs {
		c, ok := obj.(*types.Const)
		if !ok || known[c] {
			continue
		}
		if named, ok := c.Type().(*types.Named); ok && named.Obj().Name() == "ReasonCode" {
			found = append(found, s.at(id)+" "+id.Name)
		}
	}
	return found
}

func TestEveryReasonHasAnOutcome(t *testing.T) {
	none(t, "a run that ends for a reason ends in the status that outcomes gives it", uncoded(checkDir(t, ".")))
	bad := "type ReasonCode string\nconst A, B ReasonCode = \"a\", \"b\"\nvar outcomes = map[ReasonCode]int{A: 1}"
	require.Len(t, uncoded(checkText(t, bad)), 1)
}
