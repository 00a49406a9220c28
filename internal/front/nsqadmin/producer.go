package nsqadmin

import (
	"cmp"
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
)

// producer is an nsqd as answers name it.
type producer struct {
	RemoteAddresses  []string        `json:"remote_addresses"`
	RemoteAddress    string          `json:"remote_address"`
	Hostname         string          `json:"hostname"`
	BroadcastAddress string          `json:"broadcast_address"`
	TCPPort          int             `json:"tcp_port"`
	HTTPPort         int             `json:"http_port"`
	Version          string          `json:"version"`
	TopologyZone     string          `json:"topology_zone,omitempty"`
	TopologyRegion   string          `json:"topology_region,omitempty"`
	Topics           []producerTopic `json:"topics"`
	OutOfDate        bool            `json:"out_of_date"`
}

type producerTopic struct {
	Topic      string `json:"topic"`
	Tombstoned bool   `json:"tombstoned"`
}

// registered is a producer as nsqlookupd names it, and as GET /info of an nsqd
// does, without topics.
type registered struct {
	RemoteAddress    string   `json:"remote_address"`
	Hostname         string   `json:"hostname"`
	BroadcastAddress string   `json:"broadcast_address"`
	TCPPort          int      `json:"tcp_port"`
	HTTPPort         int      `json:"http_port"`
	Version          string   `json:"version"`
	Topics           []string `json:"topics"`
	Tombstones       []bool   `json:"tombstones"`
	TopologyZone     string   `json:"topology_zone"`
	TopologyRegion   string   `json:"topology_region"`
}

// UnmarshalJSON reads a producer as nsqlookupd and nsqd name it.
func (p *producer) UnmarshalJSON(text []byte) error {
	var r registered
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	*p = producer{
		RemoteAddress: r.RemoteAddress, Hostname: r.Hostname, BroadcastAddress: r.BroadcastAddress,
		TCPPort: r.TCPPort, HTTPPort: r.HTTPPort, Version: r.Version, TopologyZone: r.TopologyZone, TopologyRegion: r.TopologyRegion,
	}
	for i, t := range r.Topics {
		p.Topics = append(p.Topics, producerTopic{Topic: t, Tombstoned: i < len(r.Tombstones) && r.Tombstones[i]})
	}
	return nil
}

// tcp and http are where the producer is reached, HOST:PORT.
func (p *producer) tcp() string { return net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.TCPPort)) }

func (p *producer) http() string {
	return net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.HTTPPort))
}

// addresses are where producers take HTTP requests.
func addresses(list []*producer) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.http()
	}
	return out
}

// byHost sorts producers for an answer.
func byHost(a, b *producer) int {
	return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.tcp(), b.tcp()))
}

// markOld marks the producers whose version is not the newest of them.
func markOld(list []*producer) {
	if len(list) == 0 {
		return
	}
	newest := slices.MaxFunc(list, func(a, b *producer) int { return compareVersions(a.Version, b.Version) })
	for _, p := range list {
		p.OutOfDate = compareVersions(p.Version, newest.Version) < 0
	}
}

// compareVersions compares semantic versions; what is none is the oldest.
func compareVersions(a, b string) int {
	x, y := parseVersion(a), parseVersion(b)
	if c := slices.Compare(x.numbers[:], y.numbers[:]); c != 0 {
		return c
	}
	switch {
	case x.pre == nil && y.pre == nil:
		return 0
	case x.pre == nil:
		return 1 // a release is newer than what came before it
	case y.pre == nil:
		return -1
	}
	return slices.CompareFunc(x.pre, y.pre, comparePre)
}

type semver struct {
	numbers [3]uint64
	pre     []string // nil: a release
}

func parseVersion(text string) (v semver) {
	text, _, _ = strings.Cut(text, "+")
	core, pre, isPre := strings.Cut(text, "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(v.numbers) {
		return semver{}
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return semver{}
		}
		v.numbers[i] = n
	}
	if isPre {
		v.pre = strings.Split(pre, ".")
	}
	return v
}

// comparePre compares one part of what stands behind the dash: numbers are
// older than words.
func comparePre(a, b string) int {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	switch {
	case errX == nil && errY == nil:
		return cmp.Compare(x, y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return cmp.Compare(a, b)
}
