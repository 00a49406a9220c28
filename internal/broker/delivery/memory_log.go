package delivery

import (
	"sort"
	"sync"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Bounds of a MemoryLog unless told otherwise: nsqd's --mem-queue-size, and
// bytes.
const (
	MemoryLogCountMax = 10_000
	MemoryLogBytesMax = 64 << 20
)

// MemoryLogStats is a snapshot of a MemoryLog's figures.
type MemoryLogStats struct {
	Depth        int64 // messages that no channel has been given
	MessageCount int64 // messages published
	MessageBytes int64 // bytes of the bodies published
	Bytes        int64 // bytes of batches kept
	Dropped      uint64
	Paused       bool
}

var _ Log = (*MemoryLog)(nil)

// MemoryLog is the log of an ephemeral topic: batches in memory, each message
// once for all channels. It plays the shard's part for the lanes that read it
// (with a Memory as their Shard).
//
// Its bounds drop the oldest messages, where nsqd drops the newest: a channel
// that lags loses its own oldest (Config.MaxLag, which should be CountMax) and
// takes nothing from faster ones; without a channel the topic keeps its newest
// CountMax messages; beyond BytesMax the oldest batch goes whoever needs it.
type MemoryLog struct {
	countMax, bytesMax int64

	mu       sync.Mutex
	batches  []seglog.Batch
	start    int64 // below it all is gone
	end      int64
	handOver int64 // the first message not given to channels
	paused   bool
	lanes    []*Lane
	lastNs   int64
	bytes    int64
	trimAt   int64 // bytes at which to look for what nobody needs
	bodies   int64 // bytes of bodies ever
	dropped  uint64
}

// NewMemoryLog makes an empty log; 0 means the default of each bound.
func NewMemoryLog(countMax, bytesMax int64) *MemoryLog {
	if countMax <= 0 {
		countMax = MemoryLogCountMax
	}
	if bytesMax <= 0 {
		bytesMax = MemoryLogBytesMax
	}
	return &MemoryLog{countMax: countMax, bytesMax: bytesMax, trimAt: trimBytes}
}

// trimBytes is how much may be published before the log looks for what it can
// forget: that, or a quarter of what it keeps.
const trimBytes = 64 << 10

// Append publishes a record batch of count records and returns the offset of
// the first. The log keeps data, which must not change any more; bodies is how
// many bytes of it are the messages' bodies. now is unix ns.
func (m *MemoryLog) Append(data []byte, count int32, bodies, now int64) (base int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	base = m.end
	at := max(now, m.lastNs+1)
	m.lastNs = at + int64(count) - 1
	m.batches = append(m.batches, seglog.Batch{Base: base, Count: count, TimeNs: at, Data: data})
	m.end += int64(count)
	m.bytes += int64(len(data))
	m.bodies += bodies
	m.handOn()
	if over := m.end - m.handOver - m.countMax; over > 0 {
		m.dropped += uint64(over)
		m.handOver += over
	}
	if m.bytes >= m.trimAt {
		m.trim()
	}
	return base
}

// handOn gives the channels what is there, if there are any and the topic is
// not paused.
func (m *MemoryLog) handOn() {
	if m.paused || len(m.lanes) == 0 {
		return
	}
	m.handOver = m.end
	for _, l := range m.lanes {
		l.Limit(m.end)
	}
}

// trim forgets batches that no channel needs, and, beyond the bound in bytes,
// the oldest ones.
func (m *MemoryLog) trim() {
	keep := m.handOver
	for _, l := range m.lanes {
		keep = min(keep, l.Floor())
	}
	n := 0
	for n < len(m.batches) && (m.batches[n].Last() < keep || m.bytes > m.bytesMax) {
		b := &m.batches[n]
		if b.Last() >= keep {
			m.dropped += uint64(b.Last() + 1 - max(keep, b.Base))
		}
		m.start = b.Last() + 1
		m.bytes -= int64(len(b.Data))
		n++
	}
	kept := copy(m.batches, m.batches[n:])
	clear(m.batches[kept:])
	m.batches = m.batches[:kept]
	m.handOver = max(m.handOver, m.start)
	m.trimAt = min(m.bytes+max(m.bytes/4, trimBytes), m.bytesMax+1)
}

// ReadChunk implements Log. There is never a chunk: the garbage collector keeps
// what is read.
func (m *MemoryLog) ReadChunk(dst []seglog.Batch, offset int64, maxBytes int) ([]seglog.Batch, *seglog.Chunk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := sort.Search(len(m.batches), func(i int) bool { return m.batches[i].Last() >= offset })
	end := first
	for size := 0; end < len(m.batches) && (end == first || size+len(m.batches[end].Data) <= maxBytes); end++ {
		size += len(m.batches[end].Data)
	}
	return append(dst, m.batches[first:end]...), nil, nil
}

// Start implements Log.
func (m *MemoryLog) Start() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.start
}

// Attach begins a channel's lane at the first message that no channel has been
// given.
func (m *MemoryLog) Attach(l *Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lanes = append(m.lanes, l)
	from := m.handOver
	if !m.paused {
		m.handOver = m.end
	}
	l.Begin(partition.Start{Floor: from, Limit: m.handOver})
}

// Detach stops a channel's lane.
func (m *MemoryLog) Detach(l *Lane, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.lanes {
		if other == l {
			m.lanes = append(m.lanes[:i:i], m.lanes[i+1:]...)
			l.Stop(err)
			break
		}
	}
	m.trim()
}

// SetPaused stops handing messages to channels, or goes on with it.
func (m *MemoryLog) SetPaused(paused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = paused
	m.handOn()
}

// Empty drops the messages that no channel has been given.
func (m *MemoryLog) Empty() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lanes {
		l.Skip(m.handOver, m.end)
		l.Limit(m.end)
	}
	m.handOver = m.end
	m.trim()
}

// EmptyLane drops what one channel has been given.
func (m *MemoryLog) EmptyLane(l *Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.Reset(partition.Start{Floor: m.handOver, Limit: m.handOver})
	m.trim()
}

// Stats returns the log's figures.
func (m *MemoryLog) Stats() MemoryLogStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return MemoryLogStats{
		Depth:        m.end - m.handOver,
		MessageCount: m.end,
		MessageBytes: m.bodies,
		Bytes:        m.bytes,
		Dropped:      m.dropped,
		Paused:       m.paused,
	}
}
