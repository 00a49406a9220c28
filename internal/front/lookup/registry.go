package lookup

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// errFull says that the registry holds as many names as it may.
var errFull = errors.New("too many topics and channels are registered")

// registry holds the nsqds that are registered, and the names of topics and
// channels that they, or tools, have brought. Names stay when the nsqds have
// gone, so that one that makes a topic anew is told of its channels.
type registry struct {
	clock     func() time.Time
	inactive  time.Duration // after the last ping a producer is not listed
	lifetime  time.Duration // of a tombstone
	namesMost int

	mu        sync.RWMutex
	producers map[*producer]struct{}
	topics    map[string]*topicEntry
	names     int // of topics and channels
	// hidden are the tombstones of our own nodes: when they were set.
	hidden map[ownTombstone]time.Time
}

type ownTombstone struct {
	topic   string
	address string
	port    int // of the TCP protocol
}

// producer is an nsqd on its connection.
type producer struct {
	Peer
	id       string // where its connection comes from
	lastPing time.Time
	topics   map[string]struct{} // that it is registered for in any way
}

// registration is a producer's place in a topic.
type registration struct{ tombstoned time.Time } // zero: it has no tombstone

// topicEntry is a topic's name. Its channels' names are kept apart from it: it
// can be removed while one of them stays.
type topicEntry struct {
	there     bool
	producers map[*producer]*registration
	channels  map[string]map[*producer]struct{}
}

func newRegistry(o *Options) *registry {
	return &registry{
		clock: o.Clock, inactive: o.InactiveTimeout, lifetime: o.TombstoneLifetime, namesMost: o.MaxNames,
		producers: make(map[*producer]struct{}), topics: make(map[string]*topicEntry), hidden: make(map[ownTombstone]time.Time),
	}
}

// join takes a producer in.
func (r *registry) join(p *producer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.lastPing, p.topics = r.clock(), make(map[string]struct{})
	r.producers[p] = struct{}{}
}

func (r *registry) ping(p *producer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.lastPing = r.clock()
}

// leave takes a producer out; the names that it brought stay.
func (r *registry) leave(p *producer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.producers, p)
	for topic := range p.topics {
		t := r.topics[topic]
		if t == nil {
			continue
		}
		delete(t.producers, p)
		for _, at := range t.channels {
			delete(at, p)
		}
	}
}

// add makes the names of a topic and, unless it is empty, a channel.
func (r *registry) add(topic, channel string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.addLocked(topic, channel)
	return err
}

func (r *registry) addLocked(topic, channel string) (*topicEntry, error) {
	t := r.topics[topic]
	more := 0
	if t == nil || !t.there {
		more++
	}
	if channel != "" && (t == nil || t.channels[channel] == nil) {
		more++
	}
	if r.names+more > r.namesMost {
		return nil, errFull
	}
	r.names += more
	if t == nil {
		t = &topicEntry{producers: make(map[*producer]*registration), channels: make(map[string]map[*producer]struct{})}
		r.topics[topic] = t
	}
	t.there = true
	if channel != "" && t.channels[channel] == nil {
		t.channels[channel] = make(map[*producer]struct{})
	}
	return t, nil
}

// register names p as a producer of the topic, and of the channel unless that
// is empty. It takes no tombstone away.
func (r *registry) register(p *producer, topic, channel string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.addLocked(topic, channel)
	if err != nil {
		return err
	}
	p.topics[topic] = struct{}{}
	if t.producers[p] == nil {
		t.producers[p] = new(registration)
	}
	if channel != "" {
		t.channels[channel][p] = struct{}{}
	}
	return nil
}

// unregister takes p out of the channel, or if that is empty out of the topic
// with all its channels. The name of what is ephemeral goes with its last
// producer.
func (r *registry) unregister(p *producer, topic, channel string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.topics[topic]
	if t == nil {
		return
	}
	if channel != "" {
		at := t.channels[channel]
		delete(at, p)
		if len(at) == 0 && ephemeral(channel) {
			r.dropChannelLocked(topic, channel)
		}
		return
	}
	for _, at := range t.channels {
		delete(at, p)
	}
	delete(t.producers, p)
	delete(p.topics, topic)
	if len(t.producers) == 0 && ephemeral(topic) {
		r.dropTopicLocked(topic)
	}
}

func ephemeral(name string) bool { return strings.HasSuffix(name, "#ephemeral") }

// dropTopic removes a topic's name, its channels' and all its registrations.
func (r *registry) dropTopic(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.topics[topic]
	if t == nil {
		return
	}
	for channel := range t.channels {
		r.dropChannelLocked(topic, channel)
	}
	r.dropTopicLocked(topic)
}

func (r *registry) dropTopicLocked(topic string) {
	t := r.topics[topic]
	if t == nil || !t.there {
		return
	}
	r.names--
	t.there = false
	clear(t.producers)
	r.tidy(topic, t)
}

// dropChannel removes a channel's name and registrations; false if it has none.
func (r *registry) dropChannel(topic, channel string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropChannelLocked(topic, channel)
}

func (r *registry) dropChannelLocked(topic, channel string) bool {
	t := r.topics[topic]
	if t == nil || t.channels[channel] == nil {
		return false
	}
	r.names--
	delete(t.channels, channel)
	r.tidy(topic, t)
	return true
}

