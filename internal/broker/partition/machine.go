package partition

// Machine is the replicated state of one shard. It implements shard.Machine.
type Machine struct{}

// Publish puts a publish into the inbox.
func (m *Machine) Publish(p *Publish) error { return nil }

// Do proposes a command.
func (m *Machine) Do(c Command, done func(error)) {}

// Attach registers a lane.
func (m *Machine) Attach(topic uint64, partition int32, channel uint64, lane Lane) {}

// Detach ends a lane.
func (m *Machine) Detach(lane Lane) {}

// Dirty says that the lane has something to report.
func (m *Machine) Dirty(lane Lane) {}

// Wanted says that the lane can take more due messages.
func (m *Machine) Wanted(lane Lane) {}

// Query runs f on the shard's loop.
func (m *Machine) Query(f func(*View)) {}
