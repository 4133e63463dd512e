package rules

import (
	"encoding/json"
	"go/parser"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// imports are what the files of a folder import, by the place where they do.
func imports(t *testing.T, dir string, tests bool) map[string]string {
	t.Helper()
	found := map[string]string{}
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") && !tests {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			s := source{dir: dir}
			found[s.at(i)] = path
		}
	}
	return found
}

func standard(path string) bool { return !strings.Contains(strings.Split(path, "/")[0], ".") }

// mayImport says whether code of the core module, tests aside, may import a package.
func mayImport(dir, path string) bool {
	example := strings.HasPrefix(dir, "examples/")
	switch {
	case path == "os/signal":
		return example // signals belong to the program
	case path == "testing" || strings.HasPrefix(path, "testing/"):
		return dir == "subagenttest" || dir == "subagenttest/scriptedllm"
	case standard(path):
		return true
	case dir == ".":
		return path == "github.com/google/uuid" || strings.HasPrefix(path, "golang.org/x/sync/") ||
			slices.Contains(mechanisms, strings.TrimPrefix(path, module+"/"))
	case example || dir == "subagenttest" || dir == "internal/bench":
		return path == module
	}
	return false
}

// Dependencies point one way, and are few.
func TestLayers(t *testing.T) {
	own, nested := folders(t)
	for _, dir := range own {
		for at, path := range imports(t, dir, false) {
			if !mayImport(dir, path) {
				t.Errorf("%s: %s may not import %s: imports point from the edges to the core, and the core's dependencies are few", at, dir, path)
			}
		}
	}
	for _, dir := range nested {
		for at, path := range imports(t, dir, true) {
			if reachesIn(path) {
				t.Errorf("%s: imports %s: a module of its own uses what every user can use", at, path)
			}
		}
	}
	for path, dir := range map[string]string{
		module + "/subagenttest":            ".",
		module + "/examples/quickstart":     ".",
		module + "/adapters/acp":            ".",
		module + "/internal/rules":          ".",
		module:                              "internal/heap",
		module + "/internal/clean":          "internal/heap",
		"github.com/stretchr/testify/mock":  "subagenttest",
		"github.com/stretchr/testify/suite": ".",
		"pgregory.net/rapid":                "internal/clean",
		"testing":                           ".",
		"testing/synctest":                  "examples/quickstart",
		"os/signal":                         "subagenttest",
		"github.com/google/uuid":            "examples/quickstart",
	} {
		require.False(t, mayImport(dir, path), "%s imports %s", dir, path)
	}
	require.False(t, mayImport("subagenttest/scriptedllm", module), "programs use it too: it is the standard library and nothing else")
	require.True(t, mayImport("subagenttest", "testing"))
	require.True(t, mayImport(".", module+"/internal/heap"))
	require.True(t, reachesIn(module+"/internal/heap"))
	require.False(t, reachesIn(module+"/subagenttest"))
}

func reachesIn(path string) bool {
	return path == module+"/internal" || strings.HasPrefix(path, module+"/internal/")
}

// mayRequire are the modules that the core's go.mod may name itself; the first
// three it must.
var mayRequire = []string{"github.com/google/uuid", "golang.org/x/sync", "github.com/stretchr/testify", "pgregory.net/rapid"}

// requirements compares what go.mod requires directly with what it may and must.
func requirements(direct []string) (wrong []string) {
	for _, path := range direct {
		if !slices.Contains(mayRequire, path) {
			wrong = append(wrong, "go.mod requires "+path)
		}
	}
	for _, path := range mayRequire[:3] {
		if !slices.Contains(direct, path) {
			wrong = append(wrong, "go.mod lacks "+path)
		}
	}
	return wrong
}

func TestDirectRequirements(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	require.NoError(t, json.Unmarshal(out, &mod))
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	none(t, "whoever imports the core gets its dependencies too; heavier ones go to a nested module", requirements(direct))

	require.Len(t, requirements([]string{"github.com/google/uuid", "golang.org/x/sync", "go.etcd.io/bbolt"}), 2)
	require.Empty(t, requirements(mayRequire))
}
