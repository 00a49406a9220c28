package broker

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// SetAck says when publishes to a topic are acknowledged: fault.TopicNotFound,
// fault.Unsupported for a node that is alone: its own disk is all there is.
func (b *Broker) SetAck(ctx context.Context, topic string, a meta.Ack) error {
	t, err := b.existing(ctx, topic)
	switch {
	case err != nil:
		return err
	case b.o.Peers == nil:
		return fault.New(fault.Unsupported, "set ack of topic %s: this node is alone, and acknowledges what its own disk holds", topic)
	case len(t.parts()) == 0:
		return fault.New(fault.Unsupported, "set ack of topic %s: it lives in memory only", topic)
	}
	return awaitCall(ctx, func(done func(error)) { b.o.Meta.SetAck(t.id, a, done) })
}

// Local is a spool of this node.
type Local interface {
	// Publish takes messages of one topic, all or none, in the order of the calls of one
	// caller. done is called once when they are durable, on any goroutine, unless an
	// error is returned: fault.SpoolFull, fault.DiskReserve, fault.Storage,
	// fault.Exiting. msgs must not change until then.
	Publish(topic string, msgs []Message, done partition.Completion) error
}

// local reports whether this node itself acknowledges what the topic is given.
func (t *Topic) local() bool {
	return t.b.o.Local != nil && t.b.ackOf(meta.Ack(t.ack.Load())) == meta.AckLocal
}

// publishUnknown gives the spool what comes for a topic that this node does not know,
// if its default is to acknowledge itself: whether the topic is there need not be asked.
func (b *Broker) publishUnknown(topic string, msgs []Message, done partition.Completion) (taken bool, err error) {
	if b.o.Local == nil || b.ackOf(meta.AckDefault) != meta.AckLocal || IsEphemeral(topic) {
		return false, nil
	}
	if _, known := b.o.Meta.View().Topic(topic); known {
		return false, nil
	}
	return true, b.o.Local.Publish(topic, msgs, done)
}

// ackOf is when publishes to a topic are acknowledged, by its own setting and the
// node's.
func (b *Broker) ackOf(own meta.Ack) meta.Ack {
	for _, a := range []meta.Ack{own, b.o.Ack} {
		if a != meta.AckDefault {
			return a
		}
	}
	return meta.AckQuorum
}

// publishUp hands a publish to the origin of its shard. A message with an id is
// refused where the leader alone acknowledges: an id promises that there is one
// copy, and a lost leader can't know of the first.
func (t *Topic) publishUp(p *part, msgs []Message, done partition.Completion, mapping uint32) (self bool, err error) {
	early := t.b.ackOf(meta.Ack(t.ack.Load())) == meta.AckLeader
	if early {
		for i := range msgs {
			if msgs[i].ID != nil {
				return false, fault.New(fault.InvalidRequest, "publish to topic %s: its leader alone acknowledges, which an id does not go with", t.name)
			}
		}
	}
	return p.up.publish(&partition.Publish{
		Topic: p.key.Topic, Partition: p.key.Partition, Messages: msgs, Done: done, AckLeader: early,
		Mapping: mapping, Moved: t.moved,
	}, t.name)
}
