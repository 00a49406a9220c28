package nsqdata_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/nsqdata/nsqdatatest"
)

// TestRealFolders reads what a real nsqd left after SIGTERM and after kill -9.
func TestRealFolders(t *testing.T) {
	for file, x := range map[string]struct {
		a, b, alone, held int // messages
		inFlight          int // of a, which nsqd writes when it is asked to end
	}{
		"nsqd-1.3.0-sigterm.json": {140, 200, 30, 30, 3},
		"nsqd-1.3.0-sigkill.json": {137, 185, 10, 10, 0},
	} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			finished, err := nsqdatatest.Unpack("testdata/"+file, dir)
			if err != nil {
				t.Fatal(err)
			}
			f := open(t, dir)
			if len(f.Notes) > 0 || len(f.Topics) != 3 {
				t.Fatalf("notes %v, topics %v", f.Notes, f.Topics)
			}
			for i, want := range []map[string]int{{"": x.alone}, {"": x.held}, {"a": x.a, "b": x.b}} {
				topic := f.Topics[i]
				s := survey(t, topic)
				out, _ := got(t, s, 0, anyLimits)
				for name, n := range want {
					if len(out[name]) != n || len(out) != len(want) {
						t.Errorf("%s:%s has %d messages, want %d", topic.Name, name, len(out[name]), n)
					}
				}
				if len(s.Notes) > 0 || topic.Paused != (topic.Name == "held") {
					t.Errorf("%s: notes %v, paused %v", topic.Name, s.Notes, topic.Paused)
				}
				if topic.Name == "orders" {
					checkOrders(t, out, finished, x.inFlight)
				}
			}
		})
	}
}

func checkOrders(t *testing.T, out map[string][]string, finished []string, inFlight int) {
	t.Helper()
	orders := map[string]bool{}
	for n := range 205 {
		orders[fmt.Sprint("order ", n+1)] = true
	}
	attempted := 0
	for channel, bodies := range out {
		seen := map[string]bool{}
		for _, b := range bodies {
			b, times, _ := strings.Cut(b, " x")
			if times != "" {
				attempted++
			}
			if !orders[b] || seen[b] || channel == "a" && slices.Contains(finished, b) {
				t.Errorf("%s gets %q, which is none of its own", channel, b)
			}
			seen[b] = true
		}
	}
	if attempted != inFlight {
		t.Errorf("%d messages were delivered before, want %d", attempted, inFlight)
	}
}
