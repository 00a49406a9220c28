package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"syscall"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/vfs"
)

// Failure is what a run found.
type Failure struct {
	Seed  uint64
	Steps int // of the whole run
	Step  int
	Text  string
	Trace string // the last events
}

// Error tells what was found and how to see it again.
func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d, step %d: %s\nlast events:\n%srerun: go test ./internal/sim -run 'TestSeed$' -seed %d -steps %d",
		f.Seed, f.Step, f.Text, f.Trace, f.Seed, f.Steps)
}

// failure is a Failure on its way up.
type failure string

// crashed is thrown when a file operation meets the power failure that was
// planned, or the disk is too full for the node to live.
type crashed struct{}

// Result of a run without a failure.
type Result struct {
	Hash   uint64
	Steps  int
	Counts Counts
}

// Sim is one run.
type Sim struct {
	seed   uint64
	rng    *rand.Rand
	o      options
	step   int
	trace  trace
	counts Counts

	now  int64 // unix ns
	life int
	disk *vfs.Mem
	node *node

	shards   []*shardModel
	pubs     []pub // by id; the first is none
	topics   uint64
	channels uint64
	draining bool
	full     bool            // the disk has a capacity
	flipped  map[string]bool // checkpoints that were damaged
	batches  []seglog.Batch
}

// Run runs one seed.
func Run(seed uint64, steps int) (r Result, err error) {
	s := newSim(seed, steps)
	defer func() {
		if p := recover(); p != nil {
			f := &Failure{Seed: seed, Steps: steps, Step: s.step, Trace: s.trace.String()}
			switch p := p.(type) {
			case failure:
				f.Text = string(p)
			default:
				f.Text = fmt.Sprintf("panic: %v\n%s", p, stack())
			}
			r, err = Result{}, f
		}
	}()
	s.run()
	return Result{Hash: s.trace.hash, Steps: s.step, Counts: s.counts}, nil
}

func newSim(seed uint64, steps int) *Sim {
	s := &Sim{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0x7164696e6773)), disk: vfs.NewMem(),
		now: 1_700_000_000e9, pubs: make([]pub, 1, steps), flipped: map[string]bool{},
	}
	s.o = choose(s.rng, seed, steps)
	for i := range s.o.shards {
		s.shards = append(s.shards, &shardModel{sim: s, id: uint32(i + 1), parts: map[partition.Key]*partModel{}})
	}
	return s
}

// run takes all steps and drains.
func (s *Sim) run() {
	s.boot()
	for i := range s.shards {
		for range s.o.topics {
			s.openTopic(i)
		}
	}
	for s.step = 1; s.step <= s.o.steps; s.step++ {
		if s.full && s.chance(40) {
			s.setCapacity(0)
		}
		s.survive(s.act)
	}
	s.finish()
}

// failf ends the run with a finding.
func (s *Sim) failf(format string, args ...any) {
	panic(failure(fmt.Sprintf(format, args...)))
}

func (s *Sim) note(k kind, a, b, c int64) { s.trace.add(event{s.step, k, a, b, c}) }

func (s *Sim) count(c count, n int64) { s.counts[c] += n }

func (s *Sim) clock() int64 { return s.now }

// chance is true once in n.
func (s *Sim) chance(n int) bool { return s.rng.IntN(n) == 0 }

// check handles the result of what the engine did: a planned crash, a full
// disk, or a finding.
func (s *Sim) check(what string, err error) {
	switch {
	case err == nil && !s.disk.Tripped():
		return
	case s.disk.Tripped(), s.full && errors.Is(err, syscall.ENOSPC):
		panic(crashed{})
	}
	s.failf("%s: %v", what, err)
}

// survive does something, and starts anew when that ended in a crash.
func (s *Sim) survive(f func()) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if _, ok := p.(crashed); !ok {
			panic(p)
		}
		if s.disk.Tripped() {
			s.countCrash()
			s.crash()
		} else {
			s.note(evCrash, -1, int64(s.node.phase), 0)
			s.count(DiskStops, 1)
			s.kill()
		}
		s.boot()
	}()
	f()
}

