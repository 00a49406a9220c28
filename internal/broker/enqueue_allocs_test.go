package broker

import (
	"context"
	"testing"

	"github.com/tidings-io/tidings/internal/meta"
)

// selfish are peers of a node that leads everything.
type selfish struct{}

func (selfish) Leader(uint32) (uint64, bool) { return 1, true }

func (selfish) Others() []uint64 { return nil }

func (selfish) Call(context.Context, uint64, Method, []byte, func([]byte, error)) {}

func (selfish) CallInto(context.Context, uint64, Method, []byte, func(int) []byte, func([]byte, error)) {
}

// TestEnqueueAllocates: a publish costs one allocation where the node is alone, and
// one more for its place among those of the node where there are others.
func TestEnqueueAllocates(t *testing.T) {
	msgs := []Message{{Body: []byte("x")}}
	measure := func(x *bells) float64 {
		for range 4096 { // lists have grown
			if err := x.topic.enqueue(msgs, nil); err != nil {
				t.Fatal(err)
			}
		}
		return testing.AllocsPerRun(1000, func() {
			if err := x.topic.enqueue(msgs, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	if n := measure(newBells(1)); n > 1 {
		t.Errorf("alone: %v allocations", n)
	}
	m, err := meta.New(meta.Options{Node: meta.Node{ID: 1, Name: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	alone := newBells(1)
	x := &bells{Broker: New(Options{Machines: alone.o.Machines, Meta: m, Peers: selfish{}, Boot: 9})}
	x.topic = x.newTopic(&meta.Topic{Name: "orders", ID: 1, Partitions: []uint32{1}, Active: 1})
	x.Leads(1, true)
	if n := measure(x); n > 2 {
		t.Errorf("with peers: %v allocations", n)
	}
}
