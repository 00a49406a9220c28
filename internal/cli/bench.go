package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/bench"
)

func newBench(s streams) *cobra.Command {
	return parent("bench", "Measure this node, this machine, or other servers", newBenchRun(s), newBenchCompare(s), newBenchFloor(s))
}

// workloadFlags lets every number of a workload be said; the others stay as the
// workload has them.
func workloadFlags(f *pflag.FlagSet) func(w *bench.Workload) {
	var v bench.Workload
	f.IntVar(&v.Size, "size", 0, "bytes of a message")
	f.IntVar(&v.Count, "count", 0, "messages, all publishers together")
	f.IntVar(&v.Publishers, "publishers", 0, "publishing connections")
	f.IntVar(&v.Batch, "batch", 0, "messages per command")
	f.IntVar(&v.InFlight, "in-flight", 0, "commands per connection that wait for an answer")
	f.IntVar(&v.Consumers, "consumers", 0, "consuming connections per channel")
	f.IntVar(&v.Channels, "channels", 0, "channels of the topic")
	f.IntVar(&v.Topics, "topics", 0, "topics: how many, held against one")
	f.IntVar(&v.Partitions, "partitions", 0, "partitions of the topic: how many, held against one")
	f.IntVar(&v.Window, "window", 0, "unfinished messages per consumer")
	f.Float64Var(&v.Rate, "rate", 0, "messages per second, where the load is paced")
	f.Float64Var(&v.Load, "load", 0, "latency: the rate as a share of what the server takes in batches, such as 0.5")
	f.DurationVar(&v.Duration, "duration", 0, "how long; unpaced publishing stops at the count or then")
	f.IntVar(&v.Deferred, "deferred", 0, "timers: deferred messages")
	f.IntVar(&v.Unfinished, "unfinished", 0, "timers: messages in flight")
	f.DurationVar(&v.Delay, "delay", 0, "timers: from publishing until the deferred messages are due")
	f.IntVar(&v.Kills, "kills", 0, "cluster-kill: how often the leader is killed")
	f.DurationVar(&v.Patience, "patience", 0, "what has not come when nothing came for so long is lost")
	return func(w *bench.Workload) {
		for name, set := range map[string]func(){
			"size": func() { w.Size = v.Size }, "count": func() { w.Count = v.Count },
			"publishers": func() { w.Publishers = v.Publishers }, "batch": func() { w.Batch = v.Batch },
			"in-flight": func() { w.InFlight = v.InFlight }, "consumers": func() { w.Consumers = v.Consumers },
			"channels": func() { w.Channels = v.Channels }, "topics": func() { w.Topics = v.Topics }, "partitions": func() { w.Partitions = v.Partitions }, "window": func() { w.Window = v.Window },
			"rate": func() { w.Rate, w.Load = v.Rate, 0 }, "load": func() { w.Load = v.Load }, "duration": func() { w.Duration = v.Duration },
			"deferred": func() { w.Deferred = v.Deferred }, "unfinished": func() { w.Unfinished = v.Unfinished },
			"delay": func() { w.Delay = v.Delay }, "patience": func() { w.Patience = v.Patience }, "kills": func() { w.Kills = v.Kills },
		} {
			if f.Changed(name) {
				set()
			}
		}
	}
}

// benchRun are the flags of `bench run` that are not the workload's.
type benchRun struct {
	nsqd, http   string
	pid          int
	dir          string
	settle       time.Duration
	allowReorder bool
	unbuffered   bool
	json         bool
}

