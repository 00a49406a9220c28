package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidings-io/tidings/internal/meta"
)

// Method is what a call asks for. The numbers stand on the wire.
type Method uint16

// The methods.
const (
	MethodHello Method = iota + 1 // who are you, and what does your disk say
	MethodForm                    // accept this cluster
	MethodLease                   // this node lives
	MethodJoin                    // give a member's name to this disk
	MethodMeta                    // a request for metadata, as package meta encodes it
)

// String is the method in lower case.
func (m Method) String() string {
	switch m {
	case MethodHello:
		return "hello"
	case MethodForm:
		return "form"
	case MethodLease:
		return "lease"
	case MethodJoin:
		return "join"
	case MethodMeta:
		return "meta"
	}
	return fmt.Sprintf("method %d", uint16(m))
}

// Every message begins with its version, 1. Integers are uvarints, strings are
// a length and bytes, lists a count and elements. Another version is refused:
// what a later one adds comes as a new version, or another method.
const wireVersion = 1

// Bounds of what a message holds.
const (
	maxMessage   = 1 << 20 // bytes
	maxText      = 1000    // bytes of a reason
	maxGroups    = 1<<16 + 1
	maxPositions = 1024
	maxStage     = 16 // bytes of the name of a session's stage
)

// ErrMessage says that a message cannot be read.
var ErrMessage = errors.New("malformed cluster message")

// Ticket is what a node gives to one that wants to form a cluster; only the
// last one given to a name counts.
type Ticket struct {
	Boot   uint64 // process that gave it
	Number uint64 // 0: none
}

// Hello asks who a node is.
type Hello struct {
	RaftID uint64 // who asks
	// Prepare says that the asker is about to form a cluster: it wants a ticket.
	Prepare bool
}

// HelloAnswer says who a node is, and what its disk says.
type HelloAnswer struct {
	Node    meta.Node // name, Raft id and addresses
	Stage   Stage
	Seeds   []string // addresses, sorted
	Cluster string   // from Accepted on
	Attempt Attempt
	Members []meta.Node
	Ticket  Ticket // for a Prepare
}

// Form asks a node to accept a cluster.
type Form struct {
	Ticket  Ticket
	Cluster string
	Attempt Attempt
	Members []meta.Node
	Voters  [][]uint64
}

// FormAnswer is the answer: an empty reason means that it is accepted, durably.
type FormAnswer struct{ Reason string }

// Join asks for the place of a member whose disk is gone.
type Join struct {
	Cluster string
	Was     uint64 // Raft id that the asker believes to have the name
	Node    meta.Node
}

// JoinAnswer is the answer: an empty reason means that the node is a member.
type JoinAnswer struct {
	Reason  string
	Attempt Attempt
	Members []meta.Node
	Shards  int // data shards of the cluster
}

// Position is how far a node is in one group.
type Position struct {
	Shard   uint32
	Leads   bool
	Term    uint64
	Applied uint64
	Commit  uint64
	// Session is the one in which it gets the group's state; its zero value: none.
	Session Session
}

// Session is how far a replica has come that gets the state of its group.
type Session struct {
	Stage string // receive, sync, install; empty: there is no session
	Bytes uint64 // so far
	Total uint64 // about how many they will be; 0 while it is not known
	Rate  uint64 // bytes per second, on the average
}

// Renewal renews a node's lease.
type Renewal struct {
	Cluster   string
	Node      meta.Node // with the boot id of its process
	SyncNs    uint64    // the slowest of its last syncs, in ns
	Positions []Position
}

// RenewalAnswer is the answer of the leader of metadata: all leases as it has
// them. An empty list means that the node does not lead; Leader is who does, as
// far as it knows, 0 when it does not.
type RenewalAnswer struct {
	Leader uint64
	Leases []Lease
}

type decoder struct {
	b   []byte
	bad bool
}

// open checks size and version of a message.
func open(b []byte) (decoder, error) {
	if len(b) == 0 || len(b) > maxMessage {
		return decoder{}, fmt.Errorf("read %d bytes: %w", len(b), ErrMessage)
	}
	if b[0] != wireVersion {
		return decoder{}, fmt.Errorf("read version %d, this program knows %d: %w", b[0], wireVersion, ErrMessage)
	}
	return decoder{b: b[1:]}, nil
}

// close reports whether all was read and made sense.
func (d *decoder) close(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("read %s: %w", what, ErrMessage)
	}
	return nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// below reads an integer that has a bound.
