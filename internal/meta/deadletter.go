package meta

// MaxAttempts is the highest limit of attempts that a channel can have: attempts are
// counted in 16 bits, and the number of one that is beyond the limit must fit.
const MaxAttempts = 1<<16 - 2

// SetDeadLetter limits how often messages of the channel are delivered, to 1 to
// MaxAttempts times, and names the topic that gets those that nobody has finished by
// then; attempts 0, with no topic, is no limit. fault.TopicNotFound,
// fault.ChannelNotFound. Whether the topic's name is valid is for the caller to know.
func (m *Machine) SetDeadLetter(topic, channel uint64, attempts uint16, deadLetter string, done func(error)) {
	m.askError(command{
		Kind: kindSetDeadLetter, Topic: topic, Channel: channel, Count: uint64(attempts), Name: deadLetter,
	}, done)
}

// validDeadLetter reports whether a limit and a topic go together.
func validDeadLetter(attempts uint64, deadLetter string) bool {
	return attempts <= MaxAttempts && (attempts == 0) == (deadLetter == "") && len(deadLetter) <= MaxName
}
