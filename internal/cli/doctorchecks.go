package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/admin"
)

// From when on something is worth a word.
const (
	// A node itself needs a few hundred files: 256 segment files at most, the
	// log's, links and listeners. The rest is for clients, one each.
	ownFiles       = 512
	openFilesWant  = 4096
	clockWarn      = 500 * time.Millisecond // deferred messages, ages
	clockFail      = 30 * time.Second
	syncWarn       = 20 * time.Millisecond
	certWarn       = 30 * 24 * time.Hour
	groupLimitWant = 256 << 20 // bytes; a busy node's buffers alone take a hundred
)

// cluster judges nodes and shards; what topics and channels lack is no matter of
// machines.
func (o *doctor) cluster(x *admin.Overview) {
	told := false
	for i := range x.Findings {
		f := &x.Findings[i]
		if f.Target.Topic != "" || f.Code == "disk_reserve" || f.Code == "disk_low" || f.Code == "node_silent" { // told below
			continue
		}
		status := map[string]string{"critical": checkFail, "warning": checkWarn}[f.Severity]
		if status == "" {
			status = checkOK
		}
		told = told || status != checkOK
		o.out.add(status, f.Code, f.Target.Node, f.Next, "%s", f.Text)
	}
	if told {
		return
	}
	nodes := 0
	for i := range x.Nodes {
		if x.Nodes[i].State == "live" {
			nodes++
		}
	}
	o.out.add(checkOK, "shards", "", "", "all %d shards have a leader and their replicas, %d %s", x.Shards.Total, nodes, plural(nodes, "node"))
}

// versions judges what programs the nodes run.
func (o *doctor) versions(d *admin.Diagnosis) {
	by := make(map[string][]string)
	var list []string
	least := uint32(math.MaxUint32)
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if by[n.Version] == nil {
			list = append(list, n.Version)
		}
		by[n.Version] = append(by[n.Version], n.Node)
		least = min(least, n.FeatureLevel)
	}
	slices.Sort(list)
	var parts []string
	for _, v := range list {
		parts = append(parts, v+" on "+strings.Join(by[v], ", "))
	}
	status, text := checkOK, strings.Join(parts, "; ")
	if len(list) > 1 {
		status = checkWarn
		text = "different versions: " + text
	}
	o.out.add(status, "versions", "", "go on with the upgrade, one node after the other", "%s", text)
	switch {
	case d.FeatureLevel == 0: // no cluster yet
	case least < d.FeatureLevel:
		o.out.add(checkFail, "feature_level", "", "run the newer version on all nodes", "the cluster uses feature level %d, and a node knows %d only", d.FeatureLevel, least)
	default:
		o.out.add(checkOK, "feature_level", "", "", "%d, which all nodes know", d.FeatureLevel)
	}
}

func (o *doctor) clock(n *admin.NodeDiagnosis) {
	if n.Self {
		return // others are compared with it
	}
	// what is sure: the rest may be the way there and back
	off := max(math.Abs(n.ClockOffsetMs)-n.ClockErrorMs, 0)
	way := "ahead"
	if n.ClockOffsetMs < 0 {
		way = "behind"
	}
	d := time.Duration(off * float64(time.Millisecond)).Round(time.Millisecond)
	const fix = "let NTP set the clocks of all nodes (chrony, systemd-timesyncd)"
	switch {
	case d >= clockFail:
		o.out.add(checkFail, "clock", n.Node, fix, "%s %s of the node that answers: deferred messages and ages are off by that", d, way)
	case d >= clockWarn:
		o.out.add(checkWarn, "clock", n.Node, fix, "%s %s of the node that answers: deferred messages and ages are off by that", d, way)
	default:
		o.out.add(checkOK, "clock", n.Node, "", "goes with that of the node that answers, within %.0f ms", math.Ceil(n.ClockErrorMs+off))
	}
}

func (o *doctor) openFiles(node string, open, most int64) {
	if most <= 0 {
		return // not known how to ask
	}
	const fix = "raise the limit before the start: `ulimit -n 65536`, or LimitNOFILE=1048576 in the systemd unit"
	room := most - max(open, ownFiles)
	switch {
	case room <= 0 || open > most/10*9:
		o.out.add(checkFail, "open_files", node, fix, "%d of %d open: there is no room for clients", open, most)
	case most < openFilesWant || open > most/10*7:
		o.out.add(checkWarn, "open_files", node, fix, "%d of %d open: room for %d more clients", open, most, room)
	default:
		o.out.add(checkOK, "open_files", node, "", "%d of %d open: room for %d more clients", open, most, room)
	}
}

