package rules

import (
	"bytes"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/seed-48fd9ae4/subagent"

func imports(s *source) (list []string) {
	for _, f := range s.files {
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			list = append(list, path)
		}
	}
	return list
}

func standard(path string) bool { return !strings.Contains(strings.Split(path, "/")[0], ".") }

// Dependencies point one way, and are few.
func TestLayers(t *testing.T) {
	allowed := map[string][]string{
		".":              {"github.com/google/uuid", "golang.org/x/sync/errgroup", module + "/internal/heap", module + "/internal/clean"},
		"internal/heap":  {},
		"internal/clean": {},
		"internal/bench": {module},
		"subagenttest":   {module},
	}
	for dir, s := range packages(t) {
		for _, path := range imports(s) {
			if strings.HasPrefix(dir, "examples") {
				require.True(t, standard(path) || path == module, "%s imports %s", dir, path)
			} else if !standard(path) && !strings.HasPrefix(dir, "internal/bench") {
				require.Contains(t, allowed[dir], path, "imported by %s", dir)
			}
			require.False(t, path == "os/signal" && !strings.HasPrefix(dir, "examples"), "%s handles signals", dir)
		}
	}
}

func TestDirectRequirements(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) < 2 || !strings.Contains(fields[0], ".") || strings.Contains(line, "// indirect") || strings.HasPrefix(line, "module") {
			continue
		}
		require.Contains(t, []string{"github.com/google/uuid", "golang.org/x/sync", "github.com/stretchr/testify", "pgregory.net/rapid"}, fields[0])
	}
}

// prints are calls that write where a library must not, or end the process.
var prints = regexp.MustCompile(`^(fmt\.Print(f|ln)?|log\..*|os\.Exit|os\.Stdout.*|os\.Stderr.*|print|println)$`)

// A library is silent, and leaves the process to its host.
func TestNothingIsPrinted(t *testing.T) {
	for _, dir := range []string{".", "internal/heap", "internal/clean", "subagenttest"} {
		s := parseDir(t, filepath.Join(root, dir))
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					require.False(t, prints.MatchString(text(n.Fun)) && text(n.Fun) != "log.LogAttrs", "%s/%s calls %s", dir, s.at(n), text(n.Fun))
				case *ast.SelectorExpr:
					require.NotContains(t, []string{"os.Stdout", "os.Stderr"}, text(n), "%s/%s", dir, s.at(n))
				}
				return true
			})
		}
	}
	require.True(t, prints.MatchString("fmt.Println"))
	require.True(t, prints.MatchString("os.Exit"))
}

// undocumented are exported names without a comment.
func undocumented(s *source) (found []string) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || ast.IsExported(receiver(d))) && !plumbing[d.Name.Name] {
					found = append(found, s.at(d)+" "+funcName(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if name, ok := exported(spec); ok && d.Doc == nil && !documented(spec) {
						found = append(found, s.at(spec)+" "+name)
					}
				}
			}
		}
	}
	return found
}

// plumbing are methods whose meaning every Go reader knows.
var plumbing = map[string]bool{"Error": true, "Unwrap": true, "String": true, "Is": true}

func receiver(d *ast.FuncDecl) string { return strings.TrimPrefix(text(d.Recv.List[0].Type), "*") }

func exported(spec ast.Spec) (string, bool) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		return spec.Name.Name, spec.Name.IsExported()
	case *ast.ValueSpec:
		return spec.Names[0].Name, spec.Names[0].IsExported()
	}
	return "", false
}

func documented(spec ast.Spec) bool {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		return spec.Doc != nil
	case *ast.ValueSpec:
		return spec.Doc != nil || spec.Comment != nil
	}
	return true
}

func TestEverythingExportedIsDocumented(t *testing.T) {
	for dir, s := range packages(t) {
		none(t, "say what it means", undocumented(s))
		has := slices.ContainsFunc(s.files, func(f *ast.File) bool { return f.Doc != nil })
		require.True(t, has, "package in %s has no comment", dir)
	}
	require.Len(t, undocumented(parseText(t, "type T struct{}\nfunc F() {}\nfunc (T) M() {}\nconst C = 1\nfunc (t) N() {}\n// D is fine.\nfunc D() {}")), 4)
}

// Functions and files stay small enough to be read at once.
func TestSizes(t *testing.T) {
	for dir, s := range packages(t) {
		var lengths []int
		for _, fn := range s.functions() {
			n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
			lengths = append(lengths, n)
			require.LessOrEqual(t, n, 60, "%s/%s %s is %d lines long", dir, s.at(fn), fn.name, n)
		}
		for _, f := range s.files {
			n := s.fset.Position(f.FileEnd).Line
			require.LessOrEqual(t, n, 400, "%s/%s is %d lines long", dir, s.at(f), n)
		}
		if dir != "." {
			continue
		}
		slices.Sort(lengths)
		median, p95 := lengths[len(lengths)/2], lengths[len(lengths)*95/100]
		t.Logf("core: %d functions, median %d lines, p95 %d, longest %d", len(lengths), median, p95, lengths[len(lengths)-1])
		require.LessOrEqual(t, median, 10)
		require.LessOrEqual(t, p95, 35)
	}
}

// committed are the files of the repository and those about to join it.
func committed(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skip("not a git checkout: the rules about committed files need `git clone`")
	}
	return strings.Fields(string(out))
}

// The project stands alone, and says what is to be done in issues, not in code.
func TestCommittedFiles(t *testing.T) {
	alone := regexp.MustCompile(`\.\./` + `shared|/wo` + `rk/|DEVELOPERS` + `\.md|COMPASS` + `\.md`)
	later := regexp.MustCompile(`//\s*(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, name := range committed(t) {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || bytes.IndexByte(data, 0) >= 0 {
			continue
		}
		require.False(t, alone.Match(data), "%s names what users do not have: %q", name, alone.Find(data))
		if strings.HasSuffix(name, ".go") && !strings.HasPrefix(name, "examples") {
			require.False(t, later.Match(data), "%s: %q", name, later.Find(data))
		}
		if strings.HasSuffix(name, "_test.go") && bytes.Contains(data, []byte("time.Sl"+"eep(")) {
			require.True(t, bytes.Contains(data, []byte("synctest")), "%s sleeps outside a bubble", name)
		}
	}
	require.True(t, alone.MatchString("see ../"+"shared/x"))
}

// The program on the README's first screen is one that the tests run.
func TestReadmeProgramIsTheExample(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	example, err := os.ReadFile(filepath.Join(root, "example_readme_test.go"))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	require.True(t, ok)
	program, _, ok := strings.Cut(rest, "```\n")
	require.True(t, ok)
	require.Less(t, strings.Count(program, "\n"), 35)
	same := strings.NewReplacer("package subagent_test", "package main", "func Example()", "func main()", "\t// Output: 2 tasks ended; final: true\n", "")
	require.Equal(t, program, same.Replace(string(example)))
}