func newBenchRun(s streams) *cobra.Command {
	var o benchRun
	cmd := &cobra.Command{
		Use: "run WORKLOAD", Short: "Run one workload against a server that speaks NSQ", Args: args(cobra.ExactArgs(1)),
		Long:      "Run one workload against the server at --nsqd, or against a node of this program\nstarted for the purpose on a free port; the workloads of a cluster start three.\nEvery message is verified: a loss, a duplicate or a message out of order fails the\ncommand.\n\n" + workloadHelp(),
		ValidArgs: bench.Names(),
	}
	apply := workloadFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.nsqd, "nsqd", "", "HOST:PORT of a running server's NSQ TCP (default: start a node)")
	f.StringVar(&o.http, "nsqd-http", "", "HOST:PORT of its HTTP API, to remove the topic afterwards (default: the port above --nsqd's)")
	f.IntVar(&o.pid, "pid", 0, "process of the server at --nsqd, for its CPU and memory")
	f.StringVar(&o.dir, "dir", ".", "where a started node keeps its data; the disk under it is measured")
	f.DurationVar(&o.settle, "settle", time.Second, "rest before a measurement, at most")
	f.BoolVar(&o.allowReorder, "allow-reorder", false, "count messages out of order without failing (nsqd does not promise order)")
	f.BoolVar(&o.unbuffered, "unbuffered", false, "ask the server to write every delivery at once")
	jsonFlag(cmd, &o.json)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		w, err := bench.Lookup(a[0])
		if err != nil {
			return usagef("%w", err)
		}
		if apply(&w); w.Check() != nil {
			return usagef("%w", w.Check())
		}
		return o.run(cmd.Context(), s, w)
	}
	return cmd
}

func workloadHelp() string {
	var text strings.Builder
	text.WriteString("Workloads:\n")
	for _, n := range bench.Names() {
		fmt.Fprintf(&text, "  %-17s%s\n", n, bench.Explain(n))
	}
	return text.String()
}

func (o benchRun) run(ctx context.Context, s streams, w bench.Workload) error {
	r := bench.Run{Workload: w, Settle: o.settle, Progress: new(bench.Progress)}
	end, err := o.prepare(ctx, &r)
	if err != nil {
		return err
	}
	stop := showProgress(s.err, r.Progress)
	row, err := r.Do(ctx)
	stop()
	err = errors.Join(err, end())
	if err != nil {
		return reachable(err)
	}
	if o.json {
		err = printJSON(s.out, row)
	} else {
		err = bench.WriteTable(s.out, []bench.Row{row})
	}
	if err == nil && row.Failure != "" {
		return failf(exitFailure, "%s on %s: %s", row.ID, row.System, row.Failure)
	}
	return err
}

// prepare describes the server at --nsqd, or starts what the run is against;
// end stops that.
func (o benchRun) prepare(ctx context.Context, r *bench.Run) (end func() error, err error) {
	switch {
	case o.nsqd != "":
		return func() error { return nil }, o.external(r)
	case r.Workload.Clustered():
		return o.cluster(ctx, r)
	}
	return o.own(ctx, r)
}

// own starts a node of this program for the run.
func (o benchRun) own(ctx context.Context, r *bench.Run) (end func() error, err error) {
	self, err := ownProgram()
	if err != nil {
		return nil, err
	}
	server, err := bench.Start(ctx, bench.TidingsSpec(self), o.dir)
	if err != nil {
		return nil, err
	}
	r.System, r.Durability, r.Server, r.Processes = bench.Ours, bench.SyncedBeforeAnswer, server, server.Processes()
	r.Target = o.target(server.Addr(0), server.Addr(1), r.Workload)
	return server.Stop, nil
}

// cluster starts three nodes of this program for the run.
func (o benchRun) cluster(ctx context.Context, r *bench.Run) (end func() error, err error) {
	self, err := ownProgram()
	if err != nil {
		return nil, err
	}
	c, err := bench.StartCluster(ctx, bench.TidingsClusterSpec(self), o.dir)
	if err != nil {
		return nil, err
	}
	r.System, r.Durability, r.Cluster, r.Processes, r.Target = bench.OurCluster, bench.SyncedByMost, c, c.Processes(), c.Target()
	return c.Stop, nil
}

// external describes the server at --nsqd.
func (o benchRun) external(r *bench.Run) error {
	host, port, err := net.SplitHostPort(o.nsqd)
	if err != nil {
		return usagef("--nsqd %q: want HOST:PORT", o.nsqd)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return usagef("--nsqd %q: want a numeric port", o.nsqd)
	}
	http := o.http
	if http == "" {
		http = net.JoinHostPort(host, strconv.Itoa(n+1))
	}
	r.Target, r.System, r.Durability = o.target(o.nsqd, http, r.Workload), o.nsqd, "durability unknown"
	r.Promise.MayReorder = o.allowReorder
	if o.pid == 0 {
		return nil
	}
	r.Processes = bench.Processes{o.pid}
	if err := r.Processes.Known(); err != nil {
		return failf(exitNotFound, "--pid %d: %w", o.pid, err)
	}
	return nil
}

