package bench

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// sample is a report with every kind of cell.
func sample(t *testing.T) Report {
	t.Helper()
	row := func(w Workload, system, durability string, rate float64) Row {
		return Row{ID: w.ID(), Workload: w, System: system, Durability: durability, Rate: rate, Messages: 1000, CPUMicros: 0.4 * 1e6 / rate, RSS: 30 << 20}
	}
	batch, drain, latency := defaults("batch"), defaults("drain"), defaults("latency")
	r := Report{
		Machine: Machine{CPU: "Some CPU", Cores: 2, Kernel: "Linux 6.1", Disk: "ext4", Go: "go1.26", Load: "0.10 0.20 0.30"},
		Rounds:  3, LeftOut: []string{"redis-server"},
		Systems: []Description{
			{Name: Ours, Version: "tidings 0.1.0", Command: "tidings serve"},
			{Name: "jetstream", Version: "nats-server: v2", Command: "nats-server -c config", Config: "listen: x\njetstream {}\n"},
		},
		Floor: []Limit{
			{Name: "fdatasync", Text: "write 4 KiB", P50: 108, P99: 2500, Disk: 36e6},
			{Name: "durable-200", Text: "receive frames", Size: 200, Rate: 2e6, Disk: 4e8},
		},
	}
	for i, rate := range []float64{900e3, 1000e3, 1100e3} {
		r.Runs = append(r.Runs, row(batch, Ours, SyncedBeforeAnswer, rate), row(batch, "nsqd", "no sync", rate/4))
		d := row(drain, Ours, SyncedBeforeAnswer, rate)
		d.Lost = int64(i)
		d.judge(Promise{})
		n := row(drain, "nsqd", "no sync", rate/10)
		n.Reordered = 5
		n.judge(Promise{MayReorder: true})
		l := row(latency, Ours, SyncedBeforeAnswer, 200)
		l.Latency = &Latency{Count: 1000, P50: 500 + 10*float64(i), P99: 1000, P999: 25_000, Max: 1.5e6, What: endToEnd}
		l.figure("sender_late_p99_us", 120)
		r.Runs = append(r.Runs, d, n, l)
	}
	var require []Requirement
	for _, text := range []string{"batch/nsqd>=3.5", "batch-200/floor>=0.6", "latency.p50<=520", "drain/nsqd>=8", "fanout/nsqd>=2"} {
		q, err := ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		require = append(require, q)
	}
	r.sum(require)
	return r
}

// Nodes of ours that form a cluster are held against clusters, and its batches
// against as many writers.
func TestClusterRowsAreOurs(t *testing.T) {
	batch, kill := defaults("cluster-batch"), defaults("cluster-kill")
	r := Report{Floor: []Limit{{Name: "durable-200", Rate: 9e6}, {Name: "replicated-200", Rate: 400e3}}}
	for i, gap := range []float64{1000, 3000, 2000} {
		k := Row{ID: kill.ID(), Workload: kill, System: OurCluster, Rate: 5000}
		k.figure("gap_median_ms", gap)
		k.figure("gap_max_ms", gap+100*float64(i))
		r.Runs = append(r.Runs, k,
			Row{ID: batch.ID(), Workload: batch, System: OurCluster, Rate: 100e3}, Row{ID: batch.ID(), Workload: batch, System: "jetstream-3-always", Rate: 50e3})
	}
	var require []Requirement
	for _, text := range []string{"cluster-batch/jetstream-3-always>=2", "cluster-batch/floor>=0.25", "cluster-kill<=2000", "cluster-kill.gap_max_ms<=3100"} {
		q, err := ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		require = append(require, q)
	}
	r.sum(require)
	for _, o := range r.Outcomes {
		if !o.Met {
			t.Errorf("%s: %g %s", o.Requirement, o.Value, o.Why)
		}
	}
	for _, row := range r.Rows {
		if row.ID == "cluster-kill" && (row.Figures["gap_median_ms"] != 2000 || row.Figures["gap_max_ms"] != 3100) {
			t.Errorf("want the median and the highest of all rounds, got %v", row.Figures)
		}
	}
}

