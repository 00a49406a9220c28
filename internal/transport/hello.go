package transport

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Protocol versions: what this program speaks, and the oldest that it still
// understands.
const (
	protocolVersion    = 1
	protocolVersionMin = 1
)

// maxHello bounds the payload of the first frames, in bytes.
const maxHello = 4 << 10

// hello is the first frame in both directions. Fields that a reader does not
// know are skipped, so that later versions can add some.
type hello struct {
	Version    int    `json:"version"`     // newest that the node speaks
	VersionMin int    `json:"version_min"` // oldest
	Cluster    string `json:"cluster"`     // empty while the node has none
	Node       string `json:"node"`
	RaftID     uint64 `json:"raft_id"`
	Boot       uint64 `json:"boot"`      // drawn when the process started
	MaxFrame   int    `json:"max_frame"` // largest payload that the node reads
	// Of the node that dials: the class it wants, and what tells its links apart,
	// so that the new connection of a link replaces a dead old one.
	Class Class  `json:"class"`
	Link  uint64 `json:"link,omitempty"`
}

func encodeHello(h *hello) ([]byte, error) {
	b, err := json.Marshal(h)
	if err == nil && len(b) > maxHello {
		err = fmt.Errorf("it has %d bytes, at most %d are allowed", len(b), maxHello)
	}
	if err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	return b, nil
}

// decodeHello reads the first frame of the other side: its hello, or why it
// refuses ours.
func decodeHello(h header, payload []byte) (*hello, error) {
	switch h.kind {
	case kindHello:
		out := new(hello)
		if err := json.Unmarshal(payload, out); err != nil || out.Class >= classes || out.MaxFrame < maxHello || out.Version < out.VersionMin {
			return nil, refusef(ReasonMalformed, "hello can't be read")
		}
		return out, nil
	case kindRefuse:
		refused := new(RefusedError)
		if err := json.Unmarshal(payload, refused); err != nil {
			return nil, malformed("refusal can't be read")
		}
		refused.ByPeer = true
		return nil, refused
	}
	return nil, refusef(ReasonMalformed, "frame of kind %d instead of hello", h.kind)
}

// encodeRefusal is the payload of kindRefuse.
func encodeRefusal(err error) []byte {
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok {
		refused = refusef(ReasonMalformed, "%v", err)
	}
	b, err := json.Marshal(refused)
	if err != nil || len(b) > maxHello {
		return []byte(`{}`)
	}
	return b
}

// check says what the two nodes can't agree on, whoever dialed: versions,
// cluster, and that the name is that of the certificate.
func (h *hello) check(own *hello, certified string) error {
	switch {
	case h.VersionMin > own.Version || h.Version < own.VersionMin:
		return refusef(ReasonVersion, "node %s speaks protocol versions %d to %d, node %s speaks %d to %d",
			own.Node, own.VersionMin, own.Version, h.Node, h.VersionMin, h.Version)
	case h.Node != certified:
		return refusef(ReasonName, "node says that its name is %s, its certificate says %s", quoted(h.Node), quoted(certified))
	case h.RaftID == 0:
		return refusef(ReasonMalformed, "node %s has no Raft id", h.Node)
	case h.Boot == own.Boot && h.RaftID == own.RaftID:
		return refusef(ReasonSelf, "node %s has dialed itself", own.Node)
	case h.Cluster != "" && own.Cluster != "" && h.Cluster != own.Cluster:
		return refusef(ReasonCluster, "node %s belongs to cluster %s, node %s to cluster %s", own.Node, own.Cluster, h.Node, quoted(h.Cluster))
	}
	return nil
}

// checkClass says whether a link of this class can be between nodes that may
// not have a cluster yet.
func (h *hello) checkClass(own *hello, c Class) error {
	if c.raft() && (h.Cluster == "" || own.Cluster == "") {
		none := own.Node
		if own.Cluster != "" {
			none = h.Node
		}
		return refusef(ReasonForming, "node %s belongs to no cluster yet", none)
	}
	return nil
}

// quoted makes what a stranger sent fit to be shown.
func quoted(s string) string { return fmt.Sprintf("%.80q", s) }
