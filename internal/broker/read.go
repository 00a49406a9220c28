package broker

import (
	"context"
	"errors"
	"math"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Stored is a message as it lies in a partition's log. Its bytes are good only
// while who was given it looks at it.
type Stored struct {
	Partition int32
	Offset    int64
	ID        delivery.ID
	TimeNs    int64 // unix ns, as consumers see it
	Record    record.Record
}

// Gap is offsets that are not there any more, or can't be read.
type Gap struct {
	First, Last int64
	Damaged     bool // else deleted
}

// Range says what Read reads of one partition.
type Range struct {
	Partition int32
	From      int64 // first offset
	FromNs    int64 // > 0: begin at the first message published at or after it, unix ns, if that is behind From
	Last      int64 // > 0: only the last so many messages
	// MaxRecords and MaxBytes bound what is read: 0 is 10,000 messages and
	// 64 MiB. At least one message is looked at.
	MaxRecords int
	MaxBytes   int64
}

// ReadEnd says how far Read came.
type ReadEnd struct {
	First   int64 // offset that it began at
	Next    int64 // offset to go on at
	End     int64 // of the partition: the offset that the next message will have
	Records int   // messages read
	Bytes   int64 // of batches
	Gaps    []Gap
}

const (
	readRecordsDefault = 10_000
	readBytesDefault   = 64 << 20
	readChunkBytes     = 256 << 10
	maxGaps            = 100
)

// Read shows the messages of a partition to each, by offset, until that returns
// false or a bound is reached. No consumer notices. With Peers the partition's
// leader is to be asked: fault.NotLeader elsewhere. Others: fault.TopicNotFound,
// fault.InvalidRequest for a partition that the topic has not.
func (b *Broker) Read(ctx context.Context, topic string, r Range, each func(*Stored) bool) (ReadEnd, error) {
	t, err := b.existing(ctx, topic)
	if err != nil {
		return ReadEnd{}, err
	}
	log, end, err := t.readable(ctx, r.Partition)
	if err != nil || log == nil {
		return ReadEnd{First: end, Next: end, End: end}, err
	}
	if r.Last > 0 {
		r.From = max(r.From, end-r.Last)
	}
	if r.FromNs > 0 {
		r.From = offsetAt(log, max(r.From, 0), end, r.FromNs)
	}
	x := reader{t: t, r: r, log: log, each: each, out: ReadEnd{First: max(r.From, 0), Next: max(r.From, 0), End: end}}
	err = x.run(ctx)
	return x.out, err
}

// readable is the log of a partition and its end; nil when nothing was ever
// published to it.
func (t *Topic) readable(ctx context.Context, n int32) (log delivery.Log, end int64, err error) {
	switch {
	case t.away != nil:
		return nil, 0, t.away
	case t.mem != nil && n == 0:
		return t.mem.log, t.mem.log.Stats().MessageCount, nil
	case t.part(int(n)) == nil:
		return nil, 0, fault.New(fault.InvalidRequest, "topic %s has no partition %d", t.name, n)
	}
	p := t.part(int(n))
	leads := true
	err = p.query(ctx, func(v *partition.View) {
		leads = t.b.counts(v)
		if pv, ok := v.Partition(p.key); ok {
			if l := v.Log(p.key); l != nil {
				log, end = l, pv.End
			}
		}
	})
	if err == nil && !leads {
		err = fault.New(fault.NotLeader, "read partition %d of topic %s: another node leads it", n, t.name)
	}
	return log, end, err
}

// offsetAt finds the first message at or after a time, between two offsets:
// times rise within a partition.
func offsetAt(log delivery.Log, from, end, ns int64) int64 {
	lo, hi := from, end
	for lo < hi {
		mid := lo + (hi-lo)/2
		first, last, ok := spanAt(log, mid)
		switch {
		case !ok || first.offset >= end:
			hi = mid
		case last.ns < ns:
			lo = last.offset + 1
		case first.ns <= ns: // within this batch
			return min(first.offset+ns-first.ns, end)
		case first.offset <= lo:
			return max(first.offset, lo)
		case first.offset < mid:
			hi = first.offset
		default: // a hole lies below
			hi = mid
		}
	}
	return lo
}

type moment struct{ offset, ns int64 }

// spanAt is the first and the last message of the batch at an offset, or of the
// next one that can be read.
func spanAt(log delivery.Log, offset int64) (first, last moment, ok bool) {
	for range maxGaps {
		batches, chunk, err := log.ReadChunk(nil, offset, 1)
		if damaged, is := errors.AsType[*seglog.CorruptError](err); is && len(batches) == 0 {
			chunk.Release()
			offset = damaged.Last + 1
			continue
		}
		if len(batches) == 0 {
			chunk.Release()
			return first, last, false
		}
		b := batches[0]
		chunk.Release()
		n := int64(b.Count) - 1
		return moment{b.Base, b.TimeNs}, moment{b.Base + n, b.TimeNs + n}, true
	}
	return first, last, false
}

// reader is one Read.
type reader struct {
	t     *Topic
	r     Range
	log   delivery.Log
	each  func(*Stored) bool
	out   ReadEnd
	most  int // messages
	spare []seglog.Batch
}

func (x *reader) run(ctx context.Context) error {
	x.most = x.r.MaxRecords
	if x.most <= 0 {
		x.most = readRecordsDefault
	}
	size := x.r.MaxBytes
	if size <= 0 {
		size = readBytesDefault
	}
	for x.out.Next < x.out.End && x.out.Records < x.most && x.out.Bytes < size {
		if ctx.Err() != nil {
			return fault.Wrap(fault.Timeout, ctx.Err())
		}
		more, err := x.chunk()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// chunk shows what one read of the log brings; more says that the reader may go
// on.
func (x *reader) chunk() (more bool, err error) {
	batches, chunk, err := x.log.ReadChunk(x.spare[:0], x.out.Next, readChunkBytes)
	defer chunk.Release()
	x.spare = batches[:0]
	if len(batches) == 0 {
		damaged, ok := errors.AsType[*seglog.CorruptError](err)
		switch {
		case ok:
			last := min(max(damaged.Last, x.out.Next), x.out.End-1)
			x.gap(Gap{First: x.out.Next, Last: last, Damaged: true})
			x.out.Next = last + 1
			return true, nil
		case err != nil:
			return false, fault.Wrap(fault.Storage, err)
		}
		x.gap(Gap{First: x.out.Next, Last: x.out.End - 1})
		x.out.Next = x.out.End
		return false, nil
	}
	for i := range batches {
		b := &batches[i]
		if b.Base > x.out.Next {
			x.gap(Gap{First: x.out.Next, Last: min(b.Base, x.out.End) - 1})
		}
		if b.Base >= x.out.End {
			x.out.Next = x.out.End
			return false, nil
		}
		x.out.Bytes += int64(len(b.Data))
		if !x.batch(b) {
			return false, nil
		}
	}
	return true, nil
}

// batch shows the records of one batch.
func (x *reader) batch(b *seglog.Batch) bool {
	s := Stored{Partition: x.r.Partition}
	for it := record.Records(b.Data); it.Next(&s.Record); {
		s.Offset = b.Base + int64(s.Record.Delta)
		if s.Offset < x.out.Next {
			continue
		}
		if s.Offset >= x.out.End || x.out.Records >= x.most {
			x.out.Next = s.Offset
			return false
		}
		s.TimeNs = b.TimeNs + int64(s.Record.Delta)
		s.ID = x.t.codec.ID(s.Partition, s.Offset)
		x.out.Records++
		x.out.Next = s.Offset + 1
		if !x.each(&s) {
			return false
		}
	}
	x.out.Next = max(x.out.Next, b.Last()+1)
	return true
}

// gap notes offsets that are not there; a gap that goes on is one.
func (x *reader) gap(g Gap) {
	if g.Last < g.First {
		return
	}
	if n := len(x.out.Gaps); n > 0 {
		if last := &x.out.Gaps[n-1]; last.Last+1 == g.First && last.Damaged == g.Damaged {
			last.Last = g.Last
			return
		}
	}
	if len(x.out.Gaps) < maxGaps {
		x.out.Gaps = append(x.out.Gaps, g)
	}
}

// ReadOne shows one message; false when it is not there (any more).
func (b *Broker) ReadOne(ctx context.Context, topic string, part int32, offset int64, show func(*Stored)) (bool, error) {
	found := false
	_, err := b.Read(ctx, topic, Range{Partition: part, From: offset, MaxRecords: math.MaxInt32}, func(s *Stored) bool {
		if found = s.Offset == offset; found {
			show(s)
		}
		return false
	})
	return found, err
}
