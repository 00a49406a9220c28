package nsq

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
)

// told are other nodes that answer what they are given, by Raft id.
type told map[uint64]func() (nodeStats, error)

func (t told) Others() (out []Peer) {
	for id := range t {
		out = append(out, Peer{ID: id, Name: string(rune('a' + id))})
	}
	return out
}

func (t told) Ask(_ context.Context, id uint64, _ []byte) ([]byte, error) {
	n, err := t[id]()
	if err != nil {
		return nil, err
	}
	return json.Marshal(n)
}

func node(depth int64, led ...broker.Led) func() (nodeStats, error) {
	return func() (nodeStats, error) {
		return nodeStats{Led: led, Stats: statsJSON{Health: "OK", Topics: []topicJSON{{
			Name: "t", Depth: depth, Channels: []channelJSON{{Name: "c", Depth: depth, Clients: []clientJSON{}}},
		}}}}, nil
	}
}

// What two nodes tell of one shard is never added up, and what nobody told of is named.
func TestTotalsWhileLeadersMove(t *testing.T) {
	looks := 0
	moving := func() (nodeStats, error) { // leads at the second look
		if looks++; looks == 1 {
			return node(0)()
		}
		return node(7, broker.Led{Shard: 2, Term: 5})()
	}
	dead := func() (nodeStats, error) { return nodeStats{}, errors.New("it is dead") }
	for _, test := range []struct {
		name    string
		others  told
		depth   int64
		nodes   int
		missing []missingJSON
	}{
		{"in order", told{1: node(3, broker.Led{Shard: 1, Term: 4}), 2: node(7, broker.Led{Shard: 2, Term: 5})}, 10, 3, nil},
		{"moves", told{1: node(3, broker.Led{Shard: 1, Term: 4}), 2: moving}, 10, 3, nil},
		{
			"two lead",
			told{1: node(3, broker.Led{Shard: 1, Term: 4}, broker.Led{Shard: 2, Term: 4}), 2: node(7, broker.Led{Shard: 2, Term: 5})},
			7, 2,
			[]missingJSON{{Node: "b"}, {Shard: 2}, {Shard: 1}},
		},
		{"dead", told{1: node(3, broker.Led{Shard: 1, Term: 4}), 2: dead}, 3, 2, []missingJSON{{Node: "c"}, {Shard: 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newFakeBroker()
			b.shards = []uint32{1, 2}
			f := New(b, Options{NodeName: "a", Peers: test.others, StartTime: time.Now()})
			s, err := f.clusterStats(t.Context(), &statsQuestion{Clients: true})
			if err != nil || len(s.Topics) != 1 || s.Topics[0].Depth != test.depth || s.Topics[0].Channels[0].Depth != test.depth || len(s.Nodes) != test.nodes {
				t.Fatalf("%v: %+v", err, s)
			}
			if len(s.Missing) != len(test.missing) {
				t.Fatalf("missing: %+v", s.Missing)
			}
			for i, m := range s.Missing {
				if m.Reason == "" || m.Node != test.missing[i].Node || m.Shard != test.missing[i].Shard {
					t.Errorf("missing: %+v", s.Missing)
				}
			}
		})
	}
}
