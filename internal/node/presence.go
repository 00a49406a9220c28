package node

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/transport"
)

const (
	// leavePatience bounds how long a node that stops waits until the others
	// know, all together.
	leavePatience = 500 * time.Millisecond
	// presencePause gathers changes that come together.
	presencePause = 20 * time.Millisecond
	// presenceAgain is how long a member is believed to know what it was told.
	presenceAgain = 10 * time.Second
)

// presence is what members tell each other for their lookups and no metadata
// holds, because it lives with a process: where it stands in the topology, its
// ephemeral channels, the tombstones that were set at it, and that it is about to
// leave. Each tells each other one as soon as something changes, once a second as long
// as that one does not know it, or has started anew since, and now and then: an answer
// says what of it is known there.
type presence struct {
	mb   *member
	wake chan struct{} // one: something may have changed

	mu      sync.Mutex // guards the following
	version uint64     // of own, rises with each change of it
	own     about
	leaving bool
	set     []setTombstone      // at this node
	told    map[uint64]toldTo   // by Raft id
	heard   map[uint64]*heardOf // by Raft id
}

// toldTo is what a member was told last.
type toldTo struct {
	version uint64 // that is known there
	boot    uint64 // of its process, as metadata had it
	at      time.Time
}

// setTombstone is a tombstone and when it was set.
type setTombstone struct {
	tombstone
	at time.Time
}

// tombstone hides a node from a topic's lookups.
type tombstone struct {
	Topic string `json:"topic"`
	Node  string `json:"node"` // host:http_port
	AgeMs int64  `json:"age_ms"`
}

// about is what a member says of itself. It is not changed.
type about struct {
	Zone      string              `json:"zone"`
	Region    string              `json:"region"`
	Ephemeral map[string][]string `json:"ephemeral"` // channels by topic, both sorted
}

// saying is the request of a call. What it says is that of one version, which
// means something for one process only.
type saying struct {
	Version    uint64      `json:"version"`
	Leaving    bool        `json:"leaving"`
	About      *about      `json:"about,omitempty"` // nil: as it was told before
	Tombstones []tombstone `json:"tombstones,omitempty"`
}

// heeding is the answer: the version that is known, 0 for none.
type heeding struct {
	Version uint64 `json:"version"`
}

// heardOf is what another member has said.
type heardOf struct {
	boot    uint64
	version uint64
	leaving bool
	about   about
}

func newPresence(mb *member) *presence {
	c := &mb.n.cfg
	return &presence{
		mb: mb, wake: make(chan struct{}, 1), version: 1, own: about{Zone: c.TopologyZone, Region: c.TopologyRegion},
		told: make(map[uint64]toldTo), heard: make(map[uint64]*heardOf),
	}
}

// changed says that the ephemeral channels of this node may be others now.
func (p *presence) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run tells the others until ctx ends.
func (p *presence) run(ctx context.Context) {
	timer := time.NewTimer(cluster.UntilNext(cluster.LeaseInterval))
	defer timer.Stop()
	p.refresh()
	for {
		limited, cancel := context.WithTimeout(ctx, cluster.LeaseInterval)
		p.tellAll(limited)
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(cluster.UntilNext(cluster.LeaseInterval))
			continue
		case <-p.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(presencePause):
		}
		p.refresh()
	}
}

// refresh looks what the ephemeral channels are, and forgets who is no member.
func (p *presence) refresh() {
	channels := p.mb.n.broker.Ephemeral()
	view := p.mb.n.meta.View()
	gone := func(id uint64) bool { _, ok := view.Node(id); return !ok }
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.EqualFunc(channels, p.own.Ephemeral, slices.Equal) {
		p.own.Ephemeral = channels
		p.version++
	}
	maps.DeleteFunc(p.told, func(id uint64, _ toldTo) bool { return gone(id) })
	maps.DeleteFunc(p.heard, func(id uint64, _ *heardOf) bool { return gone(id) })
}

// tombstoned takes note of a tombstone that was set at this node.
func (p *presence) tombstoned(topic, node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set = append(p.set, setTombstone{tombstone{Topic: topic, Node: node}, time.Now()})
	p.version++
}

