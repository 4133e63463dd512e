package mutants

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// Every mutant's old text stands exactly once in its file, and the test that kills it is
// there, so that the table keeps up with the core.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	var tests strings.Builder
	files, err := filepath.Glob(filepath.Join(root, "*_test.go"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		tests.Write(text)
	}
	for _, m := range table {
		if m.by != "" {
			assert.Contains(t, tests.String(), "\nfunc "+m.by+"(t *testing.T) {", m.name)
		}
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
	chosen, wanted := map[int]mutant{}, regexp.MustCompile(*only)
	var named []string
	for i, m := range table {
		if wanted.MatchString(m.name) {
			chosen[i+1] = m // 0 is the core as it is
			if m.by != "TestStorm" && m.by != "" {
				named = append(named, m.by)
			}
		}
	}
	files, alone, err := weaveAll(chosen)
	require.NoError(t, err)
	together, err := build(t.TempDir(), files)
	require.NoError(t, err)
	for _, tests := range []string{"TestStorm", strings.Join(named, "|")} { // in the time that each of them has below
		out, err := together.named(0, tests)
		require.NoError(t, err, "what also fails without a mutant, kills none: %s", out)
	}

	var mu sync.Mutex
	survivors, killed := []string{}, 0
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for id, m := range chosen {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			tests, err := together, error(nil)
			if slices.Contains(alone, id) {
				tests, err = buildAlone(t.TempDir(), m)
			}
			if err == nil {
				err = tests.killed(id, m.by)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				killed++
				return
			}
			t.Logf("%-50s %4v %v", m.name, time.Since(began).Round(time.Second), err)
			survivors = append(survivors, m.name)
		})
	}
	wg.Wait()
	require.Empty(t, survivors, "%d were killed, these not as the table says", killed)
}

// killed is nil if the test that the table names notices the mutant. If it does not, the
// others are asked, so that the error says which does.
func (c core) killed(id int, by string) error {
	if by != "" {
		out, err := c.named(id, by)
		if bytes.Contains(out, []byte("no tests to run")) {
			return fmt.Errorf("there is no %s", by)
		}
		if err != nil {
			return nil
		}
	}
	switch other, err := c.anyTest(id); {
	case err != nil:
		return err
	case other != "":
		return fmt.Errorf("killed by %s, and the table says %q", other, by)
	default:
		return errors.New("LIVES")
	}
}

// named runs the tests with these names. They have half a minute: some mutants wait
// for ever.
func (c core) named(id int, names string) ([]byte, error) {
	return c.bounded(30*time.Second, id, "-test.run=^("+names+")$", "-storm.seeds=1000", "-rapid.nofailfile")
}

// anyTest is a test that fails with a mutant alive, or "".
func (c core) anyTest(id int) (string, error) {
	for _, args := range [][]string{
		{"-test.run=^TestStorm$", "-storm.seeds=100"}, // most of what it notices, it notices soon
		{"-test.skip=Storm$|TestDocuments|^Example", "-test.short", "-rapid.nofailfile"},
		{"-test.run=Storm$", "-storm.seeds=1000"},
	} {
		if out, err := c.bounded(2*time.Minute, id, args...); err != nil {
			if failed := failing.FindSubmatch(out); failed != nil {
				return string(failed[1]), nil
			}
			names := began.FindAllSubmatch(out, -1) // it panicked, or never ended: it is the last that began
			if names == nil {
				return "", fmt.Errorf("no test began: %.300s", out)
			}
			return string(names[len(names)-1][1]), nil
		}
	}
	return "", nil
}

var (
	failing = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	began   = regexp.MustCompile(`(?m)^=== RUN   (\w+)`)
)

// bounded runs what may wait or grow without end: it gets so long, also when nobody is
// left to stop it, and as many bytes as the core's tests never need.
func (c core) bounded(long time.Duration, alive int, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	line := append([]string{"-c", `ulimit -v 6000000; exec "$@"`, "sh", c.binary, "-test.timeout=" + long.String(), "-test.failfast", "-test.v"}, args...)
	cmd := exec.CommandContext(ctx, "sh", line...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", aliveVar, alive))
	return cmd.CombinedOutput()
}
