package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
)

// stagedRuns separates the numbers of runs that come with a state from those
// that this replica may still write before the state is installed: a file that
// the last checkpoint names must not be replaced.
const stagedRuns = 1 << 20

// stagedTail is the budget of the staged logs' tails, bytes.
const stagedTail = 4 << 20

// setKey names a channel's parked set.
type setKey struct {
	Key
	channel uint64
}

// importer is a state on its way in. It implements shard.Import: batches go to
// logs in a store of their own, parked messages to runs, and when all is there
// the files are moved to where they belong.
type importer struct {
	m    *Machine
	dir  string
	ends map[Key]int64     // where this replica's logs end
	runs map[setKey]uint64 // numbers that its parked sets use next

	store *seglog.Store // nil until the first chunk
	head  []byte
	parts []*importPart // by key
	byKey map[Key]*importPart
	sets  map[setKey]*importSet
	order []setKey // of sets, as they came

	spill *parked.Spill // that was waiting to be written, and its set
	set   *parked.Set
}

// importPart is a partition on its way in.
type importPart struct {
	*partition
	encoded []byte
	log     *seglog.Log // staged; nil: no batch came
}

// importSet is a parked set on its way in.
type importSet struct {
	builder *parked.Builder
	state   []byte
	names   []string
}

// Import prepares to take a state.
func (m *Machine) Import(dir string) shard.Import {
	i := &importer{
		m: m, dir: dir, ends: make(map[Key]int64, len(m.sorted)), runs: make(map[setKey]uint64),
		byKey: make(map[Key]*importPart), sets: make(map[setKey]*importSet),
	}
	for _, p := range m.sorted {
		i.ends[p.Key] = p.end
		for _, c := range p.channels {
			if c.parked != nil {
				i.runs[setKey{p.Key, c.id}] = c.parked.Next()
			}
		}
	}
	for _, g := range m.ghosts {
		i.runs[setKey{g.Key, g.channel}] = g.set.Next()
	}
	return i
}

func (i *importer) parkedDir() string { return path.Join(i.dir, "parked") }

// open makes the staging folder.
func (i *importer) open() (err error) {
	if i.store != nil {
		return nil
	}
	fs := i.m.o.FS
	if err := fs.RemoveAll(i.dir); err != nil {
		return err
	}
	if err := vfs.MkdirSynced(fs, i.dir); err != nil {
		return err
	}
	o := i.m.o.Store.Options()
	o.TailBytes = stagedTail
	i.store, err = seglog.Open(fs, path.Join(i.dir, "topics"), o)
	return err
}

// Put implements shard.Import.
func (i *importer) Put(chunk []byte) error {
	if err := i.open(); err != nil {
		return fmt.Errorf("open staging folder: %w", err)
	}
	r := reader{b: chunk}
	for len(r.b) > 0 {
		kind, payload := r.byte(), r.bytes()
		if r.bad {
			return i.malformed("record")
		}
		if err := i.take(kind, payload); err != nil {
			return err
		}
	}
	for i.store.OverBudget() {
		if did, err := i.store.FlushOldest(); err != nil || !did {
			return err
		}
	}
	return nil
}

func (i *importer) malformed(what string) error {
	return fault.Wrap(fault.Corrupt, fmt.Errorf("take state: %s: %w", what, errMalformed))
}

// take takes one record.
func (i *importer) take(kind byte, payload []byte) error {
	if (kind == recordState) != (i.head == nil) {
		return i.malformed("order")
	}
	switch kind {
	case recordState:
		i.head = slices.Clone(payload)
		return nil
	case recordPartition:
		return i.takePartition(slices.Clone(payload))
	case recordParked:
		return i.takeParked(payload)
	case recordBatch:
		return i.takeBatch(payload)
	}
	return i.malformed("kind of record")
}

func (i *importer) takePartition(encoded []byte) error {
	r := reader{b: encoded}
	p := &importPart{partition: r.partition(), encoded: encoded}
	if r.bad || len(r.b) > 0 || i.byKey[p.Key] != nil || p.end < i.ends[p.Key] {
		return i.malformed("partition")
	}
	i.parts = append(i.parts, p)
	i.byKey[p.Key] = p
	return nil
}

func (i *importer) takeParked(payload []byte) error {
	r := reader{b: payload}
	k := setKey{r.key(), r.uvarint()}
	p := i.byKey[k.Key]
	if r.bad || p == nil || p.channel(k.channel) == nil {
		return i.malformed("parked messages")
	}
	s := i.sets[k]
	if s == nil {
		memory := i.m.o.ParkedMax / 4
		s = &importSet{builder: parked.NewBuilder(i.m.o.FS, i.parkedDir(), parkedPrefix(k.Key, k.channel), i.runs[k]+stagedRuns, memory)}
		i.sets[k] = s
		i.order = append(i.order, k)
	}
	for len(r.b) > 0 {
		e := parked.Entry{Offset: r.length(), DueNs: r.varint(), Attempts: r.attempts()}
		if r.bad {
			return i.malformed("parked messages")
		}
		if err := s.builder.Add(e); err != nil {
			return err
		}
	}
	return nil
}

