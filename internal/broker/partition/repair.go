package partition

import (
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

// repair is damage of a log and what to put there.
type repair struct {
	log         *seglog.Log
	first, last int64
	batches     []seglog.Batch
	done        func(error)
}

// Repair puts batches that another replica's Log.Range has returned where this
// one's log is damaged, from offset first to last. done is called once, on the
// flusher's goroutine or on this one: with nil when the log is whole there, with
// fault.TopicNotFound when the partition is not open, with another error when
// the batches do not fit or the disk fails. Any goroutine.
func (m *Machine) Repair(k Key, first, last int64, batches []seglog.Batch, done func(error)) {
	m.Query(func(v *View) {
		if v == nil {
			done(fault.Exiting)
			return
		}
		p, err := m.find(k)
		if err != nil {
			done(err)
			return
		}
		b := &m.background
		b.mu.Lock()
		b.repairs = append(b.repairs, repair{p.log, first, last, batches, done})
		b.mu.Unlock()
		m.o.WakeFlusher()
	})
}

// mend does one repair that waits.
func (m *Machine) mend() (did bool) {
	b := &m.background
	b.mu.Lock()
	if len(b.repairs) == 0 {
		b.mu.Unlock()
		return false
	}
	r := b.repairs[0]
	b.repairs = slices.Delete(b.repairs, 0, 1)
	b.mu.Unlock()
	err := r.log.Repair(r.first, r.last, r.batches)
	m.call(func() { m.compacted(r.log) })
	if err != nil {
		err = fmt.Errorf("repair partition: %w", err)
	}
	r.done(err)
	return true
}

// AppendBatches encodes batches for the way to another replica.
func AppendBatches(dst []byte, batches []seglog.Batch) []byte {
	var x export
	for i := range batches {
		dst = x.appendBatch(dst, Key{}, &batches[i])
	}
	return dst
}

// DecodeBatches reads what AppendBatches wrote; the batches share the bytes.
// The error matches fault.Corrupt.
func DecodeBatches(b []byte) ([]seglog.Batch, error) {
	var list []seglog.Batch
	r := reader{b: b}
	for len(r.b) > 0 && !r.bad {
		kind := r.byte()
		_, batch, ok := readBatch(r.bytes())
		if r.bad || kind != recordBatch || !ok {
			return nil, fault.Wrap(fault.Corrupt, fmt.Errorf("read batches: %w", errMalformed))
		}
		list = append(list, batch)
	}
	return list, nil
}
