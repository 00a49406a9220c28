package nsq

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"time"

	"github.com/tidings-io/tidings/internal/auth"
)

// identity is the body of IDENTIFY. Unknown fields are ignored.
type identity struct {
	ClientID            string `json:"client_id"`
	Hostname            string `json:"hostname"`
	UserAgent           string `json:"user_agent"`
	FeatureNegotiation  bool   `json:"feature_negotiation"`
	HeartbeatInterval   int    `json:"heartbeat_interval"`    // ms
	OutputBufferSize    int    `json:"output_buffer_size"`    // bytes
	OutputBufferTimeout int    `json:"output_buffer_timeout"` // ms
	TLSv1               bool   `json:"tls_v1"`
	Deflate             bool   `json:"deflate"`
	DeflateLevel        int    `json:"deflate_level"`
	Snappy              bool   `json:"snappy"`
	SampleRate          int32  `json:"sample_rate"` // percent
	MsgTimeout          int    `json:"msg_timeout"` // ms
	TopologyRegion      string `json:"topology_region"`
	TopologyZone        string `json:"topology_zone"`
}

// negotiation is the answer to IDENTIFY, in nsqd's order.
type negotiation struct {
	MaxRdyCount         int64  `json:"max_rdy_count"`
	Version             string `json:"version"`
	MaxMsgTimeout       int64  `json:"max_msg_timeout"` // ms
	MsgTimeout          int64  `json:"msg_timeout"`     // ms
	TLSv1               bool   `json:"tls_v1"`
	Deflate             bool   `json:"deflate"`
	DeflateLevel        int    `json:"deflate_level"`
	MaxDeflateLevel     int    `json:"max_deflate_level"`
	Snappy              bool   `json:"snappy"`
	SampleRate          int32  `json:"sample_rate"`
	AuthRequired        bool   `json:"auth_required"`
	OutputBufferSize    int    `json:"output_buffer_size"`
	OutputBufferTimeout int64  `json:"output_buffer_timeout"` // ms
	TopologyRegion      string `json:"topology_region"`
	TopologyZone        string `json:"topology_zone"`
}

const (
	// defaultOutputBuffer is what a client is told when it names no size.
	defaultOutputBuffer = 16 << 10
	// defaultDeflateLevel is nsqd's.
	defaultDeflateLevel = 6
)

// meta is what a client said about itself, as /stats shows it.
type meta struct {
	clientID, hostname, userAgent string
	zone, region                  string
	sampleRate                    int32
	bufferSize                    int
	bufferTimeout, msgTimeout     time.Duration
	transport                     transport
	grants                        *auth.Grants // nil: none
}

// transport is what /stats tells of a connection's encoding.
type transport struct {
	tls             bool
	cipher, version string // names of the TLS suite and version
	protocol        string // negotiated inside TLS
	snappy, deflate bool
}

// tlsVersions are nsqd's names.
var tlsVersions = map[uint16]string{
	tls.VersionTLS10: "TLS1.0", tls.VersionTLS11: "TLS1.1", tls.VersionTLS12: "TLS1.2", tls.VersionTLS13: "TLS1.3",
}

func (s *stream) transport() transport {
	t := transport{snappy: s.snappy, deflate: s.level != 0}
	if s.tls != nil {
		state := s.tls.ConnectionState()
		t.tls, t.cipher, t.version = true, tls.CipherSuiteName(state.CipherSuite), tlsVersions[state.Version]
		t.protocol = state.NegotiatedProtocol
	}
	return t
}

// defaultMeta is a client that has not said anything.
func defaultMeta(o *Options, host string) meta {
	return meta{
		clientID: host, hostname: host,
		bufferSize: defaultOutputBuffer, bufferTimeout: o.OutputBufferTimeout, msgTimeout: o.MsgTimeout,
	}
}

