package rules

import (
	"fmt"
	"go/ast"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// noise are the uses of what a library must leave to its host: its output, its
// process.
func noise(s *source) (found []string) {
	for id, obj := range s.info.Uses {
		if loud(obj) {
			found = append(found, s.at(id)+" uses "+obj.Name())
		}
	}
	return found
}

func loud(obj types.Object) bool {
	if _, ok := obj.(*types.Builtin); ok {
		return obj.Name() == "print" || obj.Name() == "println"
	}
	if _, ok := obj.(*types.PkgName); ok || obj.Pkg() == nil {
		return false
	}
	switch name := obj.Name(); obj.Pkg().Path() {
	case "fmt":
		return strings.HasPrefix(name, "Print")
	case "os":
		return name == "Exit" || name == "Stdout" || name == "Stderr"
	case "log/slog":
		return name == "Default" || name == "SetDefault"
	case "log", "os/signal":
		return true
	}
	return false
}

// A library is silent, and leaves the process to its host.
func TestNothingIsPrinted(t *testing.T) {
	for _, dir := range append([]string{".", "subagenttest", "subagenttest/scriptedllm"}, mechanisms...) {
		none(t, "what to print, and when to exit, is the host's to say", noise(checkDir(t, dir)))
	}
	for _, bad := range []string{
		`import "fmt"; func f() { fmt.Println() }`,
		`import say "fmt"; var f = say.Printf`,
		`import "os"; func f() { os.Exit(1) }`,
		`import ("fmt"; "os"); func f() { fmt.Fprintln(os.Stderr) }`,
		`import "log"; func f() { log.Printf("") }`,
		`import "log/slog"; var l = slog.Default()`,
		`func f() { println() }`,
	} {
		require.Len(t, noise(checkText(t, bad)), 1, bad)
	}
	require.Empty(t, noise(checkText(t, `import "fmt"; var s = fmt.Sprint()`)))
}

// undocumented are exported names without a comment: of their own, of their group,
// or for constants and variables at the end of their line.
func undocumented(s *source) (found []string) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				visible := d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d)))
				if visible && d.Doc == nil {
					found = append(found, s.at(d)+" "+funcName(d))
				}
			case *ast.GenDecl:
				found = append(found, s.undocumentedIn(d)...)
			}
		}
	}
	return found
}

func (s *source) undocumentedIn(d *ast.GenDecl) (found []string) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
				found = append(found, s.at(spec)+" "+spec.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					found = append(found, s.at(name)+" "+name.Name)
				}
			}
		}
	}
	return found
}

func TestEverythingExportedIsDocumented(t *testing.T) {
	own, _ := folders(t)
	for _, dir := range own {
		s := parseDir(t, dir)
		none(t, "say what it means", undocumented(s))
		has := slices.ContainsFunc(s.files, func(f *ast.File) bool { return f.Doc != nil })
		require.True(t, has, "the package in %s has no comment", dir)
	}
	for _, bad := range []string{
		"type T struct{}", "func F() {}", "type t int\n// T is fine.\ntype T t\nfunc (*T) M() {}",
		"// T is fine.\ntype T int\nfunc (T) String() string { return \"\" }",
		"const C = 1", "var a, B int", "const (\n// C is fine.\nC = 1\nD = 2\n)", "type (\nT int\n)",
	} {
		require.Len(t, undocumented(parseText(t, bad)), 1, bad)
	}
	for _, good := range []string{
		"type t struct{}\nfunc (t) M() {}", "// The sizes.\nconst (\nC = 1\nD = 2\n)", "const (\nC = 1 // is one\n)",
		"// T is fine.\ntype T int\n// String is its name.\nfunc (T) String() string { return \"\" }",
	} {
		require.Empty(t, undocumented(parseText(t, good)), good)
	}
}

const (
	longest, usual, middle = 60, 35, 10 // lines of a function: all, 19 of 20, half of them
	longestFile            = 400
)

// lengths are the lines of each function, and what is longer than anything may be.
func lengths(s *source) (lines []int, tooLong []string) {
	for _, fn := range s.functions() {
		n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
		lines = append(lines, n)
		if n > longest {
			tooLong = append(tooLong, fmt.Sprintf("%s %s is %d lines long", s.at(fn), fn.name, n))
		}
	}
	for _, f := range s.files {
		end := fset.Position(f.FileEnd)
		if end.Column == 1 {
			end.Line-- // what comes after the last newline is no line
		}
		if end.Line > longestFile {
			tooLong = append(tooLong, fmt.Sprintf("%s: the file is %d lines long", s.at(f), end.Line))
		}
	}
	return lines, tooLong
}

// spread is the median, the 95th percentile and the maximum.
func spread(lines []int) (median, p95, most int) {
	slices.Sort(lines)
	n := len(lines)
	return lines[n/2], lines[n*95/100], lines[n-1]
}

// Functions and files stay small enough to be read at once.
func TestSizes(t *testing.T) {
	own, _ := folders(t)
	var library []int
	for _, dir := range own {
		lines, tooLong := lengths(parseDir(t, dir))
		none(t, "a reader takes it in at once, or it is two things", tooLong)
		if len(lines) == 0 {
			continue
		}
		median, p95, most := spread(lines)
		t.Logf("%-22s %3d functions: median %2d lines, p95 %2d, longest %2d", dir, len(lines), median, p95, most)
		if dir == "." {
			require.LessOrEqual(t, median, middle, "the core's median function; it is read more than it is written")
			require.LessOrEqual(t, p95, usual, "the core's p95 function; it is read more than it is written")
		}
		if !strings.HasPrefix(dir, "examples") {
			library = append(library, lines...)
		}
	}
	median, p95, most := spread(library)
	t.Logf("%-22s %3d functions: median %2d lines, p95 %2d, longest %2d", "all but examples", len(library), median, p95, most)
	require.LessOrEqual(t, median, middle, "the median function; it is read more than it is written")
	require.LessOrEqual(t, p95, usual, "the p95 function; it is read more than it is written")

	_, tooLong := lengths(parseText(t, "func f() {\n"+strings.Repeat("\tf()\n", longest)+"}\n"))
	require.Len(t, tooLong, 1)
	_, tooLong = lengths(parseText(t, strings.Repeat("\n", longestFile)))
	require.Len(t, tooLong, 1)
	_, tooLong = lengths(parseText(t, strings.Repeat("\n", longestFile-1)+"func f() {\n"+strings.Repeat("\tf()\n", longest-2)+"}\n"))
	require.Len(t, tooLong, 1, "the file, and not the function")
}