func (i *importer) takeBatch(payload []byte) error {
	k, b, ok := readBatch(payload)
	if p := i.byKey[k]; !ok || p == nil || b.Base < i.ends[k] || b.Last() >= p.end {
		return i.malformed("batch")
	}
	p := i.byKey[k]
	if p.log == nil {
		p.log = i.store.New(k.logID(), b.Base)
	}
	if b.Base < p.log.End() {
		return i.malformed("order of batches")
	}
	b.Data = slices.Clone(b.Data)
	p.log.Append(b)
	return nil
}

// readBatch reads what export.appendBatch wrote, and checks the record batch.
func readBatch(payload []byte) (Key, seglog.Batch, bool) {
	r := reader{b: payload}
	k := r.key()
	b := seglog.Batch{Base: r.length(), Count: int32(r.uvarint()), Index: r.uvarint(), Epoch: uint32(r.uvarint()), TimeNs: r.varint()}
	if r.bad || b.Count < 1 {
		return k, b, false
	}
	info, err := record.Parse(r.b)
	if err != nil || info.Size != len(r.b) || info.Count != int(b.Count) || info.CRC != record.Checksum(r.b) {
		return k, b, false
	}
	b.Data = r.b
	return k, b, true
}

// Sync implements shard.Import.
func (i *importer) Sync() error {
	if i.head == nil {
		return i.malformed("no state")
	}
	for _, k := range i.order {
		s := i.sets[k]
		var err error
		if s.state, s.names, err = s.builder.Finish(); err != nil {
			return fmt.Errorf("stage parked messages of channel %d: %w", k.channel, err)
		}
		s.builder = nil
	}
	for _, p := range i.parts {
		if p.log == nil {
			continue
		}
		if _, err := p.log.Checkpoint(math.MaxUint64, 0); err != nil {
			return fmt.Errorf("stage log: %w", err)
		}
	}
	return nil
}

// Install implements shard.Import.
func (i *importer) Install(index uint64) ([]byte, error) {
	b := &i.m.background
	b.mu.Lock()
	i.spill, i.set = b.spill, b.set
	b.spill, b.set, b.compactions = nil, nil, nil // of what goes
	b.mu.Unlock()
	if err := i.moveRuns(); err != nil {
		return nil, fmt.Errorf("install parked messages: %w", err)
	}
	state := binary.AppendUvarint(slices.Clone(i.head), uint64(len(i.parts)))
	for _, p := range i.parts {
		log, err := i.m.o.Store.Graft(p.logID(), p.log, index, p.end)
		if err != nil {
			return nil, fmt.Errorf("install log: %w", err)
		}
		state = appendBytes(appendBytes(state, p.encoded), log)
		for _, c := range p.channels {
			var set []byte
			if s := i.sets[setKey{p.Key, c.id}]; s != nil {
				set = s.state
			}
			state = appendBytes(state, set)
		}
	}
	return binary.AppendUvarint(state, 0), nil // channels that are gone
}

// names are the files of all runs that came with the state.
func (i *importer) names() []string {
	var names []string
	for _, k := range i.order {
		names = append(names, i.sets[k].names...)
	}
	return names
}

func (i *importer) moveRuns() error {
	names := i.names()
	if len(names) == 0 {
		return nil
	}
	fs, dir := i.m.o.FS, i.m.o.Dir
	if err := vfs.MkdirSynced(fs, dir); err != nil {
		return err
	}
	for _, name := range names {
		if err := fs.Rename(path.Join(i.parkedDir(), name), path.Join(dir, name)); err != nil {
			return err
		}
	}
	return vfs.SyncError(fs.SyncDir(dir))
}

// Fail implements shard.Import.
func (i *importer) Fail() {
	for _, p := range i.parts {
		i.m.o.Store.Ungraft(p.logID())
	}
	b := &i.m.background
	b.mu.Lock()
	b.spill, b.set = i.spill, i.set
	b.mu.Unlock()
}

// Published implements shard.Import. What can't be removed now is swept at the
// next start.
func (i *importer) Published() {
	_ = parked.SweepBut(i.m.o.FS, i.m.o.Dir, i.names())
	_ = i.Discard()
}

// Discard implements shard.Import.
func (i *importer) Discard() error {
	var err error
	if i.store != nil {
		err = i.store.Close()
		i.store = nil
	}
	return errors.Join(err, i.m.o.FS.RemoveAll(i.dir))
}

// Replace sets a state that was installed in place of the present one.
func (m *Machine) Replace(_ uint64, state []byte) error {
	old := m.sorted
	m.partitions, m.sorted, m.closed, m.time = make(map[Key]*partition), nil, nil, 0
	m.producers = nil
	m.ghosts, m.spilling, m.parkedLen, m.spillAt = nil, nil, 0, m.o.ParkedMax
	m.compactFrom, m.failed = Key{}, nil
	clear(m.slots)
	m.background.mu.Lock()
	m.background.asked = false
	m.background.mu.Unlock()
	if err := m.restore(state, m.o.Store.RestoreGrafted); err != nil {
		return fmt.Errorf("restore shard %d: %w", m.o.Shard, err)
	}
	for _, was := range old {
		p := m.partitions[was.Key]
		if p == nil {
			was.log.Drop()
			m.dropped = append(m.dropped, was.log)
			continue
		}
		p.messages, p.bytes = was.messages, was.bytes
		for _, c := range p.channels {
			c.missed = p.messages // made while this node did not look
			if k, ok := was.find(c.id); ok {
				c.missed = was.channels[k].missed
			}
		}
	}
	return nil
}
