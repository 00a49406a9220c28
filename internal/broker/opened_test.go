package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
)

// ledShard is a broker with peers and one topic, on one shard which this node
// leads. The test is its group.
type ledShard struct {
	*Broker
	t       *testing.T
	machine *partition.Machine
	topic   *Topic
	index   uint64
	woken   int
}

func newLedShard(t *testing.T, o partition.Options) *ledShard {
	fs := vfs.NewMem()
	store, err := seglog.Open(fs, "topics", seglog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := meta.New(meta.Options{Node: meta.Node{ID: 1, Name: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	x := &ledShard{t: t}
	o.Shard, o.FS, o.Store, o.Dir, o.Wake = 1, fs, store, "parked", func() { x.woken++ }
	x.machine = partition.New(o)
	x.Broker = New(Options{Machines: []*partition.Machine{x.machine}, Meta: m, Peers: selfish{}, Boot: 9})
	x.topic = x.newTopic(&meta.Topic{Name: "orders", ID: 1, Partitions: []uint32{1}, Active: 1})
	x.machine.Lead(1)
	x.Leads(1, true)
	return x
}

// entry is the next one of the shard.
func (x *ledShard) entry() (data []byte, token any) { return x.machine.Drain(1, 1, 1<<20) }

// run makes fact what waits.
func (x *ledShard) run() {
	x.t.Helper()
	for data, token := x.entry(); len(data) > 0; data, token = x.entry() {
		x.index++
		if err := x.machine.Apply(shard.Entry{Index: x.index, Term: 1, Data: data}, token); err != nil {
			x.t.Fatal(err)
		}
	}
}

type outcome chan error

func (o outcome) Published(_ int64, err error) { o <- err }

// publish gives the topic one message.
func (x *ledShard) publish() outcome {
	x.t.Helper()
	done := make(outcome, 1)
	if err := x.topic.publish([]Message{{Body: []byte("x")}}, done); err != nil {
		x.t.Fatal(err)
	}
	return done
}

// TestPartitionIsOpenedAnew: a topic's first entry can be dropped while the
// leadership goes on; the topic is not lost for the rest of it.
func TestPartitionIsOpenedAnew(t *testing.T) {
	x := newLedShard(t, partition.Options{})
	first := x.publish()
	_, token := x.entry()
	x.machine.Drop(token, fault.NotLeader)
	x.run()
	if err := <-first; !errors.Is(err, fault.TopicNotFound) {
		t.Fatalf("published before the partition is open: %v", err)
	}
	second := x.publish()
	x.run()
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

// TestPartitionIsOpenedWhenThereIsRoom: the same when the inbox has no room for
// the command.
func TestPartitionIsOpenedWhenThereIsRoom(t *testing.T) {
	x := newLedShard(t, partition.Options{InboxCount: 2})
	for range 4 { // as many commands as it takes
		x.machine.Do(partition.Close{Key: partition.Key{Topic: 99}}, nil)
	}
	if err := x.topic.publish([]Message{{Body: []byte("x")}}, nil); !errors.Is(err, fault.Overloaded) {
		t.Fatalf("publish to a full inbox: %v", err)
	}
	x.run()
	done := x.publish()
	x.run()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestCreationIsGivenUp: a publish to a name whose deletion does not end is answered,
// once; one whose topic was made meanwhile is left alone.
func TestCreationIsGivenUp(t *testing.T) {
	x := newLedShard(t, partition.Options{})
	wait := func() (outcome, *creation) {
		done := make(outcome, 2)
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.await("old", waitingPublish{done: done, bytes: 7}) {
			t.Fatal("another one waits")
		}
		return done, x.creating["old"]
	}
	first, c := wait()
	x.giveUpCreation(t.Context(), "old", c, 0, fault.Deleting)
	if err := <-first; !errors.Is(err, fault.Deleting) || x.createBytes != 0 {
		t.Fatalf("%v, %d bytes", err, x.createBytes)
	}
	second, next := wait()
	x.giveUpCreation(t.Context(), "old", c, 0, fault.Deleting) // that of the first
	ended, end := context.WithCancel(t.Context())
	end()
	x.giveUpCreation(ended, "old", next, time.Hour, fault.Deleting)
	if err := <-second; !errors.Is(err, fault.Exiting) || len(first)+len(second) > 0 {
		t.Fatalf("%v, and %d more", err, len(first)+len(second))
	}
}

// TestNothingIsTakenAfterRun: the engine can end before the fronts do; what a
// connection publishes then is refused, because nobody would answer it.
func TestNothingIsTakenAfterRun(t *testing.T) {
	x := newLedShard(t, partition.Options{})
	x.machine.Follow()
	x.Leads(1, false)
	waits := x.publish()
	x.upstream(1).giveUp(fault.Exiting)
	if err := <-waits; !errors.Is(err, fault.Exiting) {
		t.Fatal(err)
	}
	if err := x.topic.publish([]Message{{Body: []byte("y")}}, nil); !errors.Is(err, fault.Exiting) {
		t.Fatalf("taken when nobody sends any more: %v", err)
	}
}
