package partition

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/shard"
)

// replica is a rig that only follows: it applies entries of another one's log.
func replica(t *testing.T, from *rig, upTo uint64) *rig {
	t.Helper()
	r := newRig(t)
	r.spillMin, r.m.spillMin, r.m.spillAt = from.spillMin, from.spillMin, 2*from.spillMin
	r.m.Follow()
	for _, e := range from.log {
		if e.Index <= upTo {
			r.log = append(r.log, e)
			r.apply(e, nil)
			r.index = e.Index
		}
	}
	return r
}

// carry brings the follower to the state of the other, in chunks.
func carry(t *testing.T, from, to *rig, size int) shard.Import {
	t.Helper()
	have, in := to.m.Have(), to.m.Import("shard/staging")
	x, err := from.m.Export(from.index, have)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for {
		chunk, err := x.Next(nil, size)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Put(chunk); err != nil {
			t.Fatal(err)
		}
		clear(chunk) // it is the caller's again
	}
	if err := in.Sync(); err != nil {
		t.Fatal(err)
	}
	return in
}

// install ends what carry has begun.
func (r *rig) install(in shard.Import, from *rig) {
	r.t.Helper()
	state, err := in.Install(from.index)
	if err != nil {
		r.t.Fatalf("install: %v", err)
	}
	in.Published()
	if err := r.m.Replace(from.index, state); err != nil {
		r.t.Fatalf("replace: %v", err)
	}
	r.index, r.log = from.index, slices.Clone(from.log)
	r.saved = []savedState{{from.index, slices.Clone(state)}}
}

// same compares what two rigs hold.
func same(t *testing.T, what string, a, b *rig) {
	t.Helper()
	text := func(r *rig) (s string) {
		s = fmt.Sprintf("%x\n", r.m.appendHead(nil))
		for _, p := range r.m.sorted {
			s += fmt.Sprintf("%v %x\n", p.Key, p.append(nil))
			for _, c := range p.channels {
				s += fmt.Sprintf("channel %d: %v\n", c.id, r.left(p.Key, c.id))
			}
			for offset := p.log.Start(); offset < p.log.End(); {
				bs, next, err := p.log.AppendNeeded(nil, offset, p.log.End(), 4096)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range bs {
					s += fmt.Sprintf("%d %d %d %d %x\n", b.Base, b.Count, b.Index, b.TimeNs, b.Data[17:])
				}
				offset = next
			}
		}
		return s
	}
	if diff := cmp.Diff(text(a), text(b)); diff != "" {
		t.Fatalf("%s:\n%s", what, diff)
	}
}

// busy does some random work on a few partitions.
func busy(t *testing.T, r *rig, rng *rand.Rand, rounds int) {
	t.Helper()
	for range rounds {
		k := Key{Topic: uint64(1 + rng.IntN(4)), Partition: int32(rng.IntN(2))}
		switch rng.IntN(12) {
		case 0:
			_ = r.do(Open{Key: k, Name: "t"})
		case 1:
			_ = r.do(CreateChannel{Key: k, Channel: uint64(rng.IntN(3))})
		case 2:
			_ = r.do(DropChannel{Key: k, Channel: uint64(rng.IntN(3))})
		case 3:
			if rng.IntN(8) == 0 {
				_ = r.do(Close{Key: k})
			}
		case 4:
			if rng.IntN(4) == 0 {
				_ = r.do(Empty{Key: k, Channel: uint64(rng.IntN(3))})
			}
		case 5:
			r.flush()
			r.settle()
		case 6:
			r.checkpoint()
		default:
			p := r.m.partitions[k]
			if p == nil {
				continue
			}
			msgs := bodies(1 + rng.IntN(6))
			for i := range msgs {
				if rng.IntN(2) == 0 {
					msgs[i].DueNs = r.now + 1e12 + rng.Int64N(1e12)
				}
			}
			r.send(k, msgs...)
			r.settle()
			for _, c := range p.channels {
				finishSome(r, k, c, p.handOver, rng)
			}
		}
	}
}

