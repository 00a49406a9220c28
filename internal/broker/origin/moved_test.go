package origin

import (
	"encoding/hex"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

func movedNow() Answer { return Answer{Fate: Refused, Err: fault.Moved} }

// addKeyed adds publishes by one partition, that want to have themselves back.
func (b *bench) addKeyed(names ...string) {
	b.t.Helper()
	for _, name := range names {
		err := b.Add(&partition.Publish{
			Topic: 5, Partition: 3, Messages: []partition.Message{{Body: []byte(name), Key: []byte("k")}},
			Done: teller{b, name}, Mapping: 1, Moved: b.moved,
		}, "orders", b.now)
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// moved notes what is given back.
func (b *bench) moved(p *partition.Publish) {
	name := string(p.Messages[0].Body)
	if p.Topic != 5 || p.Partition != 3 || p.Mapping != 1 || p.Moved == nil || p.Done != (teller{b, name}) || p.Link != (partition.Link{}) {
		b.t.Errorf("%s comes back as %+v", name, p)
	}
	b.back = append(b.back, name)
}

func (b *bench) wantsBack(want ...string) {
	b.t.Helper()
	for _, o := range b.Outcomes(nil) {
		o.Tell()
	}
	if d := cmp.Diff(want, b.back); d != "" {
		b.t.Fatal(d)
	}
}

// wantsAnswered wants the first n of what was added to be answered, and no more.
func (b *bench) wantsAnswered(n uint64) {
	b.t.Helper()
	for i := range b.Added() + 1 {
		if b.Answered(i) != (i <= n) {
			b.t.Errorf("the first %d are answered: %v; %d should be", i, i > n, n)
		}
	}
}

// What is moved comes back as it was added, behind the answers of what was before.
func TestMovedPublishesComeBackInOrder(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("free")
	b.addKeyed("a")
	first := b.call(1, 1, 2)
	b.addKeyed("b")
	b.add("bare")
	second := b.call(1, 3, 2)
	b.Answer(second, []Answer{movedNow(), ok(3)}, nil, false, b.now)
	b.wantsBack() // a, before it, is out
	b.wantsAnswered(0)
	b.wants(map[string]string{"bare": "3"})
	b.Answer(first, []Answer{unknownNow(fault.NotLeader), movedNow()}, nil, false, b.now)
	b.wantsBack() // free is to be sent again
	b.wantsAnswered(0)
	b.Lead(3, false, b.now)
	b.Answer(b.call(1, 1, 1), []Answer{ok(-1)}, nil, false, b.now)
	b.wantsBack("a", "b")
	b.wants(map[string]string{"bare": "3", "free": "-1"})
	if !b.Idle() || b.Bytes() != 0 {
		t.Fatalf("idle %v, %d bytes", b.Idle(), b.Bytes())
	}
	b.addKeyed("c")
	b.wantsAnswered(4)
	b.call(1, 5, 1)
}

// A number that a moved publish has used is not given away, though others are given up.
func TestMovedWhenTheEpochIsGivenUp(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("free")
	b.addKeyed("a", "b")
	x := b.call(1, 1, 3)
	b.Answer(x, []Answer{notUsed(fault.DiskReserve), unknownNow(fault.Timeout), movedNow()}, nil, false, b.now)
	b.wantsBack()
	b.after(time.Second)
	b.none() // a new epoch, with nothing in it
	b.wants(map[string]string{"free": "DISK_RESERVE", "a": "NO_LEADER unknown"})
	b.wantsBack("b")
	if b.Raised() != 1 || !b.Idle() {
		t.Fatalf("%d epochs given up, idle %v", b.Raised(), b.Idle())
	}
}

// What the machine of this node has a copy of is not given back before that is
// answered, nor what was added behind it.
func TestMovedBytesBelongToTheMachine(t *testing.T) {
	b := newBench(t)
	b.Lead(1, true, b.now)
	b.addKeyed("a")
	l := b.NextLocal(b.now)
	if l.Mapping != 1 || l.Moved != nil {
		t.Fatalf("%+v", l.Publish)
	}
	b.Lead(2, false, b.now)
	b.addKeyed("b")
	b.Answer(b.call(1, 1, 2), []Answer{movedNow(), movedNow()}, nil, false, b.now)
	b.wantsBack()
	b.wantsAnswered(0)
	b.AnswerLocal(l, 0, fault.NotLeader, b.now)
	b.wantsAnswered(2)
	b.wantsBack("a", "b")

	b.Lead(1, true, b.now)
	b.addKeyed("c")
	b.AnswerLocal(b.NextLocal(b.now), 0, fault.Moved, b.now)
	b.wantsBack("a", "b", "c")
	b.wants(map[string]string{})
}

// Nobody wants it back: then it is answered.
func TestMovedWithoutAHook(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a")
	b.Answer(b.call(1, 1, 1), []Answer{movedNow()}, nil, false, b.now)
	b.wants(map[string]string{"a": "MOVED"})
}

// mapped is a call with publishes by all sorts of mappings.
func mapped() *Call {
	c := manyKinds()
	c.entries[0].mapping = partition.PartitionsMax
	c.entries[1].mapping = 1
	return c
}

func TestMappingsComeBack(t *testing.T) {
	key := []partition.Message{{Body: []byte("a"), Key: []byte{}}}
	bare := []partition.Message{{Body: []byte("a")}, {Body: []byte("a"), Key: []byte("k")}}
	for _, c := range []struct {
		name     string
		messages []partition.Message
		mapping  uint32
		format   byte
	}{
		{"one partition", key, 1, requestPlain},
		{"without a key", bare, 0, requestPlain},
		{"a key that does not matter", key, 0, requestFormat},
		{"several partitions", key, 2, requestFormat},
		{"by one, without a key", bare, 1, requestFormat},
		{"as many as can be", key, partition.PartitionsMax, requestFormat},
	} {
		call := &Call{
			shard: 3, link: partition.Link{Producer: 77, Epoch: 2, Seq: 9},
			entries: []*entry{
				{topic: 5, name: "orders", messages: bare[:1]},
				{topic: 5, name: "orders", messages: c.messages, mapping: c.mapping, ackLeader: true},
			},
		}
		b := call.Encode()
		if b[0] != c.format {
			t.Errorf("%s: format %d, want %d", c.name, b[0], c.format)
		}
		q, err := DecodeRequest(b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if p := &q.Publishes[1]; p.Mapping != c.mapping || !p.AckLeader || q.Publishes[0].Mapping != 0 {
			t.Errorf("%s: %+v", c.name, p)
		}
		b[0] = requestPlain
		if _, err := DecodeRequest(b); c.mapping > 1 && fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s, said to be the older format: %v", c.name, err)
		}
	}
}

// TestGoldenRequests: nodes of several versions talk to each other.
func TestGoldenRequests(t *testing.T) {
	plain := manyKinds()
	plain.entries[1].mapping = 1
	text := hex.EncodeToString(plain.Encode()) + "\n" + hex.EncodeToString(mapped().Encode()) + "\n"
	const name = "testdata/requests.golden"
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
}
