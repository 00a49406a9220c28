package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/repair"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// live is three nodes with one shard each that really run, as the node does it:
// for the race detector, and for the loops around the steps.
type live struct {
	t     testing.TB
	tune  func(*shard.Options)   // may be nil
	large bool                   // files as a node has them, not small ones
	root  func(id uint64) string // data folder; nil: data
	mu    sync.Mutex
	nodes map[uint64]*liveNode // those that are up, by Raft id

	caughtUp atomic.Int64 // sessions that came to their end
}

type liveNode struct {
	id      uint64
	group   *shard.Group
	machine *partition.Machine
	mender  *repair.Mender
	stop    func()
}

func (l *live) node(id uint64) *liveNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[id]
}

// start runs a node until stop.
func (l *live) start(id uint64, disk vfs.FS) *liveNode {
	l.t.Helper()
	n := &liveNode{id: id}
	data := "data"
	if l.root != nil {
		data = l.root(id)
	}
	if err := vfs.MkdirSynced(disk, path.Join(data, "shards")); err != nil {
		l.t.Fatal(err)
	}
	segment, file, tail, checkpoint := int64(64<<10), int64(32<<10), int64(64<<10), int64(32<<10)
	if l.large {
		segment, file, tail, checkpoint = 64<<20, 64<<20, 8<<20, 64<<20
	}
	w, err := wal.Open(disk, path.Join(data, "wal"), wal.Options{SegmentSize: segment, Spares: 1})
	if err != nil {
		l.t.Fatal(err)
	}
	store, err := seglog.Open(disk, path.Join(data, "topics"), seglog.Options{SegmentSize: file, TailBytes: tail, Mend: l.newMender(n).Mend})
	if err != nil {
		l.t.Fatal(err)
	}
	var flusher *shard.Flusher
	n.machine = partition.New(partition.Options{
		Shard: 1, Store: store, FS: disk, Dir: path.Join(data, "shards/1/parked"), TailBytes: max(1<<20, tail),
		Wake:        func() { n.group.Wake() },
		WakeFlusher: func() { flusher.Wake() },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	behind := make(chan uint64, 1)
	o := shard.Options{
		ID: 1, RaftID: id, Dir: path.Join(data, "shards/1"), FS: disk, WAL: w, Machine: n.machine, Async: id != 2,
		CheckpointBytes: checkpoint, KeepBytes: -1, ChunkBytes: 4 << 10, Voters: []uint64{1, 2, 3},
		Send: func(m *pb.Message) {
			if to := l.node(m.GetTo()); to != nil {
				to.group.Receive(proto.Clone(m).(*pb.Message))
			}
		},
		Behind: func(leader uint64) {
			select {
			case behind <- leader:
			default:
			}
		},
	}
	if l.tune != nil {
		l.tune(&o)
	}
	n.group, err = shard.Open(o)
	if err != nil {
		l.t.Fatal(err)
	}
	flusher = shard.NewFlusher(shard.FlusherOptions{Store: store, WAL: w, Groups: []*shard.Group{n.group}, CheckpointBytes: checkpoint})
	walCtx, stopWAL := context.WithCancel(context.Background())
	walDone := make(chan error, 1)
	go func() { walDone <- w.Run(walCtx) }()
	for _, run := range []func(context.Context) error{n.group.Run, flusher.Run, n.mender.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				l.t.Errorf("node %d: %v", id, err)
			}
		})
	}
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case leader := <-behind:
				if err := n.group.CatchUp(ctx, leader, l); err != nil {
					l.t.Logf("node %d catches up: %v", id, err)
				} else {
					l.caughtUp.Add(1)
				}
			}
		}
	})
	n.stop = sync.OnceFunc(func() {
		l.mu.Lock()
		delete(l.nodes, id)
		l.mu.Unlock()
		cancel()
		running.Wait()
		n.machine.Close(errors.New("stopped"))
		stopWAL()
		if err := errors.Join(<-walDone, w.Close(), store.Close()); err != nil {
			l.t.Errorf("stop node %d: %v", id, err)
		}
	})
	l.mu.Lock()
	l.nodes[id] = n
	l.mu.Unlock()
	return n
}

