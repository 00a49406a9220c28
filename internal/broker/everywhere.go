package broker

import (
	"context"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

// An ephemeral topic is changed on its home, whoever is asked. A channel that lives in
// memory only is in use on every node that has consumers of it or leads partitions of
// its topic, under one name: whoever is asked changes it on all of them.

// memoryVerb is what is done to a topic or channel that lives in memory. The numbers are
// known to other nodes.
type memoryVerb uint64

const (
	memoryEmpty  memoryVerb = 1
	memoryDelete memoryVerb = 2 // channels only
	memoryPause  memoryVerb = 3 // a topic: as metadata says
	memoryResume memoryVerb = 4 // channels only
)

// memoryOrder is such a change. On a wire, behind the format: the verb, the topic, and
// the name of the channel; the answer is an error.
type memoryOrder struct {
	verb    memoryVerb
	topic   uint64
	channel string // "": the topic
}

func (o *memoryOrder) encode() []byte {
	return wire.AppendBytes(wire.AppendUints([]byte{relayFormat}, uint64(o.verb), o.topic), o.channel)
}

func decodeMemoryOrder(b []byte) (o memoryOrder, err error) {
	const what = "change of what lives in memory"
	r, err := beginRelay(b, what)
	if err != nil {
		return o, err
	}
	o = memoryOrder{verb: memoryVerb(r.Uint()), topic: r.Uint(), channel: string(r.Bytes())}
	if r.Bad || len(r.B) > 0 || o.channel != "" && !ValidChannel(o.channel) {
		return o, r.Malformed(what)
	}
	return o, nil
}

// inMemory reports whether a channel of that name would live in memory only, or all of
// the topic does, on whatever node.
func (t *Topic) inMemory(channel string) bool {
	return t.mem != nil || t.away != nil || IsEphemeral(channel)
}

// changeInMemory changes a channel that lives in memory on all nodes: handled; else
// nothing was done, and the error is nil. fault.ChannelNotFound when no node that can be
// reached has it.
func (b *Broker) changeInMemory(ctx context.Context, verb memoryVerb, topic, channel string) (handled bool, err error) {
	if b.o.Peers == nil || !ValidChannel(channel) {
		return false, nil
	}
	t, err := b.existing(ctx, topic)
	if err != nil {
		return true, err
	}
	if !t.inMemory(channel) {
		return false, nil
	}
	if verb == memoryDelete { // others that are asked at the same moment find it deleted
		b.deleted.noteOwn(topic, channel)
	}
	err = b.everywhere(ctx, t, memoryOrder{verb: verb, topic: t.id, channel: channel})
	if err != nil && verb == memoryDelete {
		b.deleted.forgetOwn(topic, channel)
		if fault.CodeOf(err) == fault.Deleting { // another node has done it
			err = nil
		}
	}
	return true, err
}

// everywhere does a change to a channel here and on all other nodes that can be reached.
// The home of an ephemeral topic must be among them, and comes last: consumers elsewhere
// that are still there would have a channel made anew that is deleted. fault.Deleting:
// another node has just been asked to delete it.
func (b *Broker) everywhere(ctx context.Context, t *Topic, o memoryOrder) error {
	others := b.o.Peers.Others()
	if t.home != 0 {
		others = slices.DeleteFunc(slices.Clone(others), func(id uint64) bool { return id == t.home })
	}
	var said outcomes
	for _, err := range b.orderAll(ctx, others, o) {
		said.add(err)
	}
	here := b.doInMemory(ctx, o)
	said.add(here)
	switch {
	case t.away != nil && t.home == 0:
		return t.away
	case t.away != nil:
		err := b.orderAll(ctx, []uint64{t.home}, o)[0]
		if fault.CodeOf(err) == fault.NotLeader {
			return t.away
		}
		said.add(err)
	}
	switch {
	case said.done:
		return nil
	case said.failed != nil:
		return said.failed
	}
	return here
}

// outcomes is what nodes say that were asked for the same change.
type outcomes struct {
	done   bool  // one has done it
	failed error // one could not; fault.Deleting before others
}

func (x *outcomes) add(err error) {
	switch code := fault.CodeOf(err); {
	case err == nil:
		x.done = true
	case code == fault.Deleting, x.failed == nil && code != fault.ChannelNotFound && code != fault.TopicNotFound:
		x.failed = err
	}
}

// orderAll has other nodes do a change at the same time, and returns their answers.
func (b *Broker) orderAll(ctx context.Context, ids []uint64, o memoryOrder) []error {
	got := make([]chan error, len(ids))
	for i, id := range ids {
		got[i] = make(chan error, 1)
		b.orderAt(ctx, id, o, got[i])
	}
	errs := make([]error, len(ids))
	for i := range got {
		errs[i] = <-got[i]
	}
	return errs
}

// orderAt has another node do a change, within half of patience.
func (b *Broker) orderAt(ctx context.Context, id uint64, o memoryOrder, got chan<- error) {
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	b.o.Peers.Call(ctx, id, MethodMemory, o.encode(), func(reply []byte, err error) {
		cancel()
		if err == nil {
			err = decodeErrorReply(reply)
		} else {
			err = fault.Wrap(fault.NotLeader, err)
		}
		got <- err
	})
}

// serveMemory does a change for another node.
func (b *Broker) serveMemory(request []byte, respond func([]byte, error)) {
	o, err := decodeMemoryOrder(request)
	if err != nil {
		respond(nil, err)
		return
	}
	b.tasks.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, patience/2)
		defer cancel()
		err := b.doInMemory(ctx, o)
		if o.verb == memoryDelete {
			err = b.deletedHere(o, err)
		}
		respond(errorReply(err), nil)
	})
}

