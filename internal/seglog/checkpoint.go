package seglog

import (
	"encoding/binary"
	"fmt"
	"math"
	"path"

	"github.com/tidings-io/tidings/internal/plant"
)

const stateVersion = 1

// deadFile is a file that left the log and may still be named by a checkpoint.
type deadFile struct {
	name    string
	state   uint32 // the last state that may name it
	without int    // complete checkpoints that do not
}

// Checkpoint makes every batch with a Raft index up to index durable in synced
// files, or puts it into the state when those that are in memory take up at
// most inlineMax bytes. The state describes the log as of that index: Restore
// makes it again. Flusher only; the index never goes down. An error says that
// nothing of the kind can be promised.
func (l *Log) Checkpoint(index uint64, inlineMax int) ([]byte, error) {
	return l.AppendCheckpoint(nil, index, inlineMax)
}

// AppendCheckpoint is Checkpoint with the state appended to dst.
func (l *Log) AppendCheckpoint(dst []byte, index uint64, inlineMax int) ([]byte, error) {
	if l.store.failed != nil {
		return dst, l.store.failed
	}
	if index < l.journal.from {
		return dst, fmt.Errorf("checkpoint log %v: index %d is below %d", l.id, index, l.journal.from)
	}
	l.release()
	if !plant.On("checkpoint-without-flush") {
		if err := l.settle(index, inlineMax); err != nil {
			return dst, fmt.Errorf("checkpoint log %v: %w", l.id, err)
		}
	}
	segs, err := l.cutSegments(index)
	if err != nil {
		return dst, fmt.Errorf("checkpoint log %v: %w", l.id, err)
	}
	dst = l.appendState(dst, index, inlineMax, segs)
	l.states++
	l.pending = true
	return dst, nil
}

// settleTail flushes a tail that is too big for the state.
func (l *Log) settleTail(index uint64, inlineMax int) error {
	if l.tailUpTo(index) <= int64(inlineMax) {
		return nil
	}
	_, err := l.flush(index, math.MaxInt64)
	return err
}

// settle flushes a tail that is too big for the state, and syncs.
func (l *Log) settle(index uint64, inlineMax int) error {
	if err := l.settleTail(index, inlineMax); err != nil {
		return err
	}
	for _, g := range l.segs {
		if g.dirty {
			if err := l.store.sync(g); err != nil {
				return err
			}
		}
	}
	return l.syncNames()
}

// tailUpTo is how many bytes of batches up to a Raft index are in memory.
func (l *Log) tailUpTo(index uint64) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.tail.live() {
		if b.Index > index {
			break
		}
		bytes += int64(len(b.Data))
	}
	return bytes
}

// savedSegment is a segment as a state names it.
type savedSegment struct {
	first, last           int64
	gen                   uint32
	size                  int64
	firstIndex, lastIndex uint64
	lastNs                int64
	sealed                bool
}

// cutSegments is the list of segments as of a Raft index.
func (l *Log) cutSegments(index uint64) ([]savedSegment, error) {
	segs := make([]savedSegment, 0, len(l.segs))
	for _, g := range l.segs {
		if g.firstIndex > index {
			break
		}
		saved := savedSegment{g.first, g.last, g.gen, g.size, g.firstIndex, g.lastIndex, g.lastNs, g.sealed}
		if g.lastIndex > index {
			if err := l.cutSegment(&saved, g, index); err != nil {
				return nil, err
			}
		}
		segs = append(segs, saved)
	}
	return segs, nil
}

// cutSegment finds where a segment stood at a Raft index.
func (l *Log) cutSegment(saved *savedSegment, g *segment, index uint64) error {
	v := viewOf(g)
	h, err := l.store.files.acquire(l, g, g.sealed)
	defer l.store.files.release(h)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	x, err := l.indexOf(h, v)
	if err != nil {
		return err
	}
	m, found := x.seekIndex(index)
	w := walk(h.file, l.seed, v, m, found)
	defer w.free()
	saved.sealed = false
	for {
		it, ok, err := w.next()
		if err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
		if !ok || !it.damaged && it.index > index {
			return nil
		}
		if saved.size = it.end; !it.damaged {
			saved.last, saved.lastIndex, saved.lastNs = it.last(), it.index, it.timeNs
		}
	}
}

// appendState encodes the log as of a Raft index. The start is not in it: it
// may have moved since, over messages that were parked since, and a restored
// log must not take them for unneeded before replay has parked them.
func (l *Log) appendState(dst []byte, index uint64, inlineMax int, segs []savedSegment) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.journal.forward(index)
	dst = append(dst, stateVersion)
	dst = binary.AppendUvarint(dst, index)
	dst = binary.AppendUvarint(dst, uint64(end))
	dst = binary.AppendUvarint(dst, uint64(len(segs)))
	for i := range segs {
		dst = segs[i].append(dst)
	}
	inline := l.tail.live()
	n, bytes := 0, 0
	for n < len(inline) && inline[n].Index <= index {
		bytes += len(inline[n].Data)
		n++
	}
	if bytes > inlineMax { // only with the planted bug
		n = 0
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for i := range inline[:n] {
		dst = inline[i].append(dst)
	}
	if len(inline) == 0 {
		l.tail.batches, l.tail.head = nil, 0 // very many logs may be idle from now on
	}
	return dst
}

