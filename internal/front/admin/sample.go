package admin

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/meta"
)

const (
	// samplePeriod is the time between samples while somebody watches.
	samplePeriod = time.Second
	// sampleWindow is about how far apart the samples are that rates are of.
	sampleWindow = 2500 * time.Millisecond
	// samplesKept is how many there are to compare with.
	samplesKept = 3
	// sampleKeep is how long a sample is kept to compare with.
	sampleKeep = 15 * time.Second
)

// sample is the cluster at one moment.
type sample struct {
	at      time.Time
	view    *meta.View
	status  cluster.Status
	reports map[string]*report // by node
	missing []Missing

	topics  []topicSum // by name
	byName  map[string]*topicSum
	rated   bool // there was a sample to compare with
	growing map[ChannelName]trend
	// nodeRates are those of the nodes that could be compared.
	nodeRates map[string]nodeRate
	channels  int

	defaultAck string

	overviewOnce sync.Once
	overviewIs   *Overview
	allOnce      sync.Once
	allChannels  []ChannelRow
}

// topicSum is a topic over all nodes.
type topicSum struct {
	TopicRow
	meta     *meta.Topic
	channels []ChannelRow // by name
}

type nodeRate struct{ in, bytes, delivered float64 }

// sampler takes samples when they are asked for, one at a time, and keeps the
// last ones for rates.
type sampler struct {
	f *Front

	mu     sync.Mutex // guards the following
	taking chan struct{}
	last   *sample
	past   []*sample // before last, the newest first
	stale  bool      // something was changed since
	ahead  bool      // one is taken that nobody waits for
	trends trends
	forget *time.Timer // runs rest; nil before the first sample

	history history
}

