package broker

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

// What nodes tell each other about consumers, on a wire: format 3, then the fields
// of the structs below in their order. Durations in µs.
const relayFormat = 3

// opsMax bounds the answers in one request.
const opsMax = 64 << 10

// sender is who asks: its Raft id, and which life of that node.
type sender struct{ node, boot uint64 }

// relayed is a request for one channel, to the leader of partitions of its topic.
type relayed struct {
	from         sender
	conversation uint64 // the sender's; what the leader has to say names it
	number       uint64 // of the request in its conversation, rising; 0: it is none's
	topic        uint64
	channelID    uint64 // 0: one that lives in memory
	channel      string
	delivery.RelayRequest
}

func appendRelayed(b []byte, r *relayed) []byte {
	b = append(b, relayFormat)
	b = wire.AppendUints(b, r.from.node, r.from.boot, r.conversation, r.number, r.topic, r.channelID)
	b = wire.AppendBytes(b, r.channel)
	b = wire.AppendUints(b, uint64(len(r.Opens)))
	for i := range r.Opens {
		o := &r.Opens[i]
		b = wire.AppendUints(b, o.Mirror, micros(o.MsgTimeout), micros(o.MaxMsgTimeout), uint64(o.SampleRate))
	}
	if len(r.Opens) > 0 {
		b = appendParts(b, r.Parts)
	}
	b = wire.AppendUints(b, uint64(len(r.Holds)))
	for i := range r.Holds {
		h := &r.Holds[i]
		b = wire.AppendUints(b, h.Mirror, uint64(len(h.Messages)))
		for j := range h.Messages {
			m := &h.Messages[j]
			b = wire.AppendUints(b, uint64(m.Part), uint64(m.Offset), uint64(m.Attempts), micros(m.Age), micros(m.Left))
		}
	}
	b = appendOps(b, r.Ops)
	b = wire.AppendUints(b, uint64(len(r.Closes)))
	for i := range r.Closes {
		b = wire.AppendUints(b, r.Closes[i].Mirror, flag(r.Closes[i].Abnormal), flag(r.Closes[i].Ended), flag(r.Closes[i].Moved))
	}
	b = wire.AppendUints(b, uint64(len(r.Pulls)))
	for i := range r.Pulls {
		b = wire.AppendUints(b, r.Pulls[i].Mirror, uint64(max(r.Pulls[i].N, 0)))
	}
	return b
}

// appendOps writes answers. Those of one consumer to neighbours that say the same are
// one: mostly FINs in the order of the messages.
func appendOps(b []byte, ops []delivery.RelayedOp) []byte {
	b = wire.AppendUints(b, uint64(len(ops)))
	for len(ops) > 0 {
		o := &ops[0]
		n := 1
		for ; n < len(ops); n++ {
			x := &ops[n]
			if x.Offset != o.Offset+int64(n) || x.Mirror != o.Mirror || x.Kind != o.Kind || x.Part != o.Part || x.Attempts != o.Attempts || x.Delay != o.Delay {
				break
			}
		}
		b = wire.AppendUints(b, uint64(n), o.Mirror, uint64(o.Kind), uint64(o.Part), uint64(o.Offset), uint64(o.Attempts), micros(o.Delay))
		ops = ops[n:]
	}
	return b
}

// readOps appends answers to dst.
func readOps(r *wire.Reader, dst []delivery.RelayedOp) []delivery.RelayedOp {
	for left := r.UpTo(opsMax); left > 0 && !r.Bad; {
		n := r.UpTo(left)
		o := delivery.RelayedOp{
			Mirror: r.Uint(), Kind: delivery.OpKind(r.UpTo(uint64(delivery.Return))), Part: part32(r), Offset: offset(r),
			Attempts: uint16(r.UpTo(math.MaxUint16)), Delay: duration(r),
		}
		r.Bad = r.Bad || n == 0 || uint64(o.Offset) > math.MaxInt64-n
		if left -= n; r.Bad {
			break
		}
		for range n {
			dst = append(dst, o)
			o.Offset++
		}
	}
	return dst
}

