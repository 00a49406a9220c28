package meta

import (
	"fmt"
	"strings"

	"github.com/tidings-io/tidings/internal/fault"
)

// outbox holds the requests of this process that have a number, or wait for
// one: those that another node may have to answer. The machine's lock guards
// it.
type outbox struct {
	next  uint64               // number of the next request
	low   uint64               // all below are answered
	sent  map[uint64]*outgoing // by number, all from low on
	queue []*outgoing          // not numbered yet: the window is full
	// came are answers of other nodes, in no order; they are given out once
	// this node has applied the entry that answered.
	came    []arrival
	applied uint64 // index of the last applied entry
}

// outgoing is a request on its way.
type outgoing struct {
	request
	number uint64
}

// arrival is an answer of another node.
type arrival struct {
	of *outgoing
	answer
}

func newOutbox() outbox { return outbox{next: 1, low: 1, sent: make(map[uint64]*outgoing)} }

// ask takes a request: into this node's next entry, or to the node that leads.
// It refuses when too many wait.
func (m *Machine) ask(c command, done func(result)) {
	m.mu.Lock()
	switch {
	case m.closed != nil:
		err := m.closed
		m.mu.Unlock()
		done(result{err: err})
		return
	case len(m.waiting)+len(m.out.queue) >= m.o.Waiting:
		m.mu.Unlock()
		done(result{err: fault.New(fault.Overloaded, "change metadata: %d changes wait", m.o.Waiting)})
		return
	}
	if m.o.Forward == nil {
		m.waiting = append(m.waiting, request{c, done})
		m.mu.Unlock()
		m.o.Wake()
		return
	}
	m.out.queue = append(m.out.queue, &outgoing{request: request{c, done}})
	m.number()
}

// number gives numbers to the requests that wait for one, as far as the window
// reaches, and sends them. The lock is held when it is called, and given back.
func (m *Machine) number() {
	var forward []*outgoing
	var low uint64
	for len(m.out.queue) > 0 && m.out.next-m.out.low < requestWindow {
		o := m.out.queue[0]
		m.out.queue[0] = nil
		m.out.queue = m.out.queue[1:]
		o.number = m.out.next
		m.out.next++
		m.out.sent[o.number] = o
		if m.leads {
			m.waiting = append(m.waiting, m.numbered(o))
		} else {
			forward = append(forward, o)
		}
	}
	low = m.out.low
	wake := len(m.waiting) > 0
	m.mu.Unlock()
	if wake {
		m.o.Wake()
	}
	for _, o := range forward {
		m.forward(o, low)
	}
}

// numbered is the request as this node itself proposes it; when it loses the
// lead meanwhile, the next leader is asked.
func (m *Machine) numbered(o *outgoing) request {
	return request{command: m.command(o, m.out.low), done: func(r result) {
		if fault.CodeOf(r.err) == fault.NotLeader {
			m.again(o)
			return
		}
		m.finish(o)
		o.done(r)
	}}
}

func (m *Machine) command(o *outgoing, low uint64) command {
	return command{Kind: kindRequest, Request: &numberedCommand{
		Origin: m.o.Node.Boot, Number: o.number, Low: low, Inner: o.command,
	}}
}

// again forwards a request whose outcome is unknown.
func (m *Machine) again(o *outgoing) {
	m.mu.Lock()
	low := m.out.low
	m.mu.Unlock()
	m.forward(o, low)
}

func (m *Machine) forward(o *outgoing, low uint64) {
	c := m.command(o, low)
	m.o.Forward(appendRequest(nil, &c), func(encoded []byte, err error) {
		a := arrival{of: o, answer: answer{err: err}}
		if err == nil {
			if a.answer, err = decodeAnswer(encoded); err != nil {
				a.answer = answer{err: fault.Wrap(fault.Internal, err)}
			}
		}
		m.mu.Lock()
		closed := m.closed
		if closed == nil {
			m.out.came = append(m.out.came, a)
			m.returned.Add(1)
		}
		m.mu.Unlock()
		if closed == nil {
			m.o.Wake() // closed: Close has answered
		}
	})
}

// reached notes that the entry of that index is applied.
func (m *Machine) reached(index uint64) {
	m.mu.Lock()
	m.out.applied = max(m.out.applied, index)
	m.mu.Unlock()
}

// giveOut gives the answers that have come, as far as this node has seen what
// they speak of, to those who asked.
func (m *Machine) giveOut() {
	if m.returned.Load() == 0 {
		return
	}
	var due []arrival
	m.mu.Lock()
	rest := m.out.came[:0]
	for _, a := range m.out.came {
		if a.index <= m.out.applied { // 0: the request has not come to be an entry
			due = append(due, a)
		} else {
			rest = append(rest, a)
		}
	}
	clear(m.out.came[len(rest):])
	m.out.came = rest
	m.mu.Unlock()
	m.returned.Add(int64(-len(due)))
	view := m.View()
	for _, a := range due {
		m.finish(a.of)
		r := result{err: a.err}
		if r.err == nil {
			r = view.outcome(a.of.Kind, a.topic, a.channel)
		}
		a.of.done(r)
	}
}

