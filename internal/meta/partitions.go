package meta

import (
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
)

// Bounds of a topic's partitions.
const (
	// MaxPartitions is how many a topic can have: what fits into a message id.
	MaxPartitions = maxPartitions
	// MaxRaises is how often their number can be raised.
	MaxRaises = 64
)

// A raise has two steps. RaiseTopic gives the new partitions their shards; from then
// on whoever makes a channel starts it on them too. When all channels that were there
// before have started on them, ActivateTopic lets messages be published to them.

// Raising reports whether the topic has partitions that nothing is published to yet.
func (t *Topic) Raising() bool { return t.Active < len(t.Partitions) }

// Before is how many partitions the topic had until their number was raised to count;
// 0 when it never was.
func (t *Topic) Before(count int) int {
	for i, was := range t.Raised {
		next := len(t.Partitions)
		if i+1 < len(t.Raised) {
			next = int(t.Raised[i+1])
		}
		if next == count {
			return int(was)
		}
	}
	return 0
}

// RaiseTopic begins to raise the number of the topic's partitions to count, or finds
// that this is under way, or done: fault.TopicNotFound, fault.Deleting;
// fault.InvalidRequest when count is above MaxPartitions or below what there is, when
// a raise to another number is under way, when the topic lives in memory only, or was
// raised MaxRaises times.
func (m *Machine) RaiseTopic(topic uint64, count int, done func(*Topic, error)) {
	if count < 1 || count > maxPartitions {
		done(nil, fault.New(fault.InvalidRequest, "raise partitions to %d: want 1 to %d", count, maxPartitions))
		return
	}
	m.ask(command{Kind: kindRaiseTopic, Topic: topic, Count: uint64(count)}, func(r result) {
		if r.err == nil && r.topic == nil { // it was there, and has gone since
			r.err = fault.TopicNotFound
		}
		done(r.topic, r.err)
	})
}

// ActivateTopic ends the raise to count: messages are published to that many
// partitions from now on. It does nothing when they are already, or when the topic is
// not being raised to that number. fault.TopicNotFound.
func (m *Machine) ActivateTopic(topic uint64, count int, done func(error)) {
	m.askError(command{Kind: kindActivateTopic, Topic: topic, Count: uint64(count)}, done)
}

func (c *change) raiseTopic(t *Topic, count int) result {
	refused := func(format string, args ...any) result {
		return result{err: fault.New(fault.InvalidRequest, "raise partitions of topic %s to %d: "+format, append([]any{t.Name, count}, args...)...)}
	}
	switch {
	case t.Deleting:
		return result{err: fault.New(fault.Deleting, "raise partitions of topic %s: it is being deleted", t.Name)}
	case t.Boot != 0:
		return refused("it lives in memory only, and has one")
	case len(t.Partitions) == count && len(t.Raised) > 0:
		return result{topic: t} // asked for already
	case t.Raising():
		return refused("it is being raised to %d", len(t.Partitions))
	case count <= len(t.Partitions):
		return refused("it has %d, and their number can only rise", len(t.Partitions))
	case len(t.Raised) >= MaxRaises:
		return refused("it was raised %d times, which is the most", len(t.Raised))
	}
	next := *t
	next.Raised = append(slices.Clip(t.Raised), uint32(len(t.Partitions)))
	next.Partitions = append(slices.Clip(t.Partitions), c.assign(count-len(t.Partitions))...)
	c.put(&next)
	return result{topic: &next}
}

func (c *change) activateTopic(t *Topic, count int) result {
	if !t.Raising() || len(t.Partitions) != count {
		return result{topic: t}
	}
	next := *t
	next.Active = count
	c.put(&next)
	return result{topic: &next}
}

// validRaises reports whether the numbers of partitions that a topic had, and has,
// can be.
func (t *Topic) validRaises() bool {
	for i, was := range t.Raised {
		if was == 0 || int(was) >= len(t.Partitions) || i > 0 && was <= t.Raised[i-1] {
			return false
		}
	}
	last := len(t.Raised) - 1
	return len(t.Raised) <= MaxRaises && len(t.Partitions) <= maxPartitions &&
		(t.Active == len(t.Partitions) || last >= 0 && t.Active == int(t.Raised[last]))
}