func TestReportGolden(t *testing.T) {
	var got bytes.Buffer
	if err := sample(t).Write(&got); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", "report.golden")
	if *update {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestReportIsBadForEachReason(t *testing.T) {
	bad := strings.Join(sample(t).Bad(), "\n")
	for _, want := range []string{
		"drain-1 on tidings: 1 messages lost", "batch-200/floor>=0.6: batch-200 has 0.50",
		"drain/nsqd>=8: drain-1: tidings failed", "fanout/nsqd>=2: fanout: no such row was measured",
	} {
		if !strings.Contains(bad, want) {
			t.Errorf("no %q in:\n%s", want, bad)
		}
	}
	for _, not := range []string{"nsqd>=3.5", "latency", "on nsqd"} {
		if strings.Contains(bad, not) {
			t.Errorf("%q in:\n%s", not, bad)
		}
	}
}

func TestParseRequirement(t *testing.T) {
	for _, text := range []string{"drain/nsqd>=8", "latency-200.p50/nsqd <= 0.02", "batch-200.cpu<=0.5", "memory.first_publish_ms<=200", "memory-10m.first_publish_ms<=2000", "topics-8.cpu_ratio<=1.15", "stopped<=1.1", "publish-64/jetstream-always>=8"} {
		if _, err := ParseRequirement(text); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{"", "drain", "drain/nsqd", "drain/nsqd>8", "drain/nsqd>=x", "drain/nsqd>=1.2.3", ">=8", "drain//nsqd>=8"} {
		if _, err := ParseRequirement(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestRowNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, w := range Standard() {
		if err := w.Check(); err != nil {
			t.Errorf("%s: %v", w.ID(), err)
		}
		if seen[w.ID()] {
			t.Errorf("%s is there twice", w.ID())
		}
		seen[w.ID()] = true
	}
	for name, want := range map[string]int{"W1": 3, "drain": 3, "drain-8": 1, "publish-64": 2, "publish-6": 0, "latency": 3, "none": 0, "topics": 2, "memory": 2, "timers": 2, "ephemeral": 1, "W8": 2, "W9": 3, "cluster": 5, "cluster-publish-64": 1, "W10": 0} {
		if got := len(Select(name)); got != want {
			t.Errorf("%s selects %d rows, want %d", name, got, want)
		}
	}
}

func TestRepeatsAreExcusedAfterACrashOnly(t *testing.T) {
	for name, want := range map[string]bool{"memory": true, "drain": false} {
		r := Row{Workload: defaults(name), Verdict: Verdict{Duplicated: 3}}
		if r.judge(Promise{MayRepeat: true}); (r.Failure == "") != want {
			t.Errorf("%s: failure %q", name, r.Failure)
		}
		if r.judge(Promise{}); r.Failure == "" {
			t.Errorf("%s: a repeat that nobody admits to passes", name)
		}
	}
}

func TestSystemsTakePart(t *testing.T) {
	took := make(map[string]int)
	for _, w := range Standard() {
		for _, s := range Systems() {
			got, ok := s.takes(w)
			if !ok {
				continue
			}
			took[s.Name]++
			if err := got.Check(); err != nil || got.ID() != w.ID() {
				t.Errorf("%s on %s: %s, %v", w.ID(), s.Name, got.ID(), err)
			}
		}
	}
	one := len(Standard()) - 5 // without those of a cluster
	for name, want := range map[string]int{
		Ours: one, "nsqd": one, "nsqd-sync": 3, "nsqd-unbuffered": 2, OurCluster: 5, "jetstream-3-always": 3,
	} {
		if took[name] != want {
			t.Errorf("%s has %d rows, want %d", name, took[name], want)
		}
	}
}
