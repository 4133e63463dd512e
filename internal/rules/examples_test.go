package rules

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// awaited are verbs that may lack their Example until it comes; best none.
var awaited []string

// verbs are the exported methods of the manager.
func verbs(s *source) (names []string) {
	for _, fn := range s.functions() {
		if on, verb, ok := strings.Cut(fn.name, "."); ok && on == "BackgroundManager" && ast.IsExported(verb) {
			names = append(names, verb)
		}
	}
	return names
}

// shown are the verbs with an Example that is run: one without its output is only
// compiled. A further one, as Subscribe_progress, stands beside the first.
func shown(files []*ast.File) (names []string) {
	for _, e := range doc.Examples(files...) {
		verb, ok := strings.CutPrefix(e.Name, "BackgroundManager_")
		if ok && (e.Output != "" || e.EmptyOutput) {
			names = append(names, verb)
		}
	}
	return names
}

// unshown are verbs without an Example, and those that are awaited no more.
func unshown(verbs, shown, awaited []string) (found []string) {
	for _, verb := range verbs {
		if !slices.Contains(shown, verb) && !slices.Contains(awaited, verb) {
			found = append(found, verb+" has no Example with its output")
		}
	}
	for _, verb := range awaited {
		if slices.Contains(shown, verb) {
			found = append(found, verb+" has its Example and is awaited no more")
		}
	}
	return found
}

// Who reads the documentation of a verb sees it used, by code that the tests run.
func TestEveryVerbHasAnExample(t *testing.T) {
	var tests []*ast.File
	names, err := filepath.Glob(filepath.Join(root, "*_test.go"))
	require.NoError(t, err)
	for _, name := range names {
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		tests = append(tests, f)
	}
	all := verbs(parseDir(t, "."))
	require.Contains(t, all, "Launch")
	none(t, "it goes into an example_…_test.go, and ends in // Output:", unshown(all, shown(tests), awaited))

	fixture := parseText(t, "type BackgroundManager int\ntype Lease int\nfunc (m *BackgroundManager) Launch() {}\nfunc (m *BackgroundManager) launch() {}\nfunc (*Lease) Release() {}\nfunc Func() {}")
	require.Equal(t, []string{"Launch"}, verbs(fixture))
	examples := parseText(t, "func ExampleBackgroundManager_Launch() {\nf()\n// Output: x\n}\nfunc ExampleBackgroundManager_Get() { f() }\nfunc ExampleBackgroundManager_List_pages() {\nf()\n// Output: x\n}\nfunc ExampleLease_Release() {\nf()\n// Output: x\n}")
	require.Equal(t, []string{"Launch", "List_pages"}, shown(examples.files))
	require.Len(t, unshown([]string{"Launch", "Get", "List", "Output"}, []string{"Launch", "List_pages"}, []string{"Output"}), 2)
	require.Len(t, unshown([]string{"Output"}, []string{"Output"}, []string{"Output"}), 1)
}
