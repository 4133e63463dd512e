//go:build unix

package opencode_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// command runs a program in a process group of its own, which ends with the tests
// even if they are killed: a shell in the group waits for the pipe of begin to close.
func command(program string, args ...string) *exec.Cmd {
	const watched = `(read -r _; kill -KILL 0) <&3 >/dev/null 2>&1 & exec "$@" 3<&-`
	cmd := exec.Command("/bin/sh", append([]string{"-c", watched, "sh", program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// begin starts a command and closes ended when its process is gone.
func begin(cmd *exec.Cmd) (ended chan struct{}, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{r}
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return nil, err
	}
	ended = make(chan struct{})
	go func() {
		_ = cmd.Wait()
		_ = w.Close()
		close(ended)
	}()
	return ended, nil
}

// killAll ends a command with its process group, and with what it started in others,
// as opencode does with tools.
func killAll(cmd *exec.Cmd) {
	tools := below(cmd.Process.Pid)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	for _, pid := range tools {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// below are the processes that one has started, and those that they have. Where
// there is no ps, such processes end by themselves.
func below(pid int) (found []int) {
	out, _ := exec.Command("ps", "-A", "-o", "ppid=,pid=").Output()
	children := map[int][]int{}
	for line := range strings.Lines(string(out)) {
		var parent, child int
		if n, _ := fmt.Sscan(line, &parent, &child); n == 2 {
			children[parent] = append(children[parent], child)
		}
	}
	found = slices.Clone(children[pid])
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}
