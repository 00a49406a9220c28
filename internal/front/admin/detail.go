package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// channelsOfTopic bounds the channels in the answer about a topic.
const channelsOfTopic = 200

// partFigures is what a leader tells of a partition.
type partFigures struct {
	Partition int32         `json:"partition"`
	Start     int64         `json:"start"`
	End       int64         `json:"end"`
	HandOver  int64         `json:"hand_over"`
	Records   int64         `json:"records"`
	Bytes     int64         `json:"bytes"`
	LogBytes  int64         `json:"log_bytes"`
	Channels  []partChannel `json:"channels"`
}

// partChannel is where a channel stands on it.
type partChannel struct {
	ID         uint64 `json:"id"`
	Floor      int64  `json:"floor"`
	Limit      int64  `json:"limit"`
	Unfinished int64  `json:"unfinished"`
	Parked     int64  `json:"parked"`
	Ranges     int    `json:"ranges"`
	// Dead is the channel's dead letters as this node counts them, over all
	// partitions that it leads: told with the first of them.
	Dead int64 `json:"dead,omitempty"`
}

// localTopic tells where the partitions stand that this node leads.
func (e *Engine) localTopic(ctx context.Context, topic string) ([]partFigures, error) {
	all, err := e.Broker.Figures(ctx, broker.Filter{Topic: topic})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	dead := make(map[uint64]int64)
	for i := range all[0].Channels {
		dead[all[0].Channels[i].ID] = all[0].Channels[i].DeadLetterCount
	}
	out := []partFigures{}
	for i := range all[0].Parts {
		p := &all[0].Parts[i]
		f := partFigures{
			Partition: p.Partition, Start: p.Start, End: p.End, HandOver: p.HandOver,
			Records: p.MessageCount, Bytes: p.MessageBytes, LogBytes: p.LogBytes,
		}
		for _, c := range p.Channels {
			f.Channels = append(f.Channels, partChannel{ID: c.ID, Floor: c.Floor, Limit: c.Limit, Unfinished: c.Backlog, Parked: c.Parked, Ranges: c.Ranges, Dead: dead[c.ID]})
			delete(dead, c.ID)
		}
		out = append(out, f)
	}
	return out, nil
}

// parts asks all nodes where the partitions of a topic stand.
func (e *Engine) parts(ctx context.Context, topic string) (map[int32]partFigures, []Missing, error) {
	answers, missing, err := askAll(ctx, e, &question{Op: opTopic, Topic: topic}, func() ([]partFigures, error) { return e.localTopic(ctx, topic) })
	if err != nil {
		return nil, nil, err
	}
	out := make(map[int32]partFigures)
	for _, a := range answers {
		for _, p := range a.answer {
			if known, twice := out[p.Partition]; !twice || p.End > known.End {
				out[p.Partition] = p
			}
		}
	}
	return out, missing, nil
}

// topicSample is a sample that knows the topic.
func (f *Front) topicSample(ctx context.Context, e *Engine, topic string) (*sample, *topicSum, error) {
	for _, age := range []time.Duration{samplePeriod, 0} {
		m, ok := e.Meta.View().Topic(topic)
		if !ok || m.Deleting {
			return nil, nil, topicNotFound(topic)
		}
		x, err := f.sampler.get(ctx, e, age)
		if err != nil {
			return nil, nil, err
		}
		if t := x.byName[topic]; t != nil && t.meta.ID == m.ID {
			return x, t, nil
		}
	}
	return nil, nil, topicNotFound(topic)
}

func topicNotFound(topic string) error {
	return fault.New(fault.TopicNotFound, "topic %s not found", topic)
}

