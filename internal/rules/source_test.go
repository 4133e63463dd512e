package rules

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// source is the parsed code of one package, without its tests.
type source struct {
	dir   string
	fset  *token.FileSet
	files []*ast.File
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

func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	return strings.TrimPrefix(text(fn.Recv.List[0].Type), "*") + "." + fn.Name.Name
}

func (s *source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", filepath.Base(p.Filename), p.Line)
}

// text writes an expression in short: m.client.Abort.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	case *ast.StarExpr:
		return "*" + text(e.X)
	case *ast.IndexExpr:
		return text(e.X)
	case *ast.CallExpr:
		return text(e.Fun) + "()"
	case *ast.ParenExpr:
		return text(e.X)
	case *ast.UnaryExpr:
		return e.Op.String() + text(e.X)
	}
	return "?"
}

func parseDir(t *testing.T, dir string) *source {
	t.Helper()
	s := &source{dir: dir, fset: token.NewFileSet()}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(s.fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		s.files = append(s.files, f)
	}
	return s
}

// parseText parses a fixture.
func parseText(t *testing.T, code string) *source {
	t.Helper()
	s := &source{fset: token.NewFileSet()}
	f, err := parser.ParseFile(s.fset, "fixture.go", "package fixture\n"+code, parser.ParseComments)
	require.NoError(t, err)
	s.files = []*ast.File{f}
	return s
}

// packages are the folders that hold Go code of the core module, by their path
// below the root.
func packages(t *testing.T) map[string]*source {
	t.Helper()
	found := map[string]*source{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		base := d.Name()
		if path != root && (strings.HasPrefix(base, ".") || base == "testdata") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
			return filepath.SkipDir
		}
		if _, err := build.ImportDir(path, 0); err == nil {
			rel, err := filepath.Rel(root, path)
			found[rel] = parseDir(t, path)
			return err
		}
		return nil
	}))
	return found
}

// none fails with a line for each thing found.
func none(t *testing.T, rule string, found []string) {
	t.Helper()
	slices.Sort(found)
	for _, f := range found {
		t.Errorf("%s: %s", f, rule)
	}
}
