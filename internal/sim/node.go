package sim

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// Where a node keeps its files.
const (
	walDir    = "data/wal"
	topicsDir = "data/topics"
)

func shardDir(id uint32) string { return fmt.Sprintf("data/shards/%d", id) }

// phase is what a node is doing when power fails.
type phase uint8

const (
	idle phase = iota
	opening
	writing
	syncing
	maintaining
	recycling
	flushing
	checkpointing
	compacting
	spilling
)

// node is the engine over one disk, for one life of the process.
type node struct {
	sim      *Sim
	disk     *vfs.Mem
	wal      *wal.WAL
	store    *seglog.Store
	groups   []*group
	flusher  *shard.Flusher
	phase    phase
	applying bool // an entry is being applied: the model is ahead of the machine
	unsynced bool // the WAL has written what it has not synced
}

// group is one shard.
type group struct {
	*shard.Group
	*recorder
}

// disk is the file system as the node sees it; it tells what the WAL is about.
type diskTap struct {
	*vfs.Mem
	node *node
}

// Rename implements vfs.FS.
func (t diskTap) Rename(from, to string) error {
	t.maintains(from)
	return t.Mem.Rename(from, to)
}

// Remove implements vfs.FS.
func (t diskTap) Remove(name string) error {
	t.maintains(name)
	return t.Mem.Remove(name)
}

func (t diskTap) maintains(name string) {
	if t.node.phase == maintaining && strings.HasSuffix(name, ".wal") && strings.HasPrefix(name, walDir) {
		t.node.phase = recycling
	}
}

// tails is the store as the flusher sees it.
type tails struct {
	*seglog.Store
	node *node
}

// FlushOldest implements shard.Tails.
func (t tails) FlushOldest() (bool, error) {
	t.node.phase = flushing
	did, err := t.Store.FlushOldest()
	t.node.leave(err)
	return did, err
}

// leave ends a phase of the flusher that went well.
func (n *node) leave(err error) {
	if err == nil && !n.disk.Tripped() {
		n.phase = checkpointing // what else it does
	}
}

// open starts a life.
func (n *node) open() (err error) {
	s := n.sim
	n.phase = opening
	fs := diskTap{n.disk, n}
	if err := vfs.MkdirSynced(fs, "data/shards"); err != nil {
		return err
	}
	if n.wal, err = wal.Open(fs, walDir, wal.Options{SegmentSize: s.o.walSegment, Spares: s.o.spares}); err != nil {
		return err
	}
	n.store, err = seglog.Open(fs, topicsDir, seglog.Options{
		SegmentSize: s.o.logSegment, TailBytes: s.o.tailBytes, OpenFiles: s.o.openFiles, WholeSyncFrom: s.o.wholeSyncFrom,
	})
	if err != nil {
		return err
	}
	n.groups = nil
	groups := make([]*shard.Group, len(s.shards))
	for i, model := range s.shards {
		m := partition.New(partition.Options{
			Shard: model.id, Store: n.store, FS: fs, Dir: path.Join(shardDir(model.id), "parked"),
			Reserve: n.full, InboxBytes: s.o.inboxBytes, InboxCount: s.o.inboxCount, TailBytes: s.o.tailBytes,
			ParkedMax: s.o.parkedMax, CompactBytes: 4 << 10,
		})
		r := &recorder{Machine: m, node: n, model: model}
		g, err := shard.Open(shard.Options{
			ID: model.id, RaftID: 1, Dir: shardDir(model.id), FS: fs, WAL: n.wal, Machine: r, Async: s.o.async,
			Clock: s.clock, CheckpointBytes: s.o.checkpointBytes, CheckpointAge: s.o.checkpointAge,
			MaxEntryBytes: s.o.entryBytes, MaxInflight: s.o.inflight,
		})
		if err != nil {
			return err
		}
		n.groups = append(n.groups, &group{g, r})
		groups[i] = g
	}
	n.flusher = shard.NewFlusher(shard.FlusherOptions{
		Store: tails{n.store, n}, WAL: n.wal, Groups: groups, Clock: s.clock,
		TailLimit: 4 * s.o.tailBytes, CheckpointBytes: s.o.checkpointBytes, CompactEvery: time.Second,
		Sweep: func() error { return n.store.Sweep(func(seglog.LogID) bool { return false }) },
	})
	n.phase = idle
	n.checkHards()
	return nil
}

// checkHards looks whether every vote that a leadership stood on is there.
func (n *node) checkHards() {
	for _, m := range n.sim.shards {
		if m.term == 0 {
			continue
		}
		if h, ok := n.wal.Hard(m.id); !ok || h.Term < m.term || h.Vote == 0 {
			n.sim.failf("shard %d led in term %d; the log's HardState is %+v, there: %v", m.id, m.term, h, ok)
		}
	}
}

// full reports whether the disk has reached the reserve.
func (n *node) full() bool {
	u, err := n.disk.Usage(".")
	return err == nil && u.Free < 6*n.sim.o.walSegment+8*n.sim.o.tailBytes
}

// note counts what the engine has counted.
func (n *node) note() {
	if n.wal != nil {
		w := n.wal.Stats()
		n.sim.count(Recycles, int64(w.Recycles))
		n.sim.count(Oversize, int64(w.Oversize))
	}
	if n.store != nil {
		st := n.store.Stats()
		n.sim.count(Compactions, st.Compactions)
		n.sim.count(Swept, st.Swept)
		n.sim.count(WholeSyncs, st.WholeSyncs)
	}
}

// close ends a life in order, as far as files are concerned.
func (n *node) close() {
	for _, g := range n.groups {
		g.Close(fault.Exiting)
	}
	n.sim.check("close store", n.store.Close())
	n.sim.check("close wal", n.wal.Close())
}

