package wal

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"syscall"

	"github.com/tidings-io/tidings/internal/vfs"
)

// zeroChunk is how much of a spare one unit of work writes and syncs, bytes:
// little enough not to stall the hot path's sync on the same device.
const zeroChunk = 1 << 20

var zeros [zeroChunk]byte

// builder is the spare in the making.
type builder struct {
	file   vfs.File
	size   int64 // bytes zeroed
	target int64 // bytes it shall have
}

// firstSpare is the size of the first spare of a log as a fraction of a
// segment. Each one after it is twice as large, up to a whole segment: a young
// log soon has a file in which a sync is cheap, a log that is hardly used does
// not zero what it will never need, and one under load grows its stock faster
// than it fills it.
const firstSpare = 16

// Maintain does one unit of background work and says whether there was one:
// it takes a released segment out of the log, which becomes a spare, or
// zeroes a piece of a new spare. Want of space is no error here: the log goes
// on with the spares it has, and the next call tries again. Any other error is
// sticky.
func (w *WAL) Maintain() (bool, error) {
	if err := w.failure(); err != nil {
		return false, err
	}
	did, err := w.recycle()
	if err == nil && !did {
		did, err = w.stock()
	}
	if err != nil {
		return false, w.fail(fmt.Errorf("maintain log: %w", err))
	}
	return did, nil
}

// recycle takes the oldest segment out of the log when nobody needs it and its
// successor, with the HardStates of all shards, is durable. Always the oldest
// and one at a time, each made durable before the next, so that the names stay
// dense.
func (w *WAL) recycle() (bool, error) {
	w.names.Lock()
	defer w.names.Unlock()
	seg, newest := w.detach()
	if seg == nil {
		return false, nil
	}
	size, err := seg.file.Size()
	if err := errors.Join(err, seg.file.Close()); err != nil {
		return false, err
	}
	name := w.path(segmentName(seg.sequence))
	// Twice the stock: zeroing fills it to the half, so a log that rolls and
	// releases in turn comes to live on recycled segments alone.
	if len(w.spares) >= 2*w.o.Spares || size < w.o.SegmentSize {
		return true, w.remove(name)
	}
	spare := newest + uint64(len(w.spares)) + 1
	if err := w.fs.Rename(name, w.path(segmentName(spare))); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return true, w.remove(name)
		}
		return false, err
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		return false, err
	}
	if size > w.o.SegmentSize {
		// Only now: under its old name it was still a live segment to recovery.
		if err := w.shrink(spare); err != nil {
			return false, err
		}
	}
	w.spares = append(w.spares, spare)
	w.count(func(s *Stats) { s.Recycles++ })
	return true, nil
}

// detach takes the oldest segment out of the index, if it may go. It also
// returns the newest live sequence number.
func (w *WAL) detach() (seg *segment, newest uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	live := w.index.live
	newest = live[len(live)-1].sequence
	seg = live[0]
	// live[1] carries the HardStates once its first group is durable.
	if len(live) < 2 || live[1].sequence > w.durable || seg.refs.Load() > 0 || w.index.pinned(seg) {
		return nil, newest
	}
	w.index.live = append(live[:0], live[1:]...)
	for _, s := range w.index.shards {
		s.leave(seg)
	}
	return seg, newest
}

// remove gives the space of a released segment back.
func (w *WAL) remove(name string) error {
	if err := w.fs.Remove(name); err != nil {
		return err
	}
	w.count(func(s *Stats) { s.Removed++ })
	return w.fs.SyncDir(w.dir)
}

// shrink gives a segment that was oversize the usual size.
func (w *WAL) shrink(sequence uint64) error {
	file, err := w.fs.OpenReadWrite(w.path(segmentName(sequence)))
	if err != nil {
		return err
	}
	err = file.Truncate(w.o.SegmentSize)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// stock zeroes a piece of the next spare.
func (w *WAL) stock() (bool, error) {
	w.names.Lock()
	full := len(w.spares) >= w.o.Spares
	w.names.Unlock()
	if full && w.builder.file == nil {
		return false, nil
	}
	err := w.zero()
	if err == nil && w.builder.size >= w.builder.target {
		err = w.finishSpare()
	}
	if errors.Is(err, syscall.ENOSPC) {
		w.count(func(s *Stats) { s.NoSpace++ })
		return false, w.abandonSpare()
	}
	return err == nil, err
}

// zero writes and syncs one chunk, into a new file if there is none.
func (w *WAL) zero() error {
	b := &w.builder
	if b.file == nil {
		file, err := w.fs.Create(w.path(spareNew))
		if err != nil {
			return err
		}
		b.file, b.size, b.target = file, 0, w.spareSize()
	}
	n := min(zeroChunk, b.target-b.size)
	if _, err := b.file.WriteAt(zeros[:n], b.size); err != nil {
		return err
	}
	b.size += n
	return b.file.SyncData()
}

// spareSize is the size of the next spare to be zeroed.
func (w *WAL) spareSize() int64 {
	if w.builder.target > 0 {
		return min(2*w.builder.target, w.o.SegmentSize)
	}
	w.mu.Lock()
	grows := w.current().grows
	w.mu.Unlock()
	if !grows {
		return w.o.SegmentSize
	}
	return max(w.o.SegmentSize/firstSpare, MinSegmentSize)
}

// finishSpare gives the spare the next name.
func (w *WAL) finishSpare() error {
	b := &w.builder
	file := b.file
	b.file = nil
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	w.names.Lock()
	defer w.names.Unlock()
	w.mu.Lock()
	next := w.current().sequence + uint64(len(w.spares)) + 1
	w.mu.Unlock()
	if err := w.fs.Rename(w.path(spareNew), w.path(segmentName(next))); err != nil {
		return err
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		return err
	}
	w.spares = append(w.spares, next)
	return nil
}

// abandonSpare gives the space of a spare that did not come to be back.
func (w *WAL) abandonSpare() error {
	var err error
	if w.builder.file != nil {
		err = w.builder.file.Close()
		w.builder.file = nil
		w.builder.target /= 2 // the next one is as large
	}
	if gone := w.fs.Remove(w.path(spareNew)); !errors.Is(gone, iofs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// count changes the counters.
func (w *WAL) count(change func(*Stats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.counters)
}
