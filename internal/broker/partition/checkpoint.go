package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
)

// A checkpoint's state:
//
//	format version  u8      = 2; 3 when messages with keys come to a partition by
//	                more than one partition, so that a program which does not know
//	                of that reads all other states
//	time            varint  of the last entry
//	closed          count, and for each: topic, partition
//	producers       count, and for each, by id: id, epoch, seq, index; from version 2
//	partitions      count, and for each, by key:
//	  state         its length, and what partition.append writes
//	  log           its length, and what seglog.Log.Checkpoint returns
//	  parked        for each channel: its length (0: never any), and what
//	                parked.Snapshot.Append writes
//	dropped         count, and for each parked set of a channel that is gone but
//	                whose files may still be needed: topic, partition, channel,
//	                and the set as above
const (
	stateVersion   = 3
	stateUnmapped  = 2 // no partition has a mapping
	stateProducers = 2 // the first with producers
)

const (
	// checkpointsKept is how many checkpoints recovery may use.
	checkpointsKept = 2
	// inlineMax is up to how many bytes a log's tail stands in the checkpoint
	// itself.
	inlineMax = 4096
)

// savedLog is what the last checkpoints hold of a log. It belongs to the
// flusher.
type savedLog struct {
	state []byte
	// rounds is in how many more checkpoints the log must be asked: it has
	// changed, or it waits for a file to be in no checkpoint any more.
	rounds int
}

// savedSet is the same of a parked set.
type savedSet struct {
	changed bool // since the last snapshot; the loop's
	// rounds as in savedLog; the loop reads it.
	rounds atomic.Int32
	state  []byte // the flusher's
}

// checkpoint is a state on its way to disk. It implements shard.Checkpoint.
type checkpoint struct {
	m       *Machine
	index   uint64
	head    []byte
	parts   []part
	sets    []setPart
	ghosts  []ghostPart
	dropped []*seglog.Log
}

// part is a partition in a checkpoint.
type part struct {
	encoded []byte
	log     *seglog.Log
	changed bool // the log has, since the last checkpoint
	saved   *savedLog
	// channels is how many it has. The next as many of checkpoint.sets are
	// theirs, if parked.
	channels int
	parked   bool
}

// setPart is a channel's parked set in a checkpoint.
type setPart struct {
	saved   *savedSet        // nil: nothing was ever parked
	snap    *parked.Snapshot // nil: as in the last checkpoint
	changed bool
}

// ghost is the empty parked set of a channel that is gone. It stays until no
// checkpoint needs its files.
type ghost struct {
	Key
	channel uint64
	set     *parked.Set
	saved   *savedSet
}

type ghostPart struct {
	*ghost
	setPart
}

// Checkpoint takes the state as of index. What has not changed since the last
// one is not encoded again.
func (m *Machine) Checkpoint(index uint64) shard.Checkpoint {
	c := &checkpoint{m: m, index: index, parts: make([]part, 0, len(m.sorted)), dropped: m.dropped}
	m.dropped = nil
	c.head = m.appendHead(nil)
	for _, p := range m.sorted {
		if p.ephemerals > 0 {
			p.settle() // their lanes may have moved on
		}
		if p.changed {
			m.scratch = p.append(m.scratch[:0])
			p.encoded, p.changed = slices.Clone(m.scratch), false
		}
		pt := part{
			encoded: p.encoded, log: p.log, changed: p.logChanged, saved: p.saved,
			channels: len(p.channels), parked: p.sets.Load() != nil,
		}
		p.logChanged = false
		if pt.parked {
			for _, ch := range p.channels {
				c.sets = append(c.sets, takeSet(ch.parked, ch.saved))
			}
		}
		c.parts = append(c.parts, pt)
	}
	m.ghosts = slices.DeleteFunc(m.ghosts, func(g *ghost) bool {
		return g.set != m.spilling && len(g.set.Files()) == 0
	})
	for _, g := range m.ghosts {
		c.ghosts = append(c.ghosts, ghostPart{g, takeSet(g.set, g.saved)})
	}
	return c
}

// takeSet takes a snapshot of a parked set where that is needed.
func takeSet(s *parked.Set, saved *savedSet) setPart {
	if s == nil {
		return setPart{}
	}
	pt := setPart{saved: saved, changed: saved.changed}
	if saved.changed || saved.rounds.Load() > 0 {
		pt.snap = s.Snapshot()
		saved.changed = false
	}
	return pt
}

