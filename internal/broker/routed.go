package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/broker/origin"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

// Commands to partitions go to whoever leads their shard. On a wire, integers as
// uvarints:
//
//	request:  format 1, shard, index of the sender's metadata, length of the topic's
//	          name, the name, the command as partition.EncodeCommand has it
//	reply:    format 1, the error as wire.AppendError has it
const commandFormat = 1

const (
	// patience is how long a publish or a command waits for a leader.
	patience = 5 * time.Second
	// commandPause is how long a command waits before it is given again.
	commandPause = 20 * time.Millisecond
)

// routed is a command on its way to the leader of its shard.
type routed struct {
	// index is that of the metadata which the command follows from: a leader that
	// has not seen it yet must not take it, or it might bring back what is deleted.
	index   uint64
	topic   string // for Open
	command partition.Command
}

// order gives a command to the leader of the shard, up to 5 s again and again, and
// returns when it is fact. Commands may be done twice. fault.NotLeader: nothing is
// known.
func (u *upstream) order(ctx context.Context, topic string, c partition.Command) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := routed{index: u.b.o.Meta.View().Index, topic: topic, command: c}
	for {
		err := u.try(within, r)
		if !again(err) {
			return err
		}
		select {
		case <-time.After(commandPause):
		case <-within.Done():
			if ctx.Err() != nil {
				return fault.Wrap(fault.Timeout, ctx.Err())
			}
			return fault.Wrap(fault.NotLeader, fmt.Errorf("change topic %s: %w: %w", topic, origin.ErrUnknown, err))
		}
	}
}

// again reports whether a command may be taken a moment later.
func again(err error) bool {
	switch fault.CodeOf(err) {
	case fault.NotLeader, fault.Unreachable, fault.Overloaded, fault.Exiting, fault.Timeout:
		return true
	}
	return false
}

// try gives the command to who leads now.
func (u *upstream) try(ctx context.Context, r routed) error {
	got := make(chan error, 1)
	leader, self := u.leader()
	switch {
	case leader == 0:
		return fault.New(fault.NotLeader, "shard %d has no leader", u.shard)
	case self:
		u.take(r, func(err error) { got <- err })
		return wait(ctx, got)
	}
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	u.b.o.Peers.Call(ctx, leader, MethodCommand, r.encode(u.shard), func(reply []byte, err error) {
		if err == nil {
			err = decodeCommandReply(reply)
		} else {
			err = fault.Wrap(fault.NotLeader, err)
		}
		got <- err
	})
	return wait(ctx, got)
}

// take is the leader's side of a command.
func (u *upstream) take(r routed, done func(error)) {
	c, err := u.checked(r)
	if err != nil {
		done(err)
		return
	}
	u.following(c, done)
}

// following gives the machine a command that follows from metadata. If that has
// changed when the command is fact, what follows by then is given as well: watch
// may have told the machine of the change before the command came there.
func (u *upstream) following(c partition.Command, done func(error)) {
	u.machine.Do(c, func(err error) {
		if err == nil {
			u.correct(c)
		}
		done(err)
	})
}

// correct undoes a command that metadata does not ask for any more. What changes
// after this is watch's.
func (u *upstream) correct(c partition.Command) {
	view := u.b.o.Meta.View()
	switch c := c.(type) {
	case partition.CreateChannel:
		ok := false
		if t, found := view.TopicID(c.Topic); found {
			m, found := t.ChannelID(c.Channel)
			ok = found && !m.Deleting
		}
		if !ok && view.Knew(c.Channel) {
			u.machine.Do(partition.DropChannel{Key: c.Key, Channel: c.Channel}, nil)
		}
	case partition.PauseTopic:
		if t, ok := view.TopicID(c.Topic); ok && t.Paused != c.Paused {
			u.following(partition.PauseTopic{Key: c.Key, Paused: t.Paused}, func(error) {})
		}
	}
}

