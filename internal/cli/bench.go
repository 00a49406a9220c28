package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/bench"
)

func newBench(s streams) *cobra.Command {
	return parent("bench", "Measure this node, this machine, or other servers", newBenchRun(s))
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
	f.IntVar(&v.Window, "window", 0, "unfinished messages per consumer")
	f.Float64Var(&v.Rate, "rate", 0, "messages per second, where the load is paced")
	f.DurationVar(&v.Duration, "duration", 0, "how long; unpaced publishing stops at the count or then")
	f.IntVar(&v.Deferred, "deferred", 0, "timers: deferred messages")
	f.IntVar(&v.Unfinished, "unfinished", 0, "timers: messages in flight")
	f.DurationVar(&v.Delay, "delay", 0, "timers: from publishing until the deferred messages are due")
	f.DurationVar(&v.Patience, "patience", 0, "what has not come when nothing came for so long is lost")
	return func(w *bench.Workload) {
		for name, set := range map[string]func(){
			"size": func() { w.Size = v.Size }, "count": func() { w.Count = v.Count },
			"publishers": func() { w.Publishers = v.Publishers }, "batch": func() { w.Batch = v.Batch },
			"in-flight": func() { w.InFlight = v.InFlight }, "consumers": func() { w.Consumers = v.Consumers },
			"channels": func() { w.Channels = v.Channels }, "window": func() { w.Window = v.Window },
			"rate": func() { w.Rate = v.Rate }, "duration": func() { w.Duration = v.Duration },
			"deferred": func() { w.Deferred = v.Deferred }, "unfinished": func() { w.Unfinished = v.Unfinished },
			"delay": func() { w.Delay = v.Delay }, "patience": func() { w.Patience = v.Patience },
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
		Long:      "Run one workload against the server at --nsqd, or against a node of this program\nstarted for the purpose on a free port. Every message is verified: a loss, a\nduplicate or a message out of order fails the command.\n\n" + workloadHelp(),
		ValidArgs: bench.Names(),
	}
	apply := workloadFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.nsqd, "nsqd", "", "HOST:PORT of a running server's NSQ TCP (default: start a node)")
	f.StringVar(&o.http, "nsqd-http", "", "HOST:PORT of its HTTP API, to remove the topic afterwards (default: the port above --nsqd's)")
	f.IntVar(&o.pid, "pid", 0, "process of the server at --nsqd, for its CPU and memory")
	f.StringVar(&o.dir, "dir", ".", "where a started node keeps its data; the disk under it is measured")
	f.DurationVar(&o.settle, "settle", time.Second, "rest before a measurement")
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
	text := "Workloads:\n"
	for _, n := range bench.Names() {
		text += fmt.Sprintf("  %-9s%s\n", n, bench.Explain(n))
	}
	return text
}

func (o benchRun) run(ctx context.Context, s streams, w bench.Workload) error {
	r := bench.Run{Workload: w, Settle: o.settle, Progress: new(bench.Progress)}
	prepare := o.external
	if o.nsqd == "" {
		prepare = o.own
	}
	if err := prepare(ctx, &r); err != nil {
		return err
	}
	stop := showProgress(s.err, r.Progress)
	row, err := r.Do(ctx)
	stop()
	if r.Server != nil {
		err = errors.Join(err, r.Server.Stop())
	}
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

// own starts a node of this program for the run.
func (o benchRun) own(ctx context.Context, r *bench.Run) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	server, err := bench.Start(ctx, bench.TidingsSpec(self), o.dir)
	if err != nil {
		return err
	}
	r.System, r.Durability, r.Server, r.Process = "tidings", bench.SyncedBeforeAnswer, server, server.Process()
	r.Target = o.target(server.Addr(0), server.Addr(1), r.Workload)
	return nil
}

// external describes the server at --nsqd.
func (o benchRun) external(_ context.Context, r *bench.Run) error {
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
	r.Process = &bench.Process{PID: o.pid}
	if err := r.Process.Known(); err != nil {
		return failf(exitNotFound, "--pid %d: %w", o.pid, err)
	}
	return nil
}

func (o benchRun) target(tcp, http string, w bench.Workload) *bench.NSQ {
	t := &bench.NSQ{TCP: tcp, HTTP: http, Unbuffered: o.unbuffered}
	if w.Name == "timers" {
		t.MsgTimeout = w.Delay + time.Minute // what is held must not come back
	}
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
