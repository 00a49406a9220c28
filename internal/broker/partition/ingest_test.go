package partition

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
)

// ingest is Machine.ingest, naively.
func (p *modelPart) ingest(c Ingest) {
	at := p.ingested[c.Session]
	if c.To <= at || c.From != at || c.Handed && len(c.Batch) > 0 && p.paused && p.handOver < p.end {
		return
	}
	p.ingested[c.Session] = c.To
	for _, x := range c.Channels {
		if c.Create {
			p.change(CreateChannel{Key: c.Key, Channel: x.Channel})
		}
	}
	if len(c.Batch) == 0 {
		return
	}
	info, err := record.Parse(c.Batch)
	if err != nil {
		panic(err)
	}
	n := int64(info.Count)
	if !c.Handed {
		p.end += n
		return // handOn comes next
	}
	named := false
	for _, x := range c.Channels {
		named = named || p.channels[x.Channel] != nil
	}
	if !named {
		return
	}
	for _, x := range c.Channels {
		ch := p.channels[x.Channel]
		if ch == nil {
			continue
		}
		for o := range n {
			if !slices.ContainsFunc(x.Finished, func(r offsets.Range) bool { return r.From <= o && o < r.To }) {
				ch.live[p.end+o] = true
			}
		}
		for _, a := range x.Attempts {
			if ch.live[p.end+a.Offset] && !ch.ephemeral {
				delete(ch.live, p.end+a.Offset)
				ch.parked[p.end+a.Offset] = ingestDue
			}
		}
	}
	p.end += n
	p.handOver = p.end
}

// drawIngest is messages of a session, most often those that come next.
func drawIngest(t *rapid.T, r *rig, k Key, channel *rapid.Generator[uint64]) Ingest {
	c := Ingest{Key: k, Session: Session{rapid.Byte().Draw(t, "session") % 2}}
	if p := r.m.partitions[k]; p != nil {
		c.From = p.ingests.next(c.Session)
	}
	c.From -= min(c.From, rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "back"))
	n := rapid.IntRange(0, 9).Draw(t, "n")
	c.To = c.From + uint64(n) + rapid.SampledFrom([]uint64{0, 0, 1}).Draw(t, "more")
	if n > 0 {
		c.Batch = AppendBatch(nil, bodies(n), r.now)
	}
	c.Handed = rapid.Bool().Draw(t, "handed")
	c.Create = n == 0 && !c.Handed
	if !c.Handed && !c.Create {
		return c
	}
	ids := rapid.SliceOfNDistinct(channel, 0, 2, rapid.ID).Draw(t, "channels")
	slices.Sort(ids)
	for _, id := range ids {
		x := IngestChannel{Channel: id}
		for o := int64(0); o < int64(n); o++ {
			switch rapid.IntRange(0, 3).Draw(t, "fate") {
			case 0:
				x.Finished = append(x.Finished, offsets.Range{From: o, To: o + 1})
			case 1:
				x.Attempts = append(x.Attempts, Attempt{Offset: o, N: 3})
			}
		}
		c.Channels = append(c.Channels, x)
	}
	return c
}

// ingestable is a partition with two channels and a lane on the first.
func ingestable(t *testing.T) (*rig, *testLane) {
	r := newRig(t)
	for _, c := range []Command{Open{Key: one}, CreateChannel{Key: one, Channel: 1}, CreateChannel{Key: one, Channel: 2}} {
		r.must(c)
	}
	r.publish(one, 3)
	l := r.attach(one, 1)
	r.settle()
	return r, l
}

// handed is five messages, of which channel 1 has yet to get the second and, after
// two attempts, the fourth, and channel 2 the last.
func handed(from uint64) Ingest {
	return Ingest{
		Key: one, Session: Session{9}, From: from, To: from + 5, Handed: true, Batch: ingestBatch("a", "b", "c", "d", "e"),
		Channels: []IngestChannel{
			{Channel: 1, Finished: []offsets.Range{{From: 0, To: 1}, {From: 2, To: 3}, {From: 4, To: 5}}, Attempts: []Attempt{{Offset: 3, N: 2}}},
			{Channel: 2, Finished: []offsets.Range{{From: 0, To: 4}}},
		},
	}
}

func TestIngestGivesEachChannelItsOwn(t *testing.T) {
	r, l := ingestable(t)
	r.must(CreateChannel{Key: one, Channel: 3})
	r.must(handed(0))
	if got := l.open(); !slices.Equal(got, []int64{0, 1, 2, 4}) {
		t.Errorf("the lane has %v", got)
	}
	if e, ok := l.due[6]; !ok || e != (parked.Entry{Offset: 6, DueNs: ingestDue, Attempts: 2}) {
		t.Errorf("the lane was offered %v", l.due)
	}
	for id, want := range map[uint64][]int64{1: {0, 1, 2, 4}, 2: {0, 1, 2, 7}, 3: nil} {
		if got := r.left(one, id).log; !slices.Equal(got, want) {
			t.Errorf("channel %d has %v, want %v", id, got, want)
		}
	}
	r.check()
}

