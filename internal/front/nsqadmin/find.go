package nsqadmin

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	aLookupd = "nsqlookupd"
	aNSQD    = "nsqd"
)

// nameList is a list of names: /topics or /channels of an nsqlookupd.
type nameList struct {
	Topics   []string `json:"topics"`
	Channels []string `json:"channels"`
}

// namesOnly is /stats of an nsqd, of which only the names of topics count.
type namesOnly struct {
	Topics []struct {
		Name string `json:"topic_name"`
	} `json:"topics"`
}

func (n namesOnly) names() (names []string) {
	for _, t := range n.Topics {
		names = append(names, t.Name)
	}
	return names
}

func sortedOnce(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// topics lists the names of all topics; nil if there are none.
func (u *fanout) topics() (names []string, err error) {
	if len(u.lookupds) == 0 {
		got, err := each(u, aNSQD, u.nsqds, func(addr string) (a namesOnly, err error) {
			return a, u.get(addr, "/stats", brief(nil), &a)
		})
		for _, a := range got {
			names = append(names, a.T.names()...)
		}
		return sortedOnce(names), err
	}
	got, err := each(u, aLookupd, u.lookupds, func(addr string) (a nameList, err error) {
		return a, u.get(addr, "/topics", nil, &a)
	})
	for _, a := range got {
		names = append(names, a.T.Topics...)
	}
	return sortedOnce(names), err
}

// brief are the parameters of GET /stats without clients.
func brief(q url.Values) url.Values {
	out := url.Values{"format": {"json"}, "include_clients": {"false"}}
	maps.Copy(out, q)
	return out
}

// inactive lists the topics that nobody is looked up for, each with its
// channels. Who has which topic is asked once for all of them.
func (u *fanout) inactive(topics []string) (map[string][]string, error) {
	out := make(map[string][]string)
	if len(u.lookupds) == 0 {
		return out, nil
	}
	nodes, err := u.producers()
	if err != nil {
		return nil, err
	}
	active := make(map[string]bool)
	for _, p := range nodes {
		for _, t := range p.Topics {
			active[t.Topic] = active[t.Topic] || !t.Tombstoned
		}
	}
	topics = slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return active[t] })
	var mu sync.Mutex
	_, _ = gather(topics, func(topic string) (struct{}, error) {
		var channels []string
		for _, addr := range u.lookupds {
			var a nameList
			if u.get(addr, "/channels", url.Values{"topic": {topic}}, &a) == nil { // else /nodes has told of it
				channels = append(channels, a.Channels...)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		out[topic] = sortedOnce(channels)
		return struct{}{}, nil
	})
	return out, nil
}

// producerList is /nodes or /lookup of an nsqlookupd.
type producerList struct {
	Producers []*producer `json:"producers"`
}

// producers lists all nsqds.
func (u *fanout) producers() ([]*producer, error) {
	if len(u.lookupds) == 0 {
		return u.named()
	}
	got, err := each(u, aLookupd, u.lookupds, func(addr string) (a producerList, err error) {
		return a, u.get(addr, "/nodes", nil, &a)
	})
	if err != nil {
		return nil, err
	}
	var list []*producer
	known := make(map[string]*producer)
	for _, a := range got {
		for _, p := range a.T.Producers {
			if p == nil {
				continue
			}
			first := known[p.tcp()]
			if first == nil {
				slices.SortFunc(p.Topics, func(a, b producerTopic) int { return strings.Compare(a.Topic, b.Topic) })
				list, known[p.tcp()], first = append(list, p), p, p
			}
			remote := p.RemoteAddress
			if remote == "" {
				remote = "N/A"
			}
			first.RemoteAddresses = append(first.RemoteAddresses, a.addr+"/"+remote)
		}
	}
	markOld(list)
	slices.SortFunc(list, byHost)
	return list, nil
}

// named lists the nsqds that are named by address.
func (u *fanout) named() ([]*producer, error) {
	got, err := each(u, aNSQD, u.nsqds, func(addr string) (*producer, error) {
		p, err := u.info(addr)
		if err != nil {
			return nil, err
		}
		var a namesOnly
		if err := u.get(addr, "/stats", brief(nil), &a); err != nil {
			return nil, err
		}
		for _, t := range a.names() {
			p.Topics = append(p.Topics, producerTopic{Topic: t})
		}
		return p, nil
	})
	return values(got), err
}

func values[T any](got []answer[T]) (list []T) {
	for _, a := range got {
		list = append(list, a.T)
	}
	return list
}

// info asks an nsqd who it is.
func (u *fanout) info(addr string) (*producer, error) {
	p := &producer{}
	if err := u.get(addr, "/info", nil, p); err != nil {
		return nil, err
	}
	p.Topics, p.RemoteAddress = nil, ""
	if p.BroadcastAddress == "" || p.HTTPPort <= 0 { // an old nsqd, or one on a unix socket
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		p.BroadcastAddress = host
		if p.HTTPPort, err = strconv.Atoi(port); err != nil {
			return nil, err
		}
	}
	if p.Hostname == "" {
		p.Hostname = p.BroadcastAddress
	}
	return p, nil
}

// topicProducers lists the nsqds that have a topic.
func (u *fanout) topicProducers(topic string) (list []*producer, err error) {
	q := url.Values{"topic": {topic}}
	if len(u.lookupds) == 0 {
		return u.namedWith(topic, q)
	}
	got, err := each(u, aLookupd, u.lookupds, func(addr string) (a producerList, err error) {
		return a, u.get(addr, "/lookup", q, &a)
	})
	known := make(map[string]bool)
	for _, a := range got {
		for _, p := range a.T.Producers {
			if p != nil && !known[p.http()] {
				list, known[p.http()] = append(list, p), true
			}
		}
	}
	return list, err
}

// namedWith lists those of the nsqds that are named by address that have a
// topic.
func (u *fanout) namedWith(topic string, q url.Values) ([]*producer, error) {
	got, err := each(u, aNSQD, u.nsqds, func(addr string) (*producer, error) {
		var a namesOnly
		if err := u.get(addr, "/stats", brief(q), &a); err != nil || !slices.Contains(a.names(), topic) {
			return nil, err
		}
		return u.info(addr)
	})
	return slices.DeleteFunc(values(got), func(p *producer) bool { return p == nil }), err
}

// which are the statistics that are wanted: of all topics, of one, or of one
// channel of it.
type which struct {
	topic, channel string
	clients        bool
}

func (w which) query() url.Values {
	q := url.Values{"format": {"json"}}
	if w.topic != "" {
		q.Set("topic", w.topic)
	}
	if w.channel != "" {
		q.Set("channel", w.channel)
	}
	if !w.clients {
		q.Set("include_clients", "false")
	}
	return q
}

// stats asks producers for their numbers, sorted by node.
func (u *fanout) stats(producers []*producer, w which, now time.Time) (list []*topicStats, err error) {
	by := make(map[string]*producer, len(producers))
	for _, p := range producers {
		by[p.http()] = p
	}
	got, err := each(u, aNSQD, addresses(producers), func(addr string) (a statsAnswer, err error) {
		return a, u.get(addr, "/stats", w.query(), &a)
	})
	for _, a := range got {
		for _, t := range a.T.Topics {
			if w.topic == "" || t.TopicName == w.topic {
				t.of(by[a.addr], now)
				list = append(list, t)
			}
		}
	}
	sortStats(list)
	return list, err
}

// channelSum adds up a channel of a topic; nil if nobody has it.
func channelSum(list []*topicStats, topic, channel string) *channelStats {
	var sum *channelStats
	for _, t := range list {
		for _, c := range t.Channels {
			if c.ChannelName != channel {
				continue
			}
			if sum == nil {
				sum = &channelStats{TopicName: topic, ChannelName: channel}
			}
			sum.add(c)
		}
	}
	return sum
}
