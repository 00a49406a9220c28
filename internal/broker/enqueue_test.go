package broker

import (
	"slices"
	"strconv"
	"sync"
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
	mu            sync.Mutex // guards driven
}

func (x *bells) drove(i int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.driven[i]++
}

func newBells(partitions int) *bells {
	x := &bells{woken: make([]int, partitions), driven: make([]int, partitions)}
	m := &meta.Topic{Name: "orders", ID: 1}
	var machines []*partition.Machine
	for i := range partitions {
		machines = append(machines, partition.New(partition.Options{
			Shard: uint32(i + 1), Wake: func() { x.woken[i]++ }, Drive: func() { x.drove(i) },
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

// BenchmarkDrive is what a lone publisher pays for the partitions that it does not
// publish to.
func BenchmarkDrive(b *testing.B) {
	for _, n := range []int{1, 12, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			x := newBells(n)
			p := x.topic.part(n / 2)
			b.ReportAllocs()
			for b.Loop() {
				x.topic.enqueued(p)
				x.Drive("orders")
			}
			if x.driven[n/2] < b.N {
				b.Fatalf("driven %d times of %d", x.driven[n/2], b.N)
			}
		})
	}
}

// TestDriveTakesAllThatWereTouched: whatever was enqueued for, by whoever, is driven
// once, and what comes meanwhile is left to its own publisher.
func TestDriveTakesAllThatWereTouched(t *testing.T) {
	x := newBells(5)
	for _, i := range []int{3, 1, 3, 4, 1} {
		x.topic.enqueued(x.topic.part(i))
	}
	x.Drive("orders")
	x.Drive("orders")
	if want := []int{0, 1, 0, 1, 1}; !slices.Equal(x.driven, want) {
		t.Fatalf("driven %v times, want %v", x.driven, want)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 1000 {
				x.topic.enqueued(x.topic.part(i))
				x.topic.drive()
			}
		})
	}
	all.Wait()
	if x.topic.undriven != nil {
		t.Fatal("a partition was left behind")
	}
}