func (o benchRun) target(tcp, http string, w bench.Workload) *bench.NSQ {
	t := &bench.NSQ{TCP: tcp, HTTP: http, Unbuffered: o.unbuffered}
	t.For(w)
	return t
}

// reachable gives errors of the network their exit code.
func reachable(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return &exitError{exitUnreachable, err}
	}
	return err
}

// showProgress keeps a line about the run on a terminal until it is stopped.
func showProgress(w io.Writer, p *bench.Progress) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		var label string
		var since time.Time
		for {
			select {
			case <-end:
				fmt.Fprint(w, "\r\x1b[K")
				return
			case now := <-tick.C:
				l, done, total := p.At()
				if l != label {
					label, since = l, now
				}
				fmt.Fprint(w, "\r\x1b[K"+progressLine(l, done, total, now.Sub(since)))
			}
		}
	}()
	return func() { close(end); <-ended }
}

func progressLine(label string, done, total int64, spent time.Duration) string {
	line := fmt.Sprintf("%s: %d", label, done)
	if total > 0 {
		line = fmt.Sprintf("%s: %d of %d (%d%%)", label, done, total, 100*done/total)
	}
	rate := float64(done) / spent.Seconds()
	if spent <= 0 || done == 0 {
		return line
	}
	line += fmt.Sprintf(", %.0f/s", rate)
	if left := total - done; left > 0 {
		line += fmt.Sprintf(", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
	}
	return line
}

func ownProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	return self, nil
}

// benchCompare are the flags of `bench compare`.
type benchCompare struct {
	peers     []string
	workloads []string
	require   []string
	c         bench.Comparison
	noFloor   bool
	save      string
	json      bool
}

func newBenchCompare(s streams) *cobra.Command {
	var o benchCompare
	var apply func(*bench.Workload)
	cmd := &cobra.Command{
		Use: "compare", Short: "Run workloads against this program and others, in turn", Args: args(cobra.NoArgs),
		Long: `Start this program and each --peer on loopback, each time with a fresh process and
empty data, run the workloads in turn for some rounds, and print medians, spread
and ratios. Peers that are not given are left out. Every message is verified;
what nsqd does not promise (order) is counted and does not fail it.

A requirement is ROW[.METRIC][/SYSTEM]>=NUMBER or <=. ROW is a row's name or its
beginning (drain, batch-200), METRIC one of rate, p50, p99, p999, max, cpu (all in
microseconds but rate), rss, or what the row's last column names. With /SYSTEM it
is our median over theirs; "floor" is this machine's limit. Without, our own.

` + workloadHelp(),
		Example: "  tidings bench compare --peer nsqd=/usr/local/bin/nsqd --require 'drain/nsqd>=8' --require 'batch-200.cpu<=0.5'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(apply); err != nil {
				return usagef("%w", err)
			}
			return o.run(cmd.Context(), s)
		},
	}
	f := cmd.Flags()
	apply = workloadFlags(f)
	f.StringArrayVar(&o.peers, "peer", nil, "NAME=PATH of a program to compare with: "+strings.Join(bench.Peers(), ", ")+" (may be repeated)")
	f.StringSliceVar(&o.workloads, "workload", []string{"publish", "batch", "drain", "fanout", "latency"}, "rows to measure, by name or beginning")
	f.StringArrayVar(&o.require, "require", nil, "fail unless this holds (may be repeated)")
	f.IntVar(&o.c.Rounds, "rounds", 5, "how often each run is made")
	f.StringVar(&o.c.Dir, "dir", ".", "where the data goes; the disk under it is measured")
	f.DurationVar(&o.c.Settle, "settle", time.Second, "rest before a measurement, at most")
	saveFlag(f, &o.save)
	f.BoolVar(&o.noFloor, "no-floor", false, "do not measure this machine's limits")
	jsonFlag(cmd, &o.json)
	return cmd
}

