package nsq

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/latency"
)

const (
	// scopePatience is how long the other nodes are waited for, and asked again
	// because leaders move, before what there is makes the answer.
	scopePatience = 2 * time.Second
	// scopePause is how long a shard that moves is left alone before the nodes are
	// asked again.
	scopePause = 20 * time.Millisecond
)

// Peers are the other members of the cluster, for /stats?scope=cluster.
type Peers interface {
	// Others lists the members, but for this node.
	Others() []Peer
	// Ask has another node answer: its Front.AnswerStats. ctx bounds it.
	Ask(ctx context.Context, id uint64, question []byte) ([]byte, error)
}

// Peer is another member.
type Peer struct {
	ID   uint64 // Raft id
	Name string
	Down string // why it need not be asked; empty: it may live
}

// missingJSON is a part of the cluster that is not in the totals.
type missingJSON struct {
	Node   string `json:"node,omitempty"`  // that did not answer
	Shard  uint32 `json:"shard,omitempty"` // that nobody told of
	Reason string `json:"reason"`
}

// String says what is missing, and why.
func (m *missingJSON) String() string {
	if m.Node != "" {
		return fmt.Sprintf("node %s: %s", m.Node, m.Reason)
	}
	return fmt.Sprintf("shard %d: %s", m.Shard, m.Reason)
}

// statsQuestion is what one node asks another, as JSON.
type statsQuestion struct {
	Topic   string `json:"topic,omitempty"`
	Channel string `json:"channel,omitempty"`
	Clients bool   `json:"clients,omitempty"`
}

// nodeStats is what a node answers, of itself.
type nodeStats struct {
	Stats statsJSON    `json:"stats"`
	Led   []broker.Led `json:"led"`
	// Windows are the times from publish to FIN, by topic and channel, as
	// latency.Snapshot.MarshalBinary gives them, where they are measured; a topic's
	// own stands at the channel "".
	Windows map[string]map[string][]byte `json:"windows,omitempty"`

	node Peer
	err  error
}

// AnswerStats answers the question of another node's Front.
func (f *Front) AnswerStats(ctx context.Context, question []byte) ([]byte, error) {
	var q statsQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err)
	}
	n := f.ownStats(ctx, &q)
	if n.err != nil {
		return nil, n.err
	}
	return json.Marshal(n)
}

// ownStats is what this node tells of itself.
func (f *Front) ownStats(ctx context.Context, q *statsQuestion) (n nodeStats) {
	topics, led, err := f.broker.StatsLed(ctx, broker.Filter{Topic: q.Topic, Channel: q.Channel})
	if err != nil {
		n.err = err
		return n
	}
	n.Led = led
	n.Stats = f.statsOf(topics, q)
	for i := range topics {
		t := &topics[i]
		if t.Latency.Count() == 0 {
			continue
		}
		windows := map[string][]byte{}
		windows[""], n.err = t.Latency.MarshalBinary()
		for k := range t.Channels {
			if c := &t.Channels[k]; c.Latency.Count() > 0 && n.err == nil {
				windows[c.Name], n.err = c.Latency.MarshalBinary()
			}
		}
		if n.Windows == nil {
			n.Windows = make(map[string]map[string][]byte)
		}
		n.Windows[t.Name] = windows
	}
	return n
}

// clusterStats adds up what all nodes tell. While leaders move a shard may be told of
// twice, or by nobody: then all are asked again, as long as there is time.
func (f *Front) clusterStats(ctx context.Context, q *statsQuestion) (statsJSON, error) {
	ctx, cancel := context.WithTimeout(ctx, scopePatience)
	defer cancel()
	began := time.Now()
	for pause := scopePause; ; pause *= 2 {
		all := f.askAll(ctx, q)
		if all[0].err != nil && ctx.Err() == nil {
			return statsJSON{}, all[0].err
		}
		unsure := settleLed(all, f.broker.Shards(broker.Filter{Topic: q.Topic, Channel: q.Channel}))
		if len(unsure) == 0 || time.Since(began)+pause > scopePatience/2 {
			return f.total(all, unsure), nil // the other half is for the nodes' answers
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return f.total(all, unsure), nil
		}
	}
}

// askAll has every node tell of itself, this one first.
func (f *Front) askAll(ctx context.Context, q *statsQuestion) []nodeStats {
	question, _ := json.Marshal(q) // strings
	var others []Peer
	if f.o.Peers != nil {
		others = f.o.Peers.Others()
	}
	all := make([]nodeStats, 1+len(others))
	var wg sync.WaitGroup
	for i, p := range others {
		wg.Go(func() {
			n := &all[i+1]
			if n.err = errDown(p); n.err == nil {
				var reply []byte
				if reply, n.err = f.o.Peers.Ask(ctx, p.ID, question); n.err == nil {
					n.err = json.Unmarshal(reply, n)
				}
			}
			n.node = p
		})
	}
	all[0] = f.ownStats(ctx, q)
	all[0].node = Peer{Name: f.o.NodeName}
	wg.Wait()
	return all
}

func errDown(p Peer) error {
	if p.Down == "" {
		return nil
	}
	return fault.New(fault.Unreachable, "%s", p.Down)
}

