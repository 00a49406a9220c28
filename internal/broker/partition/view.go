package partition

// PartitionView is a partition as statistics want it.
type PartitionView struct {
	Key
	Name     string
	Start    int64 // lowest offset kept for channels
	End      int64 // offset of the next message
	HandOver int64 // first offset not given to channels
	Paused   bool
	// MessageCount and MessageBytes (of bodies) were published through this
	// node since the process started.
	MessageCount int64
	MessageBytes int64
	LogBytes     int64 // in tail and files
	Channels     []ChannelView
}

// Depth is how many messages wait because no channel has been given them.
func (p *PartitionView) Depth() int64 { return p.End - p.HandOver }

// ChannelView is a channel on one partition as statistics want it.
type ChannelView struct {
	ID        uint64
	Ephemeral bool
	Epoch     int64
	Floor     int64
	Limit     int64
	Ranges    int   // finished or parked ranges above the floor
	Parked    int64 // parked messages
	// Backlog is how many messages below the limit are neither finished nor
	// parked; those in flight are among them.
	Backlog int64
	Lane    Lane // nil: not attached
}

// View reads the state on the shard's loop; it is valid during the Query only.
type View struct{ m *Machine }

// Partition returns one partition.
func (v *View) Partition(k Key) (PartitionView, bool) { return PartitionView{}, false }

// Each returns all partitions, by topic and partition.
func (v *View) Each(f func(PartitionView)) {}
