package partition

// Command is a change that Machine.Do proposes. The types below are all there
// are; applying one is idempotent where that makes sense, so that a command
// whose outcome is unknown can be given again.
type Command interface {
	// key is the partition that the command is about.
	key() Key
	kind() kind
	// payload appends what stands behind the key.
	payload(buf []byte) []byte
}

// Key names a partition of one incarnation of a topic.
type Key struct {
	Topic     uint64 // incarnation: the metadata index that created the topic
	Partition int32
}

// Open makes a partition known to the shard, empty and without channels. Of an
// open one it changes nothing; of one that was closed it is refused with
// fault.TopicNotFound.
type Open struct {
	Key
	Name string // of the topic, for people
	// Count is the number of partitions by which messages with keys come here: that
	// with which the topic was made, 1..PartitionsMax; 0: 1. Raise makes it larger.
	Count uint32
}

// PartitionsMax bounds the partitions of a topic.
const PartitionsMax = 4096

// Raise says that messages with keys are spread over Count partitions from now on,
// 1..PartitionsMax: a Barrier is put where the log ends, and publishes of a smaller
// Mapping are refused with fault.Moved behind it. A Count that is not larger than the
// partition's changes nothing.
type Raise struct {
	Key
	Count uint32
}

// Barrier is a place in a partition's log: below it stand messages with keys that
// came here by a smaller number of partitions than Count, from it on none do. A key's
// messages from it on may have older ones in other partitions, below the barriers
// there.
type Barrier struct {
	Count  uint32 // rises from one barrier to the next
	Offset int64  // never falls from one to the next; 0 ≤ Offset ≤ end
}

// Close drops a partition with its messages and channels. An unknown one is no
// error.
type Close struct{ Key }

// CreateChannel starts a channel on the partition. Of one that exists it
// changes nothing.
type CreateChannel struct {
	Key
	Channel uint64
	// Ephemeral: only its existence is replicated. It must be attached at once.
	Ephemeral bool
	From      From
}

// From says where a new channel starts.
type From struct {
	Where  Where
	Offset int64 // for AtOffset; moved to the nearest that the log has
}

// Where is a place in a partition.
type Where uint8

// The places. The numbers are part of the command's encoding.
const (
	AtHandOver Where = 0 // the first message not given to any channel: NSQ's rule
	AtStart    Where = 1 // the earliest message still kept
	AtEnd      Where = 2 // the next message published
	AtOffset   Where = 3
)

// DropChannel ends a channel. An unknown one is no error.
type DropChannel struct {
	Key
	Channel uint64
}

// Empty finishes all that a channel has been given, parked messages included.
type Empty struct {
	Key
	Channel uint64
}

// EmptyTopic finishes, for every channel, the messages that have not been
// handed to channels.
type EmptyTopic struct{ Key }

// PauseTopic stops the hand-over of messages to channels, or lets it go on.
type PauseTopic struct {
	Key
	Paused bool
}

// ClearEphemeral drops all ephemeral channels of the partition.
type ClearEphemeral struct{ Key }

// AdvanceStart finishes, for every channel, the messages below the offset,
// parked ones excepted, and lets the log forget them.
type AdvanceStart struct {
	Key
	Offset int64
	Reason string // for people: what rule asked for it
}

func (k Key) key() Key { return k }

// EncodeCommand appends the command as nodes send it to each other, and as it
// stands in an entry.
func EncodeCommand(buf []byte, c Command) []byte { return appendCommand(buf, c) }

// DecodeCommand reads what EncodeCommand wrote, and nothing behind it.
func DecodeCommand(b []byte) (Command, error) {
	k, payload, rest, err := decodeCommand(b)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errMalformed
	}
	return decode(k, payload)
}
