package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/vfs"
)

const shardOfTest = 3

var testLog = seglog.LogID{Topic: 77, Partition: 2}

// node is one replica: a store with one log, and its mender.
type node struct {
	t      *testing.T
	fs     *vfs.Mem
	log    *seglog.Log
	mender *Mender
	mu     sync.Mutex // of the flusher's work
	closed bool       // the partition is not open here
	peers  []uint64
}

// rig is some replicas, the first of which is looked at, and a network.
type rig struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[uint64]*node
	down  map[uint64]bool
	// twist changes the chunks on their way; nil: they come as they are.
	twist func(chunks [][]byte) [][]byte
	asked []uint64
}

// batch is one of two records.
func batch(base int64) seglog.Batch {
	var b record.Builder
	b.Begin(nil, 1_700_000_000_000)
	for i := range 2 {
		b.Add(&record.Message{Value: bytes.Repeat([]byte{byte(base), byte(i)}, 60)})
	}
	data := b.Finish()
	return seglog.Batch{Base: base, Count: 2, Index: uint64(base)/2 + 5, Epoch: 1, TimeNs: 10 + base, Data: data}
}

func newRig(t *testing.T, replicas int) *rig {
	t.Helper()
	r := &rig{t: t, nodes: make(map[uint64]*node), down: make(map[uint64]bool)}
	for id := uint64(1); id <= uint64(replicas); id++ {
		n := &node{t: t, fs: vfs.NewMem()}
		for other := uint64(1); other <= uint64(replicas); other++ {
			if other != id {
				n.peers = append(n.peers, other)
			}
		}
		n.mender = New(Options{
			Network: r,
			Replica: func(shard uint32) Replica {
				if shard != shardOfTest {
					return nil
				}
				return n
			},
			Shard: func(id seglog.LogID) (uint32, bool) { return shardOfTest, id == testLog },
			Peers: func(uint32) []uint64 { return n.peers },
		})
		n.write()
		r.nodes[id] = n
	}
	return r
}

func (r *rig) first() *node { return r.nodes[1] }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// records is how many offsets each log has.
const records = 200

// write makes the log, in segments of about ten batches, and opens it anew.
func (n *node) write() {
	n.t.Helper()
	check(n.t, n.fs.MkdirAll("data"))
	open := func() *seglog.Store {
		s, err := seglog.Open(n.fs, "data/topics", seglog.Options{SegmentSize: 4096, TailBytes: 2048, Mend: n.mender.Mend})
		check(n.t, err)
		return s
	}
	l := open().New(testLog, 0)
	for base := int64(0); base < records; base += 2 {
		l.Append(batch(base))
	}
	state, err := l.Checkpoint(500, 0)
	check(n.t, err)
	n.log, err = open().Restore(testLog, state)
	check(n.t, err)
}

// segments are the files of the log.
func (n *node) segments() []string {
	n.t.Helper()
	names, err := n.fs.ReadDir("data/topics/77/2")
	check(n.t, err)
	for i := range names {
		names[i] = "data/topics/77/2/" + names[i]
	}
	return names
}

func (n *node) Log(context.Context, partition.Key) (*seglog.Log, error) {
	if n.closed {
		return nil, nil
	}
	return n.log, nil
}

func (n *node) Repair(_ context.Context, k partition.Key, first, last int64, batches []seglog.Batch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k != (partition.Key{Topic: 77, Partition: 2}) {
		return fmt.Errorf("repair of %+v", k)
	}
	return n.log.Repair(first, last, batches)
}

// read goes through the log: what is whole, and the first damage.
func (n *node) read() (offsets []int64, damage *seglog.CorruptError) {
	n.t.Helper()
	for offset := int64(0); offset < n.log.End(); {
		batches, err := n.log.Read(offset, 1000)
		if d, ok := errors.AsType[*seglog.CorruptError](err); ok {
			if damage == nil {
				damage = d
			}
			offset = d.Last + 1
			continue
		}
		check(n.t, err)
		for _, b := range batches {
			if want := batch(b.Base); !bytes.Equal(want.Data[record.HeaderSize:], b.Data[record.HeaderSize:]) {
				n.t.Fatalf("offset %d holds another batch", b.Base)
			}
			offsets = append(offsets, b.Base)
			offset = b.Last() + 1
		}
		if len(batches) == 0 {
			break
		}
	}
	return offsets, damage
}

