package nsq

import (
	"encoding/hex"

	"github.com/tidings-io/tidings/internal/spool"
)

// SpoolStats is the state of a spool: an edge's, or a node's for topics with ack local.
type SpoolStats struct {
	Origin    string `json:"origin"`        // its name upstream, hexadecimal
	Depth     int64  `json:"depth"`         // messages that are not known to be upstream
	OldestAge int64  `json:"oldest_age_ms"` // of the oldest of them, 0 without one
	Bytes     int64  `json:"bytes"`         // in use on disk
	Limit     int64  `json:"limit_bytes"`   // that Bytes does not exceed
	Forwarded uint64 `json:"forwarded"`     // messages brought upstream since the start
	Refused   uint64 `json:"refused"`       // publishes since the start
	Connected bool   `json:"connected"`     // upstream took what it was given last
	// Error is why a topic is not brought upstream now, of several the one that was
	// tried last; empty: all are.
	Error string `json:"error,omitempty"`
}

// StatsOfSpool reads the state of a spool and its forwarder.
func StatsOfSpool(s *spool.Spool, f *spool.Forwarder) *SpoolStats {
	x, brought, origin := s.Stats(""), f.Stats(), s.Origin()
	out := &SpoolStats{
		Origin: hex.EncodeToString(origin[:]), Depth: x.Depth, OldestAge: x.Oldest.Milliseconds(), Bytes: x.Bytes, Limit: x.Limit,
		Forwarded: brought.Messages, Refused: x.Refused, Connected: brought.Connected,
	}
	if brought.Err != nil {
		out.Error = brought.Err.Error()
	}
	return out
}
