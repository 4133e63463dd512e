package rules

import (
	"bytes"
	"go/parser"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// committed are the files of the repository and those about to join it, with what
// is in them; none of those that are deleted or are not text.
func committed(t *testing.T) map[string][]byte {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skip("not a git checkout: the rules about committed files need `git clone`")
	}
	files := map[string][]byte{}
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err == nil && bytes.IndexByte(data, 0) < 0 {
			files[name] = data
		}
	}
	require.NotEmpty(t, files)
	return files
}

// The words are put together so that this file is not among what it finds.
var (
	alone = regexp.MustCompile(`\.\./` + `shared|/wo` + `rk/|DEVELOPERS` + `\.md|COMPASS` + `\.md`)
	later = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
)

// The project stands alone.
func TestFilesNameNothingThatUsersLack(t *testing.T) {
	for name, data := range committed(t) {
		require.False(t, alone.Match(data), "%s names what users do not have: %q", name, alone.Find(data))
	}
	for _, bad := range []string{"see ../" + "shared/x", "in /wo" + "rk/main", "as DEVELOPERS" + ".md says"} {
		require.True(t, alone.MatchString(bad), bad)
	}
	require.False(t, alone.MatchString("go test work; homework/x"))
}

// postponed are comments that put something off.
func postponed(t *testing.T, name string, code []byte) (found []string) {
	t.Helper()
	s := &source{dir: filepath.Dir(name)}
	f, err := parser.ParseFile(fset, name, code, parser.ParseComments)
	require.NoError(t, err)
	for _, group := range f.Comments {
		for _, c := range group.List {
			if later.MatchString(c.Text) {
				found = append(found, s.at(c)+" "+c.Text)
			}
		}
	}
	return found
}

// What is to be done is said in issues.
func TestNothingIsPutOff(t *testing.T) {
	for name, data := range committed(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "examples/") {
			continue
		}
		none(t, "do it, or open an issue", postponed(t, name, data))
	}
	require.Len(t, postponed(t, "x.go", []byte("package x\n// TO"+"DO: all\n/* FIX"+"ME */")), 2)
	require.Empty(t, postponed(t, "x.go", []byte("package x\nvar s = `TO"+"DO`")))
}

// excerpts are the blocks of Go in a document, each without its indentation.
func excerpts(document string) (found []string) {
	for _, rest := range strings.Split(document, "```go\n")[1:] {
		block, _, _ := strings.Cut(rest, "```")
		found = append(found, flat(block))
	}
	return found
}

func flat(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// Code in a document is code that is compiled: it stands in a Go file just so. The
// first program of the README is looked at by the next test.
func TestDocumentsShowWhatCompiles(t *testing.T) {
	files := committed(t)
	var code strings.Builder
	for name, data := range files {
		if strings.HasSuffix(name, ".go") {
			code.WriteString(flat(string(data)))
		}
	}
	for name, data := range files {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		blocks := excerpts(string(data))
		if name == "README.md" {
			require.Greater(t, len(blocks), 3)
			blocks = blocks[1:]
		}
		for _, block := range blocks {
			require.Contains(t, code.String(), block, "%s shows what no Go file has:\n%s", name, block)
		}
	}
	require.Equal(t, []string{"x()\nif y {\n}\n"}, excerpts("a\n```go\n\tx()\n  if y {\n}\n```\nb"))
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
	require.Less(t, strings.Count(program, "\n"), 30)
	same := strings.NewReplacer("package subagent_test", "package main", "func Example()", "func main()", "\t// Output:\n\t// 2 tasks ended; final: true\n\t// error: <nil>\n", "")
	require.Equal(t, program, same.Replace(string(example)))
}
