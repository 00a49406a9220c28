package admin

// The answers of the API, as openapi.yaml describes them. Times are unix
// milliseconds, durations milliseconds, rates per second; a nil rate is not
// measured yet.
type (
	// Self is who answers.
	Self struct {
		Node           string    `json:"node"`
		Version        string    `json:"version"`
		NSQVersion     string    `json:"nsq_version"`
		GoVersion      string    `json:"go_version"`
		Platform       string    `json:"platform"`
		StartedAt      int64     `json:"started_at"`
		NowAt          int64     `json:"now_at"`
		Cluster        string    `json:"cluster"`
		Alone          bool      `json:"alone"`
		Stage          string    `json:"stage"`
		ReadOnly       bool      `json:"read_only"`
		Ready          bool      `json:"ready"`
		NotReadyReason string    `json:"not_ready_reason,omitempty"`
		Addresses      Addresses `json:"addresses"`
		Limits         Limits    `json:"limits"`
	}

	// Limits are what a publish must keep to.
	Limits struct {
		MaxMsgBytes int64 `json:"max_msg_bytes"`
		MaxDeferMs  int64 `json:"max_defer_ms"`
	}

	// Addresses are host:port where a node listens; empty where it does not.
	Addresses struct {
		TCP        string `json:"tcp,omitempty"`
		HTTP       string `json:"http,omitempty"`
		HTTPS      string `json:"https,omitempty"`
		Admin      string `json:"admin,omitempty"`
		Cluster    string `json:"cluster,omitempty"`
		LookupTCP  string `json:"lookup_tcp,omitempty"`
		LookupHTTP string `json:"lookup_http,omitempty"`
		Broadcast  string `json:"broadcast,omitempty"`
	}

	// Missing is a node that did not answer.
	Missing struct {
		Node   string `json:"node"`
		Reason string `json:"reason"`

		elsewhere bool // it does not have what was asked for, and that is as it should be
	}

	// Done answers a change.
	Done struct {
		CLI   string `json:"cli"`
		Count int    `json:"count,omitempty"`
		Waits string `json:"waits,omitempty"`
	}

	// ShardsAdded is the answer to adding data shards.
	ShardsAdded struct {
		CLI    string   `json:"cli"`
		Shards []uint32 `json:"shards"`          // the new ones
		Total  int      `json:"total"`           // data shards that there are now
		Waits  string   `json:"waits,omitempty"` // what is not done yet
	}

	// Target is what a finding is about.
	Target struct {
		Topic   string  `json:"topic,omitempty"`
		Channel string  `json:"channel,omitempty"`
		Node    string  `json:"node,omitempty"`
		Shard   *uint32 `json:"shard,omitempty"`
	}

	// Finding is something that is wrong now.
	Finding struct {
		ID       string         `json:"id"`
		Severity string         `json:"severity"`
		Code     string         `json:"code"`
		Text     string         `json:"text"`
		Next     string         `json:"next,omitempty"`
		Target   Target         `json:"target"`
		Values   map[string]any `json:"values"`
		Link     string         `json:"link"`
		SinceAt  int64          `json:"since_at,omitempty"`
	}

	// Overview is the cluster at a glance.
	Overview struct {
		At           int64        `json:"at"`
		Cluster      string       `json:"cluster"`
		Healthy      bool         `json:"healthy"`
		Totals       Totals       `json:"totals"`
		Nodes        []NodeRow    `json:"nodes"`
		Shards       ShardTotals  `json:"shards"`
		Findings     []Finding    `json:"findings"`
		FindingsMore int          `json:"findings_more"`
		Oldest       []ChannelRow `json:"oldest"`
		Backlogs     []ChannelRow `json:"backlogs"`
		Busiest      []TopicRow   `json:"busiest"`
		Missing      []Missing    `json:"missing"`
	}

	// History is how something was in the last minutes, the oldest first.
	History struct {
		At     int64          `json:"at"`
		StepMs int64          `json:"step_ms"`
		Points []HistoryPoint `json:"points"`
	}

	// HistoryPoint is how it was at one moment.
	HistoryPoint struct {
		At          int64    `json:"at"`
		InRate      *float64 `json:"in_rate"`
		OutRate     *float64 `json:"out_rate"`
		Backlog     int64    `json:"backlog"`
		OldestAgeMs int64    `json:"oldest_age_ms"`
	}

	// ShardTotals counts the shards.
	ShardTotals struct {
		Total      int `json:"total"`
		Leaderless int `json:"leaderless"`
		Behind     int `json:"behind"`
	}

	// Totals are sums over all topics and nodes.
	Totals struct {
		Topics        int      `json:"topics"`
		Channels      int      `json:"channels"`
		Consumers     int      `json:"consumers"`
		Connections   int      `json:"connections"`
		InRate        *float64 `json:"in_rate"`
		InBytesRate   *float64 `json:"in_bytes_rate"`
		OutRate       *float64 `json:"out_rate"`
		DeliveredRate *float64 `json:"delivered_rate"`
		RequeueRate   *float64 `json:"requeue_rate"`
		TimeoutRate   *float64 `json:"timeout_rate"`
		Backlog       int64    `json:"backlog"`
		Waiting       int64    `json:"waiting"`
		InFlight      int64    `json:"in_flight"`
		Deferred      int64    `json:"deferred"`
		OldestAgeMs   *int64   `json:"oldest_age_ms"`
		Oldest        *Target  `json:"oldest,omitempty"`
		LogBytes      int64    `json:"log_bytes"`
	}

	// TopicRow is a topic in a list.
	TopicRow struct {
		Name        string   `json:"name"`
		Paused      bool     `json:"paused"`
		Ephemeral   bool     `json:"ephemeral"`
		Partitions  int      `json:"partitions"`
		Channels    int      `json:"channels"`
		Consumers   int      `json:"consumers"`
		Waiting     int64    `json:"waiting"`
		Backlog     int64    `json:"backlog"`
		InFlight    int64    `json:"in_flight"`
		Deferred    int64    `json:"deferred"`
		OldestAgeMs *int64   `json:"oldest_age_ms"`
		InRate      *float64 `json:"in_rate"`
		InBytesRate *float64 `json:"in_bytes_rate"`
		OutRate     *float64 `json:"out_rate"`
		Records     int64    `json:"records_total"`
		Bytes       int64    `json:"bytes_total"`
		LogBytes    int64    `json:"log_bytes"`
	}

	// ChannelRow is a channel in a list.
	ChannelRow struct {
		Topic       string   `json:"topic"`
		Name        string   `json:"name"`
		Paused      bool     `json:"paused"`
		Ephemeral   bool     `json:"ephemeral"`
		Consumers   int      `json:"consumers"`
		Backlog     int64    `json:"backlog"`
		InFlight    int64    `json:"in_flight"`
		Deferred    int64    `json:"deferred"`
		OldestAgeMs *int64   `json:"oldest_age_ms"`
		InRate      *float64 `json:"in_rate"`
		OutRate     *float64 `json:"out_rate"`
		RequeueRate *float64 `json:"requeue_rate"`
		TimeoutRate *float64 `json:"timeout_rate"`
		Records     int64    `json:"records_total"`
		Requeued    int64    `json:"requeued_total"`
		TimedOut    int64    `json:"timed_out_total"`
	}

	// Page is a part of a list.
	Page[T any] struct {
		At      int64     `json:"at"`
		Items   []T       `json:"items"`
		Total   int       `json:"total"`
		Next    string    `json:"next,omitempty"`
		Missing []Missing `json:"missing"`
	}

	// TopicRows is a page of topics as a stream shows it.
	TopicRows struct {
		At      int64               `json:"at"`
		Order   []string            `json:"order"`
		Rows    map[string]TopicRow `json:"rows"`
		Total   int                 `json:"total"`
		Missing []Missing           `json:"missing"`
	}

	// ChannelRows is a page of channels as a stream shows it; they are named
	// TOPIC/CHANNEL.
	ChannelRows struct {
		At      int64                 `json:"at"`
		Order   []string              `json:"order"`
		Rows    map[string]ChannelRow `json:"rows"`
		Total   int                   `json:"total"`
		Missing []Missing             `json:"missing"`
	}

	// TopicBase is one topic.
	TopicBase struct {
		TopicRow
		At           int64  `json:"at"`
		ID           string `json:"id"`
		CreatedAt    int64  `json:"created_at"`
		Ack          string `json:"ack"`
		AckEffective string `json:"ack_effective"`
		Home         string `json:"home,omitempty"`
		// Active is how many of the partitions messages are published to: all, unless
		// their number is being raised.
		Active     int         `json:"active_partitions"`
		Partitions []Partition `json:"partition_list"`
		Missing    []Missing   `json:"missing"`
	}

	// TopicDetail is one topic with its channels.
	TopicDetail struct {
		TopicBase
		ChannelList []ChannelRow `json:"channel_list"`
	}

	// TopicState is TopicDetail as a stream shows it.
	TopicState struct {
		TopicBase
		ChannelRows map[string]ChannelRow `json:"channel_rows"`
	}

	// Partition is one log of a topic.
	Partition struct {
		Partition int32    `json:"partition"`
		Shard     uint32   `json:"shard"`
		Leader    string   `json:"leader"`
		Replicas  []string `json:"replicas"`
		Known     bool     `json:"known"`
		Start     int64    `json:"start_offset"`
		End       int64    `json:"end_offset"`
		HandOver  int64    `json:"hand_over_offset"`
		Records   int64    `json:"records_total"`
		Bytes     int64    `json:"bytes_total"`
		LogBytes  int64    `json:"log_bytes"`
	}

	// ChannelDetail is one channel.
	ChannelDetail struct {
		ChannelRow
		At           int64              `json:"at"`
		ID           string             `json:"id,omitempty"`
		CreatedAt    int64              `json:"created_at,omitempty"`
		TopicPaused  bool               `json:"topic_paused"`
		MaxAttempts  uint16             `json:"max_attempts"`
		DeadLetter   string             `json:"dead_letter,omitempty"`
		DeadLettered int64              `json:"dead_lettered_total"`
		Partitions   []ChannelPartition `json:"partition_list"`
		Missing      []Missing          `json:"missing"`
	}

	// ChannelPartition is where a channel stands on one partition.
	ChannelPartition struct {
		Partition  int32  `json:"partition"`
		Leader     string `json:"leader"`
		Known      bool   `json:"known"`
		Floor      int64  `json:"floor_offset"`
		End        int64  `json:"end_offset"`
		Unfinished int64  `json:"unfinished"`
		Parked     int64  `json:"parked"`
		Ranges     int    `json:"finished_ranges"`
		OldestAt   int64  `json:"oldest_at,omitempty"`
	}

	// Consumer is one of a channel's.
	Consumer struct {
		ID            string `json:"id"`
		Node          string `json:"node"`
		ClientID      string `json:"client_id"`
		Hostname      string `json:"hostname"`
		RemoteAddress string `json:"remote_address"`
		UserAgent     string `json:"user_agent"`
		ConnectedAt   int64  `json:"connected_at"`
		Ready         int64  `json:"ready"`
		InFlight      int64  `json:"in_flight"`
		Delivered     uint64 `json:"delivered_total"`
		Finished      uint64 `json:"finished_total"`
		Requeued      uint64 `json:"requeued_total"`
		TimedOut      uint64 `json:"timed_out_total"`
		SampleRate    int32  `json:"sample_rate,omitempty"`
		TLS           bool   `json:"tls"`
		Compression   string `json:"compression"`
		AuthIdentity  string `json:"auth_identity,omitempty"`
		Region        string `json:"region,omitempty"`
		Zone          string `json:"zone,omitempty"`
	}

	// Message is one message; bytes are base64 in JSON.
	Message struct {
		Partition   int32             `json:"partition"`
		Offset      int64             `json:"offset"`
		ID          string            `json:"id"`
		TimestampAt int64             `json:"timestamp_at"`
		TimestampNs string            `json:"timestamp_ns"`
		Key         []byte            `json:"key,omitempty"`
		Name        []byte            `json:"name,omitempty"`
		Headers     map[string][]byte `json:"headers,omitempty"`
		Size        int               `json:"size_bytes"`
		Body        []byte            `json:"body"`
		Truncated   bool              `json:"truncated"`
		Attempts    uint16            `json:"attempts,omitempty"`
		State       string            `json:"state,omitempty"`
		DueAt       int64             `json:"due_at,omitempty"`
		DeadlineAt  int64             `json:"deadline_at,omitempty"`
		DeliveredAt int64             `json:"delivered_at,omitempty"`
		Consumer    string            `json:"consumer,omitempty"`

		ns int64 // unix ns
	}

	// Gap is offsets that are not there.
	Gap struct {
		Partition int32  `json:"partition"`
		First     int64  `json:"first"`
		Last      int64  `json:"last"`
		Reason    string `json:"reason"`
	}

	// Scanned is how much was read for an answer.
	Scanned struct {
		Records  int   `json:"records"`
		Bytes    int64 `json:"bytes"`
		Complete bool  `json:"complete"`
	}

	// MessagePage is some messages.
	MessagePage struct {
		At      int64     `json:"at"`
		Items   []Message `json:"items"`
		Next    string    `json:"next,omitempty"`
		Prev    string    `json:"prev,omitempty"`
		Gaps    []Gap     `json:"gaps"`
		Scanned Scanned   `json:"scanned"`
		Note    string    `json:"note,omitempty"`
		Missing []Missing `json:"missing"`
	}

	// TailBatch is what a live tail sends.
	TailBatch struct {
		At      int64     `json:"at"`
		Items   []Message `json:"items"`
		LeftOut int64     `json:"left_out"`
		Missing []Missing `json:"missing,omitempty"`
	}

	// NodeRow is a node in a list.
	NodeRow struct {
		Name           string     `json:"name"`
		RaftID         string     `json:"raft_id,omitempty"`
		Self           bool       `json:"self"`
		State          string     `json:"state"`
		Answered       bool       `json:"answered"`
		Ready          *bool      `json:"ready,omitempty"`
		NotReadyReason string     `json:"not_ready_reason,omitempty"`
		SeenMs         *int64     `json:"seen_ms,omitempty"`
		LiveMs         *int64     `json:"live_ms,omitempty"`
		Version        string     `json:"version,omitempty"`
		StartedAt      int64      `json:"started_at,omitempty"`
		Addresses      *Addresses `json:"addresses,omitempty"`
		Leads          int        `json:"leads"`
		Replicas       int        `json:"replicas"`
		InRate         *float64   `json:"in_rate,omitempty"`
		InBytesRate    *float64   `json:"in_bytes_rate,omitempty"`
		DeliveredRate  *float64   `json:"delivered_rate,omitempty"`
		Connections    *int       `json:"connections,omitempty"`
		Consumers      *int       `json:"consumers,omitempty"`
		SyncMs         *float64   `json:"sync_ms,omitempty"`
		DiskFree       *int64     `json:"disk_free_bytes,omitempty"`
		ReserveReached *bool      `json:"disk_reserve_reached,omitempty"`
		Memory         *int64     `json:"memory_bytes,omitempty"`
		Goroutines     *int       `json:"goroutines,omitempty"`
		Spool          *Spool     `json:"spool,omitempty"`
	}

	// Spool is a node's own: what it acknowledged alone, for topics with ack local,
	// and brings to the cluster. A node that was never asked for that has none.
	Spool struct {
		Depth       int64  `json:"depth"`         // messages that are not known to be in the cluster
		OldestAgeMs int64  `json:"oldest_age_ms"` // 0 without one
		Bytes       int64  `json:"bytes"`
		LimitBytes  int64  `json:"limit_bytes"`
		Forwarded   uint64 `json:"forwarded_total"`
		Refused     uint64 `json:"refused_total"` // publishes
		Connected   bool   `json:"connected"`     // the cluster took what it was given last
		Error       string `json:"error,omitempty"`
	}

	// NodeList is all nodes.
	NodeList struct {
		At      int64     `json:"at"`
		Items   []NodeRow `json:"items"`
		Missing []Missing `json:"missing"`
	}

	// NodeDetail is one node.
	NodeDetail struct {
		NodeRow
		At     int64         `json:"at"`
		Log    *LogSync      `json:"log,omitempty"`
		Shards []NodeReplica `json:"shards"`
	}

	// NodeReplica is a replica that a node has.
	NodeReplica struct {
		Shard   uint32 `json:"shard"`
		Leads   bool   `json:"leads"`
		Role    string `json:"role"`
		Applied uint64 `json:"applied"`
		Lag     uint64 `json:"lag"`
	}

	// LogSync is the write-ahead log of a node since its process started.
	LogSync struct {
		LogBytes  int64   `json:"log_bytes"`
		Syncs     uint64  `json:"syncs_total"`
		MeanMs    float64 `json:"sync_mean_ms"`
		P50Ms     float64 `json:"sync_p50_ms"`
		P99Ms     float64 `json:"sync_p99_ms"`
		MaxMs     float64 `json:"sync_max_ms"`
		Recycled  uint64  `json:"segments_recycled_total"`
		CutBytes  int64   `json:"cut_bytes"`
		TailBytes int64   `json:"tail_bytes"`
		Segments  int     `json:"segments"`
		Damage    int64   `json:"damage_total"`
	}

	// NodeState is nodes and shards as a stream shows them.
	NodeState struct {
		At      int64              `json:"at"`
		Nodes   map[string]NodeRow `json:"nodes"`
		Shards  map[string]Shard   `json:"shards"`
		Missing []Missing          `json:"missing"`
	}

	// Shard is one Raft group.
	Shard struct {
		Shard         uint32    `json:"shard"`
		Metadata      bool      `json:"metadata"`
		Leader        string    `json:"leader"`
		Preferred     string    `json:"preferred_leader"`
		Term          uint64    `json:"term"`
		Commit        uint64    `json:"commit"`
		Partitions    int       `json:"partitions"`
		LeaderChanges uint64    `json:"leader_changes"`
		LeaderSinceAt int64     `json:"leader_since_at,omitempty"`
		Replicas      []Replica `json:"replicas"`
	}

	// Replica is one member of a shard.
	Replica struct {
		Node    string   `json:"node"`
		Role    string   `json:"role"`
		Applied uint64   `json:"applied"`
		Lag     uint64   `json:"lag"`
		Live    bool     `json:"live"`
		CatchUp *CatchUp `json:"catch_up,omitempty"`
	}

	// CatchUp is how a replica gets the state of its shard.
	CatchUp struct {
		Stage string `json:"stage"`
		Bytes uint64 `json:"bytes"`
		Total uint64 `json:"total_bytes"`
		Rate  uint64 `json:"bytes_rate"`
	}

	// ShardList is all shards.
	ShardList struct {
		At    int64   `json:"at"`
		Items []Shard `json:"items"`
	}

	// Lookup is where a node is registered, and who is found through it.
	Lookup struct {
		Served    bool       `json:"served"`
		Lookupds  []Lookupd  `json:"lookupds"`
		Producers []Producer `json:"producers"`
		Total     int        `json:"producers_total"`
	}

	// Lookupd is an nsqlookupd that the node registers with.
	Lookupd struct {
		Address   string `json:"address"`
		Connected bool   `json:"connected"`
		Error     string `json:"error,omitempty"`
		Version   string `json:"version,omitempty"`
		Hostname  string `json:"hostname,omitempty"`
	}

	// Producer is a node that lookups name.
	Producer struct {
		Hostname         string   `json:"hostname"`
		BroadcastAddress string   `json:"broadcast_address"`
		TCPPort          int      `json:"tcp_port"`
		HTTPPort         int      `json:"http_port"`
		Version          string   `json:"version"`
		RemoteAddress    string   `json:"remote_address,omitempty"`
		Member           bool     `json:"member"`
		Topics           *int     `json:"topics,omitempty"`
		LastPingAt       int64    `json:"last_ping_at,omitempty"`
		Tombstones       []string `json:"tombstones,omitempty"`
	}

	// Config is the settings of a node.
	Config struct {
		File     string    `json:"file,omitempty"`
		Settings []Setting `json:"settings"`
	}

	// Setting is one of them.
	Setting struct {
		Key     string `json:"key"`
		Flag    string `json:"flag"`
		Env     string `json:"env"`
		Type    string `json:"type"`
		Value   string `json:"value"`
		Default string `json:"default"`
		Origin  string `json:"origin"`
		Secret  bool   `json:"secret,omitempty"`
		Help    string `json:"help"`
	}

	// LogLevel is the level of a node's log.
	LogLevel struct {
		Level string `json:"level"`
	}
)
