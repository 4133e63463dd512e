package rules

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"
)

// What follows runs through every function of a package, statement by statement,
// and knows at each whether mu is held. lock_calls_test.go says what may be called
// then, lock_rules_test.go has the rules and the code that breaks them.

// byContract tells the functions that are called with mu held.
func byContract(name string) bool {
	return strings.HasSuffix(name, "Locked") || name == "transition" || name == "unlock"
}

// state is what is known at one point of a function.
type state struct {
	held     bool // mu is held
	maybe    bool // or not: it was taken in a branch, to be released by a deferred call
	deferred bool // a deferred call will release it
	over     bool // nothing comes past this point
}

// walk goes through the functions of one package.
type walk struct {
	*source
	contract func(name string) bool
	decls    map[*types.Func]*ast.FuncDecl
	entered  map[*types.Func]bool // called with mu held though their name does not say so
	path     string               // how the walk came here
	entry    bool                 // mu was held where the function, or the literal, began
	free     bool                 // the function is the one that releases its caller's mu
	breakTo  bool                 // mu was held where the innermost loop, switch or select began
	loopTo   bool                 // mu was held where the innermost loop began
	found    []string
}

// lockBreaks finds everything that may not happen: under mu, because it is not
// plain data; without mu, because it needs it.
func lockBreaks(s *source, contract func(string) bool) []string {
	w := &walk{source: s, contract: contract, decls: map[*types.Func]*ast.FuncDecl{}, entered: map[*types.Func]bool{}}
	for _, fn := range s.functions() {
		w.decls[s.info.Defs[fn.Name].(*types.Func)] = fn.FuncDecl
	}
	for _, fn := range s.functions() {
		w.function(fn.FuncDecl, contract(fn.Name.Name), funcName(fn.FuncDecl))
	}
	for _, f := range s.files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				w.path = "a declaration"
				w.expr(g, &state{})
			}
		}
	}
	return w.found
}

func (w *walk) report(n ast.Node, what string) {
	w.found = append(w.found, w.at(n)+" "+what+", in "+w.path)
}

// function walks a declared function, as it runs with mu held or without.
func (w *walk) function(fn *ast.FuncDecl, held bool, path string) {
	outer := *w
	w.path, w.entry, w.free = path, held, fn.Name.Name == "unlock"
	w.body(fn.Body, held)
	w.path, w.entry, w.free = outer.path, outer.entry, outer.free
}

// literal walks a function literal, as it runs with mu held or without.
func (w *walk) literal(lit *ast.FuncLit, held bool) {
	outer := *w
	w.entry, w.free = held, false
	w.body(lit.Body, held)
	w.entry, w.free = outer.entry, outer.free
}

func (w *walk) body(b *ast.BlockStmt, held bool) {
	if st := w.block(b.List, state{held: held}); !st.over {
		w.leave(b, st)
	}
}

// leave checks that a function ends with mu as it began.
func (w *walk) leave(n ast.Node, st state) {
	switch {
	case w.free:
	case w.entry && (!st.held || st.deferred):
		w.report(n, "gives back a lock that is its caller's")
	case !w.entry && st.held && !st.deferred:
		w.report(n, "returns with mu held")
	}
}

func (w *walk) block(list []ast.Stmt, st state) state {
	for _, s := range list {
		st = w.stmt(s, st)
	}
	return st
}

// merge joins two ways that lead to the same point.
func (w *walk) merge(n ast.Node, a, b state) state {
	switch {
	case a.over:
		return b
	case b.over:
		return a
	case a.held != b.held && (a.held && !a.deferred || b.held && !b.deferred):
		w.report(n, "holds mu after one branch and not after another")
	}
	return state{
		held: a.held || b.held, maybe: a.maybe || b.maybe || a.held != b.held,
		deferred: a.deferred || b.deferred,
	}
}

func (w *walk) stmt(s ast.Stmt, st state) state {
	switch s := s.(type) {
	case nil:
	case *ast.BlockStmt:
		return w.block(s.List, st)
	case *ast.LabeledStmt:
		return w.stmt(s.Stmt, st)
	case *ast.ReturnStmt:
		w.expr(s, &st)
		w.leave(s, st)
		st.over = true
	case *ast.BranchStmt:
		if s.Tok == token.BREAK && s.Label == nil && st.held != w.breakTo || s.Tok != token.BREAK && st.held != w.loopTo {
			w.report(s, "jumps to where mu is "+map[bool]string{true: "not ", false: ""}[st.held]+"held")
		}
		st.over = true
	case *ast.DeferStmt:
		return w.deferStmt(s, st)
	case *ast.GoStmt:
		w.arguments(s.Call, &st, true)
	case *ast.SendStmt:
		w.expr(s.Chan, &st)
		w.expr(s.Value, &st)
		if st.held {
			w.report(s, "sends on a channel")
		}
	case *ast.IfStmt:
		st = w.stmt(s.Init, st)
		w.expr(s.Cond, &st)
		return w.merge(s, w.stmt(s.Body, st), w.stmt(s.Else, st))
	case *ast.ForStmt:
		st = w.stmt(s.Init, st)
		w.expr(s.Cond, &st)
		return w.loop(s, s.Body, s.Post, st)
	case *ast.RangeStmt:
		w.expr(s.X, &st)
		if _, ok := w.info.TypeOf(s.X).Underlying().(*types.Chan); ok && st.held {
			w.report(s, "receives from a channel")
		}
		return w.loop(s, s.Body, nil, st)
	case *ast.SwitchStmt:
		st = w.stmt(s.Init, st)
		w.expr(s.Tag, &st)
		return w.clauses(s, s.Body, st)
	case *ast.TypeSwitchStmt:
		return w.clauses(s, s.Body, w.stmt(s.Assign, w.stmt(s.Init, st)))
	case *ast.SelectStmt:
		return w.selectStmt(s, st)
	default:
		w.expr(s, &st)
	}
	return st
}

