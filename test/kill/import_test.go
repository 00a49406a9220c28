//go:build linux

package kill

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/nsqdata/nsqdatatest"
	"github.com/tidings-io/tidings/test/rig"
)

// nsqdLeft is what an nsqd left: three channels with different backlogs, and messages
// that wait in a topic.
func nsqdLeft(t *testing.T, n uint64) (path string, want map[string][]string) {
	t.Helper()
	f := nsqdatatest.New(t)
	all := nsqdatatest.Run(1, n+1)
	body := string(rig.Filling(100))
	for i := range all {
		all[i].Body = all[i].Text() + " " + body
	}
	some := slices.Clone(all[n/2 : n/2+n/10])
	for i := range some {
		some[i].Attempts = 3
	}
	f.Topic("orders", false, "a", "b", "c")
	f.Queue("orders:a", 200_000, int(n/3), all...)
	f.Queue("orders:b", 1<<30, 0, all...)
	f.Queue("orders:c", 70_000, 0, some...)
	f.Topic("alone", false)
	f.Queue("alone", 50_000, int(n/20), all[:n/10]...)
	f.Append("alone", 99, nsqdatatest.Record(all[0])[:50])
	want = map[string][]string{}
	for name, ms := range map[string][]nsqdatatest.Message{"a": all[n/3:], "b": all, "c": some, "alone": all[n/20 : n/10]} {
		for _, m := range ms {
			want[name] = append(want[name], m.Text())
		}
	}
	return f.Path, want
}

// TestImportKilled: an import whose process and whose node are killed again and again
// brings each channel exactly what nsqd had for it.
func TestImportKilled(t *testing.T) {
	const messages, kills = 60_000, 12
	bin := plainBinary(t)
	path, want := nsqdLeft(t, messages)
	n := newNode(bin, dataDir(t))
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	defer n.Kill()
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	begin := func() *exec.Cmd {
		cmd := exec.Command(bin, "import", "nsqd", path, "--admin", n.Addrs.Admin, "--json", "--patience", "1ms")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	hit := 0 // kills of an import that was not at its end
	for k := range kills {
		cmd := begin()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		// The moment of the kill: when so much has come, and a little later.
		goal := k*messages/kills + rng.IntN(messages/kills)
		for done := false; !done; time.Sleep(time.Millisecond) {
			c, err := n.Channel("orders", "b")
			done = err == nil && c != nil && c.Unfinished() >= int64(goal) || len(ended) > 0
		}
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond)
		if k%2 == 0 {
			n.Kill()
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		if err := <-ended; err != nil {
			hit++
		}
	}
	cmd := begin()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, cmd.Stderr)
	}
	var report struct {
		Topics []struct {
			Topic    string
			Imported int `json:"imported"`
			Before   int `json:"imported_before"`
		}
	}
	if err := json.Unmarshal(cmd.Stdout.(*bytes.Buffer).Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if hit < kills/3 {
		t.Errorf("only %d of %d kills came on the way", hit, kills)
	}
	t.Logf("%d of %d kills came on the way; the last run: %+v", hit, kills, report.Topics)
	n.MustPost(t, "/channel/create?topic=alone&channel=new", nil)
	for name, bodies := range want {
		topic, channel := "orders", name
		if name == "alone" {
			topic, channel = "alone", "new"
		}
		got := n.drain(t, topic, channel)
		slices.Sort(got)
		slices.Sort(bodies)
		if !slices.Equal(got, bodies) {
			t.Errorf("channel %s of %s gets %d messages, want %d", channel, topic, len(got), len(bodies))
		}
	}
}
