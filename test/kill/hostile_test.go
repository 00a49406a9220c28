//go:build linux

package kill

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// hostileMemory bounds what harm may cost: the front's budget for bodies, the
// tail, the sockets' buffers, and the garbage that a collector leaves.
const hostileMemory = 320 << 20

// Clients that mean harm: the node stays up, goes on serving, and its memory
// stays bounded.
func TestHostileClients(t *testing.T) {
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	n.createChannel(t, "bulk", "slow")
	n.createChannel(t, "orders", "c")
	fillBulk(t, n)
	rng := rand.New(rand.NewPCG(seed(t), 3))
	var harm sync.WaitGroup
	var held []net.Conn
	open := func(opening string) net.Conn {
		conn, err := net.Dial("tcp", n.Addrs.TCP)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		io.WriteString(conn, opening)
		return conn
	}
	for i := range 40 { // random bytes, with and without the protocol's opening
		noise := make([]byte, 64<<10)
		for j := range noise {
			noise[j] = byte(rng.Uint32())
		}
		conn := open([]string{"", "  V2"}[i%2])
		harm.Go(func() { push(conn, noise) })
	}
	for _, s := range impossible() {
		open("  V2" + s)
	}
	half := string(make([]byte, 500<<10))
	for range 100 { // half a body each, and nothing more
		conn := open("  V2PUB orders\n" + be32(1000<<10))
		harm.Go(func() { push(conn, []byte(half)) })
	}
	endless := []byte(strings.Repeat("x", 4<<20))
	for range 5 {
		tcp, web := open("  V2"), mustDialHTTP(t, n, &held)
		harm.Go(func() { push(tcp, endless) })
		harm.Go(func() { push(web, append([]byte("GET /stats?format="), endless...)) })
		header := mustDialHTTP(t, n, &held)
		harm.Go(func() { push(header, append([]byte("GET /ping HTTP/1.1\r\nX: "), endless...)) })
		body := mustDialHTTP(t, n, &held)
		harm.Go(func() {
			push(body, []byte("POST /pub?topic=orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"))
			for range 16 {
				push(body, append([]byte("100000\r\n"), append(endless[:1<<20:1<<20], '\r', '\n')...))
			}
		})
	}
	for range 30 { // consumers that do not read
		open("  V2SUB bulk slow\nRDY 2500\n")
	}
	for range 10 { // publishers that do not read their answers
		conn := open("  V2")
		harm.Go(func() { push(conn, []byte(strings.Repeat("PUB orders\n"+be32(100)+half[:100], 50000))) })
	}
	harm.Wait()
	stillServes(t, n)
	for _, conn := range held {
		conn.Close()
	}
	stillServes(t, n)
	peak, err := n.Memory("VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	if peak > hostileMemory {
		t.Errorf("the node's memory went up to %d MiB, want at most %d MiB", peak>>20, hostileMemory>>20)
	}
	fmt.Printf("figure: %d hostile connections: the node serves on, at most %d MiB resident\n", len(held), peak>>20)
}

// fillBulk queues 64 MiB for the consumers that do not read.
func fillBulk(t *testing.T, n *node) {
	t.Helper()
	c := n.MustDial(t)
	for range 64 {
		if err := c.PublishMany("bulk", rig.Filling(256<<10), rig.Filling(256<<10), rig.Filling(256<<10), rig.Filling(256<<10)); err != nil {
			t.Fatal(err)
		}
	}
}

// impossible are commands with lengths and counts that lie.
func impossible() []string {
	var out []string
	for _, n := range []uint32{0x7fffffff, 0x80000000, 0xffffffff, 0, 5<<20 + 1, 1<<20 + 1} {
		b := string(binary.BigEndian.AppendUint32(nil, n))
		out = append(out, "IDENTIFY\n"+b, "AUTH\n"+b, "PUB orders\n"+b, "DPUB orders 10\n"+b, "MPUB orders\n"+b,
			"MPUB orders\n"+be32(4<<20)+b, "MPUB orders\n"+be32(4<<20)+be32(2)+b)
	}
	return out
}

func be32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

func mustDialHTTP(t *testing.T, n *node, held *[]net.Conn) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addrs.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	*held = append(*held, conn)
	return conn
}

// push writes until all is written, the node closes, or takes no more for a
// while: that it stops reading is one good answer.
func push(conn net.Conn, b []byte) {
	for len(b) > 0 {
		conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		n, err := conn.Write(b)
		b = b[n:]
		slow := n > 0 && errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !slow {
			return
		}
	}
}

// stillServes publishes and consumes on a topic of its own.
func stillServes(t *testing.T, n *node) {
	t.Helper()
	n.createChannel(t, "own", "c")
	mustPublish(t, n.MustDial(t), "own", []byte("still here"))
	expectBodies(t, n.drain(t, "own", "c"), []string{"still here"})
	if status, text, err := n.Get("/ping"); err != nil || status != 200 || text != "OK" {
		t.Errorf("/ping: %d %q %v", status, text, err)
	}
}

