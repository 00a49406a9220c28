package meta

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/shard"
)

// FeatureLevel is the highest level of commands that this program knows.
const FeatureLevel = 2

// GroupID is the shard of the metadata group; data shards count from 1.
const GroupID = 0

// Options of a machine. Zero values mean the default beside the field.
type Options struct {
	// Node is this one, as other nodes and clients reach it. Its Boot is drawn
	// at random when it is 0.
	Node Node
	// Wake tells the group that something waits. It is not called before the
	// first request.
	Wake       func()
	Shards     int       // data shards of a new cluster of this node alone; 8
	Founding   *Founding // how a new cluster of several begins; nil: of this node alone
	Partitions int       // of a new topic; 1
	Waiting    int       // bound of requests that wait for an answer; 65,536
	Random     io.Reader // of ids and seeds; crypto/rand

	// Grow opens the groups of data shards that are not open yet. It is called on the
	// group's loop with all data shards, before a view that has more of them than the
	// one before is shown to anybody, so that what follows in metadata finds them; it
	// may write files. An error stops the replica. Nil: nothing to do.
	Grow func(shards []Shard) error

	// Forward carries an encoded request to the node that leads metadata, to
	// its Submit, and brings the answer back; as the request is numbered it may
	// be sent again while the outcome is unknown. It must not block, nor call
	// done before it returns; it calls done exactly once, with an error when it
	// gives up. Nil: only this node can lead, and requests wait until it does.
	Forward func(request []byte, done func(answer []byte, err error))
}

// Machine is the metadata of the cluster, replicated by its group.
type Machine struct {
	o    Options
	view atomic.Pointer[View]

	mu      sync.Mutex
	leads   bool
	closed  error
	waiting []request // for the next entry
	out     outbox    // of requests that have a number

	returned atomic.Int64 // answers of other nodes that Tick has to give out

	watching sync.Mutex // held while watchers are called
	watchers []func(old, new *View)
}

// request is a command and who waits for it.
type request struct {
	command
	done func(result) // nil: nobody
}

// token travels with an entry: who waits for its commands, in their order.
type token []func(result)

var _ shard.Machine = (*Machine)(nil)

