//go:build linux

package kill

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shape is what a topic must look like in /stats, with nobody consuming.
type shape struct {
	exists   bool
	paused   bool
	depth    int64 // waiting in the topic
	channels map[string]channelShape
}

type channelShape struct {
	paused bool
	depth  int64
}

func (s shape) clone() shape {
	s.channels = maps.Clone(s.channels)
	return s
}

func (s shape) String() string {
	if !s.exists {
		return "no topic"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "topic depth %d paused %v", s.depth, s.paused)
	for _, name := range slices.Sorted(maps.Keys(s.channels)) {
		fmt.Fprintf(&b, ", %s depth %d paused %v", name, s.channels[name].depth, s.channels[name].paused)
	}
	return b.String()
}

// act is one change of a topic: how to ask for it, and what it does. Messages
// wait in a topic while it has no channel or is paused; every channel that is
// there when that ends gets them.
type act struct {
	path  string
	count int // messages to publish
	do    func(*shape)
}

func (s *shape) publish(n int64) {
	s.exists = true
	s.depth += n
	s.handOver()
}

func (s *shape) handOver() {
	if s.paused || len(s.channels) == 0 {
		return
	}
	for name, c := range s.channels {
		c.depth += s.depth
		s.channels[name] = c
	}
	s.depth = 0
}

// draw picks a change that the server will accept.
func (s shape) draw(rng *rand.Rand, topic string) act {
	if !s.exists {
		return act{path: "/topic/create?topic=" + topic, do: func(s *shape) { s.exists, s.channels = true, map[string]channelShape{} }}
	}
	name := fmt.Sprintf("c%d", rng.IntN(3))
	channel, there := s.channels[name]
	on := "?topic=" + topic + "&channel=" + name
	switch roll := rng.IntN(100); {
	case roll < 3:
		return act{path: "/topic/delete?topic=" + topic, do: func(s *shape) { *s = shape{} }}
	case roll < 6:
		return act{path: "/topic/empty?topic=" + topic, do: func(s *shape) { s.depth = 0 }}
	case roll < 16 && s.paused:
		return act{path: "/topic/unpause?topic=" + topic, do: func(s *shape) { s.paused = false; s.handOver() }}
	case roll < 16:
		return act{path: "/topic/pause?topic=" + topic, do: func(s *shape) { s.paused = true }}
	case roll < 30 && !there:
		return act{path: "/channel/create" + on, do: func(s *shape) { s.channels[name] = channelShape{}; s.handOver() }}
	case roll < 20 && there:
		return act{path: "/channel/delete" + on, do: func(s *shape) { delete(s.channels, name) }}
	case roll < 24 && there:
		return act{path: "/channel/empty" + on, do: func(s *shape) { c := s.channels[name]; c.depth = 0; s.channels[name] = c }}
	case roll < 30 && there:
		verb := map[bool]string{false: "pause", true: "unpause"}[channel.paused]
		return act{path: "/channel/" + verb + on, do: func(s *shape) { c := s.channels[name]; c.paused = !c.paused; s.channels[name] = c }}
	}
	n := 1 + rng.IntN(20)
	return act{path: "/mpub?topic=" + topic, count: n, do: func(s *shape) { s.publish(int64(n)) }}
}

// churner changes one topic again and again, and knows what it must look like.
type churner struct {
	topic string
	rng   *rand.Rand
	now   shape
	maybe *shape // what it may also look like: the last change had no answer
	done  []string
	count int
}

// run changes the topic until the node is gone.
func (c *churner) run(n *node) error {
	for {
		a := c.now.draw(c.rng, c.topic)
		after := c.now.clone()
		a.do(&after)
		var body []byte
		if a.count > 0 {
			body = bytes.TrimSuffix(bytes.Repeat([]byte("a message of the churn\n"), a.count), []byte("\n"))
		}
		status, text, err := n.Post(a.path, body)
		c.note(fmt.Sprintf("%s (%d): %d %.40s %v -> %v", a.path, a.count, status, text, err, after))
		if err != nil {
			c.maybe = &after
			return nil
		}
		if status != 200 {
			return fmt.Errorf("%s: %d %s", a.path, status, text)
		}
		c.now = after
		c.count++
	}
}

func (c *churner) note(text string) {
	c.done = append(c.done, text)
	c.done = c.done[max(0, len(c.done)-12):]
}

// check compares with /stats; an unanswered change is decided by it.
func (c *churner) check(got shape) error {
	c.note("restart: " + got.String())
	if c.maybe != nil && got.String() == c.maybe.String() {
		c.now = c.maybe.clone()
	}
	want := c.now.String()
	if c.maybe != nil {
		want += " or " + c.maybe.String()
	}
	c.maybe = nil
	if got.String() != c.now.String() {
		return fmt.Errorf("topic %s: %v, want %s; its last changes:\n    %s", c.topic, got, want, strings.Join(c.done, "\n    "))
	}
	return nil
}

// shapes reads all topics from /stats.
func (n *node) shapes() (map[string]shape, error) {
	var s struct {
		Topics []struct {
			Name     string `json:"topic_name"`
			Depth    int64
			Paused   bool
			Channels []struct {
				Name   string `json:"channel_name"`
				Depth  int64
				Paused bool
			}
		}
	}
	if err := n.GetJSON("/stats?format=json&include_clients=false&include_mem=false", &s); err != nil {
		return nil, err
	}
	out := make(map[string]shape)
	for _, t := range s.Topics {
		channels := make(map[string]channelShape)
		for _, c := range t.Channels {
			channels[c.Name] = channelShape{paused: c.Paused, depth: c.Depth}
		}
		out[t.Name] = shape{exists: true, paused: t.Paused, depth: t.Depth, channels: channels}
	}
	return out, nil
}

// Topics and channels are made, deleted, emptied and paused while they are
// published to, and the node is killed: what was answered stands, what was not
// has happened or not.
func TestChurn(t *testing.T)         { testChurn(t, plainBinary(t)) }
func TestChurnVolatile(t *testing.T) { testChurn(t, faultsBinary(t), "TIDINGS_VFS=volatile:1") }

func testChurn(t *testing.T, bin string, env ...string) {
	n := newNode(bin, dataDir(t), loopFlags...)
	n.Env = env
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 9))
	var all []*churner
	for i := range 8 {
		all = append(all, &churner{topic: fmt.Sprintf("t%d", i), rng: rand.New(rand.NewPCG(s, uint64(i)))})
	}
	for round := range max(rounds(t)/2, 1) {
		if err := n.Start(); err != nil {
			t.Fatalf("seed %d, round %d: %v", s, round, err)
		}
		defer n.Kill()
		got, err := n.shapes()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if err := c.check(got[c.topic]); err != nil {
				t.Errorf("seed %d, round %d: %v", s, round, err)
			}
		}
		if t.Failed() {
			t.Logf("last lines of the node:\n%s", n.Log.Tail(10))
			return
		}
		var running sync.WaitGroup
		for _, c := range all {
			running.Go(func() {
				if err := c.run(n); err != nil {
					t.Errorf("seed %d, round %d: %v", s, round, err)
				}
			})
		}
		time.Sleep(time.Duration(100+rng.IntN(700)) * time.Millisecond) // the moment of the kill
		n.Kill()
		running.Wait()
	}
	changes := 0
	for _, c := range all {
		changes += c.count
	}
	fmt.Printf("figure: %s: %d rounds, %d changes of 8 topics answered, all of them stand\n", t.Name(), max(rounds(t)/2, 1), changes)
}
