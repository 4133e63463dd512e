package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	run  = flag.Bool("mutants", false, "build and run every mutant; without it only the table is checked")
	only = flag.String("mutants.only", "", "run the mutants whose name matches this expression")
)

const root = "../.."

// Every mutant's old text stands exactly once in its file, so that the table
// keeps up with the core.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, m := range table {
		require.False(t, names[m.name], "%q is there twice", m.name)
		names[m.name] = true
		source, err := os.ReadFile(filepath.Join(root, m.file))
		require.NoError(t, err)
		assert.Equal(t, 1, strings.Count(string(source), m.old), "%s: %q in %s", m.name, m.old, m.file)
	}
}

// TestMutants fails for each mutant that the storm and the tests let live.
func TestMutants(t *testing.T) {
	if !*run {
		return // TestTable has done what is quick
	}
	for _, file := range []string{"manager.go", "blocking.go"} { // what also fails without a mutant, kills none
		by, err := kill(t.TempDir(), mutant{file: file})
		require.NoError(t, err)
		require.Empty(t, by, "the unchanged core, tested as %s is", file)
	}
	chosen := regexp.MustCompile(*only)
	var mu sync.Mutex
	survivors, killed := []string{}, 0
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, m := range table {
		if !chosen.MatchString(m.name) {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			by, err := kill(t.TempDir(), m)
			took := time.Since(began).Round(time.Second)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				survivors = append(survivors, fmt.Sprintf("%s: %v", m.name, err))
			case by == "":
				survivors = append(survivors, m.name)
				t.Logf("%-50s %4v LIVES", m.name, took)
			default:
				killed++
				t.Logf("%-50s %4v killed by %s", m.name, took, by)
			}
		})
	}
	wg.Wait()
	require.Empty(t, survivors, "%d were killed, these live", killed)
}

// kill builds the tests over a mutant and returns what notices it, or "".
func kill(dir string, m mutant) (by string, err error) {
	core, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(filepath.Join(core, m.file))
	if err != nil {
		return "", err
	}
	mutated := filepath.Join(dir, m.file)
	if err := os.WriteFile(mutated, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(core, m.file): mutated}})
	if err != nil {
		return "", err
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "core.test")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return "", err
	}
	build := exec.Command("go", "test", "-c", "-vet=off", "-gcflags=-N -l", "-ldflags=-s -w", "-overlay", overlayFile, "-o", binary, ".") // most of the time is the compiler's
	build.Dir = core
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not build: %s", out)
	}
	defer os.Remove(binary)
	for _, try := range triesOf(m.file) {
		out, err := bounded(core, binary, try.args...)
		if err != nil {
			return try.name + ": " + first(out), nil
		}
	}
	return "", nil
}

type try struct {
	name string
	args []string
}

// triesOf are the tests that are to notice a mutant of a file. Nothing but the tests
// of Blocking comes to what is in its files; each of these mutants has a test that
// kills it every time, so that its storm is not asked.
func triesOf(file string) []try {
	if strings.HasPrefix(file, "blocking") {
		return []try{{"the tests", []string{"-test.run=Blocking", "-test.skip=BlockingStorm"}}}
	}
	return []try{
		{"the storm", []string{"-test.run=^TestStorm$", "-storm.seeds=1000"}},
		{"the tests", []string{"-test.skip=^TestStorm$|Blocking|TestDocuments", "-test.short", "-rapid.nofailfile"}},
	}
}

// bounded runs what may wait or grow without end: it gets two minutes, also when
// nobody is left to stop it, and as many bytes as the core's tests never need.
func bounded(dir, binary string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	line := append([]string{"-c", `ulimit -v 6000000; exec "$@"`, "sh", binary, "-test.timeout=2m", "-test.failfast"}, args...)
	cmd := exec.CommandContext(ctx, "sh", line...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// first is the line that says what was noticed.
func first(out []byte) string {
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "seed ") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "--- FAIL") && !strings.Contains(line, "TestStorm") {
			return line[:min(len(line), 110)]
		}
	}
	return "it did not end well"
}
