package wal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/vfs"
)

// bufferKept is how much of the write buffer is kept between writes, bytes.
const bufferKept = 4 << 20

// hardOf is a shard's HardState as written.
type hardOf struct {
	shard uint32
	hard  HardState
}

// ack is an append that waits for Finish.
type ack struct {
	done     func(error)
	position uint64 // bytes written when it was
	sync     bool
}

// spot is a request whose entries were encoded at offset.
type spot struct {
	request int
	offset  int64
}

// writer is the state of the hot path.
type writer struct {
	segment  *segment
	offset   int64  // where the next group goes
	synced   int64  // bytes of segment known durable
	marked   int64  // offset behind the last mark; no new one is due while it is offset
	limit    int64  // bytes up to which segment is filled: those of its file, or a whole segment's where the file grows
	position uint64 // bytes written since Open, over all segments
	durable  uint64 // of position
	wanted   bool   // a written append asked for a sync

	hards []hardOf // by shard, ascending: what the next segment begins with
	taken []request
	acks  []ack

	buf   []byte // the group being encoded
	head  int    // where its head is in buf
	base  int64  // file offset of buf[0]
	count int    // requests in it
	spots []spot

	now func() time.Time // set by Run: sync times are measured only there
}

// setHard notes a HardState that is in the log, or about to be.
func (wr *writer) setHard(shard uint32, h HardState) {
	i, ok := wr.findHard(shard)
	if !ok {
		wr.hards = slices.Insert(wr.hards, i, hardOf{shard: shard})
	}
	wr.hards[i].hard = h
}

func (wr *writer) dropHard(shard uint32) {
	if i, ok := wr.findHard(shard); ok {
		wr.hards = slices.Delete(wr.hards, i, i+1)
	}
}

func (wr *writer) findHard(shard uint32) (int, bool) {
	i := sort.Search(len(wr.hards), func(i int) bool { return wr.hards[i].shard >= shard })
	return i, i < len(wr.hards) && wr.hards[i].shard == shard
}

// Write takes everything pending and writes it, in one write unless a segment
// ends. The error is sticky.
func (w *WAL) Write() error {
	if !w.take() {
		return w.failure()
	}
	err := w.writeTaken()
	wr := &w.writer
	position := wr.position
	if err != nil {
		position = math.MaxUint64 // some of it may not have been written at all
	}
	for i := range wr.taken {
		r := &wr.taken[i]
		if r.Done != nil {
			wr.acks = append(wr.acks, ack{r.Done, position, r.Sync})
		}
		wr.wanted = wr.wanted || r.Sync
	}
	clear(wr.taken)
	wr.taken = wr.taken[:0]
	if cap(wr.buf) > bufferKept {
		wr.buf = nil
	}
	if err != nil {
		return w.fail(fmt.Errorf("write log: %w", err))
	}
	return nil
}

// writeTaken encodes and writes what was taken.
func (w *WAL) writeTaken() error {
	if err := w.leaveGrowing(); err != nil {
		return err
	}
	wr := &w.writer
	wr.begin(w.id)
	for i := range wr.taken {
		r := &wr.taken[i]
		if err := w.makeRoom(r); err != nil {
			return err
		}
		wr.encode(i, r)
	}
	return w.flush()
}

// leaveGrowing rolls to a spare as soon as there is one when the segment is a
// file that grows, where every sync has to write the file's size as well and
// takes twice as long. All of it is durable at that moment, so that the roll
// costs no sync of its own; and where a spare is being named right now, the
// next write will do.
func (w *WAL) leaveGrowing() error {
	wr := &w.writer
	if !wr.segment.grows || wr.offset == headerSize || wr.synced < wr.offset || !w.names.TryLock() {
		return nil
	}
	defer w.names.Unlock()
	if len(w.spares) == 0 {
		return nil
	}
	return w.openNext()
}

// take moves the queue to the writer; false when there is nothing to do.
func (w *WAL) take() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil || len(w.queue) == 0 {
		return false
	}
	w.queue, w.writer.taken = w.writer.taken, w.queue
	w.asked, w.bytes = false, 0
	return true
}

// size is the bytes a request takes in a group.
func (r *request) size() int64 {
	if r.forget {
		return frameSize
	}
	var n int64
	if r.Hard != nil {
		n += hardSize
	}
	for i := range r.Entries {
		n += paddedFrame(len(r.Entries[i].Data))
	}
	return n
}