// settleLed takes out the nodes that tell of a shard which another one leads in a
// later term, and names the shards of those wanted of which not exactly one told.
func settleLed(all []nodeStats, want []uint32) (unsure []missingJSON) {
	if len(all) == 1 {
		return nil
	}
	later := make(map[uint32]uint64)
	for i := range all {
		for _, l := range all[i].Led {
			later[l.Shard] = max(later[l.Shard], l.Term)
		}
	}
	told := make(map[uint32]bool)
	for i := range all {
		n := &all[i]
		if n.err != nil {
			continue
		}
		for _, l := range n.Led {
			if l.Term < later[l.Shard] {
				unsure = append(unsure, missingJSON{Shard: l.Shard, Reason: fmt.Sprintf("%s thinks that it leads, and another node does", n.node.Name)})
				n.err = fault.New(fault.NotLeader, "it does not know yet that another node leads shard %d", l.Shard)
				break
			}
		}
		if n.err == nil {
			for _, l := range n.Led {
				told[l.Shard] = true
			}
		}
	}
	for _, id := range want {
		if !told[id] {
			unsure = append(unsure, missingJSON{Shard: id, Reason: "no node that answered leads it"})
		}
	}
	return unsure
}

// total adds up the nodes that answered.
func (f *Front) total(all []nodeStats, unsure []missingJSON) statsJSON {
	sum := summing{front: f, topics: make(map[string]*topicSum)}
	s := statsJSON{Version: f.o.Version, Health: "OK", StartTime: f.o.StartTime.Unix(), Scope: scopeCluster, Nodes: []string{}, Missing: []missingJSON{}}
	for i := range all {
		n := &all[i]
		if n.err != nil {
			s.Missing = append(s.Missing, missingJSON{Node: n.node.Name, Reason: n.err.Error()})
			continue
		}
		s.Nodes = append(s.Nodes, n.node.Name)
		if n.Stats.Health != "OK" && s.Health == "OK" {
			s.Health = fmt.Sprintf("%s (%s)", n.Stats.Health, n.node.Name)
		}
		s.Producers = append(s.Producers, named(n.Stats.Producers, n.node.Name)...)
		sum.known = sum.known || n.Stats.Topics != nil
		sum.add(n)
	}
	s.Missing = append(s.Missing, unsure...)
	s.Topics = sum.list()
	return s
}

// named puts the node's name to its clients.
func named(clients []clientJSON, node string) []clientJSON {
	for i := range clients {
		clients[i].Node = node
	}
	return clients
}

// summing adds topics up, by name.
type summing struct {
	front  *Front
	known  bool // some node knows a topic of the filter, or there is no filter
	topics map[string]*topicSum
}

type topicSum struct {
	topicJSON
	channels map[string]*channelJSON
	windows  map[string]*latency.Snapshot // by channel; "": the topic's own
}

func (s *summing) add(n *nodeStats) {
	for i := range n.Stats.Topics {
		t := &n.Stats.Topics[i]
		sum := s.topics[t.Name]
		if sum == nil {
			sum = &topicSum{
				topicJSON: topicJSON{Name: t.Name}, channels: make(map[string]*channelJSON), windows: make(map[string]*latency.Snapshot),
			}
			s.topics[t.Name] = sum
		}
		sum.add(t)
		for k := range t.Channels {
			sum.channel(&t.Channels[k], n.node.Name)
		}
		for name, encoded := range n.Windows[t.Name] {
			var one latency.Snapshot
			if one.UnmarshalBinary(encoded) != nil {
				continue // without its times the rest is still right
			}
			if sum.windows[name] == nil {
				sum.windows[name] = &latency.Snapshot{}
			}
			sum.windows[name].Add(&one)
		}
	}
}

func (sum *topicSum) add(t *topicJSON) {
	sum.Depth += t.Depth
	sum.BackendDepth += t.BackendDepth
	sum.MessageCount += t.MessageCount
	sum.MessageBytes += t.MessageBytes
	sum.Paused = sum.Paused || t.Paused
	sum.Ack = cmp.Or(sum.Ack, t.Ack)
	sum.OldestAge = max(sum.OldestAge, t.OldestAge)
}

func (sum *topicSum) channel(c *channelJSON, node string) {
	to := sum.channels[c.Name]
	if to == nil {
		to = &channelJSON{Name: c.Name}
		sum.channels[c.Name] = to
	}
	to.Depth += c.Depth
	to.BackendDepth += c.BackendDepth
	to.InFlight += c.InFlight
	to.Deferred += c.Deferred
	to.MessageCount += c.MessageCount
	to.RequeueCount += c.RequeueCount
	to.TimeoutCount += c.TimeoutCount
	to.ClientCount += c.ClientCount
	if c.Clients != nil {
		if to.Clients == nil {
			to.Clients = []clientJSON{} // never null where details are wanted
		}
		to.Clients = append(to.Clients, named(c.Clients, node)...)
	}
	to.Paused = to.Paused || c.Paused
	to.MaxAttempts, to.DeadLetter = cmp.Or(to.MaxAttempts, c.MaxAttempts), cmp.Or(to.DeadLetter, c.DeadLetter)
	to.DeadLettered += c.DeadLettered
}

// list is the topics by name; nil when none is known.
func (s *summing) list() []topicJSON {
	if !s.known {
		return nil
	}
	out := make([]topicJSON, 0, len(s.topics))
	window := func(sum *topicSum, channel string) latencyJSON {
		if w := sum.windows[channel]; w != nil || len(s.front.o.Quantiles) == 0 {
			return s.front.latency(w)
		}
		return s.front.latency(&latency.Snapshot{})
	}
	for _, sum := range s.topics {
		t := sum.topicJSON
		t.Latency = window(sum, "")
		t.Channels = make([]channelJSON, 0, len(sum.channels))
		for _, c := range sum.channels {
			c.Latency = window(sum, c.Name)
			t.Channels = append(t.Channels, *c)
		}
		slices.SortFunc(t.Channels, func(a, b channelJSON) int { return cmp.Compare(a.Name, b.Name) })
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b topicJSON) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
