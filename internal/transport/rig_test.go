package transport

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// rig is some transports in one process, over memory or over loopback TCP.
type rig struct {
	t         testing.TB
	authority *Authority
	net       *memNet // nil: loopback
	nodes     map[string]*node
	ids       uint64
}

// node is a transport with what came to it.
type node struct {
	*Transport
	o    Options
	log  *safeLog
	stop func()

	mu     sync.Mutex
	got    []received
	lost   map[lostTo]int
	hold   chan struct{} // when not nil, Receive waits for it
	onRaft func(m *pb.Message)
}

type received struct {
	from  uint64
	shard uint32
	m     *pb.Message
}

type lostTo struct {
	shard uint32
	peer  uint64
}

type safeLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *safeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newRig(t testing.TB, memory bool) *rig {
	t.Helper()
	r := &rig{t: t, authority: newAuthority(t), nodes: make(map[string]*node)}
	if memory {
		r.net = newMemNet()
	}
	return r
}

func newAuthority(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority(time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// credentials of a node that are good for a day.
func credentials(t testing.TB, a *Authority, name string, begins time.Time) *Credentials {
	t.Helper()
	ca, _, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue(name, []string{"localhost", "127.0.0.1"}, begins, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCredentials(ca, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start builds and runs a node; change may be nil.
func (r *rig) start(name string, change func(*Options)) *node {
	r.t.Helper()
	r.ids++
	n := &node{log: &safeLog{}, lost: make(map[lostTo]int)}
	n.o = Options{
		Name: name, RaftID: r.ids, Boot: 1000 + r.ids, Cluster: "c1", Address: "127.0.0.1:0",
		Logger:        slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Receive:       n.receive,
		OnUnreachable: n.unreachable,
	}
	if r.net != nil {
		n.o.Listener, n.o.Dial = r.net.listen(name), r.net.dialer(name)
	}
	if change != nil {
		change(&n.o)
	}
	if n.o.Credentials == nil {
		n.o.Credentials = credentials(r.t, r.authority, n.o.Name, time.Now())
	}
	tr, err := New(n.o)
	if err != nil {
		r.t.Fatal(err)
	}
	n.Transport = tr
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			n.release()
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("node %s: %v", name, err)
			}
		})
	}
	r.t.Cleanup(func() {
		n.stop()
		if r.t.Failed() {
			r.t.Logf("log of %s:\n%s", name, n.log)
		}
	})
	r.nodes[name] = n
	return n
}

// meet makes all running nodes each other's peers.
func (r *rig) meet() {
	r.t.Helper()
	var peers []Peer
	for _, n := range r.nodes {
		peers = append(peers, n.peer())
	}
	for _, n := range r.nodes {
		if err := n.SetPeers(peers); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (n *node) peer() Peer { return Peer{n.o.RaftID, n.o.Name, n.Addr().String()} }

func (n *node) receive(from uint64, shard uint32, m *pb.Message) {
	n.mu.Lock()
	hold, onRaft := n.hold, n.onRaft
	n.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if onRaft != nil {
		onRaft(m)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, received{from, shard, m})
}

func (n *node) unreachable(shard uint32, peer uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[lostTo{shard, peer}]++
}

// block makes Receive wait until release.
func (n *node) block() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hold = make(chan struct{})
}

func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hold != nil {
		close(n.hold)
		n.hold = nil
	}
}

func (n *node) all() []received {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]received(nil), n.got...)
}

func (n *node) losses(shard uint32, peer uint64) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost[lostTo{shard, peer}]
}

func (n *node) link(peer *node, c Class) LinkStats {
	for _, s := range n.Stats() {
		if s.ID == peer.o.RaftID {
			return s.Links[c]
		}
	}
	return LinkStats{}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func heartbeat(from, to *node, commit uint64) *pb.Message {
	return &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: &from.o.RaftID, To: &to.o.RaftID, Term: new(uint64(3)), Commit: &commit}
}

// app is a MsgApp with entries whose data has these sizes.
func app(from, to *node, index uint64, sizes ...int) *pb.Message {
	m := &pb.Message{
		Type: pb.MsgApp.Enum(), From: &from.o.RaftID, To: &to.o.RaftID,
		Term: new(uint64(3)), LogTerm: new(uint64(2)), Index: &index, Commit: new(index / 2),
	}
	for i, size := range sizes {
		m.Entries = append(m.Entries, &pb.Entry{
			Term: new(uint64(3)), Index: new(index + uint64(i) + 1), Data: bytes.Repeat([]byte{byte(index), byte(i)}, size/2),
		})
	}
	return m
}

// echo registers the methods that the tests call.
const (
	methodEcho Method = 1 + iota
	methodFail
	methodWait
	methodOrder
	methodCount
	methodFrom
)

func (n *node) serveEcho() {
	n.Handle(methodEcho, func(_ context.Context, _ From, b []byte) ([]byte, error) { return b, nil })
	n.Handle(methodFrom, func(_ context.Context, f From, _ []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%d %s %d %s %v", f.ID, f.Name, f.Boot, f.Cluster, f.Known), nil
	})
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
