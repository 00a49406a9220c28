package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal of 80×24: what is written to the first end is
// typed at the second.
func terminal(t *testing.T) (typist, screen *os.File) {
	t.Helper()
	typist, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { typist.Close() })
	fd := int(typist.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if screen, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return typist, screen
}

// On a terminal top shows what is, and ends by q.
func TestTopOnATerminal(t *testing.T) {
	nodeInside(t)
	for _, words := range [][]string{{"topic", "create", "orders"}, {"channel", "create", "orders", "billing"}, {"pub", "orders", "x"}} {
		if code, _, errOut := run(t, words...); code != exitOK {
			t.Fatalf("%q: %s", words, errOut)
		}
	}
	t.Setenv("TERM", "xterm-256color")
	typist, screen := terminal(t)
	var mu sync.Mutex
	var shown bytes.Buffer
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := typist.Read(b)
			mu.Lock()
			shown.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	until := func(texts ...string) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			text := shown.String()
			mu.Unlock()
			all := true
			for _, want := range texts {
				all = all && strings.Contains(text, want)
			}
			if all {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("waited in vain for %q in %q", texts, text)
			}
		}
	}
	code := make(chan int, 1)
	var errOut bytes.Buffer
	go func() { code <- Main([]string{"tidings", "top"}, screen, screen, &errOut) }()
	until("healthy", "orders")
	fmt.Fprint(typist, "2")
	until("orders/billing")
	fmt.Fprint(typist, "q")
	if got := <-code; got != exitOK || errOut.Len() > 0 {
		t.Errorf("exit code %d, %s", got, &errOut)
	}

	// the end of the process is no failure
	root := newRoot(streams{in: screen, out: screen, err: &errOut})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	mu.Lock()
	shown.Reset()
	mu.Unlock()
	root.SetArgs([]string{"top", "--view", "nodes"})
	go func() { ended <- root.ExecuteContext(ctx) }()
	until("NODE", "live")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
