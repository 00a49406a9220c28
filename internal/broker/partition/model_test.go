package partition

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/shard"
)

func sorted[V any](m map[int64]V) []int64 { return slices.Sorted(maps.Keys(m)) }

func rangeOf(o int64) offsets.Range { return offsets.Range{From: o, To: o + 1} }

// model is the naive state: for each channel the set of messages that it has
// still to deliver. It is a function of the committed entries.
type model struct {
	time  int64
	parts map[Key]*modelPart
	gone  map[Key]bool
	sent  map[uint64][2]uint64 // epoch and number, by producer
	late  bool                 // the publishes of this entry do nothing
}

type modelPart struct {
	end, handOver int64
	paused        bool
	due           map[int64]int64
	channels      map[uint64]*modelChannel
	ingested      map[Session]uint64
}

type modelChannel struct {
	ephemeral bool
	epoch     int64
	live      map[int64]bool
	parked    map[int64]int64
	attempts  map[int64]uint16
}

// replay is the state after the entries.
func replay(t fataler, entries []shard.Entry) *model {
	t.Helper()
	m := &model{parts: map[Key]*modelPart{}, gone: map[Key]bool{}, sent: map[uint64][2]uint64{}}
	for _, e := range entries {
		h, rest, err := decodeHeader(e.Data)
		if err != nil {
			t.Fatalf("entry %d: %v", e.Index, err)
		}
		if h.term != e.Term {
			continue
		}
		m.time = max(m.time, h.time)
		m.links(t, h.count, rest)
		for range h.count {
			var k kind
			var payload []byte
			if k, payload, rest, err = decodeCommand(rest); err != nil {
				t.Fatalf("entry %d: %v", e.Index, err)
			}
			m.command(t, k, payload)
		}
	}
	return m
}

// links takes the numbers of an entry's publishes, if all continue what is
// there.
func (m *model) links(t fataler, count uint32, b []byte) {
	m.late = false
	sent := map[uint64][2]uint64{}
	for range count {
		k, payload, rest, err := decodeCommand(b)
		if err != nil {
			t.Fatalf("command: %v", err)
		}
		b = rest
		if k != kindLink {
			continue
		}
		r, err := decodeRun(payload)
		if err != nil {
			t.Fatalf("link: %v", err)
		}
		was := m.sent[r.producer]
		if r.epoch > was[0] {
			was = [2]uint64{r.epoch, 0}
		}
		m.late = m.late || was != [2]uint64{r.epoch, r.after}
		sent[r.producer] = [2]uint64{r.epoch, r.last}
	}
	if !m.late {
		maps.Copy(m.sent, sent)
	}
}

func (m *model) command(t fataler, k kind, payload []byte) {
	switch k {
	case kindLink:
		return
	case kindPublish:
		if !m.late {
			m.publish(payload)
		}
		return
	case kindDelta:
		var d Delta
		target, err := decodeDelta(payload, &d)
		if err != nil {
			t.Fatalf("delta: %v", err)
		}
		m.delta(target, &d)
		return
	}
	c, err := decode(k, payload)
	if err != nil {
		t.Fatalf("command: %v", err)
	}
	m.change(c)
}

func (m *model) publish(payload []byte) {
	r := reader{b: payload}
	p := m.parts[r.key()]
	if p == nil {
		return
	}
	r.byte()
	it := record.Records(r.b)
	var rec record.Record
	for it.Next(&rec) {
		if due, ok := rec.Due(); ok {
			p.due[p.end] = due
		}
		p.end++
	}
	p.handOn(m.time, true)
}

// handOn gives the channels what waits. What is due later is parked at once
// if it was just published, else its lane does it.
func (p *modelPart) handOn(now int64, published bool) {
	if p.paused || len(p.channels) == 0 {
		return
	}
	for ; p.handOver < p.end; p.handOver++ {
		for _, c := range p.channels {
			if due := p.due[p.handOver]; published && due > now && !c.ephemeral {
				c.parked[p.handOver] = due
			} else {
				c.live[p.handOver] = true
			}
		}
	}
}

func (m *model) delta(t deltaTarget, d *Delta) {
	p := m.parts[t.Key]
	if p == nil || p.channels[t.channel] == nil || p.channels[t.channel].epoch != t.epoch {
		return
	}
	c := p.channels[t.channel]
	for _, r := range d.Finished {
		for o := r.From; o < r.To; o++ {
			delete(c.live, o)
			delete(c.attempts, o)
		}
	}
	for _, e := range d.Parked {
		if _, parked := c.parked[e.Offset]; !parked && !c.live[e.Offset] {
			continue // finished meanwhile
		}
		delete(c.live, e.Offset)
		delete(c.attempts, e.Offset)
		c.parked[e.Offset] = e.DueNs
	}
	for _, o := range d.Unparked {
		delete(c.parked, o)
	}
	for _, a := range d.Attempts {
		if c.live[a.Offset] {
			c.attempts[a.Offset] = a.N
		}
	}
}

func (m *model) change(c Command) {
	k := c.key()
	p := m.parts[k]
	switch c := c.(type) {
	case Open:
		if p == nil && !m.gone[k] {
			m.parts[k] = &modelPart{due: map[int64]int64{}, channels: map[uint64]*modelChannel{}, ingested: map[Session]uint64{}}
		}
		return
	case Close:
		delete(m.parts, k)
		m.gone[k] = true
		return
	default:
		if p == nil {
			return
		}
		p.change(c)
		p.handOn(m.time, false)
	}
}