// get returns a sample that is at most so old, taking one if need be.
func (s *sampler) get(ctx context.Context, e *Engine, maxAge time.Duration) (*sample, error) {
	for {
		s.mu.Lock()
		if s.last != nil && !s.stale && time.Since(s.last.at) <= maxAge {
			defer s.mu.Unlock()
			return s.last, nil
		}
		if wait := s.taking; wait != nil {
			s.mu.Unlock()
			select {
			case <-wait:
				maxAge = max(maxAge, samplePeriod/2) // that one is new enough
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		done := make(chan struct{})
		s.taking, s.stale = done, false
		past := s.reference(time.Now())
		s.mu.Unlock()
		next := s.f.take(context.WithoutCancel(ctx), e, past)
		s.mu.Lock()
		s.keep(next)
		s.taking = nil
		s.mu.Unlock()
		close(done)
		return next, nil
	}
}

// recent returns a sample that may be some seconds old, at once if there is one,
// and has the next one taken meanwhile.
func (s *sampler) recent(ctx context.Context, e *Engine) (*sample, error) {
	s.mu.Lock()
	x := s.last
	if x == nil || s.stale || time.Since(x.at) > samplePeriodMax || s.f.ctx.Err() != nil {
		s.mu.Unlock()
		return s.get(ctx, e, samplePeriod)
	}
	due := time.Since(x.at) > samplePeriod && s.taking == nil && !s.ahead
	if due {
		s.ahead = true
	}
	s.mu.Unlock()
	if due {
		s.f.hub.spawn(func() {
			_, _ = s.get(s.f.ctx, e, samplePeriod) // who asks next has it
			s.mu.Lock()
			s.ahead = false
			s.mu.Unlock()
		})
	}
	return x, nil
}

// changed says that the figures are not what they were.
func (s *sampler) changed() {
	s.mu.Lock()
	s.stale = true
	s.mu.Unlock()
	s.f.hub.ring()
}

// reference is the sample that rates are measured from.
func (s *sampler) reference(now time.Time) *sample {
	var best *sample
	for _, x := range s.past {
		if now.Sub(x.at) <= sampleKeep && (best == nil || now.Sub(best.at) < sampleWindow) {
			best = x
		}
	}
	if x := s.last; best == nil && x != nil && now.Sub(x.at) <= sampleKeep && now.Sub(x.at) >= samplePeriod/2 {
		best = x
	}
	return best
}

func (s *sampler) keep(next *sample) {
	if s.last != nil {
		old := &sample{at: s.last.at, reports: s.last.reports}
		s.past = append([]*sample{old}, s.past...)
	}
	s.past = slices.DeleteFunc(s.past, func(x *sample) bool { return next.at.Sub(x.at) > sampleKeep })
	if len(s.past) > samplesKept {
		clear(s.past[samplesKept:])
		s.past = s.past[:samplesKept]
	}
	s.last = next
	if s.forget == nil {
		s.forget = time.AfterFunc(sampleKeep+time.Second, s.rest)
	} else {
		s.forget.Reset(sampleKeep + time.Second)
	}
	s.trends.follow(next)
	s.history.follow(next)
}

// rest forgets the samples when nobody has asked for a while.
func (s *sampler) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && time.Since(s.last.at) > sampleKeep {
		s.last, s.past, s.trends = nil, nil, trends{}
	}
}

// take asks all nodes and sums up. past is what rates are measured from; nil:
// nothing is.
func (f *Front) take(ctx context.Context, e *Engine, past *sample) *sample {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	x := &sample{at: time.Now(), reports: make(map[string]*report), missing: []Missing{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, p := range e.others() {
		all.Go(func() {
			r, err := askReport(ctx, e, p.ID)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				x.missing = append(x.missing, Missing{Node: p.Name, Reason: err.Error()})
				return
			}
			x.reports[p.Name] = r
		})
	}
	here := e.local(ctx)
	all.Wait()
	x.reports[here.node.Name] = here
	for name, r := range x.reports {
		if r.failed != "" {
			x.missing = append(x.missing, Missing{Node: name, Reason: r.failed})
		}
	}
	slices.SortFunc(x.missing, func(a, b Missing) int { return cmp.Compare(a.Node, b.Node) })
	x.view, x.status, x.defaultAck = e.Meta.View(), f.o.Cluster(), e.DefaultAck
	x.sum(past)
	return x
}

func askReport(ctx context.Context, e *Engine, id uint64) (*report, error) {
	reply, err := e.Peers.Ask(ctx, id, []byte(`{"op":"`+opReport+`"}`))
	if err != nil {
		return nil, err
	}
	return decodeReport(reply)
}

// sum adds the reports up, over the topics that metadata knows.
func (x *sample) sum(past *sample) {
	all := x.view.Topics()
	x.topics = make([]topicSum, 0, len(all))
	n := 0
	for _, m := range all {
		n += len(m.Channels)
	}
	room := make([]ChannelRow, 0, n) // all in one piece
	for _, m := range all {
		if m.Deleting {
			continue
		}
		t := topicSum{meta: m}
		t.Name, t.Paused, t.Ephemeral, t.Partitions = m.Name, m.Paused, m.Ephemeral(), len(m.Partitions)
		from := len(room)
		for _, c := range m.Channels {
			if !c.Deleting {
				room = append(room, ChannelRow{Topic: m.Name, Name: c.Name, Paused: c.Paused, Ephemeral: broker.IsEphemeral(c.Name)})
			}
		}
		t.channels = room[from:len(room):len(room)]
		x.topics = append(x.topics, t)
	}
	x.byName, x.nodeRates = make(map[string]*topicSum, len(x.topics)), make(map[string]nodeRate)
	for i := range x.topics {
		x.byName[x.topics[i].Name] = &x.topics[i]
	}
	for name, r := range x.reports {
		var before *report
		if past != nil {
			before = past.reports[name]
		}
		x.addReport(name, r, before)
	}
	for i := range x.topics {
		x.topics[i].finish()
		x.channels += len(x.topics[i].channels)
	}
}

// addReport adds what one node tells; rates are between two reports of one
// process.
func (x *sample) addReport(name string, r, before *report) {
	seconds := 0.0
	var node nodeRate
	if before != nil && before.node.StartedAt == r.node.StartedAt && r.at > before.at {
		seconds = float64(r.at-before.at) / 1000
		x.rated = true
	}
	k, at := 0, 0 // in before and in x; all are by name
	for i := range r.topics {
		t := &r.topics[i]
		for at < len(x.topics) && x.topics[at].Name < t.name {
			at++
		}
		if at == len(x.topics) || x.topics[at].meta.ID != t.id {
			continue
		}
		sum := &x.topics[at]
		var was *topicReport
		if seconds > 0 {
			for k < len(before.topics) && before.topics[k].name < t.name {
				k++
			}
			if k < len(before.topics) && before.topics[k].name == t.name && before.topics[k].id == t.id {
				was = &before.topics[k]
			}
		}
		if was != nil {
			node.in += perSecond(was.records, t.records, seconds)
			node.bytes += perSecond(was.bytes, t.bytes, seconds)
		}
		sum.addTopic(t, was, seconds, r.at)
	}
	if seconds > 0 {
		node.delivered = perSecond(int64(before.node.Delivered), int64(r.node.Delivered), seconds)
		x.nodeRates[name] = node
	}
}

func (sum *topicSum) addTopic(t, was *topicReport, seconds float64, at int64) {
	sum.Waiting += t.waiting
	sum.Records += t.records
	sum.Bytes += t.bytes
	sum.LogBytes += t.logBytes
	if seconds > 0 {
		in, size := 0.0, 0.0
		if was != nil {
			in, size = perSecond(was.records, t.records, seconds), perSecond(was.bytes, t.bytes, seconds)
		}
		addRate(&sum.InRate, in)
		addRate(&sum.InBytesRate, size)
	}
	k := 0
	for i := range t.channels {
		c := &t.channels[i]
		var before *channelReport
		if was != nil {
			for k < len(was.channels) && was.channels[k].name < c.name {
				k++
			}
			if k < len(was.channels) && was.channels[k].name == c.name {
				before = &was.channels[k]
			}
		}
		sum.channel(c).add(c, before, seconds, at)
	}
}

// channel is the row of a channel; one that lives in memory only is not known
// to metadata.
func (sum *topicSum) channel(c *channelReport) *ChannelRow {
	i, ok := slices.BinarySearchFunc(sum.channels, c.name, func(r ChannelRow, name string) int { return cmp.Compare(r.Name, name) })
	if !ok {
		sum.channels = slices.Insert(sum.channels, i, ChannelRow{Topic: sum.Name, Name: c.name, Paused: c.flags&flagPaused != 0, Ephemeral: true})
	}
	return &sum.channels[i]
}

func (row *ChannelRow) add(c, was *channelReport, seconds float64, at int64) {
	row.Consumers += int(c.consumers)
	row.Backlog += c.backlog
	row.InFlight += c.inFlight
	row.Deferred += c.deferred
	row.Records += c.records
	row.Requeued += c.requeued
	row.TimedOut += c.timeout
	if c.oldest > 0 {
		age := max(at-c.oldest/1e6, 0)
		if row.OldestAgeMs == nil || *row.OldestAgeMs < age {
			row.OldestAgeMs = &age
		}
	}
	if seconds <= 0 {
		return
	}
	var in, out, again, late float64
	if was != nil {
		in, out = perSecond(was.records, c.records, seconds), perSecond(was.finished(), c.finished(), seconds)
		again, late = perSecond(was.requeued, c.requeued, seconds), perSecond(was.timeout, c.timeout, seconds)
	}
	addRate(&row.InRate, in)
	addRate(&row.OutRate, out)
	addRate(&row.RequeueRate, again)
	addRate(&row.TimeoutRate, late)
}

// finished is how many of the channel's messages are not there any more.
func (c *channelReport) finished() int64 { return c.records - c.backlog - c.inFlight - c.deferred }

func perSecond(before, now int64, seconds float64) float64 {
	return max(float64(now-before), 0) / seconds
}

// addRate adds to a rate; most are 0, and share that.
func addRate(sum **float64, v float64) {
	switch {
	case *sum == nil && v == 0:
		*sum = &noRate
	case v == 0:
	default:
		if *sum != nil {
			v += **sum
		}
		total := v
		*sum = &total
	}
}

var noRate = 0.0 // never written

// finish sums the channels up.
func (sum *topicSum) finish() {
	sum.Channels = len(sum.channels)
	for i := range sum.channels {
		c := &sum.channels[i]
		sum.Consumers += c.Consumers
		sum.Backlog += c.Backlog
		sum.InFlight += c.InFlight
		sum.Deferred += c.Deferred
		if c.OldestAgeMs != nil && (sum.OldestAgeMs == nil || *sum.OldestAgeMs < *c.OldestAgeMs) {
			sum.OldestAgeMs = c.OldestAgeMs
		}
		if c.OutRate != nil {
			addRate(&sum.OutRate, *c.OutRate)
		}
	}
	if sum.InRate != nil && sum.OutRate == nil {
		sum.OutRate = &noRate
	}
}

// all lists all channels.
func (x *sample) all() []ChannelRow {
	x.allOnce.Do(func() {
		x.allChannels = make([]ChannelRow, 0, x.channels)
		for i := range x.topics {
			x.allChannels = append(x.allChannels, x.topics[i].channels...)
		}
	})
	return x.allChannels
}

// trends remembers since when backlogs grow.
type trends struct {
	growing map[ChannelName]trend
}

type trend struct {
	since time.Time
	from  int64 // backlog then
	last  int64
}

// follow looks at a new sample.
func (t *trends) follow(x *sample) {
	next := make(map[ChannelName]trend)
	for i := range x.topics {
		for k := range x.topics[i].channels {
			c := &x.topics[i].channels[k]
			if c.Backlog == 0 || c.InRate == nil || *c.InRate <= *c.OutRate {
				continue
			}
			name := ChannelName{c.Topic, c.Name}
			g, ok := t.growing[name]
			if !ok || c.Backlog < g.last {
				g = trend{since: x.at, from: c.Backlog}
			}
			g.last = c.Backlog
			next[name] = g
		}
	}
	t.growing = next
	x.growing = next
}
