package sim

import (
	"errors"
	"io/fs"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/wal"
)

func stack() string { return string(debug.Stack()) }

// crash is a power failure.
func (s *Sim) crash() {
	n := s.node
	phase, unsynced := n.phase, n.unsynced
	s.end()
	loss := s.disk.Crash(s.rng)
	s.note(evCrash, int64(phase), int64(loss.Pieces), int64(loss.Early))
	if unsynced && loss.Pieces > loss.Early {
		s.count(UnsyncedLost, 1)
	}
	if s.full && s.chance(2) {
		s.setCapacity(0)
	}
}

// kill is the end of the process on a machine that stays up.
func (s *Sim) kill() {
	s.end()
	s.count(Kills, 1)
	s.note(evKill, 0, 0, 0)
	s.disk.Kill()
	s.setCapacity(0)
}

// end forgets the process.
func (s *Sim) end() {
	n := s.node
	n.note()
	for _, m := range s.shards {
		for _, p := range m.open {
			for _, c := range p.chans {
				c.lane = nil
			}
		}
	}
	s.node = nil
}

// stop is a clean stop: everything is reported, committed and marked durable.
func (s *Sim) stop() {
	s.disk.FailAfter(0, nil)
	s.setCapacity(0)
	s.settle()
	n := s.node
	s.finishedIsDone()
	s.check("mark", n.wal.Mark())
	n.close()
	s.count(CleanStops, 1)
	s.note(evStop, 0, 0, 0)
	s.end()
	if s.chance(2) {
		s.disk.Kill()
	} else {
		s.disk.Crash(s.rng)
	}
	s.boot()
	if cut := s.node.wal.Stats().CutBytes; cut != 0 {
		s.failf("%d bytes were cut after a clean stop", cut)
	}
}

// settle drives the engine until all that lanes have to report is committed.
func (s *Sim) settle() {
	for _, g := range s.node.groups {
		for !g.leading {
			s.quiesce()
		}
	}
	s.quiesce()
	left := len(s.node.groups)
	for _, g := range s.node.groups {
		g.Settle(func(err error) {
			if err != nil {
				s.failf("settle: %v", err)
			}
			left--
		})
	}
	for range 10 { // a flusher that met a full disk waits a second
		if s.quiesce(); left == 0 {
			return
		}
		s.now += 1e9
	}
	s.failf("%d shards did not settle", left)
}

// finishedIsDone checks that the channels know all that their clients have
// finished in this life.
func (s *Sim) finishedIsDone() {
	for _, m := range s.shards {
		for _, p := range m.open {
			for _, c := range p.chans {
				if c.lane != nil {
					c.lane.finishedIsDone()
				}
			}
		}
	}
}

// quiesce drives the engine until nothing is left to do.
func (s *Sim) quiesce() {
	for range 10_000 {
		did := false
		for i := range s.node.groups {
			did = s.stepGroup(i) || did
		}
		did = s.stepWAL(actWrite) || did
		s.stepWAL(actSync)
		s.stepWAL(actFinish)
		did = s.stepWAL(actMaintain) || did
		did = s.flush() || did
		s.now += 3e6
		if !did && s.quiet() {
			return
		}
	}
	s.failf("the engine does not come to rest")
}

// quiet reports whether no entry is on its way.
func (s *Sim) quiet() bool {
	for _, g := range s.node.groups {
		if st := g.Status(); st.Inflight > 0 || !g.leading {
			return false
		}
		for _, p := range g.model.open {
			for _, c := range p.chans {
				if c.lane != nil && (!c.lane.begun || c.lane.dirty()) {
					return false
				}
			}
		}
	}
	return true
}

// boot starts the node on what the disk has, after damage by chance.
func (s *Sim) boot() {
	s.life++
	if s.life > 1 {
		s.damageWAL()
		s.damageBoth()
		s.damageCheckpoint()
	}
	for {
		if s.life > 1 && !s.draining && s.chance(8) {
			s.disk.FailAfter(int64(1+s.rng.IntN(30)), nil)
		}
		s.node = &node{sim: s, disk: s.disk}
		err := s.node.open()
		s.note(evOpen, int64(s.life), outcome(true, err), 0)
		switch {
		case err == nil:
			if s.node.wal.Stats().CutBytes > 0 {
				s.count(TornCut, 1)
			}
			s.noteFallbacks()
			return
		case s.disk.Tripped():
			s.count(CrashOpen, 1)
			s.end()
			s.disk.Crash(s.rng)
		case s.full && errors.Is(err, syscall.ENOSPC):
			s.end()
			s.disk.Kill()
			s.setCapacity(0)
		default:
			s.failf("open: %v", err)
		}
	}
}