func (p *modelPart) change(c Command) {
	switch c := c.(type) {
	case CreateChannel:
		if p.channels[c.Channel] == nil {
			p.channels[c.Channel] = &modelChannel{
				ephemeral: c.Ephemeral, live: map[int64]bool{}, parked: map[int64]int64{}, attempts: map[int64]uint16{},
			}
		}
	case DropChannel:
		delete(p.channels, c.Channel)
	case Empty:
		if ch := p.channels[c.Channel]; ch != nil {
			ch.epoch++
			clear(ch.live)
			clear(ch.parked)
			clear(ch.attempts)
		}
	case EmptyTopic:
		p.handOver = p.end
	case PauseTopic:
		p.paused = c.Paused
	case ClearEphemeral:
		maps.DeleteFunc(p.channels, func(_ uint64, c *modelChannel) bool { return c.ephemeral })
	case AdvanceStart:
		for _, ch := range p.channels {
			maps.DeleteFunc(ch.live, func(o int64, _ bool) bool { return o < c.Offset })
			maps.DeleteFunc(ch.attempts, func(o int64, _ uint16) bool { return o < c.Offset })
		}
		p.handOver = max(p.handOver, min(c.Offset, p.end))
	case Ingest:
		p.ingest(c)
	}
}

// check compares the machine with the model.
func (r *rig) check() {
	r.t.Helper()
	want := replay(r.t, r.log)
	if len(want.parts) != len(r.m.partitions) {
		r.t.Fatalf("%d partitions, want %d", len(r.m.partitions), len(want.parts))
	}
	for _, p := range r.m.producers {
		if got := [2]uint64{p.epoch, p.seq}; got != want.sent[p.id] {
			r.t.Fatalf("producer %d has come to %v, want %v", p.id, got, want.sent[p.id])
		}
	}
	if len(r.m.producers) != min(len(want.sent), producersMax) {
		r.t.Fatalf("%d producers, want %d", len(r.m.producers), len(want.sent))
	}
	for k, wp := range want.parts {
		p := r.m.partitions[k]
		if p == nil {
			r.t.Fatalf("partition %v is not open", k)
		}
		for _, x := range p.ingests {
			if x.next != wp.ingested[x.session] {
				r.t.Fatalf("session %d of %v has come to %d, want %d", x.session[0], k, x.next, wp.ingested[x.session])
			}
		}
		if p.end != wp.end || p.handOver != wp.handOver || p.paused != wp.paused {
			r.t.Fatalf("partition %v: end %d, hand-over %d, paused %v, want %d, %d, %v",
				k, p.end, p.handOver, p.paused, wp.end, wp.handOver, wp.paused)
		}
		if len(p.channels) != len(wp.channels) {
			r.t.Fatalf("partition %v: %d channels, want %d", k, len(p.channels), len(wp.channels))
		}
		for id, wc := range wp.channels {
			if !wc.ephemeral {
				r.checkChannel(p, id, wc)
			}
		}
	}
}

func (r *rig) checkChannel(p *partition, id uint64, want *modelChannel) {
	r.t.Helper()
	got := r.left(p.Key, id)
	if !slices.Equal(got.log, sorted(want.live)) {
		r.t.Fatalf("channel %d of %v has %v to deliver, want %v", id, p.Key, got.log, sorted(want.live))
	}
	if !maps.Equal(got.parked, want.parked) {
		r.t.Fatalf("channel %d of %v has parked %v, want %v", id, p.Key, got.parked, want.parked)
	}
	c := p.channel(id)
	if !maps.Equal(c.attempts, want.attempts) {
		r.t.Fatalf("channel %d of %v has attempts %v, want %v", id, p.Key, c.attempts, want.attempts)
	}
	if p.start > c.floor {
		r.t.Fatalf("channel %d of %v: floor %d below the start %d", id, p.Key, c.floor, p.start)
	}
	for _, o := range append(got.log, sorted(got.parked)...) {
		r.readable(p, o)
	}
}

// readable requires a message to be in the log.
func (r *rig) readable(p *partition, offset int64) {
	r.t.Helper()
	bs, err := p.log.Read(offset, 1)
	if err != nil || len(bs) == 0 || bs[0].Base > offset || bs[0].Last() < offset {
		r.t.Fatalf("offset %d of %v can't be read: %d batches, %v", offset, p.Key, len(bs), err)
	}
}

// checkLanes requires each lane to have in its hands exactly what the channel
// has to deliver; the machine must be at rest.
func (r *rig) checkLanes() {
	r.t.Helper()
	for _, l := range r.lanes {
		if l.stopped > 0 {
			continue
		}
		if l.begun != 1 {
			r.t.Fatalf("lane of channel %d was not begun", l.channel)
		}
		p, c, err := r.m.findChannel(l.key, l.channel)
		if err != nil {
			r.t.Fatalf("lane of %v is not stopped: %v", l.key, err)
		}
		if c.lane == nil || c.lane.lane != Lane(l) {
			r.t.Fatalf("lane of channel %d is not attached", c.id)
		}
		if l.limit != p.handOver {
			r.t.Fatalf("limit of channel %d is %d, want %d", c.id, l.limit, p.handOver)
		}
		if c.ephemeral {
			continue
		}
		got := r.left(l.key, l.channel)
		if !slices.Equal(l.open(), got.log) {
			r.t.Fatalf("lane of channel %d has %v, want %v", c.id, l.open(), got.log)
		}
		var due []int64
		for o, at := range got.parked {
			if at <= r.now {
				due = append(due, o)
			}
		}
		slices.SortFunc(due, cmp.Compare)
		if l.room > 0 && !slices.Equal(sorted(l.due), due) {
			r.t.Fatalf("lane of channel %d has due %v, want %v", c.id, sorted(l.due), due)
		}
		for o := range l.due {
			if _, ok := got.parked[o]; !ok {
				r.t.Fatalf("lane of channel %d was offered %d, which is not parked", c.id, o)
			}
		}
	}
}