// appendHead writes what stands before the partitions.
func (m *Machine) appendHead(buf []byte) []byte {
	v := byte(stateUnmapped)
	if slices.ContainsFunc(m.sorted, func(p *partition) bool { return p.mapping.count > 1 }) {
		v = stateVersion
	}
	buf = append(buf, v)
	buf = binary.AppendVarint(buf, m.time)
	buf = binary.AppendUvarint(buf, uint64(len(m.closed)))
	for _, k := range m.closed {
		buf = appendKey(buf, k)
	}
	return m.producers.append(buf)
}

// Write flushes the logs and returns the state. After an error the next
// checkpoint catches up.
func (c *checkpoint) Write() ([]byte, error) {
	c.note()
	if err := c.flush(); err != nil {
		return nil, err
	}
	state := slices.Grow(c.head, c.size())
	state = binary.AppendUvarint(state, uint64(len(c.parts)))
	sets := c.sets
	for i := range c.parts {
		p := &c.parts[i]
		if p.saved.rounds > 0 {
			s, err := p.log.Checkpoint(c.index, inlineMax)
			if err != nil {
				return nil, fmt.Errorf("checkpoint log: %w", err)
			}
			p.saved.state = s
		}
		state = appendBytes(state, p.encoded)
		state = appendBytes(state, p.saved.state)
		for range p.channels {
			if !p.parked {
				state = appendBytes(state, nil)
				continue
			}
			state = sets[0].append(state)
			sets = sets[1:]
		}
	}
	state = binary.AppendUvarint(state, uint64(len(c.ghosts)))
	for _, g := range c.ghosts {
		state = binary.AppendUvarint(appendKey(state, g.Key), g.channel)
		state = g.append(state)
	}
	return state, nil
}

// flush moves what must be in files there, all logs before the first is synced.
func (c *checkpoint) flush() error {
	if plant.On("checkpoint-without-flush") || len(c.parts) == 0 {
		return nil
	}
	logs := make([]*seglog.Log, 0, len(c.parts))
	for i := range c.parts {
		if c.parts[i].saved.rounds > 0 {
			logs = append(logs, c.parts[i].log)
		}
	}
	if err := c.m.o.Store.Flush(logs, c.index, inlineMax); err != nil {
		return fmt.Errorf("checkpoint logs: %w", err)
	}
	return nil
}

// note remembers, before anything can fail, what has changed.
func (c *checkpoint) note() {
	c.m.graves.dropped = append(c.m.graves.dropped, c.dropped...)
	c.dropped = nil
	for i := range c.parts {
		if p := &c.parts[i]; p.changed {
			p.saved.rounds = checkpointsKept + 1
		}
	}
	for i := range c.sets {
		c.sets[i].note()
	}
	for i := range c.ghosts {
		c.ghosts[i].note()
	}
}

// note encodes the set if it was taken anew.
func (s *setPart) note() {
	if s.changed {
		s.saved.rounds.Store(checkpointsKept + 1)
	}
	if s.snap != nil {
		s.saved.state = s.snap.Append(s.saved.state[:0])
	}
}

// append writes the set behind its length.
func (s *setPart) append(buf []byte) []byte {
	if s.saved == nil {
		return appendBytes(buf, nil)
	}
	return appendBytes(buf, s.saved.state)
}

// size is about how large the state will be.
func (c *checkpoint) size() int {
	n := 64
	for i := range c.parts {
		n += len(c.parts[i].encoded) + len(c.parts[i].saved.state) + 2*c.parts[i].channels + 16
	}
	for i := range c.sets {
		if s := c.sets[i].saved; s != nil {
			n += len(s.state)
		}
	}
	return n
}

// Published lets logs and parked sets remove the files that no checkpoint
// needs any more.
func (c *checkpoint) Published() {
	for i := range c.parts {
		if p := &c.parts[i]; p.saved.rounds > 0 {
			p.saved.rounds--
			p.log.Published()
		}
	}
	for i := range c.sets {
		c.m.publishedSet(&c.sets[i])
	}
	for i := range c.ghosts {
		c.m.publishedSet(&c.ghosts[i].setPart)
	}
	g := &c.m.graves
	g.dropped = slices.DeleteFunc(g.dropped, (*seglog.Log).Published)
}

// publishedSet removes the files that the set needs no more.
func (m *Machine) publishedSet(s *setPart) {
	if s.snap == nil {
		return
	}
	s.saved.rounds.Add(-1)
	for _, name := range s.snap.Published() {
		// What stays because it could not be removed is swept at the next start.
		_ = m.o.FS.Remove(name)
	}
}

