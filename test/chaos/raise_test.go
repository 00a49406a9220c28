//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// dial opens a connection to a node.
func (m *member) dial(t *testing.T, clientID string) *rig.Wire {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
	defer cancel()
	conn, err := m.host.dial(ctx, "tcp", m.Addrs.TCP)
	if err != nil {
		t.Fatal(err)
	}
	w, err := rig.Hello(conn, clientID, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// raise asks a node for more partitions, again and again while it fails: a leader may
// be gone.
func (m *member) raise(topic string, count int) error {
	path := fmt.Sprintf("/topic/partitions?topic=%s&partitions=%d", topic, count)
	return rig.Await(rig.Patience, func() (bool, error) {
		status, text, err := m.Post(path, nil)
		return err == nil && status == 200, fmt.Errorf("POST %s: %d %s %w", path, status, text, err)
	})
}

// The number of partitions rises twice under keyed load at all nodes, and in the middle
// of the second time the leader of the first partition, or of metadata, is killed. A consumer that
// holds one message at a time gets each key's messages in order; nothing that was
// acknowledged is lost, and publishers at the other nodes see no error.
func TestRaisePartitions(t *testing.T) {
	c, topic := newConsumerCluster(t)
	seed := envNumber(t, "CHAOS_SEED", rand.Uint64()>>16)
	rng := rand.New(rand.NewPCG(seed, 2))
	victim := c.leader(rng.IntN(2)) // of metadata, or of the first partition
	if victim == nil {
		t.Fatal("nobody leads")
	}
	at := c.other(victim)
	var got rig.Ordered
	consumer := at.dial(t, "consumer")
	if err := consumer.Subscribe(topic, "work", 1); err != nil {
		t.Fatal(err)
	}
	var ended error
	over := make(chan struct{})
	go func() { ended = got.Consume(consumer); close(over) }()

	const each, keys, part = 4, 5, 200 // publishers at each node; messages of one in a part
	begin := make([]chan struct{}, 4)
	for i := range begin {
		begin[i] = make(chan struct{})
	}
	var all sync.WaitGroup
	var publishers []*rig.Keyed
	for _, m := range c.members {
		for range each {
			p := rig.NewKeyed(m.dial(t, "publisher"), topic, fmt.Sprintf("p%d", len(publishers)), keys, 64)
			publishers = append(publishers, p)
			all.Go(func() {
				for n := range begin {
					<-begin[n]
					if err := p.Publish(part); err != nil {
						if m != victim {
							t.Errorf("publisher %s at node %s: %v", p.Name, m.host.name, err)
						}
						return
					}
				}
			})
		}
	}
	came := func(n int) {
		rig.Eventually(t, "messages come", func() (bool, error) {
			count, _ := got.Count()
			return count >= n, fmt.Errorf("%d of %d", count, n)
		})
	}
	close(begin[0])
	came(100)
	close(begin[1])
	if err := at.raise(topic, 3); err != nil {
		t.Fatal(err)
	}
	came(500)
	close(begin[2])
	var killing sync.WaitGroup
	wait := time.Duration(rng.IntN(60)) * time.Millisecond
	killing.Go(func() {
		time.Sleep(wait)
		victim.kill()
	})
	err := at.raise(topic, 12)
	killing.Wait()
	if err != nil {
		t.Fatal(err)
	}
	close(begin[3])
	all.Wait()
	if err := victim.restart(); err != nil {
		t.Fatal(err)
	}
	acked := make(map[string]int)
	total := 0
	for _, p := range publishers {
		p.Acked(acked)
	}
	for _, n := range acked {
		total += n
	}
	if err := rig.Await(rig.Patience, func() (bool, error) {
		n := got.Missing(acked)
		return n == 0, fmt.Errorf("%d of %d acknowledged messages have not come", n, total)
	}); err != nil {
		t.Error(err)
	}
	consumer.Close()
	<-over
	for _, p := range got.Problems() {
		t.Error(p)
	}
	count, repeats := got.Count()
	if t.Failed() {
		t.Logf("seed %d, leader killed after %s; the consumer's end: %v", seed, wait, ended)
		for _, m := range c.members {
			_, text, err := m.Admin("/api/v1/topics/" + topic + "/channels/work")
			t.Logf("%s: %v %s", m.host.name, err, text)
		}
	}
	fmt.Printf("figure: %s: %d messages acknowledged, %d came, %d of them again\n", t.Name(), total, count, repeats)
}
