package rules

import (
	"go/ast"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// statusWrites are the assignments to a field called status.
func statusWrites(s *source) (found []string) {
	for _, fn := range s.functions() {
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok {
				for _, left := range a.Lhs {
					if sel, ok := left.(*ast.SelectorExpr); ok && sel.Sel.Name == "status" {
						found = append(found, fn.name)
					}
				}
			}
			return true
		})
	}
	return found
}

// One function writes a task's status, so that the table is asked every time.
func TestOneWriterOfStatus(t *testing.T) {
	require.Equal(t, []string{"BackgroundManager.transition"}, statusWrites(parseDir(t, root)))
	require.Len(t, statusWrites(parseText(t, `func f() { t.status = 1; t.status, x = 2, 3 }`)), 2)
}

// goStatements are the functions that start goroutines or timers of their own.
func goStatements(s *source) (found []string) {
	for _, fn := range s.functions() {
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				found = append(found, fn.name+": go")
			case *ast.CallExpr:
				if name := text(n.Fun); name == "time.AfterFunc" || strings.HasSuffix(name, ".Go") {
					found = append(found, fn.name+": "+name)
				}
			}
			return true
		})
	}
	slices.Sort(found)
	return found
}

// Goroutines start in one place, which counts them, so that Shutdown can wait for
// all of them; the one timer is set in one place.
func TestGoroutinesStartInOnePlace(t *testing.T) {
	require.Equal(t, []string{
		"BackgroundManager.goLocked: go",
		"BackgroundManager.releaseAll: g.Go",
		"BackgroundManager.setTimerLocked: time.AfterFunc",
	}, goStatements(parseDir(t, root)))
	for _, dir := range []string{"heap", "clean"} {
		require.Empty(t, goStatements(parseDir(t, root+"/internal/"+dir)))
	}
	require.Len(t, goStatements(parseText(t, `func f() { go f(); time.AfterFunc(0, f); g.Go(f) }`)), 3)
}

// A task's lease goes back where its attempt ends, and one taken with Acquire in
// its Release: nowhere else.
func TestOneRelease(t *testing.T) {
	var callers []string
	for _, fn := range parseDir(t, root).functions() {
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && strings.HasSuffix(text(call.Fun), ".releaseLocked") {
				callers = append(callers, fn.name)
			}
			return true
		})
	}
	require.ElementsMatch(t, []string{"BackgroundManager.endLocked", "Lease.Release"}, callers)
}
