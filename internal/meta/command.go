package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// kind names a command. The numbers stand in the log: never change one.
type kind uint64

const (
	kindForm kind = iota + 1
	kindCreateTopic
	kindDeleteTopic
	kindRemoveTopic
	kindPauseTopic
	kindCreateChannel
	kindDeleteChannel
	kindRemoveChannel
	kindPauseChannel
	kindExpireBoot
	// of feature level 2
	kindFound
	kindReplaceNode
	kindUpdateNode
	kindDropBoot
	kindRequest
	kindSetAck
	// of any level, since a node that is alone has channels too
	kindSetDeadLetter
	kindRaiseTopic
	kindActivateTopic
)

const (
	entryFormat    = 1
	commandVersion = 1

	// maxPartitions is what fits into a message id.
	maxPartitions = 4096
	maxShards     = 1 << 16
)

// ErrEntry says that an entry of the metadata group cannot be read.
var ErrEntry = errors.New("malformed metadata entry")

// command is one change; which fields count depends on the kind.
type command struct {
	Kind    kind
	Name    string // topic, channel; Form: cluster id; SetDeadLetter: topic
	Topic   uint64 // id
	Channel uint64 // id
	Seed    uint64 // CreateTopic
	Count   uint64 // CreateTopic, RaiseTopic, ActivateTopic: partitions; Form: data shards; SetAck: an Ack; SetDeadLetter: attempts
	Boot    uint64 // CreateTopic, ExpireBoot, DropBoot: process id; 0 none
	On      bool   // PauseTopic, PauseChannel
	Feature uint64 // Form, Found
	Node    Node   // Form: the first member; ReplaceNode, UpdateNode: as it is to be
	// Was is what must still be true: the Raft id that ReplaceNode replaces, the
	// boot id that UpdateNode follows, the number of shards that AddShards adds to.
	Was      uint64
	Founding *Founding        // Found
	Request  *numberedCommand // Request
	Voters   [][]uint64       // AddShards
}

// numberedCommand is a command under the number of a request.
type numberedCommand struct {
	Origin, Number, Low uint64
	Inner               command
}

// entryHead stands before the commands of an entry.
type entryHead struct {
	Time  int64  // leader's unix ns
	Term  uint64 // in which it was built
	Count uint64 // of commands
}

func appendHead(b []byte, h entryHead) []byte {
	b = binary.AppendUvarint(b, entryFormat)
	b = binary.AppendUvarint(b, uint64(h.Time))
	b = binary.AppendUvarint(b, h.Term)
	return binary.AppendUvarint(b, h.Count)
}

func (r *reader) head() (entryHead, error) {
	format := r.uint()
	h := entryHead{Time: int64(r.uint()), Term: r.uint(), Count: r.uint()}
	switch {
	case r.bad:
		return h, fmt.Errorf("read head: %w", ErrEntry)
	case format != entryFormat:
		return h, fmt.Errorf("read format %d: %w", format, ErrEntry)
	}
	return h, nil
}

// append encodes a command behind b.
func (c *command) append(b []byte) []byte {
	var room [64]byte
	p := c.payload(room[:0])
	b = binary.AppendUvarint(b, uint64(c.Kind))
	b = binary.AppendUvarint(b, commandVersion)
	b = binary.AppendUvarint(b, uint64(len(p)))
	return append(b, p...)
}

func (c *command) payload(p []byte) []byte {
	switch c.Kind {
	case kindForm:
		p = appendString(p, c.Name)
		p = binary.AppendUvarint(p, c.Feature)
		p = binary.AppendUvarint(p, c.Count)
		p = binary.AppendUvarint(p, c.Node.ID)
		p = appendString(p, c.Node.Name)
	case kindCreateTopic:
		p = appendString(p, c.Name)
		p = binary.AppendUvarint(p, c.Seed)
		p = binary.AppendUvarint(p, c.Count)
		p = binary.AppendUvarint(p, c.Boot)
	case kindCreateChannel:
		p = binary.AppendUvarint(p, c.Topic)
		p = appendString(p, c.Name)
	case kindDeleteTopic, kindRemoveTopic:
		p = binary.AppendUvarint(p, c.Topic)
	case kindPauseTopic:
		p = binary.AppendUvarint(p, c.Topic)
		p = appendBool(p, c.On)
	case kindSetAck, kindRaiseTopic, kindActivateTopic:
		p = appendUints(p, c.Topic, c.Count)
	case kindSetDeadLetter:
		p = appendString(appendUints(p, c.Topic, c.Channel, c.Count), c.Name)
	case kindDeleteChannel, kindRemoveChannel:
		p = binary.AppendUvarint(p, c.Topic)
		p = binary.AppendUvarint(p, c.Channel)
	case kindPauseChannel:
		p = binary.AppendUvarint(p, c.Topic)
		p = binary.AppendUvarint(p, c.Channel)
		p = appendBool(p, c.On)
	case kindExpireBoot, kindDropBoot:
		p = binary.AppendUvarint(p, c.Boot)
	case kindFound:
		p = c.Founding.append(binary.AppendUvarint(p, c.Feature))
	case kindReplaceNode, kindUpdateNode:
		p = c.Node.append(binary.AppendUvarint(p, c.Was))
	case kindAddShards:
		p = appendVoters(binary.AppendUvarint(p, c.Was), c.Voters)
	case kindRequest:
		p = appendUints(p, c.Request.Origin, c.Request.Number, c.Request.Low)
		p = c.Request.Inner.append(p)
	}
	return p
}

