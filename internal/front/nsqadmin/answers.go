package nsqadmin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func ping(*http.Request, params) (any, error) { return "OK", nil }

// topicList answers the names of all topics, or with inactive=true the topics
// that nobody has, with their channels.
func (f *Front) topicList(r *http.Request, _ params) (any, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad(err.Error())
	}
	u, cancel := f.reach(r)
	defer cancel()
	topics, err := u.topics()
	if err != nil {
		return nil, err
	}
	if q.Get("inactive") != "true" {
		return struct {
			Topics  []string `json:"topics"`
			Message string   `json:"message"`
		}{topics, u.message()}, nil
	}
	warned := u.message()
	inactive, err := u.inactive(topics)
	if err != nil {
		return nil, err
	}
	if warned == "" { // else the same upstreams again
		warned = u.message()
	}
	return struct {
		Topics  map[string][]string `json:"topics"`
		Message string              `json:"message"`
	}{inactive, warned}, nil
}

// topic answers the sum of a topic's numbers, and each node's.
func (f *Front) topic(r *http.Request, p params) (any, error) {
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.topicProducers(p.topic)
	if err != nil {
		return nil, err
	}
	list, err := u.stats(producers, which{topic: p.topic}, f.o.Clock())
	if err != nil {
		return nil, err
	}
	sum := &topicStats{TopicName: p.topic}
	for _, t := range list {
		sum.add(t)
	}
	return struct {
		*topicStats
		Message string `json:"message"`
	}{sum, u.message()}, nil
}

// channel answers the sum of a channel's numbers, each node's, and its clients.
func (f *Front) channel(r *http.Request, p params) (any, error) {
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.topicProducers(p.topic)
	if err != nil {
		return nil, err
	}
	list, err := u.stats(producers, which{p.topic, p.channel, true}, f.o.Clock())
	if err != nil {
		return nil, err
	}
	sum := channelSum(list, p.topic, p.channel)
	if sum == nil {
		return nil, &httpError{http.StatusNotFound, "CHANNEL_NOT_FOUND"}
	}
	slices.SortStableFunc(sum.Clients, byTopology)
	return struct {
		*channelStats
		Message string `json:"message"`
	}{sum, u.message()}, nil
}

// nodeList answers all nsqds.
func (f *Front) nodeList(r *http.Request, _ params) (any, error) {
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.producers()
	if err != nil {
		return nil, err
	}
	return struct {
		Nodes   []*producer `json:"nodes"`
		Message string      `json:"message"`
	}{producers, u.message()}, nil
}

// node answers the numbers of all topics of an nsqd, with their clients.
func (f *Front) node(r *http.Request, p params) (any, error) {
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.producers()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(producers, func(have *producer) bool { return have.http() == p.node })
	if i < 0 {
		return nil, &httpError{http.StatusNotFound, "NODE_NOT_FOUND"}
	}
	list, err := u.stats(producers[i:i+1], which{clients: true}, f.o.Clock())
	if err != nil {
		return nil, err
	}
	var messages, clients int64
	for _, t := range list {
		messages += t.MessageCount
		for _, c := range t.Channels {
			clients += int64(len(c.Clients))
		}
	}
	return struct {
		Node          string        `json:"node"`
		Topics        []*topicStats `json:"topics"`
		TotalMessages int64         `json:"total_messages"`
		TotalClients  int64         `json:"total_clients"`
		Message       string        `json:"message"`
	}{p.node, list, messages, clients, u.message()}, nil
}

// count is how many messages a channel of a node has had.
type count struct {
	Node         string `json:"node"`
	TopicName    string `json:"topic_name"`
	ChannelName  string `json:"channel_name"`
	MessageCount int64  `json:"message_count"`
}

// counter answers how many messages went to every channel.
func (f *Front) counter(r *http.Request, _ params) (any, error) {
	u, cancel := f.reach(r)
	defer cancel()
	producers, err := u.producers()
	if err != nil {
		return nil, err
	}
	list, err := u.stats(producers, which{}, f.o.Clock())
	if err != nil {
		return nil, err
	}
	counts := make(map[string]*count)
	for _, t := range list {
		for _, c := range t.Channels {
			key := strings.Join([]string{c.TopicName, c.ChannelName, c.Node}, ":")
			have := counts[key]
			if have == nil {
				have = &count{Node: c.Node, TopicName: c.TopicName, ChannelName: c.ChannelName}
				counts[key] = have
			}
			have.MessageCount += c.MessageCount
		}
	}
	return struct {
		Stats   map[string]*count `json:"stats"`
		Message string            `json:"message"`
	}{counts, u.message()}, nil
}
