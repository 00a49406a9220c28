package delivery

import (
	"testing"
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