func (o *doctor) memory(n *admin.NodeDiagnosis) {
	limit, used := n.GroupLimit, n.Resident
	if limit == 0 {
		if used > 0 {
			o.out.add(checkOK, "memory", n.Node, "", "%s used; no control group limits it", mib(used))
		}
		return
	}
	switch more := "give the control group (container, MemoryMax=) more memory, or lower tail-size and max-inbox-size"; {
	case used > limit/100*95:
		o.out.add(checkFail, "memory", n.Node, more, "%s of the control group's %s used: the node will be killed", mib(used), mib(limit))
	case n.MemoryLimit == 0 || n.MemoryLimit > limit:
		o.out.add(checkWarn, "memory", n.Node, "start it with --memory-limit auto", "the control group has %s, and the node does not keep to that: garbage can get it killed", mib(limit))
	case limit < groupLimitWant:
		o.out.add(checkWarn, "memory", n.Node, more, "the control group has %s, which is little: want %s", mib(limit), mib(groupLimitWant))
	case used > limit/100*85:
		o.out.add(checkWarn, "memory", n.Node, more, "%s of the control group's %s used", mib(used), mib(limit))
	default:
		o.out.add(checkOK, "memory", n.Node, "", "%s of the control group's %s used", mib(used), mib(limit))
	}
}

func (o *doctor) disk(node string, free, reserve int64) {
	if reserve == 0 {
		return
	}
	const fix = "consume, empty or delete something, free disk space, or use a larger disk"
	switch {
	case free < reserve:
		o.out.add(checkFail, "disk_space", node, fix, "%s free, below the reserve of %s: publishes are refused", mib(free), mib(reserve))
	case free < 2*reserve:
		o.out.add(checkWarn, "disk_space", node, fix, "%s free, publishes are refused below %s", mib(free), mib(reserve))
	default:
		o.out.add(checkOK, "disk_space", node, "", "%s free, publishes are refused below %s", mib(free), mib(reserve))
	}
}

// filesystem warns of those that do not keep what is written, or not safely.
func (o *doctor) filesystem(node, kind string) {
	const fix = "put the data folder on a disk of the machine, with ext4 or xfs"
	switch kind {
	case "":
	case "tmpfs", "ramfs":
		o.out.add(checkWarn, "filesystem", node, fix, "%s is memory: a restart of the machine loses all messages", kind)
	case "overlay":
		o.out.add(checkWarn, "filesystem", node, "mount a volume as the data folder", "overlay, a container's own layer: all messages go with the container")
	case "nfs", "cifs", "smb", "smb2", "9p", "fuse":
		o.out.add(checkWarn, "filesystem", node, fix, "%s: whether a sync is one, and a lock is one, is up to a server", kind)
	default:
		o.out.add(checkOK, "filesystem", node, "", "%s", kind)
	}
}

// syncs judges how long syncs of the disk take, in ms.
func (o *doctor) syncs(node string, p50, p99 float64, of string) {
	if p50 == 0 && p99 == 0 {
		return
	}
	const fix = "look at what else uses the disk; an SSD of its own, with power-loss protection, makes publishes quick"
	text := fmt.Sprintf("%.3g ms in the middle, %.3g ms at the slow end, %s", p50, p99, of)
	switch {
	case p50 >= ms(cluster.StallSync):
		o.out.add(checkFail, "disk_sync", node, fix, "%s: the cluster takes such a node for stalled", text)
	case p50 >= ms(syncWarn) || p99 >= ms(cluster.StallSync):
		o.out.add(checkWarn, "disk_sync", node, fix, "%s: every publish waits for one", text)
	default:
		o.out.add(checkOK, "disk_sync", node, "", "%s", text)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// certificateFixes say how each is renewed; running nodes take the new files.
var certificateFixes = map[string]string{
	"clients":           "renew it in the same file; the node takes it without a restart",
	"cluster":           "`tidings cluster cert --force NAME`, with ca.key, makes a new one; the node takes it without a restart",
	"cluster_authority": "make a new authority with `tidings cluster cert --dir NEW NAME...`; nodes must know both until all have new certificates",
}

func (o *doctor) certificate(node string, c *admin.Certificate) {
	check, fix := "certificate_"+c.Use, certificateFixes[c.Use]
	if c.Error != "" {
		o.out.add(checkWarn, check, node, "", "%s can't be read: %s", c.File, c.Error)
		return
	}
	until := time.UnixMilli(c.ExpiresAt)
	left := time.Until(until)
	date := until.UTC().Format(time.DateOnly)
	switch {
	case left <= 0:
		o.out.add(checkFail, check, node, fix, "%s has expired, on %s", c.File, date)
	case left < certWarn:
		o.out.add(checkWarn, check, node, fix, "%s expires in %s, on %s", c.File, age(left), date)
	default:
		o.out.add(checkOK, check, node, "", "%s is good until %s", c.File, date)
	}
}

// mib is a number of bytes for people.
func mib(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return config.Bytes(n).String() + "B"
}
