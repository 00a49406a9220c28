package nsq

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/latency"
)

// The JSON of /info and /stats: nsqd's names, in nsqd's order.
type (
	infoJSON struct {
		Version                string        `json:"version"`
		BroadcastAddress       string        `json:"broadcast_address"`
		Hostname               string        `json:"hostname"`
		HTTPPort               int           `json:"http_port"`
		TCPPort                int           `json:"tcp_port"`
		StartTime              int64         `json:"start_time"`
		MaxHeartbeatInterval   time.Duration `json:"max_heartbeat_interval"`
		MaxOutputBufferSize    int64         `json:"max_output_buffer_size"`
		MaxOutputBufferTimeout time.Duration `json:"max_output_buffer_timeout"`
		MaxDeflateLevel        int           `json:"max_deflate_level"`
		TopologyZone           string        `json:"topology_zone"`
		TopologyRegion         string        `json:"topology_region"`
	}

	statsJSON struct {
		Version   string       `json:"version"`
		Health    string       `json:"health"`
		StartTime int64        `json:"start_time"`
		Topics    []topicJSON  `json:"topics"`
		Memory    *memoryJSON  `json:"memory,omitempty"`
		Spool     *SpoolStats  `json:"spool,omitempty"` // ours: of an edge, or a node that has one
		Producers []clientJSON `json:"producers"`

		// Ours, of scope=cluster: who is in the totals, and who or what is not.
		Scope   string        `json:"scope,omitempty"`
		Nodes   []string      `json:"nodes,omitempty"`
		Missing []missingJSON `json:"missing,omitempty"`
	}

	topicJSON struct {
		Name         string        `json:"topic_name"`
		Channels     []channelJSON `json:"channels"`
		Depth        int64         `json:"depth"`
		BackendDepth int64         `json:"backend_depth"`
		MessageCount int64         `json:"message_count"`
		MessageBytes int64         `json:"message_bytes"`
		Paused       bool          `json:"paused"`
		Ack          string        `json:"ack,omitempty"`           // ours: quorum, leader or local, in a cluster
		OldestAge    int64         `json:"oldest_age_ms,omitempty"` // ours: at an edge
		Latency      latencyJSON   `json:"e2e_processing_latency"`
	}

	channelJSON struct {
		Name         string       `json:"channel_name"`
		Depth        int64        `json:"depth"`
		BackendDepth int64        `json:"backend_depth"`
		InFlight     int64        `json:"in_flight_count"`
		Deferred     int64        `json:"deferred_count"`
		MessageCount int64        `json:"message_count"`
		RequeueCount int64        `json:"requeue_count"`
		TimeoutCount int64        `json:"timeout_count"`
		ClientCount  int          `json:"client_count"`
		Clients      []clientJSON `json:"clients"`
		Paused       bool         `json:"paused"`
		MaxAttempts  uint16       `json:"max_attempts,omitempty"` // ours, with the next two: while limited
		DeadLetter   string       `json:"dead_letter,omitempty"`
		DeadLettered int64        `json:"dead_letter_count,omitempty"`
		Latency      latencyJSON  `json:"e2e_processing_latency"`
	}

	// latencyJSON is the time from publish to FIN. Without measurement there are
	// no percentiles.
	latencyJSON struct {
		Count       int64            `json:"count"`
		Percentiles []percentileJSON `json:"percentiles"`
	}

	percentileJSON struct {
		Quantile float64 `json:"quantile"`
		Value    int64   `json:"value"` // ns
	}

	clientJSON struct {
		ClientID      string      `json:"client_id"`
		Hostname      string      `json:"hostname"`
		Version       string      `json:"version"`
		RemoteAddress string      `json:"remote_address"`
		State         int32       `json:"state"`
		ReadyCount    int64       `json:"ready_count"`
		InFlight      int64       `json:"in_flight_count"`
		MessageCount  uint64      `json:"message_count"`
		FinishCount   uint64      `json:"finish_count"`
		RequeueCount  uint64      `json:"requeue_count"`
		ConnectTime   int64       `json:"connect_ts"`
		SampleRate    int32       `json:"sample_rate"`
		Deflate       bool        `json:"deflate"`
		Snappy        bool        `json:"snappy"`
		UserAgent     string      `json:"user_agent"`
		Authed        bool        `json:"authed,omitempty"`
		Identity      string      `json:"auth_identity,omitempty"`
		IdentityURL   string      `json:"auth_identity_url,omitempty"`
		Zone          string      `json:"topology_zone"`
		Region        string      `json:"topology_region"`
		PubCounts     []countJSON `json:"pub_counts,omitempty"`
		Node          string      `json:"node,omitempty"` // ours, of scope=cluster: whose client it is

		TLS           bool   `json:"tls"`
		CipherSuite   string `json:"tls_cipher_suite"`
		TLSVersion    string `json:"tls_version"`
		TLSProtocol   string `json:"tls_negotiated_protocol"`
		TLSProtoMutal bool   `json:"tls_negotiated_protocol_is_mutual"`
	}

	countJSON struct {
		Topic string `json:"topic"`
		Count uint64 `json:"count"`
	}

	memoryJSON struct {
		HeapObjects       uint64 `json:"heap_objects"`
		HeapIdleBytes     uint64 `json:"heap_idle_bytes"`
		HeapInUseBytes    uint64 `json:"heap_in_use_bytes"`
		HeapReleasedBytes uint64 `json:"heap_released_bytes"`
		GCPauseUsec100    uint64 `json:"gc_pause_usec_100"`
		GCPauseUsec99     uint64 `json:"gc_pause_usec_99"`
		GCPauseUsec95     uint64 `json:"gc_pause_usec_95"`
		NextGCBytes       uint64 `json:"next_gc_bytes"`
		GCTotalRuns       uint32 `json:"gc_total_runs"`
	}
)