func TestIngestHappensOnce(t *testing.T) {
	r, _ := ingestable(t)
	r.must(handed(0))
	end := r.m.partitions[one].end
	for range 2 {
		r.must(handed(0))
		r.must(Ingest{Key: one, Session: Session{9}, From: 5, To: 5}) // has come that far
		if err := r.do(Ingest{Key: one, Session: Session{9}, From: 6, To: 6}); !errors.Is(err, fault.OutOfOrder) {
			t.Errorf("a session that has come to 5 answers %v to 6", err)
		}
		if err := r.do(handed(4)); !errors.Is(err, fault.OutOfOrder) {
			t.Errorf("what was done in part is answered with %v", err)
		}
		if got := r.m.partitions[one].end; got != end {
			t.Fatalf("the log ends at %d, want %d", got, end)
		}
		r.checkpoint()
		r.crash(0, 0, 1)
	}
	r.must(handed(5))
	if got := r.m.partitions[one].end; got != end+5 {
		t.Errorf("the log ends at %d, want %d", got, end+5)
	}
	r.check()
}

// TestIngestIntoAPausedTopic: what channels had been given comes although the topic
// is paused, what waited in it waits on.
func TestIngestIntoAPausedTopic(t *testing.T) {
	r, l := ingestable(t)
	r.must(PauseTopic{Key: one, Paused: true})
	r.must(handed(0))
	r.must(Ingest{Key: one, Session: Session{9}, From: 5, To: 8, Batch: ingestBatch("x", "y")})
	if got := l.open(); !slices.Equal(got, []int64{0, 1, 2, 4}) {
		t.Errorf("the lane has %v", got)
	}
	if err := r.do(handed(8)); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("messages of channels behind those that wait: %v", err)
	}
	r.must(PauseTopic{Key: one})
	if got := l.open(); !slices.Equal(got, []int64{0, 1, 2, 4, 8, 9}) {
		t.Errorf("the lane has %v", got)
	}
	r.check()
}

func TestIngestWithoutChannelsWaits(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(handed(0)) // for channels that were deleted: nobody wants it
	r.must(Ingest{Key: one, Session: Session{9}, From: 5, To: 7, Batch: ingestBatch("x", "y")})
	r.must(CreateChannel{Key: one, Channel: 1})
	if got := r.left(one, 1).log; !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("the channel has %v", got)
	}
	r.check()
}

// TestIngestCreates: what waits in the topic is given to all the channels that are
// made together, once.
func TestIngestCreates(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.publish(one, 3)
	create := Ingest{Key: one, Session: Session{9}, To: 1, Create: true, Channels: []IngestChannel{{Channel: 1}, {Channel: 2}}}
	r.must(create)
	r.must(DropChannel{Key: one, Channel: 2})
	r.must(create)
	if got := r.left(one, 1).log; !slices.Equal(got, []int64{0, 1, 2}) {
		t.Errorf("channel 1 has %v", got)
	}
	if r.m.partitions[one].channel(2) != nil {
		t.Error("a channel that was dropped is back")
	}
	create.Session, create.Channels[0].Channel = Session{8}, 0
	r.must(create)
	if got := r.left(one, 2).log; len(got) > 0 {
		t.Errorf("a channel that is made later has %v", got)
	}
	r.check()
}

// TestIngestOfDeferred: what an edge took with a due time is parked for it here, as
// what is published is.
func TestIngestOfDeferred(t *testing.T) {
	r, l := ingestable(t)
	due := r.now + 1_000_000_000
	batch := AppendBatch(nil, []Message{{Body: []byte("a")}, {Body: []byte("b"), DueNs: due}, {Body: []byte("c"), DueNs: 1}}, r.now)
	in := Ingest{Key: one, Session: Session{9}, To: 3, Batch: batch}
	for range 2 {
		r.must(in)
	}
	if got := l.open(); !slices.Equal(got, []int64{0, 1, 2, 3, 5}) {
		t.Errorf("the lane has %v", got)
	}
	if got := r.left(one, 2).parked; len(got) != 1 || got[4] != due {
		t.Errorf("%v is parked", got)
	}
}

func TestIngestWaitsForRoom(t *testing.T) {
	r, _ := ingestable(t)
	r.reserve = true
	if err := r.do(handed(0)); !errors.Is(err, fault.DiskReserve) {
		t.Errorf("a full disk answers %v", err)
	}
}

func TestIngestsAreBounded(t *testing.T) {
	var table ingests
	for i := range ingestsMax + 10 {
		table.take(Session{byte(i), byte(i >> 8)}, 1, uint64(i+1))
	}
	if len(table) != ingestsMax || table.next(Session{9}) != 0 || table.next(Session{10}) != 1 {
		t.Errorf("%d sessions, the oldest are %d and %d", len(table), table.next(Session{9}), table.next(Session{10}))
	}
	r := reader{b: table.append(nil)}
	if got := r.ingests(); r.bad || !slices.Equal(got, table) {
		t.Errorf("the table comes back as %v", got)
	}
}

// someIngest is what comes next of a session: of the first message the channel has
// none, of the second it had an attempt.
func (r *rig) someIngest(rng *rand.Rand, k Key, channel uint64) Ingest {
	c := Ingest{Key: k, Session: Session{byte(rng.IntN(3))}, Handed: rng.IntN(2) == 0, Batch: AppendBatch(nil, bodies(3), r.now)}
	if p := r.m.partitions[k]; p != nil {
		c.From = p.ingests.next(c.Session)
	}
	c.To = c.From + 3
	if c.Handed {
		c.Channels = []IngestChannel{{
			Channel: channel, Finished: []offsets.Range{{From: 0, To: 1}}, Attempts: []Attempt{{Offset: 1, N: 2}},
		}}
	}
	return c
}
