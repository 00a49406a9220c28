//go:build linux

package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// newConsumerCluster is a cluster without load; topic is led by shard 1.
func newConsumerCluster(t *testing.T) (c *testCluster, topic string) {
	t.Helper()
	c = newCluster(t, newHistory(publishers, topicNames...), options{bin: plainBinary(t)})
	topic = topicNames[0]
	for _, path := range []string{"/topic/create?topic=" + topic, "/channel/create?topic=" + topic + "&channel=work"} {
		c.members[0].MustPost(t, path, nil)
	}
	return c, topic
}

// all waits until the team has finished n messages.
func (x *team) all(n int) {
	x.t.Helper()
	rig.Eventually(x.t, "all is finished", func() (bool, error) {
		finished, seen := x.count()
		return finished >= n, fmt.Errorf("%d of %d finished, %d seen", finished, n, seen)
	})
}

// settled waits until the nodes' figures come to the truth: so much is in flight, and
// nothing else is left.
func (x *team) settled(inFlight int64) {
	x.t.Helper()
	rig.Eventually(x.t, "the figures of all nodes are right", func() (bool, error) {
		sum, each, err := x.c.sums(x.topic, x.channel)
		if err == nil {
			err = fmt.Errorf("want %d in flight, nodes say%s", inFlight, each)
		}
		return sum.Depth == 0 && sum.Deferred == 0 && sum.InFlight == inFlight, err
	})
}

// Consumers at all nodes do not feel that leaderships move, nor that nodes stop in
// good order: nothing comes twice within its time, what is held stays held and keeps
// its attempt, figures come to the truth.
func TestConsumersFeelNoMoves(t *testing.T) {
	c, topic := newConsumerCluster(t)
	x := newTeam(t, c, topic, "work")
	held := make(map[*worker][]*message)
	hold := func(w *worker, m *message) {
		x.mu.Lock()
		defer x.mu.Unlock()
		held[w] = append(held[w], m)
	}
	for _, m := range c.members {
		x.add(m, 2, 2*time.Minute, hold)
	}
	holders := slices.Clone(x.workers)
	total := 2 * members
	publishNumbered(t, c.members[0], topic, 0, total, 10)
	x.settled(int64(total))
	for _, m := range c.members {
		x.add(m, 50, 10*time.Second, finishAfter(20*time.Millisecond))
		x.add(m, 50, 10*time.Second, requeueSome)
	}
	for i := range 10 {
		publishNumbered(t, c.members[i%members], topic, total, 200, 50)
		total += 200
		c.transfer(t, 1, c.members[(i+1)%members])
	}
	x.all(total - 2*members)
	x.settled(2 * members)
	for _, w := range holders {
		x.mu.Lock()
		mine := held[w]
		x.mu.Unlock()
		for _, m := range mine {
			if s := x.seen[m.n]; s.times != 1 || m.attempts != 1 {
				t.Errorf("message %d came %d times, attempts %d", m.n, s.times, s.attempts)
			}
			w.fin(m)
		}
	}
	x.settled(0)
	for _, w := range holders {
		w.leave()
	}
	for _, m := range c.members { // a leader that is drained
		publishNumbered(t, m, topic, total, 300, 50)
		total += 300
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		if err := m.restart(); err != nil {
			t.Fatal(err)
		}
	}
	x.all(total)
	x.settled(0)
	x.leave()
	x.report(t)
}

// requeueSome sends every fourth message back once, with and without a delay.
func requeueSome(w *worker, m *message) {
	if m.n%4 == 0 && m.attempts == 1 {
		w.req(m, time.Duration(m.n%3)*200*time.Millisecond)
		return
	}
	finishAfter(50*time.Millisecond)(w, m)
}

// The node of consumers stands still for longer than leaders wait for it: what they
// hold goes to others, and is no attempt; when it goes on all of them are served, also
// those of channels on which nothing is said at first.
func TestConsumersNodeStandsStill(t *testing.T) {
	c, topic := newConsumerCluster(t)
	lead := c.leader(1)
	at := c.other(lead)
	const channels = 5
	var teams []*team
	for i := range channels {
		x := newTeam(t, c, topic, fmt.Sprint("many", i))
		x.add(at, 5, time.Minute, finishAtOnce) // idle when the node stops
		teams = append(teams, x)
	}
	x := newTeam(t, c, topic, "work")
	x.add(at, 20, time.Minute, func(*worker, *message) {})
	publishNumbered(t, lead, topic, 0, 20, 10)
	x.settled(20)
	for _, y := range teams {
		y.all(20)
	}
	if err := at.freeze(); err != nil {
		t.Fatal(err)
	}
	others := newTeam(t, c, topic, "work")
	others.add(lead, 20, time.Minute, finishAtOnce)
	others.all(20)
	for n, s := range others.seen {
		if s.attempts != 1 {
			t.Errorf("message %d has attempts %d, though nobody had it in hand", n, s.attempts)
		}
	}
	if err := at.thaw(); err != nil {
		t.Fatal(err)
	}
	others.workers[0].leave()
	publishNumbered(t, lead, topic, 20, 10, 10)
	for _, y := range teams {
		y.all(30)
		y.settled(0)
		y.leave()
		y.report(t)
	}
	x.settled(10) // its window is open again, and it holds the new ones
	x.leave()
}