// decodeRelayed reads a request into q, whose memory it uses.
func decodeRelayed(b []byte, q *relayed) error {
	r, err := beginRelay(b, "request of a relay")
	if err != nil {
		return err
	}
	ops, pulls := q.Ops[:0], q.Pulls[:0]
	*q = relayed{from: sender{r.Uint(), r.Uint()}, conversation: r.Uint(), number: r.Uint(), topic: r.Uint(), channelID: r.Uint()}
	q.channel = string(r.Bytes())
	for range r.Count() {
		q.Opens = append(q.Opens, delivery.MirrorOpen{
			Mirror: r.Uint(), MsgTimeout: duration(r), MaxMsgTimeout: duration(r), SampleRate: int(r.UpTo(100)),
		})
	}
	if len(q.Opens) > 0 {
		q.Parts = readParts(r)
	}
	for range r.Count() {
		h := delivery.MirrorHolds{Mirror: r.Uint()}
		for range r.Count() {
			h.Messages = append(h.Messages, delivery.HeldMessage{
				Part: part32(r), Offset: offset(r), Attempts: uint16(r.UpTo(math.MaxUint16)), Age: duration(r), Left: duration(r),
			})
		}
		q.Holds = append(q.Holds, h)
	}
	q.Ops = readOps(r, ops)
	for range r.Count() {
		q.Closes = append(q.Closes, delivery.MirrorClose{
			Mirror: r.Uint(), Abnormal: r.UpTo(1) == 1, Ended: r.UpTo(1) == 1, Moved: r.UpTo(1) == 1,
		})
	}
	q.Pulls = pulls
	for range r.Count() {
		q.Pulls = append(q.Pulls, delivery.MirrorPull{Mirror: r.Uint(), N: int(r.UpTo(math.MaxInt32))})
	}
	if r.Bad || len(r.B) > 0 || !ValidChannel(q.channel) {
		return r.Malformed("request of a relay")
	}
	return nil
}

// relayReply is being written: what was pulled is copied into it at once. It begins
// with that, each with a 1 before it and the last with a 0 behind.
type relayReply struct {
	life                       uint64 // see mirrorNode; 0: not told
	b                          []byte // nil: nothing was pulled
	failures, lost, unknown    []byte
	nFailures, nLost, nUnknown uint64
}

// reset empties p and keeps its memory, when it is not very much.
func (p *relayReply) reset() {
	*p = relayReply{b: kept(p.b), failures: kept(p.failures), lost: kept(p.lost), unknown: kept(p.unknown)}
}

func kept(b []byte) []byte {
	if cap(b) > 2*pullBytes {
		return nil
	}
	return b[:0]
}

func (p *relayReply) fail(op int, err error) {
	p.failures = wire.AppendUints(p.failures, uint64(op), flag(fault.CodeOf(err) == fault.NotOwner))
	p.nFailures++
}

func (p *relayReply) lose(mirror uint64, m *delivery.HeldMessage) {
	p.lost = wire.AppendUints(p.lost, mirror, uint64(m.Part), uint64(m.Offset))
	p.nLost++
}

func (p *relayReply) unknownMirror(id uint64) {
	p.unknown = wire.AppendUints(p.unknown, id)
	p.nUnknown++
}

// begin writes what stands before all.
func (p *relayReply) begin() {
	if len(p.b) == 0 {
		p.b = append(p.b, relayFormat)
	}
}

func (p *relayReply) pull(mirror uint64, waits bool, got []delivery.Delivery) {
	p.begin()
	b := wire.AppendUints(p.b, 1, mirror, flag(waits), uint64(len(got)))
	for len(got) > 0 {
		n := runOf(got)
		b = appendRun(b, got[:n])
		got = got[n:]
	}
	p.b = b
}

// runOf is how many messages, from the first on, are a run: neighbours in a partition
// that have the same number of deliveries behind them, and all a key or none.
func runOf(got []delivery.Delivery) int {
	first := &got[0]
	n := 1
	for ; n < len(got); n++ {
		d := &got[n]
		if d.Offset != first.Offset+int64(n) || d.Part != first.Part || d.Attempts != first.Attempts ||
			d.TimeNs < got[n-1].TimeNs || (d.Key == nil) != (first.Key == nil) {
			break
		}
	}
	return n
}

