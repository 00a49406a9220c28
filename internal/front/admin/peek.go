package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
)

// peekAsk says which messages of a channel are wanted.
type peekAsk struct {
	State string `json:"state"`
	N     int    `json:"n"`
}

// place is where a message of a channel stands, and how it is.
type place struct {
	Partition   int32  `json:"partition"`
	Offset      int64  `json:"offset"`
	Attempts    uint16 `json:"attempts,omitempty"`
	DueNs       int64  `json:"due,omitempty"`
	DeliveredNs int64  `json:"delivered,omitempty"`
	DeadlineNs  int64  `json:"deadline,omitempty"`
	Consumer    string `json:"consumer,omitempty"`

	rank int // among those of its partition
}

var peekStates = map[string]broker.PeekState{"queued": broker.PeekQueued, "in_flight": broker.PeekInFlight, "deferred": broker.PeekDeferred}

// localPeek lists places of what this node delivers.
func (e *Engine) localPeek(ctx context.Context, topic, channel string, a *peekAsk) ([]place, error) {
	state, ok := peekStates[a.State]
	if !ok {
		return nil, fault.New(fault.InvalidRequest, "state %q: want queued, in_flight or deferred", a.State)
	}
	list, err := e.Broker.Peek(ctx, topic, channel, state, a.N)
	if err != nil {
		return nil, err
	}
	out := make([]place, 0, len(list))
	for _, p := range list {
		x := place{Partition: p.Partition, Offset: p.Offset, Attempts: p.Attempts, DueNs: p.DueNs, DeliveredNs: p.DeliveredNs, DeadlineNs: p.DeadlineNs}
		if p.Sub != nil {
			x.Consumer, _ = p.Sub.Client().(string)
		}
		out = append(out, x)
	}
	return out, nil
}

// localPlaces reads the messages at places that this node leads; those that are
// gone are left out.
func (e *Engine) localPlaces(ctx context.Context, topic string, places []place, maxBody int) ([]Message, error) {
	out := []Message{}
	for _, p := range places[:min(len(places), messagesMax)] {
		_, err := e.Broker.ReadOne(ctx, topic, p.Partition, p.Offset, func(s *broker.Stored) {
			out = append(out, messageOf(s, maxBody))
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *Front) peek(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	q := r.URL.Query()
	topic, channel := r.PathValue("topic"), r.PathValue("channel")
	limit, err := intParam(q, "limit", messagesDefault, 1, messagesMax)
	if err != nil {
		return nil, err
	}
	maxBody, err := intParam(q, "max_body", bodyDefault, 0, bodyMax)
	if err != nil {
		return nil, err
	}
	skip, err := intParam(q, "cursor", 0, 0, 1<<20)
	if err != nil {
		return nil, err
	}
	state := q.Get("state")
	if state == "" {
		state = "queued"
	}
	if _, ok := peekStates[state]; !ok {
		return nil, fault.New(fault.InvalidRequest, "state %q: want queued, in_flight or deferred", state)
	}
	if _, _, _, err := f.channelSample(ctx, e, topic, channel); err != nil {
		return nil, err
	}
	places, missing, err := e.places(ctx, topic, channel, &peekAsk{State: state, N: min(skip+limit+1, broker.PeekMax)})
	if err != nil {
		return nil, err
	}
	p := MessagePage{At: time.Now().UnixMilli(), Items: []Message{}, Gaps: []Gap{}, Missing: missing}
	sortPlaces(places, state)
	places = places[min(skip, len(places)):]
	p.Scanned.Complete = len(places) <= limit
	if !p.Scanned.Complete {
		places = places[:limit]
		p.Next = strconv.Itoa(skip + limit)
	} else if skip+len(places) >= broker.PeekMax {
		p.Note = "only the first " + strconv.Itoa(broker.PeekMax) + " can be seen"
	}
	return p.fill(ctx, e, topic, state, places, maxBody)
}

// places asks all nodes.
func (e *Engine) places(ctx context.Context, topic, channel string, a *peekAsk) ([]place, []Missing, error) {
	q := &question{Op: opPeek, Topic: topic, Channel: channel, Peek: a}
	answers, missing, err := askAll(ctx, e, q, func() ([]place, error) {
		list, err := e.localPeek(ctx, topic, channel, a)
		if elsewhere(err) && e.Peers != nil {
			return nil, nil
		}
		return list, err
	})
	if err != nil {
		return nil, nil, err
	}
	var all []place
	ranks := make(map[int32]int)
	for _, a := range answers {
		for _, p := range a.answer {
			p.rank = ranks[p.Partition]
			ranks[p.Partition]++
			all = append(all, p)
		}
	}
	return all, slices.DeleteFunc(missing, func(m Missing) bool { return m.elsewhere }), nil
}

// elsewhere says that another node has what was asked for.
func elsewhere(err error) bool {
	switch fault.CodeOf(err) {
	case fault.NotLeader, fault.ChannelNotFound, fault.TopicNotFound:
		return true
	}
	return false
}

func sortPlaces(places []place, state string) {
	slices.SortStableFunc(places, func(a, b place) int {
		switch state {
		case "in_flight":
			return cmp.Compare(a.DeadlineNs, b.DeadlineNs)
		case "deferred":
			return cmp.Compare(a.DueNs, b.DueNs)
		}
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Partition, b.Partition))
	})
}

// fill reads the messages at the places of a page.
func (p MessagePage) fill(ctx context.Context, e *Engine, topic, state string, places []place, maxBody int) (any, error) {
	m, err := e.knownTopic(topic)
	if err != nil {
		return nil, err
	}
	type at struct {
		partition int32
		offset    int64
	}
	byLeader := make(map[uint64][]place)
	for _, x := range places {
		id, err := e.located(m, x.Partition)
		if err != nil {
			return nil, err
		}
		byLeader[id] = append(byLeader[id], x)
	}
	found := make(map[at]Message)
	for id, list := range byLeader {
		var got []Message
		if id == 0 {
			got, err = e.localPlaces(ctx, topic, list, maxBody)
		} else {
			got, err = ask[[]Message](ctx, e, id, &question{Op: opPlaces, Topic: topic, Places: list, MaxBody: maxBody})
		}
		if err != nil {
			return nil, err
		}
		for i := range got {
			found[at{got[i].Partition, got[i].Offset}] = got[i]
		}
	}
	for _, x := range places {
		msg, ok := found[at{x.Partition, x.Offset}]
		if !ok {
			continue // it was finished meanwhile, or its place is a hole
		}
		msg.State, msg.Attempts, msg.Consumer = state, x.Attempts, x.Consumer
		msg.DueAt, msg.DeadlineAt, msg.DeliveredAt = x.DueNs/1e6, x.DeadlineNs/1e6, x.DeliveredNs/1e6
		p.Items = append(p.Items, msg)
		p.Scanned.Records++
		p.Scanned.Bytes += int64(msg.Size)
	}
	return p, nil
}
