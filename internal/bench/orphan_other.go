//go:build !linux

package bench

import "os/exec"

// startBound starts cmd. Only Linux can bind it to the life of this process.
// exited is closed when the process has ended.
func startBound(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is told by who notices
	}()
	return ended, nil
}
