package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/vfs"
)

// How a check of the doctor ends.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// checked is what a check has found.
type checked struct {
	Status string `json:"status"`         // ok, warn or fail
	Check  string `json:"check"`          // what was looked at, such as open_files
	Node   string `json:"node,omitempty"` // empty: this machine, or the cluster
	Text   string `json:"text"`
	Fix    string `json:"fix,omitempty"`
}

// diagnosis is what `tidings doctor` prints.
type diagnosis struct {
	Status   string    `json:"status"` // the worst
	Node     string    `json:"node,omitempty"`
	DataPath string    `json:"data_path,omitempty"`
	Findings []checked `json:"findings"`
}

func (d *diagnosis) add(status, check, node, fix, text string, args ...any) {
	if status == checkOK {
		fix = ""
	}
	d.Findings = append(d.Findings, checked{status, check, node, fmt.Sprintf(text, args...), fix})
}

// grave orders what checks have found.
var grave = map[string]int{checkOK: 0, checkWarn: 1, checkFail: 2}

// doctor is `tidings doctor`.
type doctor struct {
	srv      *server
	file     string
	dataPath string
	json     bool

	out diagnosis
}

// errSick ends the command when something fails.
var errSick = errors.New("something needs care")

func newDoctor(s streams) *cobra.Command {
	var o doctor
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps a node from working well, and say how to mend it", Args: args(cobra.NoArgs),
		Long: `Ask a running node, and through it the whole cluster: shards without a leader,
replicas that are behind, nodes that are down; versions, clocks, certificates,
open files, memory and disks of all nodes. If the node runs on this machine, its
data folder is looked at too.

With --data-path or -c, or when no node runs here, look at what a start would
find: the folder, its disk and how long that takes for a sync, the ports, the
limits of this shell, the certificates. --admin beside them asks a node as well.

Nothing is changed; to time the disk, a file of 4 KiB is written and removed
again. The exit code is 1 when a check fails; warnings alone are 0.`,
		Example: `  tidings doctor
  tidings doctor --admin 10.0.0.2:4180 --json
  tidings doctor -c /etc/tidings.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd, s) },
	}
	o.srv = adminFlags(cmd)
	cmd.Flags().StringVar(&o.dataPath, "data-path", "", "data folder to look at")
	cmd.Flags().StringVarP(&o.file, "config", "c", "", "TOML file with the settings of a start")
	jsonFlag(cmd, &o.json)
	return cmd
}

func (o *doctor) run(cmd *cobra.Command, s streams) error {
	o.out.Findings = []checked{}
	ctx := cmd.Context()
	asked := cmd.Flags().Changed("admin") || cmd.Flags().Changed("context")
	start := o.file != "" || o.dataPath != ""
	cfg, err := o.settings()
	if err != nil {
		return err
	}
	if asked || !start {
		switch err := o.node(ctx); {
		case err == nil && !start:
			return o.tell(s)
		case err == nil:
		case exitCode(err) == exitUnreachable && o.srv.origin == fromDefault:
			fmt.Fprintf(s.err, "no node answers at %s; this is what `tidings serve` would find\n", o.srv.addr)
		default:
			return err
		}
	}
	o.start(ctx, &cfg)
	return o.tell(s)
}

// settings are those of a start.
func (o *doctor) settings() (config.Config, error) {
	src := config.Source{File: o.file, Environ: os.Environ(), Flags: make(map[string]string)}
	if o.dataPath != "" {
		src.Flags["data-path"] = o.dataPath
	}
	cfg, _, err := config.Load(src)
	if err != nil {
		return cfg, settingsError(err)
	}
	return cfg, nil
}

// node asks a running node, and looks at its folder if that is here.
func (o *doctor) node(ctx context.Context) error {
	overview, err := o.overview(ctx)
	if err != nil {
		return err
	}
	var d admin.Diagnosis
	err = o.srv.admin(ctx, http.MethodGet, "/api/v1/diagnosis", nil, &d)
	if exitCode(err) == exitNotFound {
		return failf(exitFailure, "the node at %s is older than `tidings doctor`: run the doctor of its version, or `tidings cluster status`", o.srv.addr)
	}
	if err != nil {
		return err
	}
	o.cluster(&overview)
	o.versions(&d)
	for i := range d.Nodes {
		n := &d.Nodes[i]
		o.clock(n)
		o.openFiles(n.Node, n.OpenFiles, n.OpenFilesMax)
		o.memory(n)
		o.disk(n.Node, n.DiskFree, n.DiskReserve)
		o.filesystem(n.Node, n.Filesystem)
		o.syncs(n.Node, n.SyncP50Ms, n.SyncP99Ms, "of its log since it started")
		for k := range n.Certificates {
			o.certificate(n.Node, &n.Certificates[k])
		}
		if n.Self {
			o.out.Node = n.Node
			o.hereToo(ctx, n)
		}
	}
	for _, m := range d.Missing {
		o.out.add(checkWarn, "answers", m.Node, "run the doctor with --admin of that node", "did not tell of its machine: %s", m.Reason)
	}
	return nil
}

// leaderPatience is how long a shard may be without a leader before that is told:
// a leadership that moves takes a moment, and longer until all nodes know.
const leaderPatience = 3 * time.Second

// overview asks for the cluster at a glance.
func (o *doctor) overview(ctx context.Context) (x admin.Overview, err error) {
	patience := min(leaderPatience, o.srv.timeout)
	for begun := time.Now(); ; {
		x = admin.Overview{}
		if err := o.srv.admin(ctx, http.MethodGet, "/api/v1/overview", nil, &x); err != nil {
			return x, err
		}
		leaderless := slices.ContainsFunc(x.Findings, func(f admin.Finding) bool { return f.Code == "shard_no_leader" })
		if !leaderless || time.Since(begun) >= patience {
			return x, nil
		}
		select {
		case <-time.After(patience / 4):
		case <-ctx.Done():
			return x, failf(exitFailure, "interrupted")
		}
	}
}

// hereToo times the disk of the node's folder if it is on this machine: the node
// listens on a loopback address, and the folder is here and in use.
func (o *doctor) hereToo(ctx context.Context, n *admin.NodeDiagnosis) {
	host, err := o.srv.host()
	if err != nil {
		return
	}
	name, _, _ := net.SplitHostPort(host) // host has made it
	if ip := net.ParseIP(name); name != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return
	}
	if !inUse(n.DataPath) {
		return // behind a tunnel, or in a container
	}
	o.out.DataPath = n.DataPath
	o.timeDisk(ctx, n.Node, n.DataPath)
}

// inUse says that a node holds the folder.
func inUse(dir string) bool {
	lock := filepath.Join(dir, "LOCK")
	if _, err := os.Stat(lock); err != nil {
		return false
	}
	held, err := vfs.Default().Lock(filepath.ToSlash(lock))
	if err != nil {
		return errors.Is(err, vfs.ErrLocked)
	}
	_ = held.Close() // it was only tried
	return false
}

// tell prints what was found, the worst last, where a terminal's cursor is.
func (o *doctor) tell(s streams) error {
	o.out.Status = checkOK
	count := make(map[string]int)
	for _, f := range o.out.Findings {
		count[f.Status]++
		if grave[f.Status] > grave[o.out.Status] {
			o.out.Status = f.Status
		}
	}
	slices.SortStableFunc(o.out.Findings, func(a, b checked) int { return cmp.Compare(grave[a.Status], grave[b.Status]) })
	var err error
	if o.json {
		err = printJSON(s.out, o.out)
	} else {
		err = printFindings(s.out, o.out.Findings)
	}
	if err != nil {
		return err
	}
	said := fmt.Sprintf("%d checks, %d %s, %d failed", len(o.out.Findings), count[checkWarn], plural(count[checkWarn], "warning"), count[checkFail])
	if o.out.Status == checkFail {
		return failf(exitFailure, "%w: %s", errSick, said)
	}
	if !o.json {
		fmt.Fprintln(s.err, said)
	}
	return nil
}

// printFindings prints a line for each, and the fix below it.
func printFindings(w io.Writer, findings []checked) error {
	check, node := len("check"), 0
	for i := range findings {
		check, node = max(check, len(findings[i].Check)), max(node, len(findings[i].Node))
	}
	var b strings.Builder
	for i := range findings {
		f := &findings[i]
		fmt.Fprintf(&b, "%-4s  %-*s  ", f.Status, check, f.Check)
		if node > 0 {
			fmt.Fprintf(&b, "%-*s  ", node, orDash(f.Node))
		}
		b.WriteString(f.Text + "\n")
		if f.Fix != "" {
			fmt.Fprintf(&b, "      fix: %s\n", f.Fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// age is a duration as people say it.
func age(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	return d.Round(time.Minute).String()
}
