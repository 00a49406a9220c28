package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/record"
)

// Bounds of what is read.
const (
	messagesDefault = 25
	messagesMax     = 200
	scanDefault     = 10_000
	scanMax         = 100_000
	bodyDefault     = 1024
	bodyMax         = 64 << 10
	searchMax       = 1024
	// answerBytes bounds the bodies of one answer: a page ends behind them.
	answerBytes = 8 << 20
)

// readAsk says which messages of a partition's log are wanted.
type readAsk struct {
	Partition int32  `json:"partition"`
	From      int64  `json:"from,omitempty"`
	FromNs    int64  `json:"from_ns,omitempty"`
	Last      int64  `json:"last,omitempty"`
	Before    int64  `json:"before,omitempty"` // > 0: the last ones below this offset
	Limit     int    `json:"limit"`
	Scan      int    `json:"scan,omitempty"` // most messages read; 0: about as many as wanted
	MaxBody   int    `json:"max_body"`       // -1: all of it
	Search    []byte `json:"search,omitempty"`
	Key       []byte `json:"key,omitempty"`
	HasKey    bool   `json:"has_key,omitempty"`
}

// readSaid is what was read.
type readSaid struct {
	Items   []Message `json:"items"`
	Times   []int64   `json:"times"` // unix ns, of Items
	First   int64     `json:"first"` // offset that the reading began at
	Next    int64     `json:"next"`
	End     int64     `json:"end"`
	Records int       `json:"records"`
	Bytes   int64     `json:"bytes"`
	Gaps    []Gap     `json:"gaps,omitempty"`
}

// wants reports whether a message is searched for.
func (a *readAsk) wants(r *record.Record) bool {
	if a.HasKey && !bytes.Equal(r.Key, a.Key) {
		return false
	}
	return len(a.Search) == 0 || bytes.Contains(r.Value, a.Search) || bytes.Contains(r.Key, a.Search)
}

// localRead reads a partition that this node leads.
func (e *Engine) localRead(ctx context.Context, topic string, a *readAsk) (*readSaid, error) {
	if a.Before > 0 {
		return e.localReadBefore(ctx, topic, a)
	}
	scan := a.Scan
	if scan <= 0 {
		scan = a.Limit
	}
	out := &readSaid{Items: []Message{}}
	size, full := 0, false
	if a.Last > 0 {
		scan = int(min(a.Last, scanMax)) + 1
	}
	r := broker.Range{Partition: a.Partition, From: a.From, FromNs: a.FromNs, Last: a.Last, MaxRecords: scan}
	end, err := e.Broker.Read(ctx, topic, r, func(s *broker.Stored) bool {
		if full {
			return false
		}
		if a.wants(&s.Record) {
			m := messageOf(s, a.MaxBody)
			size += len(m.Body)
			out.Items, out.Times = append(out.Items, m), append(out.Times, s.TimeNs)
			if a.Last > 0 { // of those that are found, the last ones
				over := max(len(out.Items)-a.Limit, 0)
				out.Items, out.Times = out.Items[over:], out.Times[over:]
			} else {
				full = len(out.Items) >= a.Limit || size >= answerBytes
			}
		}
		return !full
	})
	if err != nil {
		return nil, err
	}
	out.First, out.Next, out.End, out.Records, out.Bytes = end.First, end.Next, end.End, end.Records, end.Bytes
	for _, g := range end.Gaps {
		out.Gaps = append(out.Gaps, gapOf(a.Partition, g))
	}
	return out, nil
}

// messageOf copies a message; its body up to a bound, -1: all of it.
func messageOf(s *broker.Stored, maxBody int) Message {
	r := &s.Record
	m := Message{
		Partition: s.Partition, Offset: s.Offset, ID: s.ID.String(),
		TimestampAt: s.TimeNs / 1e6, TimestampNs: strconv.FormatInt(s.TimeNs, 10), Size: len(r.Value),
	}
	body := r.Value
	if maxBody >= 0 && len(body) > maxBody {
		body, m.Truncated = body[:maxBody], true
	}
	m.Body = append([]byte{}, body...)
	if r.Key != nil {
		m.Key = append([]byte{}, r.Key...)
	}
	for k, v := range r.Headers() {
		if string(k) == record.HeaderID {
			m.Name = append([]byte{}, v...)
			continue
		}
		if m.Headers == nil {
			m.Headers = make(map[string][]byte)
		}
		m.Headers[string(k)] = append([]byte{}, v...)
	}
	return m
}

// located finds who is to be asked about a partition: 0 is this node.
func (e *Engine) located(m *meta.Topic, part int32) (uint64, error) {
	if e.Peers == nil {
		return 0, nil
	}
	if m.Ephemeral() {
		for _, n := range e.Meta.View().Nodes {
			if n.Boot == m.Boot && n.ID != e.Meta.Node().ID {
				return n.ID, nil
			}
		}
		return 0, nil
	}
	if part < 0 || int(part) >= len(m.Partitions) {
		return 0, fault.New(fault.InvalidRequest, "topic %s has no partition %d", m.Name, part)
	}
	id, self := e.Peers.Leader(m.Partitions[part])
	switch {
	case self:
		return 0, nil
	case id == 0:
		return 0, fault.New(fault.NotLeader, "partition %d of topic %s has no leader", part, m.Name)
	}
	return id, nil
}