// Fetch implements Network.
func (r *rig) Fetch(ctx context.Context, id uint64, request []byte) (Stream, error) {
	r.mu.Lock()
	n, down, twist := r.nodes[id], r.down[id], r.twist
	r.asked = append(r.asked, id)
	r.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	var chunks [][]byte
	err := n.mender.Serve(ctx, request, func(b []byte) error {
		chunks = append(chunks, bytes.Clone(b))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if twist != nil {
		chunks = twist(chunks)
	}
	return &stream{chunks: chunks}, nil
}

type stream struct{ chunks [][]byte }

func (s *stream) Next() ([]byte, error) {
	if len(s.chunks) == 0 {
		return nil, io.EOF
	}
	b := s.chunks[0]
	s.chunks = s.chunks[1:]
	return b, nil
}

func (s *stream) Close() {}

// run runs the mender of the first node until the test ends.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.first().mender.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		check(r.t, <-done)
	})
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain: %s; %+v", what, r.first().mender.Stats())
		}
	}
}

// whole waits until the first node's log is whole.
func (r *rig) whole() {
	r.t.Helper()
	r.until("the log is whole", func() bool { _, damage := r.first().read(); return damage == nil })
	if offsets, _ := r.first().read(); len(offsets) != records/2 {
		r.t.Errorf("%d batches are there", len(offsets))
	}
	r.until("nothing waits", func() bool { return r.first().mender.Stats().Pending == 0 })
}

// Readers are told to wait, and find the batches whole, wherever they were
// damaged, twice in a segment or a segment as a whole.
func TestDamageIsFetched(t *testing.T) {
	for name, spoil := range map[string]func(n *node){
		"body":   func(n *node) { check(n.t, n.fs.Flip(n.segments()[1], 300, 1)) },
		"prefix": func(n *node) { check(n.t, n.fs.Flip(n.segments()[1], 42, 1)) },
		"two places": func(n *node) {
			check(n.t, errors.Join(n.fs.Flip(n.segments()[1], 300, 1), n.fs.Flip(n.segments()[1], 2500, 1)))
		},
		"missing": func(n *node) { check(n.t, n.fs.Remove(n.segments()[2])) },
		"last":    func(n *node) { s := n.segments(); check(n.t, n.fs.Flip(s[len(s)-1], 300, 1)) },
		"many places": func(n *node) {
			all := n.segments()
			for _, s := range all[:len(all)-1] {
				check(n.t, n.fs.Flip(s, 700, 1))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2)
			spoil(r.first())
			if _, damage := r.first().read(); damage == nil || !damage.Mending {
				t.Fatalf("damage %+v", damage)
			}
			if len(r.first().mender.Waiting()) == 0 {
				t.Error("nothing waits")
			}
			r.run()
			r.whole()
			if s := r.first().mender.Stats(); s.Repaired == 0 || s.Bytes == 0 || s.Lost != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The replicas are asked one after the other, and again, until one can give it.
func TestOtherReplicasAreAsked(t *testing.T) {
	r := newRig(t, 5)
	check(t, r.first().fs.Flip(r.first().segments()[1], 300, 1))
	check(t, r.nodes[2].fs.Flip(r.nodes[2].segments()[1], 300, 1))
	r.nodes[2].peers = nil // it cannot help itself
	r.nodes[3].closed = true
	r.down[4], r.down[5] = true, true
	r.first().read()
	r.run()
	r.until("all were asked twice", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.asked) >= 8
	})
	if _, damage := r.first().read(); damage == nil || !damage.Mending {
		t.Errorf("damage %+v", damage)
	}
	r.mu.Lock()
	if !slices.Equal(r.asked[:4], []uint64{2, 3, 4, 5}) {
		t.Errorf("asked %v", r.asked)
	}
	r.down[5] = false
	r.mu.Unlock()
	r.whole()
}

// A replica whose log is shorter is no help yet.
func TestReplicaThatIsBehind(t *testing.T) {
	r := newRig(t, 2)
	behind := r.nodes[2]
	s, err := seglog.Open(vfs.NewMem(), "data/topics", seglog.Options{})
	check(t, err)
	full := behind.log
	behind.log = s.New(testLog, 0)
	check(t, r.first().fs.Flip(r.first().segments()[1], 300, 1))
	_, damage := r.first().read()
	_, _, err = r.first().mender.fetch(t.Context(), 2, request{
		shard: shardOfTest, key: partition.Key{Topic: 77, Partition: 2}, first: damage.First, last: damage.Last,
	})
	if !errors.Is(err, errBehind) {
		t.Errorf("fetch: %v", err)
	}
	behind.log = full
	r.run()
	r.whole()
}

// What all have lost is skipped, and nobody waits for it.
func TestLostEverywhere(t *testing.T) {
	r := newRig(t, 3)
	for _, n := range r.nodes {
		check(t, n.fs.Flip(n.segments()[1], 300, 1))
		n.mender.o.Peers = func(uint32) []uint64 { return n.peers }
	}
	r.run()
	r.until("it is known as lost", func() bool {
		_, damage := r.first().read()
		return damage != nil && !damage.Mending
	})
	if s := r.first().mender.Stats(); s.Lost != 1 || s.Pending != 0 || s.Repaired != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAloneNobodyWaits(t *testing.T) {
	r := newRig(t, 1)
	check(t, r.first().fs.Flip(r.first().segments()[1], 300, 1))
	if _, damage := r.first().read(); damage == nil || damage.Mending {
		t.Errorf("damage %+v", damage)
	}
	r = newRig(t, 2)
	if r.first().mender.Mend(&seglog.CorruptError{ID: seglog.LogID{Topic: 1}, Last: 3}) {
		t.Error("a log of no known shard is waited for")
	}
}

// Nothing that a replica sends by mistake gets into a log.
func TestAnswersThatMakeNoSense(t *testing.T) {
	last := func(c [][]byte) []byte { return c[len(c)-1] }
	other := partition.AppendBatches([]byte{chunkBatches}, []seglog.Batch{batch(150)})
	for name, twist := range map[string]func(c [][]byte) [][]byte{
		"no end":        func(c [][]byte) [][]byte { return c[:len(c)-1] },
		"nothing":       func([][]byte) [][]byte { return nil },
		"empty chunk":   func(c [][]byte) [][]byte { return append([][]byte{{}}, c...) },
		"unknown chunk": func(c [][]byte) [][]byte { return append([][]byte{{9}}, c...) },
		"list alone":    func(c [][]byte) [][]byte { return [][]byte{last(c)} },
		"twice":         func(c [][]byte) [][]byte { return append([][]byte{c[0]}, c...) },
		"another batch": func(c [][]byte) [][]byte { return [][]byte{other, last(c)} },
		"other offsets": func([][]byte) [][]byte {
			e := end{next: 30, list: list([]seglog.Batch{batch(150)})}
			return [][]byte{other, e.encode(nil)}
		},
		"no progress": func([][]byte) [][]byte {
			e := end{}
			return [][]byte{e.encode(nil)}
		},
		"flipped": func(c [][]byte) [][]byte {
			c[0][len(c[0])-3] ^= 4
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2)
			check(t, r.first().fs.Flip(r.first().segments()[1], 300, 1))
			_, damage := r.first().read()
			r.twist = twist
			err := r.first().mender.mend(t.Context(), shardOfTest, place{testLog, damage.First, damage.Last})
			if err == nil || final(err) {
				t.Errorf("mend: %v", err)
			}
			if _, now := r.first().read(); now == nil || now.First != damage.First || now.Last != damage.Last {
				t.Errorf("damage was %v, is %v", damage, now)
			}
		})
	}
}