// deletedHere takes a deletion by another node into account: when this node is asked for
// the same in the next moment it is done already. One that this node was asked for first
// counts for the other as well: fault.Deleting.
func (b *Broker) deletedHere(o memoryOrder, err error) error {
	m, ok := b.o.Meta.View().TopicID(o.topic)
	if !ok {
		return err
	}
	if b.deleted.hasOwn(m.Name, o.channel) {
		return fault.Deleting
	}
	b.deleted.note(0, m.Name, o.channel)
	return err
}

// doInMemory does a change on this node only. fault.ChannelNotFound: the channel is not
// in use here. fault.NotLeader: the topic does not live here.
func (b *Broker) doInMemory(ctx context.Context, o memoryOrder) error {
	m, ok := b.o.Meta.View().TopicID(o.topic)
	if !ok && b.upToDate(ctx) {
		m, ok = b.o.Meta.View().TopicID(o.topic)
	}
	var t *Topic
	if ok && !m.Deleting {
		t = b.find(m.Name)
	}
	if t == nil || t.id != o.topic {
		return fault.New(fault.TopicNotFound, "the topic is deleted")
	}
	if o.channel == "" {
		return t.topicInMemory(ctx, o.verb)
	}
	return t.channelInMemory(o)
}

func (t *Topic) topicInMemory(ctx context.Context, verb memoryVerb) error {
	switch {
	case t.mem == nil:
		return fault.New(fault.NotLeader, "topic %s does not live here", t.name)
	case verb == memoryEmpty:
		t.mem.log.Empty()
		return nil
	case verb == memoryPause:
		t.b.upToDate(ctx)
		t.followPause()
		return nil
	}
	return fault.New(fault.Unsupported, "change %d of an ephemeral topic is not known to this program", verb)
}

// followPause stops or resumes the hand-over of an ephemeral topic as metadata says.
func (t *Topic) followPause() {
	if m, ok := t.b.o.Meta.View().TopicID(t.id); ok {
		t.mem.log.SetPaused(m.Paused)
	}
}

func (t *Topic) channelInMemory(o memoryOrder) error {
	c := t.lookup(o.channel)
	if c == nil || c.id&localIDs == 0 {
		return channelNotFound(t.name, o.channel)
	}
	switch o.verb {
	case memoryEmpty:
		t.emptyMemory(c)
	case memoryDelete:
		t.end(c)
	case memoryPause, memoryResume:
		c.ch.SetPaused(o.verb == memoryPause)
	default:
		return fault.New(fault.Unsupported, "change %d of channel %s is not known to this program", o.verb, o.channel)
	}
	return nil
}

// orderHome has the home of an ephemeral topic do a change of it.
func (t *Topic) orderHome(ctx context.Context, verb memoryVerb) error {
	if t.home == 0 {
		return t.away
	}
	err := t.b.orderAll(ctx, []uint64{t.home}, memoryOrder{verb: verb, topic: t.id})[0]
	if fault.CodeOf(err) == fault.NotLeader {
		return t.away
	}
	return err
}