// leave says that this node is about to stop, so that consumers which look it up
// are not sent here any more.
func (p *presence) leave(ctx context.Context) {
	p.mu.Lock()
	p.leaving = true
	p.version++
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	for member, err := range p.tellAll(ctx) {
		p.mb.n.log.Info("a member was not told that this node leaves", "peer", member, "error", err)
	}
}

// tellAll tells every other member that lives what it does not know, and waits
// for them. It returns those that were not reached, by name, and why.
func (p *presence) tellAll(ctx context.Context) (failed map[string]error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed = make(map[string]error)
	for _, m := range p.mb.n.live(p.mb.n.meta.View()) {
		if m.ID == p.mb.self.ID || p.knows(m) {
			continue
		}
		wg.Go(func() {
			if err := p.tell(ctx, m); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[m.Name] = err
			}
		})
	}
	wg.Wait()
	return failed
}

// knows reports whether a member needs to be told nothing now.
func (p *presence) knows(m meta.Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.told[m.ID]
	return ok && t.version == p.version && t.boot == m.Boot && time.Since(t.at) < presenceAgain
}

// tell tells a member what it does not know.
func (p *presence) tell(ctx context.Context, m meta.Node) error {
	for range 2 { // the second time, if it knows less than this node thinks
		p.mu.Lock()
		s := p.saying(m.ID)
		p.mu.Unlock()
		request, err := json.Marshal(s)
		if err != nil {
			return err
		}
		reply, err := p.mb.transport.Call(ctx, transport.Peer{ID: m.ID, Name: m.Name, Addr: m.Addr}, methodPresence, request)
		if err != nil {
			return err
		}
		var h heeding
		if err := json.Unmarshal(reply, &h); err != nil {
			return err
		}
		p.mu.Lock()
		p.told[m.ID] = toldTo{h.Version, m.Boot, time.Now()}
		p.mu.Unlock()
		if h.Version == s.Version || s.About != nil {
			return nil
		}
	}
	return nil
}

// saying is what a member is to be told; mu is held.
func (p *presence) saying(id uint64) saying {
	s := saying{Version: p.version, Leaving: p.leaving}
	if p.told[id].version == p.version {
		return s
	}
	own := p.own
	s.About = &own
	p.set = slices.DeleteFunc(p.set, func(t setTombstone) bool { return time.Since(t.at) >= p.mb.n.cfg.TombstoneLifetime })
	for _, t := range p.set {
		t.AgeMs = time.Since(t.at).Milliseconds()
		s.Tombstones = append(s.Tombstones, t.tombstone)
	}
	return s
}

// handle takes what another member says.
func (p *presence) handle(_ context.Context, from transport.From, request []byte) ([]byte, error) {
	var s saying
	if err := json.Unmarshal(request, &s); err != nil || !from.Known {
		return nil, fault.New(fault.Forbidden, "take what a member says of itself: %s is no member, or speaks wrongly", from.Name)
	}
	if !p.mb.n.opened.Load() {
		return nil, fault.New(fault.Exiting, "take what a member says of itself: the node is starting")
	}
	whole := true // as far as tombstones are concerned
	for _, t := range s.Tombstones {
		// of a topic that this node has not heard of it wants to be told again
		whole = p.mb.n.lookups.front.Hide(t.Topic, t.Node, time.Duration(t.AgeMs)*time.Millisecond) > 0 && whole
	}
	return json.Marshal(heeding{p.hear(from, s, whole)})
}

// hear takes note, and returns the version that is known now.
func (p *presence) hear(from transport.From, s saying, whole bool) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.heard[from.ID]
	if h == nil || h.boot != from.Boot {
		h = &heardOf{boot: from.Boot}
		p.heard[from.ID] = h
	}
	switch {
	case s.Version < h.version: // overtaken by a later one
	case s.About != nil:
		h.version, h.leaving, h.about = s.Version, s.Leaving, *s.About
		if !whole {
			return 0
		}
	}
	return h.version
}

// of is what a member has said of itself.
func (p *presence) of(id uint64) (a about, leaving bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == p.mb.self.ID {
		return p.own, p.leaving
	}
	if h := p.heard[id]; h != nil {
		return h.about, h.leaving
	}
	return about{}, false
}
