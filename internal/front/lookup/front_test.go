package lookup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func request(f *Front, line string) (int, string) {
	method, path, _ := strings.Cut(line, " ")
	w := httptest.NewRecorder()
	f.handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

// What is registered has a bound, and what is refused because of it changes
// nothing.
func TestNamesHaveABound(t *testing.T) {
	f := New(Options{MaxNames: 3})
	p := &producer{id: "1", Peer: Peer{BroadcastAddress: "h", TCPPort: 1, HTTPPort: 2}}
	r := f.registry
	r.join(p)
	for _, n := range []struct {
		topic, channel string
		want           error
	}{{"a", "x", nil}, {"b", "y", errFull}, {"b", "", nil}, {"c", "", errFull}, {"a", "y", errFull}, {"a", "x", nil}} {
		if err := r.register(p, n.topic, n.channel); !errors.Is(err, n.want) {
			t.Fatalf("%s %s: %v", n.topic, n.channel, err)
		}
	}
	for _, path := range []string{"/topic/create?topic=c", "/channel/create?topic=b&channel=y"} {
		if code, body := request(f, "POST "+path); code != http.StatusServiceUnavailable || !strings.Contains(body, "OVERLOADED") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	r.dropChannel("a", "x")
	r.dropTopic("a")
	r.dropTopic("b")
	if r.names != 0 || len(r.topics) != 0 {
		t.Errorf("%d names, %d topics", r.names, len(r.topics))
	}
	if err := r.register(p, "a", "x"); err != nil {
		t.Error(err)
	}
}

// A producer is listed up to its timeout, and a tombstone stands for its
// lifetime.
func TestTimesToTheLast(t *testing.T) {
	now := time.Unix(1000, 0)
	f := New(Options{Clock: func() time.Time { return now }, InactiveTimeout: 10 * time.Second, TombstoneLifetime: 5 * time.Second})
	p := &producer{id: "1", Peer: Peer{BroadcastAddress: "h", TCPPort: 1, HTTPPort: 2}}
	f.registry.join(p)
	if err := f.registry.register(p, "a", ""); err != nil {
		t.Fatal(err)
	}
	f.tombstone(t.Context(), "a", "h:2")
	for _, step := range []struct {
		after  time.Duration
		topics int // producers of the topic
		nodes  int
	}{{0, 0, 1}, {5*time.Second - 1, 0, 1}, {5 * time.Second, 1, 1}, {10 * time.Second, 1, 1}, {10*time.Second + 1, 0, 0}} {
		now = time.Unix(1000, 0).Add(step.after)
		peers, _ := f.producers("a")
		if len(peers) != step.topics || len(f.nodes()) != step.nodes {
			t.Errorf("after %s: %d producers, %d nodes", step.after, len(peers), len(f.nodes()))
		}
	}
	f.registry.ping(p)
	if peers, _ := f.producers("a"); len(peers) != 1 {
		t.Error("a ping does not bring it back")
	}
}

// fakeCatalog is one topic on one node.
type fakeCatalog struct{ nothing }

var ownPeer = Peer{BroadcastAddress: "::1", TCPPort: 1, HTTPPort: 2}

func (fakeCatalog) Topics() []string { return []string{"own"} }
func (fakeCatalog) Nodes() []Peer    { return []Peer{ownPeer} }
func (fakeCatalog) Topic(name string) (Topic, bool) {
	return Topic{Channels: []string{"c"}, Nodes: []Peer{ownPeer}}, name == "own"
}

func (fakeCatalog) CreateTopic(ctx context.Context, _ string) error { return ctx.Err() }

// Tombstones of our own nodes end, are let go of, and name IPv6 addresses in
// either way.
func TestTombstonesOfOurOwn(t *testing.T) {
	for _, node := range []string{"::1:2", "[::1]:2"} {
		now := time.Unix(1000, 0)
		f := New(Options{Catalog: fakeCatalog{}, Clock: func() time.Time { return now }})
		if n := f.tombstone(t.Context(), "own", node); n != 1 || !f.Tombstoned("own", ownPeer) || f.Tombstoned("other", ownPeer) {
			t.Fatalf("%s: %d", node, n)
		}
		if peers, ok := f.producers("own"); !ok || len(peers) != 0 {
			t.Errorf("%v %v", peers, ok)
		}
		now = now.Add(45 * time.Second)
		if f.Tombstoned("own", ownPeer) {
			t.Error("it stands for ever")
		}
		if peers, _ := f.producers("own"); len(peers) != 1 {
			t.Errorf("%v", peers)
		}
		f.registry.hide("more", &ownPeer, 0)
		if len(f.registry.hidden) != 1 {
			t.Errorf("%d tombstones are kept", len(f.registry.hidden))
		}
	}
}

func TestCreationThatFails(t *testing.T) {
	f := New(Options{Catalog: fakeCatalog{}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	f.handler().ServeHTTP(w, httptest.NewRequest("POST", "/topic/create?topic=a", nil).WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "TIMEOUT") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Run ends while nsqds are connected, and with listeners that are busy.
func TestRunEnds(t *testing.T) {
	var o Options
	for _, l := range []*net.Listener{&o.TCP, &o.HTTP} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	f := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	nc, err := net.Dial("tcp", o.TCP.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, magic+"PING\n")
	if reply, err := readReply(nc); err != nil || string(reply) != "OK" {
		t.Fatal(reply, err)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if _, err := readReply(nc); err == nil {
		t.Error("the connection stays")
	}
}

// FuzzConn: no client can break the protocol, and what it has registered goes
// with it.
func FuzzConn(f *testing.F) {
	identify := func(body string) string { return "IDENTIFY\n" + string([]byte{0, 0, 0, byte(len(body))}) + body }
	self := identify(`{"broadcast_address":"b","tcp_port":1,"http_port":2,"version":"v"}`)
	f.Add([]byte(magic + "PING\n"))
	f.Add([]byte(magic + self + "REGISTER a b\nREGISTER c\nUNREGISTER a b\nUNREGISTER c\nREGISTER d#ephemeral e#ephemeral\nUNREGISTER d#ephemeral\n"))
	f.Add([]byte(magic + "IDENTIFY\n\xff\xff\xff\xff"))
	f.Add([]byte(magic + identify("null")))
	f.Add([]byte(magic + self + "REGISTER " + strings.Repeat("x", 70) + "\n"))
	f.Add([]byte("  V2"))
	f.Fuzz(func(t *testing.T, input []byte) {
		front := New(Options{MaxNames: 10})
		front.serveBytes(input)
		r := front.registry
		names := 0
		for name, entry := range r.topics {
			if len(entry.producers) > 0 {
				t.Errorf("%s has producers", name)
			}
			for channel, at := range entry.channels {
				if len(at) > 0 {
					t.Errorf("%s %s has producers", name, channel)
				}
				names++
			}
			if entry.there {
				names++
			}
		}
		if names != r.names || names > 10 || len(r.producers) > 0 {
			t.Errorf("%d names, %d counted, %d producers", names, r.names, len(r.producers))
		}
	})
}

// bytesConn is a client that has sent all it will.
type bytesConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *bytesConn) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *bytesConn) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// serveBytes serves what a client has sent.
func (f *Front) serveBytes(input []byte) string {
	c := &bytesConn{in: bytes.NewReader(input)}
	newConn(f, c).run()
	return c.out.String()
}

func BenchmarkLookup(b *testing.B) {
	f := New(Options{})
	for i := range 50 {
		p := &producer{id: fmt.Sprint(i), Peer: Peer{BroadcastAddress: fmt.Sprint("host", i), TCPPort: 1, HTTPPort: 2}}
		f.registry.join(p)
		for j := range 200 {
			if err := f.registry.register(p, fmt.Sprint("t", j), "c"); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		if code, _ := request(f, "GET /lookup?topic=t7"); code != 200 {
			b.Fatal(code)
		}
	}
}