// read reads a partition where it is led.
func (e *Engine) read(ctx context.Context, m *meta.Topic, a *readAsk) (*readSaid, error) {
	id, err := e.located(m, a.Partition)
	if err != nil {
		return nil, err
	}
	if id == 0 {
		return e.localRead(ctx, m.Name, a)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askPatience)
	defer cancel()
	return ask[*readSaid](ctx, e, id, &question{Op: opRead, Topic: m.Name, Read: a})
}

// knownTopic is a topic as metadata has it.
func (e *Engine) knownTopic(name string) (*meta.Topic, error) {
	if m, ok := e.Meta.View().Topic(name); ok && !m.Deleting {
		return m, nil
	}
	return nil, topicNotFound(name)
}

// browsing is a request to browse.
type browsing struct {
	ask    readAsk
	latest bool
	parts  []int32
	from   browseCursor // where to go on
	before browseCursor // where to go back from
}

func (f *Front) browse(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	m, err := e.knownTopic(r.PathValue("topic"))
	if err != nil {
		return nil, err
	}
	b, err := browsingOf(r.URL.Query(), m)
	if err != nil {
		return nil, err
	}
	said := make([]*readSaid, len(b.parts))
	errs := make([]error, len(b.parts))
	var all sync.WaitGroup
	for i, part := range b.parts {
		a := b.ask
		a.Partition = part
		if at, ok := b.from[part]; ok {
			a.From, a.FromNs, a.Last = at, 0, 0
		}
		if at, ok := b.before[part]; ok {
			if a.Before = at; at <= 0 { // there is nothing below
				said[i] = &readSaid{End: math.MaxInt64}
				continue
			}
		}
		all.Go(func() { said[i], errs[i] = e.read(ctx, m, &a) })
	}
	all.Wait()
	return b.page(said, errs)
}

// page merges what the partitions said by time.
func (b *browsing) page(said []*readSaid, errs []error) (any, error) {
	p := MessagePage{At: time.Now().UnixMilli(), Items: []Message{}, Gaps: []Gap{}, Missing: []Missing{}}
	p.Scanned.Complete = true
	next, prev := make(browseCursor), make(browseCursor)
	failed := 0
	for i, s := range said {
		part := b.parts[i]
		if errs[i] != nil {
			failed++
			p.Missing = append(p.Missing, Missing{Node: "partition " + strconv.Itoa(int(part)), Reason: errs[i].Error()})
			p.Scanned.Complete = false
			b.stay(part, next, prev)
			continue
		}
		for k := range s.Items {
			s.Items[k].ns = s.Times[k]
		}
		p.Items = append(p.Items, s.Items...)
		p.Gaps = append(p.Gaps, s.Gaps...)
		p.Scanned.Records += s.Records
		p.Scanned.Bytes += s.Bytes
		p.Scanned.Complete = p.Scanned.Complete && s.Next >= s.End
		next[part], prev[part] = s.Next, s.First
	}
	if failed == len(said) {
		return nil, errors.Join(errs...)
	}
	slices.SortStableFunc(p.Items, func(x, y Message) int { return cmp.Compare(x.ns, y.ns) })
	b.cut(&p, next, prev)
	if !p.Scanned.Complete {
		p.Next = next.text()
	}
	if slices.ContainsFunc(b.parts, func(part int32) bool { return prev[part] > 0 }) {
		p.Prev = prev.text()
	}
	return p, nil
}

// stay keeps the place on a partition that did not answer.
func (b *browsing) stay(part int32, next, prev browseCursor) {
	if at, ok := b.from[part]; ok {
		next[part], prev[part] = at, at
	}
	if at, ok := b.before[part]; ok {
		next[part], prev[part] = at, at
	}
}

// cut leaves as many messages as are wanted: the last ones where the reading goes
// back, else the first ones.
func (b *browsing) cut(p *MessagePage, next, prev browseCursor) {
	over := len(p.Items) - b.ask.Limit
	switch {
	case over <= 0:
	case b.latest || b.before != nil:
		for _, m := range p.Items[:over] { // the highest of each is last
			prev[max(m.Partition, 0)] = m.Offset + 1
		}
		p.Items = p.Items[over:]
	default:
		p.Scanned.Complete = false
		for _, m := range slices.Backward(p.Items[b.ask.Limit:]) { // the lowest of each is last
			next[max(m.Partition, 0)] = m.Offset
		}
		p.Items = p.Items[:b.ask.Limit]
	}
}

