package lookup

import (
	"cmp"
	"slices"
	"time"
)

// Registered is an nsqd that is registered here, for people to look at.
type Registered struct {
	Peer
	LastPing   time.Time
	Topics     int
	Tombstones []string // topics that it is left out of, by name
}

// Serves reports whether anybody can register or look up here.
func (f *Front) Serves() bool { return f.o.TCP != nil || f.o.HTTP != nil }

// Registered lists the nsqds that are registered here and whose last ping is not
// too long ago, by address.
func (f *Front) Registered() []Registered {
	r := f.registry
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := r.clock()
	out := make([]Registered, 0, len(r.producers))
	for p := range r.producers {
		if !r.active(p, now) {
			continue
		}
		x := Registered{Peer: p.Peer, LastPing: p.lastPing}
		for topic := range p.topics {
			if t := r.topics[topic]; t != nil && t.producers[p] != nil {
				x.Topics++
				if r.covers(t.producers[p].tombstoned, now) {
					x.Tombstones = append(x.Tombstones, topic)
				}
			}
		}
		slices.Sort(x.Tombstones)
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Registered) int {
		return cmp.Or(cmp.Compare(a.BroadcastAddress, b.BroadcastAddress), cmp.Compare(a.TCPPort, b.TCPPort))
	})
	return out
}

// Link is one nsqlookupd that the node registers with.
type Link struct {
	Address string
	// HTTP is where it speaks HTTP, as it says itself; empty while the node is
	// not registered there.
	HTTP string
}

// Links lists the nsqlookupds that the node registers with, in the order of the
// settings.
func (r *Registrar) Links() []Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Link, 0, len(r.wanted))
	for _, addr := range r.wanted {
		x := Link{Address: addr}
		if l := r.links[addr]; l != nil {
			l.mu.Lock()
			x.HTTP = l.http
			l.mu.Unlock()
		}
		out = append(out, x)
	}
	return out
}