// finish takes an answered request out, and lets those go that wait for the
// window.
func (m *Machine) finish(o *outgoing) {
	m.mu.Lock()
	delete(m.out.sent, o.number)
	for m.out.low < m.out.next && m.out.sent[m.out.low] == nil {
		m.out.low++
	}
	m.number()
}

// Submit takes an encoded request of another node and calls done with the
// encoded answer, once, perhaps before it returns; done must not block.
// fault.NotLeader inside the answer (see Refused) means that this node does
// not lead, or lost the lead before it knew the outcome.
func (m *Machine) Submit(encoded []byte, done func(answer []byte)) {
	c, err := decodeRequest(encoded)
	if v := m.View(); err == nil && v.Formed() && v.Feature < 2 {
		err = fault.New(fault.Unsupported, "change metadata: the cluster has feature level %d, this needs 2", v.Feature)
	}
	if err != nil {
		done(Refusal(err))
		return
	}
	m.mu.Lock()
	switch {
	case m.closed != nil:
		err = m.closed
	case !m.leads:
		err = fault.NotLeader
	case len(m.waiting) >= m.o.Waiting:
		err = fault.New(fault.Overloaded, "change metadata: %d changes wait", m.o.Waiting)
	default:
		m.waiting = append(m.waiting, request{command: c, done: func(r result) { done(r.answer().encode()) }})
	}
	m.mu.Unlock()
	if err != nil {
		done(Refusal(err))
		return
	}
	m.o.Wake()
}

// Close answers everyone who waits with err, and whoever asks from now on. It
// is called when the group has stopped.
func (m *Machine) Close(err error) {
	m.mu.Lock()
	m.closed = err
	waiting, out := m.waiting, m.out
	m.waiting, m.out = nil, newOutbox()
	m.returned.Store(0)
	m.mu.Unlock()
	for _, r := range waiting {
		mine := r.Request != nil && r.Request.Origin == m.o.Node.Boot // answered below
		if !mine && r.done != nil {
			r.done(result{err: err})
		}
	}
	for _, o := range out.sent {
		o.done(result{err: err})
	}
	for _, o := range out.queue {
		o.done(result{err: err})
	}
}

// update is the command that makes a member what it says it is; false when it
// is that already, or no member.
func (v *View) update(n Node) (command, bool) {
	old, ok := v.Node(n.ID)
	if !ok || old.State != NodeMember || old.Boot == n.Boot && old.sameAddresses(&n) {
		return command{}, false
	}
	return command{Kind: kindUpdateNode, Was: old.Boot, Node: n}, true
}

// Announced reports whether metadata knows the node, by its Raft id, with this
// process and these addresses.
func (v *View) Announced(n Node) bool {
	old, ok := v.Node(n.ID)
	return ok && old.State == NodeMember && old.Boot == n.Boot && old.sameAddresses(&n)
}

// UpdateNode makes a member's addresses and boot id what the node says they
// are; nothing is proposed when they are that already. A new boot id ends the
// ephemeral topics of the one before. fault.InvalidRequest when the Raft id is
// no member's, or another change came in between: look again.
func (m *Machine) UpdateNode(n Node, done func(error)) {
	v := m.View()
	if c, ok := v.update(n); ok {
		m.askError(c, done)
		return
	}
	var err error
	if !v.Announced(n) {
		err = fault.New(fault.InvalidRequest, "update node %s: the Raft id %x is no member's", n.Name, n.ID)
	}
	if done != nil {
		done(err)
	}
}

// ReplaceNode gives the name of a member, and its places in all groups, to n,
// the same name on another disk. was is the Raft id that it had; when the
// member has become n already, this does nothing. fault.InvalidRequest when
// there is no such member, it is not was any more, or n's Raft id was used.
func (m *Machine) ReplaceNode(was uint64, n Node, done func(error)) {
	if n.ID == 0 || n.Name == "" || strings.TrimSpace(n.Name) != n.Name {
		if done != nil {
			done(fault.Wrap(fault.InvalidRequest, fmt.Errorf("replace node %q: it needs a name and a Raft id", n.Name)))
		}
		return
	}
	m.askError(command{Kind: kindReplaceNode, Was: was, Node: n}, done)
}

// DropBoot ends the ephemeral topics of a process that is gone.
func (m *Machine) DropBoot(boot uint64, done func(error)) {
	m.askError(command{Kind: kindDropBoot, Boot: boot}, done)
}
