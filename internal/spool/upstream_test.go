package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
)

// cluster is an upstream in memory, with the rules of partition.Ingest.
type cluster struct {
	mu     sync.Mutex
	topics map[string][]*partitionLog
	count  int // partitions of a topic that is new
	// cut is asked before each part, and after it has been taken: an error is what
	// the edge gets.
	cut  func(taken bool) error
	deny string // topic that is refused
}

type partitionLog struct {
	sessions map[Origin]uint64
	log      []Message
}

func newCluster() *cluster {
	return &cluster{topics: make(map[string][]*partitionLog), count: 1, cut: func(bool) error { return nil }}
}

func (c *cluster) Forward(_ context.Context, p *Part) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Topic == c.deny {
		return 0, fault.Forbidden
	}
	if err := c.cut(false); err != nil {
		return 0, err
	}
	n, err := c.take(p)
	if cut := c.cut(true); cut != nil {
		return 0, cut
	}
	return n, err
}

func (c *cluster) take(p *Part) (int, error) {
	c.grow(p.Topic, c.count)
	parts := c.topics[p.Topic]
	if p.Partition >= len(parts) || p.To < p.From || uint64(len(p.Messages)) > p.To-p.From {
		return 0, fault.InvalidRequest
	}
	x := parts[p.Partition]
	switch at := x.sessions[p.Origin]; {
	case p.To <= at:
	case p.From != at:
		return 0, fault.OutOfOrder
	default:
		x.sessions[p.Origin] = p.To
		for _, m := range p.Messages {
			m.Body = []byte(string(m.Body))
			x.log = append(x.log, m)
		}
	}
	return len(parts), nil
}

// refuse makes a topic be refused, and all others not.
func (c *cluster) refuse(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deny = topic
}

// grow makes a topic have at least n partitions.
func (c *cluster) grow(topic string, n int) {
	for len(c.topics[topic]) < n {
		c.topics[topic] = append(c.topics[topic], &partitionLog{sessions: make(map[Origin]uint64)})
	}
}

// flaky loses a share of the parts, or of the answers to them.
func (c *cluster) flaky(seeds *rand.Rand, share float64) {
	rng := rand.New(rand.NewPCG(seeds.Uint64(), 1))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = func(bool) error {
		if rng.Float64() < share {
			return fault.Unreachable
		}
		return nil
	}
}

// bodies are the bodies of a topic, by partition.
func (c *cluster) bodies(topic string) (all [][]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.topics[topic] {
		var list []string
		for _, m := range p.log {
			list = append(list, string(m.Body))
		}
		all = append(all, list)
	}
	return all
}

// ledger is what publishers have sent, as "publisher/number", and what was
// acknowledged of it.
type ledger struct {
	mu    sync.Mutex
	acked map[string]map[string]bool // by topic
}

func (l *ledger) ack(topic, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked[topic] == nil {
		l.acked[topic] = make(map[string]bool)
	}
	l.acked[topic][body] = true
}

// verify compares what is upstream with the ledger: each message that was
// acknowledged once, no message twice, and the messages of a publisher in order in
// each partition.
func (l *ledger) verify(t *testing.T, c *cluster) (problems []string) {
	t.Helper()
	for topic, acked := range l.acked {
		seen := make(map[string]bool)
		for p, list := range c.bodies(topic) {
			last := make(map[string]int)
			for _, body := range list {
				who, text, _ := strings.Cut(body, "/")
				var n int
				if _, err := fmt.Sscan(text, &n); err != nil {
					t.Fatalf("message %q: %v", body, err)
				}
				if seen[body] {
					problems = append(problems, fmt.Sprintf("%s is there twice in %s", body, topic))
				} else if n <= last[who] {
					problems = append(problems, fmt.Sprintf("%s comes behind %d in partition %d of %s", body, last[who], p, topic))
				}
				seen[body] = true
				last[who] = max(last[who], n)
			}
		}
		for body := range acked {
			if !seen[body] {
				problems = append(problems, fmt.Sprintf("%s is lost in %s", body, topic))
			}
		}
	}
	return problems
}
