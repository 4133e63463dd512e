package rules

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
)

// plainPackages do nothing but compute.
var plainPackages = []string{
	"bytes", "cmp", "encoding/base32", "maps", "math", "math/bits", "math/rand/v2", "slices", "sort", "strconv",
	"strings", "sync/atomic", "unicode", "unicode/utf8", module + "/internal/heap", module + "/internal/clean",
}

// plainCalls do so too, though not all of their package does. context.Cause,
// errors.Is and errors.As are not among them: they call methods of what the host
// passed in. fmt is trusted with values of our own.
var plainCalls = []string{
	"context.Background", "context.WithCancel", "context.WithCancelCause", "context.WithTimeout",
	"errors.New", "errors.Join", "fmt.Sprint", "fmt.Sprintf", "fmt.Errorf", "fmt.Fprintf",
	"log/slog.String", "log/slog.Int", "log/slog.Bool", "log/slog.Duration",
	"time.Now", "time.Since", "time.Until", "time.AfterFunc",
}

func plain(fn *types.Func) bool {
	if fn.Pkg() == nil {
		return false // error.Error: of an error that may be the host's
	}
	path, name := fn.Pkg().Path(), fn.FullName()
	return slices.Contains(plainPackages, path) || slices.Contains(plainCalls, name) ||
		path == "time" && fn.Signature().Recv() != nil
}

// judge says whether a call may stand where it does, and takes in what it does to mu.
func (w *walk) judge(call *ast.CallExpr, st *state) {
	fn := w.callee(call)
	switch {
	case fn == nil:
		w.judgeValue(call, st)
	case isLock(fn):
		if st.held {
			w.report(call, "locks "+text(call.Fun)+" with mu held")
		}
		st.held, st.maybe = true, false
	case w.releasesMu(call):
		if !st.held {
			w.report(call, "releases mu without holding it")
		}
		st.held, st.maybe = false, false
	case fn.Pkg() == w.pkg && w.contract(fn.Name()):
		if !st.held || st.maybe {
			w.report(call, "calls "+fn.Name()+" without mu")
		}
	case st.held && fn.Pkg() == w.pkg:
		w.enter(call, fn.Origin())
	case st.held && !plain(fn):
		w.report(call, "calls "+fn.FullName()+" with mu held")
	}
}

// judgeValue is for what has no declaration: builtins, conversions, values of
// function type. Such a value is the host's unless its type, or its signature,
// says that it is not.
func (w *walk) judgeValue(call *ast.CallExpr, st *state) {
	fun := w.info.Types[call.Fun]
	if id, ok := ast.Unparen(call.Fun).(*ast.Ident); ok && fun.IsBuiltin() {
		st.over = st.over || id.Name == "panic"
		return
	}
	if !st.held || fun.IsType() || fun.IsBuiltin() || w.ours(fun.Type) {
		return
	}
	if named, ok := fun.Type.(*types.Named); ok && named.Obj().Pkg().Path() == "context" {
		return // cancels a context of our own
	}
	w.report(call, "calls the function value "+text(call.Fun)+" with mu held")
}

// enter walks a function of the package that is called with mu held.
func (w *walk) enter(call *ast.CallExpr, fn *types.Func) {
	for _, callee := range w.implementations(call, fn) {
		if decl := w.decls[callee]; decl != nil && !w.entered[callee] {
			w.entered[callee] = true
			w.function(decl, true, w.path+" > "+fn.Name())
		}
	}
}

// implementations are the functions that a call may reach. A method of an
// interface that is exported can be the host's.
func (w *walk) implementations(call *ast.CallExpr, fn *types.Func) (found []*types.Func) {
	recv := fn.Signature().Recv()
	if recv == nil || !types.IsInterface(recv.Type()) {
		return []*types.Func{fn}
	}
	if fn.Exported() {
		w.report(call, "calls "+fn.FullName()+", which may be the host's, with mu held")
		return nil
	}
	iface := recv.Type().Underlying().(*types.Interface)
	for other := range w.decls {
		r := other.Signature().Recv()
		if other.Name() == fn.Name() && r != nil && types.Implements(r.Type(), iface) {
			found = append(found, other)
		}
	}
	return found
}

func isLock(fn *types.Func) bool {
	return slices.Contains([]string{"(*sync.Mutex).Lock", "(*sync.RWMutex).Lock", "(*sync.RWMutex).RLock"}, fn.FullName())
}

// releasesMu tells Unlock, and our own unlock, which does what is due before.
func (w *walk) releasesMu(call *ast.CallExpr) bool {
	fn := w.callee(call)
	return fn != nil && (fn.Pkg() == w.pkg && fn.Name() == "unlock" ||
		slices.Contains([]string{"(*sync.Mutex).Unlock", "(*sync.RWMutex).Unlock", "(*sync.RWMutex).RUnlock"}, fn.FullName()))
}

// later tells the calls that run a function they are given in another goroutine.
func (w *walk) later(call *ast.CallExpr) bool {
	fn := w.callee(call)
	return fn != nil && (fn.Name() == "goLocked" || startsGoroutine(fn.FullName()) || fn.FullName() == "context.AfterFunc")
}

// ours reports whether a function type names a type that only this package has,
// so that no value of it can come from outside.
func (w *walk) ours(t types.Type) bool {
	sig, ok := t.Underlying().(*types.Signature)
	if !ok {
		return false
	}
	for _, tuple := range []*types.Tuple{sig.Params(), sig.Results()} {
		for v := range tuple.Variables() {
			name := strings.TrimLeft(types.TypeString(v.Type(), types.RelativeTo(w.pkg)), "*[]")
			if obj := w.pkg.Scope().Lookup(name); obj != nil && !obj.Exported() {
				return true
			}
		}
	}
	return false
}