// countCrash notes what the crash has interrupted.
func (s *Sim) countCrash() {
	n := s.node
	c, ok := map[phase]count{
		writing: CrashWrite, syncing: CrashSync, flushing: CrashFlush, checkpointing: CrashCheckpoint,
		recycling: CrashRecycle, compacting: CrashCompact, spilling: CrashSpill, opening: CrashOpen, idle: CrashIdle,
	}[n.phase]
	if ok {
		s.count(c, 1)
	}
}

// act takes one step.
func (s *Sim) act() {
	n := s.rng.IntN(s.o.total)
	a := action(sort.Search(int(actions), func(i int) bool { return s.o.weights[i] > n }))
	switch a {
	case actPublish:
		s.publish()
	case actGroup:
		s.stepGroup(s.rng.IntN(len(s.node.groups)))
	case actWrite, actSync, actFinish, actMaintain, actMark:
		s.stepWAL(a)
	case actPass:
		s.pass()
	case actFlush:
		s.flush()
	case actClock:
		s.tick()
	case actPump, actDone, actRequeue:
		s.stepLane(a)
	case actCommand:
		s.command()
	case actAttach:
		s.attach()
	case actCheckpoint:
		i := s.rng.IntN(len(s.node.groups))
		s.note(evCheckpoint, int64(i), 0, 0)
		s.node.groups[i].RequestCheckpoint()
	case actLook:
		g := s.node.groups[s.rng.IntN(len(s.node.groups))]
		s.note(evLook, int64(g.model.id), 0, 0)
		g.look()
	case actRead:
		s.read()
	case actCapacity:
		s.capacity()
	case actArm:
		s.arm()
	case actCrash:
		s.countCrash()
		s.crash()
		s.boot()
	case actStop:
		s.stop()
		s.boot()
	}
}

// arm plans a power failure, or a disk that fails, in one of the next file
// operations; by chance those of one kind of work come first.
func (s *Sim) arm() {
	n := int64(1 + s.rng.IntN(pick(s.rng, 3, 20, 80)))
	s.note(evArm, n, 0, 0)
	s.disk.FailAfter(n, pick(s.rng, nil, nil, error(syscall.EIO)))
	switch s.rng.IntN(8) {
	case 0:
		for range 4 {
			s.stepWAL(actMaintain)
		}
	case 1:
		for range 8 {
			s.flush()
		}
	case 2:
		s.now += int64(11 * time.Minute) // segments are old enough for compaction
		for range 8 {
			s.stepGroup(s.rng.IntN(len(s.node.groups)))
			s.flush()
			s.now += int64(time.Second)
		}
	}
}

// stepGroup steps one shard.
func (s *Sim) stepGroup(i int) (did bool) {
	g := s.node.groups[i]
	did, _, err := g.Step(s.now)
	s.note(evStep, int64(i), outcome(did, err), 0)
	s.check("step", err)
	return did
}

// outcome is what an operation did, for the trace.
func outcome(did bool, err error) int64 {
	switch {
	case err != nil:
		return -1
	case did:
		return 1
	}
	return 0
}

// stepWAL does one of the log's steps.
func (s *Sim) stepWAL(a action) (did bool) {
	n := s.node
	var err error
	switch a {
	case actWrite:
		n.phase = writing
		if did = n.wal.Pending(); did {
			n.unsynced = true
		}
		err = n.wal.Write()
		s.note(evWrite, outcome(did, err), 0, 0)
	case actSync:
		n.phase = syncing
		err = n.wal.Sync()
		n.unsynced = n.unsynced && err != nil
		s.note(evSync, outcome(false, err), 0, 0)
	case actFinish:
		n.wal.Finish()
		s.note(evFinish, 0, 0, 0)
	case actMaintain:
		n.phase = maintaining
		did, err = n.wal.Maintain()
		s.note(evMaintain, outcome(did, err), int64(n.phase), 0)
	case actMark:
		n.phase = writing
		err = n.wal.Mark()
		s.note(evMark, outcome(true, err), 0, 0)
	}
	s.check("wal", err)
	n.phase = idle
	return did
}