// graves are the logs of closed partitions, until no checkpoint names them. It
// belongs to the flusher.
type graves struct{ dropped []*seglog.Log }

// Restore sets the state that a checkpoint's Write returned. Files of parked
// messages that no checkpoint needs are removed.
func (m *Machine) Restore(_ uint64, state []byte) error {
	if state != nil {
		if err := m.restore(state, m.o.Store.Restore); err != nil {
			return fmt.Errorf("restore shard %d: %w", m.o.Shard, err)
		}
	}
	var sets []*parked.Set
	for _, p := range m.sorted {
		for _, c := range p.channels {
			if c.parked != nil {
				sets = append(sets, c.parked)
			}
		}
	}
	for _, g := range m.ghosts {
		sets = append(sets, g.set)
	}
	if err := parked.Sweep(m.o.FS, m.o.Dir, sets...); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore shard %d: %w", m.o.Shard, err)
	}
	return nil
}

// restoreLog makes a log from its part of the state.
type restoreLog func(seglog.LogID, []byte) (*seglog.Log, error)

// restore reads the state.
func (m *Machine) restore(state []byte, restoreLog restoreLog) error {
	r := reader{b: state}
	v := r.byte()
	if v < 1 || v > stateVersion {
		return fault.New(fault.Unsupported, "state has format version %d", v)
	}
	m.time = r.varint()
	for range r.count(2) {
		m.closed = append(m.closed, r.key())
	}
	if v >= stateProducers {
		m.producers = r.producers()
	}
	for range r.count(2) {
		if err := m.restorePartition(&r, restoreLog); err != nil {
			return err
		}
	}
	for range r.count(4) {
		if err := m.restoreGhost(&r); err != nil {
			return err
		}
	}
	if r.bad || len(r.b) > 0 {
		return fault.Wrap(fault.Corrupt, fmt.Errorf("read state: %w", errMalformed))
	}
	return nil
}

// restorePartition reads one partition.
func (m *Machine) restorePartition(r *reader, restoreLog restoreLog) error {
	encoded := r.bytes()
	pr := reader{b: encoded}
	p := pr.partition()
	logState := r.bytes()
	if r.bad || pr.bad || len(pr.b) > 0 || m.partitions[p.Key] != nil {
		return fault.Wrap(fault.Corrupt, fmt.Errorf("read partition: %w", errMalformed))
	}
	log, err := restoreLog(p.logID(), logState)
	if err != nil {
		return fmt.Errorf("partition %d of topic %s: %w", p.Partition, p.name, err)
	}
	if log.End() != p.end {
		return fault.New(fault.Corrupt, "partition %d of topic %s ends at %d, its log at %d", p.Partition, p.name, p.end, log.End())
	}
	p.log = log
	m.enter(p)
	p.encoded = slices.Clone(encoded)
	p.saved.state = slices.Clone(logState)
	p.logChanged = true
	for _, c := range p.channels {
		if err := m.restoreSet(r, p.Key, c.id, &c.parked, &c.saved); err != nil {
			return err
		}
		if c.ephemeral {
			p.ephemerals++
		}
	}
	p.share()
	p.settle()
	return nil
}

// restoreGhost reads the set of a channel that is gone.
func (m *Machine) restoreGhost(r *reader) error {
	g := &ghost{Key: r.key(), channel: r.uvarint()}
	if err := m.restoreSet(r, g.Key, g.channel, &g.set, &g.saved); err != nil {
		return err
	}
	if g.set != nil {
		m.ghosts = append(m.ghosts, g)
	}
	return nil
}

// restoreSet reads a parked set, if there is one.
func (m *Machine) restoreSet(r *reader, k Key, channel uint64, set **parked.Set, saved **savedSet) error {
	b := r.bytes()
	if len(b) == 0 {
		return nil
	}
	s, rest, err := parked.Restore(m.o.FS, m.o.Dir, parkedPrefix(k, channel), b)
	if err != nil {
		return fmt.Errorf("channel %d on partition %d of topic %d: %w", channel, k.Partition, k.Topic, err)
	}
	if len(rest) > 0 {
		return fault.Wrap(fault.Corrupt, fmt.Errorf("read parked messages: %w", errMalformed))
	}
	*set, *saved = s, &savedSet{changed: true, state: slices.Clone(b)}
	m.parkedLen += s.MemLen()
	return nil
}
