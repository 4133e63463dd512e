package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// investigation is something to find out about a source tree.
type investigation struct {
	agent    string
	question string
	answer   func(ctx context.Context, dir string) (string, error)
}

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

// endless is the investigation that has no end of its own.
const endless = 0

// finding is one row of an answer.
type finding struct {
	size int // large ones come first, equal ones as they were found
	text string
}

// most is how many findings an answer names.
const most = 5

// report is a headline with the first few findings.
func report(headline string, findings []finding) string {
	slices.SortStableFunc(findings, func(a, b finding) int { return cmp.Compare(b.size, a.size) })
	var b strings.Builder
	b.WriteString(headline)
	for _, f := range findings[:min(len(findings), most)] {
		b.WriteString("\n  " + f.text)
	}
	if more := len(findings) - most; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return b.String()
}

func largestFiles(ctx context.Context, dir string) (string, error) {
	var all []finding
	total := 0
	for f := range goFiles(ctx, dir) {
		if f.err != nil {
			continue // brokenFiles names it
		}
		n := f.lines()
		total += n
		all = append(all, finding{n, fmt.Sprintf("%6d lines  %s", n, f.name)})
	}
	return report(fmt.Sprintf("%d lines in %d files", total, len(all)), all), ctx.Err()
}

func brokenFiles(ctx context.Context, dir string) (string, error) {
	var broken []finding
	files := 0
	for f := range goFiles(ctx, dir) {
		files++
		_, err := f.parse(parser.ParseComments)
		var unread *fs.PathError
		switch {
		case errors.As(err, &unread):
			broken = append(broken, finding{0, fmt.Sprintf("%s: %s", f.name, unread.Err)})
		case err != nil: // it names the file and the line
			broken = append(broken, finding{0, err.Error()})
		}
	}
	return report(fmt.Sprintf("%d of %d files", len(broken), files), broken), ctx.Err()
}

var todoMarker = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b.*`)

func todoMarkers(ctx context.Context, dir string) (string, error) {
	var todos []finding
	for s := range sources(ctx, dir, parser.ParseComments) {
		for _, group := range s.tree.Comments {
			for _, c := range group.List {
				for _, m := range todoMarker.FindAllStringIndex(c.Text, -1) {
					where := s.at(c.Pos() + token.Pos(m[0]))
					text := strings.TrimSuffix(c.Text[m[0]:m[1]], "*/")
					todos = append(todos, finding{0, where + "  " + shorten(text)})
				}
			}
		}
	}
	return report(fmt.Sprintf("%d markers", len(todos)), todos), ctx.Err()
}

// shorten fits somebody else's text into a row.
func shorten(text string) string {
	const width = 60
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return string(runes)
}

func untestedPackages(ctx context.Context, dir string) (string, error) {
	lines, tested := map[string]int{}, map[string]bool{}
	for f := range goFiles(ctx, dir) {
		switch pkg := path.Dir(f.name); {
		case f.isTest():
			tested[pkg] = true
		case f.err == nil:
			lines[pkg] += f.lines()
		}
	}
	var untested []finding
	for _, pkg := range slices.Sorted(maps.Keys(lines)) {
		if !tested[pkg] {
			untested = append(untested, finding{lines[pkg], fmt.Sprintf("%6d lines  %s", lines[pkg], pkg)})
		}
	}
	return report(fmt.Sprintf("%d of %d packages", len(untested), len(lines)), untested), ctx.Err()
}

func fanIn(ctx context.Context, dir string) (string, error) {
	importers := map[string]map[string]bool{} // by import path: packages
	for s := range sources(ctx, dir, parser.ImportsOnly) {
		for _, spec := range s.tree.Imports {
			name := strings.Trim(spec.Path.Value, "\"`")
			if importers[name] == nil {
				importers[name] = map[string]bool{}
			}
			importers[name][path.Dir(s.name)] = true
		}
	}
	var all []finding
	for _, name := range slices.Sorted(maps.Keys(importers)) {
		n := len(importers[name])
		all = append(all, finding{n, fmt.Sprintf("%6d importers  %s", n, name)})
	}
	return report(fmt.Sprintf("%d packages are imported", len(all)), all), ctx.Err()
}

