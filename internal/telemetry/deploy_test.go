package telemetry_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	alertsFile    = "../../deploy/prometheus/alerts.yaml"
	dashboardFile = "../../deploy/grafana/tidings.json"
	metricsPage   = "../../docs/metrics.md"
	runbooks      = "../../docs/runbooks"
	runbookURL    = "https://github.com/tidings-io/tidings/blob/main/docs/runbooks/"
)

// rule is an alert rule.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (list []rule) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	if len(list) == 0 {
		t.Fatal("there is no rule")
	}
	return list
}

var (
	documentedMetric = regexp.MustCompile("(?m)^\\| `(tidings_[a-z0-9_]+)` \\| ([a-z]+) \\| ([^|]*) \\|")
	usedMetric       = regexp.MustCompile(`tidings_[a-z0-9_]+`)
	selectors        = regexp.MustCompile(`(tidings_[a-z0-9_]+)\{([^}]*)\}`)
	grouping         = regexp.MustCompile(`(?:by|on) \(([^)]*)\)`)
)

// documented reads the metrics that docs/metrics.md lists: their types and
// labels. A test of package node holds the page against what nodes show.
func documented(t *testing.T) map[string][2]string {
	t.Helper()
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][2]string)
	for _, m := range documentedMetric.FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = [2]string{m[2], m[3]}
	}
	return out
}

// checkExpr holds an expression against the metrics that there are.
func checkExpr(t *testing.T, where, expr string, known map[string][2]string) {
	t.Helper()
	labels := "instance job le limit"
	for _, used := range usedMetric.FindAllString(expr, -1) {
		name := used
		if m, ok := known[strings.TrimSuffix(used, "_bucket")]; ok && m[0] == "histogram" {
			name = strings.TrimSuffix(used, "_bucket")
		}
		m, ok := known[name]
		if !ok {
			t.Errorf("%s uses %s, which is not in docs/metrics.md", where, used)
		}
		if m[0] == "counter" && !regexp.MustCompile(`(rate|increase)\(`+used).MatchString(expr) {
			t.Errorf("%s shows the counter %s as it is", where, used)
		}
		if m[0] != "counter" && m[0] != "histogram" && regexp.MustCompile(`(rate|increase)\(`+used).MatchString(expr) {
			t.Errorf("%s takes the rate of the gauge %s", where, used)
		}
		labels += " " + m[1]
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if !strings.Contains(labels, strings.TrimSpace(l)) {
				t.Errorf("%s groups by %s, which its metrics have not", where, l)
			}
		}
	}
	for _, s := range selectors.FindAllStringSubmatch(expr, -1) {
		if strings.Contains(s[2], "topic") && !strings.Contains(known[strings.TrimSuffix(s[1], "_bucket")][1], "topic") {
			t.Errorf("%s selects topics of %s, which has none", where, s[1])
		}
	}
	if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") {
		t.Errorf("%s: brackets of %s", where, expr)
	}
}

// Each rule names metrics that there are, and has a page that says what to do.
func TestAlertRules(t *testing.T) {
	known := documented(t)
	var pages []string
	for _, r := range readRules(t) {
		checkExpr(t, r.Alert, r.Expr, known)
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s lacks summary or description", r.Alert)
		}
		page := r.Alert + ".md"
		if r.Annotations["runbook_url"] != runbookURL+page {
			t.Errorf("%s: runbook_url %s", r.Alert, r.Annotations["runbook_url"])
		}
		pages = append(pages, page)
		text, err := os.ReadFile(filepath.Join(runbooks, page))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{"# " + r.Alert + "\n", "**What it says.** ", "**Why it matters.** ", "\n## Look\n- ", "\n## Do\n- "} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s lacks %q", page, part)
			}
		}
		for _, used := range usedMetric.FindAllString(string(text), -1) {
			if _, ok := known[used]; !ok {
				t.Errorf("%s names %s, which is not in docs/metrics.md", page, used)
			}
		}
	}
	files, err := os.ReadDir(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(pages, f.Name()) {
			t.Errorf("%s belongs to no rule", f.Name())
		}
	}
}

// The dashboard's panels have numbers of their own and metrics that there are.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	known, seen := documented(t), make(map[int]bool)
	for _, p := range d.Panels {
		if seen[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		seen[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpr(t, "panel "+p.Title, target.Expr, known)
		}
	}
}
