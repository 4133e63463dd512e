package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func build(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "shutdown.exe")
	out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return name
}

// start runs the program and reads its output up to a line with ready.
func start(t *testing.T, name, ready string, args ...string) (cmd *exec.Cmd, rest *bufio.Reader, errs *strings.Builder) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), name, args...)
	errs = new(strings.Builder)
	cmd.Stderr = errs
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	rest = bufio.NewReader(pipe)
	for line := ""; !strings.Contains(line, ready); {
		line, err = rest.ReadString('\n')
		require.NoError(t, err, "the output ended before %q; stderr: %s", ready, errs)
	}
	return cmd, rest, errs
}

// finish reads the rest of the output; the program must end by itself and well.
func finish(t *testing.T, cmd *exec.Cmd, rest io.Reader, errs *strings.Builder) string {
	t.Helper()
	out, err := io.ReadAll(rest)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait(), "exit status; stderr: %s", errs)
	require.Empty(t, errs.String())
	return regexp.MustCompile(` +`).ReplaceAllString(string(out), " ")
}

func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process can't be sent an interrupt here")
	}
	cmd, rest, errs := start(t, build(t), "6 children", "-after", "1h", "-grace", "1500ms")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	out := finish(t, cmd, rest, errs)

	require.Contains(t, out, "told to stop: running children get 1.5s\n")
	require.Contains(t, out, "\ntester quick completed - ran ", "it ended within the grace")
	require.Contains(t, out, "\ntester endless cancelled shutdown ran ")
	require.Contains(t, out, "\nwriter steady cancelled shutdown ran ", "it needs longer than the grace")
	require.Contains(t, out, "\nwriter endless cancelled shutdown ran ")
	require.Contains(t, out, "\nwriter queued behind steady cancelled shutdown never ran")
	require.Contains(t, out, "\nwriter queued behind that cancelled shutdown never ran")
	require.True(t, strings.HasSuffix(out, "\nShutdown returned <nil>\n"), out)

	require.Contains(t, out, "told: tester quick: completed\n")
	require.Equal(t, len(jobs), strings.Count(out, "told: ")-1, "each task is told of once")
	require.Equal(t, 1, strings.Count(out, "told: all children have ended\n"))
}

func TestEndsByItself(t *testing.T) {
	cmd, rest, errs := start(t, build(t), "6 children", "-after", "0s", "-grace", "0s")
	out := finish(t, cmd, rest, errs)

	require.Contains(t, out, "time is up: running children get 0s\n")
	require.Equal(t, len(jobs), strings.Count(out, " cancelled shutdown "), out)
	require.True(t, strings.HasSuffix(out, "\nShutdown returned <nil>\n"), out)
}

func TestArgumentsAreRefused(t *testing.T) {
	out, err := exec.Command(build(t), "-after", "0s", "10s").CombinedOutput()
	var failed *exec.ExitError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 2, failed.ExitCode())
	require.Equal(t, "shutdown: takes flags only, not [\"10s\"]\n", string(out))
}