// loop: a turn ends with mu as it began. What is deferred in it runs only when the
// function ends.
func (w *walk) loop(n ast.Node, body *ast.BlockStmt, post ast.Stmt, st state) state {
	outer := *w
	w.breakTo, w.loopTo = st.held, st.held
	end := w.stmt(post, w.stmt(body, st))
	w.breakTo, w.loopTo = outer.breakTo, outer.loopTo
	if !end.over && end.held != st.held {
		w.report(n, "ends a turn of a loop with mu otherwise than it began")
	}
	return st
}

// clauses are the ways through a switch.
func (w *walk) clauses(n ast.Node, body *ast.BlockStmt, st state) state {
	outer := w.breakTo
	w.breakTo = st.held
	defer func() { w.breakTo = outer }()
	way, complete := state{over: true}, false
	for _, c := range body.List {
		c := c.(*ast.CaseClause)
		complete = complete || c.List == nil
		for _, e := range c.List {
			w.expr(e, &st)
		}
		way = w.merge(n, way, w.block(c.Body, st))
	}
	if !complete || way.over && breaks(body) {
		way = w.merge(n, way, st)
	}
	return way
}

// breaks tells a switch or select that can be left by a break.
func breaks(body *ast.BlockStmt) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		b, ok := n.(*ast.BranchStmt)
		found = found || ok && b.Tok == token.BREAK
		return !found
	})
	return found
}

// selectStmt: with a default it can't block.
func (w *walk) selectStmt(s *ast.SelectStmt, st state) state {
	outer := w.breakTo
	w.breakTo = st.held
	defer func() { w.breakTo = outer }()
	way, blocks := state{over: true}, true
	for _, c := range s.Body.List {
		blocks = blocks && c.(*ast.CommClause).Comm != nil
	}
	if blocks && st.held {
		w.report(s, "waits in a select")
	}
	for _, c := range s.Body.List {
		c := c.(*ast.CommClause)
		way = w.merge(s, way, w.block(c.Body, w.comm(c.Comm, st)))
	}
	if way.over && breaks(s.Body) {
		return st
	}
	return way
}

// comm walks the parts of a communication; that it is one is judged by its select.
func (w *walk) comm(s ast.Stmt, st state) state {
	switch s := s.(type) {
	case *ast.SendStmt:
		w.expr(s.Chan, &st)
		w.expr(s.Value, &st)
	case *ast.ExprStmt:
		w.expr(ast.Unparen(s.X).(*ast.UnaryExpr).X, &st)
	case *ast.AssignStmt:
		w.expr(ast.Unparen(s.Rhs[0]).(*ast.UnaryExpr).X, &st)
	}
	return st
}

// deferStmt: what is deferred after the release of mu runs before it.
func (w *walk) deferStmt(s *ast.DeferStmt, st state) state {
	if w.releasesMu(s.Call) {
		st.deferred = true
		return st
	}
	w.arguments(s.Call, &st, false)
	end := state{held: w.entry || st.deferred}
	if lit, ok := ast.Unparen(s.Call.Fun).(*ast.FuncLit); ok {
		w.literal(lit, end.held)
		return st
	}
	w.judge(s.Call, &end)
	return st
}

// expr walks whatever a node evaluates, calls included.
func (w *walk) expr(n ast.Node, st *state) {
	if n == nil || n == ast.Expr(nil) {
		return
	}
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if lit, ok := ast.Unparen(n.Fun).(*ast.FuncLit); ok {
				w.arguments(n, st, false)
				w.literal(lit, st.held)
				return false
			}
			w.arguments(n, st, w.later(n))
			w.judge(n, st)
			return false
		case *ast.FuncLit: // kept for later
			w.literal(n, w.ours(w.info.TypeOf(n)))
			return false
		case *ast.UnaryExpr:
			if n.Op == token.ARROW && st.held {
				w.report(n, "receives from a channel")
			}
		case *ast.Ident:
			if fn, ok := w.info.Uses[n].(*types.Func); ok && fn.Pkg() == w.pkg && w.contract(fn.Name()) {
				w.report(n, "hands on "+fn.Name()+", which needs mu")
			}
		}
		return true
	})
}

// arguments walks what is evaluated before a call. Literals among them run within
// the call, or later, without mu.
func (w *walk) arguments(call *ast.CallExpr, st *state, later bool) {
	if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
		w.expr(sel.X, st)
	} else if lit, ok := ast.Unparen(call.Fun).(*ast.FuncLit); ok && later {
		w.literal(lit, false)
	}
	for _, arg := range call.Args {
		if lit, ok := ast.Unparen(arg).(*ast.FuncLit); ok {
			w.literal(lit, st.held && !later)
		} else {
			w.expr(arg, st)
		}
	}
}
