package meta

// Ack says when a publish is acknowledged. The numbers stand in the log.
type Ack uint8

// When a publish is acknowledged.
const (
	AckDefault Ack = iota // as the node says at which it comes in
	AckQuorum             // it is durable on a quorum
	AckLeader             // the leader's own log is synced; a change of leader may lose it

	acks // how many there are
)

// String is the word for it; empty for the default.
func (a Ack) String() string {
	switch a {
	case AckQuorum:
		return "quorum"
	case AckLeader:
		return "leader"
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
	}
	return 0, false
}

// SetAck says when publishes to the topic are acknowledged: fault.TopicNotFound.
func (m *Machine) SetAck(topic uint64, a Ack, done func(error)) {
	m.askError(command{Kind: kindSetAck, Topic: topic, Count: uint64(a)}, done)
}