// A place that is damaged again and again is given up: else readers would wait
// for ever on a disk that loses what it is given.
func TestDamageThatComesAgain(t *testing.T) {
	r := newRig(t, 2)
	m := r.first().mender
	p := place{testLog, 10, 11}
	for i := range maxRepairs {
		if fetched, fresh := m.note(p, shardOfTest, time.Now()); !fetched || !fresh {
			t.Fatalf("time %d: %v, %v", i, fetched, fresh)
		}
		m.settle(p, m.places[p], nil)
	}
	if fetched, _ := m.note(p, shardOfTest, time.Now()); fetched {
		t.Error("it is still waited for")
	}
	if fetched, _ := m.note(p, shardOfTest, time.Now().Add(restAfter)); !fetched {
		t.Error("it is given up for good")
	}
}

func TestPlacesAreBounded(t *testing.T) {
	r := newRig(t, 2)
	m := r.first().mender
	for i := range int64(maxPlaces + 10) {
		if !m.Mend(&seglog.CorruptError{ID: testLog, First: i, Last: i}) {
			t.Fatal("it is not waited for")
		}
	}
	if n := m.Stats().Pending; n != maxPlaces {
		t.Errorf("%d places", n)
	}
}

func TestServeRefusesGarbage(t *testing.T) {
	r := newRig(t, 1)
	for _, b := range [][]byte{nil, {}, {9}, {1}, {1, 3, 77, 2, 9, 8}, append((&request{shard: 3}).encode(), 0)} {
		if err := r.first().mender.Serve(t.Context(), b, func([]byte) error { return nil }); err == nil {
			t.Errorf("%v was served", b)
		}
	}
}

func FuzzWire(f *testing.F) {
	r := request{shard: 3, key: partition.Key{Topic: 77, Partition: 2}, first: 4, last: 9}
	f.Add(r.encode())
	e := end{status: statusOK, next: 10, list: list([]seglog.Batch{batch(4), batch(6)})}
	f.Add(e.encode(nil)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRequest(b); err == nil {
			if again, err := decodeRequest(r.encode()); err != nil || again != r {
				t.Errorf("%+v became %+v: %v", r, again, err)
			}
		}
		if e, err := decodeEnd(b); err == nil {
			again, err := decodeEnd(e.encode(nil)[1:])
			if err != nil || again.status != e.status || again.next != e.next || !slices.Equal(again.list, e.list) {
				t.Errorf("%+v became %+v: %v", e, again, err)
			}
		}
	})
}