func (d *decoder) below(bound uint64) uint64 {
	v := d.uint()
	if v >= bound {
		d.bad = true
		return 0
	}
	return v
}

func (d *decoder) bool() bool { return d.below(2) == 1 }

func (d *decoder) string(limit int) string {
	n := d.uint()
	if n > uint64(len(d.b)) || n > uint64(limit) {
		d.b, d.bad = nil, true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// count reads the length of a list whose elements take at least a byte each.
func (d *decoder) count(limit int) int {
	n := d.uint()
	if n > uint64(len(d.b)) || n > uint64(limit) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func appendUints(b []byte, list ...uint64) []byte {
	for _, v := range list {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendStrings(b []byte, list ...string) []byte {
	for _, s := range list {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendNode(b []byte, n meta.Node) []byte {
	b = appendUints(b, n.ID, n.Boot)
	return appendStrings(b, n.Name, n.Addr, n.TCP, n.HTTP, n.Broadcast)
}

func (d *decoder) node() meta.Node {
	n := meta.Node{ID: d.uint(), Boot: d.uint(), Name: d.string(meta.MaxName)}
	n.Addr, n.TCP = d.string(meta.MaxAddress), d.string(meta.MaxAddress)
	n.HTTP, n.Broadcast = d.string(meta.MaxAddress), d.string(meta.MaxAddress)
	return n
}

func appendNodes(b []byte, list []meta.Node) []byte {
	b = appendUints(b, uint64(len(list)))
	for _, n := range list {
		b = appendNode(b, n)
	}
	return b
}

func (d *decoder) nodes() (list []meta.Node) {
	for range d.count(meta.MaxNodes) {
		list = append(list, d.node())
	}
	return list
}

func (h Hello) encode() []byte {
	return appendBool(appendUints([]byte{wireVersion}, h.RaftID), h.Prepare)
}

func decodeHello(b []byte) (Hello, error) {
	d, err := open(b)
	if err != nil {
		return Hello{}, err
	}
	h := Hello{RaftID: d.uint(), Prepare: d.bool()}
	return h, d.close("hello")
}

func (a HelloAnswer) encode() []byte {
	b := appendNode([]byte{wireVersion}, a.Node)
	b = appendUints(b, uint64(a.Stage), uint64(len(a.Seeds)))
	b = appendStrings(appendStrings(b, a.Seeds...), a.Cluster)
	b = appendNodes(appendUints(b, a.Attempt.Number, a.Attempt.Draw), a.Members)
	return appendUints(b, a.Ticket.Boot, a.Ticket.Number)
}

func decodeHelloAnswer(b []byte) (HelloAnswer, error) {
	d, err := open(b)
	if err != nil {
		return HelloAnswer{}, err
	}
	a := HelloAnswer{Node: d.node(), Stage: Stage(d.below(uint64(Formed) + 1))}
	for range d.count(meta.MaxNodes) {
		a.Seeds = append(a.Seeds, d.string(meta.MaxAddress))
	}
	a.Cluster, a.Attempt = d.string(64), Attempt{d.uint(), d.uint()}
	a.Members, a.Ticket = d.nodes(), Ticket{d.uint(), d.uint()}
	if a.Stage != Empty {
		d.bad = d.bad || checkCluster(a.Cluster) != nil
	}
	return a, d.close("answer to hello")
}

func (f Form) encode() []byte {
	b := appendUints([]byte{wireVersion}, f.Ticket.Boot, f.Ticket.Number)
	b = appendUints(appendStrings(b, f.Cluster), f.Attempt.Number, f.Attempt.Draw)
	b = appendUints(appendNodes(b, f.Members), uint64(len(f.Voters)))
	for _, ids := range f.Voters {
		b = appendUints(appendUints(b, uint64(len(ids))), ids...)
	}
	return b
}

func decodeForm(b []byte) (Form, error) {
	d, err := open(b)
	if err != nil {
		return Form{}, err
	}
	f := Form{Ticket: Ticket{d.uint(), d.uint()}, Cluster: d.string(64), Attempt: Attempt{d.uint(), d.uint()}}
	f.Members = d.nodes()
	for range d.count(maxGroups) {
		var ids []uint64
		for range d.count(meta.MaxNodes) {
			ids = append(ids, d.uint())
		}
		f.Voters = append(f.Voters, ids)
	}
	return f, d.close("form")
}

func (a FormAnswer) encode() []byte {
	return appendStrings([]byte{wireVersion}, a.Reason[:min(len(a.Reason), maxText)])
}

func decodeFormAnswer(b []byte) (FormAnswer, error) {
	d, err := open(b)
	if err != nil {
		return FormAnswer{}, err
	}
	a := FormAnswer{Reason: d.string(maxText)}
	return a, d.close("answer to form")
}

func (j Join) encode() []byte {
	return appendNode(appendUints(appendStrings([]byte{wireVersion}, j.Cluster), j.Was), j.Node)
}

func decodeJoin(b []byte) (Join, error) {
	d, err := open(b)
	if err != nil {
		return Join{}, err
	}
	j := Join{Cluster: d.string(64), Was: d.uint(), Node: d.node()}
	return j, d.close("join")
}

func (a JoinAnswer) encode() []byte {
	b := appendStrings([]byte{wireVersion}, a.Reason[:min(len(a.Reason), maxText)])
	b = appendNodes(appendUints(b, a.Attempt.Number, a.Attempt.Draw), a.Members)
	return appendUints(b, uint64(a.Shards))
}

func decodeJoinAnswer(b []byte) (JoinAnswer, error) {
	d, err := open(b)
	if err != nil {
		return JoinAnswer{}, err
	}
	a := JoinAnswer{
		Reason: d.string(maxText), Attempt: Attempt{d.uint(), d.uint()}, Members: d.nodes(), Shards: int(d.below(maxGroups)),
	}
	return a, d.close("answer to join")
}

func appendPositions(b []byte, list []Position) []byte {
	list = list[:min(len(list), maxPositions)]
	b = appendUints(b, uint64(len(list)))
	for _, p := range list {
		b = appendBool(appendUints(b, uint64(p.Shard)), p.Leads)
		b = appendUints(b, p.Term, p.Applied, p.Commit)
		b = appendStrings(b, p.Session.Stage[:min(len(p.Session.Stage), maxStage)])
		if p.Session.Stage != "" {
			b = appendUints(b, p.Session.Bytes, p.Session.Total, p.Session.Rate)
		}
	}
	return b
}

func (d *decoder) positions() (list []Position) {
	for range d.count(maxPositions) {
		p := Position{
			Shard: uint32(d.below(1 << 32)), Leads: d.bool(), Term: d.uint(), Applied: d.uint(), Commit: d.uint(),
		}
		if p.Session.Stage = d.string(maxStage); p.Session.Stage != "" {
			p.Session.Bytes, p.Session.Total, p.Session.Rate = d.below(1<<62), d.below(1<<62), d.below(1<<62)
		}
		list = append(list, p)
	}
	return list
}

func (r Renewal) encode() []byte {
	b := appendNode(appendStrings([]byte{wireVersion}, r.Cluster), r.Node)
	return appendPositions(appendUints(b, r.SyncNs), r.Positions)
}

func decodeRenewal(b []byte) (Renewal, error) {
	d, err := open(b)
	if err != nil {
		return Renewal{}, err
	}
	r := Renewal{Cluster: d.string(64), Node: d.node(), SyncNs: d.below(1 << 62), Positions: d.positions()}
	return r, d.close("renewal")
}

func (a RenewalAnswer) encode() []byte {
	b := appendUints([]byte{wireVersion}, a.Leader, uint64(len(a.Leases)))
	for _, l := range a.Leases {
		b = appendUints(b, l.RaftID, l.Boot, uint64(l.State), uint64(l.Age), uint64(l.Since), uint64(l.Sync), uint64(l.Calm))
		b = appendPositions(b, l.Positions)
	}
	return b
}

func decodeRenewalAnswer(b []byte) (RenewalAnswer, error) {
	d, err := open(b)
	if err != nil {
		return RenewalAnswer{}, err
	}
	a := RenewalAnswer{Leader: d.uint()}
	for range d.count(meta.MaxNodes) {
		l := Lease{RaftID: d.uint(), Boot: d.uint(), State: LeaseState(d.below(uint64(LeaseLapsed) + 1))}
		l.Age, l.Since, l.Sync, l.Calm = d.duration(), d.duration(), d.duration(), d.duration()
		l.Positions = d.positions()
		a.Leases = append(a.Leases, l)
	}
	return a, d.close("answer to renewal")
}
