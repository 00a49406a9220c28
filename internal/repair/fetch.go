package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Network carries requests to other nodes.
type Network interface {
	// Fetch sends a request to the node with that Raft id, whose Mender.Serve is
	// given it. The stream ends with ctx at the latest.
	Fetch(ctx context.Context, node uint64, request []byte) (Stream, error)
}

// Stream is the answer to a request, by chunks.
type Stream interface {
	// Next is the next chunk, which belongs to the caller; io.EOF behind the last.
	Next() ([]byte, error)
	// Close ends the stream early. It may be called after its end.
	Close()
}

// Errors of a fetch that say what the other replica said.
var (
	errBehind  = errors.New("the replica does not hold these offsets yet")
	errDamaged = errors.New("the replica has lost these batches too")
	errAbsent  = errors.New("the node does not carry the partition")
	errTooMuch = errors.New("more than is fetched at once")
)

// fetch gets the batches of a range from one other replica, whole or not at all.
// The range widens to the batches that reach out of it.
func (m *Mender) fetch(ctx context.Context, node uint64, r request) (request, []seglog.Batch, error) {
	var all []seglog.Batch
	bytes, whole := 0, r
	for next := r.first; next <= r.last; {
		part := r
		part.first = next
		batches, to, err := m.fetchPart(ctx, node, part, &bytes)
		if err != nil {
			return r, nil, err
		}
		if to <= next {
			return r, nil, fmt.Errorf("answer goes on at %d again: %w", to, errMalformed)
		}
		all, next = append(all, batches...), to
	}
	for i := range all {
		if i > 0 && all[i].Base <= all[i-1].Last() {
			return r, nil, fmt.Errorf("batches out of order: %w", errMalformed)
		}
	}
	if n := len(all); n > 0 {
		whole.first, whole.last = min(r.first, all[0].Base), max(r.last, all[n-1].Last())
	}
	return whole, all, nil
}

// fetchPart makes one request.
func (m *Mender) fetchPart(ctx context.Context, node uint64, r request, bytes *int) (batches []seglog.Batch, next int64, err error) {
	s, err := m.o.Network.Fetch(ctx, node, r.encode())
	if err != nil {
		return nil, 0, err
	}
	defer s.Close()
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("answer without an end: %w", errMalformed)
		}
		if err != nil {
			return nil, 0, err
		}
		if *bytes += len(chunk); *bytes > m.o.MaxBytes {
			return nil, 0, fmt.Errorf("%d bytes: %w", *bytes, errTooMuch)
		}
		if len(chunk) == 0 {
			return nil, 0, fmt.Errorf("empty chunk: %w", errMalformed)
		}
		switch chunk[0] {
		case chunkBatches:
			some, err := partition.DecodeBatches(chunk[1:])
			if err != nil {
				return nil, 0, err
			}
			batches = append(batches, some...)
		case chunkEnd:
			e, err := decodeEnd(chunk[1:])
			if err != nil {
				return nil, 0, err
			}
			return batches, e.next, e.judge(&r, batches)
		default:
			return nil, 0, fmt.Errorf("chunk of kind %d: %w", chunk[0], errMalformed)
		}
	}
}

// judge checks what has come against the list at its end.
func (e *end) judge(r *request, batches []seglog.Batch) error {
	switch e.status {
	case statusBehind:
		return errBehind
	case statusDamaged:
		return errDamaged
	case statusAbsent:
		return errAbsent
	}
	if !slices.Equal(e.list, list(batches)) {
		return fmt.Errorf("%d batches came, %d are listed, or others: %w", len(batches), len(e.list), errMalformed)
	}
	for i := range batches {
		if b := &batches[i]; b.Last() < r.first || b.Base > r.last {
			return fmt.Errorf("offsets %d to %d were not asked for: %w", b.Base, b.Last(), errMalformed)
		}
	}
	return nil
}
