package partition

import (
	"testing"

	"github.com/tidings-io/tidings/internal/shard"
)

// TestPublishAllocates: from the inbox to the answer, a message costs no
// allocation of the loop's; an entry costs those of its place in the log.
func TestPublishAllocates(t *testing.T) {
	const perEntry = 1 // the tail's bookkeeping, now and then
	for name, c := range map[string]struct {
		publishes, messages int
		edit                func(*Message)
		sequenced           bool
	}{
		"one message":      {1, 1, func(*Message) {}, false},
		"256 publishes":    {256, 1, func(*Message) {}, false},
		"batches":          {8, 100, func(*Message) {}, false},
		"sequenced":        {256, 1, func(*Message) {}, true},
		"with key and id":  {256, 1, func(m *Message) { m.Key, m.ID = []byte("key"), []byte("id") }, false},
		"due now, as DPUB": {256, 1, func(m *Message) { m.DueNs = 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must(Open{Key: one})
			r.must(CreateChannel{Key: one, Channel: red})
			r.settle()
			r.m.o.TailBytes = 1 << 40
			ps := make([]Publish, c.publishes)
			done := &answer{}
			for i := range ps {
				ps[i] = Publish{Topic: one.Topic, Messages: make([]Message, c.messages), Done: done}
				for j := range ps[i].Messages {
					m := &ps[i].Messages[j]
					m.Body = make([]byte, 200)
					c.edit(m)
				}
			}
			const runs = 50
			var entries [runs + 11][]byte // the library's copies, made before
			round, seq := 0, uint64(0)
			run := func() {
				for i := range ps {
					if c.sequenced {
						if i%4 == 0 {
							seq++
						}
						ps[i].Link = Link{Producer: uint64(1 + i%4), Epoch: 1, Seq: seq}
					}
					if err := r.m.Publish(&ps[i]); err != nil {
						t.Fatal(err)
					}
				}
				data, token := r.m.Drain(r.term, r.now, 1<<20)
				copied := append(entries[round][:0], data...)
				round++
				r.index++
				if err := r.m.Apply(shard.Entry{Index: r.index, Term: r.term, Data: copied}, token); err != nil {
					t.Fatal(err)
				}
			}
			for i := range entries {
				entries[i] = make([]byte, 0, 1<<20)
			}
			for range 10 {
				run()
			}
			if n := testing.AllocsPerRun(runs, run); n > perEntry {
				t.Errorf("%v allocations for %d messages", n, c.publishes*c.messages)
			}
			if p := r.m.partitions[one]; p.end != int64(round*c.publishes*c.messages) {
				t.Fatalf("%d messages were published", p.end)
			}
		})
	}
}