// New makes a machine with an empty state. The group restores and drives it.
func New(o Options) (*Machine, error) {
	if o.Wake == nil {
		o.Wake = func() {}
	}
	if o.Shards <= 0 {
		o.Shards = 8
	}
	if o.Partitions <= 0 {
		o.Partitions = 1
	}
	if o.Waiting <= 0 {
		o.Waiting = 65536
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Founding != nil {
		if err := o.Founding.Check(); err != nil {
			return nil, err
		}
	}
	m := &Machine{o: o, out: newOutbox()}
	for m.o.Node.Boot == 0 {
		var err error
		if m.o.Node.Boot, err = m.random(); err != nil {
			return nil, err
		}
	}
	m.view.Store(&View{})
	return m, nil
}

// Node is this node as it announces itself, with the boot id of this process.
func (m *Machine) Node() Node { return m.o.Node }

func (m *Machine) random() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(m.o.Random, b[:]); err != nil {
		return 0, fmt.Errorf("read random: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// View is the metadata as of the last applied change.
func (m *Machine) View() *View { return m.view.Load() }

// Watch calls fn with an empty view and the present one, now, and from then on
// with the views before and after each change, on the group's loop and before
// those who asked for the change are answered. fn must not block nor call
// Watch; Diff tells what changed.
func (m *Machine) Watch(fn func(old, new *View)) {
	m.watching.Lock()
	defer m.watching.Unlock()
	m.watchers = append(m.watchers, fn)
	fn(&View{}, m.View())
}

// CreateTopic makes the topic, or finds it: fault.Deleting while the old one
// of that name is being deleted. The name is the caller's to validate. done,
// here and below, is called once, on the group's loop, and must not block; it
// may be nil.
func (m *Machine) CreateTopic(name string, done func(*Topic, error)) {
	m.CreatePartitioned(name, 0, done)
}

// CreatePartitioned is CreateTopic with a number of partitions, up to MaxPartitions;
// 0: Options.Partitions. One that is there keeps those that it has, and an ephemeral
// topic has one.
func (m *Machine) CreatePartitioned(name string, partitions int, done func(*Topic, error)) {
	if partitions <= 0 {
		partitions = m.o.Partitions
	}
	seed, err := m.random()
	if err != nil {
		if done != nil {
			done(nil, fault.Wrap(fault.Internal, err))
		}
		return
	}
	c := command{Kind: kindCreateTopic, Name: name, Seed: seed, Count: uint64(min(partitions, maxPartitions))}
	if strings.HasSuffix(name, EphemeralSuffix) {
		c.Boot = m.o.Node.Boot
	}
	m.ask(c, func(r result) {
		if done != nil {
			done(r.topic, r.err)
		}
	})
}

// CreateChannel makes the channel, or finds it: fault.TopicNotFound,
// fault.Deleting.
func (m *Machine) CreateChannel(topic uint64, name string, done func(*Channel, error)) {
	m.ask(command{Kind: kindCreateChannel, Topic: topic, Name: name}, func(r result) {
		if done != nil {
			done(r.channel, r.err)
		}
	})
}

// DeleteTopic marks the topic: fault.TopicNotFound.
func (m *Machine) DeleteTopic(topic uint64, done func(error)) {
	m.askError(command{Kind: kindDeleteTopic, Topic: topic}, done)
}

// FinishDeleteTopic takes the topic away; no error when it is gone.
func (m *Machine) FinishDeleteTopic(topic uint64, done func(error)) {
	m.askError(command{Kind: kindRemoveTopic, Topic: topic}, done)
}

// DeleteChannel marks the channel: fault.TopicNotFound, fault.ChannelNotFound.
func (m *Machine) DeleteChannel(topic, channel uint64, done func(error)) {
	m.askError(command{Kind: kindDeleteChannel, Topic: topic, Channel: channel}, done)
}

// FinishDeleteChannel takes the channel away; no error when it is gone.
func (m *Machine) FinishDeleteChannel(topic, channel uint64, done func(error)) {
	m.askError(command{Kind: kindRemoveChannel, Topic: topic, Channel: channel}, done)
}

// Sync calls done when this node has applied all that was in metadata when it was
// called, whoever leads that. Errors as those of changes.
func (m *Machine) Sync(done func(error)) {
	m.PauseTopic(0, false, func(err error) { // there is no such topic
		if fault.CodeOf(err) == fault.TopicNotFound {
			err = nil
		}
		done(err)
	})
}

// PauseTopic pauses or resumes the topic: fault.TopicNotFound.
func (m *Machine) PauseTopic(topic uint64, paused bool, done func(error)) {
	m.askError(command{Kind: kindPauseTopic, Topic: topic, On: paused}, done)
}

// PauseChannel pauses or resumes the channel: fault.TopicNotFound,
// fault.ChannelNotFound.
func (m *Machine) PauseChannel(topic, channel uint64, paused bool, done func(error)) {
	m.askError(command{Kind: kindPauseChannel, Topic: topic, Channel: channel, On: paused}, done)
}

func (m *Machine) askError(c command, done func(error)) {
	m.ask(c, func(r result) {
		if done != nil {
			done(r.err)
		}
	})
}

// Drain makes one entry of all that waits.
func (m *Machine) Drain(term uint64, now int64, maxBytes int) ([]byte, any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 {
		return nil, nil
	}
	var commands []byte
	var waits token
	n := 0
	for ; n < len(m.waiting) && len(commands) < maxBytes; n++ {
		commands = m.waiting[n].append(commands)
		waits = append(waits, m.waiting[n].done)
	}
	rest := copy(m.waiting, m.waiting[n:])
	clear(m.waiting[rest:])
	m.waiting = m.waiting[:rest]
	if rest == 0 && cap(m.waiting) > 1024 {
		m.waiting = nil
	}
	head := appendHead(make([]byte, 0, 32+len(commands)), entryHead{Time: now, Term: term, Count: uint64(n)})
	return append(head, commands...), waits
}

// Apply makes an entry fact, tells the watchers, then those who asked.
func (m *Machine) Apply(e shard.Entry, t any) error {
	old := m.View()
	next, results, err := old.applyEntry(e.Index, e.Term, e.Data)
	if err != nil {
		return fmt.Errorf("apply metadata: %w", err)
	}
	if err := m.grow(old, next); err != nil {
		return fmt.Errorf("apply metadata: %w", err)
	}
	m.publish(old, next)
	m.reached(e.Index)
	if t == nil {
		return nil
	}
	if results == nil { // built in another term
		m.Drop(t, fault.NotLeader)
		return nil
	}
	for i, done := range t.(token) {
		if done != nil {
			done(results[i])
		}
	}
	return nil
}

// publish makes next the view and tells the watchers.
func (m *Machine) publish(old, next *View) {
	if next == old {
		return
	}
	m.watching.Lock()
	defer m.watching.Unlock()
	m.view.Store(next)
	for _, fn := range m.watchers {
		fn(old, next)
	}
}

// Drop tells those who asked that the outcome is unknown.
func (m *Machine) Drop(t any, err error) {
	if t == nil {
		return
	}
	for _, done := range t.(token) {
		if done != nil {
			done(result{err: err})
		}
	}
}

// Lead begins the cluster if it is new, or says that this node runs as a new
// process, before anything else that waits.
func (m *Machine) Lead(uint64) {
	var first []request
	if c, ok := m.opening(); ok {
		first = append(first, request{command: c})
	}
	m.mu.Lock()
	m.leads = true
	m.waiting = append(first, m.waiting...)
	m.mu.Unlock()
}

// opening is the first command of a leadership, if there is one.
func (m *Machine) opening() (command, bool) {
	v := m.View()
	switch {
	case !v.Formed():
		return command{Kind: kindFound, Feature: FeatureLevel, Founding: m.founding()}, true
	case v.Feature < 2:
		boot := m.o.Node.Boot
		return command{Kind: kindExpireBoot, Boot: boot}, len(v.orphans(boot)) > 0
	}
	return v.update(m.o.Node)
}

// founding is how a new cluster begins.
func (m *Machine) founding() *Founding {
	if m.o.Founding != nil {
		return m.o.Founding
	}
	var id [16]byte
	if _, err := io.ReadFull(m.o.Random, id[:]); err != nil {
		panic(fmt.Sprintf("meta: no random bytes: %v", err)) // crypto/rand does not fail
	}
	nodes := []Node{m.o.Node}
	return &Founding{Cluster: hex.EncodeToString(id[:]), Nodes: nodes, Voters: Layout(nodes, m.o.Shards, 1)}
}

// Follow takes back what waits: another node leads.
func (m *Machine) Follow() {
	m.mu.Lock()
	waiting := m.waiting
	m.waiting, m.leads = nil, false
	m.mu.Unlock()
	for _, r := range waiting {
		if r.done != nil {
			r.done(result{err: fault.NotLeader})
		}
	}
}

// Tick gives out the answers that came from other nodes: metadata itself knows
// no time.
func (m *Machine) Tick(int64) int64 {
	m.giveOut()
	return shard.Never
}

// Checkpoint is the view: it is immutable.
func (m *Machine) Checkpoint(uint64) shard.Checkpoint { return checkpoint{m.View()} }

// Restore sets the state of a checkpoint.
func (m *Machine) Restore(index uint64, state []byte) error {
	v := &View{}
	if state != nil {
		var err error
		if v, err = decodeView(state); err != nil {
			return fmt.Errorf("restore metadata: %w", err)
		}
	}
	if err := m.grow(m.View(), v); err != nil {
		return fmt.Errorf("restore metadata: %w", err)
	}
	m.publish(m.View(), v)
	m.reached(index)
	return nil
}

// checkpoint is a view on its way to disk; it names no files.
type checkpoint struct{ view *View }

func (c checkpoint) Write() ([]byte, error) { return c.view.encode(), nil }
func (c checkpoint) Published()             {}
