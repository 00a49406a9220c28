package broker

import (
	"maps"
	"slices"
)

// Named is the name of a topic or channel that is there, with its incarnation:
// what is deleted and made anew has another ID. The ids of what lives in memory
// only hold on this node, while its process runs.
type Named struct {
	Name string
	ID   uint64
}

// TopicNames lists the topics, by name.
func (b *Broker) TopicNames() []Named {
	all := b.o.Meta.View().Topics()
	out := make([]Named, 0, len(all))
	for _, m := range all {
		if !m.Deleting {
			out = append(out, Named{m.Name, m.ID})
		}
	}
	return out
}

// ChannelNames lists the channels of a topic, the ephemeral ones of this node
// included, in no order; false if there is no such topic.
func (b *Broker) ChannelNames(topic string) ([]Named, bool) {
	m, ok := b.o.Meta.View().Topic(topic)
	if !ok || m.Deleting {
		return nil, false
	}
	var out []Named
	for _, c := range m.Channels {
		if !c.Deleting {
			out = append(out, Named{c.Name, c.ID})
		}
	}
	b.mu.RLock()
	t := b.topics[topic]
	b.mu.RUnlock()
	if t == nil || t.id != m.ID {
		return out, true
	}
	for name, c := range t.inUse() {
		if _, durable := m.Channel(name); !durable && c.err == nil {
			out = append(out, Named{name, c.id})
		}
	}
	return out, true
}

// maxEphemeral bounds what Ephemeral names.
const maxEphemeral = 10_000

// Ephemeral lists the channels of this node that live in memory only, by topic
// and sorted; 10,000 at most.
func (b *Broker) Ephemeral() map[string][]string {
	view := b.o.Meta.View()
	out := make(map[string][]string)
	n := 0
	b.mu.RLock()
	topics := maps.Clone(b.topics)
	b.mu.RUnlock()
	for name, t := range topics {
		m, ok := view.Topic(name)
		if !ok || t.id != m.ID {
			continue
		}
		for channel, c := range t.inUse() {
			if _, durable := m.Channel(channel); !durable && c.err == nil && n < maxEphemeral {
				out[name] = append(out[name], channel)
				n++
			}
		}
		slices.Sort(out[name])
	}
	return out
}

// changed tells who asked to be told that a channel that lives in memory came
// or went: metadata does not know it.
func (b *Broker) changed() {
	if b.o.Changed != nil {
		b.o.Changed()
	}
}