// appendRun writes what the messages of a run have in common, and then of each how much
// later than the one before it was published, its body, and its key.
func appendRun(b []byte, run []delivery.Delivery) []byte {
	first := &run[0]
	b = wire.AppendUints(b, uint64(len(run)), uint64(first.Part), uint64(first.Offset), uint64(first.TimeNs), uint64(first.Attempts), flag(first.Key != nil))
	before := first.TimeNs
	for i := range run {
		d := &run[i]
		b = binary.AppendUvarint(b, uint64(d.TimeNs-before))
		b = wire.AppendBytes(b, d.Body)
		if d.Key != nil {
			b = wire.AppendBytes(b, d.Key)
		}
		before = d.TimeNs
	}
	return b
}

// encode ends the reply.
func (p *relayReply) encode(err error) []byte {
	p.begin()
	b := wire.AppendUints(p.b, 0)
	b = wire.AppendError(b, err)
	b = wire.AppendUints(b, p.life)
	b = append(binary.AppendUvarint(b, p.nFailures), p.failures...)
	b = append(binary.AppendUvarint(b, p.nLost), p.lost...)
	b = append(binary.AppendUvarint(b, p.nUnknown), p.unknown...)
	p.b = b
	return b
}

// relayAnswer is a relayReply as the other side reads it.
type relayAnswer struct {
	refused error  // the leader's
	life    uint64 // what its word of consumers belongs to; 0: it does not say
	delivery.RelayReply
	messages []delivery.RelayedMessage // of all that was pulled
}

// reset empties p and keeps its memory.
func (p *relayAnswer) reset() {
	clear(p.Pulled)
	clear(p.messages)
	*p = relayAnswer{messages: p.messages[:0], RelayReply: delivery.RelayReply{
		Failures: p.Failures[:0], Lost: p.Lost[:0], Unknown: p.Unknown[:0], Pulled: p.Pulled[:0],
	}}
}

// Those that nobody reads any more.
var (
	requests = sync.Pool{New: func() any { return new(relayed) }}
	replies  = sync.Pool{New: func() any { return new(relayReply) }}
	answers  = sync.Pool{New: func() any { return new(relayAnswer) }}
)

// decodeRelayReply reads a reply into p, whose memory it uses. Bodies stand in b.
func decodeRelayReply(b []byte, p *relayAnswer) error {
	r, bad := beginRelay(b, "reply to a relay")
	if bad != nil {
		return bad
	}
	p.reset()
	for r.UpTo(1) == 1 {
		m := delivery.MirrorPulled{Mirror: r.Uint(), Waits: r.UpTo(1) == 1}
		from, n := len(p.messages), r.Count()
		p.messages = slices.Grow(p.messages, n)
		for left := uint64(n); left > 0 && !r.Bad; {
			k := r.UpTo(left)
			p.messages = readRun(r, p.messages, k)
			left -= k
		}
		m.Messages = p.messages[from:len(p.messages):len(p.messages)]
		p.Pulled = append(p.Pulled, m)
	}
	p.refused, p.life = r.Error(), r.Uint()
	for range r.Count() {
		p.Failures = append(p.Failures, delivery.OpFailure{Index: int(r.UpTo(math.MaxInt32)), Owner: r.UpTo(1) == 1})
	}
	for range r.Count() {
		p.Lost = append(p.Lost, delivery.HoldLost{Mirror: r.Uint(), Part: part32(r), Offset: offset(r)})
	}
	for range r.Count() {
		p.Unknown = append(p.Unknown, r.Uint())
	}
	if r.Bad || len(r.B) > 0 {
		return r.Malformed("reply to a relay")
	}
	return nil
}

// readRun appends a run of n messages to dst.
func readRun(r *wire.Reader, dst []delivery.RelayedMessage, n uint64) []delivery.RelayedMessage {
	m := delivery.RelayedMessage{
		Part: part32(r), Offset: offset(r), TimeNs: int64(r.UpTo(math.MaxInt64)), Attempts: uint16(r.UpTo(math.MaxUint16)),
	}
	keys := r.UpTo(1) == 1
	r.Bad = r.Bad || n == 0 || uint64(m.Offset) > math.MaxInt64-n
	for ; n > 0 && !r.Bad; n-- {
		m.TimeNs += int64(r.UpTo(uint64(math.MaxInt64 - m.TimeNs)))
		m.Body = r.Bytes()
		if keys {
			m.Key = r.Bytes()
		}
		dst = append(dst, m)
		m.Offset++
	}
	return dst
}