func (f *Front) getTopic(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	x, t, err := f.topicSample(ctx, e, r.PathValue("topic"))
	if err != nil {
		return nil, err
	}
	parts, missing, err := e.parts(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	d := TopicDetail{TopicBase: x.topicBase(t, parts, missing), ChannelList: t.channels}
	if len(d.ChannelList) > channelsOfTopic {
		d.ChannelList = d.ChannelList[:channelsOfTopic]
	}
	return d, nil
}

// topicBase is a topic with its partitions. Settings and pause are as metadata
// knows them now.
func (x *sample) topicBase(t *topicSum, parts map[int32]partFigures, missing []Missing) TopicBase {
	m := t.meta
	b := TopicBase{
		TopicRow: t.TopicRow, At: x.at.UnixMilli(), ID: hexID(m.ID), CreatedAt: m.CreatedNs / 1e6, Ack: ackText(m.Ack),
		Active: m.Active, Partitions: make([]Partition, 0, len(m.Partitions)), Missing: missing,
	}
	b.AckEffective = b.Ack
	switch {
	case m.Ephemeral():
		b.AckEffective, b.Home = "memory", x.home(m)
	case m.Ack == meta.AckDefault:
		b.AckEffective = x.defaultAck
	}
	leaders := x.leaders()
	for i, shard := range m.Partitions {
		s, _ := x.view.Shard(shard)
		p := Partition{Partition: int32(i), Shard: shard, Leader: leaders[shard], Replicas: []string{}}
		for _, id := range append(append([]uint64{}, s.Voters...), s.Learners...) {
			if n, ok := x.view.Node(id); ok {
				p.Replicas = append(p.Replicas, n.Name)
			}
		}
		if f, ok := parts[p.Partition]; ok {
			p.Known, p.Start, p.End, p.HandOver, p.Records, p.Bytes, p.LogBytes = true, f.Start, f.End, f.HandOver, f.Records, f.Bytes, f.LogBytes
		}
		b.Partitions = append(b.Partitions, p)
	}
	return b
}

// home is the node that an ephemeral topic lives on.
func (x *sample) home(m *meta.Topic) string {
	for _, n := range x.view.Nodes {
		if n.Boot == m.Boot && n.Boot != 0 {
			return n.Name
		}
	}
	return ""
}

func hexID(id uint64) string { return fmt.Sprintf("%016x", id) }

func ackText(a meta.Ack) string {
	switch a {
	case meta.AckQuorum:
		return "quorum"
	case meta.AckLeader:
		return "leader"
	case meta.AckLocal:
		return "local"
	}
	return "default"
}

// channelSample is a sample that knows the channel.
func (f *Front) channelSample(ctx context.Context, e *Engine, topic, channel string) (*sample, *topicSum, *ChannelRow, error) {
	for _, fresh := range []bool{false, true} {
		if fresh {
			f.sampler.changed()
		}
		x, t, err := f.topicSample(ctx, e, topic)
		if err != nil {
			return nil, nil, nil, err
		}
		for i := range t.channels {
			if t.channels[i].Name == channel && !gone(e, topic, channel, &t.channels[i]) {
				return x, t, &t.channels[i], nil
			}
		}
	}
	return nil, nil, nil, fault.New(fault.ChannelNotFound, "channel %s of topic %s not found", channel, topic)
}

// gone says that metadata has deleted a durable channel since the sample.
func gone(e *Engine, topic, channel string, row *ChannelRow) bool {
	if row.Ephemeral {
		return false
	}
	m, ok := e.Meta.View().Topic(topic)
	if !ok {
		return true
	}
	c, ok := m.Channel(channel)
	return !ok || c.Deleting
}

func (f *Front) getChannel(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	topic, channel := r.PathValue("topic"), r.PathValue("channel")
	x, t, row, err := f.channelSample(ctx, e, topic, channel)
	if err != nil {
		return nil, err
	}
	parts, missing, err := e.parts(ctx, topic)
	if err != nil {
		return nil, err
	}
	return x.channelDetail(t, row, parts, missing), nil
}

func (x *sample) channelDetail(t *topicSum, row *ChannelRow, parts map[int32]partFigures, missing []Missing) ChannelDetail {
	d := ChannelDetail{ChannelRow: *row, At: x.at.UnixMilli(), TopicPaused: t.Paused, Partitions: []ChannelPartition{}, Missing: missing}
	m, ok := t.meta.Channel(row.Name)
	if ok {
		d.ID, d.CreatedAt = hexID(m.ID), m.CreatedNs/1e6
		d.MaxAttempts, d.DeadLetter = m.MaxAttempts, m.DeadLetter
	}
	leaders := x.leaders()
	for i, shard := range t.meta.Partitions {
		p := ChannelPartition{Partition: int32(i), Leader: leaders[shard]}
		if f, there := parts[p.Partition]; there && ok {
			for _, c := range f.Channels {
				if c.ID == m.ID {
					p.Known, p.Floor, p.End, p.Unfinished, p.Parked, p.Ranges = true, c.Floor, c.Limit, c.Unfinished, c.Parked, c.Ranges
					d.DeadLettered += c.Dead
				}
			}
		}
		d.Partitions = append(d.Partitions, p)
	}
	return d
}

func (f *Front) listConsumers(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	l, err := listingOf(r.URL.Query(), consumerSorts, nil, pageMax)
	if err != nil {
		return nil, err
	}
	topic, channel := r.PathValue("topic"), r.PathValue("channel")
	if _, _, _, err := f.channelSample(ctx, e, topic, channel); err != nil {
		return nil, err
	}
	q := &question{Op: opConsumers, Topic: topic, Channel: channel}
	answers, missing, err := askAll(ctx, e, q, func() ([]Consumer, error) { return e.Consumers(topic, channel), nil })
	if err != nil {
		return nil, err
	}
	var all []Consumer
	for _, a := range answers {
		for _, c := range a.answer {
			c.Node = a.node
			c.ID = fmt.Sprintf("%s/%s/%d", a.node, c.RemoteAddress, c.ConnectedAt)
			all = append(all, c)
		}
	}
	p := Page[Consumer]{At: time.Now().UnixMilli(), Missing: missing}
	p.Items, p.Total, p.Next = consumerPage(&l, all)
	return p, nil
}
