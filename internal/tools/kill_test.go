//go:build linux

package tools_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killed is a run of nsq_to_file as a process that is killed again and again.
type killed struct {
	t        *testing.T
	node     server
	dir      string
	messages int
	words    []string
	env      []string
	rng      *rand.Rand

	kills, torn int
}

func newKilled(t *testing.T, seed uint64, messages int, words ...string) *killed {
	t.Helper()
	k := &killed{t: t, node: startNode(t), dir: t.TempDir(), messages: messages, words: words, rng: rand.New(rand.NewPCG(seed, 1))}
	k.node.topic(t, "orders", "nsq_to_file")
	k.node.finishOne(t) // from then on its figures are there
	for lines := range slices.Chunk(numbered(messages), 10000) {
		k.node.publish(t, "orders", lines...)
	}
	return k
}

// finishOne takes the channel into use.
func (s server) finishOne(t *testing.T) {
	t.Helper()
	s.publish(t, "orders", "first")
	r := start(t, nil, nil, "nsq_tail", words("-topic orders -channel nsq_to_file -n 1 -nsqd-tcp-address "+s.tcp)...)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
}

// process starts nsq_to_file.
func (k *killed) process() (cmd *exec.Cmd, errs *safe) {
	k.t.Helper()
	self, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd, errs = exec.Command(self, append([]string{
		"nsq_to_file", "-topic=orders", "-nsqd-tcp-address=" + k.node.tcp, "-output-dir", k.dir, "-sync-interval=50ms",
		"-filename-format=<TOPIC><REV>.log", "-max-in-flight=300",
	}, k.words...)...), new(safe)
	cmd.Stderr = errs
	cmd.Env = append(os.Environ(), k.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	return cmd, errs
}

// life lets it write some and kills it. The moment is counted in finished
// messages and then in time, so that it comes while it writes on any machine.
func (k *killed) life(share int) {
	k.t.Helper()
	cmd, errs := k.process()
	defer func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		k.kills++
	}()
	goal := k.left() - k.rng.IntN(share)
	for deadline := time.Now().Add(patience); k.left() > max(goal, 0); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("it does not go on\n%s", errs)
		}
	}
	time.Sleep(time.Duration(k.rng.IntN(3000)) * time.Microsecond) // the moment of the kill
}

func (k *killed) left() int { return k.node.channel(k.t, "orders", "nsq_to_file").unfinished() }

// finish lets the rest be written, by processes that are asked to end.
func (k *killed) finish() {
	k.t.Helper()
	for first := true; first || k.left() > 0; first = false {
		cmd, errs := k.process()
		eventually(k.t, "all is finished", func() bool { return k.left() == 0 && strings.Contains(errs.String(), "connecting to nsqd") })
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			k.t.Fatalf("ends with %v\n%s", err, errs)
		}
	}
}

// missing is how many messages are in no file, as a line of their own.
func (k *killed) missing() int {
	k.t.Helper()
	found := make(map[string]bool, k.messages)
	for _, line := range k.lines() {
		found[line] = true
	}
	n := 0
	for _, line := range numbered(k.messages) {
		if !found[line] {
			n++
		}
	}
	return n
}

// lines reads all files, packed ones up to where a kill tore them.
func (k *killed) lines() (lines []string) {
	files, err := filepath.Glob(filepath.Join(k.dir, "*"))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			k.t.Fatal(err)
		}
		var in io.Reader = bytes.NewReader(b)
		if strings.HasSuffix(name, ".gz") && len(b) > 0 {
			if in, err = gzip.NewReader(in); err != nil {
				k.torn++
				continue
			}
		}
		sc := bufio.NewScanner(in)
		for sc.Scan() {
			lines = append(lines, sc.Text())
		}
		switch {
		case errors.Is(sc.Err(), io.ErrUnexpectedEOF):
			k.torn++
		case sc.Err() != nil:
			k.t.Fatalf("%s: %v", name, sc.Err())
		}
	}
	return lines
}

// Every message is in the files, however often the process was killed. Nothing
// is finished that is not there: a node gives no message twice that was
// finished, so what was finished and not written would be missing.
func TestToFileKilled(t *testing.T) {
	seed := rand.Uint64()
	for _, row := range []struct {
		name            string
		messages, kills int
		words           []string
	}{
		{"plain", 100_000, 12, nil},
		{"gzip rotated", 30_000, 5, []string{"-gzip", "-gzip-level=1", "-rotate-size=100000"}},
	} {
		if testing.Short() {
			row.messages, row.kills = row.messages/5, row.kills/2
		}
		t.Run(row.name, func(t *testing.T) {
			k := newKilled(t, seed, row.messages, row.words...)
			for k.kills < row.kills {
				k.life(row.messages / row.kills)
			}
			k.finish()
			missing, lines := k.missing(), len(k.lines())
			if missing > 0 {
				t.Errorf("%d of %d messages are in no file (seed %d)", missing, k.messages, seed)
			}
			t.Logf("%d messages, %d kills: %d lines, %d torn files", k.messages, k.kills, lines, k.torn)
		})
	}
}
