package compat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second // how long a row waits for what must come

var serial atomic.Int64

// unique returns a topic name that no other row and no earlier run uses.
func unique() string {
	return fmt.Sprintf("compat_%d_%d", time.Now().UnixNano()%1e12, serial.Add(1))
}

const heartbeat = "0:_heartbeat_"

// frame is one frame from the server.
type frame struct {
	kind int32
	data []byte
}

func (f frame) String() string {
	if f.kind == 2 && len(f.data) >= 26 {
		return fmt.Sprintf("2:%s", f.data[26:])
	}
	return fmt.Sprintf("%d:%s", f.kind, f.data)
}

// talk is one row's conversation. Step text may hold $t (the row's topic), $i
// (id of the last message received) and $j (the one before it).
type talk struct {
	t     *testing.T
	tcp   string
	http  string
	topic string
	ids   []string
	conn  net.Conn
	main  net.Conn // the row's own connection while conn is another one
	last  frame
}

func (k *talk) expand(s string) string {
	id := func(back int) string {
		if len(k.ids) < back {
			return "-no-message-yet-"
		}
		return k.ids[len(k.ids)-back]
	}
	return strings.NewReplacer("$t", k.topic, "$i", id(1), "$j", id(2)).Replace(s)
}

func (k *talk) dial() net.Conn {
	k.t.Helper()
	conn, err := net.Dial(network(k.tcp), k.tcp)
	if err != nil {
		k.t.Fatalf("dial: %v", err)
	}
	k.t.Cleanup(func() { conn.Close() })
	return conn
}

// network is that of a server's address: a path is a unix socket.
func network(addr string) string {
	if strings.Contains(addr, "/") {
		return "unix"
	}
	return "tcp"
}

func (k *talk) write(s string) {
	k.t.Helper()
	k.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.conn, s); err != nil {
		k.t.Fatalf("write: %v", err)
	}
}

// read returns the next frame. Heartbeats are given out too.
func (k *talk) read() (frame, error) {
	k.conn.SetReadDeadline(time.Now().Add(patience))
	var head [8]byte
	if _, err := io.ReadFull(k.conn, head[:]); err != nil {
		return frame{}, err
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if size < 4 || size > 64<<20 {
		return frame{}, fmt.Errorf("frame size %d", size)
	}
	f := frame{kind: int32(binary.BigEndian.Uint32(head[4:])), data: make([]byte, size-4)}
	_, err := io.ReadFull(k.conn, f.data)
	if f.kind == 2 && len(f.data) >= 26 {
		k.ids = append(k.ids, string(f.data[10:26]))
	}
	k.last = f
	return f, err
}

func (k *talk) wantFrame(want string) {
	k.t.Helper()
	want = k.expand(want)
	f, err := k.read()
	for err == nil && f.String() == heartbeat && want != heartbeat { // on a slow machine
		f, err = k.read()
	}
	if err != nil {
		k.t.Fatalf("want frame %q, got %v", want, err)
	}
	if f.String() != want {
		k.t.Fatalf("want frame %q\n      got %q", want, f)
	}
}

// step is one line of a row.
type step func(*talk)

// row is one rule: its name and the conversation that shows it.
type row struct {
	name  string
	steps []step
}

func rule(name string, steps ...step) row { return row{name, steps} }

// differs marks a deliberate difference (nsq-compat.md section 9): the steps
// on a real nsqd, and ours.
func differs(why string, nsqd, ours []step) step {
	return func(k *talk) {
		k.t.Helper()
		k.t.Logf("deliberate difference: %s", why)
		steps := ours
		if againstNSQD() {
			steps = nsqd
		}
		for _, s := range steps {
			s(k)
		}
	}
}

func runRows(t *testing.T, rows []row) {
	tcp, http := startServer(t)
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.name] {
			t.Errorf("two rows are named %q", r.name)
		}
		seen[r.name] = true
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			k := &talk{t: t, tcp: tcp, http: http, topic: unique()}
			k.conn = k.dial()
			k.main = k.conn
			for _, s := range r.steps {
				s(k)
			}
		})
	}
}

