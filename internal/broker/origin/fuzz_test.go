package origin

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// manyKinds is a call with everything that can stand in one.
func manyKinds() *Call {
	return &Call{
		shard: 3,
		link:  partition.Link{Producer: 77, Epoch: 2, Seq: 9, Oldest: true},
		entries: []*entry{
			{topic: 5, name: "orders", partition: 1, messages: []partition.Message{{Body: []byte("a")}}},
			{topic: 6, name: "bills", ackLeader: true, messages: []partition.Message{
				{Body: []byte("b"), Key: []byte("k"), ID: []byte("i/0"), DueNs: 12345},
				{Body: []byte{}, Key: []byte{}},
			}},
			{topic: 5, name: "orders", messages: []partition.Message{{Body: bytes.Repeat([]byte("c"), 300)}}},
		},
	}
}

func TestRequestComesBack(t *testing.T) {
	c := manyKinds()
	q, err := DecodeRequest(c.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[uint64]string{5: "orders", 6: "bills"}, q.Names); d != "" || q.Shard != 3 {
		t.Fatal(q.Shard, d)
	}
	for i, e := range c.entries {
		p := &q.Publishes[i]
		want := partition.Link{Producer: 77, Epoch: 2, Seq: 9 + uint64(i), Oldest: i == 0}
		if p.Topic != e.topic || p.Partition != e.partition || p.AckLeader != e.ackLeader || p.Link != want {
			t.Errorf("publish %d: %+v", i, p)
		}
		if d := cmp.Diff(e.messages, p.Messages); d != "" {
			t.Errorf("publish %d: %s", i, d)
		}
	}
}

func TestAnswersComeBack(t *testing.T) {
	want := []Answer{
		{Fate: Done, Base: 0},
		{Fate: Done, Base: -1},
		{Fate: Refused, Err: fault.TopicNotFound},
		{Fate: NotUsed, Err: fault.New(fault.DiskReserve, "some text")},
		{Fate: Unknown, Err: fault.NotLeader},
	}
	got, err := DecodeAnswers(EncodeAnswers(want), len(want))
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		same := fault.CodeOf(got[i].Err) == fault.CodeOf(want[i].Err) &&
			(want[i].Err == nil || got[i].Err.Error() == want[i].Err.Error())
		if got[i].Fate != want[i].Fate || got[i].Base != want[i].Base || !same {
			t.Errorf("answer %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if _, err := DecodeAnswers(EncodeAnswers(want), len(want)+1); err == nil {
		t.Error("too few answers are taken")
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(manyKinds().Encode())
	f.Add(mapped().Encode())
	f.Add([]byte{1, 1, 1, 1, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := DecodeRequest(b)
		if err != nil {
			return
		}
		c := &Call{shard: q.Shard, link: q.Publishes[0].Link}
		for i := range q.Publishes {
			p := &q.Publishes[i]
			c.entries = append(c.entries, &entry{
				topic: p.Topic, name: q.Names[p.Topic], partition: p.Partition, messages: p.Messages, ackLeader: p.AckLeader,
				mapping: p.Mapping,
			})
		}
		again, err := DecodeRequest(c.Encode())
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if again.Link != q.Link || len(again.Publishes) != len(q.Publishes) {
			t.Fatalf("%+v came back as %+v", q, again)
		}
		for i := range q.Publishes {
			if d := cmp.Diff(q.Publishes[i].Messages, again.Publishes[i].Messages); d != "" || q.Publishes[i].Mapping != again.Publishes[i].Mapping {
				t.Fatal(q.Publishes[i].Mapping, again.Publishes[i].Mapping, d)
			}
		}
	})
}

func FuzzDecodeAnswers(f *testing.F) {
	f.Add(EncodeAnswers([]Answer{{Fate: Done, Base: 4}, {Fate: NotUsed, Err: fault.OutOfOrder}}), 2)
	f.Add([]byte{1, 1, 1, 0}, 1)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		answers, err := DecodeAnswers(b, count)
		if err != nil {
			return
		}
		if _, err := DecodeAnswers(EncodeAnswers(answers), count); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
	})
}