// newMender makes what repairs a node's log.
func (l *live) newMender(n *liveNode) *repair.Mender {
	n.mender = repair.New(repair.Options{
		Network: l,
		Replica: func(uint32) repair.Replica { return repair.Of(n.machine) },
		Shard:   func(seglog.LogID) (uint32, bool) { return 1, true },
		Peers: func(uint32) []uint64 {
			return slices.DeleteFunc([]uint64{1, 2, 3}, func(id uint64) bool { return id == n.id })
		},
	})
	return n.mender
}

// Fetch implements repair.Network.
func (l *live) Fetch(ctx context.Context, id uint64, request []byte) (repair.Stream, error) {
	n := l.node(id)
	if n == nil {
		return nil, fmt.Errorf("node %d is not up", id)
	}
	s := &answer{chunks: make(chan []byte), err: make(chan error, 1), closed: make(chan struct{})}
	go func() {
		s.err <- n.mender.Serve(ctx, request, func(b []byte) error {
			select {
			case s.chunks <- bytes.Clone(b):
				return nil
			case <-s.closed:
				return context.Canceled
			}
		})
	}()
	return s, nil
}

// answer is a repair stream within the process.
type answer struct {
	chunks chan []byte
	err    chan error
	closed chan struct{}
}

// Next implements repair.Stream.
func (s *answer) Next() ([]byte, error) {
	select {
	case b := <-s.chunks:
		return b, nil
	case err := <-s.err:
		return nil, cmp.Or(err, io.EOF)
	}
}

// Close implements repair.Stream.
func (s *answer) Close() { close(s.closed) }

// source is a session within the process.
type source struct {
	chunks chan []byte
	err    chan error
	ended  chan bool
}

// Pull implements shard.Puller.
func (l *live) Pull(ctx context.Context, _ uint32, replica uint64, request []byte) (shard.Source, error) {
	n := l.node(replica)
	if n == nil {
		return nil, fmt.Errorf("replica %d is not up", replica)
	}
	s := &source{chunks: make(chan []byte), err: make(chan error, 1), ended: make(chan bool, 1)}
	go func() {
		s.err <- n.group.Serve(ctx, 3, request, func(b []byte) error {
			select {
			case s.chunks <- append([]byte(nil), b...):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, func() bool { return <-s.ended })
	}()
	return s, nil
}

// Next implements shard.Source.
func (s *source) Next(ctx context.Context) ([]byte, error) {
	select {
	case b := <-s.chunks:
		return b, nil
	case err := <-s.err:
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close implements shard.Source.
func (s *source) Close(installed bool) { s.ended <- installed }

func (l *live) leader() *liveNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		if n.group.Leader() {
			return n
		}
	}
	return nil
}

// until waits for a condition.
func (l *live) until(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("not in time: %s", what)
		}
	}
}

type published chan error

func (p published) Published(_ int64, err error) { p <- err }

// publish publishes some messages, one after the other, whoever leads.
func (l *live) publish(n int) {
	l.t.Helper()
	for range n {
		answer := make(published, 1)
		l.until("a leader takes a publish", func() bool {
			m := l.leader()
			return m != nil && m.machine.Publish(&partition.Publish{
				Topic: 7, Messages: []partition.Message{{Body: make([]byte, 700)}}, Done: answer,
			}) == nil
		})
		if err := <-answer; err != nil {
			l.t.Fatal(err)
		}
	}
}

func TestLive(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for elections")
	}
	l := &live{t: t, nodes: make(map[uint64]*liveNode)}
	disks := map[uint64]*vfs.Mem{1: vfs.NewMem(), 2: vfs.NewMem(), 3: vfs.NewMem()}
	for id, disk := range disks {
		defer l.start(id, disk).stop()
	}
	l.until("a leader", func() bool { return l.leader() != nil })
	if l.leader().id == 3 {
		if err := l.leader().group.TransferLeader(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		l.until("another leader", func() bool { n := l.leader(); return n != nil && n.id != 3 })
	}
	opened := make(chan error, 1)
	l.leader().machine.Do(partition.Open{Key: partition.Key{Topic: 7}}, func(err error) { opened <- err })
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	l.publish(50)
	l.node(3).stop()
	l.publish(400)
	back := l.start(3, disks[3])
	defer back.stop()
	l.publish(100)
	l.until("the third node catches up", func() bool {
		s := back.group.Status()
		return s.Applied > 0 && s.Applied >= l.leader().group.Status().Applied
	})
	if l.caughtUp.Load() == 0 {
		t.Error("it needed no session")
	}
	index, err := back.group.ReadIndex(t.Context())
	if err != nil || index < 550 {
		t.Errorf("read at %d: %v", index, err)
	}
	end := make(chan int64, 1)
	back.machine.Query(func(v *partition.View) {
		p, _ := v.Partition(partition.Key{Topic: 7})
		end <- p.End
	})
	if got := <-end; got != 550 {
		t.Errorf("it ends at %d", got)
	}
	if got := back.group.Status().CheckpointIndex; got == 0 {
		t.Error("it has no checkpoint")
	}
}

