package repair

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

const (
	// chunkBytes is about how large a chunk is; a single batch may be larger.
	chunkBytes = 256 << 10
	// answerBytes is about how much one request gets: for more there is another.
	answerBytes = 32 << 20
)

// Serve answers a request of another replica, whose node is a member of the
// cluster. send hands a chunk over and waits until there is room for more; the
// chunk is good during the call only. The error is fault.InvalidRequest for what
// is no request, and else what send or the disk says.
func (m *Mender) Serve(ctx context.Context, b []byte, send func([]byte) error) error {
	r, err := decodeRequest(b)
	if err != nil {
		return fault.Wrap(fault.InvalidRequest, fmt.Errorf("serve repair: %w", err))
	}
	e, err := m.serve(ctx, &r, send)
	if err != nil {
		return fmt.Errorf("serve repair of partition %d/%d: %w", r.key.Topic, r.key.Partition, err)
	}
	return send(e.encode(nil))
}

func (m *Mender) serve(ctx context.Context, r *request, send func([]byte) error) (e end, err error) {
	e.next = r.first
	replica := m.o.Replica(r.shard)
	if replica == nil {
		e.status = statusAbsent
		return e, nil
	}
	log, err := replica.Log(ctx, r.key)
	switch {
	case err != nil:
		return e, err
	case log == nil:
		e.status = statusAbsent
		return e, nil
	case r.last >= log.End():
		e.status = statusBehind
		return e, nil
	}
	var batches []seglog.Batch
	buf := make([]byte, 0, chunkBytes+chunkBytes/8)
	for sent := 0; e.next <= r.last && sent < answerBytes; sent += len(buf) {
		batches, e.next, err = log.AppendNeeded(batches[:0], e.next, r.last+1, chunkBytes)
		if _, damaged := errors.AsType[*seglog.CorruptError](err); damaged {
			e.status = statusDamaged
			return e, nil
		}
		if err != nil {
			return e, fault.Wrap(fault.Storage, err)
		}
		if len(batches) == 0 {
			break
		}
		e.list = append(e.list, list(batches)...)
		buf = partition.AppendBatches(append(buf[:0], chunkBatches), batches)
		if err := send(buf); err != nil {
			return e, err
		}
	}
	return e, ctx.Err()
}