// A full disk: publishing stops with a clear error, what is there can be
// consumed or emptied, and then publishing goes on, all in one process.
func TestDiskFull(t *testing.T) {
	dir := smallVolume(t, "256m")
	n := newNode(plainBinary(t), dir, "--checkpoint-age", "500ms")
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	sent := fill(t, n)
	refusals(t, n)

	t.Log("consume what is there")
	got := n.drain(t, "orders", "c")
	expectBodies(t, got, sent)
	publishes(t, n, "after all is consumed")
	if b := n.drain(t, "orders", "c"); len(b) == 0 {
		t.Error("what was published then does not come")
	}

	t.Log("empty it")
	again := fill(t, n)
	n.MustPost(t, "/channel/empty?topic=orders&channel=c", nil)
	publishes(t, n, "after the channel was emptied")
	n.drain(t, "orders", "c")

	t.Log("kill it while the disk is full")
	last := fill(t, n)
	n.Kill()
	n.MustStart(t)
	expectBodies(t, n.drain(t, "orders", "c"), last)
	publishes(t, n, "after a restart on a full disk")
	fmt.Printf("figure: disk full: publishing stopped at %d, %d and %d messages of 32 KiB on 256 MiB, and resumed each time\n", len(sent), len(again), len(last))
}

// Somebody else fills the volume to the last byte: publishing stops, what is
// there can be consumed, and when there is room again publishing goes on. The
// log's spare segments are what the answers of the consumers are written to.
func TestVolumeFilledByOthers(t *testing.T) {
	dir := smallVolume(t, "256m")
	n := newNode(plainBinary(t), dir, "--checkpoint-age", "200ms")
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	bodies := numbered(0, 2000, 32<<10)
	c := n.MustDial(t)
	for _, b := range bodies {
		mustPublish(t, c, "orders", []byte(b))
	}
	hog := filepath.Join(dir, "hog")
	fillUp(t, hog)
	rig.Eventually(t, "publishing does not stop", func() (bool, error) {
		err := n.MustDial(t).Publish("other", []byte("x"))
		return err != nil && strings.Contains(err.Error(), "disk reserve reached"), err
	})
	fillUp(t, hog)
	refusals(t, n)
	expectBodies(t, n.drain(t, "orders", "c"), bodies)
	// What is finished is on disk 10 ms later, or with the next command of its
	// shard: the kill must not come before that.
	n.MustPost(t, "/topic/pause?topic=orders", nil)
	n.MustPost(t, "/topic/unpause?topic=orders", nil)
	fillUp(t, hog)
	n.Kill()
	n.MustStart(t) // on a volume without a free byte
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	publishes(t, n, "after the volume was freed")
	expectBodies(t, n.drain(t, "orders", "c")[:1], []string{"again"})
}

// fillUp writes to a file until the volume takes no more.
func fillUp(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(rig.Filling(min(size, rig.BodyMax))); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// smallVolume mounts a tmpfs for the test.
func smallVolume(t *testing.T, size string) string {
	t.Helper()
	dir := dataDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small tmpfs: %v (this test needs root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill publishes until the reserve is reached, and stays reached although the
// node does what it can to free space; it returns what was accepted.
func fill(t *testing.T, n *node) []string {
	t.Helper()
	c := n.MustDial(t)
	var sent []string
	var refusedSince time.Time
	for refusedSince.IsZero() || time.Since(refusedSince) < 2*time.Second {
		b := numbered(len(sent), len(sent)+1, 32<<10)
		err := c.Publish("orders", []byte(b[0]))
		if err == nil {
			refusedSince = time.Time{}
			if sent = append(sent, b[0]); len(sent) > 8192 {
				t.Fatal("256 MiB are queued on a volume of 256 MiB")
			}
			continue
		}
		if !strings.Contains(err.Error(), "E_PUB_FAILED") || !strings.Contains(err.Error(), "disk reserve reached") {
			t.Fatalf("publish %d: %v", len(sent), err)
		}
		if refusedSince.IsZero() {
			refusedSince = time.Now()
		}
		c.Close()
		c = n.MustDial(t)
	}
	return sent
}

// refusals checks each way of publishing on a full disk.
func refusals(t *testing.T, n *node) {
	t.Helper()
	for code, try := range map[string]func(*rig.Wire) error{ // each refusal closes its connection, as nsqd's does
		"E_PUB_FAILED":  func(c *rig.Wire) error { return c.Publish("orders", []byte("x")) },
		"E_MPUB_FAILED": func(c *rig.Wire) error { return c.PublishMany("orders", []byte("x"), []byte("y")) },
		"E_DPUB_FAILED": func(c *rig.Wire) error {
			c.W.WriteString("DPUB orders 100\n")
			c.Sized([]byte("x"))
			_, err := c.Ask()
			return err
		},
	} {
		if err := try(n.MustDial(t)); err == nil || !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), "disk reserve reached") {
			t.Errorf("want %s ... disk reserve reached, got %v", code, err)
		}
	}
	for path, want := range map[string]string{"/pub?topic=orders": "DISK_RESERVE", "/mpub?topic=orders": "DISK_RESERVE"} {
		if status, text, err := n.Post(path, []byte("x")); err != nil || status != 503 || !strings.Contains(text, want) {
			t.Errorf("%s: want 503 %s, got %d %s %v", path, want, status, text, err)
		}
	}
	if status, text, err := n.Get("/ping"); err != nil || status != 500 || !strings.Contains(text, "disk reserve reached") {
		t.Errorf("/ping: want 500 ... disk reserve reached, got %d %s %v", status, text, err)
	}
}

// publishes waits until a publish is accepted again.
func publishes(t *testing.T, n *node, when string) {
	t.Helper()
	rig.Eventually(t, "publishing does not resume "+when, func() (bool, error) {
		err := n.MustDial(t).Publish("orders", []byte("again"))
		return err == nil, err
	})
	if status, text, err := n.Get("/ping"); err != nil || status != 200 {
		t.Errorf("/ping %s: %d %s %v", when, status, text, err)
	}
}
