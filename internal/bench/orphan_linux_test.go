package bench_test

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/tidings-io/tidings/internal/bench"
)

// A server outlives the thread from which it was asked for.
func TestServerOutlivesTheThread(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	type started struct {
		server *bench.Server
		thread int
		err    error
	}
	got := make(chan started)
	start := func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if syscall.Gettid() == os.Getpid() {
			got <- started{} // the first thread does not end
			return
		}
		s, err := bench.Start(t.Context(), bench.TidingsSpec(self), t.TempDir())
		got <- started{s, syscall.Gettid(), err}
	}
	go start()
	s := <-got
	if s.server == nil && s.err == nil {
		go start()
		s = <-got
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	await(t, "the thread ends", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", s.thread))
		return os.IsNotExist(err)
	})
	if err := s.server.Processes().Known(); err != nil || !listens(s.server.Addr(0)) {
		t.Errorf("the server ended with the thread: %v", err)
	}
	if err := s.server.Stop(); err != nil {
		t.Error(err)
	}
}
