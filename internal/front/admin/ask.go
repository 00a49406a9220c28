package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// askPatience is how long other nodes are waited for.
const askPatience = 2 * time.Second

// question is what one node asks another, as JSON. Which fields count depends on
// Op. New ops and fields may come: a node refuses an op that it does not know.
type question struct {
	Op      string   `json:"op"`
	Topic   string   `json:"topic,omitempty"`
	Channel string   `json:"channel,omitempty"`
	Read    *readAsk `json:"read,omitempty"`
	Peek    *peekAsk `json:"peek,omitempty"`
	Places  []place  `json:"places,omitempty"`
	MaxBody int      `json:"max_body,omitempty"`
}

// The ops.
const (
	opReport    = "report"    // its report, in binary
	opTopic     = "topic"     // where the partitions that it leads stand
	opConsumers = "consumers" // of a channel
	opRead      = "read"      // messages of a partition's log
	opPeek      = "peek"      // places of a channel's messages
	opPlaces    = "places"    // the messages at places
	opHost      = "host"      // what it has of its machine
)

// Answer answers a question of another node of the cluster.
func (f *Front) Answer(ctx context.Context, request []byte) ([]byte, error) {
	e := f.engine.Load()
	if e == nil {
		return nil, fault.New(fault.Exiting, "the node is starting")
	}
	var q question
	if err := json.Unmarshal(request, &q); err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err)
	}
	if q.Op == opReport {
		return e.local(ctx).encode()
	}
	v, err := e.answer(ctx, &q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// answer answers all but reports, here.
func (e *Engine) answer(ctx context.Context, q *question) (any, error) {
	switch {
	case q.Op == opTopic:
		return e.localTopic(ctx, q.Topic)
	case q.Op == opConsumers:
		return e.Consumers(q.Topic, q.Channel), nil
	case q.Op == opRead && q.Read != nil:
		return e.localRead(ctx, q.Topic, q.Read)
	case q.Op == opPeek && q.Peek != nil:
		return e.localPeek(ctx, q.Topic, q.Channel, q.Peek)
	case q.Op == opPlaces:
		return e.localPlaces(ctx, q.Topic, q.Places, q.MaxBody)
	case q.Op == opHost:
		return e.Host(), nil
	}
	return nil, fault.New(fault.Unsupported, "the question %q is not known to this program", q.Op)
}

// ask has another node answer.
func ask[T any](ctx context.Context, e *Engine, id uint64, q *question) (T, error) {
	var out T
	request, err := json.Marshal(q)
	if err != nil {
		return out, err
	}
	reply, err := e.Peers.Ask(ctx, id, request)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(reply, &out); err != nil {
		return out, fmt.Errorf("read the answer of another node: %w", err)
	}
	return out, nil
}

// said is what a node answered.
type said[T any] struct {
	node   string
	answer T
}

// askAll has every node answer, this one first; missing names those that did
// not. Errors of this node are returned.
func askAll[T any](ctx context.Context, e *Engine, q *question, here func() (T, error)) ([]said[T], []Missing, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	others := e.others()
	out := make([]said[T], len(others)+1)
	errs := make([]error, len(others))
	var all sync.WaitGroup
	for i, p := range others {
		all.Go(func() {
			out[i+1].node = p.Name
			out[i+1].answer, errs[i] = ask[T](ctx, e, p.ID, q)
		})
	}
	var err error
	out[0].node = e.Meta.Node().Name
	out[0].answer, err = here()
	all.Wait()
	missing := []Missing{}
	kept := out[:1]
	for i := range errs {
		if errs[i] != nil {
			missing = append(missing, Missing{others[i].Name, errs[i].Error(), elsewhere(errs[i])})
			continue
		}
		kept = append(kept, out[i+1])
	}
	return slices.Clip(kept), missing, err
}

// others lists the nodes that may be asked.
func (e *Engine) others() []Peer {
	if e.Peers == nil {
		return nil
	}
	return e.Peers.Others()
}
