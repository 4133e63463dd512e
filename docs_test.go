package subagent

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// documents are the pages that are read, by their path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"doc.go", "*.md", "docs/*.md", "adapters/*/*.md"} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, name := range names {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			pages[name] = string(text)
		}
	}
	return pages
}

// tests are the names of the tests in files that match.
func tests(t *testing.T, patterns ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, f := range files {
			code, err := os.ReadFile(f)
			require.NoError(t, err)
			for _, m := range testFunc.FindAllStringSubmatch(string(code), -1) {
				names[m[1]] = true
			}
		}
	}
	return names
}

// Every test that the documents name exists.
func TestDocumentsNameRealTests(t *testing.T) {
	known := tests(t, "*_test.go", "adapters/*/*_test.go", "internal/mutants/*_test.go")
	for doc, text := range documents(t) {
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(text, -1) {
			require.True(t, known[name] || name == "TestClient" || name == "TestNotifier", "%s is named in %s", name, doc)
		}
	}
}

var (
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	link     = regexp.MustCompile(`\[([^\]]*)\]\(([^)#]+)(?:#[^)]*)?\)`)
	testName = regexp.MustCompile(`^Test[A-Z]\w+$`)
)

// deadLinks are the links of a page that lead nowhere in the repository, and those with
// the name of a test that lead to a file which does not hold it.
func deadLinks(t *testing.T, page, text string) (found []string) {
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[2], "://") {
			continue
		}
		to := filepath.Join(filepath.Dir(page), m[2])
		_, err := os.Stat(to)
		if err != nil || testName.MatchString(m[1]) && !tests(t, to)[m[1]] {
			found = append(found, m[0])
		}
	}
	return found
}

// A link of a document leads somewhere; one to a test, to the file that holds it.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	for page, text := range documents(t) {
		require.Empty(t, deadLinks(t, page, text), "in %s", page)
	}
	const bad = "[a](missing.md) [TestStorm](docs_test.go) [TestNone](storm_test.go) [TestStorm](missing_test.go) [TestStorm](../storm_test.go)"
	require.Len(t, deadLinks(t, "README.md", bad), 5)
	require.Empty(t, deadLinks(t, "docs/x.md", "[TestStorm](../storm_test.go) [a](architecture.md#decisions) [b](https://example.org/x)"))
}

// What the README guarantees it proves: each line links to a test.
func TestGuaranteesLinkToTests(t *testing.T) {
	_, rest, ok := strings.Cut(documents(t)["README.md"], "\n**Guaranteed**")
	require.True(t, ok)
	_, list, ok := strings.Cut(rest, "\n\n")
	require.True(t, ok)
	list, _, ok = strings.Cut(list, "\n\n")
	require.True(t, ok)
	lines := strings.Split(list, "\n")
	require.GreaterOrEqual(t, len(lines), 10)
	for _, line := range lines {
		require.Regexp(t, `^- .*\[Test[A-Z]\w+\]\(\w+_test\.go\)`, line)
	}
}
