package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Comparison runs workloads against several systems in turn, each time with a
// fresh process and empty data, and takes medians over the rounds.
type Comparison struct {
	Self      string            // path of our own program
	Peers     map[string]string // program, of Peers(), to its path
	Workloads []Workload
	Rounds    int
	Dir       string // data goes below it
	Settle    time.Duration
	Floor     bool // measure the machine's limits too
	Require   []Requirement
	Progress  *Progress
	// Done, when not nil, is told of every run, with its place such as "round 1
	// of 5".
	Done func(place string, run Row)
}

// Report is the outcome of a comparison.
type Report struct {
	Machine  Machine       `json:"machine"`
	Rounds   int           `json:"rounds"`
	Systems  []Description `json:"systems"`
	LeftOut  []string      `json:"left_out"` // peers whose program was not given
	Floor    []Limit       `json:"floor,omitempty"`
	Rows     []Row         `json:"rows"` // medians
	Runs     []Row         `json:"runs"` // every single run, in the order in which they were made
	Ratios   []Ratio       `json:"ratios"`
	Outcomes []Outcome     `json:"requirements,omitempty"`
}

// Description says what exactly was started.
type Description struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Durability string `json:"durability"`
	Command    string `json:"command"`
	Config     string `json:"config,omitempty"`
}

// Do runs the comparison. What fails in a run is in its row; an error is only
// that it could not go on, and comes with the report so far.
func (c Comparison) Do(ctx context.Context) (Report, error) {
	r := Report{Machine: ThisMachine(c.Dir), Rounds: c.Rounds, LeftOut: []string{}}
	systems := c.systems(&r)
	if c.Floor {
		floor := Floor{Dir: c.Dir, Duration: time.Second, Progress: c.Progress}
		var err error
		if r.Floor, err = floor.Do(ctx); err != nil {
			return r, err
		}
	}
	for round := range c.Rounds {
		place := fmt.Sprintf("round %d of %d", round+1, c.Rounds)
		for _, w := range c.Workloads {
			for _, s := range systems {
				w, ok := s.takes(w)
				if !ok {
					continue
				}
				c.Progress.prefix(fmt.Sprintf("%s, %s, %s", place, w.ID(), s.Name))
				row, about := c.one(ctx, s, w)
				if ctx.Err() != nil {
					r.sum(c.Require) // what there is so far
					return r, context.Cause(ctx)
				}
				r.Runs = append(r.Runs, row)
				r.describe(about)
				if c.Done != nil {
					c.Done(place, row)
				}
			}
		}
	}
	r.sum(c.Require)
	return r, nil
}

// systems are those whose program is there; the others are noted.
func (c Comparison) systems(r *Report) []System {
	var out []System
	for _, s := range Systems() {
		switch {
		case s.Peer == "" || c.Peers[s.Peer] != "":
			out = append(out, s)
		case !slices.Contains(r.LeftOut, s.Peer):
			r.LeftOut = append(r.LeftOut, s.Peer)
		}
	}
	return out
}

func (c Comparison) path(s System) string {
	if s.Peer == "" {
		return c.Self
	}
	return c.Peers[s.Peer]
}

// one starts a system, runs one workload and stops it.
func (c Comparison) one(ctx context.Context, s System, w Workload) (row Row, about Description) {
	begun := time.Now()
	defer func() { row.Took = time.Since(begun).Seconds() }()
	about = Description{Name: s.Name, Durability: s.Durability}
	failed := Row{ID: w.ID(), Workload: w, System: s.Name, Durability: s.Durability}
	run := Run{Workload: w, System: s.Name, Durability: s.Durability, Promise: s.Promise, Progress: c.Progress, Settle: c.Settle}
	started, err := s.start(ctx, c.path(s), c.Dir, &run)
	if err != nil {
		failed.Failure = err.Error()
		return failed, about
	}
	about.Version, about.Command, about.Config = version(ctx, s, c.path(s)), started.Command(), started.Config()
	row, err = run.Do(ctx)
	if err = errors.Join(err, started.Stop()); err != nil {
		row = failed
		row.Failure = err.Error()
	}
	return row, about
}

// started is a server, or a cluster of them.
type started interface {
	Command() string
	Config() string
	Processes() Processes
	Stop() error
}

// start starts the system with its data below dir, for a run that it completes.
func (s System) start(ctx context.Context, path, dir string, run *Run) (started, error) {
	if s.Cluster == nil {
		server, err := Start(ctx, s.Spec(path), dir)
		if err != nil {
			return nil, err
		}
		run.Server, run.Target, run.Processes = server, s.Target(server, run.Workload), server.Processes()
		return server, nil
	}
	c, err := StartCluster(ctx, s.Cluster(path), dir)
	if err != nil {
		return nil, err
	}
	run.Cluster, run.Target, run.Processes = c, c.Target(), c.Processes()
	return c, nil
}

// versionTimeout bounds a program that does something else than tell its version.
const versionTimeout = 5 * time.Second

