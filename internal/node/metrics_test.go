package node_test

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// metric is one family as a scrape shows it.
type metric struct{ kind, help, labels string }

var seriesLabels = regexp.MustCompile(`([a-z_]+)="`)

// metricsOf reads the families of a scrape that are tidings' own.
func metricsOf(t *testing.T, base string) map[string]metric {
	t.Helper()
	resp, err := http.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.StatusCode, err)
	}
	out := make(map[string]metric)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		words := strings.SplitN(line, " ", 4)
		switch {
		case strings.HasPrefix(line, "# HELP tidings_"):
			out[words[2]] = metric{help: words[3]}
		case strings.HasPrefix(line, "# TYPE tidings_"):
			m := out[words[2]]
			m.kind = words[3]
			out[words[2]] = m
		case strings.HasPrefix(line, "tidings_"):
			name, rest, _ := strings.Cut(line, "{")
			m, ok := out[name]
			if !ok || !strings.Contains(line, "{") {
				continue
			}
			var labels []string
			for _, l := range seriesLabels.FindAllStringSubmatch(rest[:strings.LastIndex(rest, "}")], -1) {
				labels = append(labels, "`"+l[1]+"`")
			}
			m.labels = strings.Join(labels, ", ")
			out[name] = m
		}
	}
	return out
}

const metricsIntro = `# Metrics

` + "`/metrics`" + ` at the admin address, in the formats of Prometheus and OpenMetrics. There are
also the ` + "`go_*` and `process_*`" + ` metrics of Prometheus's Go library.

- Counters run since the process started.
- In a cluster a topic's gauges are those of the partitions that the node leads, its
  counters of what it led, also before another node did, and consumers those that are
  connected to it: sums over all nodes are right.
- The first 2,000 topics by name and the first 2,000 channels have labels of their
  own; the rest is summed under ` + "`_other`" + `. The ephemeral channels of a topic share the
  label ` + "`_ephemeral`" + `. Nothing is left out of the sums.
- ` + "`deploy/prometheus/alerts.yaml`" + ` has alert rules, each with a page in
  ` + "[runbooks](runbooks/)" + `; ` + "`deploy/grafana/tidings.json`" + ` is a dashboard.

| metric | type | labels | what it is |
|---|---|---|---|
`

// metricsDocumented holds docs/metrics.md against what nodes show.
func metricsDocumented(t *testing.T, all map[string]metric) {
	t.Helper()
	var b strings.Builder
	b.WriteString(metricsIntro)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, m.kind, m.labels, strings.ReplaceAll(m.help, "|", `\|`))
	}
	const path = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(text)); diff != "" {
		t.Errorf("docs/metrics.md is not current; run go test ./internal/node -run TestAdminOfACluster -update\n%s", diff)
	}
}
