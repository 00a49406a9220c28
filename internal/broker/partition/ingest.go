package partition

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
)

// Session names what is taken over from another server: the same contents have
// the same name, however often they are read.
type Session [16]byte

// Ingest appends messages that were published to another server, and says in the
// same step what each channel had finished of them there. The messages of a
// session have positions, from 0 on; the partition remembers how far a session
// has come, so that what is given again happens once:
//
//   - To is not beyond what the session has come to: it was done before, nothing
//     happens, and that is no error.
//   - From is not where the session has come to: fault.OutOfOrder, nothing happens.
//
// So an Ingest without messages of which From and To are the same asks whether a
// session has come that far. To may be beyond From by more than the messages: the
// other positions stand for something else that the giver has done.
type Ingest struct {
	Key
	Session  Session
	From, To uint64
	// Handed: the other server had handed the messages to channels, so that those
	// which are not named here get none of them. Otherwise they wait in the topic
	// as what is published does. A topic that is paused while messages wait in it
	// refuses what was handed: it can't be told apart from what waits.
	Handed bool
	// Create: there are no messages, and Channels are made, all at once, where they
	// are not there. So that what waits in the topic is given to all of them.
	Create   bool
	Channels []IngestChannel // by id; none unless Handed or Create
	// Batch is the record batch of the messages, as AppendBatch makes it; empty:
	// no messages. None of them has a due time if they were handed to channels.
	Batch []byte
}

// IngestChannel is where a channel stands in the messages of an Ingest, by their
// place in the batch.
type IngestChannel struct {
	Channel  uint64
	Finished []offsets.Range // rising
	// Attempts are the messages that the channel has delivered before, rising, and
	// not among the finished. They are delivered before those of the log, as what
	// was requeued is.
	Attempts []Attempt
}

// The flags of an ingest command.
const (
	flagHanded       = 1
	flagIngestCreate = 2
)

func (Ingest) kind() kind { return kindIngest }

func (c Ingest) payload(buf []byte) []byte {
	buf = append(buf, c.Session[:]...)
	buf = binary.AppendUvarint(buf, c.From)
	buf = binary.AppendUvarint(buf, c.To)
	buf = append(buf, bit(c.Handed, flagHanded)|bit(c.Create, flagIngestCreate))
	buf = binary.AppendUvarint(buf, uint64(len(c.Channels)))
	for i := range c.Channels {
		ch := &c.Channels[i]
		buf = binary.AppendUvarint(buf, ch.Channel)
		buf = binary.AppendUvarint(buf, uint64(len(ch.Finished)))
		last := int64(0)
		for _, r := range ch.Finished {
			buf = binary.AppendUvarint(buf, uint64(r.From-last))
			buf = binary.AppendUvarint(buf, uint64(r.To-r.From))
			last = r.To
		}
		buf = binary.AppendUvarint(buf, uint64(len(ch.Attempts)))
		last = 0
		for _, a := range ch.Attempts {
			buf = binary.AppendUvarint(buf, uint64(a.Offset-last))
			buf = binary.AppendUvarint(buf, uint64(a.N))
			last = a.Offset + 1
		}
	}
	return appendBytes(buf, c.Batch)
}

// ingest reads the payload of an ingest command behind the key.
func (r *reader) ingest(k Key) Ingest {
	c := Ingest{Key: k}
	if len(r.b) < len(c.Session) {
		r.fail()
		return c
	}
	copy(c.Session[:], r.b)
	r.b = r.b[len(c.Session):]
	c.From, c.To = r.uvarint(), r.uvarint()
	flags := r.flags(flagHanded | flagIngestCreate)
	c.Handed, c.Create = flags&flagHanded != 0, flags&flagIngestCreate != 0
	end := int64(0)
	for range r.count(3) {
		ch := r.ingestChannel()
		if n := len(c.Channels); n > 0 && ch.Channel <= c.Channels[n-1].Channel {
			r.fail()
		}
		if n := len(ch.Finished); n > 0 {
			end = max(end, ch.Finished[n-1].To)
		}
		if n := len(ch.Attempts); n > 0 {
			end = max(end, ch.Attempts[n-1].Offset+1)
		}
		c.Channels = append(c.Channels, ch)
	}
	count := int64(0)
	if b := r.bytes(); len(b) > 0 {
		c.Batch = b
		if count = ingestible(c.Batch, !c.Handed); count == 0 {
			r.fail()
		}
	}
	if c.To < c.From || end > count || uint64(count) > c.To-c.From || c.Create && (c.Handed || count > 0) ||
		!c.Handed && !c.Create && len(c.Channels) > 0 {
		r.fail()
	}
	return c
}

