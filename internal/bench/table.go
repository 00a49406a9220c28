package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteTable prints rows for people: what was done, by whom and what its answer
// means, the result, what it cost, and what verification found.
func WriteTable(w io.Writer, rows []Row) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "ROW\tSYSTEM (DURABILITY)\tMSG/S\tSPREAD\tP50\tP99\tP99.9\tMAX\tCPU/MSG\tRSS\tLOST\tDUP\tORDER\tOTHER")
	id := ""
	for _, r := range rows {
		shown := r.ID
		if shown == id {
			shown = ""
		}
		id = r.ID
		fmt.Fprintln(tw, strings.Join(append([]string{shown, r.System + " (" + r.Durability + ")"}, cells(r)...), "\t"))
	}
	return tw.Flush()
}

func cells(r Row) []string {
	dash := func(ok bool, text string) string {
		if ok {
			return text
		}
		return "-"
	}
	out := []string{dash(r.Rate > 0, rateText(r.Rate)), dash(r.Runs > 1, fmt.Sprintf("%.0f%%", 100*r.Spread))}
	if l := r.Latency; l != nil && l.Count > 0 {
		out = append(out, microsText(l.P50), microsText(l.P99), microsText(l.P999), microsText(l.Max))
	} else {
		out = append(out, "-", "-", "-", "-")
	}
	out = append(out, dash(r.CPUMicros > 0, microsText(r.CPUMicros)), dash(r.RSS > 0, mibText(r.RSS)),
		fmt.Sprint(r.Lost), fmt.Sprint(r.Duplicated), fmt.Sprint(r.Reordered))
	var other []string
	if r.Failure != "" {
		other = append(other, "FAILED: "+r.Failure)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Figures)) {
		other = append(other, k+"="+numberText(r.Figures[k]))
	}
	return append(out, strings.Join(other, " "))
}

// Line says in one line, for people who wait, what came out of a run.
func (r Row) Line() string {
	name := r.Workload.result()
	text := "no " + name
	switch v, ok := r.metric(name); {
	case r.Failure != "":
		text = "FAILED: " + r.Failure
	case !ok:
	case name == "rate":
		text = rateText(v) + " msg/s"
	case name == "p99":
		text = "p99 " + microsText(v)
	case name == "rss":
		text = mibText(int64(v))
	default:
		text = name + " " + numberText(v)
	}
	return fmt.Sprintf("%s, %s: %s (%.0f s)", r.ID, r.System, text, r.Took)
}
