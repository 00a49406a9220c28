package admin

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// historyStep is the time between two points.
	historyStep = 10 * time.Second
	// historySpan is how far back they go.
	historySpan = 15 * time.Minute
	// historyMax bounds the topics and channels that are followed; with the points
	// of all it is some 5 MiB.
	historyMax = 2000
)

// history keeps what charts begin with: a point every ten seconds, for the last
// fifteen minutes, of the cluster and of each topic and channel where something
// happens. It takes them from samples that somebody asked for, and takes none by
// itself: when nobody watches nothing runs, and there is a hole. A node keeps what
// it was asked for; nodes do not share it.
type history struct {
	mu     sync.Mutex // guards the following
	times  []int64    // unix ms, of the last points
	total  []point
	topics map[string]*track
	lanes  map[ChannelName]*track
	forget *time.Timer // drops all when the last point is too old; nil: none was taken
}

// point is how something was at one moment.
type point struct {
	in, out     float32 // per second; NaN: not measured
	backlog     int64
	oldestAgeMs int64
}

// track is the last points of one thing, of the times at the end of history.times.
type track struct {
	id     uint64 // of the topic or channel: one that was made anew begins anew
	points []point
	round  int64 // time of the last one
	quiet  int   // points at the end with nothing in them
}

func pointOf(in, out *float64, backlog int64, age *int64) point {
	p := point{in: float32(math.NaN()), out: float32(math.NaN()), backlog: backlog}
	if in != nil {
		p.in = float32(*in)
	}
	if out != nil {
		p.out = float32(*out)
	}
	if age != nil {
		p.oldestAgeMs = *age
	}
	return p
}

// quiet says that nothing moves and nothing waits.
func (p *point) quiet() bool {
	return !(p.in > 0) && !(p.out > 0) && p.backlog == 0
}

// follow takes a point if it is time for one.
func (h *history) follow(x *sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := x.at.UnixMilli()
	const most = int(historySpan / historyStep)
	// Samples come about once a second: the one that is nearest to the step is taken.
	if n := len(h.times); n > 0 && at-h.times[n-1] < (historyStep-samplePeriod/2).Milliseconds() {
		return
	}
	if h.topics == nil {
		h.topics, h.lanes = make(map[string]*track), make(map[ChannelName]*track)
	}
	t := x.totals()
	h.times = last(append(h.times, at), most)
	h.total = last(append(h.total, pointOf(t.InRate, t.OutRate, t.Backlog+t.Waiting, t.OldestAgeMs)), most)
	for i := range x.topics {
		sum := &x.topics[i]
		follow(h, h.topics, sum.Name, sum.id(""), at, pointOf(sum.InRate, sum.OutRate, sum.Backlog+sum.Waiting, sum.OldestAgeMs))
		for k := range sum.channels {
			c := &sum.channels[k]
			follow(h, h.lanes, ChannelName{c.Topic, c.Name}, sum.id(c.Name), at, pointOf(c.InRate, c.OutRate, c.Backlog, c.OldestAgeMs))
		}
	}
	sweep(h.topics, at)
	sweep(h.lanes, at)
	if h.forget == nil {
		h.forget = time.AfterFunc(historySpan, h.drop)
	} else {
		h.forget.Reset(historySpan)
	}
}

// follow adds a point to what is followed already, and begins with what is not
// quiet as long as there is room.
func follow[K comparable](h *history, all map[K]*track, name K, id uint64, at int64, p point) {
	t := all[name]
	if t == nil || t.id != id {
		delete(all, name)
		if p.quiet() || len(h.topics)+len(h.lanes) >= historyMax {
			return
		}
		t = &track{id: id}
		all[name] = t
	}
	t.quiet++
	if !p.quiet() {
		t.quiet = 0
	}
	t.points, t.round = last(append(t.points, p), int(historySpan/historyStep)), at
}

// id is that of a topic, or of one of its channels; 0: it lives in memory only.
func (sum *topicSum) id(channel string) uint64 {
	if sum.meta == nil {
		return 0
	}
	if channel == "" {
		return sum.meta.ID
	}
	if c, ok := sum.meta.Channel(channel); ok {
		return c.ID
	}
	return 0
}

// sweep lets go of what is gone, and of what has been quiet all the time.
func sweep[K comparable](all map[K]*track, at int64) {
	for name, t := range all {
		if t.round != at || t.quiet >= int(historySpan/historyStep) {
			delete(all, name)
		}
	}
}

// drop forgets all.
func (h *history) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.times); n > 0 && time.Since(time.UnixMilli(h.times[n-1])) >= historySpan {
		h.times, h.total, h.topics, h.lanes = nil, nil, nil, nil
	}
}

// last is the end of a list.
func last[T any](list []T, most int) []T {
	if over := len(list) - most; over > 0 {
		copy(list, list[over:])
		list = list[:most]
	}
	return list
}

// of tells the points of what a watch is about, those that are not too old.
func (h *history) of(watch string, now time.Time) (*History, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var points []point
	kind, rest, _ := strings.Cut(watch, ":")
	topic, channel, both := strings.Cut(rest, "/")
	topic, err1 := url.PathUnescape(topic)
	channel, err2 := url.PathUnescape(channel)
	switch {
	case watch == "overview":
		points = h.total
	case err1 != nil || err2 != nil || rest == "" || kind == "channel" && !both:
		kind = ""
	case kind == "topic":
		points = h.topics[topic].all()
	case kind == "channel":
		points = h.lanes[ChannelName{topic, channel}].all()
	}
	if kind != "overview" && kind != "topic" && kind != "channel" {
		return nil, fault.New(fault.InvalidRequest, "watch %q: want overview, topic:TOPIC or channel:TOPIC/CHANNEL", watch)
	}
	out := &History{At: now.UnixMilli(), StepMs: historyStep.Milliseconds(), Points: []HistoryPoint{}}
	times := h.times[len(h.times)-len(points):]
	for i, p := range points {
		if at := times[i]; at > out.At-historySpan.Milliseconds() {
			out.Points = append(out.Points, HistoryPoint{At: at, InRate: known(p.in), OutRate: known(p.out), Backlog: p.backlog, OldestAgeMs: p.oldestAgeMs})
		}
	}
	return out, nil
}

func (t *track) all() []point {
	if t == nil {
		return nil
	}
	return t.points
}

func known(rate float32) *float64 {
	if math.IsNaN(float64(rate)) {
		return nil
	}
	v := float64(rate)
	return &v
}

func (f *Front) getHistory(_ context.Context, _ *Engine, r *http.Request) (any, error) {
	return f.sampler.history.of(r.URL.Query().Get("watch"), time.Now())
}
