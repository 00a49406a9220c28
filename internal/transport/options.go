package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Options of a Transport. Zero values mean the default named beside the field.
type Options struct {
	Name        string // node name; must be the one in the certificate
	RaftID      uint64 // of this (node, disk) incarnation; not 0
	Boot        uint64 // drawn at random when the process started; not 0
	Cluster     string // cluster id; empty while the node has none, see SetCluster
	Credentials *Credentials

	// Listener accepts the peers; New opens one on Address when it is nil. Run
	// closes it.
	Listener net.Listener
	Address  string // host:port; port 0 takes a free one
	// Dial connects to a peer's address; default TCP.
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Logger *slog.Logger // default: discards

	// Receive takes a Raft message of a known peer. Messages of one class arrive
	// in order, classes beside each other. It must not block: the link waits.
	Receive func(from uint64, shard uint32, m *pb.Message)
	// OnUnreachable says that messages of a shard to a peer (its Raft id) were
	// lost, once for many; the shard tells its library (ReportUnreachable, and
	// ReportSnapshot when it waits for the end of a MsgSnap that nobody has
	// answered). It is called by goroutines of the transport, never within Send,
	// and must not block.
	OnUnreachable func(shard uint32, peer uint64)
	// Authorize lets a node that holds a good certificate and is no known peer
	// make calls and streams (class Calls or Bulk); an error says why not, and is
	// shown to that node. Nil lets nobody through.
	Authorize func(from From, class Class) error

	PingInterval     time.Duration // at least so often something is written; 500 ms
	DeadAfter        time.Duration // a link on which nothing comes for so long is dead; 2 s
	WriteTimeout     time.Duration // a link that takes nothing for so long is dead; 5 s
	HandshakeTimeout time.Duration // for dialing, TLS and hello together; 2 s
	BackoffMax       time.Duration // longest wait between two dials; 1 s
	IdleTimeout      time.Duration // unused bulk links and links to non-peers close; 30 s

	MaxFrameBytes  int // largest payload read, and said to the peer; 32 MiB
	MaxQueued      int // Raft messages that wait per peer and class; 4,096
	MaxQueuedBytes int // … and their bytes; 32 MiB
	MaxCalls       int // calls per peer that wait for their reply; 1,024
	MaxCallBytes   int // bytes of their requests, and of replies that wait; 64 MiB
	MaxStreams     int // streams per peer and direction; 16
	StreamWindow   int // bytes that a stream sends ahead of its reader; 4 MiB
	MaxInbound     int // accepted connections; 256
	MaxStrangers   int // addresses that are called without being peers; 64
}

// backoffMin is about the wait after the first failed dial.
const backoffMin = 50 * time.Millisecond

func (o *Options) fill() error {
	switch {
	case !ValidName(o.Name):
		return fmt.Errorf("build transport: %q is not a node name", o.Name)
	case o.RaftID == 0 || o.Boot == 0:
		return errors.New("build transport: Raft id and boot id are needed")
	case o.Credentials == nil:
		return errors.New("build transport: no certificate")
	case o.Credentials.Name() != o.Name:
		return fmt.Errorf("build transport: the certificate is for node %q, this is node %q", o.Credentials.Name(), o.Name)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if o.Receive == nil {
		o.Receive = func(uint64, uint32, *pb.Message) {}
	}
	if o.OnUnreachable == nil {
		o.OnUnreachable = func(uint32, uint64) {}
	}
	for d, def := range map[*time.Duration]time.Duration{
		&o.PingInterval: 500 * time.Millisecond, &o.DeadAfter: 2 * time.Second, &o.WriteTimeout: 5 * time.Second,
		&o.HandshakeTimeout: 2 * time.Second, &o.BackoffMax: time.Second, &o.IdleTimeout: 30 * time.Second,
	} {
		if *d <= 0 {
			*d = def
		}
	}
	for n, def := range map[*int]int{
		&o.MaxFrameBytes: 32 << 20, &o.MaxQueued: 4096, &o.MaxQueuedBytes: 32 << 20, &o.MaxCalls: 1024,
		&o.MaxCallBytes: 64 << 20, &o.MaxStreams: 16, &o.StreamWindow: 4 << 20, &o.MaxInbound: 256, &o.MaxStrangers: 64,
	} {
		if *n <= 0 {
			*n = def
		}
	}
	o.MaxFrameBytes = min(max(o.MaxFrameBytes, maxHello), math.MaxInt32)
	o.StreamWindow = min(o.StreamWindow, math.MaxInt32)
	return nil
}
