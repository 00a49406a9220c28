package partition

// Message is one message to publish. Its bytes must not change before the
// publish is answered.
type Message struct {
	Body []byte
	Key  []byte // nil: no key
	ID   []byte // the publisher's name for the message; nil: none
	// DueNs is the time before which no channel delivers it, in unix ns; 0: at
	// once.
	DueNs int64
}

// Publish is one atomic publish to a partition: its messages get consecutive
// offsets in one batch, or none is published. The Machine owns it from
// Machine.Publish until it is answered.
type Publish struct {
	Topic     uint64 // incarnation
	Partition int32
	Messages  []Message
	Done      Completion // may be nil
	Link      Link       // zero: the publish is not sequenced
	// Mapping is the number of partitions by which the key of the messages came to
	// this one, up to PartitionsMax; 0: they have no key, or it does not matter. A
	// partition that knows of a larger number refuses it with fault.Moved; one that
	// knows of a smaller number raises its own first.
	Mapping uint32
	// Moved is told in the place of Done that the publish was refused with
	// fault.Moved, as Done is: it has the publish back, to publish the messages
	// anew. nil: Done is told.
	Moved func(*Publish)
	// AckLeader: it is answered, without a base, when it is durable on this node,
	// though it may still be lost with it.
	AckLeader bool

	size   int      // upper bound of the records' bytes
	bytes  int64    // of the bodies
	hasDue bool     // any message has DueNs
	next   *Publish // the next one of the same batch
	// before is how many messages of the batch stand between this publish and the
	// one before in the list: their publishes were answered and given away.
	before int64
}

// Link is the place of a publish in what one process has sent to the shard. A
// publish that is sent again under the same link happens once. A publish that is
// refused with fault.TopicNotFound or fault.Moved has used its number, one that is
// refused by Machine.Publish or with fault.OutOfOrder has not; whether any other error has
// is not known, and it is to be sent again under the same link.
type Link struct {
	Producer uint64 // boot id of the process; 0: not sequenced
	Epoch    uint64 // from 1; rises when the producer gives up publishes whose outcome it doesn't know
	Seq      uint64 // from 1 in each epoch, one for each publish, without holes
	// Oldest: all numbers before it in this epoch are answered. The shard lets it
	// begin behind a hole then: what is missing was acknowledged by a leader alone
	// (AckLeader), and lost with it.
	Oldest bool
}

// Completion is told the outcome of a Publish.
type Completion interface {
	// Published is called once, on the shard's loop, and must not block. base
	// is the offset of the first message, -1 when that is not known: the publish
	// came again under its link, or is durable on the leader alone (AckLeader).
	// With an error nothing is known about what was published, unless the error is
	// fault.TopicNotFound, fault.Moved, fault.OutOfOrder, fault.Overloaded or
	// fault.DiskReserve: then nothing was.
	Published(base int64, err error)
}
