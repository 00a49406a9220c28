package admin

import (
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

// historySample is a sample of one busy and many quiet topics.
func historySample(at time.Time, backlog int64, quiet int) *sample {
	in, out, age := 12.5, 0.0, int64(4000)
	x := &sample{at: at, topics: make([]topicSum, 1, 1+quiet)}
	x.topics[0] = topicSum{
		TopicRow: TopicRow{Name: "busy", InRate: &in, Backlog: backlog, Waiting: 3},
		channels: []ChannelRow{{Topic: "busy", Name: "c/d", InRate: &in, OutRate: &out, Backlog: backlog, OldestAgeMs: &age}, {Topic: "busy", Name: "idle", InRate: &out, OutRate: &out}},
	}
	for range quiet {
		x.topics = append(x.topics, topicSum{TopicRow: TopicRow{Name: "quiet", InRate: &out}})
	}
	return x
}

func TestHistory(t *testing.T) {
	var h history
	began := time.Now().Add(-20 * time.Minute)
	for s := range 20 * 60 { // once a second
		h.follow(historySample(began.Add(time.Duration(s)*time.Second), int64(s), 3))
	}
	now := began.Add(20 * time.Minute)
	of := func(watch string) *History {
		t.Helper()
		got, err := h.of(watch, now)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	channel := of("channel:busy/c%2Fd")
	if n := len(channel.Points); n < 88 || n > 90 {
		t.Fatalf("%d points of fifteen minutes", n)
	}
	for i, p := range channel.Points {
		if want := (p.At - began.UnixMilli()) / 1000; p.Backlog != want || *p.InRate != 12.5 || *p.OutRate != 0 || p.OldestAgeMs != 4000 {
			t.Fatalf("point %d: %+v, want the backlog %d", i, p, want)
		}
		if i > 0 && p.At-channel.Points[i-1].At != 10_000 {
			t.Fatalf("point %d comes %d ms after the one before", i, p.At-channel.Points[i-1].At)
		}
	}
	last := len(channel.Points) - 1
	if topic := of("topic:busy"); topic.Points[last].Backlog != channel.Points[last].Backlog+3 || topic.Points[last].OutRate != nil {
		t.Errorf("topic: %+v", topic.Points[last])
	}
	if all := of("overview"); all.Points[last].Backlog != channel.Points[last].Backlog+3 {
		t.Errorf("overview: %+v", all.Points[last])
	}
	for _, watch := range []string{"topic:quiet", "channel:busy/idle", "topic:none"} {
		if n := len(of(watch).Points); n != 0 {
			t.Errorf("%s has %d points", watch, n)
		}
	}
	for _, watch := range []string{"", "nodes", "channel:busy", "topic:%zz", "topic:"} {
		if _, err := h.of(watch, now); err == nil {
			t.Errorf("%q is answered", watch)
		}
	}
}

// What is gone or quiet for long leaves; after a hole only what is young is told.
func TestHistoryForgets(t *testing.T) {
	var h history
	began := time.Now().Add(-time.Hour)
	h.follow(historySample(began, 7, 0))
	h.follow(&sample{at: began.Add(5 * time.Minute)})
	if len(h.topics) != 0 || len(h.lanes) != 0 {
		t.Errorf("%d topics and %d channels that are gone", len(h.topics), len(h.lanes))
	}
	h.follow(historySample(began.Add(6*time.Minute), 7, 0))
	again := historySample(began.Add(6*time.Minute+10*time.Second), 7, 0)
	again.topics[0].meta = &meta.Topic{ID: 2, Channels: []*meta.Channel{{ID: 3, Name: "c/d"}}}
	h.follow(again)
	if n := len(h.topics["busy"].points) + len(h.lanes[ChannelName{"busy", "c/d"}].points); n != 2 {
		t.Errorf("a topic and a channel that were made anew have %d points", n)
	}
	for _, x := range []struct {
		after time.Duration
		want  int
	}{{7 * time.Minute, 4}, {16 * time.Minute, 3}, {22 * time.Minute, 0}} {
		got, err := h.of("overview", began.Add(x.after))
		if err != nil || len(got.Points) != x.want {
			t.Errorf("after %v: %+v, %v; want %d points", x.after, got, err, x.want)
		}
	}
	if h.drop(); h.times != nil {
		t.Error("what is too old stays")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	x := &sample{at: time.Now(), topics: make([]topicSum, 3*historyMax)}
	for i := range x.topics {
		x.topics[i].Name, x.topics[i].Backlog = string(rune('a'+i)), 1
	}
	h.follow(x)
	if n := len(h.topics) + len(h.lanes); n != historyMax {
		t.Errorf("%d are followed, want %d", n, historyMax)
	}
}
