package rules

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// held tells the functions that run with mu held by contract.
func held(name string) bool {
	_, method, ok := strings.Cut(name, ".")
	if !ok {
		method = name
	}
	return strings.HasSuffix(method, "Locked") || method == "transition"
}

// span is a stretch of a function that runs under mu.
type span struct{ from, to token.Pos }

// lockedSpans are the parts of a function in which it holds mu: all of it by
// contract, or from a Lock to the Unlock after it, or to the end where that is
// deferred. An Unlock before a return in a branch does not end the stretch.
func lockedSpans(fn function) (spans []span) {
	if held(fn.name) {
		return []span{{fn.Body.Pos(), fn.Body.End()}}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		block, ok := n.(*ast.BlockStmt)
		if !ok {
			return true
		}
		for i, stmt := range block.List {
			if !isCall(stmt, "mu.Lock") {
				continue
			}
			to := block.End()
			for _, after := range block.List[i+1:] {
				if isCall(after, "mu.Unlock") || isCall(after, ".unlock") {
					to = after.Pos()
					break
				}
			}
			spans = append(spans, span{stmt.End(), to})
		}
		return true
	})
	return spans
}

func isCall(s ast.Stmt, suffix string) bool {
	e, ok := s.(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := e.X.(*ast.CallExpr)
	return ok && strings.HasSuffix(text(call.Fun), suffix)
}

func inside(spans []span, n ast.Node) bool {
	for _, s := range spans {
		if n.Pos() >= s.from && n.End() <= s.to {
			return true
		}
	}
	return false
}

// foreign are calls that leave the books: the host's code, logging, waiting.
func foreign(call string) bool {
	for _, part := range []string{
		"m.client.", ".notifier.", ".lineage.", ".releaser.", "caps.parentOf", "caps.release", "cfg.Admit", "Mailbox.Render",
		"Mailbox.render", ".LogAttrs", "time.Sleep", ".Wait", "guard", "m.write", ".write",
	} {
		if strings.Contains(call, part) {
			return !strings.HasSuffix(call, ".waiting") && call != "w.write"
		}
	}
	return false
}

// underLock walks what runs with mu held in a function, leaving out function
// literals that run later, in goroutines.
func underLock(fn function, visit func(ast.Node)) {
	spans := lockedSpans(fn)
	if len(spans) == 0 {
		return
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && strings.HasSuffix(text(call.Fun), "goLocked") {
			return false
		}
		switch n := n.(type) {
		case *ast.GoStmt, *ast.DeferStmt:
			return false
		case *ast.FuncLit:
			return false
		case *ast.SelectStmt:
			for _, c := range n.Body.List {
				if c.(*ast.CommClause).Comm == nil {
					return false // it has a default: it can't block
				}
			}
		}
		if n != nil && inside(spans, n) {
			visit(n)
		}
		return true
	})
}

// lockBreaks finds what may not happen under mu, through calls within the package.
func lockBreaks(s *source) (found []string) {
	byName := map[string][]function{}
	for _, fn := range s.functions() {
		byName[fn.Name.Name] = append(byName[fn.Name.Name], fn)
	}
	seen := map[*ast.FuncDecl]bool{}
	var enter func(fn function, path string)
	check := func(fn function, path string, n ast.Node) {
		switch n := n.(type) {
		case *ast.SendStmt:
			found = append(found, s.at(n)+" sends on a channel, via "+path)
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				found = append(found, s.at(n)+" receives from a channel, via "+path)
			}
		case *ast.CallExpr:
			name := text(n.Fun)
			if foreign(name) {
				found = append(found, s.at(n)+" calls "+name+", via "+path)
			}
			if i := strings.LastIndex(name, "."); i >= 0 && strings.HasPrefix(name, "mu.") || strings.HasSuffix(name, "mu.Lock") {
				found = append(found, s.at(n)+" locks again, via "+path)
				_ = i
			}
			callee := name[strings.LastIndex(name, ".")+1:]
			for _, next := range byName[callee] {
				if len(byName[callee]) == 1 || held(next.name) {
					enter(next, path+" > "+next.name)
				}
			}
		}
	}
	enter = func(fn function, path string) {
		if seen[fn.FuncDecl] {
			return
		}
		seen[fn.FuncDecl] = true
		whole := function{fn.FuncDecl, fn.name + "Locked"} // called under mu, it runs under mu
		underLock(whole, func(n ast.Node) { check(fn, path, n) })
	}
	for _, fn := range s.functions() {
		if fn.Recv != nil && strings.Contains(fn.name, "funcClient") {
			continue // a client of its own, with its own lock
		}
		underLock(fn, func(n ast.Node) { check(fn, fn.name, n) })
	}
	return found
}

// Under mu there is only plain data: what waits there holds everybody up, and
// code of the host that calls back would never return.
func TestOnlyPlainDataUnderTheLock(t *testing.T) {
	none(t, "only plain data under the lock", lockBreaks(parseDir(t, root)))
	for _, bad := range []string{
		`func (m *M) f() { m.mu.Lock(); m.client.Abort(); m.mu.Unlock() }`,
		`func (m *M) f() { m.mu.Lock(); defer m.unlock(); m.g() }; func (m *M) g() { m.log.LogAttrs() }`,
		`func (m *M) fLocked() { c <- 1 }`,
		`func (m *M) fLocked() { <-c }`,
		`func (m *M) fLocked() { m.mu.Lock() }`,
		`func (m *M) fLocked() { select { case c <- 1: } }`,
	} {
		require.NotEmpty(t, lockBreaks(parseText(t, bad)), bad)
	}
	for _, good := range []string{
		`func (m *M) f() { m.mu.Lock(); x++; m.mu.Unlock(); m.client.Abort() }`,
		`func (m *M) fLocked() { select { case c <- 1: default: } }`,
		`func (m *M) fLocked() { m.goLocked(func() { m.client.Abort() }) }`,
	} {
		require.Empty(t, lockBreaks(parseText(t, good)), good)
	}
}

// bareCalls are calls of functions that need mu from where it is not held.
func bareCalls(s *source) (found []string) {
	for _, fn := range s.functions() {
		spans := lockedSpans(fn)
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := text(call.Fun)
			callee := name[strings.LastIndex(name, ".")+1:]
			if held(callee) && !inside(spans, call) && fn.Name.Name != "unlock" {
				found = append(found, s.at(call)+" calls "+name+" in "+fn.name)
			}
			return true
		})
	}
	return found
}

// What is called Locked needs mu, and is called with it.
func TestLockedFunctionsAreCalledUnderTheLock(t *testing.T) {
	none(t, "call it with mu held", bareCalls(parseDir(t, root)))
	require.NotEmpty(t, bareCalls(parseText(t, `func (m *M) f() { m.gLocked() }`)))
	require.NotEmpty(t, bareCalls(parseText(t, `func (m *M) f() { m.mu.Lock(); m.mu.Unlock(); m.gLocked() }`)))
	require.Empty(t, bareCalls(parseText(t, `func (m *M) f() { m.mu.Lock(); m.gLocked(); m.mu.Unlock() }`)))
}
