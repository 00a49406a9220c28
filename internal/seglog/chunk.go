package seglog

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Sizes of pooled chunks: powers of two in bytes. A larger one is made for its
// reader and left to the garbage collector.
const (
	chunkBitsMin = 12
	chunkBitsMax = 21
)

// ChunkPool lends memory to readers of files. What is given back is lent again
// while it is warm, and left to the garbage collector when two of its cycles
// went by without use: so the pool never holds more than readers held at once.
// Its methods may be called from any goroutine.
type ChunkPool struct {
	poison bool
	lent   atomic.Int64
	sizes  [chunkBitsMax - chunkBitsMin + 1]sync.Pool
}

// NewChunkPool makes an empty pool. poison has it overwrite what is given back,
// so that tests find whoever goes on reading it.
func NewChunkPool(poison bool) *ChunkPool { return &ChunkPool{poison: poison} }

// Get lends a chunk of n bytes, of unknown content. The caller holds the one
// reference to it.
func (p *ChunkPool) Get(n int) *Chunk {
	p.lent.Add(1)
	size := max(bits.Len(uint(n-1)), chunkBitsMin)
	if size > chunkBitsMax {
		c := &Chunk{pool: p, size: -1, mem: make([]byte, n)}
		c.refs.Store(1)
		return c
	}
	c, _ := p.sizes[size-chunkBitsMin].Get().(*Chunk)
	if c == nil {
		c = &Chunk{pool: p, size: size - chunkBitsMin, mem: make([]byte, 1<<size)}
	}
	c.mem = c.mem[:n]
	c.refs.Store(1)
	return c
}

// Lent is how many chunks are out: those that nobody gave back, and that the
// garbage collector may have taken, are among them.
func (p *ChunkPool) Lent() int64 { return p.lent.Load() }

// Chunk is memory that several readers share: it goes back to its pool with the
// last of their references, and its bytes must not be looked at any more. All
// methods do nothing on a nil Chunk, which stands for bytes that stay as long
// as they are referred to.
type Chunk struct {
	pool *ChunkPool
	refs atomic.Int32
	size int // index of ChunkPool.sizes; -1: not pooled
	mem  []byte
}

// Bytes is the memory, as long as was asked for.
func (c *Chunk) Bytes() []byte { return c.mem }

// Hold adds a reference. The caller has one already.
func (c *Chunk) Hold() {
	if c != nil && c.refs.Add(1) <= 1 {
		panic("seglog: hold of a chunk that was given back")
	}
}

// Release gives a reference up. A chunk that is never released costs nothing
// but its use by others: the garbage collector takes it.
func (c *Chunk) Release() {
	if c == nil {
		return
	}
	left := c.refs.Add(-1)
	if left > 0 {
		return
	}
	if left < 0 {
		panic("seglog: release of a chunk that was given back")
	}
	c.pool.lent.Add(-1)
	if c.pool.poison {
		c.mem = c.mem[:cap(c.mem)]
		for i := range c.mem {
			c.mem[i] = 0xdb
		}
	}
	if c.size >= 0 {
		c.pool.sizes[c.size].Put(c)
	}
}
