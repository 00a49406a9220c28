package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteFloor prints the machine's limits.
func WriteFloor(w io.Writer, limits []Limit) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "LIMIT\tMSG/S\tMB/S\tP50\tP99\tWHAT")
	for _, l := range limits {
		cell := func(v float64, text string) string {
			if v > 0 {
				return text
			}
			return "-"
		}
		fmt.Fprintln(tw, strings.Join([]string{
			l.Name, cell(l.Rate, rateText(l.Rate)), cell(l.Disk, numberText(l.Disk/1e6)),
			cell(l.P50, microsText(l.P50)), cell(l.P99, microsText(l.P99)), l.Text,
		}, "\t"))
	}
	return tw.Flush()
}

// Write prints the whole report for people.
func (r Report) Write(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%d rounds, medians; every run starts with a fresh process and empty data\n\n", r.Machine, r.Rounds)
	for _, s := range r.Systems {
		fmt.Fprintf(w, "%-16s  %s\n%-16s  %s\n", s.Name, s.Version, "", s.Command)
		for line := range strings.Lines(s.Config) {
			fmt.Fprintf(w, "%-16s  | %s", "", line)
		}
	}
	for _, name := range r.LeftOut {
		fmt.Fprintf(w, "%-16s  left out: no --peer %s=PATH\n", name, name)
	}
	fmt.Fprintln(w)
	if len(r.Floor) > 0 {
		if err := WriteFloor(w, r.Floor); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if err := WriteTable(w, r.Rows); err != nil {
		return err
	}
	return r.writeRatios(w)
}

// writeRatios prints one line for each pair: ours over theirs.
func (r Report) writeRatios(w io.Writer) error {
	if len(r.Ratios) > 0 {
		fmt.Fprintln(w, "\nOurs over theirs (medians):")
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i := 0; i < len(r.Ratios); {
		first := r.Ratios[i]
		line := []string{first.Row, first.Peer}
		for ; i < len(r.Ratios) && r.Ratios[i].Row == first.Row && r.Ratios[i].Peer == first.Peer; i++ {
			line = append(line, fmt.Sprintf("%s %sx", r.Ratios[i].Metric, ratioText(r.Ratios[i].Value)))
		}
		fmt.Fprintln(tw, strings.Join(line, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(r.Outcomes) > 0 {
		fmt.Fprintln(w, "\nRequirements:")
	}
	for _, o := range r.Outcomes {
		state := "met   "
		if !o.Met {
			state = "MISSED"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", state, o.Requirement, o.Row, ratioText(o.Value), o.Why)
	}
	return tw.Flush()
}

// ratioText keeps small ratios readable.
func ratioText(v float64) string {
	if v != 0 && v < 0.1 {
		return fmt.Sprintf("%.4f", v)
	}
	return numberText(v)
}
