// Package config is the one documented description of everything a node can be
// told. A value comes, in this order, from a flag, the environment, the
// configuration file, the default written here.
//
// One flat name serves everywhere: flag --wal-segment-size, file key
// wal_segment_size, environment TIDINGS_WAL_SEGMENT_SIZE. Units stand in the
// value ("64MiB", "30s"), never in the name. Where NSQ has the thing, the name
// is NSQ's.
package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size in bytes. It is written as a plain number or with a unit:
// "1048576", "64KiB", "64MiB", "1GiB" (powers of 1,024) or "64MB" (of 1,000).
type Bytes int64

// Config holds the settings of one node. The tags are the reference: name (the
// flag; the file key has underscores), key where nsqd's file key is another
// word, default, min and max where there are bounds, help, nsqd where the
// default differs under `tidings nsqd`, bool for a text that may also be a truth
// value, so that its flag needs no value, and number for texts that a file may
// have as bare numbers.
type Config struct {
	// Unused are nsqd's settings that mean nothing here.
	Unused Unused

	DataPath       string        `name:"data-path" default:"./tidings-data" nsqd:"" help:"folder for everything that must survive a restart"`
	Node           string        `name:"node" default:"" help:"name of this node (default: that of its cluster certificate, else the host name)"`
	TCPAddress     string        `name:"tcp-address" default:"127.0.0.1:4150" nsqd:"0.0.0.0:4150" help:"address for NSQ TCP clients: HOST:PORT, or the path of a unix socket"`
	HTTPAddress    string        `name:"http-address" default:"127.0.0.1:4151" nsqd:"0.0.0.0:4151" help:"address for nsqd's HTTP API: HOST:PORT, or the path of a unix socket"`
	HTTPSAddress   string        `name:"https-address" default:"127.0.0.1:4152" nsqd:"0.0.0.0:4152" help:"address for nsqd's HTTP API over TLS; used with tls-cert only (empty: not served)"`
	AdminAddress   string        `name:"admin-address" default:"127.0.0.1:4180" nsqd:"" help:"address for the admin API, the console, /metrics and health (empty: not served)"`
	AdminReadOnly  bool          `name:"admin-read-only" default:"false" help:"refuse every change through the admin API and the console"`
	AdminHosts     List          `name:"admin-hosts" default:"" help:"host names that requests to a loopback admin-address may be for, besides localhost and IP addresses; the flag may be repeated"`
	BroadcastAddr  string        `name:"broadcast-address" default:"" help:"host name or address that clients are told (default: the host name, or a loopback address if only that is listened on)"`
	BroadcastTCP   int           `name:"broadcast-tcp-port" default:"0" min:"0" max:"65535" help:"port of tcp-address that clients are told (0: the one listened on)"`
	BroadcastHTTP  int           `name:"broadcast-http-port" default:"0" min:"0" max:"65535" help:"port of http-address that clients are told (0: the one listened on)"`
	Seeds          string        `name:"seeds" default:"" help:"nodes that form the cluster, once, each NAME=HOST:PORT or HOST:PORT (no port: 4190): 1, 3 or 5, the same on all of them, separated by commas (empty: this node is alone)"`
	ClusterAddress string        `name:"cluster-address" default:"127.0.0.1:4190" help:"address for the other nodes of the cluster; used with seeds only"`
	ClusterCA      string        `name:"cluster-ca" default:"" help:"PEM file with the authority that signs the nodes' certificates; 'tidings cluster cert' makes one"`
	ClusterCert    string        `name:"cluster-cert" default:"" help:"PEM file with this node's certificate"`
	ClusterKey     string        `name:"cluster-key" default:"" help:"PEM file with the key of this node's certificate"`
	LogLevel       string        `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat      string        `name:"log-format" default:"auto" help:"text, json, or auto (text on a terminal)"`
	IgnoreNSQDData bool          `name:"ignore-nsqd-data" default:"false" help:"start although the data path holds an nsqd backlog that has not been imported"`
	TopologyRegion string        `name:"topology-region" default:"" help:"region that clients are told"`
	TopologyZone   string        `name:"topology-zone" default:"" help:"zone that clients are told"`
	MemoryLimit    string        `name:"memory-limit" default:"auto" help:"memory that the node tries to stay below: a size, off, or auto (GOMEMLIMIT, else 90 % of the control group's limit)"`
	DrainTimeout   time.Duration `name:"drain-timeout" default:"1s" min:"0s" help:"how long a stopping node waits for consumers to finish what they hold"`

	LookupTCPAddress    string        `name:"lookup-tcp-address" default:"127.0.0.1:4160" nsqd:"" help:"address where nsqds register, as with nsqlookupd (empty: not served)"`
	LookupHTTPAddress   string        `name:"lookup-http-address" default:"127.0.0.1:4161" nsqd:"" help:"address for nsqlookupd's HTTP API (empty: not served)"`
	NSQAdminHTTPAddress string        `name:"nsqadmin-http-address" default:"127.0.0.1:4171" nsqd:"" help:"address for nsqadmin's HTTP API over this node's lookup (empty: not served)"`
	InactiveTimeout     time.Duration `name:"inactive-producer-timeout" default:"5m" min:"1ms" help:"time since its last ping after which a registered nsqd is left out of lookups"`
	TombstoneLifetime   time.Duration `name:"tombstone-lifetime" default:"45s" min:"1ms" help:"how long a tombstone keeps a node out of a topic's lookups"`
	LookupdTCPAddresses List          `name:"lookupd-tcp-address" key:"nsqlookupd_tcp_addresses" default:"" help:"nsqlookupds to register with; the flag may be repeated"`

	TLSCert             string `name:"tls-cert" default:"" help:"PEM file with the certificate that clients see, and those between it and its authority (empty: no TLS)"`
	TLSKey              string `name:"tls-key" default:"" help:"PEM file with the key of tls-cert"`
	TLSClientAuthPolicy string `name:"tls-client-auth-policy" default:"" help:"require: TLS clients show a certificate; require-verify: one that tls-root-ca-file signed; either makes TLS required"`
	TLSRootCAFile       string `name:"tls-root-ca-file" default:"" help:"PEM file with the authorities for client certificates and for auth servers (empty: the system's)"`
	TLSRequired         string `name:"tls-required" default:"false" bool:"true" help:"refuse clients without TLS: true, false, or tcp-https, which leaves http-address open"`
	TLSMinVersion       string `name:"tls-min-version" default:"tls1.2" help:"oldest version of TLS: tls1.0, tls1.1, tls1.2 or tls1.3"`
	Deflate             bool   `name:"deflate" default:"true" help:"offer deflate to TCP clients"`
	MaxDeflateLevel     int    `name:"max-deflate-level" default:"6" min:"1" max:"9" help:"highest level of deflate that a client may ask for"`
	Snappy              bool   `name:"snappy" default:"true" help:"offer snappy to TCP clients"`
	AuthHTTPAddresses   List   `name:"auth-http-address" key:"auth_http_addresses" default:"" help:"auth servers, HOST:PORT or a URL, that are asked what a client may do; the flag may be repeated (empty: everybody may do everything)"`
	AuthHTTPMethod      string `name:"auth-http-request-method" default:"get" help:"how auth servers are asked: get or post"`
	HTTPAuth            bool   `name:"http-auth" default:"true" nsqd:"false" help:"let requests to nsqd's HTTP API take the same grants as TCP commands, if there are auth servers; /ping takes none"`

	HTTPConnectTimeout time.Duration `name:"http-client-connect-timeout" default:"2s" min:"1ms" help:"longest wait for a connection when asking another server over HTTP"`
	HTTPRequestTimeout time.Duration `name:"http-client-request-timeout" default:"5s" min:"1ms" help:"longest wait for the whole answer of another server over HTTP"`

	NodeID                 string        `name:"node-id" key:"id" number:"true" default:"" help:"number from 0 to 1023 that nsqd needs for message ids; they are unique without it here, and only /config/id shows it (default: from the host name)"`
	StatsdAddress          string        `name:"statsd-address" default:"" help:"HOST:PORT of a statsd daemon that gets the figures of /stats over UDP (empty: none)"`
	StatsdPrefix           string        `name:"statsd-prefix" default:"nsq.%s" help:"what statsd names begin with; %s is the broadcast address and HTTP port, with _ for dots and colons"`
	StatsdInterval         time.Duration `name:"statsd-interval" default:"1m" min:"10ms" help:"time between two reports to statsd"`
	StatsdMemStats         bool          `name:"statsd-mem-stats" default:"true" help:"report figures of memory and garbage collection to statsd"`
	StatsdUDPPacketSize    int           `name:"statsd-udp-packet-size" default:"508" min:"64" max:"65507" help:"most bytes of one packet to statsd"`
	StatsdExcludeEphemeral bool          `name:"statsd-exclude-ephemeral" default:"false" help:"leave #ephemeral topics and channels out of the reports to statsd"`
	LatencyPercentiles     List          `name:"e2e-processing-latency-percentile" key:"e2e_processing_latency_percentiles" number:"true" default:"" help:"quantiles, above 0 and up to 1, of the time from publish to FIN that /stats and statsd show; the flag may be repeated (empty: it is not measured)"`
	LatencyWindow          time.Duration `name:"e2e-processing-latency-window-time" default:"10m" min:"1s" help:"over how long that time is kept"`

	MaxMsgSize             Bytes         `name:"max-msg-size" default:"1MiB" min:"1" help:"largest message body"`
	MaxBodySize            Bytes         `name:"max-body-size" default:"5MiB" min:"1" max:"1GiB" help:"largest command body"`
	MsgTimeout             time.Duration `name:"msg-timeout" default:"1m" min:"1ms" help:"time a consumer has to finish a message, unless it asks for another"`
	MaxMsgTimeout          time.Duration `name:"max-msg-timeout" default:"15m" min:"1ms" help:"longest time that a consumer may ask for, TOUCH included"`
	MaxReqTimeout          time.Duration `name:"max-req-timeout" default:"1h" min:"0s" help:"longest delay of a requeue; a longer one is clamped"`
	MaxDeferTimeout        time.Duration `name:"max-defer-timeout" default:"8760h" min:"0s" help:"longest delay of a deferred publish"`
	MaxHeartbeatInterval   time.Duration `name:"max-heartbeat-interval" default:"1m" min:"1s" help:"longest heartbeat interval that a client may ask for"`
	MaxRdyCount            int           `name:"max-rdy-count" default:"2500" min:"1" help:"largest RDY count"`
	MaxOutputBufferSize    Bytes         `name:"max-output-buffer-size" default:"64KiB" min:"64" help:"largest output buffer that a client may ask for"`
	MaxOutputBufferTimeout time.Duration `name:"max-output-buffer-timeout" default:"30s" min:"0s" help:"longest output buffer timeout that a client may ask for"`
	MinOutputBufferTimeout time.Duration `name:"min-output-buffer-timeout" default:"25ms" min:"0s" help:"shortest output buffer timeout that a client may ask for"`
	OutputBufferTimeout    time.Duration `name:"output-buffer-timeout" default:"250ms" min:"0s" help:"upper bound for holding back output (idle output is sent at once)"`
	MaxChannelConsumers    int           `name:"max-channel-consumers" default:"0" min:"0" help:"most consumers on one channel (0: no limit); each node counts its own connections, as each nsqd does"`
	MemQueueSize           int           `name:"mem-queue-size" default:"10000" min:"0" help:"most waiting messages of an #ephemeral topic or channel"`
	RequeueOnDisconnect    bool          `name:"requeue-on-disconnect" default:"true" help:"give a lost consumer's messages to others at once instead of after msg-timeout"`

	WALSegmentSize    Bytes         `name:"wal-segment-size" default:"64MiB" min:"64KiB" help:"size of one write-ahead log segment; three are kept as the disk reserve"`
	SegmentSize       Bytes         `name:"segment-size" default:"64MiB" min:"64KiB" help:"size at which a partition begins a new segment file"`
	TailSize          Bytes         `name:"tail-size" default:"8MiB" min:"64KiB" help:"memory for messages that are not yet in segment files, all partitions together"`
	CheckpointSize    Bytes         `name:"checkpoint-size" default:"64MiB" min:"64KiB" help:"write-ahead log bytes after which a shard writes a checkpoint"`
	CheckpointAge     time.Duration `name:"checkpoint-age" default:"1m" min:"1ms" help:"longest time between a change and the checkpoint that holds it"`
	DiskReserve       Bytes         `name:"disk-reserve" default:"0" help:"free disk space at which publishing stops (0: from the volume and segment sizes)"`
	DataShards        int           `name:"data-shards" default:"8" min:"1" max:"256" help:"Raft groups for data of a new data folder; later, cluster shards add adds more"`
	DefaultPartitions int           `name:"default-partitions" default:"1" min:"1" max:"4096" help:"partitions of a topic that this node makes and nobody asked for another number: one is totally ordered, several are each"`
	Ack               string        `name:"ack" default:"quorum" help:"when a publish to a topic that says nothing else is acknowledged in a cluster: quorum (durable on a majority), leader (durable on the leader; a change of leader may lose it) or local (durable in the spool of the node that takes it, which brings it on, also after a split)"`
	SpoolSize         Bytes         `name:"spool-size" default:"1GiB" min:"1MiB" help:"most bytes of this node's spool for topics with ack local; beyond it publishes to them are refused"`
	ReplicationFactor int           `name:"replication-factor" default:"3" min:"1" max:"5" help:"voting replicas of each data shard of a cluster that is formed now; at most as many as there are seeds"`
	ReplicaLogSize    Bytes         `name:"replica-log-size" default:"256MiB" min:"0" help:"write-ahead log that is kept for replicas that were away for a while"`
	CatchUpRate       Bytes         `name:"catch-up-rate" default:"64MiB" min:"0" help:"most bytes per second that this node sends to replicas that have fallen behind the log, all together (0: no limit)"`
	SyncStorage       bool          `name:"sync-storage" default:"false" help:"use Raft's synchronous storage mode (for comparison)"`
	MaxInboxSize      Bytes         `name:"max-inbox-size" default:"32MiB" min:"64KiB" help:"most publish bytes that wait for one shard; beyond it publishers wait"`
}

// Validate reports the first setting that can't work, naming its flag.
func (c *Config) Validate() error {
	if c.DataPath == "" {
		return errors.New("--data-path: want a folder")
	}
	for _, f := range c.Fields() {
		if err := f.check(); err != nil {
			return fmt.Errorf("--%s %s: %w", f.Name, f, err)
		}
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	switch {
	case c.MaxMsgSize > c.MaxBodySize:
		return fmt.Errorf("--max-msg-size %s: larger than --max-body-size %s", c.MaxMsgSize, c.MaxBodySize)
	case c.MsgTimeout > c.MaxMsgTimeout:
		return fmt.Errorf("--msg-timeout %s: longer than --max-msg-timeout %s", c.MsgTimeout, c.MaxMsgTimeout)
	}
	if _, _, err := c.MemoryLimitBytes(); err != nil {
		return fmt.Errorf("--memory-limit %q: %w", c.MemoryLimit, err)
	}
	if err := c.validateCluster(); err != nil {
		return err
	}
	if err := c.validateSecurity(); err != nil {
		return err
	}
	if err := c.validateFigures(); err != nil {
		return err
	}
	return c.validateLog()
}

// validateCluster asks for what a node of several needs.
func (c *Config) validateCluster() error {
	if c.Ack != "quorum" && c.Ack != "leader" && c.Ack != "local" {
		return fmt.Errorf("--ack %q: want quorum, leader or local", c.Ack)
	}
	if c.Seeds == "" {
		return nil
	}
	for _, f := range []struct{ name, file string }{
		{"cluster-ca", c.ClusterCA}, {"cluster-cert", c.ClusterCert}, {"cluster-key", c.ClusterKey},
	} {
		if f.file == "" {
			return fmt.Errorf("--%s: nodes of a cluster need certificates; 'tidings cluster cert NAME...' makes them", f.name)
		}
	}
	return nil
}

func (c *Config) validateAddresses() error {
	for _, a := range []struct {
		name, addr string
		empty      bool // may be
		path       bool // may be
	}{
		{"tcp-address", c.TCPAddress, false, true},
		{"http-address", c.HTTPAddress, false, true},
		{"https-address", c.HTTPSAddress, true, false},
		{"admin-address", c.AdminAddress, true, false},
		{"cluster-address", c.ClusterAddress, false, false},
		{"lookup-tcp-address", c.LookupTCPAddress, true, false},
		{"lookup-http-address", c.LookupHTTPAddress, true, false},
		{"nsqadmin-http-address", c.NSQAdminHTTPAddress, true, false},
	} {
		if a.empty && a.addr == "" || a.path && IsSocketPath(a.addr) {
			continue
		}
		if err := checkAddress(a.addr); err != nil {
			return fmt.Errorf("--%s %q: %w", a.name, a.addr, err)
		}
	}
	for _, addr := range c.LookupdTCPAddresses {
		if err := checkAddress(addr); err != nil {
			return fmt.Errorf("--lookupd-tcp-address %q: %w", addr, err)
		}
	}
	return nil
}

// minMemoryLimit refuses a number that lacks its unit: a node can't live in it.
const minMemoryLimit Bytes = 16 << 20

// MemoryLimitBytes reads MemoryLimit. auto says that the limit is to be found
// out; else it is size, or none if that is 0.
func (c *Config) MemoryLimitBytes() (size Bytes, auto bool, err error) {
	switch c.MemoryLimit {
	case "auto":
		return 0, true, nil
	case "off":
		return 0, false, nil
	}
	size, err = ParseBytes(c.MemoryLimit)
	if err != nil || size < minMemoryLimit {
		return 0, false, fmt.Errorf("want auto, off, or a size of at least %s", minMemoryLimit)
	}
	return size, false, nil
}

func (c *Config) validateLog() error {
	switch c.LogFormat {
	case "auto", "text", "json":
	default:
		return fmt.Errorf("--log-format %q: want auto, text or json", c.LogFormat)
	}
	switch strings.ToLower(c.LogLevel) {
	case "debug", "info", "warn", "error", "fatal":
		return nil
	}
	return fmt.Errorf("--log-level %q: want debug, info, warn or error", c.LogLevel)
}

// checkAddress accepts HOST:PORT with a numeric port; the host may be empty,
// which is every interface.
func checkAddress(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("want HOST:PORT, such as 127.0.0.1:4150")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q: want a number from 0 to 65535", port)
	}
	return nil
}
