package broker

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

// What nodes tell each other about consumers, on a wire: format 1, then the fields
// of the structs below in their order. Durations in µs.
const relayFormat = 1

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
	b = wire.AppendUints(b, uint64(len(r.Ops)))
	for i := range r.Ops {
		o := &r.Ops[i]
		b = wire.AppendUints(b, o.Mirror, uint64(o.Kind), uint64(o.Part), uint64(o.Offset), uint64(o.Attempts), micros(o.Delay))
	}
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

func decodeRelayed(b []byte) (*relayed, error) {
	r, err := beginRelay(b, "request of a relay")
	if err != nil {
		return nil, err
	}
	q := &relayed{from: sender{r.Uint(), r.Uint()}, conversation: r.Uint(), number: r.Uint(), topic: r.Uint(), channelID: r.Uint()}
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
	for range r.Count() {
		q.Ops = append(q.Ops, delivery.RelayedOp{
			Mirror: r.Uint(), Kind: delivery.OpKind(r.UpTo(uint64(delivery.Return))), Part: part32(r), Offset: offset(r),
			Attempts: uint16(r.UpTo(math.MaxUint16)), Delay: duration(r),
		})
	}
	for range r.Count() {
		q.Closes = append(q.Closes, delivery.MirrorClose{
			Mirror: r.Uint(), Abnormal: r.UpTo(1) == 1, Ended: r.UpTo(1) == 1, Moved: r.UpTo(1) == 1,
		})
	}
	for range r.Count() {
		q.Pulls = append(q.Pulls, delivery.MirrorPull{Mirror: r.Uint(), N: int(r.UpTo(math.MaxInt32))})
	}
	if r.Bad || len(r.B) > 0 || !ValidChannel(q.channel) {
		return nil, r.Malformed("request of a relay")
	}
	return q, nil
}

// relayedOverhead is about what a message takes in a reply beside its body and key.
const relayedOverhead = 28

// relayReply is being written: what was pulled is copied into it at once.
type relayReply struct {
	life                                 uint64 // see mirrorNode; 0: not told
	failures, lost, unknown, pulled      []byte
	nFailures, nLost, nUnknown, nPulleds uint64
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

func (p *relayReply) pull(mirror uint64, waits bool, got []delivery.Delivery, at func(delivery.ID) (part int32, offset int64)) {
	size := 3 * binary.MaxVarintLen64
	for i := range got {
		size += relayedOverhead + len(got[i].Body) + len(got[i].Key)
	}
	p.pulled = slices.Grow(p.pulled, size)
	p.pulled = wire.AppendUints(p.pulled, mirror, flag(waits), uint64(len(got)))
	p.nPulleds++
	for i := range got {
		d := &got[i]
		part, offset := at(d.ID)
		p.pulled = wire.AppendUints(p.pulled, uint64(part), uint64(offset), uint64(d.TimeNs), uint64(d.Attempts), flag(d.Key != nil))
		p.pulled = wire.AppendBytes(p.pulled, d.Body)
		if d.Key != nil {
			p.pulled = wire.AppendBytes(p.pulled, d.Key)
		}
	}
}

func (p *relayReply) encode(err error) []byte {
	b := make([]byte, 0, 64+len(p.failures)+len(p.lost)+len(p.unknown)+len(p.pulled))
	b = wire.AppendError(append(b, relayFormat), err)
	b = wire.AppendUints(b, p.life)
	for _, list := range []struct {
		n uint64
		b []byte
	}{{p.nFailures, p.failures}, {p.nLost, p.lost}, {p.nUnknown, p.unknown}, {p.nPulleds, p.pulled}} {
		b = append(binary.AppendUvarint(b, list.n), list.b...)
	}
	return b
}

// relayAnswer is a relayReply as the other side reads it.
type relayAnswer struct {
	refused error  // the leader's
	life    uint64 // what its word of consumers belongs to; 0: it does not say
	delivery.RelayReply
}

// decodeRelayReply reads a reply. Bodies stand in b.
func decodeRelayReply(b []byte) (*relayAnswer, error) {
	r, bad := beginRelay(b, "reply to a relay")
	if bad != nil {
		return nil, bad
	}
	p := &relayAnswer{refused: r.Error(), life: r.Uint()}
	for range r.Count() {
		p.Failures = append(p.Failures, delivery.OpFailure{Index: int(r.UpTo(math.MaxInt32)), Owner: r.UpTo(1) == 1})
	}
	for range r.Count() {
		p.Lost = append(p.Lost, delivery.HoldLost{Mirror: r.Uint(), Part: part32(r), Offset: offset(r)})
	}
	for range r.Count() {
		p.Unknown = append(p.Unknown, r.Uint())
	}
	for range r.Count() {
		m := delivery.MirrorPulled{Mirror: r.Uint(), Waits: r.UpTo(1) == 1}
		if n := r.Count(); n > 0 {
			m.Messages = make([]delivery.RelayedMessage, n)
		}
		for i := range m.Messages {
			m.Messages[i] = readRelayedMessage(r)
		}
		p.Pulled = append(p.Pulled, m)
	}
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed("reply to a relay")
	}
	return p, nil
}

func readRelayedMessage(r *wire.Reader) delivery.RelayedMessage {
	m := delivery.RelayedMessage{
		Part: part32(r), Offset: offset(r), TimeNs: int64(r.UpTo(math.MaxInt64)), Attempts: uint16(r.UpTo(math.MaxUint16)),
	}
	key := r.UpTo(1) == 1
	m.Body = r.Bytes()
	if key {
		m.Key = r.Bytes()
	}
	return m
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
