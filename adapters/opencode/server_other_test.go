//go:build !unix

package opencode_test

import "os/exec"

func command(program string, args ...string) *exec.Cmd { return exec.Command(program, args...) }

func begin(cmd *exec.Cmd) (ended chan struct{}, err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended = make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return ended, nil
}

func killAll(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
