package broker

import (
	"context"
	"math"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

// An ephemeral topic lives on one node, its home. Others publish to it there, and
// their consumers are relayed as those of any other topic, with the home as the
// leader of the one partition.

// publishHome gives a publish to the topic's home. What is lost on the way is not
// sent again: the topic keeps no promise that would ask for it.
func (t *Topic) publishHome(msgs []Message, done partition.Completion) error {
	if t.home == 0 {
		return t.away
	}
	b := wire.AppendUints([]byte{relayFormat}, t.id, uint64(len(msgs)))
	for i := range msgs {
		m := &msgs[i]
		b = wire.AppendUints(b, uint64(max(m.DueNs, 0)), flag(m.Key != nil))
		b = wire.AppendBytes(b, m.Body)
		if m.Key != nil {
			b = wire.AppendBytes(b, m.Key)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.b.o.Peers.Call(ctx, t.home, MethodHome, b, func(reply []byte, err error) {
		cancel()
		if err == nil {
			err = decodeErrorReply(reply)
		} else {
			err = fault.Wrap(fault.NotLeader, err)
		}
		if done != nil {
			done.Published(0, err)
		}
	})
	return nil
}

// serveHome is the home's side of it.
func (b *Broker) serveHome(request []byte, respond func([]byte, error)) {
	r, err := beginRelay(request, "publish to an ephemeral topic")
	if err != nil {
		respond(nil, err)
		return
	}
	id := r.Uint()
	msgs := make([]Message, r.Count())
	for i := range msgs {
		m := &msgs[i]
		m.DueNs = int64(r.UpTo(math.MaxInt64))
		key := r.UpTo(1) == 1
		m.Body = r.Bytes()
		if key {
			m.Key = r.Bytes()
		}
	}
	if r.Bad || len(r.B) > 0 || len(msgs) == 0 {
		respond(nil, r.Malformed("publish to an ephemeral topic"))
		return
	}
	m, ok := b.o.Meta.View().TopicID(id)
	var t *Topic
	if ok && !m.Deleting {
		t = b.find(m.Name)
	}
	if t == nil || t.id != id || t.mem == nil {
		respond(errorReply(fault.New(fault.NotLeader, "publish to an ephemeral topic: it does not live here")), nil)
		return
	}
	if err := t.mem.publish(msgs, homePublish(func(err error) { respond(errorReply(err), nil) })); err != nil {
		respond(errorReply(err), nil)
	}
}

// homePublish answers who asked for a publish.
type homePublish func(error)

// Published implements partition.Completion.
func (f homePublish) Published(_ int64, err error) { f(err) }

// makeAway begins a channel on a topic whose home is another node.
func (t *Topic) makeAway(ctx context.Context, c *channelInUse) error {
	if err := t.openAt(ctx, c, t.home); err != nil {
		return err
	}
	cfg := t.channelConfig(c)
	if IsEphemeral(c.name) {
		cfg.Idle = func() { t.idle(c) }
	}
	c.id = t.b.localID()
	c.ch = delivery.NewChannel(cfg)
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	c.ch.SetRemote(0, t.converse(c, t.home).relay)
	return nil
}

// openAt has a channel that lives in memory begin at another node, before a consumer
// here is told that it is subscribed: what is published from then on is the
// channel's.
func (t *Topic) openAt(ctx context.Context, c *channelInUse, node uint64) error {
	r := relayed{from: t.b.self(), topic: t.id, channel: c.name}
	return awaitCall(ctx, func(done func(error)) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		t.b.o.Peers.Call(ctx, node, MethodRelay, appendRelayed(nil, &r), func(reply []byte, err error) {
			cancel()
			if err == nil {
				var p relayAnswer
				if err = decodeRelayReply(reply, &p); err == nil {
					err = p.refused
				}
			} else {
				err = fault.Wrap(fault.NotLeader, err)
			}
			done(err)
		})
	})
}

// openElsewhere is openAt for all other nodes that lead partitions of the topic. It
// is patient with those that only begin to.
func (t *Topic) openElsewhere(ctx context.Context, c *channelInUse) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, p := range t.parts() {
		for {
			id, self := p.up.leader()
			if self || id == 0 { // its lane comes, or nobody could be told
				break
			}
			err := t.openAt(within, c, id)
			if err == nil {
				break
			}
			if !again(err) {
				return err
			}
			select {
			case <-time.After(commandPause):
			case <-within.Done():
				return err
			}
		}
	}
	return nil
}
