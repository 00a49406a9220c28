package bench_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/bench"
)

// parentOf makes the test binary start a node with its data below the folder
// that it holds, tell its address, and wait.
const parentOf = "TIDINGS_TEST_PARENT"

func parent(dir string) int {
	self, err := os.Executable()
	if err != nil {
		return 1
	}
	os.Unsetenv(parentOf)
	s, err := bench.Start(context.Background(), bench.TidingsSpec(self), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.Addr(0))
	select {}
}

func listens(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// await waits for a condition, for as long as a loaded machine may take.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begun := time.Now(); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func TestKilledBenchLeavesNoServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux binds a process to its parent")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = append(os.Environ(), parentOf+"="+t.TempDir()), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it waits for ever
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("it did not start a node: %v", err)
	}
	addr := strings.TrimSpace(line)
	if !listens(addr) {
		t.Fatal("the node does not answer")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await(t, "the node ends", func() bool { return !listens(addr) })
}
