package broker

import (
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// bells is a broker with one topic on as many shards as it has partitions, and
// how often each shard was woken and driven. No shard runs.
type bells struct {
	*Broker
	topic         *Topic
	woken, driven []int
}

func newBells(partitions int) *bells {
	x := &bells{woken: make([]int, partitions), driven: make([]int, partitions)}
	m := &meta.Topic{Name: "orders", ID: 1}
	var machines []*partition.Machine
	for i := range partitions {
		machines = append(machines, partition.New(partition.Options{
			Shard: uint32(i + 1), Wake: func() { x.woken[i]++ }, Drive: func() { x.driven[i]++ },
		}))
		m.Partitions = append(m.Partitions, uint32(i+1))
	}
	m.Active = partitions
	metadata, err := meta.New(meta.Options{})
	if err != nil {
		panic(err) // there are random bytes
	}
	x.Broker = New(Options{Machines: machines, Meta: metadata})
	x.topic = x.newTopic(m)
	x.topics[m.Name] = x.topic
	for i, p := range x.topic.parts() {
		x.topic.open(p) // wakes
		x.woken[i] = 0
	}
	return x
}

// TestEnqueueToTopicThatGoes: what a publisher that had found the topic
// enqueues behind the topic's end wakes the shard itself, because Drive doesn't
// find the topic any more.
func TestEnqueueToTopicThatGoes(t *testing.T) {
	x := newBells(1)
	msgs := []Message{{Body: []byte("x")}}
	if err := x.topic.enqueue(msgs, nil); err != nil || x.woken[0] != 0 {
		t.Fatalf("woken %d times, %v", x.woken[0], err)
	}
	delete(x.topics, "orders") // as dropTopic does
	x.topic.stop(fault.TopicNotFound)
	if err := x.topic.enqueue(msgs, nil); err != nil || x.woken[0] != 1 {
		t.Fatalf("woken %d times, %v", x.woken[0], err)
	}
}

// TestDriveLeavesOtherShardsAlone: a publish drives the shard that it went to,
// once.
func TestDriveLeavesOtherShardsAlone(t *testing.T) {
	x := newBells(4)
	at := x.choose(x.topic.layout.Load(), []Message{{Key: []byte("some key")}}, nil).key.Partition
	want := make([]int, 4)
	for range 2 {
		if err := x.Enqueue("orders", []Message{{Key: []byte("some key"), Body: []byte("x")}}, nil); err != nil {
			t.Fatal(err)
		}
		x.Drive("orders")
		x.Drive("orders")
		want[at]++
		if !slices.Equal(x.driven, want) {
			t.Fatalf("driven %v times, want %v", x.driven, want)
		}
	}
}