// begin starts a group at the write position. In a fresh segment the segment
// header goes before it and the HardStates of all shards lead it.
func (wr *writer) begin(id uint64) {
	wr.buf, wr.base, wr.spots, wr.count = wr.buf[:0], wr.offset, wr.spots[:0], 0
	fresh := wr.offset == headerSize
	if fresh {
		wr.base = 0
		wr.buf = appendSegmentHeader(wr.buf, segmentHeader{id, wr.segment.sequence, wr.segment.previous, wr.segment.grows})
	}
	wr.head = len(wr.buf)
	wr.buf = append(wr.buf, make([]byte, frameSize)...)
	if fresh && !plant.On("wal-hardstate-not-carried") {
		for _, h := range wr.hards {
			wr.buf = appendHard(wr.buf, h.shard, h.hard, wr.segment.seed)
		}
	}
}

// encode adds a request to the group.
func (wr *writer) encode(i int, r *request) {
	seed := wr.segment.seed
	wr.count++
	if r.forget {
		wr.buf = appendFrame(wr.buf, frame{shard: r.Shard, kind: KindForget}, nil, seed)
		wr.dropHard(r.Shard)
		return
	}
	if r.Hard != nil {
		wr.buf = appendHard(wr.buf, r.Shard, *r.Hard, seed)
		wr.setHard(r.Shard, *r.Hard)
	}
	wr.spots = append(wr.spots, spot{i, wr.base + int64(len(wr.buf))})
	for k := range r.Entries {
		e := &r.Entries[k]
		wr.buf = appendFrame(wr.buf, frame{shard: r.Shard, kind: KindEntry, typ: e.Type, term: e.Term, index: e.Index}, e.Data, seed)
	}
}

// makeRoom sees to it that the request fits behind the group in the buffer:
// it may write that group and roll to the next segment. What does not even fit
// into an empty segment gets one of its own size.
func (w *WAL) makeRoom(r *request) error {
	wr := &w.writer
	for i := range r.Entries {
		if n := len(r.Entries[i].Data); n > MaxEntrySize {
			return fmt.Errorf("encode entry %d of shard %d: %d bytes are above %d", r.Entries[i].Index, r.Shard, n, MaxEntrySize)
		}
	}
	const mark = frameSize // room for one is left
	need := r.size()
	if wr.base+int64(len(wr.buf))+need <= wr.limit-mark {
		return nil
	}
	if wr.base > 0 || wr.count > 0 {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.roll(); err != nil {
			return err
		}
		wr.begin(w.id)
	}
	if int64(len(wr.buf))+need > w.o.SegmentSize-mark {
		w.mu.Lock()
		w.counters.Oversize++
		w.mu.Unlock()
	}
	return nil
}

// flush writes the group in the buffer.
func (w *WAL) flush() error {
	wr := &w.writer
	if wr.count == 0 {
		return nil
	}
	size := len(wr.buf) - wr.head
	head := frame{kind: KindGroup, term: uint64(size), index: uint64(wr.synced), sum: wr.segment.seed}
	head.put(wr.buf[wr.head:], wr.segment.seed)
	if _, err := wr.segment.file.WriteAt(wr.buf, wr.base); err != nil {
		return fmt.Errorf("write segment %s: %w", segmentName(wr.segment.sequence), err)
	}
	wr.offset = wr.base + int64(len(wr.buf))
	wr.position += uint64(size)
	w.place(size)
	return nil
}

// place makes the written group readable from the file.
func (w *WAL) place(size int) {
	wr := &w.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range wr.spots {
		r := &wr.taken[s.request]
		if r.log.gone {
			continue
		}
		offset := s.offset
		for i := range r.Entries {
			r.log.place(r.Entries[i].Index, wr.segment, offset)
			offset += paddedFrame(len(r.Entries[i].Data))
		}
		r.log.written(r.ticket)
	}
	wr.segment.end = wr.offset
	w.counters.Writes++
	w.counters.Bytes += uint64(size)
}

// roll seals the segment, which makes it durable, and opens the next one: a
// spare, or, when none is in stock, a new file that grows.
func (w *WAL) roll() error {
	wr := &w.writer
	if wr.synced < wr.offset {
		if err := w.syncSegment(); err != nil {
			return err
		}
	}
	w.names.Lock()
	defer w.names.Unlock()
	return w.openNext()
}

