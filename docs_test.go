package subagent

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every test that the documents name exists.
func TestDocumentsNameRealTests(t *testing.T) {
	var source []byte
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	nested, err := filepath.Glob("adapters/*/*_test.go")
	require.NoError(t, err)
	for _, f := range append(files, nested...) {
		code, err := os.ReadFile(f)
		require.NoError(t, err)
		source = append(source, code...)
	}
	for _, doc := range []string{"doc.go", "docs/scenarios.md", "README.md", "adapters/opencode/README.md"} {
		text, err := os.ReadFile(doc)
		require.NoError(t, err)
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1) {
			if slices.Contains([]string{"TestClient", "TestNotifier", "TestStateMachineDoc"}, name) { // of other packages, for users
				continue
			}
			require.Regexp(t, `(?m)^func `+name+`\(t \*testing\.T\)`, string(source), "named in %s", doc)
		}
	}
}
