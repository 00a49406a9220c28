package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sync/errgroup"
)

// Peer is another node of the cluster, or one to be called.
type Peer struct {
	ID   uint64 // its Raft id; 0: not known
	Name string // its node name; empty: not known
	Addr string // host:port of its cluster address
}

// String names the peer as people know it.
func (p Peer) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Addr != "":
		return p.Addr
	}
	return fmt.Sprintf("raft id %x", p.ID)
}

// From is who sent a request.
type From struct {
	ID      uint64 // its Raft id
	Name    string // its node name, as the certificate says
	Boot    uint64 // its boot id
	Cluster string // its cluster id when it connected; empty: none yet
	Known   bool   // it is a peer, with this Raft id and name
	Addr    string // the address that it connected from
}

// Transport is a node's links to the others.
type Transport struct {
	o        Options
	listener net.Listener
	quiet    *quiet

	handlers sync.Map // Method -> handler

	mu        sync.RWMutex
	state     state
	group     *errgroup.Group // while running
	waiting   []func()        // what Run has to start
	cluster   string
	peers     map[uint64]*peer // by Raft id
	strangers map[Peer]*peer   // called, but no peers
	inbound   map[*inbound]struct{}
}

type state int

const (
	built state = iota
	running
	ended
)

var (
	errStopped = errors.New("this node is stopping")
	errRemoved = errors.New("the node is no longer a peer")
	errMoved   = errors.New("the peer's address has changed")
)

// peer is a node with its links.
type peer struct {
	Peer         // as first given
	addr  string // where it is now; guarded by Transport.mu
	links [classes]*link
	meter [classes]meter
}

// New builds a transport and opens its listener. Close is needed only when Run
// is never called.
func New(o Options) (*Transport, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	if o.Listener == nil {
		l, err := net.Listen("tcp", o.Address)
		if err != nil {
			return nil, fmt.Errorf("listen for cluster: %w", err)
		}
		o.Listener = l
	}
	return &Transport{
		o: o, listener: o.Listener, quiet: newQuiet(o.Logger), cluster: o.Cluster,
		peers: make(map[uint64]*peer), strangers: make(map[Peer]*peer), inbound: make(map[*inbound]struct{}),
	}, nil
}

// Addr is the address that the transport listens on.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// Close closes the listener of a transport that never ran.
func (t *Transport) Close() error { return t.listener.Close() }

// Run accepts and dials until ctx ends; then all links are closed, calls and
// streams fail, and nothing of it runs any more. It returns an error only when
// the listener fails.
func (t *Transport) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	t.mu.Lock()
	if t.state != built {
		t.mu.Unlock()
		return errors.New("run transport: it has run before")
	}
	t.state, t.group = running, g
	for _, f := range t.waiting {
		g.Go(func() error { f(); return nil })
	}
	t.waiting = nil
	// The keeper is in the group until it has ended it: so the group never
	// empties while spawn can still add to it.
	g.Go(func() error {
		<-ctx.Done()
		t.end()
		return nil
	})
	t.mu.Unlock()
	g.Go(func() error { return t.accept(ctx) })
	return g.Wait()
}

// end closes everything and lets nothing start any more.
func (t *Transport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = ended
	t.listener.Close()
	for _, p := range t.peers {
		p.stop(errStopped)
	}
	for _, p := range t.strangers {
		p.stop(errStopped)
	}
	for in := range t.inbound {
		in.cancel(errStopped)
	}
}

// spawn runs f as a goroutine of Run's, now or when Run starts; false when it
// has ended.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case built:
		t.waiting = append(t.waiting, f)
	case running:
		t.group.Go(func() error { f(); return nil })
	case ended:
		return false
	}
	return true
}

// accept takes connections, as many as the bound allows.
func (t *Transport) accept(ctx context.Context) error {
	slots := make(chan struct{}, t.o.MaxInbound)
	for {
		c, err := t.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept peers: %w", err)
		case err != nil: // as when the process has no file descriptor left
			t.quiet.warn("peers can't connect", "accept", err)
			if !sleep(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			t.quiet.warn("peer refused: too many connections", c.RemoteAddr().String(), nil, "max", t.o.MaxInbound)
			c.Close()
			continue
		}
		if !t.spawn(func() { t.serveInbound(c); <-slots }) {
			c.Close()
		}
	}
}

// sleep waits for d; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// SetCluster names the cluster that the node now belongs to. Connections with
// nodes that have said to belong to another one are closed.
func (t *Transport) SetCluster(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cluster = id
	for in := range t.inbound {
		if in.hello != nil && t.foreign(in.hello) {
			in.cancel(refusef(ReasonCluster, "node %s now belongs to cluster %s", t.o.Name, id))
		}
	}
	for _, p := range t.peers {
		p.settle(t.foreign)
	}
	for _, p := range t.strangers {
		p.settle(t.foreign)
	}
}

// foreign says that a node belongs to another cluster than this one; mu is held,
// at least for reading.
func (t *Transport) foreign(h *hello) bool {
	return h.Cluster != "" && t.cluster != "" && h.Cluster != t.cluster
}