// --- steps

// hello opens the protocol.
func hello(k *talk) { k.t.Helper(); k.write("  V2") }

// send writes text, expanded.
func send(s string) step { return func(k *talk) { k.t.Helper(); k.write(k.expand(s)) } }

// raw writes text as it is.
func raw(s string) step { return func(k *talk) { k.t.Helper(); k.write(s) } }

// half closes our writing side.
func half(k *talk) {
	k.t.Helper()
	if err := k.conn.(*net.TCPConn).CloseWrite(); err != nil {
		k.t.Fatal(err)
	}
}

func resp(s string) step  { return func(k *talk) { k.t.Helper(); k.wantFrame("0:" + s) } }
func fails(s string) step { return func(k *talk) { k.t.Helper(); k.wantFrame("1:" + s) } }
func msg(body string) step {
	return func(k *talk) { k.t.Helper(); k.wantFrame("2:" + body) }
}

func ok(k *talk) { k.t.Helper(); resp("OK")(k) }

// attempts checks the attempt count of the last message.
func attempts(n uint16) step {
	return func(k *talk) {
		k.t.Helper()
		if got := binary.BigEndian.Uint16(k.last.data[8:]); got != n {
			k.t.Fatalf("attempts: want %d, got %d", n, got)
		}
	}
}

// closed wants the connection to end without a further frame.
func closed(k *talk) {
	k.t.Helper()
	f, err := k.read()
	if err == nil {
		k.t.Fatalf("want the connection closed, got frame %q", f)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		k.t.Fatalf("want the connection closed, it stays open")
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		k.t.Fatalf("want the connection closed, got %v", err)
	}
}

// open proves that the connection still works.
func open(k *talk) {
	k.t.Helper()
	k.write("PUB " + k.topic + "_probe\n" + sized("x"))
	ok(k)
}

// quiet wants no frame for a while.
func quiet(d time.Duration) step {
	return func(k *talk) {
		k.t.Helper()
		k.conn.SetReadDeadline(time.Now().Add(d))
		var b [1]byte
		n, err := k.conn.Read(b[:])
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			k.t.Fatalf("want silence, got %d bytes, %v", n, err)
		}
	}
}

// other continues on a further connection of the same row; mine goes back.
func other(k *talk) { k.t.Helper(); k.conn = k.dial() }
func mine(k *talk)  { k.conn = k.main }

// identify sends IDENTIFY with a JSON body.
func identify(body string) step { return send("IDENTIFY\n" + sized(body)) }

// publish publishes one message on the row's topic over HTTP.
func publish(body string) step {
	return func(k *talk) {
		k.t.Helper()
		request("POST /pub?topic=$t", body, 200, "OK")(k)
	}
}

// subscribed is the usual opening of a consumer with one message in flight.
func consuming(body string) []step {
	return []step{hello, send("SUB $t c\n"), ok, send("RDY 1\n"), publish(body), msg(body)}
}

func join(parts ...any) []step {
	var out []step
	for _, p := range parts {
		switch p := p.(type) {
		case []step:
			out = append(out, p...)
		case step:
			out = append(out, p)
		case func(*talk):
			out = append(out, p)
		default:
			panic(fmt.Sprintf("step of type %T", p))
		}
	}
	return out
}

// --- bytes

func be32(n int) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return string(b[:])
}

func sized(s string) string { return be32(len(s)) + s }

// multi is the part of an MPUB after the body length.
func multi(bodies ...string) string {
	var b bytes.Buffer
	b.WriteString(be32(len(bodies)))
	for _, s := range bodies {
		b.WriteString(sized(s))
	}
	return b.String()
}

// TestMain runs many rows at once: most of their time they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
