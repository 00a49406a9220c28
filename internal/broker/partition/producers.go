package partition

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
)

// The bounds are part of the replicated rules.
const (
	// producersMax is how many producers a shard remembers. What one that is
	// forgotten sends again may happen twice, if it is the oldest that it has not
	// had answered: there must be no more processes alive than that.
	producersMax = 256
	// refusedMax is how many refused publishes of a producer are remembered.
	refusedMax = 64
)

// producer is what the shard knows of one process that publishes: how far its
// publishes have become fact. It is replicated.
type producer struct {
	id    uint64
	epoch uint64
	seq   uint64 // of its last publish in that epoch
	index uint64 // of the entry with that publish

	// refused are the numbers, rising, of publishes to partitions that were not
	// open, the last ones; of numbers up to forgot nobody knows.
	refused []uint64
	forgot  uint64
}

// producers are those of a shard, by id.
type producers []producer

// get returns how far a producer has come; zero when it is not known.
func (t producers) get(id uint64) producer {
	i, ok := t.find(id)
	if !ok {
		return producer{id: id}
	}
	return t[i]
}

func (t producers) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(t, id, func(p producer, id uint64) int { return cmp.Compare(p.id, id) })
}

// continued reports whether a run of publishes begins where the producer stands.
func (t producers) continued(r *run) bool {
	p := t.get(r.producer)
	if r.epoch == p.epoch {
		return r.after == p.seq || plant.On("forward-doubled") && r.after < p.seq
	}
	return r.epoch > p.epoch && r.after == 0
}

// take makes a run fact. The producer that has been silent for longest is
// forgotten for a new one.
func (t *producers) take(r *run, index uint64) {
	i, ok := t.find(r.producer)
	if !ok && len(*t) >= producersMax {
		oldest := 0
		for j := range *t {
			if (*t)[j].index < (*t)[oldest].index {
				oldest = j
			}
		}
		*t = slices.Delete(*t, oldest, oldest+1)
		if oldest < i {
			i--
		}
	}
	if !ok {
		*t = slices.Insert(*t, i, producer{id: r.producer})
	}
	p := &(*t)[i]
	if p.epoch != r.epoch {
		p.refused, p.forgot = nil, 0
	}
	p.epoch, p.seq, p.index = r.epoch, r.last, index
}

// refuse notes that the last publish of a run was not done because its partition
// was not open.
func (t producers) refuse(r *run) {
	i, ok := t.find(r.producer)
	if !ok || t[i].epoch != r.epoch {
		return
	}
	p := &t[i]
	if len(p.refused) == refusedMax {
		p.forgot = p.refused[0]
		p.refused = slices.Delete(p.refused, 0, 1)
	}
	p.refused = append(p.refused, r.last)
}

// outcome is what became of a publish: nil when it was done, unless its
// partition was closed before or after.
func (p *producer) outcome(l Link) error {
	if p.epoch != l.Epoch || p.seq < l.Seq {
		return fault.NotLeader
	}
	if _, ok := slices.BinarySearch(p.refused, l.Seq); ok {
		return fault.New(fault.TopicNotFound, "publish: the partition was not open")
	}
	if l.Seq <= p.forgot {
		return fault.NotLeader
	}
	return nil
}

// append writes the table as it stands in a checkpoint's state.
func (t producers) append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(t)))
	for i := range t {
		p := &t[i]
		for _, v := range [...]uint64{p.id, p.epoch, p.seq, p.index, p.forgot, uint64(len(p.refused))} {
			buf = binary.AppendUvarint(buf, v)
		}
		for _, seq := range p.refused {
			buf = binary.AppendUvarint(buf, seq)
		}
	}
	return buf
}

// producers takes a table off a state.
func (r *reader) producers() producers {
	var t producers
	id := uint64(0)
	for range r.count(6) {
		p := producer{id: r.uvarint(), epoch: r.uvarint(), seq: r.uvarint(), index: r.uvarint(), forgot: r.uvarint()}
		last := p.forgot
		for range r.count(1) {
			seq := r.uvarint()
			r.bad = r.bad || seq <= last
			last = seq
			p.refused = append(p.refused, seq)
		}
		if p.id <= id || p.epoch == 0 || p.seq == 0 || last > p.seq || len(p.refused) > refusedMax || len(t) == producersMax {
			r.fail()
		}
		if r.bad {
			return nil
		}
		id = p.id
		t = append(t, p)
	}
	return t
}

// run is the publishes of one producer in an entry: those with the numbers
// behind after, up to last.
type run struct {
	producer, epoch, after, last uint64
}

// runSize is the most that a run takes in an entry, bytes.
const runSize = commandHeader + 4*binary.MaxVarintLen64

// appendRun writes a whole link command.
func appendRun(buf []byte, r *run) []byte {
	buf, start := openCommand(buf, kindLink)
	for _, v := range [...]uint64{r.producer, r.epoch, r.after, r.last} {
		buf = binary.AppendUvarint(buf, v)
	}
	return closeCommand(buf, start)
}

// decodeRun reads the payload of a link command.
func decodeRun(payload []byte) (run, error) {
	r := reader{b: payload}
	l := run{producer: r.uvarint(), epoch: r.uvarint(), after: r.uvarint(), last: r.uvarint()}
	if r.bad || len(r.b) > 0 || l.producer == 0 || l.epoch == 0 || l.after >= l.last {
		return run{}, errMalformed
	}
	return l, nil
}
