package bench

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func message(publisher uint32, sequence uint64) Message {
	b := make([]byte, MinSize+3)
	stamp{publisher: publisher, sequence: sequence, intended: 7}.write(b)
	return Message{Body: b}
}

func TestLedger(t *testing.T) {
	foreign := message(9, 0)
	damaged := message(0, 0)
	damaged.Body[MinSize] ^= 1
	for name, c := range map[string]struct {
		in   []Message
		want Verdict
	}{
		"all in order":         {[]Message{message(0, 0), message(1, 0), message(0, 1), message(0, 2)}, Verdict{}},
		"one lost":             {[]Message{message(0, 0), message(0, 2), message(1, 0)}, Verdict{Lost: 1}},
		"one twice":            {[]Message{message(0, 0), message(0, 0), message(0, 1), message(0, 2), message(1, 0)}, Verdict{Duplicated: 1}},
		"twice and late":       {[]Message{message(0, 0), message(0, 1), message(0, 2), message(0, 0), message(1, 0)}, Verdict{Duplicated: 1}},
		"overtaken":            {[]Message{message(0, 1), message(0, 0), message(0, 2), message(1, 0)}, Verdict{Reordered: 1}},
		"foreign publisher":    {[]Message{foreign, message(0, 0), message(0, 1), message(0, 2), message(1, 0)}, Verdict{Damaged: 1}},
		"beyond what was sent": {[]Message{message(0, 0), message(0, 1), message(0, 2), message(0, 3), message(1, 0)}, Verdict{Damaged: 1}},
		"damaged":              {[]Message{damaged, message(0, 1), message(0, 2), message(1, 0)}, Verdict{Lost: 1, Damaged: 1}},
		"empty body":           {[]Message{{}, message(0, 0), message(0, 1), message(0, 2), message(1, 0)}, Verdict{Damaged: 1}},
	} {
		l := newLedger([]int{3, 1})
		l.view().take(c.in, nil)
		if d := cmp.Diff(c.want, l.verdict()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// What was never acknowledged may come, and at any time, but not twice.
func TestLedgerDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		in   []Message
		want Verdict
	}{
		"none of them comes": {[]Message{message(0, 0), message(0, 2), message(1, 0)}, Verdict{}},
		"one comes late":     {[]Message{message(0, 0), message(0, 2), message(0, 1), message(1, 0)}, Verdict{}},
		"one comes early":    {[]Message{message(0, 3), message(0, 0), message(0, 2), message(1, 0)}, Verdict{}},
		"one comes twice":    {[]Message{message(0, 0), message(0, 1), message(0, 2), message(0, 1), message(1, 0)}, Verdict{Duplicated: 1}},
		"another is lost":    {[]Message{message(0, 1), message(0, 2), message(0, 3), message(1, 0)}, Verdict{Lost: 1}},
		"others are late":    {[]Message{message(0, 2), message(0, 1), message(0, 0), message(1, 0)}, Verdict{Reordered: 1}},
	} {
		l := newLedger([]int{4, 1})
		l.doubt([][]uint64{{1, 3}, nil})
		l.view().take(c.in, nil)
		if d := cmp.Diff(c.want, l.verdict()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if complete := c.want.Lost == 0; l.complete() != complete {
			t.Errorf("%s: complete is %v", name, l.complete())
		}
	}
}

// Whatever happens to the messages on the way, the ledger's counts explain it.
func TestLedgerAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(1, 70), 1, 4).Draw(t, "counts")
		l := newLedger(counts)
		views := []*view{l.view(), l.view()}
		got := make(map[[2]int]int)
		for range rapid.IntRange(0, 200).Draw(t, "deliveries") {
			p := rapid.IntRange(0, len(counts)-1).Draw(t, "publisher")
			s := rapid.IntRange(0, counts[p]-1).Draw(t, "sequence")
			got[[2]int{p, s}]++
			views[rapid.IntRange(0, 1).Draw(t, "consumer")].take([]Message{message(uint32(p), uint64(s))}, nil)
		}
		var want Verdict
		for p, n := range counts {
			for s := range n {
				switch k := got[[2]int{p, s}]; k {
				case 0:
					want.Lost++
				default:
					want.Duplicated += int64(k - 1)
				}
			}
		}
		v := l.verdict()
		if v.Lost != want.Lost || v.Duplicated != want.Duplicated || v.Damaged != 0 {
			t.Fatalf("got %+v, want %+v", v, want)
		}
		if l.complete() != (want.Lost == 0) {
			t.Fatalf("complete is %v with %d lost", l.complete(), want.Lost)
		}
	})
}

func FuzzStamp(f *testing.F) {
	f.Add(message(1, 2).Body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s stamp
		if s.read(b) != nil {
			return
		}
		again := append([]byte(nil), b...)
		s.write(again)
		if d := cmp.Diff(b, again); d != "" {
			t.Error(d)
		}
	})
}

func TestNextBodiesAllocateNothing(t *testing.T) {
	b := newBodies(0, 200, 100)
	if n := testing.AllocsPerRun(100, func() { b.next(100, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type nowhere struct{ topic string }

func (n *nowhere) SetTopic(topic string) { n.topic = topic }

// What the turns send is what the ledgers expect, on that topic and no other.
func TestPlanSendsWhatItExpects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topics := []string{"a", "b", "c", "d", "e"}[:rapid.IntRange(1, 5).Draw(t, "topics")]
		counts := rapid.SliceOfN(rapid.IntRange(0, 100), 1, 4).Draw(t, "counts")
		batch := rapid.IntRange(1, 30).Draw(t, "batch")
		all, ledgers := plan(topics, counts, batch)
		views := make(map[string]*view)
		for i, l := range ledgers {
			views[topics[i]] = l.view()
		}
		for p, r := range all {
			b, to := newBodies(p, MinSize, batch), new(nowhere)
			for left := r.count; left > 0; left -= batch {
				r.turn(to, b)
				for _, body := range b.next(min(batch, left), 0) {
					views[to.topic].take([]Message{{Body: body}}, nil)
				}
			}
		}
		for i, l := range ledgers {
			if v := l.verdict(); v != (Verdict{}) {
				t.Fatalf("topic %s: %+v", topics[i], v)
			}
		}
		for i, l := range ledgers { // and what belongs elsewhere is not taken for its own
			stray := stamp{publisher: ledgers[(i+1)%len(ledgers)].first}
			body := make([]byte, MinSize)
			stray.write(body)
			if l.view().take([]Message{{Body: body}}, nil); len(ledgers) > 1 && l.verdict() != (Verdict{Damaged: 1}) {
				t.Fatalf("topic %s takes another's: %+v", topics[i], l.verdict())
			}
		}
	})
}