func (g *savedSegment) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(g.first))
	dst = binary.AppendUvarint(dst, uint64(g.last-g.first))
	dst = binary.AppendUvarint(dst, uint64(g.gen))
	dst = binary.AppendUvarint(dst, uint64(g.size))
	dst = binary.AppendUvarint(dst, g.firstIndex)
	dst = binary.AppendUvarint(dst, g.lastIndex-g.firstIndex)
	dst = binary.AppendVarint(dst, g.lastNs)
	if g.sealed {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func (b *Batch) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(b.Base))
	dst = binary.AppendUvarint(dst, uint64(b.Count))
	dst = binary.AppendUvarint(dst, uint64(b.Epoch))
	dst = binary.AppendUvarint(dst, b.Index)
	dst = binary.AppendVarint(dst, b.TimeNs)
	dst = binary.AppendUvarint(dst, uint64(len(b.Data)))
	return append(dst, b.Data...)
}

// Published tells that the checkpoint which holds the log's last state is
// complete: durable, the newest, and with the one before it all that recovery
// will ever look at. Files that neither names are removed. For a dropped log,
// which is in no checkpoint any more, it is called with each complete
// checkpoint that was taken after the drop, until it reports that nothing is
// left. Flusher only.
func (l *Log) Published() (done bool) {
	l.mu.Lock()
	dropped := l.dropped
	l.mu.Unlock()
	if dropped {
		l.release()
	}
	gone := dropped && !l.pending
	kept := l.dead[:0]
	for _, d := range l.dead {
		if gone || d.state < l.states {
			d.without++
		}
		if d.without < 2 || !l.removeFile(d.name) {
			kept = append(kept, d)
		}
	}
	clear(l.dead[len(kept):])
	l.dead = kept
	l.pending = false
	if l.unlisted {
		l.unlisted = !l.removeUnknown()
	}
	if dropped && len(l.dead) == 0 {
		l.leave()
		return true
	}
	return false
}

// release takes segments out of the log that are below the start and not
// pinned. Flusher only.
func (l *Log) release() {
	var kept []*segment
	for i, g := range l.segs {
		need := l.needed(g.first, g.last)
		if !need && kept == nil {
			kept = append(make([]*segment, 0, len(l.segs)-1), l.segs[:i]...)
		}
		if need && kept != nil {
			kept = append(kept, g)
		}
	}
	if kept != nil {
		l.replace(kept)
	}
}

// replace sets a new list of segments; what is not in it any more is dead.
func (l *Log) replace(segs []*segment) {
	old := l.segs
	alive := make(map[*segment]bool, len(segs))
	for _, g := range segs {
		alive[g] = true
	}
	if len(segs) == 0 {
		segs = nil
	}
	l.mu.Lock()
	l.segs = segs
	l.mu.Unlock()
	for _, g := range old {
		if alive[g] {
			continue
		}
		g.dead.Store(true)
		l.store.files.forget(g)
		if g.dirty {
			_ = l.store.sync(g) // only lets go of the file
		}
		l.fileBytes.Add(-g.size)
		l.dead = append(l.dead, deadFile{name: g.name(), state: l.states})
		l.store.counts.segments.Add(-1)
		l.store.counts.dead.Add(1)
	}
}

// removeFile removes a dead file; false when that must be tried again.
func (l *Log) removeFile(name string) bool {
	s := l.store
	if err := ignoreMissing(s.fs.Remove(path.Join(l.dir(), name))); err != nil {
		s.log.Warn("remove dead segment", "file", path.Join(l.dir(), name), "error", err)
		return false
	}
	s.counts.dead.Add(-1)
	s.counts.removed.Add(1)
	return true
}

// removeUnknown removes files that the log does not know: a crash left them, or
// an older checkpoint than the last two named them.
func (l *Log) removeUnknown() bool {
	s := l.store
	if s.grafting(l.id) {
		return false
	}
	names, err := readDir(s.fs, l.dir())
	if err != nil {
		s.log.Warn("list log folder", "dir", l.dir(), "error", err)
		return false
	}
	known := make(map[string]bool, len(l.segs)+len(l.dead))
	for _, g := range l.segs {
		known[g.name()] = true
	}
	for _, d := range l.dead {
		known[d.name] = true
	}
	for _, name := range names {
		if _, _, ours := parseName(name); !ours || known[name] {
			continue
		}
		if err := ignoreMissing(s.fs.Remove(path.Join(l.dir(), name))); err != nil {
			s.log.Warn("remove unknown segment", "file", path.Join(l.dir(), name), "error", err)
			return false
		}
		s.counts.swept.Add(1)
	}
	return true
}

// leave takes a dropped log's folders away and forgets it.
func (l *Log) leave() {
	s := l.store
	_ = s.fs.Remove(l.dir())           // missing, or not empty: Sweep sees to it
	_ = s.fs.Remove(path.Dir(l.dir())) // other partitions may be in it
	s.mu.Lock()
	if s.logs[l.id] == l {
		delete(s.logs, l.id)
	}
	s.mu.Unlock()
}