// version is what a program says of itself.
func version(ctx context.Context, s System, path string) string {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	word := "--version"
	if s.Peer == "" {
		word = "version"
	}
	out, err := exec.CommandContext(ctx, path, word).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// describe notes a system the first time it was started.
func (r *Report) describe(d Description) {
	if d.Command != "" && !slices.ContainsFunc(r.Systems, func(o Description) bool { return o.Name == d.Name }) {
		r.Systems = append(r.Systems, d)
	}
}

// sum makes medians, ratios and outcomes of the runs.
func (r *Report) sum(require []Requirement) {
	for _, run := range r.Runs {
		same := func(o Row) bool { return o.ID == run.ID && o.System == run.System }
		if slices.ContainsFunc(r.Rows, same) {
			continue
		}
		var runs []Row
		for _, o := range r.Runs {
			if same(o) {
				runs = append(runs, o)
			}
		}
		r.Rows = append(r.Rows, medians(runs))
	}
	// Rows of one kind stand together, in the order in which they were run.
	order := make(map[string]int)
	for i, row := range r.Rows {
		if _, ok := order[row.ID]; !ok {
			order[row.ID] = i
		}
	}
	slices.SortStableFunc(r.Rows, func(a, b Row) int { return order[a.ID] - order[b.ID] })
	withFloor := slices.Concat(r.Rows, floorRows(r.Floor, r.Rows))
	r.Ratios = ratios(withFloor)
	for _, q := range require {
		r.Outcomes = append(r.Outcomes, q.check(withFloor)...)
	}
}

// Bad says why the comparison must not pass: rows that failed and requirements
// that were missed. Empty is good.
func (r Report) Bad() []string {
	var out []string
	for _, row := range r.Rows {
		if row.Failure != "" {
			out = append(out, fmt.Sprintf("%s on %s: %s", row.ID, row.System, row.Failure))
		}
	}
	for _, o := range r.Outcomes {
		switch {
		case o.Met:
		case o.Why != "":
			out = append(out, fmt.Sprintf("%s: %s: %s", o.Requirement, o.Row, o.Why))
		default:
			out = append(out, fmt.Sprintf("%s: %s has %s", o.Requirement, o.Row, numberText(o.Value)))
		}
	}
	return out
}

// medians makes one row of several runs of the same. One failed run fails it:
// a median must not hide a loss.
func medians(runs []Row) Row {
	out := runs[0]
	out.Runs, out.Verdict, out.Figures, out.Took = len(runs), Verdict{}, nil, 0
	of := func(read func(Row) float64) float64 {
		var vs []float64
		for _, r := range runs {
			vs = append(vs, read(r))
		}
		return median(vs)
	}
	for _, r := range runs {
		out.Verdict = out.add(r.Verdict)
		out.Took += r.Took
		if out.Failure == "" {
			out.Failure = r.Failure
		}
	}
	if out.Failure != "" {
		out.Latency = nil
		out.Rate, out.Seconds, out.CPUMicros, out.Cores, out.RSS, out.PeakRSS = 0, 0, 0, 0, 0, 0
		return out
	}
	out.Rate = of(func(r Row) float64 { return r.Rate })
	out.Seconds = of(func(r Row) float64 { return r.Seconds })
	out.Messages = int64(of(func(r Row) float64 { return float64(r.Messages) }))
	out.CPUMicros = of(func(r Row) float64 { return r.CPUMicros })
	out.Cores = of(func(r Row) float64 { return r.Cores })
	out.RSS = int64(of(func(r Row) float64 { return float64(r.RSS) }))
	out.PeakRSS = int64(of(func(r Row) float64 { return float64(r.PeakRSS) }))
	if runs[0].Latency != nil {
		l := *runs[0].Latency
		l.P50 = of(func(r Row) float64 { return r.Latency.P50 })
		l.P99 = of(func(r Row) float64 { return r.Latency.P99 })
		l.P999 = of(func(r Row) float64 { return r.Latency.P999 })
		l.Max = of(func(r Row) float64 { return r.Latency.Max })
		out.Latency = &l
	}
	for name := range runs[0].Figures {
		out.figure(name, of(func(r Row) float64 { return r.Figures[name] }))
		if strings.Contains(name, "_max_") { // a median would hide the worst
			for _, r := range runs {
				out.Figures[name] = max(out.Figures[name], r.Figures[name])
			}
		}
	}
	out.Spread = spread(runs)
	return out
}

// spread is over the number that the row is about.
func spread(runs []Row) float64 {
	var vs []float64
	for _, r := range runs {
		v, _ := r.metric(r.Workload.result())
		vs = append(vs, v)
	}
	if m := median(vs); m > 0 {
		return (slices.Max(vs) - slices.Min(vs)) / m
	}
	return 0
}

func median(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	n := len(vs)
	if n%2 == 1 {
		return vs[n/2]
	}
	return (vs[n/2-1] + vs[n/2]) / 2
}