// pass takes what some shards have through the log, as a busy node does. By
// chance a step of the log is left out, and by chance power fails at the end.
func (s *Sim) pass() {
	for range 1 + s.rng.IntN(3) {
		for i := range s.node.groups {
			if !s.chance(4) {
				s.stepGroup(i)
			}
		}
		for _, a := range [...]action{actWrite, actSync, actFinish} {
			if !s.chance(5) {
				s.stepWAL(a)
			}
		}
	}
	s.stepGroup(s.rng.IntN(len(s.node.groups)))
	if s.chance(60) {
		s.countCrash()
		s.crash()
		s.boot()
	}
}

// flush steps the flusher.
func (s *Sim) flush() (did bool) {
	n := s.node
	n.phase = checkpointing
	did, err := n.flusher.Step()
	s.note(evFlush, outcome(did, err), int64(n.phase), 0)
	s.check("flush", err)
	n.phase = idle
	return did
}

// tick lets time pass.
func (s *Sim) tick() {
	d := int64(1 + s.rng.IntN(int(pick(s.rng, time.Millisecond, 10*time.Millisecond, time.Second))))
	if s.chance(60) {
		d = int64(time.Duration(1+s.rng.IntN(20)) * time.Minute)
	}
	s.now += d
	s.note(evClock, d, 0, 0)
}

// topic is a random open topic of a shard that leads, or nil.
func (s *Sim) topic() (*group, *partModel) {
	g := s.node.groups[s.rng.IntN(len(s.node.groups))]
	if len(g.model.open) == 0 {
		return g, nil
	}
	return g, g.model.open[s.rng.IntN(len(g.model.open))]
}

// publish has a client publish.
func (s *Sim) publish() {
	g, p := s.topic()
	if p == nil {
		return
	}
	id := uint32(len(s.pubs))
	b := pub{id: id, key: p.key, count: 1, size: s.size(), life: s.life}
	if s.chance(4) {
		b.count = 1 + s.rng.IntN(12)
		b.size = min(b.size, 2<<10)
	}
	if s.o.bursts && s.chance(15) {
		b.count, b.size = 200+s.rng.IntN(1000), 10
		b.due, b.dueEvery = s.now+int64(time.Second)+int64(s.rng.IntN(1e12)), 1
	} else if s.chance(6) {
		b.due = s.now + int64(s.rng.IntN(int(pick(s.rng, 5*time.Millisecond, 2*time.Second, time.Hour))))
		b.dueEvery = 1 + s.rng.IntN(3)
	}
	s.pubs = append(s.pubs, b)
	err := g.Publish(&partition.Publish{
		Topic: p.key.Topic, Partition: p.key.Partition, Messages: b.messages(), Done: &completion{s, g.recorder, id},
	})
	s.note(evPublish, int64(id), int64(b.count*b.size), int64(fault.CodeOf(err)))
	switch {
	case err == nil:
	case errors.Is(err, fault.DiskReserve):
		s.count(DiskRefusals, 1)
		s.pubs[id].answered = true
	case errors.Is(err, fault.Overloaded):
		s.count(Overloads, 1)
		s.pubs[id].answered = true
	case errors.Is(err, fault.NotLeader) && !g.leading:
		s.pubs[id].answered = true
	default:
		s.failf("publish: %v", err)
	}
}

// size draws a message's size.
func (s *Sim) size() int {
	switch n := s.rng.IntN(100); {
	case s.o.uniform > 0:
		return s.o.uniform
	case s.chance(s.o.big):
		return int(s.o.walSegment) + s.rng.IntN(int(s.o.walSegment))
	case n < 70:
		return 8 + s.rng.IntN(200)
	case n < 95:
		return 200 + s.rng.IntN(1200)
	default:
		return 1 + s.rng.IntN(int(s.o.walSegment)/2) + bodyMin
	}
}

// completion is told the outcome of a publish.
type completion struct {
	sim *Sim
	r   *recorder
	id  uint32
}

