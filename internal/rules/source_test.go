package rules

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root   = "../.."
	module = "github.com/seed-48fd9ae4/subagent"
)

// mechanisms are the internal packages that the core imports.
var mechanisms = []string{"internal/heap", "internal/clean"}

// All sources share their positions and what they import, so that each package is
// read once. The tests here do not run in parallel.
var (
	fset     = token.NewFileSet()
	imported = importer.ForCompiler(fset, "gc", exported)
	checked  = map[string]*source{}
)

// source is the parsed code of one package, without its tests. pkg and info are
// there when it was checked.
type source struct {
	dir   string
	files []*ast.File
	pkg   *types.Package
	info  *types.Info
}

// function is a declared function with the name it is known by: Type.Name for
// methods.
type function struct {
	*ast.FuncDecl
	name string
}

func (s *source) functions() (list []function) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				list = append(list, function{fn, funcName(fn)})
			}
		}
	}
	return list
}

// visit calls f for every node of the package, with the name of the declaration
// that it stands in.
func (s *source) visit(f func(within string, n ast.Node)) {
	for _, file := range s.files {
		for _, d := range file.Decls {
			within := "a declaration"
			if fn, ok := d.(*ast.FuncDecl); ok {
				within = funcName(fn)
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if n != nil {
					f(within, n)
				}
				return true
			})
		}
	}
}

func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	return receiver(fn) + "." + fn.Name.Name
}

func receiver(fn *ast.FuncDecl) string { return strings.TrimPrefix(text(fn.Recv.List[0].Type), "*") }

// at is where a node stands, from the root of the repository.
func (s *source) at(n ast.Node) string {
	p := fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", filepath.ToSlash(filepath.Join(s.dir, filepath.Base(p.Filename))), p.Line)
}

// text writes an expression in short: m.client.Abort.
func text(e ast.Expr) string { return types.ExprString(ast.Unparen(e)) }

// callee is the declared function or method that a call names, whatever its type
// arguments; nil for a conversion, a builtin or a value of function type.
func (s *source) callee(call *ast.CallExpr) *types.Func {
	fun := ast.Unparen(call.Fun)
	switch index := fun.(type) {
	case *ast.IndexExpr:
		fun = index.X
	case *ast.IndexListExpr:
		fun = index.X
	}
	var id *ast.Ident
	switch fun := fun.(type) {
	case *ast.Ident:
		id = fun
	case *ast.SelectorExpr:
		id = fun.Sel
	default:
		return nil
	}
	fn, _ := s.info.Uses[id].(*types.Func)
	return fn
}

func parseDir(t *testing.T, dir string) *source {
	t.Helper()
	s := &source{dir: dir}
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		s.files = append(s.files, f)
	}
	require.NotEmpty(t, s.files, "no Go code in %s", dir)
	return s
}

// checkDir parses and type-checks the package in a folder.
func checkDir(t *testing.T, dir string) *source {
	t.Helper()
	if checked[dir] == nil {
		s := parseDir(t, dir)
		require.NoError(t, s.check())
		checked[dir] = s
	}
	return checked[dir]
}

// parseText parses a fixture.
func parseText(t *testing.T, code string) *source {
	t.Helper()
	s := &source{dir: "."}
	f, err := parser.ParseFile(fset, "fixture.go", "package fixture\n"+code, parser.ParseComments)
	require.NoError(t, err, code)
	s.files = []*ast.File{f}
	return s
}

// checkText parses and type-checks a fixture.
func checkText(t *testing.T, code string) *source {
	t.Helper()
	s := parseText(t, code)
	require.NoError(t, s.check(), code)
	return s
}

func (s *source) check() error { return s.checkWith(nil) }

// checkWith goes on after an error if there is somebody to tell.
func (s *source) checkWith(tell func(error)) (err error) {
	s.info = &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{},
		Defs: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
	}
	config := types.Config{Importer: imported, Error: tell}
	s.pkg, err = config.Check(s.files[0].Name.Name, fset, s.files, s.info)
	return err
}

// exportData lists the compiled form of everything that the core can import.
var exportData = sync.OnceValues(func() (map[string]string, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}}={{.Export}}{{end}}",
		".", "./internal/heap", "./internal/clean", "./subagenttest", "./subagenttest/scriptedllm")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		files[path] = file
	}
	return files, err
})

func exported(path string) (io.ReadCloser, error) {
	files, err := exportData()
	if err != nil {
		return nil, fmt.Errorf("go list -export: %w", err)
	}
	return os.Open(files[path])
}

// testsOf are the packages that the tests of a folder make: its own with its tests,
// and the one beside it. What they import beyond the library's own imports stays
// unknown.
func testsOf(t *testing.T, dir string) (packages []*source) {
	t.Helper()
	byName := map[string]*source{}
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		f, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		s := byName[f.Name.Name]
		if s == nil {
			s = &source{dir: dir}
			byName[f.Name.Name] = s
			packages = append(packages, s)
		}
		s.files = append(s.files, f)
	}
	for _, s := range packages {
		_ = s.checkWith(func(error) {})
	}
	return packages
}

// folders are those below the root that hold Go code, by their path from there;
// nested ones are in modules of their own.
func folders(t *testing.T) (own, nested []string) {
	t.Helper()
	var modules []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		rel, err := filepath.Rel(root, path)
		if _, statErr := os.Stat(filepath.Join(path, "go.mod")); statErr == nil && path != root {
			modules = append(modules, rel)
		}
		if _, importErr := build.ImportDir(path, 0); importErr != nil {
			return err
		}
		if slices.ContainsFunc(modules, func(m string) bool { return rel == m || strings.HasPrefix(rel, m+string(filepath.Separator)) }) {
			nested = append(nested, filepath.ToSlash(rel))
		} else {
			own = append(own, filepath.ToSlash(rel))
		}
		return err
	}))
	return own, nested
}

// none fails with a line for each thing found; rule says what is asked and why.
func none(t *testing.T, rule string, found []string) {
	t.Helper()
	slices.Sort(found)
	for _, f := range slices.Compact(found) {
		t.Errorf("%s: %s", f, rule)
	}
}
