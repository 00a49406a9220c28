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
	"time"
)

// Bytes is a size in bytes. It is written as a plain number or with a unit:
// "1048576", "64KiB", "64MiB", "1GiB" (powers of 1,024) or "64MB" (of 1,000).
type Bytes int64

// Config holds the settings of one node. The tags are the reference: name (the
// flag; the file key has underscores), default, help, and nsqd where that
// name's default differs under `tidings nsqd`.
type Config struct {
	DataPath       string        `name:"data-path" default:"./tidings-data" nsqd:"" help:"folder for everything that must survive a restart"`
	Node           string        `name:"node" default:"" help:"name of this node in listings (default: the host name)"`
	TCPAddress     string        `name:"tcp-address" default:"127.0.0.1:4150" nsqd:"0.0.0.0:4150" help:"address for NSQ TCP clients"`
	HTTPAddress    string        `name:"http-address" default:"127.0.0.1:4151" nsqd:"0.0.0.0:4151" help:"address for nsqd's HTTP API"`
	AdminAddress   string        `name:"admin-address" default:"127.0.0.1:4180" nsqd:"" help:"address for /metrics and health (empty: not served)"`
	BroadcastAddr  string        `name:"broadcast-address" default:"" help:"host name or address that clients are told (default: the host name)"`
	LogLevel       string        `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat      string        `name:"log-format" default:"auto" help:"text, json, or auto (text on a terminal)"`
	IgnoreNSQDData bool          `name:"ignore-nsqd-data" default:"false" help:"start although the data path holds an nsqd backlog that has not been imported"`
	TopologyRegion string        `name:"topology-region" default:"" help:"region that clients are told"`
	TopologyZone   string        `name:"topology-zone" default:"" help:"zone that clients are told"`
	DrainTimeout   time.Duration `name:"drain-timeout" default:"1s" help:"how long a stopping node waits for consumers to finish what they hold"`

	MaxMsgSize             Bytes         `name:"max-msg-size" default:"1MiB" help:"largest message body"`
	MaxBodySize            Bytes         `name:"max-body-size" default:"5MiB" help:"largest command body"`
	MsgTimeout             time.Duration `name:"msg-timeout" default:"1m" help:"time a consumer has to finish a message, unless it asks for another"`
	MaxMsgTimeout          time.Duration `name:"max-msg-timeout" default:"15m" help:"longest time that a consumer may ask for, TOUCH included"`
	MaxReqTimeout          time.Duration `name:"max-req-timeout" default:"1h" help:"longest delay of a requeue; a longer one is clamped"`
	MaxDeferTimeout        time.Duration `name:"max-defer-timeout" default:"8760h" help:"longest delay of a deferred publish"`
	MaxHeartbeatInterval   time.Duration `name:"max-heartbeat-interval" default:"1m" help:"longest heartbeat interval that a client may ask for"`
	MaxRdyCount            int           `name:"max-rdy-count" default:"2500" help:"largest RDY count"`
	MaxOutputBufferSize    Bytes         `name:"max-output-buffer-size" default:"64KiB" help:"largest output buffer that a client may ask for"`
	MaxOutputBufferTimeout time.Duration `name:"max-output-buffer-timeout" default:"30s" help:"longest output buffer timeout that a client may ask for"`
	MinOutputBufferTimeout time.Duration `name:"min-output-buffer-timeout" default:"25ms" help:"shortest output buffer timeout that a client may ask for"`
	OutputBufferTimeout    time.Duration `name:"output-buffer-timeout" default:"250ms" help:"upper bound for holding back output (idle output is sent at once)"`
	MaxChannelConsumers    int           `name:"max-channel-consumers" default:"0" help:"most consumers on one channel (0: no limit)"`
	MemQueueSize           int           `name:"mem-queue-size" default:"10000" help:"most waiting messages of an #ephemeral topic or channel"`
	RequeueOnDisconnect    bool          `name:"requeue-on-disconnect" default:"true" help:"give a lost consumer's messages to others at once instead of after msg-timeout"`

	WALSegmentSize Bytes         `name:"wal-segment-size" default:"64MiB" help:"size of one write-ahead log segment; three are kept as the disk reserve"`
	SegmentSize    Bytes         `name:"segment-size" default:"64MiB" help:"size at which a partition begins a new segment file"`
	TailSize       Bytes         `name:"tail-size" default:"8MiB" help:"memory for messages that are not yet in segment files, all partitions together"`
	CheckpointSize Bytes         `name:"checkpoint-size" default:"64MiB" help:"write-ahead log bytes after which a shard writes a checkpoint"`
	CheckpointAge  time.Duration `name:"checkpoint-age" default:"1m" help:"longest time between a change and the checkpoint that holds it"`
	DiskReserve    Bytes         `name:"disk-reserve" default:"0" help:"free disk space at which publishing stops (0: from the volume and segment sizes)"`
	DataShards     int           `name:"data-shards" default:"8" help:"Raft groups for data; fixed when the data folder is made"`
	SyncStorage    bool          `name:"sync-storage" default:"false" help:"use Raft's synchronous storage mode (for comparison)"`
	MaxInboxSize   Bytes         `name:"max-inbox-size" default:"32MiB" help:"most publish bytes that wait for one shard; beyond it publishers wait"`
}

// Validate reports the first setting that can't work, naming its flag.
func (c *Config) Validate() error {
	for _, a := range []struct{ name, addr string }{
		{"tcp-address", c.TCPAddress}, {"http-address", c.HTTPAddress}, {"admin-address", c.AdminAddress},
	} {
		if a.addr == "" && a.name == "admin-address" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			return fmt.Errorf("--%s %q: want HOST:PORT: %w", a.name, a.addr, err)
		}
	}
	for _, l := range []struct {
		name     string
		val, min int64
	}{
		{"max-msg-size", int64(c.MaxMsgSize), 1},
		{"max-body-size", int64(c.MaxBodySize), 1},
		{"msg-timeout", int64(c.MsgTimeout), int64(time.Millisecond)},
		{"max-msg-timeout", int64(c.MaxMsgTimeout), int64(time.Millisecond)},
		{"max-rdy-count", int64(c.MaxRdyCount), 1},
		{"wal-segment-size", int64(c.WALSegmentSize), 64 << 10},
		{"segment-size", int64(c.SegmentSize), 64 << 10},
		{"tail-size", int64(c.TailSize), 64 << 10},
		{"checkpoint-size", int64(c.CheckpointSize), 64 << 10},
		{"checkpoint-age", int64(c.CheckpointAge), int64(time.Millisecond)},
		{"data-shards", int64(c.DataShards), 1},
		{"max-inbox-size", int64(c.MaxInboxSize), 64 << 10},
	} {
		if l.val < l.min {
			return fmt.Errorf("--%s: %d is too small, at least %d", l.name, l.val, l.min)
		}
	}
	switch {
	case c.MaxBodySize > 1<<30:
		return errors.New("--max-body-size: at most 1GiB")
	case c.MaxMsgSize > c.MaxBodySize:
		return errors.New("--max-msg-size: larger than --max-body-size")
	case c.MsgTimeout > c.MaxMsgTimeout:
		return errors.New("--msg-timeout: longer than --max-msg-timeout")
	case c.DataShards > 256:
		return errors.New("--data-shards: at most 256")
	}
	switch c.LogFormat {
	case "auto", "text", "json":
	default:
		return fmt.Errorf("--log-format %q: want auto, text or json", c.LogFormat)
	}
	return nil
}