// rung is what a leader tells a node without being asked: mirrors that it has
// something for, and partitions that were emptied.
type rung struct {
	to      sender // who is meant: it may have begun another life
	bells   []bell
	emptied []emptied
}

type bell struct{ conversation, mirror uint64 }

type emptied struct {
	conversation uint64
	part         int32
	before       int64
}

func (r *rung) encode() []byte {
	b := append(make([]byte, 0, 32+8*len(r.bells)), relayFormat)
	b = wire.AppendUints(b, r.to.node, r.to.boot, uint64(len(r.bells)))
	for _, x := range r.bells {
		b = wire.AppendUints(b, x.conversation, x.mirror)
	}
	b = wire.AppendUints(b, uint64(len(r.emptied)))
	for _, x := range r.emptied {
		b = wire.AppendUints(b, x.conversation, uint64(x.part), uint64(x.before))
	}
	return b
}

func decodeRung(b []byte) (*rung, error) {
	r, err := beginRelay(b, "ring of a leader")
	if err != nil {
		return nil, err
	}
	out := &rung{to: sender{r.Uint(), r.Uint()}}
	for range r.Count() {
		out.bells = append(out.bells, bell{r.Uint(), r.Uint()})
	}
	for range r.Count() {
		out.emptied = append(out.emptied, emptied{r.Uint(), part32(r), offset(r)})
	}
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed("ring of a leader")
	}
	return out, nil
}

// presence is what a node says of itself to a leader of its consumers' partitions.
type presence struct {
	from sender
	// shard: everything that the node's consumers hold of its partitions has been
	// told to this leader; 0: nothing of that kind.
	shard uint32
	gone  bool // the node ends: what its consumers held is free
}

func (p *presence) encode() []byte {
	b := append(make([]byte, 0, 32), relayFormat)
	return wire.AppendUints(b, p.from.node, p.from.boot, uint64(p.shard), flag(p.gone))
}

func decodePresence(b []byte) (*presence, error) {
	r, err := beginRelay(b, "presence of a node")
	if err != nil {
		return nil, err
	}
	p := &presence{from: sender{r.Uint(), r.Uint()}, shard: uint32(r.UpTo(math.MaxUint32)), gone: r.UpTo(1) == 1}
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed("presence of a node")
	}
	return p, nil
}

// presenceReply answers a presence; life as in relayAnswer.
func presenceReply(life uint64) []byte {
	return wire.AppendUints(errorReply(nil), life)
}

func decodePresenceReply(b []byte) (life uint64, err error) {
	r, err := beginRelay(b, "answer to a presence")
	if err != nil {
		return 0, err
	}
	if err := r.Error(); err != nil {
		return 0, err
	}
	life = r.Uint()
	if r.Bad || len(r.B) > 0 {
		return 0, r.Malformed("answer to a presence")
	}
	return life, nil
}

// errorReply is a reply that is an error, or nil, alone.
func errorReply(err error) []byte { return wire.AppendError([]byte{relayFormat}, err) }

func decodeErrorReply(b []byte) error {
	if len(b) == 0 || b[0] != relayFormat {
		return fault.New(fault.Unsupported, "read answer of a node: not known to this program")
	}
	err, bad := wire.DecodeError(b[1:])
	if bad != nil {
		return bad
	}
	return err
}

func beginRelay(b []byte, what string) (*wire.Reader, error) {
	r := &wire.Reader{B: b}
	if format := r.Byte(); !r.Bad && format != relayFormat {
		return nil, fault.New(fault.Unsupported, "read %s: format %d is not known to this program", what, format)
	}
	return r, nil
}

func flag(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}

func micros(d time.Duration) uint64 { return uint64(max(d, 0) / time.Microsecond) }

func duration(r *wire.Reader) time.Duration {
	return time.Duration(r.UpTo(math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
}

func part32(r *wire.Reader) int32 { return int32(r.UpTo(math.MaxInt32)) }

func offset(r *wire.Reader) int64 { return int64(r.UpTo(math.MaxInt64)) }