// ingestible is the number of messages in a record batch; 0 for one that can't be
// taken over. deferred: they may have due times.
func ingestible(batch []byte, deferred bool) int64 {
	info, err := record.Parse(batch)
	if err != nil || info.Size != len(batch) || info.Count < 1 || int(info.LastDelta) != info.Count-1 ||
		info.CRC != record.Checksum(batch) {
		return 0
	}
	it, n := record.Records(batch), int64(0)
	var r record.Record
	for ; it.Next(&r); n++ {
		if _, due := r.Due(); due && !deferred || int64(r.Delta) != n {
			return 0
		}
	}
	if it.Err() != nil || n != int64(info.Count) {
		return 0
	}
	return n
}

func (r *reader) ingestChannel() IngestChannel {
	ch := IngestChannel{Channel: r.uvarint()}
	last := int64(0)
	for range r.count(2) {
		from, n := r.length(), r.length()
		if n == 0 || from > math.MaxInt32 || n > math.MaxInt32 || last > math.MaxInt32 {
			r.fail()
			return ch
		}
		last += from + n
		ch.Finished = append(ch.Finished, offsets.Range{From: last - n, To: last})
	}
	last = 0
	for range r.count(2) {
		gap, n := r.length(), r.attempts()
		if gap > math.MaxInt32 || last > math.MaxInt32 {
			r.fail()
			return ch
		}
		last += gap
		ch.Attempts = append(ch.Attempts, Attempt{Offset: last, N: n})
		last++
	}
	return ch
}

// size is an upper bound of what the command takes in an entry.
func (c *Ingest) size() int {
	n := commandHeader + keySizeMax + len(c.Session) + 5*binary.MaxVarintLen64 + len(c.Batch)
	for i := range c.Channels {
		n += (3 + 2*len(c.Channels[i].Finished) + 2*len(c.Channels[i].Attempts)) * binary.MaxVarintLen64
	}
	return n
}

// ingestDue is when messages are due that another server has delivered before: at
// once, and with a time that no lane marks with what it holds.
const ingestDue = 1

// ingest makes an Ingest fact. own: it was given on this node.
func (m *Machine) ingest(e *shard.Entry, c *Ingest, own bool) error {
	p, err := m.find(c.Key)
	if err != nil {
		return err
	}
	at := p.ingests.next(c.Session)
	doubled := plant.On("ingest-doubled") && c.From < at
	switch {
	case c.To <= at && !doubled:
		return nil
	case c.From != at && !doubled:
		return fault.New(fault.OutOfOrder, "take messages over from position %d on: the session has come to %d", c.From, at)
	case c.Handed && len(c.Batch) > 0 && p.paused && p.handOver < p.end:
		return fault.New(fault.InvalidRequest, "topic %s is paused here and messages wait in it: those of its channels can't be put behind them", p.name)
	}
	if c.Create {
		for _, ch := range c.Channels {
			m.createChannel(p, CreateChannel{Key: c.Key, Channel: ch.Channel}, own)
		}
		p.handOn()
		p.settle()
	}
	if len(c.Batch) > 0 && p.wants(c) {
		m.appendIngest(p, e, c, own)
	}
	p.ingests.take(c.Session, c.To, e.Index)
	p.touch()
	return nil
}

// wants reports whether anybody is still to get one of the messages: channels may
// have been deleted since the other server gave it to them.
func (p *partition) wants(c *Ingest) bool {
	return !c.Handed || slices.ContainsFunc(c.Channels, func(ch IngestChannel) bool { return p.channel(ch.Channel) != nil })
}

// appendIngest appends the messages, and finishes for each channel what it is not
// to get, before any lane can see them.
func (m *Machine) appendIngest(p *partition, e *shard.Entry, c *Ingest, own bool) {
	info, _ := record.Parse(c.Batch) // decode has looked
	batch := c.Batch
	if 4*len(batch) < len(e.Data) {
		batch = bytes.Clone(batch)
	}
	base := p.end
	handed := c.Handed && p.handOver == base // else there is no channel
	ns := max(m.time, p.lastNs+1)
	p.log.Append(seglog.Batch{
		Base: base, Count: int32(info.Count), Index: e.Index,
		Epoch: uint32(e.Term) & 0x7fffffff, TimeNs: ns, Data: batch,
	})
	p.end += int64(info.Count)
	p.lastNs = ns + int64(info.Count) - 1
	p.noteEpoch(e.Term, base)
	if !c.Handed && !p.paused && len(p.channels) > 0 {
		_ = m.parkDue(p, batch, base) // decode has read every record
	}
	for _, ch := range p.channels {
		i, ok := slices.BinarySearchFunc(c.Channels, ch.id, func(x IngestChannel, id uint64) int {
			return cmp.Compare(x.Channel, id)
		})
		switch {
		case ok:
			m.settleIngest(p, ch, base, &c.Channels[i])
		case c.Handed:
			ch.pass(base, p.end)
		}
	}
	if handed {
		p.handOver = p.end
		for _, ch := range p.channels {
			if ch.lane != nil {
				ch.lane.lane.Limit(p.handOver)
			}
		}
	}
	p.handOn()
	p.settle()
	p.touchLog()
	if own || m.term != 0 && e.Term == m.term {
		p.messages += int64(info.Count)
		p.bytes += bodyBytes(batch)
	}
}

