//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// echo answers whole lines on every host until the test ends.
func echo(t *testing.T, n *network) {
	t.Helper()
	for _, h := range n.hosts {
		var l net.Listener
		err := h.inside(func() (err error) {
			l, err = net.Listen("tcp", h.addr+":7")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b := make([]byte, 64)
					for {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						if _, err := c.Write(b[:n]); err != nil {
							return
						}
					}
				}()
			}
		}()
	}
}

// reaches says whether a new connection answers.
func reaches(from, to *host) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	c, err := from.dial(ctx, "tcp", to.addr+":7")
	if err != nil {
		return false
	}
	defer c.Close()
	return answers(c, 300*time.Millisecond)
}

func answers(c net.Conn, limit time.Duration) bool {
	c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	return err == nil && string(b[:n]) == "hello"
}

// Each fault must cut what it says and nothing else, and heal.
func TestNetwork(t *testing.T) {
	n := newNetwork(t, 3)
	echo(t, n)
	a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
	all := "ab ac ba bc ca cb"
	for _, fault := range []struct {
		name  string
		begin func() error
		open  string // who reaches whom by a new connection
	}{
		{"none", func() error { return nil }, all},
		{"link of a down", func() error { return n.unplug(a) }, "bc cb"},
		{"a to b dropped", func() error { return n.oneWay(a, b) }, "ac bc ca cb"}, // TCP needs both ways
		{"a isolated", func() error { return n.isolate(a) }, "bc cb"},
		{"a and c cut, b sees both", func() error { return n.cut(a, c) }, "ab ba bc cb"},
	} {
		if err := fault.begin(); err != nil {
			t.Fatal(err)
		}
		var open []string
		for _, from := range n.hosts {
			for _, to := range n.hosts {
				if from != to && reaches(from, to) {
					open = append(open, from.name+to.name)
				}
			}
		}
		if got := strings.Join(open, " "); got != fault.open {
			t.Errorf("%s: open are %s, want %s", fault.name, got, fault.open)
		}
		if err := n.heal(); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, "healed", func() (bool, error) { return reaches(a, b) && reaches(b, c) && reaches(c, a), nil })
	}
}

// An established connection is cut too, and one way only.
func TestNetworkOneWay(t *testing.T) {
	n := newNetwork(t, 2)
	echo(t, n)
	a, b := n.hosts[0], n.hosts[1]
	conn, err := a.dial(context.Background(), "tcp", b.addr+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !answers(conn, rig.Patience) {
		t.Fatal("no answer at all")
	}
	pings := func(from, to *host) bool { // one packet each way
		return from.inside(func() error {
			c, err := net.Dial("udp", to.addr+":9")
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			_, err = c.Read(make([]byte, 1)) // "connection refused" comes as a packet back
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				return err
			}
			return nil
		}) == nil
	}
	if !pings(a, b) || !pings(b, a) {
		t.Fatal("no packets before the fault")
	}
	if err := n.oneWay(a, b); err != nil {
		t.Fatal(err)
	}
	if answers(conn, 300*time.Millisecond) {
		t.Error("an open connection answers although what it sends is dropped")
	}
	if pings(a, b) || pings(b, a) {
		t.Error("a round trip works although one way is cut")
	}
	// b's packets reach a: a counts them although its answers are dropped
	before := received(t, a)
	pings(b, a)
	rig.Eventually(t, "nothing of b reaches a", func() (bool, error) { return received(t, a) > before, nil })
}

// received counts the UDP packets for ports that nobody listens on.
func received(t *testing.T, h *host) int {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", h.space, "cat", "/proc/net/snmp").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if f[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i, name := range names {
			if name == "NoPorts" {
				count := 0
				fmt.Sscan(f[i], &count)
				return count
			}
		}
	}
	t.Fatal("no counter NoPorts")
	return 0
}

// A share of the packets is lost, and TCP lives with it.
func TestNetworkLoss(t *testing.T) {
	n := newNetwork(t, 2)
	echo(t, n)
	if err := n.lose(5); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	rig.Eventually(t, "connect", func() (ok bool, err error) {
		conn, err = n.hosts[0].dial(context.Background(), "tcp", n.hosts[1].addr+":7")
		return err == nil, err
	})
	defer conn.Close()
	for range 50 {
		if !answers(conn, rig.Patience) {
			t.Fatal("a connection with some loss must go on")
		}
	}
}

// Nothing is left behind.
func TestNetworkIsRemoved(t *testing.T) {
	var prefix string
	t.Run("one", func(t *testing.T) { prefix = newNetwork(t, 3).prefix })
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), prefix+"-") {
		t.Errorf("namespaces are left: %s", out)
	}
}
