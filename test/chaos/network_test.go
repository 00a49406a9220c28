//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// tools are the programs that the tests call, and the packages that have them.
var tools = []struct{ name, apt string }{{"ip", "iproute2"}, {"nft", "nftables"}}

// needTools wants root and the tools: without them nothing here can be tested,
// and that is no reason to say that all is well.
func needTools(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.name); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", tool.name, tool.apt)
		}
	}
}

// network is a few hosts, each in a network namespace of its own with a loopback
// and one interface, joined by a bridge in one more namespace. Nothing of it is
// seen by other processes, and every host has the same addresses in every
// network.
type network struct {
	prefix string
	hosts  []*host
}

// host is one namespace.
type host struct {
	net   *network
	name  string // a, b, c …
	space string // of the namespace
	addr  string // in the network; clients use the loopback, which no fault touches
	drops []string
}

// networks counts this process's networks, so that each gets names of its own.
var networks atomic.Int32

// newNetwork makes hosts named a, b, c … that are gone when the test ends.
func newNetwork(t *testing.T, hosts int) *network {
	t.Helper()
	plainBinary(t)
	needTools(t)
	n := &network{prefix: fmt.Sprintf("chaos%d-%d", os.Getpid(), networks.Add(1))}
	t.Cleanup(n.remove)
	if err := n.build(hosts); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *network) bridge() string { return n.prefix + "-bridge" }

func (n *network) build(hosts int) error {
	err := runAll([][]string{
		{"ip", "netns", "add", n.bridge()},
		{"ip", "-n", n.bridge(), "link", "add", "br0", "type", "bridge"},
		{"ip", "-n", n.bridge(), "link", "set", "br0", "up"},
	})
	for i := 0; i < hosts && err == nil; i++ {
		h := &host{net: n, name: string(rune('a' + i)), addr: fmt.Sprintf("10.213.0.%d", i+1)}
		h.space = n.prefix + "-" + h.name
		n.hosts = append(n.hosts, h)
		err = runAll([][]string{
			{"ip", "netns", "add", h.space},
			{"ip", "-n", h.space, "link", "set", "lo", "up"},
			{"ip", "-n", n.bridge(), "link", "add", h.port(), "type", "veth", "peer", "name", "eth0", "netns", h.space},
			{"ip", "-n", n.bridge(), "link", "set", h.port(), "master", "br0", "up"},
			{"ip", "-n", h.space, "addr", "add", h.addr + "/24", "dev", "eth0"},
			{"ip", "-n", h.space, "link", "set", "eth0", "up"},
		})
	}
	return err
}

// remove takes everything away, as far as it is there.
func (n *network) remove() {
	for _, h := range n.hosts {
		exec.Command("ip", "netns", "del", h.space).Run()
	}
	exec.Command("ip", "netns", "del", n.bridge()).Run()
}

func runAll(commands [][]string) error {
	for _, c := range commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	return nil
}

// port is the host's end at the bridge.
func (h *host) port() string { return "port-" + h.name }

// through is the command that runs another one on the host.
func (h *host) through() []string { return []string{"ip", "netns", "exec", h.space} }

// dial connects from the host. A socket stays in the namespace it was made in.
func (h *host) dial(ctx context.Context, protocol, addr string) (conn net.Conn, err error) {
	err = h.inside(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, protocol, addr)
		return err
	})
	return conn, err
}

// inside calls do on a thread that stands in the host's namespace.
func (h *host) inside(do func() error) error {
	target, err := os.Open("/run/netns/" + h.space)
	if err != nil {
		return err
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", h.space, err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// --- faults; each lasts until heal

// unplug takes the host's link down.
func (n *network) unplug(h *host) error {
	return runAll([][]string{{"ip", "-n", n.bridge(), "link", "set", h.port(), "down"}})
}

// oneWay drops what from sends to to.
func (n *network) oneWay(from, to *host) error {
	return to.drop("ip saddr " + from.addr + " drop")
}

// cut separates two hosts.
func (n *network) cut(a, b *host) error {
	return errors.Join(n.oneWay(a, b), n.oneWay(b, a))
}

// isolate cuts a host off from all others.
func (n *network) isolate(h *host) error {
	var err error
	for _, other := range n.hosts {
		if other != h {
			err = errors.Join(err, n.cut(h, other))
		}
	}
	return err
}

// lose drops a share of all packets, in percent.
func (n *network) lose(percent int) error {
	var err error
	for _, h := range n.hosts {
		err = errors.Join(err, h.drop(fmt.Sprintf("numgen random mod 100 < %d drop", percent)))
	}
	return err
}

// drop adds a rule for what comes in by the network.
func (h *host) drop(rule string) error {
	if slices.Contains(h.drops, rule) {
		return nil
	}
	h.drops = append(h.drops, rule)
	return h.filter()
}

// filter puts the rules in force, in one step.
func (h *host) filter() error {
	var b strings.Builder
	b.WriteString("table inet chaos\ndelete table inet chaos\ntable inet chaos {\nchain in {\ntype filter hook input priority 0; policy accept;\n")
	for _, rule := range h.drops {
		fmt.Fprintf(&b, "iifname \"eth0\" %s\n", rule)
	}
	b.WriteString("}\n}\n")
	cmd := exec.Command("ip", "netns", "exec", h.space, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft on %s: %w: %s", h.name, err, out)
	}
	return nil
}

// heal ends all faults of the network.
func (n *network) heal() error {
	var err error
	for _, h := range n.hosts {
		err = errors.Join(err, runAll([][]string{{"ip", "-n", n.bridge(), "link", "set", h.port(), "up"}}))
		if len(h.drops) > 0 {
			h.drops = nil
			err = errors.Join(err, h.filter())
		}
	}
	return err
}