// identify handles IDENTIFY. The first one decides the timers of the
// connection; later ones only answer, and move the socket's deadlines.
func identify(c *conn, _ [][]byte) error {
	body, err := c.body("IDENTIFY")
	if err != nil {
		return err
	}
	var id identity
	if json.Unmarshal(body, &id) != nil {
		return refuse("E_BAD_BODY", "IDENTIFY failed to decode JSON body")
	}
	m, interval, err := c.apply(&id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.meta = m
	c.mu.Unlock()
	c.interval.Store(int64(interval))
	c.wait.Store(int64(m.bufferTimeout))
	if m.bufferSize != defaultOutputBuffer {
		c.flushAt.Store(int64(min(m.bufferSize, outputBytes)))
	}
	if !c.pump.fixed {
		c.pump = pump{fixed: true, msgTimeout: m.msgTimeout, sampleRate: m.sampleRate}
		c.beats <- interval // has room for one
	}
	if !id.FeatureNegotiation {
		return c.answer(okFrame)
	}
	u, n, err := c.negotiate(&id, &m)
	if err != nil {
		return err
	}
	answer, err := json.Marshal(n)
	if err != nil {
		return refuse("E_IDENTIFY_FAILED", "IDENTIFY failed %s", err)
	}
	frame := appendFrame(nil, frameResponse, string(answer))
	if u == nil {
		return c.answer(frame)
	}
	return c.upgrade(frame, u)
}

// apply checks an identity's figures, in nsqd's order, and joins them with
// what the client said before.
func (c *conn) apply(id *identity) (m meta, interval time.Duration, err error) {
	o := &c.front.o
	m = c.meta
	m.clientID, m.hostname, m.userAgent = id.ClientID, id.Hostname, id.UserAgent
	m.zone, m.region = id.TopologyZone, id.TopologyRegion
	interval = time.Duration(c.interval.Load())
	switch ms := millisOf(id.HeartbeatInterval); {
	case id.HeartbeatInterval == -1:
		interval = 0
	case id.HeartbeatInterval == 0:
	case ms >= time.Second && ms <= o.MaxHeartbeatInterval:
		interval = ms
	default:
		return m, 0, refuse("E_BAD_BODY", "IDENTIFY heartbeat interval (%d) is invalid", id.HeartbeatInterval)
	}
	switch ms := millisOf(id.OutputBufferTimeout); {
	case id.OutputBufferTimeout == -1:
		m.bufferTimeout = 0
	case id.OutputBufferTimeout == 0:
	case ms >= o.MinOutputBufferTimeout && ms <= o.MaxOutputBufferTimeout:
		m.bufferTimeout = ms
	default:
		return m, 0, refuse("E_BAD_BODY", "IDENTIFY output buffer timeout (%d) is invalid", id.OutputBufferTimeout)
	}
	switch n := id.OutputBufferSize; {
	case n == -1:
		m.bufferSize, m.bufferTimeout = 1, 0
	case n == 0:
	case n >= 64 && int64(n) <= o.MaxOutputBufferSize:
		m.bufferSize = n
	default:
		return m, 0, refuse("E_BAD_BODY", "IDENTIFY output buffer size (%d) is invalid", n)
	}
	if id.SampleRate < 0 || id.SampleRate > 99 {
		return m, 0, refuse("E_BAD_BODY", "IDENTIFY sample rate (%d) is invalid", id.SampleRate)
	}
	m.sampleRate = id.SampleRate
	switch ms := millisOf(id.MsgTimeout); {
	case id.MsgTimeout == 0:
	case ms >= time.Second && ms <= o.MaxMsgTimeout:
		m.msgTimeout = ms
	default:
		return m, 0, refuse("E_BAD_BODY", "IDENTIFY msg timeout (%d) is invalid", id.MsgTimeout)
	}
	return m, interval, nil
}

// millisOf is a duration of ms milliseconds, negative for what cannot be one.
func millisOf(ms int) time.Duration {
	if ms < 0 || int64(ms) > int64(1<<63-1)/int64(time.Millisecond) {
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}

// negotiate is the answer, and the upgrade that follows it, nil for none. What
// is asked for and not offered is answered with false, and is no error.
func (c *conn) negotiate(id *identity, m *meta) (*upgrade, *negotiation, error) {
	o := &c.front.o
	u := &upgrade{snappy: id.Snappy && !o.NoSnappy}
	if id.TLSv1 {
		u.tls = o.TLS
	}
	deflate := id.Deflate && !o.NoDeflate
	level := defaultDeflateLevel
	if deflate && id.DeflateLevel > 0 {
		level = id.DeflateLevel
	}
	level = min(level, o.MaxDeflateLevel)
	if deflate {
		u.level = level
	}
	if deflate && u.snappy {
		return nil, nil, refuse("E_IDENTIFY_FAILED", "cannot enable both deflate and snappy compression")
	}
	n := &negotiation{
		MaxRdyCount:         o.MaxRdyCount,
		Version:             o.Version,
		MaxMsgTimeout:       o.MaxMsgTimeout.Milliseconds(),
		MsgTimeout:          m.msgTimeout.Milliseconds(),
		TLSv1:               u.tls != nil,
		Deflate:             deflate,
		DeflateLevel:        level,
		Snappy:              u.snappy,
		AuthRequired:        o.Auth != nil,
		MaxDeflateLevel:     o.MaxDeflateLevel,
		SampleRate:          m.sampleRate,
		OutputBufferSize:    m.bufferSize,
		OutputBufferTimeout: m.bufferTimeout.Milliseconds(),
		TopologyRegion:      o.TopologyRegion,
		TopologyZone:        o.TopologyZone,
	}
	if u.tls == nil && !u.snappy && !deflate {
		u = nil
	}
	return u, n, nil
}

// upgrade sends the answer to an IDENTIFY and waits until the writer has done
// the upgrade. What the client has sent behind its IDENTIFY, without waiting
// for the answer, belongs to the new encoding: nothing that came in clear is
// ever taken for what TLS protects.
func (c *conn) upgrade(frame []byte, u *upgrade) error {
	if s := c.upgraded; s != nil && (s.pack != nil || s.tls != nil && u.tls != nil) {
		return refuse("E_IDENTIFY_FAILED", "IDENTIFY failed connection is upgraded already")
	}
	if err := c.settle(); err != nil {
		return err
	}
	c.socket.Store(nil) // for good: from here only the writer writes
	u.stream, u.unread = c.upgraded, bytes.Clone(c.in.next(c.in.buffered()))
	u.done = make(chan error, 1)
	if err := c.add(reply{frame: frame, change: &change{upgrade: u}}); err != nil {
		return err
	}
	select {
	case err := <-u.done:
		switch {
		case c.drainEnd.Load() != 0:
			return errStop
		case err != nil:
			return refuse("E_IDENTIFY_FAILED", "IDENTIFY failed %s", err)
		}
	case <-c.dead:
		return errStop
	}
	c.upgraded = u.stream
	c.in.src = c.upgraded.src
	c.deadline = time.Time{}
	if c.upgraded.tls != nil {
		c.needsTLS = false
	}
	c.mu.Lock()
	c.meta.transport = c.upgraded.transport()
	c.mu.Unlock()
	return nil
}