func (s *Sim) noteFallbacks() {
	for _, g := range s.node.groups {
		if n := len(s.checkpoints(g.model.id)); g.model.published && n < 2 {
			s.failf("shard %d has %d checkpoints", g.model.id, n)
		}
		for _, name := range g.Status().Damaged {
			if !s.flipped[name] {
				s.failf("%s is damaged", name)
			}
			s.count(Fallbacks, 1)
		}
	}
}

// checkpoints lists the checkpoint files of a shard, newest first.
func (s *Sim) checkpoints(id uint32) []string {
	names, err := s.disk.ReadDir(shardDir(id))
	if err != nil {
		return nil
	}
	var seqs []int
	for _, name := range names {
		if seq, err := strconv.Atoi(strings.TrimPrefix(name, "checkpoint-")); err == nil {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	slices.Reverse(seqs)
	var files []string
	for _, seq := range seqs {
		files = append(files, path.Join(shardDir(id), "checkpoint-"+strconv.Itoa(seq)))
	}
	return files
}

// damageCheckpoint flips a bit in the newest of two whole checkpoints.
func (s *Sim) damageCheckpoint() {
	m := s.shards[s.rng.IntN(len(s.shards))]
	files := s.checkpoints(m.id)
	if !s.chance(6) || len(files) < 2 || s.flipped[files[0]] || s.flipped[files[1]] {
		return
	}
	s.flip(files[0])
	s.flipped[files[0]] = true
}

// damageBoth flips a bit in every checkpoint of a shard: it must not open.
func (s *Sim) damageBoth() {
	m := s.shards[s.rng.IntN(len(s.shards))]
	if !s.chance(40) {
		return
	}
	var undo []func()
	for _, name := range s.checkpoints(m.id) {
		if !s.flipped[name] {
			undo = append(undo, s.flip(name))
		}
	}
	if len(undo) == 0 {
		return
	}
	s.disk.Kill()
	s.node = &node{sim: s, disk: s.disk}
	if err := s.node.open(); !errors.Is(err, shard.ErrManifest) {
		s.failf("shard %d opens without a whole checkpoint: %v", m.id, err)
	}
	s.end()
	s.count(BothDamaged, 1)
	s.disk.Kill()
	for _, f := range undo {
		f()
	}
}

// flip inverts a bit of a file and returns what takes that back.
func (s *Sim) flip(name string) (undo func()) {
	size, err := s.disk.DurableSize(name)
	if err != nil || size == 0 {
		return func() {}
	}
	offset, bit := s.rng.Int64N(size), uint(s.rng.IntN(8))
	return s.flipAt(name, offset, bit)
}

func (s *Sim) flipAt(name string, offset int64, bit uint) (undo func()) {
	if err := s.disk.Flip(name, offset, bit); err != nil {
		s.failf("flip: %v", err)
	}
	s.note(evFlip, offset, int64(bit), int64(len(name)))
	return func() {
		if err := s.disk.Flip(name, offset, bit); err != nil {
			s.failf("flip back: %v", err)
		}
	}
}

// damageWAL flips a bit of the log that was declared durable: it must be
// refused.
func (s *Sim) damageWAL() {
	if !s.chance(6) {
		return
	}
	var frames []wal.Frame
	durable := int64(0)
	err := wal.Inspect(s.disk, walDir, func(f wal.Frame) error {
		if len(frames) > 0 && frames[len(frames)-1].Segment != f.Segment {
			durable = 0
		}
		frames = append(frames, f)
		durable = max(durable, f.Durable)
		return nil
	})
	if err != nil {
		s.failf("inspect: %v", err)
	}
	last := ""
	if len(frames) > 0 {
		last = frames[len(frames)-1].Segment
	}
	sealed := func(f wal.Frame) bool { return f.Segment != last || f.Offset+f.Size <= durable }
	n := 0
	for n < len(frames) && sealed(frames[n]) {
		n++
	}
	if n == 0 {
		return
	}
	f := frames[s.rng.IntN(n)]
	undo := s.flipAt(path.Join(walDir, f.Segment), f.Offset+s.rng.Int64N(f.Size-7), uint(s.rng.IntN(8)))
	w, err := wal.Open(s.disk, walDir, wal.Options{SegmentSize: s.o.walSegment, Spares: s.o.spares})
	var damage *wal.CorruptError
	if !errors.As(err, &damage) {
		if err == nil {
			err = w.Close()
		}
		s.failf("the log opens with a flipped bit at %d of %s, below what was declared durable: %v", f.Offset, f.Segment, err)
	}
	s.count(DamageRefused, 1)
	s.disk.Kill()
	undo()
}

// capacity fills the disk, or empties it.
func (s *Sim) capacity() {
	if s.full {
		s.setCapacity(0)
		return
	}
	u, err := s.disk.Usage(".")
	s.check("usage", err)
	room := s.rng.Int64N(6 * s.o.walSegment)
	s.setCapacity(u.Total - u.Free + room)
}

func (s *Sim) setCapacity(size int64) {
	s.full = size > 0
	s.note(evCapacity, size, 0, 0)
	s.disk.SetCapacity(size)
}

// finish ends the run: all channels get all that is left, and nothing of it
// comes back after a clean stop and a crash.
func (s *Sim) finish() {
	s.disk.FailAfter(0, nil)
	s.setCapacity(0)
	s.draining = true
	s.survive(func() {
		s.settle()
		if g, p := s.topic(); p != nil && s.chance(4) {
			s.do(g, partition.Close{Key: p.key})
		}
		s.drain()
		s.leftovers()
	})
	s.stop()
	s.lookAll()
	s.crash()
	s.boot()
	s.lookAll()
	s.empty()
	s.leftovers()
	for _, b := range s.pubs[1:] {
		if !b.answered {
			s.count(Unanswered, 1)
		}
	}
	s.node.note()
	s.node.close()
}

// lookAll compares all shards with the model.
func (s *Sim) lookAll() {
	s.quiesce()
	for _, g := range s.node.groups {
		g.look()
	}
	s.quiesce()
}

// drain finishes everything on all channels.
func (s *Sim) drain() {
	s.settle()
	for _, g := range s.node.groups {
		for _, p := range slices.Clone(g.model.open) {
			s.do(g, partition.PauseTopic{Key: p.key})
		}
	}
	for range 200 {
		s.quiesce()
		left := 0
		for _, g := range s.node.groups {
			for _, p := range g.model.open {
				for _, c := range p.chans {
					left += s.drainChannel(g, c)
				}
			}
		}
		if left == 0 {
			return
		}
		s.now += int64(20 * 60e9)
	}
	s.failf("channels cannot be drained")
}

// drainChannel finishes what a channel has got, and says what is left.
func (s *Sim) drainChannel(g *group, c *chanModel) (left int) {
	l := c.lane
	if l == nil {
		s.attachTo(g, c)
		return 1
	}
	l.pump(1 << 20)
	for len(l.flight) > 0 {
		l.finish(len(l.flight) - 1)
	}
	if l.wants {
		l.wants = false
		l.m.Wanted(l)
	}
	if c.floor < c.part.end || len(c.parked) > 0 || !l.idle() {
		return 1
	}
	return 0
}

// empty checks that nothing is left to deliver.
func (s *Sim) empty() {
	for _, m := range s.shards {
		for _, p := range m.open {
			for _, c := range p.chans {
				if c.floor != p.end || len(c.parked) > 0 {
					s.failf("channel %d ends at %d of %d with %d parked", c.id, c.floor, p.end, len(c.parked))
				}
			}
		}
	}
}

// leftovers checks that no file outlives two checkpoints without it.
func (s *Sim) leftovers() {
	for range 5 {
		for _, g := range s.node.groups {
			g.RequestCheckpoint()
		}
		s.now += 1e9 // a checkpoint that met a full disk is tried again after a second
		s.quiesce()
	}
	topics, err := s.disk.ReadDir(topicsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.failf("list topics: %v", err)
	}
	for _, name := range topics {
		inc, _ := strconv.ParseUint(name, 10, 64)
		p := s.find(partition.Key{Topic: inc})
		files, err := s.disk.ReadDir(path.Join(topicsDir, name, "0"))
		if p == nil {
			s.failf("folder %s of a closed topic is left, with %q", name, files)
		}
		if err == nil && p.start == p.end && len(files) > 0 {
			s.failf("files of topic %s are left, and nothing in it is needed: %q", name, files)
		}
	}
	for _, m := range s.shards {
		files, err := s.disk.ReadDir(path.Join(shardDir(m.id), "parked"))
		if err == nil && len(files) > 0 {
			s.failf("files of shard %d are left, and nothing is parked: %q", m.id, files)
		}
	}
}

// find returns an open topic, or nil.
func (s *Sim) find(k partition.Key) *partModel {
	for _, m := range s.shards {
		if p := m.parts[k]; p != nil && !p.closed {
			return p
		}
	}
	return nil
}