// finishSome reports as a lane would.
func finishSome(r *rig, k Key, c *channel, limit int64, rng *rand.Rand) {
	var d Delta
	if limit > c.floor {
		o := c.floor + rng.Int64N(limit-c.floor)
		if o > c.floor {
			d.Finished = append(d.Finished, offsets.Range{From: c.floor, To: min(o, c.floor+3)})
		}
		if o > c.floor+3 && !c.ranges.Contains(o) {
			d.Parked = append(d.Parked, parked.Entry{Offset: o, DueNs: r.now + 1e12 + rng.Int64N(1e12), Attempts: 2})
		}
	}
	if c.parked != nil && rng.IntN(2) == 0 {
		n := rng.IntN(3)
		_ = c.parked.Each(func(e parked.Entry) error {
			if n--; n < 0 {
				return io.EOF
			}
			d.Unparked = append(d.Unparked, e.Offset)
			return nil
		})
		slices.Sort(d.Unparked)
	}
	if d.empty() {
		return
	}
	r.m.again = append(r.m.again, appendDelta(nil, deltaTarget{k, c.id, c.epoch}, &d))
	r.settle()
}

// A replica that is behind, or empty, comes to the state of another one, lives
// on with it, and comes back to it after a crash.
func TestStateIsCarriedToAnotherReplica(t *testing.T) {
	runs, logs := 0, 0
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := newRig(t)
		r.spillMin = 4
		r.m.spillMin, r.m.spillAt = 4, 8
		r.o.ParkedMax = 8
		r.m.o.ParkedMax = 8
		busy(t, r, rng, 60)
		behind := r.index
		if seed%3 == 0 {
			behind = 0
		}
		f := replica(t, r, behind)
		if rng.IntN(2) == 0 {
			f.checkpoint()
		}
		f.flush()
		f.m.Tick(f.now)
		busy(t, r, rng, 60)
		for _, p := range r.m.sorted {
			for _, c := range p.channels {
				if c.parked != nil {
					runs += len(c.parked.Files())
				}
			}
		}
		in := carry(t, r, f, 64+rng.IntN(5000))
		logs += len(r.m.sorted)
		f.install(in, r)
		same(t, fmt.Sprintf("seed %d: after the installation", seed), r, f)
		f.fs.Crash(rng)
		f.boot(f.saved[0])
		same(t, fmt.Sprintf("seed %d: after a crash", seed), r, f)
		f.checkpoint()
		f.term = r.term + 1
		f.m.Lead(f.term)
		busy(t, f, rng, 40)
		f.checkpoint()
		f.checkpoint()
		was := f.index
		f.crash(0, 0, seed)
		if f.index != was {
			t.Errorf("seed %d: %d entries, there were %d", seed, f.index, was)
		}
	}
	if runs == 0 || logs == 0 {
		t.Errorf("%d runs, %d logs were carried", runs, logs)
	}
}

// A crash before the checkpoint with the state is complete leaves the replica as
// it was.
func TestStateThatDoesNotComeToBe(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 4))
		r := newRig(t)
		r.spillMin = 4
		r.m.spillMin, r.m.spillAt, r.m.o.ParkedMax, r.o.ParkedMax = 4, 8, 8, 8
		busy(t, r, rng, 60)
		f := replica(t, r, r.index)
		f.checkpoint()
		old := replica(t, r, r.index)
		busy(t, r, rng, 60)
		in := carry(t, r, f, 2000)
		if _, err := in.Install(r.index); err != nil {
			t.Fatal(err)
		}
		if seed%2 == 0 {
			f.fs.Crash(rng)
			f.boot(f.saved[0])
		} else {
			in.Fail() // a full disk
		}
		same(t, fmt.Sprintf("seed %d", seed), old, f)
		if err := in.Discard(); err != nil {
			t.Fatal(err)
		}
		for _, e := range r.log { // the log goes on
			if e.Index > f.index {
				f.apply(e, nil)
				f.index = e.Index
			}
		}
		f.checkpoint()
		same(t, fmt.Sprintf("seed %d: later", seed), r, f)
	}
}

// What is not a state is refused, and does no harm.
func TestChunksThatAreNoState(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.publish(one, 20)
	x, err := r.m.Export(r.index, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := x.Next(nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	refused := 0
	for range 500 {
		chunk := slices.Clone(whole)
		chunk[rng.IntN(len(chunk))] ^= 1 << rng.IntN(8)
		f := newRig(t)
		in := f.m.Import("staging")
		if errors.Join(in.Put(chunk), in.Sync()) != nil {
			refused++
		}
		if err := in.Discard(); err != nil {
			t.Fatal(err)
		}
	}
	// What is left are fields that no checksum covers: the link's does.
	if refused < 300 {
		t.Errorf("only %d of 500 were refused", refused)
	}
	if _, err := r.m.Export(1, []byte{9}); err == nil {
		t.Error("a request of another version is served")
	}
}
