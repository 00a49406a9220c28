package bench

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startBound starts cmd so that the kernel kills it when this process ends,
// however it ends: a bench that was killed must not leave servers behind.
//
// The kernel watches the thread that started the process, not the whole of its
// parent. The goroutine therefore keeps its thread until the process has ended;
// the runtime would otherwise be free to end the thread, and the server with it.
// exited is closed when the process has ended.
func startBound(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is told by who notices
		}
	}()
	return ended, <-started
}