func info(f *Front, _ *http.Request, _ url.Values) (any, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	o := &f.o
	return infoJSON{
		Version: o.Version, BroadcastAddress: o.BroadcastAddress, Hostname: host,
		HTTPPort: port(o.HTTP), TCPPort: port(o.TCP), StartTime: o.StartTime.Unix(),
		MaxHeartbeatInterval: o.MaxHeartbeatInterval, MaxOutputBufferSize: o.MaxOutputBufferSize,
		MaxOutputBufferTimeout: o.MaxOutputBufferTimeout, MaxDeflateLevel: o.MaxDeflateLevel,
		TopologyZone: o.TopologyZone, TopologyRegion: o.TopologyRegion,
	}, nil
}

// port is a listener's TCP port; -1 for a Unix socket.
func port(l net.Listener) int {
	if l == nil {
		return -1
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return -1
}

// boolArg is true unless it says false or 0.
func boolArg(q url.Values, name string) bool {
	v := q.Get(name)
	return v != "false" && v != "0"
}

// scopeCluster is the scope of /stats that adds all nodes up.
const scopeCluster = "cluster"

func stats(f *Front, r *http.Request, q url.Values) (any, error) {
	ask := statsQuestion{Topic: q.Get("topic"), Channel: q.Get("channel"), Clients: boolArg(q, "include_clients")}
	var s statsJSON
	var err error
	switch q.Get("scope") {
	case scopeCluster:
		s, err = f.clusterStats(r.Context(), &ask)
	case "", "node":
		var topics []broker.TopicStats
		if topics, err = f.broker.Stats(r.Context(), broker.Filter{Topic: ask.Topic, Channel: ask.Channel}); err == nil {
			s = f.statsOf(topics, &ask)
		}
	default:
		err = bad("INVALID_SCOPE")
	}
	if err != nil {
		return nil, err
	}
	if boolArg(q, "include_mem") {
		s.Memory = f.memory()
	}
	if f.o.Spool != nil {
		s.Spool = f.o.Spool()
	}
	if q.Get("format") == "json" {
		return s, nil
	}
	return s.text(time.Since(f.o.StartTime)), nil
}

// statsOf is what this node tells of itself.
func (f *Front) statsOf(topics []broker.TopicStats, q *statsQuestion) statsJSON {
	s := statsJSON{Version: f.o.Version, Health: "OK", StartTime: f.o.StartTime.Unix()}
	if err := f.broker.Health(); err != nil {
		s.Health = "NOK - " + err.Error()
	}
	consumers := f.consumers(q.Topic, q.Clients)
	if q.Topic == "" || len(topics) > 0 {
		s.Topics = make([]topicJSON, 0, len(topics)) // never null: a known topic, or all
	}
	for i := range topics {
		if q.Channel != "" && len(topics[i].Channels) == 0 {
			continue
		}
		s.Topics = append(s.Topics, f.topicStats(&topics[i], consumers, q.Clients))
	}
	if q.Clients {
		s.Producers = f.producers(q.Topic)
	}
	return s
}

// place names a channel.
type place struct{ topic, channel string }

// consumers are the clients of each channel; without details only their number
// counts.
func (f *Front) consumers(topic string, details bool) map[place][]clientJSON {
	out := make(map[place][]clientJSON)
	for _, c := range f.snapshot() {
		sub := c.sub.Load()
		if sub == nil || topic != "" && sub.topic != topic {
			continue
		}
		at := place{sub.topic, sub.channel}
		var client clientJSON
		if details {
			client = c.stats(topic)
		}
		out[at] = append(out[at], client)
	}
	return out
}

// producers are the clients that have published; nil when there are none.
func (f *Front) producers(topic string) []clientJSON {
	var out []clientJSON
	for _, c := range f.snapshot() {
		c.mu.Lock()
		publishes := len(c.pubs) > 0
		c.mu.Unlock()
		if publishes {
			out = append(out, c.stats(topic))
		}
	}
	slices.SortFunc(out, func(a, b clientJSON) int { return cmp.Compare(a.RemoteAddress, b.RemoteAddress) })
	return out
}

// stats is the client as /stats shows it; topic limits its publish counts.
func (c *conn) stats(topic string) clientJSON {
	c.mu.Lock()
	m := c.meta
	var counts []countJSON
	for name, n := range c.pubs {
		if topic == "" || name == topic {
			counts = append(counts, countJSON{name, n.Load()})
		}
	}
	c.mu.Unlock()
	slices.SortFunc(counts, func(a, b countJSON) int { return cmp.Compare(a.Topic, b.Topic) })
	s := clientJSON{
		ClientID: m.clientID, Hostname: m.hostname, Version: "V2", RemoteAddress: c.remote,
		State: c.state.Load(), ConnectTime: c.since.Unix(), SampleRate: m.sampleRate,
		UserAgent: m.userAgent, Zone: m.zone, Region: m.region, PubCounts: counts,
		Snappy: m.transport.snappy, Deflate: m.transport.deflate, TLS: m.transport.tls, CipherSuite: m.transport.cipher,
		TLSVersion: m.transport.version, TLSProtocol: m.transport.protocol, TLSProtoMutal: m.transport.tls, // as Go says since 1.16
	}
	if m.grants != nil {
		s.Authed, s.Identity, s.IdentityURL = m.grants.Len() > 0, m.grants.Identity, m.grants.IdentityURL
	}
	if sub := c.sub.Load(); sub != nil {
		st := sub.Stats()
		s.ReadyCount, s.InFlight = st.Ready, st.InFlight
		s.MessageCount, s.FinishCount, s.RequeueCount = st.MessageCount, st.FinishCount, st.RequeueCount
	}
	return s
}

// topicStats is a topic as nsqd shows it. All that is durable is in the
// backend, nsqd's word for its disk.
func (f *Front) topicStats(t *broker.TopicStats, consumers map[place][]clientJSON, details bool) topicJSON {
	out := topicJSON{
		Name: t.Name, Channels: make([]channelJSON, 0, len(t.Channels)),
		Depth: t.Depth, MessageCount: t.MessageCount, MessageBytes: t.MessageBytes, Paused: t.Paused, Ack: t.Ack, Latency: f.latency(t.Latency),
	}
	out.OldestAge = t.Oldest.Milliseconds()
	durable := !broker.IsEphemeral(t.Name)
	if durable {
		out.BackendDepth = t.Depth
	}
	for i := range t.Channels {
		ch := &t.Channels[i]
		clients := consumers[place{t.Name, ch.Name}]
		c := channelJSON{
			Name: ch.Name, Depth: ch.Depth, InFlight: ch.InFlight, Deferred: ch.Deferred,
			MessageCount: ch.MessageCount, RequeueCount: ch.RequeueCount, TimeoutCount: ch.TimeoutCount,
			ClientCount: len(clients), Paused: ch.Paused, Latency: f.latency(ch.Latency),
			MaxAttempts: ch.MaxAttempts, DeadLetter: ch.DeadLetter, DeadLettered: ch.DeadLetterCount,
		}
		if durable && !broker.IsEphemeral(ch.Name) {
			c.BackendDepth = ch.Depth
		}
		if details {
			c.Clients = append([]clientJSON{}, clients...)
		}
		out.Channels = append(out.Channels, c)
	}
	return out
}

// latency is a snapshot as nsqd shows it; nil is not measured.
func (f *Front) latency(l *latency.Snapshot) latencyJSON {
	out := latencyJSON{Count: l.Count()}
	if l == nil {
		return out
	}
	for _, q := range f.o.Quantiles {
		out.Percentiles = append(out.Percentiles, percentileJSON{q, l.Quantile(q)})
	}
	return out
}

// String is the values in the text form.
func (l *latencyJSON) String() string {
	var values []string
	for _, p := range l.Percentiles {
		v, unit := float64(p.Value), "ns"
		switch {
		case v > 1e9:
			v, unit = v/1e9, "s"
		case v > 1e6:
			v, unit = v/1e6, "ms"
		case v > 1e3:
			v, unit = v/1e3, "us"
		}
		values = append(values, fmt.Sprintf("%.1f%s", v, unit))
	}
	return strings.Join(values, ", ")
}

// memoryAge is how long memory figures are kept: reading them stops the world.
const memoryAge = time.Second

// memoryCache keeps the last memory figures.
type memoryCache struct {
	mu   sync.Mutex
	at   time.Time
	last memoryJSON
}

// memory returns the process's memory figures.
func (f *Front) memory() *memoryJSON {
	c := &f.memCache
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > memoryAge {
		c.last, c.at = readMemory(), time.Now()
	}
	m := c.last
	return &m
}

func readMemory() memoryJSON {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	pauses := slices.Clone(ms.PauseNs[:min(int(ms.NumGC), len(ms.PauseNs))])
	slices.Sort(pauses)
	usec := func(percent int) uint64 {
		if len(pauses) == 0 {
			return 0
		}
		return pauses[min(len(pauses)*percent/100, len(pauses)-1)] / 1000
	}
	return memoryJSON{
		HeapObjects: ms.HeapObjects, HeapIdleBytes: ms.HeapIdle, HeapInUseBytes: ms.HeapInuse,
		HeapReleasedBytes: ms.HeapReleased, GCPauseUsec100: usec(100), GCPauseUsec99: usec(99), GCPauseUsec95: usec(95),
		NextGCBytes: ms.NextGC, GCTotalRuns: ms.NumGC,
	}
}

// text is /stats without format=json, in the form that scripts cut up.
func (s *statsJSON) text(uptime time.Duration) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "nsqd v%s (built w/%s)\n", s.Version, runtime.Version())
	fmt.Fprintf(&b, "start_time %s\nuptime %s\n", time.Unix(s.StartTime, 0).Format(time.RFC3339), uptime)
	fmt.Fprintf(&b, "\nHealth: %s\n", s.Health)
	if s.Scope == scopeCluster {
		fmt.Fprintf(&b, "Nodes: %s\n", strings.Join(s.Nodes, ", "))
		for _, m := range s.Missing {
			fmt.Fprintf(&b, "Missing: %s\n", &m)
		}
	}
	if s.Memory != nil {
		s.Memory.text(&b)
	}
	if x := s.Spool; x != nil {
		fmt.Fprintf(&b, "\nSpool: depth: %d oldest: %s bytes: %d limit: %d connected: %t\n",
			x.Depth, time.Duration(x.OldestAge)*time.Millisecond, x.Bytes, x.Limit, x.Connected)
	}
	if len(s.Topics) == 0 {
		b.WriteString("\nTopics: None\n")
	} else {
		b.WriteString("\nTopics:")
	}
	for i := range s.Topics {
		s.Topics[i].text(&b)
	}
	if len(s.Producers) == 0 {
		b.WriteString("\nProducers: None\n")
		return b.Bytes()
	}
	b.WriteString("\nProducers:\n")
	for i := range s.Producers {
		fmt.Fprintf(&b, "   %s\n", &s.Producers[i])
	}
	return b.Bytes()
}

