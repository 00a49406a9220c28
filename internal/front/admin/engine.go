package admin

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// Engine is what the front shows once the node has it.
type Engine struct {
	Broker *broker.Broker
	Meta   *meta.Machine
	Peers  Peers // nil: the node is alone
	// Figures are those of this node that no other part knows.
	Figures func() NodeFigures
	// Host is what this node has of its machine.
	Host func() HostFigures
	// ConsumerCounts and Consumers tell of the consumers that are connected to
	// this node; Consumers without ID and Node.
	ConsumerCounts func() map[ChannelName]int
	Consumers      func(topic, channel string) []Consumer
	Lookup         func() Lookup
	// LeaderChanges is how often the leader of a shard has changed in the sight
	// of this node, and when last, unix ms; 0: never.
	LeaderChanges func(shard uint32) (n uint64, lastAt int64)
	DefaultAck    string // of topics that say nothing: quorum or leader
	MaxMsgSize    int64  // bytes
	MaxBodySize   int64  // bytes of a publish
	MaxDeferMs    int64
	// Recovered says that the node is as far as it was when it ended. Before, it
	// does not know all topics. nil: it is.
	Recovered func() bool
}

// missing is err, unless it says that something is not there on a node that does
// not know that yet.
func (e *Engine) missing(err error) error {
	switch fault.CodeOf(err) {
	case fault.TopicNotFound, fault.ChannelNotFound:
		if e.Recovered != nil && !e.Recovered() {
			return errStarting
		}
	}
	return err
}

// ChannelName names a channel of a topic.
type ChannelName struct{ Topic, Channel string }

// Peers are the other members of the cluster.
type Peers interface {
	// Others lists those that may live.
	Others() []Peer
	// Leader is the Raft id of a shard's leader, 0 when none is known, and
	// whether it is this node.
	Leader(shard uint32) (id uint64, self bool)
	// Ask has another node answer a question: its Front.Answer. ctx bounds it.
	Ask(ctx context.Context, id uint64, question []byte) ([]byte, error)
}

// Peer is another member.
type Peer struct {
	ID   uint64 // Raft id
	Name string
}

// NodeFigures are a node's own.
type NodeFigures struct {
	Name           string    `json:"name"`
	Version        string    `json:"version"`
	StartedAt      int64     `json:"started_at"` // unix ms
	Ready          bool      `json:"ready"`
	NotReadyReason string    `json:"reason,omitempty"`
	Addresses      Addresses `json:"addresses"`
	Connections    int       `json:"connections"`
	Delivered      uint64    `json:"delivered"`
	SyncMs         float64   `json:"sync_ms"`
	DiskFree       int64     `json:"disk_free"`
	DiskReserve    int64     `json:"disk_reserve"` // bytes
	ReserveReached bool      `json:"reserve_reached"`
	Memory         int64     `json:"memory"`
	Goroutines     int       `json:"goroutines"`
	Log            LogSync   `json:"log"`
	// DamageStays: nobody mends what is damaged.
	DamageStays    bool `json:"damage_stays,omitempty"`
	RepairsPending int  `json:"repairs_pending,omitempty"`
	RepairsLost    int  `json:"repairs_lost,omitempty"`
	// Spool is nil while there is none.
	Spool *Spool `json:"spool,omitempty"`
}
