package broker_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker"
)

// TestPublishAtAnyNode: what is published at any node is consumed, in the order of
// each publisher, at the node that leads, before and after the leadership moves.
func TestPublishAtAnyNode(t *testing.T) {
	c := newCluster(t)
	c.ok(t, c.node(1).CreateTopic(c.node(1).ctx(), "orders"))
	s := c.shardOf("orders")
	for _, leader := range []uint64{1, 2, 3, 1} {
		c.leads(s, leader)
		consumer := c.node(leader).subscribe("orders", "audit", 1000)
		const n = 50
		for id := uint64(1); id <= 3; id++ {
			done := make(chan error, n)
			for i := range n {
				body := fmt.Sprintf("%d-%d", id, i)
				c.ok(t, c.node(id).Publish("orders", []broker.Message{{Body: []byte(body)}}, completion(done)))
			}
			for range n {
				c.ok(t, <-done)
			}
			want := make([]string, n)
			for i := range n {
				want[i] = fmt.Sprintf("%d-%d", id, i)
			}
			if d := cmp.Diff(want, consumer.take(n)); d != "" {
				t.Fatalf("leader %d, publisher %d: %s", leader, id, d)
			}
		}
		c.ok(t, c.node(leader).Settle(c.node(leader).ctx()))
		consumer.sub.Close(false)
	}
}

func (c *clusterRig) ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shardOf is the shard of a topic's only partition.
func (c *clusterRig) shardOf(topic string) uint32 {
	m, ok := c.node(1).meta.View().Topic(topic)
	if !ok {
		c.t.Fatalf("no topic %s", topic)
	}
	return m.Partitions[0]
}