// A leader whose disk stalls hands over to a replica that is well, while the
// sync is still under way.
func TestStalledDiskHandsOver(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for a stall of more than two seconds")
	}
	l := &live{t: t, nodes: make(map[uint64]*liveNode)}
	disks := make(map[uint64]*vfs.Fault)
	for id := range uint64(4) {
		if id > 0 {
			disks[id] = vfs.NewFault(vfs.NewMem())
			defer l.start(id, disks[id]).stop()
		}
	}
	l.until("a leader", func() bool { return l.leader() != nil })
	was := l.leader()
	if was.id == 2 { // it takes the synchronous discipline, where all waits for the disk
		if err := was.group.TransferLeader(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		l.until("another leader", func() bool { n := l.leader(); return n != nil && n.id != 2 })
		was = l.leader()
	}
	opened := make(chan error, 1)
	was.machine.Do(partition.Open{Key: partition.Key{Topic: 7}}, func(err error) { opened <- err })
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	l.publish(5)
	for id := range disks {
		was.group.ReportLatency(id, time.Millisecond)
	}
	const stall = 8 * time.Second
	begun := time.Now()
	armed := disks[was.id].Add(vfs.Rule{Ops: vfs.OpSync, Path: "*.wal", Times: 1, Delay: stall})
	answer := make(published, 1)
	if err := was.machine.Publish(&partition.Publish{Topic: 7, Messages: []partition.Message{{Body: []byte("x")}}, Done: answer}); err != nil {
		t.Fatal(err)
	}
	l.until("another leads", func() bool { n := l.leader(); return n != nil && n != was })
	if armed.Hits() != 1 || time.Since(begun) > stall {
		t.Errorf("%d stalls, another leads after %v", armed.Hits(), time.Since(begun))
	}
	if err := <-answer; !errors.Is(err, shard.ErrUnknown) {
		t.Errorf("the publish under way is answered with %v", err)
	}
}

// Damage in the segments of nodes that run is mended by whoever reads it, on the
// leader as on the others, while publishing goes on.
func TestLiveRepair(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for elections")
	}
	l := &live{t: t, nodes: make(map[uint64]*liveNode)}
	disks := map[uint64]*vfs.Mem{1: vfs.NewMem(), 2: vfs.NewMem(), 3: vfs.NewMem()}
	for id, disk := range disks {
		defer l.start(id, disk).stop()
	}
	l.until("a leader", func() bool { return l.leader() != nil })
	opened := make(chan error, 1)
	key := partition.Key{Topic: 7}
	l.leader().machine.Do(partition.Open{Key: key}, func(err error) { opened <- err })
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	l.publish(300)
	for id, disk := range disks {
		var names []string
		l.until("there are some segments", func() bool {
			names, _ = disk.ReadDir("data/topics/7/0")
			return len(names) >= 4
		})
		if err := disk.Flip(path.Join("data/topics/7/0", names[id-1]), 2000, 3); err != nil { // each another one
			t.Fatal(err)
		}
	}
	l.publish(50)
	for id := range disks {
		n := l.node(id)
		log, err := repair.Of(n.machine).Log(t.Context(), key)
		if err != nil || log == nil {
			t.Fatal(err)
		}
		met := false
		l.until("the log is whole", func() bool {
			damage := read(t, log)
			met = met || damage != nil
			if damage != nil && !damage.Mending {
				t.Fatalf("node %d: %v, and nobody mends it: %+v", id, damage, n.mender.Stats())
			}
			return damage == nil
		})
		if !met {
			t.Errorf("node %d: no damage was met", id)
		}
		l.until("the mender knows of it", func() bool { s := n.mender.Stats(); return s.Repaired > 0 && s.Pending == 0 })
	}
}
