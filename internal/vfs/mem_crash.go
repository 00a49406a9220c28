package vfs

import (
	"cmp"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
)

// sectorSize is what a disk writes whole or not at all, in bytes.
const sectorSize = 512

// Loss says what a crash met and what it did, for tests that must know that
// they have seen the rare cases.
type Loss struct {
	Files      int // files with un-synced changes that still have a name
	Changes    int // their un-synced writes and truncates
	Pieces     int // 512-byte pieces of their un-synced writes
	Early      int // of Pieces, those that had gone through by themselves
	Torn       int // files of which some pieces went through and some did not
	Names      int // changes of names without SyncDir
	EarlyNames int // of Names, those that had gone through by themselves
}

// Crash is a power loss and the start after it: what was not synced is gone,
// every handle and lock from before is dead, and FailAfter is disarmed.
//
// With a random source, parts of what was not synced have gone through early:
// any 512-byte pieces of writes, truncates and changes of names (these two in
// order, per file and per folder). A write behind a truncate that did not go
// through did not either. With nil, nothing has.
func (m *Mem) Crash(rng *rand.Rand) Loss {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	m.dead, m.failAt = false, 0
	var loss Loss
	m.crashNames(rng, &loss)
	m.root.crash(rng, &loss)
	m.size = 0
	m.root.each(func(n *memNode) { m.size += n.data.size })
	return loss
}

// Kill is the death of the process on a machine that stays up: every handle and
// lock is gone and FailAfter is disarmed, but what was not synced is still
// there, for a later sync or a later Crash.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	m.dead, m.failAt = false, 0
	m.size = 0
	m.root.each(func(n *memNode) {
		n.opens, n.locked = 0, false
		m.size += n.data.size
	})
}

// each calls fn for every file under n.
func (n *memNode) each(fn func(*memNode)) {
	if n.dir == nil {
		fn(n)
		return
	}
	for _, child := range n.dir.names {
		child.each(fn)
	}
}

// crash brings n and all under it to the durable state, in the order of names
// so that the random source is used the same way every time.
func (n *memNode) crash(rng *rand.Rand, loss *Loss) {
	n.links, n.opens, n.locked = 1, 0, false
	if n.dir == nil {
		n.data.crash(rng, loss)
		return
	}
	for _, name := range n.dir.sorted() {
		n.dir.names[name].crash(rng, loss)
	}
}

// crashNames makes a prefix of each folder's pending changes durable and drops
// the rest.
func (m *Mem) crashNames(rng *rand.Rand, loss *Loss) {
	nodes := m.dirs()
	kept := make(map[*memDir]int, len(nodes))
	for _, n := range nodes {
		kept[n.dir] = prefix(rng, len(n.dir.pending))
	}
	for shorten(nodes, kept) {
	}
	for _, n := range nodes {
		d := n.dir
		loss.Names += len(d.pending)
		loss.EarlyNames += kept[d]
		for _, op := range d.pending[:kept[d]] {
			op.settle(d)
		}
		d.pending = nil
		d.names = maps.Clone(d.durable)
	}
}

// prefix chooses how many of n changes went through; none and all are frequent.
func prefix(rng *rand.Rand, n int) int {
	if rng == nil || n == 0 {
		return 0
	}
	switch rng.IntN(3) {
	case 0:
		return 0
	case 1:
		return n
	default:
		return rng.IntN(n + 1)
	}
}

// shorten cuts prefixes that no file system would leave: a rename between two
// folders gone through in only one of them, or a folder removed without what
// left it before. It reports whether it had to.
func shorten(nodes []*memNode, kept map[*memDir]int) (changed bool) {
	for _, n := range nodes {
		for i, op := range n.dir.pending[:kept[n.dir]] {
			if !op.whole(n.dir, kept) {
				kept[n.dir], changed = i, true
				break
			}
		}
	}
	return changed
}

// whole reports whether a change that went through in d did so elsewhere too.
func (op *memDirOp) whole(d *memDir, kept map[*memDir]int) bool {
	if op.to == nil {
		removed := op.node.dir
		return removed == nil || kept[removed] == len(removed.pending)
	}
	other := op.from
	if other == d {
		other = op.to
	}
	return other == nil || other == d || slices.Index(other.pending, op) < kept[other]
}

// dirs lists every folder that has or may get a name, in the order they were
// made.
func (m *Mem) dirs() []*memNode {
	seen := map[*memNode]bool{}
	var visit func(n *memNode)
	visit = func(n *memNode) {
		if n.dir == nil || seen[n] {
			return
		}
		seen[n] = true
		for _, child := range n.dir.names {
			visit(child)
		}
		for _, child := range n.dir.durable {
			visit(child)
		}
		for _, op := range n.dir.pending {
			visit(op.node)
		}
	}
	visit(m.root)
	return slices.SortedFunc(maps.Keys(seen), func(a, b *memNode) int { return cmp.Compare(a.id, b.id) })
}

