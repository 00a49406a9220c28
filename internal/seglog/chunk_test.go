package seglog

import (
	"bytes"
	"testing"
)

func TestChunkIsUsedAgain(t *testing.T) {
	p := NewChunkPool(true)
	for _, n := range []int{1, 1 << chunkBitsMin, 70_000, 1 << chunkBitsMax, 1<<chunkBitsMax + 1} {
		c := p.Get(n)
		if len(c.Bytes()) != n {
			t.Fatalf("a chunk of %d bytes, want %d", len(c.Bytes()), n)
		}
		clear(c.Bytes())
		b := c.Bytes()
		c.Hold()
		c.Release()
		if b[0] != 0 || p.Lent() != 1 {
			t.Fatal("a chunk that is held was given back")
		}
		c.Release()
		if !bytes.Equal(b, bytes.Repeat([]byte{0xdb}, n)) || p.Lent() != 0 {
			t.Fatal("a chunk was not given back")
		}
		for _, misuse := range []func(){c.Release, c.Hold} {
			func() {
				defer func() {
					if recover() == nil {
						t.Error("a chunk that was given back can be held and released")
					}
				}()
				c.refs.Store(0)
				misuse()
			}()
		}
	}
	var none *Chunk
	none.Hold()
	none.Release()
}

// TestReadsTakeWholeBatches: whatever the size of batches, reading a log once
// reads few bytes twice.
func TestReadsTakeWholeBatches(t *testing.T) {
	for _, records := range []int{1, 10, 100, 500, 2000} {
		s := open(t, disk(), Options{})
		l := s.New(testID, 0)
		want := fill(l, 1+4_000/records, records, 1000, 1)
		if _, err := l.Checkpoint(1<<40, 0); err != nil {
			t.Fatal(err)
		}
		got, _ := readAll(t, l, 0, 256<<10)
		wantBatches(t, got, want)
		if size, read := l.Bytes(), s.Stats().FileBytes; read > size+size/16 {
			t.Errorf("%d records in a batch: %d bytes read of a log of %d", records, read, size)
		}
		if s.chunks.Lent() != 0 {
			t.Errorf("%d chunks were kept", s.chunks.Lent())
		}
	}
}

// TestReadChunkDoesNotAllocate once memory has been lent.
func TestReadChunkDoesNotAllocate(t *testing.T) {
	if PoisonChunks {
		t.Skip("the race detector's pools forget")
	}
	s := open(t, disk(), Options{})
	l := s.New(testID, 0)
	fill(l, 2000, 10, 200, 1)
	if _, err := l.Checkpoint(1<<40, 0); err != nil {
		t.Fatal(err)
	}
	var bs []Batch
	next := int64(0)
	step := func() {
		var chunk *Chunk
		var err error
		if bs, chunk, err = l.ReadChunk(bs[:0], next, 64<<10); err != nil || len(bs) == 0 {
			t.Fatalf("read at %d: %d batches, %v", next, len(bs), err)
		}
		next = (bs[len(bs)-1].Last() + 1) % 15_000
		chunk.Release()
	}
	for range 200 {
		step()
	}
	if n := testing.AllocsPerRun(100, step); n >= 1 {
		t.Errorf("%.1f allocations in a read", n)
	}
}