// Published implements partition.Completion.
func (c *completion) Published(base int64, err error) {
	s := c.sim
	p := &s.pubs[c.id]
	s.note(evAnswer, int64(c.id), base, int64(fault.CodeOf(err)))
	if p.answered {
		s.failf("publish %d is answered twice", c.id)
	}
	p.answered = true
	if !s.node.applying {
		if err == nil {
			s.failf("publish %d is acknowledged outside of an entry", c.id)
		}
		return
	}
	if err == nil {
		s.count(Acknowledged, 1)
	}
	want := c.r.answered()
	if want.pub != c.id || want.refused != errors.Is(err, fault.TopicNotFound) || !want.refused && (err != nil || base != want.base) {
		s.failf("publish %d is answered with offset %d, %v; it should be %+v", c.id, base, err, want)
	}
}

// do gives a command.
func (s *Sim) do(g *group, c partition.Command) {
	g.Do(c, func(err error) {
		s.note(evCommand, 0, int64(fault.CodeOf(err)), 0)
		if !s.node.applying {
			return
		}
		want := g.answered()
		if want.pub != 0 || want.refused != (err != nil) {
			s.failf("command %T is answered with %v; it should be %+v", c, err, want)
		}
	})
	s.note(evCommand, 1, int64(g.model.id), 0)
}

func (s *Sim) openTopic(shard int) {
	s.topics++
	s.do(s.node.groups[shard], partition.Open{Key: partition.Key{Topic: s.topics}, Name: fmt.Sprintf("topic-%d", s.topics)})
}

// command changes a topic or a channel.
func (s *Sim) command() {
	g, p := s.topic()
	if p == nil || s.chance(60) {
		s.openTopic(s.rng.IntN(len(s.shards)))
		return
	}
	var c *chanModel
	if len(p.chans) > 0 {
		c = p.chans[s.rng.IntN(len(p.chans))]
	}
	if s.chance(5) {
		s.ingest(g, p)
		return
	}
	switch n := s.rng.IntN(100); {
	case n < 40 || c == nil:
		if len(p.chans) < 4 {
			s.channels++
			from := partition.From{Where: pick(s.rng, partition.AtHandOver, partition.AtHandOver, partition.AtEnd)}
			s.do(g, partition.CreateChannel{Key: p.key, Channel: s.channels, From: from})
		}
	case n < 50:
		s.do(g, partition.DropChannel{Key: p.key, Channel: c.id})
	case n < 60:
		s.do(g, partition.Empty{Key: p.key, Channel: c.id})
	case n < 66:
		s.do(g, partition.EmptyTopic{Key: p.key})
	case n < 90:
		s.do(g, partition.PauseTopic{Key: p.key, Paused: s.chance(3)})
	case n < 96:
		s.do(g, partition.AdvanceStart{Key: p.key, Offset: p.start + s.rng.Int64N(p.end-p.start+2), Reason: "retention"})
	case n < 98:
		s.do(g, partition.Raise{Key: p.key, Count: 1 + uint32(len(p.barriers)) + s.rng.Uint32N(4)})
	default:
		s.do(g, partition.Close{Key: p.key})
	}
}

// attach gives a channel a lane.
func (s *Sim) attach() {
	g, p := s.topic()
	if p == nil || !g.leading || len(p.chans) == 0 {
		return
	}
	c := p.chans[s.rng.IntN(len(p.chans))]
	if c.lane != nil {
		if s.chance(10) {
			s.note(evAttach, int64(c.id), 0, 0)
			g.Detach(c.lane)
		}
		return
	}
	s.attachTo(g, c)
}

func (s *Sim) attachTo(g *group, c *chanModel) {
	s.note(evAttach, int64(c.id), 1, 0)
	l := &lane{sim: s, m: g.Machine, c: c, wants: true}
	c.lane = l
	g.Query(func(v *partition.View) {
		if v != nil {
			l.log = v.Log(c.part.key)
		}
	})
	g.Attach(c.part.key.Topic, c.part.key.Partition, c.id, l)
}

