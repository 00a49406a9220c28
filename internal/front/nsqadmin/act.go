package nsqadmin

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/tidings-io/tidings/internal/broker"
)

// done is the answer to an action.
type done struct {
	Message string `json:"message"`
}

// body decodes the request's.
func body(r *http.Request, to any) error {
	err := json.NewDecoder(r.Body).Decode(to)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &httpError{http.StatusRequestEntityTooLarge, "BODY_TOO_BIG"}
	}
	return err
}

// badBody is the error of a body: what is wrong with it, or the code.
func badBody(err error, code string) error {
	if _, told := errors.AsType[*httpError](err); told {
		return err
	}
	return bad(cmp.Or(code, err.Error()))
}

func query(topic, channel string) url.Values {
	q := url.Values{"topic": {topic}}
	if channel != "" {
		q.Set("channel", channel)
	}
	return q
}

// createTopic makes a topic, and a channel if one is named. An nsqlookupd only
// takes note of a topic, ours makes it; nsqds that are named by address have to
// be told themselves.
func (f *Front) createTopic(r *http.Request, _ params) (any, error) {
	var want struct {
		Topic   string `json:"topic"`
		Channel string `json:"channel"`
	}
	if err := body(r, &want); err != nil {
		return nil, badBody(err, "")
	}
	if !broker.ValidTopic(want.Topic) {
		return nil, bad("INVALID_TOPIC")
	}
	if want.Channel != "" && !broker.ValidChannel(want.Channel) {
		return nil, bad("INVALID_CHANNEL")
	}
	u, cancel := f.reach(r)
	defer cancel()
	to := u.lookupds
	if len(to) == 0 {
		to = u.nsqds
	}
	u.post(to, "/topic/create", query(want.Topic, ""))
	if want.Channel != "" {
		u.post(to, "/channel/create", query(want.Topic, want.Channel))
	}
	if want.Channel != "" && len(u.lookupds) > 0 {
		producers, err := u.topicProducers(want.Topic)
		if err != nil {
			return nil, err
		}
		u.post(addresses(producers), "/channel/create", query(want.Topic, want.Channel))
	}
	f.tell(r, notice{Action: "create_topic", Topic: want.Topic})
	if want.Channel != "" {
		f.tell(r, notice{Action: "create_channel", Topic: want.Topic, Channel: want.Channel})
	}
	return done{u.message()}, nil
}

// deletion removes a topic, or a channel of it, everywhere.
func (f *Front) deletion(r *http.Request, p params) (any, error) {
	path, action := "/topic/delete", "delete_topic"
	if p.channel != "" {
		path, action = "/channel/delete", "delete_channel"
	}
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.topicProducers(p.topic) // before the nsqlookupds forget them
	if err != nil {
		return nil, err
	}
	q := query(p.topic, p.channel)
	u.post(u.lookupds, path, q)
	u.post(addresses(producers), path, q)
	f.tell(r, notice{Action: action, Topic: p.topic, Channel: p.channel})
	return done{u.message()}, nil
}

// action pauses, unpauses or empties a topic, or a channel of it.
func (f *Front) action(r *http.Request, p params) (any, error) {
	var want struct {
		Action string `json:"action"`
	}
	if err := body(r, &want); err != nil {
		return nil, badBody(err, "")
	}
	switch want.Action {
	case "pause", "unpause", "empty":
	default:
		return nil, bad("INVALID_ACTION")
	}
	kind := "topic"
	if p.channel != "" {
		kind = "channel"
	}
	f.tell(r, notice{Action: want.Action + "_" + kind, Topic: p.topic, Channel: p.channel})
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.topicProducers(p.topic)
	if err != nil {
		return nil, err
	}
	u.post(addresses(producers), "/"+kind+"/"+want.Action, query(p.topic, p.channel))
	return done{u.message()}, nil
}

// tombstoneNode removes one nsqd's share of a topic: a tombstone hides it from
// lookups, and the topic is deleted there. A node of ours has no share of its
// own: it is told that its share is meant, and keeps what is all nodes' data.
func (f *Front) tombstoneNode(r *http.Request, p params) (any, error) {
	var want struct {
		Topic string `json:"topic"`
	}
	if err := body(r, &want); err != nil {
		return nil, badBody(err, "INVALID_BODY")
	}
	if !broker.ValidTopic(want.Topic) {
		return nil, bad("INVALID_TOPIC")
	}
	u, cancel := f.reach(r)
	defer cancel()
	q := query(want.Topic, "")
	if len(u.lookupds) == 0 && u.tombstone != nil {
		u.tombstone(u.ctx, want.Topic, p.node)
	}
	u.post(u.lookupds, "/topic/tombstone", url.Values{"topic": {want.Topic}, "node": {p.node}})
	if _, err := each(u, aNSQD, []string{p.node}, u.info); err != nil { // is it one?
		return nil, err
	}
	q.Set("share", "node")
	u.post([]string{p.node}, "/topic/delete", q)
	f.tell(r, notice{Action: "tombstone_topic_producer", Topic: want.Topic, Node: p.node})
	return done{u.message()}, nil
}
