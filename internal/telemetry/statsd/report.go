package statsd

import "strconv"

// Report is the figures of one moment. Counts run since the process started.
type Report struct {
	Topics []Topic
	Memory Memory
}

// Topic is a topic's figures.
type Topic struct {
	ID                         uint64 // given to no other topic of this process
	Name                       string
	Ephemeral                  bool
	MessageCount, MessageBytes int64
	Depth, BackendDepth        int64
	Latency                    []Quantile
	Channels                   []Channel
}

// Channel is a channel's figures.
type Channel struct {
	ID                                       uint64 // given to no other channel of this process
	Name                                     string
	Ephemeral                                bool
	MessageCount, RequeueCount, TimeoutCount int64
	Depth, BackendDepth, InFlight, Deferred  int64
	Clients                                  int64
	Latency                                  []Quantile
}

// Quantile is a quantile (above 0, up to 1) of the time from publish to FIN, in
// ns.
type Quantile struct {
	Quantile float64
	Value    int64
}

// Memory is the figures of the runtime, under nsqd's names.
type Memory struct {
	HeapObjects, HeapIdleBytes, HeapInUseBytes, HeapReleasedBytes uint64
	GCPauseUsec100, GCPauseUsec99, GCPauseUsec95                  uint64
	NextGCBytes                                                   uint64
	GCTotalRuns                                                   uint32
}

// counter is one counter of the process, a topic or a channel.
type counter struct {
	of   string // mem, topic or channel
	id   uint64
	name string
}

// builder makes packets of reports, and remembers what the last one said.
type builder struct {
	prefix           string
	size             int
	memStats         bool
	excludeEphemeral bool

	counts map[counter]int64 // as last reported
	gauges map[string]bool   // names that the last report had

	// Of the report that is being made.
	packet  []byte
	out     [][]byte
	counted map[counter]int64
	gauged  map[string]bool
}

func newBuilder(o *Options) builder {
	return builder{
		prefix: o.Prefix, size: o.PacketSize, memStats: o.MemStats, excludeEphemeral: o.ExcludeEphemeral,
	}
}

// packets is a report as packets, in nsqd's order, and then the gauges that are
// gone, at 0.
func (b *builder) packets(r *Report) [][]byte {
	b.counted, b.gauged = make(map[counter]int64), make(map[string]bool)
	for i := range r.Topics {
		b.topic(&r.Topics[i])
	}
	if b.memStats {
		b.memory(&r.Memory)
	}
	for name := range b.gauges {
		if !b.gauged[name] {
			b.line(name, 0, "g")
		}
	}
	b.counts, b.gauges = b.counted, b.gauged
	b.flush()
	out := b.out
	b.out, b.counted, b.gauged = nil, nil, nil
	return out
}

func (b *builder) topic(t *Topic) {
	if t.Ephemeral && b.excludeEphemeral {
		return
	}
	name := "topic." + t.Name + "."
	b.count(name, counter{"topic", t.ID, "message_count"}, t.MessageCount)
	b.count(name, counter{"topic", t.ID, "message_bytes"}, t.MessageBytes)
	b.gauge(name+"depth", t.Depth)
	b.gauge(name+"backend_depth", t.BackendDepth)
	b.latency(name, t.Latency)
	for i := range t.Channels {
		if c := &t.Channels[i]; !c.Ephemeral || !b.excludeEphemeral {
			b.channel(name+"channel."+c.Name+".", c)
		}
	}
}

func (b *builder) channel(name string, c *Channel) {
	b.count(name, counter{"channel", c.ID, "message_count"}, c.MessageCount)
	b.gauge(name+"depth", c.Depth)
	b.gauge(name+"backend_depth", c.BackendDepth)
	b.gauge(name+"in_flight_count", c.InFlight)
	b.gauge(name+"deferred_count", c.Deferred)
	b.count(name, counter{"channel", c.ID, "requeue_count"}, c.RequeueCount)
	b.count(name, counter{"channel", c.ID, "timeout_count"}, c.TimeoutCount)
	b.gauge(name+"clients", c.Clients)
	b.latency(name, c.Latency)
}

func (b *builder) memory(m *Memory) {
	for _, g := range []struct {
		name  string
		value uint64
	}{
		{"heap_objects", m.HeapObjects},
		{"heap_idle_bytes", m.HeapIdleBytes},
		{"heap_in_use_bytes", m.HeapInUseBytes},
		{"heap_released_bytes", m.HeapReleasedBytes},
		{"gc_pause_usec_100", m.GCPauseUsec100},
		{"gc_pause_usec_99", m.GCPauseUsec99},
		{"gc_pause_usec_95", m.GCPauseUsec95},
		{"next_gc_bytes", m.NextGCBytes},
	} {
		b.gauge("mem."+g.name, int64(g.value))
	}
	b.count("mem.", counter{"mem", 0, "gc_runs"}, int64(m.GCTotalRuns))
}

func (b *builder) latency(name string, qs []Quantile) {
	for _, q := range qs {
		b.gauge(name+"e2e_processing_latency_"+strconv.FormatFloat(q.Quantile*100, 'f', 0, 64), q.Value)
	}
}

// count sends what was added to a counter since the last report. While another
// node leads a topic, its counts are 0 here: that is no change.
func (b *builder) count(prefix string, c counter, value int64) {
	before := b.counts[c]
	b.counted[c] = max(before, value)
	b.line(prefix+c.name, max(value-before, 0), "c")
}

func (b *builder) gauge(name string, value int64) {
	b.gauged[name] = true
	b.line(name, value, "g")
}

// line adds a figure, to the next packet if this one has no room.
func (b *builder) line(name string, value int64, kind string) {
	had := len(b.packet)
	b.packet = append(append(b.packet, b.prefix...), name...)
	b.packet = strconv.AppendInt(append(b.packet, ':'), value, 10)
	b.packet = append(append(append(b.packet, '|'), kind...), '\n')
	if len(b.packet) > b.size && had > 0 {
		rest := append([]byte(nil), b.packet[had:]...)
		b.packet = b.packet[:had]
		b.flush()
		b.packet = rest
	}
}

// flush ends a packet.
func (b *builder) flush() {
	if len(b.packet) > 0 {
		b.out = append(b.out, b.packet)
		b.packet = nil
	}
}