// recorder stands between a group and its machine: it shows every entry to the
// model first.
type recorder struct {
	*partition.Machine
	node      *node
	model     *shardModel
	last      uint64 // entry applied, or restored, last
	leading   bool
	published int // checkpoints
}

// Restore implements shard.Machine.
func (r *recorder) Restore(index uint64, state []byte) error {
	r.last = index
	return r.Machine.Restore(index, state)
}

// Apply implements shard.Machine.
func (r *recorder) Apply(e shard.Entry, token any) error {
	m, s := r.model, r.node.sim
	r.last = e.Index
	m.expected = m.expected[:0]
	if e.Index > m.applied {
		m.apply(e)
	} else {
		s.count(Replayed, 1)
		if e.Index >= uint64(len(m.entries)) || m.entries[e.Index] != sumOf(e) {
			s.failf("entry %d of shard %d is not the one that was applied before", e.Index, m.id)
		}
	}
	s.note(evApply, int64(m.id), int64(e.Index), int64(m.entries[e.Index].sum))
	if token == nil {
		m.expected = m.expected[:0]
	}
	r.node.applying = true
	err := r.Machine.Apply(e, token)
	r.node.applying = false
	if err == nil && len(m.expected) > 0 {
		s.failf("entry %d of shard %d: %d commands were not answered", e.Index, m.id, len(m.expected))
	}
	return err
}

// Lead implements shard.Machine: everything that was ever applied must be back.
func (r *recorder) Lead(term uint64) {
	m, s := r.model, r.node.sim
	if r.last < m.applied {
		s.failf("shard %d has recovered up to entry %d; %d was applied before", m.id, r.last, m.applied)
	}
	if term <= m.term {
		s.failf("shard %d leads in term %d, and did before in term %d", m.id, term, m.term)
	}
	m.term, m.served, r.leading = term, s.life, true
	r.Machine.Lead(term)
	s.note(evLead, int64(m.id), int64(term), int64(r.last))
	r.look()
}

// Checkpoint implements shard.Machine.
func (r *recorder) Checkpoint(index uint64) shard.Checkpoint {
	return &snapshot{r.Machine.Checkpoint(index), r}
}

// snapshot tells the node what the flusher is doing.
type snapshot struct {
	shard.Checkpoint
	r *recorder
}

// Write implements shard.Checkpoint.
func (c *snapshot) Write() ([]byte, error) {
	c.r.node.phase = checkpointing
	return c.Checkpoint.Write()
}

// Published implements shard.Checkpoint.
func (c *snapshot) Published() {
	c.r.published++
	c.r.model.published = true
	c.r.node.sim.count(Checkpoints, 1)
	c.r.node.sim.note(evPublished, int64(c.r.model.id), int64(c.r.published), 0)
	c.Checkpoint.Published()
}

// Background implements shard.Background.
func (r *recorder) Background() (bool, error) {
	r.node.phase = spilling
	did, err := r.Machine.Background()
	if did {
		r.node.sim.count(Spills, 1)
	}
	r.node.leave(err)
	return did, err
}

// Compact implements shard.Compactor.
func (r *recorder) Compact(now time.Time) (bool, error) {
	r.node.phase = compacting
	did, err := r.Machine.Compact(now)
	r.node.leave(err)
	return did, err
}

// answered takes the next answer that is due.
func (r *recorder) answered() answer {
	m := r.model
	if len(m.expected) == 0 {
		r.node.sim.failf("shard %d answers what was not in the entry", m.id)
	}
	a := m.expected[0]
	m.expected = m.expected[1:]
	return a
}

// look compares the machine's state with the model's, in the next step.
func (r *recorder) look() { r.Query(r.compare) }

func (r *recorder) compare(v *partition.View) {
	if v == nil || !r.leading || r.last < r.model.applied {
		return
	}
	n := 0
	v.Each(func(p partition.PartitionView) {
		n++
		r.model.compare(&p)
	})
	if n != len(r.model.open) {
		r.node.sim.failf("shard %d has %d partitions, not %d", r.model.id, n, len(r.model.open))
	}
}

// compare compares a partition.
func (m *shardModel) compare(v *partition.PartitionView) {
	p := m.parts[v.Key]
	if p == nil || p.closed {
		m.sim.failf("topic %d is open", v.Topic)
	}
	if v.Start != p.start || v.End != p.end || v.HandOver != p.handOver || v.Paused != p.paused || len(v.Channels) != len(p.chans) {
		m.sim.failf("topic %d stands at start %d, end %d, hand-over %d, paused %v with %d channels; it should at %d, %d, %d, %v with %d",
			v.Topic, v.Start, v.End, v.HandOver, v.Paused, len(v.Channels), p.start, p.end, p.handOver, p.paused, len(p.chans))
	}
	if v.Count != p.count() || !slices.Equal(v.Barriers, p.barriers) {
		m.sim.failf("topic %d has %d partitions and barriers %v; it should have %d and %v", v.Topic, v.Count, v.Barriers, p.count(), p.barriers)
	}
	for i := range v.Channels {
		got := &v.Channels[i]
		c := p.channel(got.ID)
		if c == nil {
			m.sim.failf("topic %d has a channel %d", v.Topic, got.ID)
		}
		backlog := max(0, p.handOver-c.floor-c.above)
		if got.Epoch != c.epoch || got.Floor != c.floor || got.Ranges != c.runs || got.Parked != int64(len(c.parked)) || got.Backlog != backlog {
			m.sim.failf("channel %d stands at epoch %d, floor %d, %d ranges, %d parked, backlog %d; it should at %d, %d, %d, %d, %d",
				c.id, got.Epoch, got.Floor, got.Ranges, got.Parked, got.Backlog, c.epoch, c.floor, c.runs, len(c.parked), backlog)
		}
	}
}
