package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuantiles(t *testing.T) {
	c, _, err := Load(Source{NSQD: true, Flags: map[string]string{"e2e-processing-latency-percentile": "0.95, 1.0,0.99"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Quantiles()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]float64{1, 0.99, 0.95}, got); d != "" {
		t.Error(d)
	}
}

func TestNodeNumber(t *testing.T) {
	c := DefaultNSQD()
	if n, err := c.NodeNumber("vm"); n != 617 || err != nil { // as nsqd on a host of that name
		t.Errorf("%d %v", n, err)
	}
	for text, ok := range map[string]bool{"0": true, "1023": true, "1024": false, "-1": false, "x": false} {
		_, _, err := Load(Source{NSQD: true, Flags: map[string]string{"node-id": text}})
		if (err == nil) != ok {
			t.Errorf("--node-id %s: %v", text, err)
		}
	}
}

// TestFiguresRefused: what can't be is refused, naming the flag.
func TestFiguresRefused(t *testing.T) {
	for flag, text := range map[string]string{
		"statsd-address":                     "host",
		"statsd-interval":                    "0s",
		"statsd-udp-packet-size":             "1",
		"e2e-processing-latency-percentile":  "0.5,1.5",
		"e2e-processing-latency-window-time": "0s",
		"node-id":                            "1024",
	} {
		_, _, err := Load(Source{Flags: map[string]string{flag: text}})
		if err == nil || !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("--%s %s: %v", flag, text, err)
		}
	}
}

// TestUnused: nsqd's settings without a meaning here are looked at as nsqd does,
// and only under its name.
func TestUnused(t *testing.T) {
	c, _, err := Load(Source{NSQD: true, Flags: map[string]string{"sync-every": "7", "sync-timeout": "3s", "queue-scan-dirty-percent": "0.5"}})
	if err != nil || c.Unused.SyncEvery != 7 || c.Unused.SyncTimeout.Seconds() != 3 || c.Unused.MaxBytesPerFile != 104857600 {
		t.Errorf("%+v %v", c.Unused, err)
	}
	if _, _, err := Load(Source{NSQD: true, Flags: map[string]string{"sync-every": "often"}}); err == nil || !strings.Contains(err.Error(), "--sync-every") {
		t.Errorf("%v", err)
	}
	if _, _, err := Load(Source{Flags: map[string]string{"sync-every": "7"}}); err == nil {
		t.Error("serve takes it")
	}
}
