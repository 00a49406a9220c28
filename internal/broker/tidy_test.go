package broker

import (
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// TestConversationsAreForgotten: a node that lives for long, with consumers that come
// and go, costs a leader no more than those that it has.
func TestConversationsAreForgotten(t *testing.T) {
	x := newLedShard(t, partition.Options{})
	n := x.mirrors.node(sender{node: 2, boot: 7})
	n.conversation(1).last = 3
	n.conversation(2).last = 4
	n.subs[5] = &mirror{id: 5, conversation: 2}
	n.tidy(time.Now())
	if len(n.served) != 2 {
		t.Fatalf("%d conversations are known: both were used just now", len(n.served))
	}
	n.tidy(time.Now().Add(2 * servedFor))
	if len(n.served) != 1 || n.served[2] == nil || n.conversation(2).last != 4 {
		t.Fatalf("known: %v; want that of the consumer", n.served)
	}
	n.drop(5)
	n.tidy(time.Now())
	if len(n.served) != 1 {
		t.Fatal("forgotten as soon as the consumer has left")
	}
	x.mirrors.tidied = time.Time{}
	x.mirrors.nodes[2].seen = time.Now().Add(2 * servedFor)
	x.mirrors.sweep(time.Now().Add(2 * servedFor))
	if len(n.served) != 0 {
		t.Fatalf("known: %v", n.served)
	}
}

// TestLivesAreForgotten: a leader with which nothing is spoken any more is forgotten.
func TestLivesAreForgotten(t *testing.T) {
	x := newLedShard(t, partition.Options{})
	c := &channelInUse{ch: delivery.NewChannel(delivery.Config{Codec: x.topic.codec})}
	c.laneMu.Lock()
	v := x.topic.converse(c, 2)
	c.laneMu.Unlock()
	x.relays.lived(2, 11)
	x.relays.lived(3, 12)
	x.relays.sweep()
	if len(x.relays.lives) != 1 || x.relays.lives[2] != 11 {
		t.Fatalf("known: %v; want that of node 2", x.relays.lives)
	}
	c.ch.Close(fault.New(fault.ChannelNotFound, "gone"))
	x.relays.sweep()
	if x.relays.conversation(v.id) != nil || len(x.relays.lives) != 0 {
		t.Fatalf("known: %v, %v", x.relays.conversations, x.relays.lives)
	}
}
