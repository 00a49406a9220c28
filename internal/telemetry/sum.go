package telemetry

import (
	"github.com/tidings-io/tidings/internal/broker"
)

// seriesMax bounds the topics and the channels that get labels of their own;
// the rest is summed under otherLabel.
const seriesMax = 2000

// otherLabel names what is beyond seriesMax; ephemeralLabel all ephemeral
// channels of a topic together, whose names are random.
const (
	otherLabel     = "_other"
	ephemeralLabel = "_ephemeral"
)

// sums are figures by label.
type sums struct {
	topics       map[string]*broker.TopicStats
	channels     map[Channel]*channelSum
	unlabelled   int // topics
	channelCount int
}

type channelSum struct {
	broker.ChannelStats
	oldest    int64 // unix ns; 0: none
	consumers int
}

// sum adds up what shares labels: everything beyond the cap, and a topic's
// ephemeral channels. Topics come by name, so that the same ones keep their
// labels as long as none is made before them.
func sum(topics []broker.TopicFigures, consumers map[Channel]int) *sums {
	out := &sums{topics: make(map[string]*broker.TopicStats), channels: make(map[Channel]*channelSum)}
	for i := range topics {
		t := &topics[i]
		label := t.Name
		if len(out.topics) >= seriesMax {
			label = otherLabel
			out.unlabelled++
		}
		s := out.topics[label]
		if s == nil {
			s = &broker.TopicStats{}
			out.topics[label] = s
		}
		s.MessageCount += t.MessageCount
		s.MessageBytes += t.MessageBytes
		s.Depth += t.Depth
		s.LogBytes += t.LogBytes
		for k := range t.Channels {
			c := &t.Channels[k]
			out.add(label, c, t.Oldest[k], consumers[Channel{t.Name, c.Name}])
		}
		out.channelCount += len(t.Channels)
	}
	return out
}

func (x *sums) add(topic string, c *broker.ChannelStats, oldest int64, consumers int) {
	at := Channel{topic, c.Name}
	switch {
	case topic == otherLabel:
		at.Channel = otherLabel
	case c.Ephemeral || broker.IsEphemeral(c.Name):
		at.Channel = ephemeralLabel
	}
	if x.channels[at] == nil && len(x.channels) >= seriesMax {
		at = Channel{otherLabel, otherLabel}
	}
	s := x.channels[at]
	if s == nil {
		s = &channelSum{}
		x.channels[at] = s
	}
	s.Depth += c.Depth
	s.InFlight += c.InFlight
	s.Deferred += c.Deferred
	s.MessageCount += c.MessageCount
	s.RequeueCount += c.RequeueCount
	s.TimeoutCount += c.TimeoutCount
	s.DeadLetterCount += c.DeadLetterCount
	s.consumers += consumers
	if oldest > 0 && (s.oldest == 0 || oldest < s.oldest) {
		s.oldest = oldest
	}
}

// published adds up what clients have published: topics that have labels keep
// theirs, those that are gone or beyond the cap are others.
func (x *sums) published(counts map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, min(len(counts), seriesMax+1))
	for name, n := range counts {
		if x.topics[name] == nil {
			name = otherLabel
		}
		out[name] += n
	}
	return out
}
