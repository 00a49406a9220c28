package meta

import "github.com/tidings-io/tidings/internal/fault"

// Ack says when a publish is acknowledged. The numbers stand in the log.
type Ack uint8

// When a publish is acknowledged.
const (
	AckDefault Ack = iota // as the node says at which it comes in
	AckQuorum             // it is durable on a quorum
	AckLeader             // the leader's own log is synced; a change of leader may lose it
	AckLocal              // it is durable in the spool of the node at which it comes in, which brings it on

	acks // how many there are
)

// String is the word for it; empty for the default.
func (a Ack) String() string {
	switch a {
	case AckQuorum:
		return "quorum"
	case AckLeader:
		return "leader"
	case AckLocal:
		return "local"
	}
	return ""
}

// ParseAck reads what String writes, and "default"; false for anything else.
func ParseAck(text string) (Ack, bool) {
	switch text {
	case "", "default":
		return AckDefault, true
	case "quorum":
		return AckQuorum, true
	case "leader":
		return AckLeader, true
	case "local":
		return AckLocal, true
	}
	return 0, false
}

// SetAck says when publishes to the topic are acknowledged: fault.TopicNotFound;
// fault.Unsupported for metadata of level 1.
func (m *Machine) SetAck(topic uint64, a Ack, done func(error)) {
	if v := m.View(); v.Formed() && v.Feature < 2 {
		done(fault.New(fault.Unsupported, "set ack: the metadata has feature level %d, this needs 2", v.Feature))
		return
	}
	m.askError(command{Kind: kindSetAck, Topic: topic, Count: uint64(a)}, done)
}
