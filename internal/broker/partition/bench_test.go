package partition

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
)

// BenchmarkPublish is a publish's way from the inbox to its answer, without
// WAL and files: 256 publishes in one entry.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{200, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			r := newRig(&benchFataler{b})
			r.must(Open{Key: one})
			r.must(CreateChannel{Key: one, Channel: red})
			l := r.attach(one, red)
			r.settle()
			ps := make([]Publish, 256)
			for i := range ps {
				ps[i] = Publish{Topic: one.Topic, Messages: []Message{{Body: make([]byte, size)}}, Done: &answer{}}
			}
			r.m.o.TailBytes = 1 << 40
			b.ReportAllocs()
			for b.Loop() {
				for i := range ps {
					if err := r.m.Publish(&ps[i]); err != nil {
						b.Fatal(err)
					}
				}
				data, token := r.m.Drain(1, r.now, 1<<20)
				r.index++
				if err := r.m.Apply(shard.Entry{Index: r.index, Term: 1, Data: append([]byte(nil), data...)}, token); err != nil {
					b.Fatal(err)
				}
				p := r.m.partitions[one]
				l.r.m.Do(Empty{one, red}, nil)
				data, token = r.m.Drain(1, r.now, 1<<20)
				r.index++
				if err := r.m.Apply(shard.Entry{Index: r.index, Term: 1, Data: append([]byte(nil), data...)}, token); err != nil {
					b.Fatal(err)
				}
				if p.start != p.end {
					b.Fatal("not emptied")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/msg")
		})
	}
}

type benchFataler struct{ *testing.B }

// BenchmarkCheckpoint takes a state of 10,000 partitions with two channels
// each: all of them changed, and one.
func BenchmarkCheckpoint(b *testing.B) {
	m := many(b, 10_000)
	b.Run("loop-all", func(b *testing.B) {
		for b.Loop() {
			for _, p := range m.sorted {
				p.touch()
			}
			m.Checkpoint(1 << 40)
		}
	})
	b.Run("loop-one", func(b *testing.B) {
		for b.Loop() {
			m.sorted[7].touch()
			m.Checkpoint(1 << 40)
		}
	})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c := m.Checkpoint(1 << 40)
			if _, err := c.Write(); err != nil {
				b.Fatal(err)
			}
			c.Published()
		}
	})
}

// many makes a machine with n partitions of two channels each.
func many(t testing.TB, n int) *Machine {
	fs := vfs.NewMem()
	store, err := seglog.Open(fs, "topics", seglog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := New(Options{Store: store, FS: fs, Dir: "parked"})
	for i := range n {
		k := Key{Topic: uint64(i), Partition: 0}
		data := appendHeader(nil, header{time: 1e18, term: 1, count: 4})
		data = appendCommand(data, Open{Key: k, Name: fmt.Sprintf("topic-%d", i)})
		data = appendCommand(data, CreateChannel{Key: k, Channel: red})
		data = appendCommand(data, CreateChannel{Key: k, Channel: blue})
		p := &Publish{Messages: bodies(1)}
		data = m.writer.publish(data, k, false, p, 1e18)
		if err := m.Apply(shard.Entry{Index: uint64(i + 1), Term: 1, Data: data}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// BenchmarkTransfer carries a log of 64 MiB to an empty replica on real files:
// what a session costs without the link.
func BenchmarkTransfer(b *testing.B) {
	const total, size = 64 << 20, 1 << 10
	fs := vfs.OS{}
	machine := func(dir string) (*Machine, *seglog.Store) {
		store, err := seglog.Open(fs, path.Join(dir, "topics"), seglog.Options{})
		if err != nil {
			b.Fatal(err)
		}
		m := New(Options{Shard: 1, Store: store, FS: fs, Dir: path.Join(dir, "parked")})
		if err := m.Restore(0, nil); err != nil {
			b.Fatal(err)
		}
		return m, store
	}
	from, store := machine(filepath.ToSlash(b.TempDir()))
	from.Lead(1)
	from.Do(Open{Key: one, Name: "t"}, nil)
	index := uint64(0)
	for sent := 0; sent < total; sent += 100 * size {
		msgs := make([]Message, 100)
		for i := range msgs {
			msgs[i].Body = make([]byte, size)
		}
		if err := from.Publish(&Publish{Topic: one.Topic, Partition: one.Partition, Messages: msgs}); err != nil {
			b.Fatal(err)
		}
		for {
			data, token := from.Drain(1, 1e18, 1<<20)
			if data == nil {
				break
			}
			index++
			if err := from.Apply(shard.Entry{Index: index, Term: 1, Data: slices.Clone(data)}, token); err != nil {
				b.Fatal(err)
			}
		}
		for store.OverBudget() {
			if _, err := store.FlushOldest(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		to, _ := machine(filepath.ToSlash(b.TempDir()))
		x, err := from.Export(index, nil)
		if err != nil {
			b.Fatal(err)
		}
		in := to.Import(filepath.ToSlash(filepath.Join(b.TempDir(), "staging")))
		var buf []byte
		for {
			if buf, err = x.Next(buf[:0], 256<<10); err != nil {
				break
			}
			if err := in.Put(buf); err != nil {
				b.Fatal(err)
			}
		}
		x.Close()
		if err := in.Sync(); err != nil {
			b.Fatal(err)
		}
		state, err := in.Install(index)
		if err != nil {
			b.Fatal(err)
		}
		if err := to.Replace(index, state); err != nil {
			b.Fatal(err)
		}
	}
}
