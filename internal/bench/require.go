package bench

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Ratio is our median over a peer's, for one metric of one row.
type Ratio struct {
	Row    string  `json:"row"`
	Peer   string  `json:"peer"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
}

// metric reads a number of a row by the name that requirements use: rate
// (messages per second), p50, p99, p999, max and cpu (microseconds), rss
// (bytes), or a figure of the workload.
func (r Row) metric(name string) (float64, bool) {
	if l := r.Latency; l != nil {
		switch name {
		case "p50":
			return l.P50, true
		case "p99":
			return l.P99, true
		case "p999":
			return l.P999, true
		case "max":
			return l.Max, true
		}
	}
	switch name {
	case "rate":
		return r.Rate, r.Rate > 0
	case "cpu":
		return r.CPUMicros, r.CPUMicros > 0
	case "rss":
		return float64(r.RSS), r.RSS > 0
	}
	v, ok := r.Figures[name]
	return v, ok
}

// result is the metric that a row is about.
func (w Workload) result() string {
	switch w.Name {
	case "latency", "timers":
		return "p99"
	case "stopped":
		return "p99_ratio"
	case "memory":
		return "rss"
	case "cluster-kill":
		return "gap_median_ms"
	case "cluster-delivery":
		return "cpu_ratio"
	}
	return "rate"
}

// compared are the metrics in which systems are compared.
func (w Workload) compared() []string {
	names := []string{"rate", "p50", "p99", "cpu", "rss"}
	switch w.Name {
	case "latency", "stopped":
		names = names[1:] // the rate is given
	case "memory":
		names = append(names, "bytes_per_message", "first_publish_ms", "first_delivery_ms")
	case "timers":
		names = append(names, "idle_cpu_percent", "burst_rate")
	}
	if w.Name == "cluster-kill" {
		names = []string{"gap_median_ms", "gap_max_ms"}
	}
	if w.Name == "stopped" {
		names = append(names, "p99_ratio")
	}
	return names
}

// ratios compares our rows with the peers' rows of the same ID.
func ratios(rows []Row) []Ratio {
	var out []Ratio
	for _, own := range rows {
		if !ours(own.System) || own.Failure != "" {
			continue
		}
		for _, peer := range rows {
			if peer.ID != own.ID || ours(peer.System) || peer.Failure != "" {
				continue
			}
			for _, name := range own.Workload.compared() {
				a, ok1 := own.metric(name)
				b, ok2 := peer.metric(name)
				if ok1 && ok2 && b > 0 {
					out = append(out, Ratio{own.ID, peer.System, name, a / b})
				}
			}
		}
	}
	return out
}

// Requirement is a condition on medians: 'drain/nsqd>=8' that in every drain
// row our rate is at least eight times nsqd's; 'latency-200.p50/nsqd<=0.02' a
// ratio of another metric; 'batch-200.cpu<=0.5' our own number.
type Requirement struct {
	Text   string
	row    string // a row's ID, or what it begins with
	metric string // empty: the one that the row is about
	peer   string // empty: no ratio
	most   bool   // <=
	value  float64
}

var requirementForm = regexp.MustCompile(`^([a-z0-9-]+)(?:\.([a-z0-9_]+))?(?:/([a-z0-9-]+))?\s*(>=|<=)\s*([0-9.]+)$`)

// ParseRequirement reads a requirement.
func ParseRequirement(text string) (Requirement, error) {
	m := requirementForm.FindStringSubmatch(text)
	if m == nil {
		return Requirement{}, fmt.Errorf("requirement %q: want ROW[.METRIC][/SYSTEM]>=NUMBER or <=, such as drain/nsqd>=8", text)
	}
	v, err := strconv.ParseFloat(m[5], 64)
	if err != nil {
		return Requirement{}, fmt.Errorf("requirement %q: %w", text, err)
	}
	return Requirement{Text: text, row: m[1], metric: m[2], peer: m[3], most: m[4] == "<=", value: v}, nil
}

// Outcome is a requirement held against one row.
type Outcome struct {
	Requirement string  `json:"requirement"`
	Row         string  `json:"row"`
	Value       float64 `json:"value"`
	Met         bool    `json:"met"`
	Why         string  `json:"why,omitempty"` // when there was nothing to hold it against
}

func matchesRow(id, pattern string) bool {
	return id == pattern || strings.HasPrefix(id, pattern+"-")
}

// check holds the requirement against all rows that it names.
func (q Requirement) check(rows []Row) []Outcome {
	var out []Outcome
	for _, own := range rows {
		if !ours(own.System) || !matchesRow(own.ID, q.row) {
			continue
		}
		v, why := q.measure(own, rows)
		met := why == "" && (q.most && v <= q.value || !q.most && v >= q.value)
		out = append(out, Outcome{Requirement: q.Text, Row: own.ID, Value: v, Met: met, Why: why})
	}
	if len(out) == 0 {
		out = append(out, Outcome{Requirement: q.Text, Row: q.row, Why: "no such row was measured"})
	}
	return out
}

func (q Requirement) measure(own Row, rows []Row) (v float64, why string) {
	name := q.metric
	if name == "" {
		name = own.Workload.result()
	}
	read := func(r Row) (float64, string) {
		if r.Failure != "" {
			return 0, r.System + " failed: " + r.Failure
		}
		if v, ok := r.metric(name); ok {
			return v, ""
		}
		return 0, r.System + " has no " + name
	}
	v, why = read(own)
	if why != "" || q.peer == "" {
		return v, why
	}
	for _, r := range rows {
		if r.ID == own.ID && r.System == q.peer {
			base, why := read(r)
			if why == "" && base == 0 {
				why = q.peer + " has 0"
			}
			if why != "" {
				return 0, why
			}
			return v / base, ""
		}
	}
	return 0, q.peer + " was not measured"
}