func undocumented(ctx context.Context, dir string) (string, error) {
	var bare []finding
	exported := 0
	for s := range sources(ctx, dir, parser.ParseComments) {
		if s.isTest() || s.tree.Name.Name == "main" {
			continue // nobody reads their documentation
		}
		for _, decl := range s.tree.Decls {
			for _, n := range exportedNames(decl) {
				exported++
				if !n.documented {
					bare = append(bare, finding{0, s.at(n.pos) + "  " + n.name})
				}
			}
		}
	}
	return report(fmt.Sprintf("%d of %d exported names", len(bare), exported), bare), ctx.Err()
}

type exportedName struct {
	name       string
	pos        token.Pos
	documented bool
}

// exportedNames are what a declaration at the top level exports.
func exportedNames(decl ast.Decl) (names []exportedName) {
	add := func(id *ast.Ident, name string, docs ...*ast.CommentGroup) {
		if id.IsExported() {
			documented := slices.ContainsFunc(docs, func(g *ast.CommentGroup) bool { return g != nil })
			names = append(names, exportedName{name, id.Pos(), documented})
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || ast.IsExported(receiver(d)) {
			add(d.Name, functionName(d), d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				add(s.Name, s.Name.Name, d.Doc, s.Doc, s.Comment)
			case *ast.ValueSpec:
				for _, id := range s.Names {
					add(id, id.Name, d.Doc, s.Doc, s.Comment)
				}
			}
		}
	}
	return names
}

// functionName is "F", or "T.F" for a method.
func functionName(f *ast.FuncDecl) string {
	if on := receiver(f); on != "" {
		return on + "." + f.Name.Name
	}
	return f.Name.Name
}

// receiver is the type that a method belongs to, "" for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return ""
	}
	// "*T[K, V]" is a method of T.
	name, _, _ := strings.Cut(types.ExprString(f.Recv.List[0].Type), "[")
	return strings.Trim(name, "*() ")
}

func longestFunctions(ctx context.Context, dir string) (string, error) {
	var all []finding
	for s := range sources(ctx, dir, 0) {
		for _, decl := range s.tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
				n := s.line(f.End()) - s.line(f.Pos()) + 1
				all = append(all, finding{n, fmt.Sprintf("%6d lines  %s  %s", n, s.at(f.Pos()), functionName(f))})
			}
		}
	}
	return report(fmt.Sprintf("%d functions", len(all)), all), ctx.Err()
}

// comparedErrors goes by names. A fixed error that was wrapped on its way is not
// equal to itself any more; errors.Is would find it.
func comparedErrors(ctx context.Context, dir string) (string, error) {
	var found []finding
	for s := range sources(ctx, dir, 0) {
		ast.Inspect(s.tree, func(n ast.Node) bool {
			b, ok := n.(*ast.BinaryExpr)
			if ok && (b.Op == token.EQL || b.Op == token.NEQ) && comparesErrors(b) {
				found = append(found, finding{0, s.at(b.Pos()) + "  " + shorten(types.ExprString(b))})
			}
			return true
		})
	}
	return report(fmt.Sprintf("%d comparisons", len(found)), found), ctx.Err()
}

var (
	fixedError = regexp.MustCompile(`^([Ee]rr[A-Z]\w*|EOF)$`)
	anyError   = regexp.MustCompile(`^(err|\w*Err|[Ee]rr[A-Z]\w*|EOF)$`)
)

func comparesErrors(b *ast.BinaryExpr) bool {
	x, y := lastName(b.X), lastName(b.Y)
	return fixedError.MatchString(y) && anyError.MatchString(x) || fixedError.MatchString(x) && anyError.MatchString(y)
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