// checked opens the partition for a command that is to be done, and brings the
// command in line with metadata.
func (u *upstream) checked(r routed) (partition.Command, error) {
	view := u.b.o.Meta.View()
	if view.Index < r.index {
		return nil, fault.New(fault.NotLeader, "change topic %s: the leader of shard %d has older metadata", r.topic, u.shard)
	}
	var key partition.Key
	switch c := r.command.(type) {
	case partition.Close:
		return c, nil
	case partition.CreateChannel:
		key = c.Key
		t, ok := view.TopicID(c.Topic)
		if ok {
			m, found := t.ChannelID(c.Channel)
			ok = found && !m.Deleting
		}
		if !ok {
			return nil, fault.New(fault.ChannelNotFound, "channel %d of topic %s is deleted", c.Channel, r.topic)
		}
	case partition.PauseTopic:
		key = c.Key
		if t, ok := view.TopicID(c.Topic); ok {
			c.Paused = t.Paused // of two at once, the later one there
			r.command = c
		}
	case partition.DropChannel:
		key = c.Key
	case partition.Empty:
		key = c.Key
	case partition.EmptyTopic:
		key = c.Key
	case partition.Ingest:
		key = c.Key
	default:
		return nil, fault.New(fault.Unsupported, "change topic %s: %T is not for others to give", r.topic, c)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return r.command, u.open(key, r.topic)
}

func (r *routed) encode(shard uint32) []byte {
	b := append(make([]byte, 0, 128), commandFormat)
	b = binary.AppendUvarint(b, uint64(shard))
	b = binary.AppendUvarint(b, r.index)
	b = binary.AppendUvarint(b, uint64(len(r.topic)))
	return partition.EncodeCommand(append(b, r.topic...), r.command)
}

var errMalformed = errors.New("malformed")

func decodeRouted(b []byte) (shard uint32, r routed, err error) {
	malformed := fault.Wrap(fault.InvalidRequest, fmt.Errorf("read command of a node: %w", errMalformed))
	if len(b) == 0 {
		return 0, r, malformed
	}
	if b[0] != commandFormat {
		return 0, r, fault.New(fault.Unsupported, "read command of a node: format %d is not known to this program", b[0])
	}
	b = b[1:]
	var fields [3]uint64
	for i := range fields {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, r, malformed
		}
		fields[i], b = v, b[n:]
	}
	if fields[0] > 1<<32-1 || fields[2] > nameMax || fields[2] > uint64(len(b)) {
		return 0, r, malformed
	}
	r.index = fields[1]
	r.topic = string(b[:fields[2]])
	if !ValidTopic(r.topic) {
		return 0, r, malformed
	}
	if r.command, err = partition.DecodeCommand(b[fields[2]:]); err != nil {
		return 0, r, fault.Wrap(fault.InvalidRequest, err)
	}
	return uint32(fields[0]), r, nil
}

func decodeCommandReply(b []byte) error {
	if len(b) == 0 || b[0] != commandFormat {
		return fault.New(fault.Unsupported, "read answer to a command: not known to this program")
	}
	err, bad := wire.DecodeError(b[1:])
	if bad != nil {
		return bad
	}
	return err
}

func (b *Broker) serveCommand(request []byte, respond func([]byte, error)) {
	shard, r, err := decodeRouted(request)
	if err != nil {
		respond(nil, err)
		return
	}
	u := b.upstream(shard)
	if u == nil {
		respond(nil, fault.New(fault.InvalidRequest, "change topic %s: there is no shard %d", r.topic, shard))
		return
	}
	u.take(r, func(err error) { respond(wire.AppendError([]byte{commandFormat}, err), nil) })
}

// knownGone reports whether metadata, as this node knows it, had the topic and has
// it no more, or is deleting it.
func (b *Broker) knownGone(topic uint64) bool {
	view := b.o.Meta.View()
	t, ok := view.TopicID(topic)
	return ok && t.Deleting || !ok && view.Knew(topic)
}