// parse checks the flags before anything is started; apply changes the numbers
// of all rows.
func (o *benchCompare) parse(apply func(*bench.Workload)) error {
	o.c.Peers, o.c.Floor = make(map[string]string), !o.noFloor
	if o.c.Rounds < 1 {
		return fmt.Errorf("--rounds %d: want at least 1", o.c.Rounds)
	}
	for _, p := range o.peers {
		name, path, _ := strings.Cut(p, "=")
		if !slices.Contains(bench.Peers(), name) || path == "" {
			return fmt.Errorf("--peer %q: want NAME=PATH, NAME one of %s", p, strings.Join(bench.Peers(), ", "))
		}
		whole, err := exec.LookPath(path)
		if err == nil {
			whole, err = filepath.Abs(whole) // it is started in another folder
		}
		if err != nil {
			return fmt.Errorf("--peer %s: %w", name, err)
		}
		o.c.Peers[name] = whole
	}
	for _, name := range o.workloads {
		found := bench.Select(name)
		if len(found) == 0 {
			return fmt.Errorf("--workload %q: no such row", name)
		}
		for _, w := range found {
			if apply(&w); w.Check() != nil {
				return fmt.Errorf("%s: %w", w.Name, w.Check())
			}
			// A flag may have made two rows the same.
			same := func(other bench.Workload) bool { return other.ID() == w.ID() }
			if !slices.ContainsFunc(o.c.Workloads, same) {
				o.c.Workloads = append(o.c.Workloads, w)
			}
		}
	}
	for _, text := range o.require {
		q, err := bench.ParseRequirement(text)
		if err != nil {
			return err
		}
		o.c.Require = append(o.c.Require, q)
	}
	return nil
}

func (o *benchCompare) run(ctx context.Context, s streams) (err error) {
	if o.c.Self, err = ownProgram(); err != nil {
		return err
	}
	if w := bench.ThisMachine(o.c.Dir).Warning(); w != "" {
		fmt.Fprintln(s.err, "warning: "+w)
	}
	o.c.Progress = new(bench.Progress)
	if !isTerminal(s.err) {
		o.c.Done = func(place string, run bench.Row) { fmt.Fprintf(s.err, "%s, %s\n", place, run.Line()) }
	}
	stop := showProgress(s.err, o.c.Progress)
	report, err := o.c.Do(ctx)
	stop()
	switch {
	case err != nil && len(report.Runs) == 0:
	case o.json:
		err = errors.Join(err, printJSON(s.out, report), saveJSON(o.save, report))
	default:
		err = errors.Join(err, report.Write(s.out), saveJSON(o.save, report))
	}
	if bad := report.Bad(); err == nil && len(bad) > 0 {
		return failf(exitFailure, "%s", strings.Join(bad, "; "))
	}
	return err
}

func saveFlag(f *pflag.FlagSet, name *string) {
	f.StringVar(name, "save", "", "write everything as JSON to this file as well")
}

// saveJSON writes what --json prints to a file; without a name it does nothing.
func saveJSON(name string, v any) error {
	if name == "" {
		return nil
	}
	var text bytes.Buffer
	if err := printJSON(&text, v); err != nil {
		return err
	}
	if err := os.WriteFile(name, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("save figures: %w", err)
	}
	return nil
}

func newBenchFloor(s streams) *cobra.Command {
	var f bench.Floor
	var save string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "floor", Short: "Measure this machine's limits", Args: args(cobra.NoArgs),
		Long: "Measure what this machine could do at best, with the least code that does it: a\nserver's result over the floor's means the same on any machine.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			machine := bench.ThisMachine(f.Dir)
			if w := machine.Warning(); w != "" {
				fmt.Fprintln(s.err, "warning: "+w)
			}
			f.Progress = new(bench.Progress)
			stop := showProgress(s.err, f.Progress)
			limits, err := f.Do(cmd.Context())
			stop()
			if err != nil {
				return err
			}
			all := map[string]any{"machine": machine, "floor": limits}
			if err := saveJSON(save, all); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, all)
			}
			fmt.Fprintf(s.out, "%s\n\n", machine)
			return bench.WriteFloor(s.out, limits)
		},
	}
	cmd.Flags().StringVar(&f.Dir, "dir", ".", "folder on the disk to measure")
	cmd.Flags().DurationVar(&f.Duration, "duration", time.Second, "time for each limit")
	saveFlag(cmd.Flags(), &save)
	jsonFlag(cmd, &asJSON)
	return cmd
}
