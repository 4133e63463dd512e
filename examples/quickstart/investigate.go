package main

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// most is how many findings an answer names.
const most = 5

// investigation is something to find out about a source tree.
type investigation struct {
	agent    string
	question string
	answer   func(ctx context.Context, dir string) (string, error)
}

// The first one has no end of its own, and is the one that gets cancelled.
var investigations = []investigation{
	{"reviewer", "repeated blocks of lines", repeatedBlocks},
	{"reviewer", "exported names without a doc comment", undocumented},
	{"reviewer", "longest functions", longestFunctions},
	{"reviewer", "errors compared with ==", comparedErrors},
	{"surveyor", "largest files", largestFiles},
	{"surveyor", "files that do not parse", brokenFiles},
	{"surveyor", "TODO markers", todoMarkers},
	{"surveyor", "packages without tests", untestedPackages},
	{"surveyor", "packages imported by most others", fanIn},
}

// finding is one row of an answer. Large ones come first, equal ones in the order
// in which they were found.
type finding struct {
	size int
	text string
}

// report is a headline with the first few findings.
func report(headline string, findings []finding) string {
	slices.SortStableFunc(findings, func(a, b finding) int { return cmp.Compare(b.size, a.size) })
	var b strings.Builder
	b.WriteString(headline)
	for i, f := range findings {
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(findings)-most)
			break
		}
		b.WriteString("\n  " + f.text)
	}
	return b.String()
}

func largestFiles(ctx context.Context, dir string) (string, error) {
	var all []finding
	total := 0
	err := eachFile(ctx, dir, func(name string, text []byte, err error) {
		if err == nil {
			n := countLines(text)
			total += n
			all = append(all, finding{n, fmt.Sprintf("%6d lines  %s", n, name)})
		}
	})
	return report(fmt.Sprintf("%d lines in %d files", total, len(all)), all), err
}

func brokenFiles(ctx context.Context, dir string) (string, error) {
	var broken []finding
	files := 0
	err := eachFile(ctx, dir, func(name string, text []byte, err error) {
		files++
		if err == nil {
			_, err = parse(name, text, parser.ParseComments)
		}
		if err != nil {
			// The parser's error names the file too.
			what := strings.TrimPrefix(err.Error(), name+":")
			broken = append(broken, finding{0, name + ":" + what})
		}
	})
	return report(fmt.Sprintf("%d of %d files", len(broken), files), broken), err
}

var todoMarker = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b[^\n]*`)

func todoMarkers(ctx context.Context, dir string) (string, error) {
	var todos []finding
	err := eachSource(ctx, dir, parser.ParseComments, func(s *source) {
		for _, group := range s.tree.Comments {
			for _, c := range group.List {
				for _, m := range todoMarker.FindAllStringIndex(c.Text, -1) {
					where := s.at(c.Pos() + token.Pos(m[0]))
					todos = append(todos, finding{0, where + "  " + shorten(c.Text[m[0]:m[1]])})
				}
			}
		}
	})
	return report(fmt.Sprintf("%d markers", len(todos)), todos), err
}

// shorten keeps a line of somebody else's text to a line of ours.
func shorten(text string) string {
	const width = 60
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}

func untestedPackages(ctx context.Context, dir string) (string, error) {
	code, tests := map[string]int{}, map[string]int{}
	err := eachFile(ctx, dir, func(name string, text []byte, _ error) {
		switch {
		case !strings.HasSuffix(name, ".go"): // a directory that can't be read
		case isTest(name):
			tests[path.Dir(name)]++
		default:
			code[path.Dir(name)] += countLines(text)
		}
	})
	var untested []finding
	for _, name := range sortedKeys(code) {
		if tests[name] == 0 {
			untested = append(untested, finding{code[name], fmt.Sprintf("%6d lines  %s", code[name], name)})
		}
	}
	return report(fmt.Sprintf("%d of %d packages", len(untested), len(code)), untested), err
}

func fanIn(ctx context.Context, dir string) (string, error) {
	importers := map[string]map[string]bool{} // by import path: directories
	err := eachSource(ctx, dir, parser.ImportsOnly, func(s *source) {
		for _, spec := range s.tree.Imports {
			name := strings.Trim(spec.Path.Value, "\"`")
			if importers[name] == nil {
				importers[name] = map[string]bool{}
			}
			importers[name][path.Dir(s.name)] = true
		}
	})
	var all []finding
	for _, name := range sortedKeys(importers) {
		n := len(importers[name])
		all = append(all, finding{n, fmt.Sprintf("%6d importers  %s", n, name)})
	}
	return report(fmt.Sprintf("%d packages are imported", len(all)), all), err
}

