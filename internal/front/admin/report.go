package admin

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
)

// report is what one node tells of all topics: what it leads, what lives in its
// memory, and the consumers that are connected to it.
type report struct {
	at     int64 // unix ms, of that node's clock
	node   NodeFigures
	topics []topicReport // by name
	failed string        // why a part of it is missing
}

type topicReport struct {
	name           string
	id             uint64
	waiting        int64
	records, bytes int64 // since the node's process started
	logBytes       int64
	channels       []channelReport // by name
}

type channelReport struct {
	name                       string
	flags                      uint64
	backlog, inFlight          int64
	deferred                   int64
	records, requeued, timeout int64 // since the node's process started
	consumers                  int64
	oldest                     int64 // unix ns; 0: none
}

// Flags of a channelReport.
const (
	flagPaused uint64 = 1 << iota
	flagEphemeral
)

// local makes this node's report. What it can't tell in time is left out.
func (e *Engine) local(ctx context.Context) *report {
	r := &report{at: time.Now().UnixMilli(), node: e.Figures()}
	topics, err := e.Broker.Figures(ctx, broker.Filter{})
	if err != nil {
		r.failed = err.Error()
	}
	consumers := e.ConsumerCounts()
	r.topics = make([]topicReport, 0, len(topics))
	n := 0
	for i := range topics {
		n += len(topics[i].Channels)
	}
	room := make([]channelReport, 0, n) // all in one piece
	for i := range topics {
		t := &topics[i]
		row := topicReport{
			name: t.Name, id: t.ID, waiting: t.Depth, records: t.MessageCount, bytes: t.MessageBytes, logBytes: t.LogBytes,
		}
		from := len(room)
		says := len(t.Parts) > 0 || e.Peers == nil || t.Depth+t.MessageCount > 0
		for k := range t.Channels {
			c := &t.Channels[k]
			n := consumers[ChannelName{t.Name, c.Name}]
			says = says || n > 0 || c.Ephemeral || c.Depth+c.InFlight+c.Deferred+c.MessageCount > 0
			room = append(room, channelOf(c, t.Oldest[k], n))
		}
		row.channels = room[from:len(room):len(room)]
		if says {
			r.topics = append(r.topics, row)
		}
	}
	return r
}

func channelOf(c *broker.ChannelStats, oldest int64, consumers int) channelReport {
	r := channelReport{
		name: c.Name, backlog: c.Depth, inFlight: c.InFlight, deferred: c.Deferred, records: c.MessageCount,
		requeued: c.RequeueCount, timeout: c.TimeoutCount, consumers: int64(consumers), oldest: oldest,
	}
	if c.Paused {
		r.flags |= flagPaused
	}
	if broker.IsEphemeral(c.Name) || c.Ephemeral {
		r.flags |= flagEphemeral
	}
	return r
}

// A report on a wire, integers as varints: format 1, time, the node's figures as
// JSON, the text of what failed, count of topics: name, id, five figures, count
// of channels: name, eight figures. Texts are a length and bytes.
const reportFormat = 1

var errReport = errors.New("malformed report")

func (r *report) encode() ([]byte, error) {
	node, err := json.Marshal(r.node)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 1024+64*len(r.topics)), reportFormat)
	b = binary.AppendVarint(b, r.at)
	b = appendText(appendText(b, string(node)), r.failed)
	b = binary.AppendVarint(b, int64(len(r.topics)))
	for i := range r.topics {
		t := &r.topics[i]
		b = binary.AppendUvarint(appendText(b, t.name), t.id)
		b = appendInts(b, t.waiting, t.records, t.bytes, t.logBytes, int64(len(t.channels)))
		for k := range t.channels {
			c := &t.channels[k]
			b = appendInts(appendText(b, c.name), int64(c.flags), c.backlog, c.inFlight, c.deferred, c.records, c.requeued, c.timeout, c.consumers, c.oldest)
		}
	}
	return b, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func appendInts(b []byte, list ...int64) []byte {
	for _, v := range list {
		b = binary.AppendVarint(b, v)
	}
	return b
}

func decodeReport(b []byte) (*report, error) {
	if len(b) == 0 || b[0] != reportFormat {
		return nil, errReport
	}
	d := reportReader{b: b[1:]}
	r := &report{at: d.int()}
	if json.Unmarshal([]byte(d.text()), &r.node) != nil {
		return nil, errReport
	}
	r.failed = d.text()
	r.topics = make([]topicReport, d.count())
	for i := range r.topics {
		t := &r.topics[i]
		t.name, t.id = d.text(), d.uint()
		d.ints(&t.waiting, &t.records, &t.bytes, &t.logBytes)
		t.channels = make([]channelReport, d.count())
		for k := range t.channels {
			c := &t.channels[k]
			c.name, c.flags = d.text(), uint64(d.int())
			d.ints(&c.backlog, &c.inFlight, &c.deferred, &c.records, &c.requeued, &c.timeout, &c.consumers, &c.oldest)
		}
	}
	if d.bad || len(d.b) > 0 {
		return nil, errReport
	}
	return r, nil
}

type reportReader struct {
	b   []byte
	bad bool
}

func (d *reportReader) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reportReader) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reportReader) ints(list ...*int64) {
	for _, v := range list {
		*v = d.int()
	}
}

// count reads the length of a list, whose elements take some bytes each.
func (d *reportReader) count() int {
	n := d.int()
	if n < 0 || n > int64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *reportReader) text() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