// settleIngest takes from the channel what it had finished, and parks what it had
// delivered, so that it comes again with its number of attempts.
func (m *Machine) settleIngest(p *partition, c *channel, base int64, x *IngestChannel) {
	for _, r := range x.Finished {
		c.pass(base+r.From, base+r.To)
	}
	for _, a := range x.Attempts {
		if offset := base + a.Offset; !c.ephemeral && c.has(offset) {
			c.pass(offset, offset+1)
			m.park(p, c, parked.Entry{Offset: offset, DueNs: ingestDue, Attempts: a.N})
		}
	}
	m.schedule(c.lane)
}

// pass finishes messages that no lane has seen yet.
func (c *channel) pass(from, to int64) {
	from = max(from, c.floor)
	if from >= to {
		return
	}
	c.finish(from, to)
	if c.lane != nil {
		c.lane.lane.Skip(from, to)
	}
}

// bodyBytes is the size of a batch's bodies.
func bodyBytes(batch []byte) (n int64) {
	it := record.Records(batch)
	var r record.Record
	for it.Next(&r) {
		n += int64(len(r.Value))
	}
	return n
}

// ingestsMax is how many sessions a partition remembers; the one that has been
// silent for longest is forgotten for a new one. It is part of the replicated rules.
const ingestsMax = 256

// ingested is how far a session has come. It is replicated.
type ingested struct {
	session Session
	next    uint64 // position
	index   uint64 // of the entry that brought it there
}

// ingests are the sessions of a partition, by name.
type ingests []ingested

func (t ingests) find(s Session) (int, bool) {
	return slices.BinarySearchFunc(t, s, func(x ingested, s Session) int { return bytes.Compare(x.session[:], s[:]) })
}

// next is where a session goes on; 0 for one that is not known.
func (t ingests) next(s Session) uint64 {
	if i, ok := t.find(s); ok {
		return t[i].next
	}
	return 0
}

func (t *ingests) take(s Session, next, index uint64) {
	i, ok := t.find(s)
	if !ok && len(*t) >= ingestsMax {
		oldest := 0
		for j := range *t {
			if (*t)[j].index < (*t)[oldest].index {
				oldest = j
			}
		}
		*t = slices.Delete(*t, oldest, oldest+1)
		if oldest < i {
			i--
		}
	}
	if !ok {
		*t = slices.Insert(*t, i, ingested{session: s})
	}
	(*t)[i].next, (*t)[i].index = next, index
}

// append writes the table as it stands in the partition's state.
func (t ingests) append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(t)))
	for i := range t {
		buf = append(buf, t[i].session[:]...)
		buf = binary.AppendUvarint(buf, t[i].next)
		buf = binary.AppendUvarint(buf, t[i].index)
	}
	return buf
}

// ingests takes a table off a state.
func (r *reader) ingests() ingests {
	var t ingests
	for range r.count(len(Session{}) + 2) {
		var x ingested
		copy(x.session[:], r.b)
		r.b = r.b[min(len(x.session), len(r.b)):]
		x.next, x.index = r.uvarint(), r.uvarint()
		if n := len(t); n == ingestsMax || n > 0 && bytes.Compare(t[n-1].session[:], x.session[:]) >= 0 {
			r.fail()
		}
		if r.bad {
			return nil
		}
		t = append(t, x)
	}
	return t
}

// grows reports whether the item adds messages to a log, and so must wait while the
// tails take too much memory.
func (i *item) grows() bool {
	if i.publish != nil {
		return true
	}
	_, ok := i.command.(Ingest)
	return ok
}

// refuseIngest is why an Ingest is not taken now: the disk is as full as publishes
// may make it.
func refuseIngest(c Command, o *Options) error {
	if _, ok := c.(Ingest); ok && o.Reserve != nil && o.Reserve() {
		return fault.DiskReserve
	}
	return nil
}
