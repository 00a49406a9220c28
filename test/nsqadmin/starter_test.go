package nsqadmin

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cli"
)

const patience = 20 * time.Second // how long a row waits for what must come

// asProgram makes this test binary an nsqadmin of ours.
const asProgram = "TIDINGS_TEST_AS_NSQADMIN"

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(cli.Main(append([]string{"nsqadmin"}, os.Args[1:]...), os.Stdin, os.Stdout, os.Stderr))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// realProgram is the nsqadmin that the environment names, empty for ours.
func realProgram() string { return os.Getenv("TIDINGS_NSQADMIN_PROGRAM") }

// program is an nsqadmin that has not been started.
func program(words ...string) *exec.Cmd {
	if p := realProgram(); p != "" {
		return exec.Command(p, words...)
	}
	cmd := exec.Command(os.Args[0], words...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// listening is where either says that it listens.
var listening = regexp.MustCompile(`listening.*?(127\.0\.0\.1:[0-9]+)`)

// start runs an nsqadmin on a port of its own until the test ends, and says
// where it listens, HOST:PORT.
func start(t *testing.T, words ...string) string {
	t.Helper()
	at, _ := startProcess(t, words...)
	return at
}

func startProcess(t *testing.T, words ...string) (string, *exec.Cmd) {
	t.Helper()
	cmd := program(append([]string{"-http-address=127.0.0.1:0"}, words...)...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at := make(chan string, 1)
	var log bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(at)
		sent := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if found := listening.FindStringSubmatch(lines.Text()); found != nil && !sent {
				at <- found[1]
				sent = true
			}
		}
		_, _ = io.Copy(io.Discard, out)
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		reading.Wait()
		err := cmd.Wait()
		if err != nil && realProgram() == "" {
			t.Errorf("nsqadmin ended with %v", err)
		}
		if t.Failed() {
			t.Logf("its log:\n%s", &log)
		}
	})
	addr, ok := <-at
	if !ok {
		t.Fatalf("nsqadmin does not serve:\n%s", &log)
	}
	return addr, cmd
}

var client = &http.Client{
	Timeout:       patience,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}