// SetPeers makes these the known peers, and no others; each needs ID, Name and
// Addr. This node itself is skipped. A peer whose address has changed is dialed
// there at once; the links of those that are gone are closed.
func (t *Transport) SetPeers(peers []Peer) error {
	for _, p := range peers {
		if err := p.check(); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := make(map[uint64]bool, len(peers))
	for _, p := range peers {
		wanted[p.ID] = true
		t.add(p)
	}
	for id := range t.peers {
		if !wanted[id] {
			t.remove(id)
		}
	}
	return nil
}

// AddPeer adds a known peer, or changes its address.
func (t *Transport) AddPeer(id uint64, name, addr string) error {
	p := Peer{id, name, addr}
	if err := p.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(p)
	return nil
}

// RemovePeer forgets a peer and closes its links.
func (t *Transport) RemovePeer(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(id)
}

func (p Peer) check() error {
	if p.ID == 0 || !ValidName(p.Name) || p.Addr == "" {
		return fmt.Errorf("set peer %q with Raft id %d at %q: name, id and address are needed", p.Name, p.ID, p.Addr)
	}
	return nil
}

// add takes a peer into the table; mu is held.
func (t *Transport) add(p Peer) {
	if p.ID == t.o.RaftID {
		return
	}
	old := t.peers[p.ID]
	switch {
	case old == nil:
	case old.Name != p.Name:
		t.remove(p.ID)
	case old.addr != p.Addr:
		old.addr = p.Addr
		for _, l := range old.links {
			l.reset(errMoved)
			l.hurry()
		}
		return
	default:
		return
	}
	added := t.newPeer(p, true)
	t.peers[p.ID] = added
	for in := range t.inbound {
		if h := in.hello; h != nil && in.peer == nil && h.RaftID == p.ID && h.Node == p.Name {
			in.adopt(added)
		}
	}
}

// remove forgets a peer; mu is held.
func (t *Transport) remove(id uint64) {
	p := t.peers[id]
	if p == nil {
		return
	}
	delete(t.peers, id)
	p.stop(errRemoved)
	for in := range t.inbound {
		if in.peer == p {
			in.cancel(errRemoved)
		}
	}
}

func (t *Transport) newPeer(p Peer, known bool) *peer {
	out := &peer{Peer: p, addr: p.Addr}
	for c := range classes {
		out.links[c] = newLink(t, out, c, known)
	}
	if t.state == ended {
		out.stop(errStopped)
	}
	return out
}

func (p *peer) stop(why error) {
	for _, l := range p.links {
		l.stop(why)
	}
}

// settle lets a peer know that this node's cluster has changed.
func (p *peer) settle(foreign func(*hello) bool) {
	for _, l := range p.links {
		if h := l.peerHello(); h != nil && foreign(h) {
			l.reset(refusef(ReasonCluster, "the node belongs to another cluster"))
		}
		l.hurry()
	}
}

// known finds a peer by its Raft id.
func (t *Transport) known(id uint64) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.peers[id]
}

// Connected says that our link to a known peer is up in a class. A link that has
// had nothing to send is not; calls on a link that is down wait for the dial, at
// most HandshakeTimeout, or are refused at once while it waits for the next one.
func (t *Transport) Connected(id uint64, c Class) bool {
	p := t.known(id)
	return p != nil && c < classes && p.links[c].peerHello() != nil
}

// find is the peer to call: a known one by its Raft id, else whoever answers at
// the address.
func (t *Transport) find(to Peer) (*peer, error) {
	if p := t.known(to.ID); p != nil {
		return p, nil
	}
	if to.Addr == "" {
		return nil, errors.New("no known peer, and no address given")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.strangers[to]
	if p != nil {
		return p, nil
	}
	if len(t.strangers) >= t.o.MaxStrangers && !t.forgetStranger() {
		return nil, errFull
	}
	p = t.newPeer(to, false)
	t.strangers[to] = p
	return p, nil
}

// forgetStranger drops one that has nothing to do; mu is held.
func (t *Transport) forgetStranger() bool {
	for key, p := range t.strangers {
		if p.links[Calls].unused() && p.links[Bulk].unused() {
			p.stop(errIdle)
			delete(t.strangers, key)
			return true
		}
	}
	return false
}

// self is the hello of this node for a class.
func (t *Transport) self(c Class, link uint64) *hello {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return &hello{
		Version: protocolVersion, VersionMin: protocolVersionMin, Cluster: t.cluster, Node: t.o.Name,
		RaftID: t.o.RaftID, Boot: t.o.Boot, MaxFrame: t.o.MaxFrameBytes, Class: c, Link: link,
	}
}

// Send hands a Raft message to the peer m.To, or loses it: it never waits. What
// is lost is reported through OnUnreachable, unless nobody with that id is known.
// m and what it refers to must not be changed any more.
func (t *Transport) Send(shard uint32, m *pb.Message) {
	if p := t.known(m.GetTo()); p != nil {
		// A refusal is noted in the box, for the link's goroutine to report.
		_ = p.links[classOf(m)].push(item{head: header{kind: kindRaft, arg: shard}, msg: m, size: messageSize(m), lazy: isLazy(m)})
	}
}