func browsingOf(q url.Values, m *meta.Topic) (b browsing, err error) {
	a := &b.ask
	if a.Limit, err = intParam(q, "limit", messagesDefault, 1, messagesMax); err != nil {
		return b, err
	}
	if a.MaxBody, err = intParam(q, "max_body", bodyDefault, 0, bodyMax); err != nil {
		return b, err
	}
	if a.Search, err = searchParam(q); err != nil {
		return b, err
	}
	if q.Has("key") {
		a.Key, a.HasKey = []byte(q.Get("key")), true
	}
	scan, err := intParam(q, "scan", scanDefault, 1, scanMax)
	if err != nil {
		return b, err
	}
	if len(a.Search) > 0 || a.HasKey {
		a.Scan = scan
	}
	if err = b.partitions(q, m); err != nil {
		return b, err
	}
	return b, b.start(q)
}

func (b *browsing) partitions(q url.Values, m *meta.Topic) error {
	n := max(len(m.Partitions), 1)
	if q.Has("partition") {
		part, err := intParam(q, "partition", 0, 0, n-1)
		b.parts = []int32{int32(part)}
		return err
	}
	for i := range n {
		b.parts = append(b.parts, int32(i))
	}
	return nil
}

// start reads where to begin.
func (b *browsing) start(q url.Values) error {
	a := &b.ask
	var err error
	if text := q.Get("cursor"); text != "" {
		b.from, err = parseCursor("cursor", text)
		return err
	}
	if text := q.Get("before"); text != "" {
		b.before, err = parseCursor("before", text)
		return err
	}
	switch {
	case q.Has("offset"):
		if len(b.parts) > 1 {
			return fault.New(fault.InvalidRequest, "offset wants a partition: the topic has %d", len(b.parts))
		}
		a.From, err = int64Param(q, "offset")
	case q.Has("time"):
		var ms int64
		ms, err = int64Param(q, "time")
		a.FromNs = max(min(ms, 1<<43)*1e6, 1)
	case q.Get("from") == "latest":
		b.latest, a.Last = true, int64(max(a.Limit, a.Scan))
	case q.Get("from") != "" && q.Get("from") != "earliest":
		err = fault.New(fault.InvalidRequest, "from %q: want earliest or latest", q.Get("from"))
	}
	return err
}

func int64Param(q url.Values, name string) (int64, error) {
	n, err := strconv.ParseInt(q.Get(name), 10, 64)
	if err != nil || n < 0 {
		return 0, fault.New(fault.InvalidRequest, "%s %q: want a number that is not negative", name, q.Get(name))
	}
	return n, nil
}

// searchParam reads what bodies are searched for.
func searchParam(q url.Values) ([]byte, error) {
	text := q.Get("search")
	if len(text) > searchMax {
		return nil, fault.New(fault.InvalidRequest, "search is longer than %d bytes", searchMax)
	}
	if digits, ok := strings.CutPrefix(text, "hex:"); ok {
		raw, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			return nil, fault.New(fault.InvalidRequest, "search %q: want hex digits behind hex:", text)
		}
		return raw, nil
	}
	return []byte(text), nil
}

// one reads the message that the path names, with the whole body.
func (f *Front) one(ctx context.Context, e *Engine, r *http.Request) (*Message, error) {
	m, err := e.knownTopic(r.PathValue("topic"))
	if err != nil {
		return nil, err
	}
	part, err := strconv.ParseInt(r.PathValue("partition"), 10, 32)
	if err != nil || part < 0 {
		return nil, fault.New(fault.InvalidRequest, "partition %q: want a number", r.PathValue("partition"))
	}
	offset, err := strconv.ParseInt(r.PathValue("offset"), 10, 64)
	if err != nil || offset < 0 {
		return nil, fault.New(fault.InvalidRequest, "offset %q: want a number", r.PathValue("offset"))
	}
	s, err := e.read(ctx, m, &readAsk{Partition: int32(part), From: offset, Limit: 1, MaxBody: -1})
	if err != nil {
		return nil, err
	}
	if len(s.Items) == 0 || s.Items[0].Offset != offset {
		text := "there is no message at offset " + strconv.FormatInt(offset, 10) + " (any more)"
		return nil, &apiError{http.StatusNotFound, "MESSAGE_NOT_FOUND", text, "messages that all channels have finished are deleted in the course of time"}
	}
	return &s.Items[0], nil
}

func (f *Front) getMessage(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	m, err := f.one(ctx, e, r)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// getBody answers the bytes of a message, never as a page.
func (f *Front) getBody(w http.ResponseWriter, r *http.Request) {
	e := f.engine.Load()
	if e == nil {
		refuse(w, errStarting)
		return
	}
	m, err := f.one(r.Context(), e, r)
	if err != nil {
		refuse(w, e.missing(err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="message-`+m.ID+`.bin"`)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(m.Body)))
	_, _ = w.Write(m.Body) // a client that is gone needs no answer
}