func (m *memoryJSON) text(b *bytes.Buffer) {
	b.WriteString("\nMemory:\n")
	for _, line := range []struct {
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
		{"gc_total_runs", uint64(m.GCTotalRuns)},
	} {
		fmt.Fprintf(b, "   %-25s\t%d\n", line.name, line.value)
	}
}

// mark stands before what is paused.
func mark(paused bool) string {
	if paused {
		return "*P "
	}
	return "   "
}

func (t *topicJSON) text(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n%s[%-15s] depth: %-5d be-depth: %-5d msgs: %-8d e2e%%: %s\n",
		mark(t.Paused), t.Name, t.Depth, t.BackendDepth, t.MessageCount, &t.Latency)
	for i := range t.Channels {
		c := &t.Channels[i]
		fmt.Fprintf(b, "   %s[%-25s] depth: %-5d be-depth: %-5d inflt: %-4d def: %-4d re-q: %-5d timeout: %-5d msgs: %-8d e2e%%: %s\n",
			mark(c.Paused), c.Name, c.Depth, c.BackendDepth, c.InFlight, c.Deferred, c.RequeueCount, c.TimeoutCount, c.MessageCount, &c.Latency)
		for j := range c.Clients {
			fmt.Fprintf(b, "        %s\n", &c.Clients[j])
		}
	}
}

// String is the client's line in the text form.
func (c *clientJSON) String() string {
	_, port, _ := net.SplitHostPort(c.RemoteAddress)
	who := fmt.Sprintf("%s:%s %s", c.Hostname, port, c.UserAgent)
	connected := time.Since(time.Unix(c.ConnectTime, 0)).Truncate(time.Second)
	if len(c.PubCounts) == 0 {
		return fmt.Sprintf("[%s %-21s] state: %d inflt: %-4d rdy: %-4d fin: %-8d re-q: %-8d msgs: %-8d connected: %s",
			c.Version, who, c.State, c.InFlight, c.ReadyCount, c.FinishCount, c.RequeueCount, c.MessageCount, connected)
	}
	var total uint64
	topics := make([]string, 0, len(c.PubCounts))
	for _, n := range c.PubCounts {
		total += n.Count
		topics = append(topics, fmt.Sprintf("%s=%d", n.Topic, n.Count))
	}
	return fmt.Sprintf("[%s %-21s] msgs: %-8d topics: %s connected: %s",
		c.Version, who, total, strings.Join(topics, ","), connected)
}