// tidy lets go of an entry that names nothing any more.
func (r *registry) tidy(topic string, t *topicEntry) {
	if !t.there && len(t.channels) == 0 {
		delete(r.topics, topic)
	}
}

// topicNames lists the topics, in no order.
func (r *registry) topicNames() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var names []string
	for name, t := range r.topics {
		if t.there {
			names = append(names, name)
		}
	}
	return names
}

// channelNames lists a topic's channels, in no order.
func (r *registry) channelNames(topic string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if t := r.topics[topic]; t != nil {
		return slices.Collect(maps.Keys(t.channels))
	}
	return nil
}

// find lists the producers of a topic that are active and have no tombstone,
// in no order; known says that there is the topic's name.
func (r *registry) find(topic string) (peers []Peer, known bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := r.topics[topic]
	if t == nil || !t.there {
		return nil, false
	}
	now := r.clock()
	for p, reg := range t.producers {
		if r.active(p, now) && !r.covers(reg.tombstoned, now) {
			peers = append(peers, p.Peer)
		}
	}
	return peers, true
}

func (r *registry) active(p *producer, now time.Time) bool { return now.Sub(p.lastPing) <= r.inactive }

// covers reports whether a tombstone that was set at a time still stands.
func (r *registry) covers(set, now time.Time) bool { return !set.IsZero() && now.Sub(set) < r.lifetime }

// tombstone hides the producers of a topic that are called node from its
// lookups, and says how many there are.
func (r *registry) tombstone(topic, node string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.topics[topic]
	if t == nil {
		return 0
	}
	for p, reg := range t.producers {
		if p.called(node) {
			reg.tombstoned = r.clock()
			n++
		}
	}
	return n
}

// hide sets a tombstone on one of our own nodes, which have no registration; one
// that is younger than age stays.
func (r *registry) hide(topic string, node *Peer, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	maps.DeleteFunc(r.hidden, func(_ ownTombstone, set time.Time) bool { return !r.covers(set, now) })
	at, set := ownTombstone{topic, node.BroadcastAddress, node.TCPPort}, now.Add(-age)
	if r.hidden[at].Before(set) {
		r.hidden[at] = set
	}
}

// hides reports whether one of our own nodes has a tombstone for the topic.
func (r *registry) hides(topic string, node *Peer) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.covers(r.hidden[ownTombstone{topic, node.BroadcastAddress, node.TCPPort}], r.clock())
}

// listed is a producer with its topics, by name, and which of them have a
// tombstone.
type listed struct {
	Peer
	Tombstones []bool   `json:"tombstones"`
	Topics     []string `json:"topics"`
}

func list(p Peer) *listed { return &listed{Peer: p, Tombstones: []bool{}, Topics: []string{}} }

func (l *listed) add(topic string, tombstone bool) {
	l.Topics, l.Tombstones = append(l.Topics, topic), append(l.Tombstones, tombstone)
}

// list lists the active producers, in no order.
func (r *registry) list() []*listed {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := r.clock()
	out := make([]*listed, 0, len(r.producers))
	for p := range r.producers {
		if !r.active(p, now) {
			continue
		}
		l := list(p.Peer)
		for _, topic := range slices.Sorted(maps.Keys(p.topics)) {
			if t := r.topics[topic]; t != nil && t.producers[p] != nil {
				l.add(topic, r.covers(t.producers[p].tombstoned, now))
			}
		}
		out = append(out, l)
	}
	return out
}

// held is a producer as /debug shows it.
type held struct {
	BroadcastAddress string `json:"broadcast_address"`
	Hostname         string `json:"hostname"`
	HTTPPort         int    `json:"http_port"`
	ID               string `json:"id"`
	LastUpdate       int64  `json:"last_update"` // unix ns of the last ping
	TCPPort          int    `json:"tcp_port"`
	Tombstoned       bool   `json:"tombstoned"`
	TombstonedAt     int64  `json:"tombstoned_at"` // unix ns
	TopologyRegion   string `json:"topology_region"`
	TopologyZone     string `json:"topology_zone"`
	Version          string `json:"version"`
}

func (p *producer) held(tombstoned time.Time) held {
	return held{
		BroadcastAddress: p.BroadcastAddress, Hostname: p.Hostname, HTTPPort: p.HTTPPort, ID: p.id,
		LastUpdate: p.lastPing.UnixNano(), TCPPort: p.TCPPort, Tombstoned: !tombstoned.IsZero(), TombstonedAt: tombstoned.UnixNano(),
		TopologyRegion: p.TopologyRegion, TopologyZone: p.TopologyZone, Version: p.Version,
	}
}

// debug lists the producers under every name, as category:topic:channel.
func (r *registry) debug() map[string][]held {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[string][]held)
	for p := range r.producers {
		out["client::"] = append(out["client::"], p.held(time.Time{}))
	}
	for topic, t := range r.topics {
		for p, reg := range t.producers {
			key := "topic:" + topic + ":"
			out[key] = append(out[key], p.held(reg.tombstoned))
		}
		for channel, at := range t.channels {
			for p := range at {
				key := "channel:" + topic + ":" + channel
				out[key] = append(out[key], p.held(time.Time{}))
			}
		}
	}
	for _, l := range out {
		slices.SortFunc(l, func(a, b held) int { return cmp.Compare(a.ID, b.ID) })
	}
	return out
}