// openNext goes on to the next sequence number. names is held, and the segment
// before is durable.
func (w *WAL) openNext() error {
	wr := &w.writer
	next := wr.segment.sequence + 1
	file, err := w.fileOf(next)
	if err != nil {
		return err
	}
	seg := newSegment(w.id, next, file)
	seg.previous, seg.grows, seg.end = wr.offset, len(w.spares) == 0, headerSize
	limit, err := w.limitOf(seg)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if !seg.grows {
		w.spares = slices.Delete(w.spares, 0, 1)
	}
	wr.segment, wr.offset, wr.synced, wr.marked, wr.limit = seg, headerSize, 0, headerSize, limit
	w.mu.Lock()
	w.index.live = append(w.index.live, seg)
	w.counters.Rolls++
	w.mu.Unlock()
	ring(w.chores)
	return nil
}

// fileOf opens the spare of the sequence number, or makes the file where there
// is none. names is held.
func (w *WAL) fileOf(sequence uint64) (vfs.File, error) {
	name := w.path(segmentName(sequence))
	if len(w.spares) > 0 {
		file, err := w.fs.OpenReadWrite(name)
		if err != nil {
			return nil, fmt.Errorf("open spare segment: %w", err)
		}
		return file, nil
	}
	file, err := w.fs.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("create segment: %w", err), file.Close())
	}
	return file, nil
}

// limitOf is how far a segment is filled: the first spares of a log are
// smaller than a segment.
func (w *WAL) limitOf(seg *segment) (int64, error) {
	if seg.grows {
		return w.o.SegmentSize, nil
	}
	size, err := seg.file.Size()
	return min(max(size, MinSegmentSize), w.o.SegmentSize), err
}

// Sync makes what was written durable, if any of it asked for that. The error
// is sticky: after a failed sync nobody knows what the disk has.
func (w *WAL) Sync() error {
	if err := w.failure(); err != nil || !w.writer.wanted {
		return err
	}
	if err := w.syncSegment(); err != nil {
		return w.fail(fmt.Errorf("sync log: %w", err))
	}
	w.writer.wanted = false
	return nil
}

// syncSegment syncs the segment that is written to.
func (w *WAL) syncSegment() error {
	wr := &w.writer
	var begin time.Time
	if wr.now != nil {
		begin = wr.now()
		w.latency.begin(begin)
	}
	if !plant.On("nosync") {
		if err := wr.segment.file.SyncData(); err != nil {
			return fmt.Errorf("sync segment %s: %w", segmentName(wr.segment.sequence), err)
		}
	}
	wr.synced, wr.durable = wr.offset, wr.position
	var took time.Duration
	if wr.now != nil {
		took = wr.now().Sub(begin)
		w.latency.end(took)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counters.Syncs++
	if wr.now != nil {
		w.counters.observe(took)
	}
	if w.durable < wr.segment.sequence && wr.offset > headerSize {
		w.durable = wr.segment.sequence
		ring(w.chores)
	}
	return nil
}

// Finish calls Done of what has become durable, or of everything once the log
// has failed.
func (w *WAL) Finish() {
	wr := &w.writer
	err := w.failure()
	n := 0
	for ; n < len(wr.acks); n++ {
		a := &wr.acks[n]
		durable := a.position <= wr.durable || !a.sync || plant.On("wal-ack-before-sync")
		switch {
		case durable && (err == nil || a.position <= wr.durable):
			a.done(nil)
		case err != nil:
			a.done(err)
		}
		if !durable && err == nil {
			break
		}
	}
	rest := copy(wr.acks, wr.acks[n:])
	clear(wr.acks[rest:])
	wr.acks = wr.acks[:rest]
	if err != nil {
		w.refuse(err)
	}
}

// refuse answers what is queued.
func (w *WAL) refuse(err error) {
	w.mu.Lock()
	queue := w.queue
	w.queue, w.asked, w.bytes = nil, false, 0
	w.mu.Unlock()
	for i := range queue {
		if done := queue[i].Done; done != nil {
			done(err)
		}
	}
}

// Mark writes and syncs everything pending and then declares all of it
// durable, so that recovery takes later damage to it for damage and not for a
// torn write. It does nothing where nothing was written since the last mark.
// Run calls it at its end and after a second of idleness.
func (w *WAL) Mark() error {
	wr := &w.writer
	defer w.Finish()
	if err := w.Write(); err != nil || wr.offset == wr.marked {
		return err
	}
	if wr.synced < wr.offset {
		wr.wanted = true
		if err := w.Sync(); err != nil {
			return err
		}
	}
	wr.begin(w.id)
	wr.count++
	if err := w.flush(); err != nil {
		return w.fail(fmt.Errorf("write durable mark: %w", err))
	}
	wr.wanted = true
	if err := w.Sync(); err != nil {
		return err
	}
	wr.marked = wr.offset
	return nil
}