// stepLane has a client do something.
func (s *Sim) stepLane(a action) {
	_, p := s.topic()
	if p == nil || len(p.chans) == 0 {
		return
	}
	l := p.chans[s.rng.IntN(len(p.chans))].lane
	if l == nil || !l.begun || l.log == nil {
		return
	}
	s.note([...]kind{actPump: evPump, actDone: evDone, actRequeue: evRequeue}[a], int64(l.c.id), int64(len(l.flight)), 0)
	switch {
	case a == actPump:
		l.pump(1 + s.rng.IntN(10))
		if l.wants && len(l.flight) < l.window() {
			l.wants = false
			l.m.Wanted(l)
		}
	case len(l.flight) == 0:
	case a == actDone:
		for n := 1 + s.rng.IntN(pick(s.rng, 2, 20)); n > 0 && len(l.flight) > 0; n-- {
			l.finish(s.rng.IntN(len(l.flight)))
		}
	default:
		delay := int64(0)
		if !s.chance(3) {
			delay = 1 + int64(s.rng.IntN(int(pick(s.rng, 20*time.Millisecond, time.Second, time.Hour))))
		}
		l.requeue(s.rng.IntN(len(l.flight)), delay)
	}
}

// read reads somewhere in a topic: a message that a channel still needs, waiting
// or parked, must be there.
func (s *Sim) read() {
	g, p := s.topic()
	if p == nil || p.end == 0 || !g.leading {
		return
	}
	s.note(evLook, int64(p.key.Topic), 0, 1)
	key := p.key
	from := p.start + s.rng.Int64N(p.end-p.start+1)
	g.Query(func(v *partition.View) {
		if v == nil || !g.leading || p.closed || from >= p.end {
			return
		}
		log := v.Log(key)
		if from = max(from, p.start); p.needs(from) {
			s.readAt(log, p, from)
		}
		for _, c := range p.chans {
			for _, o := range c.some(3) {
				s.readAt(log, p, o)
				if o < p.start {
					s.count(PinnedReads, 1)
				}
			}
		}
	})
}

// needs reports whether a channel, or one that is made later, still waits for
// an offset.
func (p *partModel) needs(o int64) bool {
	for _, c := range p.chans {
		if o >= c.floor && c.flag(o)&done == 0 {
			return true
		}
	}
	return o >= p.handOver
}

// some returns up to n of the parked offsets, the same for the same history.
func (c *chanModel) some(n int) []int64 {
	if len(c.parked) == 0 {
		return nil
	}
	var os []int64
	for o := range c.parked {
		os = append(os, o)
	}
	sort.Slice(os, func(i, j int) bool { return os[i] < os[j] })
	at := c.part.shard.sim.rng.IntN(len(os))
	return os[at:min(len(os), at+n)]
}

// readAt reads and checks the batch that holds an offset.
func (s *Sim) readAt(log *seglog.Log, p *partModel, o int64) {
	if o >= log.End() {
		return // not yet replayed
	}
	var err error
	s.batches, err = log.AppendRead(s.batches[:0], o, 1)
	s.check("read topic", err)
	s.holds(p, s.batches, o)
	clear(s.batches)
}

// holds checks what a read at an offset has returned, and returns the last
// offset.
func (s *Sim) holds(p *partModel, batches []seglog.Batch, o int64) (last int64) {
	if len(batches) == 0 || batches[0].Base > o || batches[0].Last() < o {
		s.failf("topic %d: a read at offset %d returned %d batches without it (start %d, end %d)", p.key.Topic, o, len(batches), p.start, p.end)
	}
	for i := range batches {
		b := &batches[i]
		if i > 0 && b.Base <= batches[i-1].Last() {
			s.failf("topic %d: batch %d follows batch %d", p.key.Topic, b.Base, batches[i-1].Base)
		}
		p.check(b)
		if i > 0 && b.Base != batches[i-1].Last()+1 {
			return batches[i-1].Last() // a hole; the next read will tell
		}
	}
	return batches[len(batches)-1].Last()
}