func (f *Founding) append(p []byte) []byte {
	p = binary.AppendUvarint(appendString(p, f.Cluster), uint64(len(f.Nodes)))
	for i := range f.Nodes {
		p = f.Nodes[i].append(p)
	}
	p = binary.AppendUvarint(p, uint64(len(f.Voters)))
	for _, ids := range f.Voters {
		p = appendList(p, ids)
	}
	return p
}

func (n *Node) append(p []byte) []byte {
	p = appendString(binary.AppendUvarint(p, n.ID), n.Name)
	p = appendString(appendString(p, n.Addr), n.TCP)
	p = appendString(appendString(p, n.HTTP), n.Broadcast)
	return binary.AppendUvarint(p, n.Boot)
}

// command reads the next one.
func (r *reader) command() (command, error) {
	c := command{Kind: kind(r.uint())}
	version, size := r.uint(), r.uint()
	if r.bad || size > uint64(len(r.b)) {
		return c, fmt.Errorf("read command: %w", ErrEntry)
	}
	p := reader{b: r.b[:size]}
	r.b = r.b[size:]
	if version != commandVersion {
		return c, fmt.Errorf("read command %d: version %d is not known to this program", c.Kind, version)
	}
	if c.Kind == kindRequest {
		if err := p.request(&c); err != nil {
			return c, err
		}
	} else if !p.payload(&c) {
		return c, fmt.Errorf("read command %d: this kind is not known to this program", c.Kind)
	}
	if p.bad || len(p.b) > 0 {
		return c, fmt.Errorf("read command %d: %w", c.Kind, ErrEntry)
	}
	return c, nil
}

// payload fills c; false for an unknown kind.
func (r *reader) payload(c *command) bool {
	switch c.Kind {
	case kindForm:
		c.Name, c.Feature, c.Count = r.string(), r.uint(), r.uint()
		c.Node = Node{ID: r.uint(), Name: r.string()}
		r.bad = r.bad || c.Count == 0 || c.Count > maxShards || c.Feature != 1
	case kindCreateTopic:
		c.Name, c.Seed, c.Count, c.Boot = r.string(), r.uint(), r.uint(), r.uint()
		r.bad = r.bad || c.Count == 0 || c.Count > maxPartitions
	case kindCreateChannel:
		c.Topic, c.Name = r.uint(), r.string()
	case kindDeleteTopic, kindRemoveTopic:
		c.Topic = r.uint()
	case kindPauseTopic:
		c.Topic, c.On = r.uint(), r.bool()
	case kindSetAck:
		c.Topic, c.Count = r.uint(), r.uint()
		r.bad = r.bad || c.Count >= uint64(acks)
	case kindRaiseTopic, kindActivateTopic:
		c.Topic, c.Count = r.uint(), r.uint()
		r.bad = r.bad || c.Count == 0 || c.Count > maxPartitions
	case kindSetDeadLetter:
		c.Topic, c.Channel, c.Count, c.Name = r.uint(), r.uint(), r.uint(), r.string()
		r.bad = r.bad || !validDeadLetter(c.Count, c.Name)
	case kindDeleteChannel, kindRemoveChannel:
		c.Topic, c.Channel = r.uint(), r.uint()
	case kindPauseChannel:
		c.Topic, c.Channel, c.On = r.uint(), r.uint(), r.bool()
	case kindExpireBoot, kindDropBoot:
		c.Boot = r.uint()
	case kindFound:
		c.Feature, c.Founding = r.uint(), r.founding()
		r.bad = r.bad || c.Feature < 2 || c.Feature > 1<<16 || c.Founding.Check() != nil
	case kindReplaceNode, kindUpdateNode:
		c.Was, c.Node = r.uint(), r.node()
	case kindAddShards:
		c.Was, c.Voters = r.uint(), r.voters()
	default:
		return false
	}
	return true
}

// request fills c with a command under a number; an error for a kind or
// version that is not known.
func (r *reader) request(c *command) (err error) {
	req := &numberedCommand{Origin: r.uint(), Number: r.uint(), Low: r.uint()}
	if r.bad {
		return fmt.Errorf("read request: %w", ErrEntry)
	}
	switch r.peek() {
	case kindForm, kindFound, kindExpireBoot, kindRequest: // only for the leader itself, or nonsense
		return fmt.Errorf("read request: %w", ErrEntry)
	}
	req.Inner, err = r.command()
	c.Request = req
	return err
}

// peek is the kind of the command that comes next.
func (r *reader) peek() kind {
	k, _ := binary.Uvarint(r.b)
	return kind(k)
}

func (r *reader) founding() *Founding {
	f := &Founding{Cluster: r.string()}
	for range r.count() {
		f.Nodes = append(f.Nodes, r.node())
	}
	for range r.count() {
		f.Voters = append(f.Voters, r.list())
	}
	return f
}

func (r *reader) node() Node {
	n := Node{
		ID: r.uint(), Name: r.string(), Addr: r.string(), TCP: r.string(), HTTP: r.string(),
		Broadcast: r.string(), Boot: r.uint(),
	}
	r.bad = r.bad || len(n.Name) > MaxName ||
		max(len(n.Addr), len(n.TCP), len(n.HTTP), len(n.Broadcast)) > MaxAddress
	return n
}

func appendList(b []byte, ids []uint64) []byte {
	return appendUints(binary.AppendUvarint(b, uint64(len(ids))), ids...)
}

// list reads ids; nil for none.
func (r *reader) list() []uint64 {
	var ids []uint64
	for range r.count() {
		ids = append(ids, r.uint())
	}
	return ids
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader takes values from bytes; bad once they end early or make no sense.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) bool() bool {
	v := r.uint()
	r.bad = r.bad || v > 1
	return v == 1
}

// count reads the length of a list whose elements take at least one byte each.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}