// redo is a change that was taken back, with the bytes it wrote.
type redo struct {
	memChange
	data []byte
}

// crash brings the content to its durable state.
func (d *memData) crash(rng *rand.Rand, loss *Loss) {
	if len(d.pending) == 0 {
		return
	}
	loss.Files++
	loss.Changes += len(d.pending)
	changes := d.rollBack()
	d.sync() // nothing is pending any more; gives the buffers back
	early, pieces := 0, 0
	if rng != nil {
		early = d.replay(changes, rng)
	}
	for _, c := range changes {
		if !c.truncate {
			pieces += int((c.end+sectorSize-1)/sectorSize - c.off/sectorSize)
		}
	}
	loss.Pieces += pieces
	loss.Early += early
	if early > 0 && early < pieces {
		loss.Torn++
	}
}

// rollBack takes every pending change back and returns them, oldest first.
func (d *memData) rollBack() []redo {
	changes := make([]redo, len(d.pending))
	for i := len(d.pending) - 1; i >= 0; i-- {
		changes[i].memChange = d.pending[i]
		if c := d.pending[i]; !c.truncate {
			changes[i].data = d.appendBytes(nil, c.off, c.end)
		}
		d.undoLast()
	}
	return changes
}

// replay lets parts of the changes go through and returns how many pieces.
func (d *memData) replay(changes []redo, rng *rand.Rand) (early int) {
	chances := [...]float64{0, 0.1, 0.5, 0.9, 1}
	chance := chances[rng.IntN(len(chances))]
	truncates := 0
	for _, c := range changes {
		if c.truncate {
			truncates++
		}
	}
	truncates = prefix(rng, truncates)
	reached := d.size // the size the changes lead to
	for _, c := range changes {
		if c.truncate {
			if truncates == 0 {
				break
			}
			truncates--
			reached = c.off
			d.resize(c.off)
			continue
		}
		reached = max(reached, c.end)
		early += d.replayPieces(c, chance, rng)
	}
	// The size may have gone through ahead of the bytes: then zeros stand there.
	if d.size < reached && rng.IntN(4) == 0 {
		d.resize(reached)
	}
	return early
}

// replayPieces writes each 512-byte piece of a write with a chance.
func (d *memData) replayPieces(c redo, chance float64, rng *rand.Rand) (early int) {
	for off := c.off; off < c.end; {
		end := min(c.end, (off/sectorSize+1)*sectorSize)
		if rng.Float64() < chance {
			d.put(c.data[off-c.off:end-c.off], off)
			early++
		}
		off = end
	}
	return early
}

// Flip inverts one bit (0–7) of a byte as it is on the disk. Un-synced bytes
// lie above it and hide it until a crash; a sync of them heals it. The offset
// must lie within the durable size, else the error matches fs.ErrInvalid.
func (m *Mem) Flip(name string, offset int64, bit uint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return memError("flip", name, err)
	}
	if n.dir != nil || !n.data.flip(offset, 1<<(bit%8)) {
		return memError("flip", name, fs.ErrInvalid)
	}
	return nil
}

// DurableSize is the size a file has on the disk, in bytes: the bound of Flip.
func (m *Mem) DurableSize(name string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return 0, memError("size", name, err)
	}
	return n.data.durableSize(), nil
}

func (d *memData) durableSize() int64 {
	if len(d.pending) > 0 {
		return d.pending[0].size
	}
	return d.size
}

// flip inverts bits of a durable byte: it lies in the journal of the first
// pending change that replaced it, or, untouched, among the newest bytes.
func (d *memData) flip(off int64, mask byte) bool {
	if off < 0 || off >= d.durableSize() {
		return false
	}
	for _, c := range d.pending {
		end := min(c.end, c.size)
		if c.truncate {
			end = c.size
		}
		if off < c.off || off >= end {
			continue
		}
		if keep := pagesFor(c.off); c.truncate && off >= int64(keep)*pageSize {
			flipPage(c.tail, off-int64(keep)*pageSize, mask)
		} else {
			d.undo[int64(c.undo)+off-c.off] ^= mask
		}
		return true
	}
	flipPage(d.pages, off, mask)
	return true
}

func flipPage(pages []*memPage, off int64, mask byte) {
	page := &pages[off/pageSize]
	if *page == nil {
		*page = new(memPage)
	}
	(*page)[off%pageSize] ^= mask
}