func undocumented(ctx context.Context, dir string) (string, error) {
	var bare []finding
	exported := 0
	err := eachSource(ctx, dir, parser.ParseComments, func(s *source) {
		if isTest(s.name) || s.tree.Name.Name == "main" {
			return // nobody reads their documentation
		}
		for _, decl := range s.tree.Decls {
			for _, n := range exportedNames(decl) {
				exported++
				if !n.documented {
					bare = append(bare, finding{0, s.at(n.pos) + "  " + n.name})
				}
			}
		}
	})
	return report(fmt.Sprintf("%d of %d exported names", len(bare), exported), bare), err
}

type exportedName struct {
	name       string
	pos        token.Pos
	documented bool
}

// exportedNames are what a declaration at the top level exports.
func exportedNames(decl ast.Decl) (names []exportedName) {
	add := func(prefix string, id *ast.Ident, docs ...*ast.CommentGroup) {
		if id.IsExported() {
			documented := slices.ContainsFunc(docs, func(g *ast.CommentGroup) bool { return g != nil })
			names = append(names, exportedName{prefix + id.Name, id.Pos(), documented})
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if on := receiver(d); d.Recv == nil || ast.IsExported(on) {
			add(dotted(on), d.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				add("", s.Name, d.Doc, s.Doc, s.Comment)
			case *ast.ValueSpec:
				for _, id := range s.Names {
					add("", id, d.Doc, s.Doc, s.Comment)
				}
			}
		}
	}
	return names
}

// receiver is the name of the type a method belongs to, "" for a function.
func receiver(f *ast.FuncDecl) (name string) {
	if f.Recv != nil {
		ast.Inspect(f.Recv, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok {
				name = baseName(field.Type)
				return false
			}
			return true
		})
	}
	return name
}

// baseName takes the pointer and the type parameters off a receiver's type.
func baseName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return baseName(e.X)
	case *ast.ParenExpr:
		return baseName(e.X)
	case *ast.IndexExpr:
		return baseName(e.X)
	case *ast.IndexListExpr:
		return baseName(e.X)
	}
	return ""
}

func dotted(name string) string {
	if name == "" {
		return ""
	}
	return name + "."
}

func longestFunctions(ctx context.Context, dir string) (string, error) {
	var all []finding
	err := eachSource(ctx, dir, 0, func(s *source) {
		for _, decl := range s.tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
				n := s.line(f.End()) - s.line(f.Pos()) + 1
				text := fmt.Sprintf("%6d lines  %s  %s%s", n, s.at(f.Pos()), dotted(receiver(f)), f.Name.Name)
				all = append(all, finding{n, text})
			}
		}
	})
	return report(fmt.Sprintf("%d functions", len(all)), all), err
}

// sentinel matches what a fixed error value is usually called.
var sentinel = regexp.MustCompile(`^([Ee]rr[A-Z]\w*|EOF)$`)

// comparedErrors goes by names: an error that was wrapped on its way is not equal
// to a fixed value any more, and errors.Is would find it.
func comparedErrors(ctx context.Context, dir string) (string, error) {
	var found []finding
	err := eachSource(ctx, dir, 0, func(s *source) {
		ast.Inspect(s.tree, func(n ast.Node) bool {
			b, ok := n.(*ast.BinaryExpr)
			if ok && (b.Op == token.EQL || b.Op == token.NEQ) {
				x, y := lastName(b.X), lastName(b.Y)
				if sentinel.MatchString(y) && isErr(x) || sentinel.MatchString(x) && isErr(y) {
					found = append(found, finding{0, fmt.Sprintf("%s  %s %s %s", s.at(b.Pos()), x, b.Op, y)})
				}
			}
			return true
		})
	})
	return report(fmt.Sprintf("%d comparisons", len(found)), found), err
}

// isErr matches the usual names of an error variable.
func isErr(name string) bool {
	return name == "err" || strings.HasSuffix(name, "Err") || sentinel.MatchString(name)
}

// lastName is "EOF" for io.EOF.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
