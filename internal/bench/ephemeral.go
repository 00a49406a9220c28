package bench

import "context"

// inMemory is what an answer means for an #ephemeral topic, on every server.
const inMemory = "memory, #ephemeral"

// ephemeral publishes in batches to an #ephemeral topic and consumes at once.
// The publishers stay within leadMax of the consumers: beyond some 10,000
// waiting messages such a topic drops them.
func (m *measurement) ephemeral(ctx context.Context) error {
	const suffix = "#ephemeral"
	m.topic += suffix
	m.row.Durability = inMemory
	names := channelNames(m.Workload.Channels)
	for i := range names {
		names[i] += suffix
	}
	// Not prepared: what nobody consumes would go at once.
	return m.live(ctx, names)
}
