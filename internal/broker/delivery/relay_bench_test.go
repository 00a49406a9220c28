package delivery

import (
	"testing"

	"github.com/tidings-io/tidings/internal/seglog"
)

// BenchmarkRelayed delivers to a consumer on another node than the leader and finishes,
// without what is between nodes; compare BenchmarkTakeFinish of one node.
func BenchmarkRelayed(b *testing.B) {
	f := newFleet(2, 1, Config{})
	f.lead(b, 0, 0)
	f.carry(b)
	s := f.nodes[1].subscribe(b, 1000, SubOptions{})
	l := f.nodes[1].links[0]
	f.publish(0, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	var ds []Delivery
	var ops []Op
	for left := b.N; left > 0; {
		l.bring()
		if l.send(4096) {
			l.arrive(b)
			l.finish()
		}
		var err error
		if ds, err = s.Take(ds[:0], 1<<20); err != nil {
			b.Fatal(err)
		}
		ops = ops[:0]
		for i := range ds {
			ops = append(ops, Op{Kind: Finish, ID: ds[i].ID})
		}
		s.Do(ops, nil)
		left -= len(ds)
	}
}

// relayedDrain is a consumer at one node and its mirror at the leader, and what goes
// between them, as the broker does it.
type relayedDrain struct {
	f      *fleet
	s, at  *Subscription
	relay  *Relay
	chunks *seglog.ChunkPool
	q      RelayRequest
	pulled [1]MirrorPulled
	got    []Delivery
	ds     []Delivery
	ops    []Op
}

func newRelayedDrain(t testing.TB, window, messages int) *relayedDrain {
	f := newFleet(2, 1, Config{})
	f.lead(t, 0, 0)
	f.carry(t)
	d := &relayedDrain{f: f, relay: f.nodes[1].links[0].relay, chunks: seglog.NewChunkPool(false)}
	d.s = f.nodes[1].subscribe(t, window, SubOptions{})
	f.carry(t)
	for _, d.at = range f.nodes[0].mirrors {
	}
	f.publish(0, messages)
	f.nodes[1].links[0].bring()
	return d
}

// step is one round trip: a pull, its delivery, and the answers before.
func (d *relayedDrain) step(t testing.TB) (n int) {
	if !d.relay.Collect(&d.q, 4096) {
		t.Fatal("there is nothing to tell")
	}
	d.at.DoRelayed(d.q.Ops, func(_ int, err error) { t.Error(err) })
	var reply RelayReply
	if len(d.q.Pulls) > 0 {
		out, waits, err := d.at.Pull(d.got[:0], d.q.Pulls[0].N, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		d.got = out
		p := &d.pulled[0]
		p.Mirror, p.Waits, p.Messages = d.q.Pulls[0].Mirror, waits, p.Messages[:0]
		for i := range out {
			p.Messages = append(p.Messages, RelayedMessage{Offset: out[i].Offset, TimeNs: out[i].TimeNs, Attempts: out[i].Attempts, Body: out[i].Body})
		}
		reply.Pulled, reply.Chunk = d.pulled[:], d.chunks.Get(1<<10)
	}
	d.relay.Answered(&d.q, &reply)
	reply.Chunk.Release()
	var err error
	if d.ds, err = d.s.Take(d.ds[:0], 1<<20); err != nil {
		t.Fatal(err)
	}
	d.ops = d.ops[:0]
	for i := range d.ds {
		d.ops = append(d.ops, Op{Kind: Finish, ID: d.ds[i].ID})
	}
	d.s.Do(d.ops, nil)
	return len(d.ds)
}

// TestRelayedDrainDoesNotAllocate: neither at the leader nor at the consumer's node
// does a message cost an allocation.
func TestRelayedDrainDoesNotAllocate(t *testing.T) {
	const window, rounds = 500, 200
	d := newRelayedDrain(t, window, (rounds+50)*window)
	for range 20 {
		d.step(t)
	}
	n := 0
	got := testing.AllocsPerRun(rounds-1, func() { n += d.step(t) })
	if want := rounds * window * 9 / 10; n < want {
		t.Fatalf("%d messages came, want %d", n, want)
	}
	// A few for a pull of hundreds; the race detector has pools lose what they are given.
	if got > window/20 {
		t.Errorf("%.1f allocations for a pull and its messages", got)
	}
}

// BenchmarkRelayedDrain is what one message costs at both nodes, without what is
// between them.
func BenchmarkRelayedDrain(b *testing.B) {
	const window, most = 2500, 40_000
	b.ReportAllocs()
	for n := 0; n < b.N; {
		b.StopTimer()
		d := newRelayedDrain(b, window, most)
		d.step(b)
		b.StartTimer()
		for got := 0; got < most-2*window && n < b.N; {
			k := d.step(b)
			got, n = got+k, n+k
		}
	}
}
