package partition

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
)

// sentMax is of how many barriers, the last ones, it is remembered how far producers
// had come. It is part of the replicated rules.
const sentMax = 8

// mapping is what a partition knows of the number of partitions by which messages
// with keys come to it. It is replicated.
type mapping struct {
	count    uint32     // 1..PartitionsMax
	barriers []Barrier  // rising
	sent     []sentList // of the last barriers
}

// sentList is how far each producer of the shard had come at a barrier, by id: what of
// it has a key and came by a smaller number is fact, what came later was refused.
type sentList []sentBefore

// sentBefore is the last publish of a producer before a barrier.
type sentBefore struct{ id, epoch, seq uint64 }

// has reports whether a publish was sent before the barrier.
func (s sentList) has(l Link) bool {
	i, ok := slices.BinarySearchFunc(s, l.Producer, func(x sentBefore, id uint64) int { return cmp.Compare(x.id, id) })
	return ok && l.Epoch == s[i].epoch && l.Seq <= s[i].seq
}

// raise puts a barrier at an offset, unless the number is known.
func (t *mapping) raise(count uint32, offset int64, ps producers) (b Barrier, raised bool) {
	if count <= t.count {
		return Barrier{}, false
	}
	t.count = count
	b = Barrier{Count: count, Offset: offset}
	t.barriers = append(t.barriers, b)
	sent := make(sentList, len(ps))
	for i := range ps {
		sent[i] = sentBefore{ps[i].id, ps[i].epoch, ps[i].seq}
	}
	if len(t.sent) == sentMax {
		t.sent = slices.Delete(t.sent, 0, 1)
	}
	t.sent = append(t.sent, sent)
	return b, true
}

// barrier is the place of the first one of at least so many partitions.
func (t *mapping) barrier(count uint32) (int, bool) {
	i, _ := slices.BinarySearchFunc(t.barriers, count, func(b Barrier, n uint32) int { return cmp.Compare(b.Count, n) })
	return i, i < len(t.barriers)
}

// outcome is what became of a publish whose number was used: nil when it was done,
// fault.Moved when it was refused. fault.NotLeader: it is not known any more.
func (t *mapping) outcome(l Link, mapping uint32) error {
	if mapping == 0 || mapping >= t.count || plant.On("moved-forgotten") {
		return nil
	}
	i, ok := t.barrier(mapping + 1)
	if !ok {
		return fault.Moved // it was opened with more
	}
	kept := i - (len(t.barriers) - len(t.sent))
	switch {
	case !t.sent[max(kept, 0)].has(l):
		return fault.Moved
	case kept < 0:
		return fault.NotLeader
	}
	return nil
}

// append writes the mapping as it stands in the partition's state: count; barriers,
// each with count and offset; lists of producers, each with its producers.
func (t *mapping) append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(t.count))
	buf = binary.AppendUvarint(buf, uint64(len(t.barriers)))
	for _, b := range t.barriers {
		buf = binary.AppendUvarint(buf, uint64(b.Count))
		buf = binary.AppendUvarint(buf, uint64(b.Offset))
	}
	for _, sent := range t.sent {
		buf = binary.AppendUvarint(buf, uint64(len(sent)))
		for _, s := range sent {
			for _, v := range [...]uint64{s.id, s.epoch, s.seq} {
				buf = binary.AppendUvarint(buf, v)
			}
		}
	}
	return buf
}

// partitions takes a number of partitions.
func (r *reader) partitions() uint32 {
	n := r.uvarint()
	if n < 1 || n > PartitionsMax {
		r.fail()
		return 0
	}
	return uint32(n)
}

// mapping takes off a state what mapping.append wrote; the last barrier is not
// beyond end.
func (r *reader) mapping(end int64) mapping {
	t := mapping{count: r.partitions()}
	last := Barrier{Count: 1}
	for range r.count(2) {
		b := Barrier{Count: r.partitions(), Offset: r.length()}
		if b.Count <= last.Count || b.Count > t.count || b.Offset < last.Offset || b.Offset > end {
			r.fail()
		}
		if r.bad {
			return mapping{}
		}
		t.barriers = append(t.barriers, b)
		last = b
	}
	for range min(len(t.barriers), sentMax) {
		t.sent = append(t.sent, r.sent())
	}
	if t.count < 2 || len(t.barriers) > 0 && last.Count != t.count {
		r.fail()
	}
	return t
}

// sent takes the list of producers of one barrier.
func (r *reader) sent() sentList {
	list := sentList{}
	id := uint64(0)
	for range r.count(3) {
		s := sentBefore{r.uvarint(), r.uvarint(), r.uvarint()}
		if s.id <= id || s.epoch == 0 || s.seq == 0 || len(list) == producersMax {
			r.fail()
		}
		if r.bad {
			return nil
		}
		id = s.id
		list = append(list, s)
	}
	return list
}

// raise applies a Raise.
func (m *Machine) raise(p *partition, c Raise) {
	b, raised := p.mapping.raise(c.Count, p.end, m.producers)
	if !raised {
		return
	}
	for _, ch := range p.channels {
		if ch.lane != nil && !ch.ephemeral {
			ch.lane.lane.Raised(b)
		}
	}
}

// fit is what becomes of a publish with a key.
type fit uint8

const (
	fits    fit = iota // it is planned
	waits              // for what is on its way, and all behind it with it
	isMoved            // it came by a smaller number of partitions
)

// fit looks whether a publish came by the number of partitions that its partition
// knows. Only what is fact counts: while a raise is on its way, publishes with keys
// wait for it. One that came by a larger number has it raised first.
func (m *Machine) fit(p *Publish, maxBytes int) fit {
	if p.Mapping == 0 {
		return fits
	}
	k := Key{p.Topic, p.Partition}
	part := m.partitions[k]
	switch n := m.counted(k); {
	case n > 1 || n == 1 && p.Mapping > 1:
		return waits
	case part == nil, p.Mapping == part.mapping.count:
		return fits
	case p.Mapping < part.mapping.count:
		if plant.On("moved-ignored") {
			return fits
		}
		return isMoved
	}
	m.planCommand(item{command: Raise{Key: k, Count: p.Mapping}}, maxBytes)
	return waits
}

// counting is a number of partitions that a command gives a partition.
type counting struct {
	Key
	count uint32
}

// counted is the largest number that the entries on their way, and the one that is
// being built, give a partition; 0: they do not.
func (m *Machine) counted(k Key) (n uint32) {
	for _, f := range m.flights {
		n = max(n, f.counted(k))
	}
	return max(n, m.planned.flight.counted(k))
}

func (f *flight) counted(k Key) (n uint32) {
	for _, c := range f.counts {
		if c.Key == k {
			n = max(n, c.count)
		}
	}
	return n
}

// planCount notes what a planned command says of its partition's number. A Raise is
// the last command of its entry, so that all publishes of the entry come before the
// barrier: the table of producers is moved on by the entry's first commands.
func (m *Machine) planCount(c Command) {
	f := m.planned.flight
	switch c := c.(type) {
	case Open:
		f.counts = append(f.counts, counting{c.Key, max(c.Count, 1)})
	case Raise:
		f.counts = append(f.counts, counting{c.Key, c.Count})
		m.planned.closed = true
	}
}

// planMoved answers a publish that came by a smaller number of partitions, at its
// turn. Its number is used; false: no room for that.
func (m *Machine) planMoved(p *Publish, maxBytes int) bool {
	pl := &m.planned
	if p.Link.Producer != 0 {
		size, ok := m.runRoom(p.Link)
		if !ok || pl.count > 0 && pl.size+size > maxBytes {
			return false
		}
		pl.size += size
		m.planLink(p.Link)
	}
	pl.bytes += int64(p.size)
	m.planLocal(step{first: p, last: p, moved: true})
	return true
}

// answerMoved answers a publish that planMoved has taken, when it is fact that its
// number is used. refused: it is not.
func answerMoved(p *Publish, refused bool) {
	if refused && p.Link.Producer != 0 {
		p.answer(0, fault.OutOfOrder)
		return
	}
	p.answer(0, fault.Moved)
}

// Passed reports whether a channel has come past the first barrier of at least so
// many partitions: the barrier is there, and all below it is finished or parked for
// the channel. A partition that was opened with so many has none: it is passed.
func (v *View) Passed(k Key, channel uint64, count uint32) bool {
	p := v.m.partitions[k]
	if p == nil || p.mapping.count < count {
		return false
	}
	c := p.channel(channel)
	if c == nil {
		return false
	}
	i, ok := p.mapping.barrier(count)
	return !ok || c.floor >= p.mapping.barriers[i].Offset
}

// checkCount is why a command's number of partitions is none.
func checkCount(c Command) error {
	n := uint32(1)
	switch c := c.(type) {
	case Open:
		n = max(c.Count, 1)
	case Raise:
		n = c.Count
	}
	if n < 1 || n > PartitionsMax {
		return fault.New(fault.InvalidRequest, "spread keys over %d partitions: it must be 1 to %d", n, PartitionsMax)
	}
	return nil
}
