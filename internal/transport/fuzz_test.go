package transport

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tidings-io/tidings/internal/fault"
)

// frameOf encodes a frame as a connection writes it.
func frameOf(h header, payload []byte) []byte {
	h.length = uint32(len(payload))
	var head [headerSize]byte
	h.put(&head, payload)
	return append(head[:], payload...)
}

// Whatever bytes come, reading ends with an error and never delivers a frame
// that does not encode to the same bytes.
func FuzzFrames(f *testing.F) {
	a, b := &node{o: Options{RaftID: 1}}, &node{o: Options{RaftID: 2}}
	msg, err := proto.Marshal(app(a, b, 7, 10, 20))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frameOf(header{kind: kindRaft, arg: 3}, msg))
	f.Add(append(frameOf(header{kind: kindPing, id: 9}, nil), frameOf(header{kind: kindCall, method: 2, arg: 500, id: 1}, []byte("request"))...))
	f.Add(frameOf(header{kind: kindReply, flags: flagError, id: 1}, encodeError(fault.Timeout)))
	f.Add(frameOf(header{kind: kindHello}, []byte(`{"version":1,"version_min":1,"node":"a","raft_id":1,"boot":1,"max_frame":9999,"class":2}`)))
	f.Add(frameOf(header{kind: kindRefuse}, encodeRefusal(refusef(ReasonName, "no"))))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &reader{r: bytes.NewReader(in), limit: 1 << 16}
		rest := in
		for {
			h, payload, err := r.next()
			if err != nil {
				return
			}
			again := frameOf(h, payload)
			if !bytes.HasPrefix(rest, again) {
				t.Fatalf("%x became %x", rest, again)
			}
			rest = rest[len(again):]
			if h, err := decodeHello(h, payload); err == nil && h.Class >= classes {
				t.Fatalf("hello %+v", h)
			}
			if e, err := decodeError(payload); err == nil && (e.Code == fault.None || e.Error() == "") && len(payload) > 2 {
				t.Fatalf("error %+v", e)
			}
			if m, err := decodeMessage(payload); err == nil {
				messageSize(m)
			}
		}
	})
}

// What a server is sent, it neither panics nor hangs at the end, and holds no
// more requests than its bounds allow.
func FuzzServer(f *testing.F) {
	f.Add([]byte{byte(kindCall), 1, 1, byte(kindCall), 2, 2, byte(kindCancel), 0, 1, byte(kindFetch), 3, 3, byte(kindCredit), 0, 3})
	f.Add(bytes.Repeat([]byte{byte(kindFetch), 3, 1}, 40))
	f.Add(bytes.Repeat([]byte{byte(kindCall), 2, 1}, 40)) // replies that nobody reads
	f.Fuzz(func(t *testing.T, script []byte) {
		o := Options{MaxCalls: 3, MaxStreams: 2, MaxCallBytes: 1000, Logger: slog.New(slog.DiscardHandler)}
		tr := &Transport{o: o, peers: map[uint64]*peer{}}
		tr.Handle(1, func(ctx context.Context, _ From, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		tr.HandleAsync(2, func(_ context.Context, _ From, b []byte, respond func([]byte, error)) {
			respond(b, nil)
			respond(nil, io.EOF)
		})
		tr.HandleStream(3, func(_ context.Context, _ From, b []byte, send func([]byte) error) error { return send(b) })
		box := newOutbox(math.MaxInt, math.MaxInt)
		local := newMemNet()
		ctx, cancel := context.WithCancelCause(context.Background())
		in := &inbound{
			t: tr, hello: &hello{Node: "fuzz", RaftID: 5}, cancel: cancel,
			wire: &wire{limit: 1 << 16, raw: newRawConn(&memConn{n: local}, time.Second, time.Second, 16, 64<<10, new(meter))},
		}
		s := newServer(ctx, in, box)
		for ; len(script) >= 3; script = script[3:] {
			h := header{kind: kind(script[0]), method: Method(script[1]), id: uint64(script[2]), arg: uint32(script[2]) * 1000}
			if err := s.handle(h, script[:min(len(script), 100)]); err != nil {
				break
			}
			s.mu.Lock()
			if len(s.serving) > o.MaxCalls+o.MaxStreams || s.streams > o.MaxStreams || s.bytes < 0 {
				t.Errorf("%d requests, %d streams, %d bytes", len(s.serving), s.streams, s.bytes)
			}
			s.mu.Unlock()
		}
		if n, _ := box.waiting(); n > 4*(o.MaxCalls+o.MaxStreams) {
			t.Errorf("%d replies wait", n)
		}
		cancel(nil)
		box.close(io.EOF)
		s.wg.Wait()
		if len(s.serving) != 0 || s.bytes != 0 || s.streams != 0 {
			t.Errorf("%d requests, %d streams, %d bytes are left", len(s.serving), s.streams, s.bytes)
		}
	})
}

// Entries sent from where they lie decode as what raftpb itself encodes.
func FuzzMessage(f *testing.F) {
	f.Add(uint64(1), uint64(2), []byte("data"), uint16(9000), uint8(3), true)
	f.Add(uint64(math.MaxUint64), uint64(0), []byte(nil), uint16(0), uint8(0), false)
	f.Fuzz(func(t *testing.T, term, index uint64, data []byte, size uint16, entries uint8, empty bool) {
		m := &pb.Message{Type: pb.MsgApp.Enum(), Term: &term, Index: &index, Context: data}
		for i := range entries % 5 {
			e := &pb.Entry{Term: &term, Data: bytes.Repeat(data, int(size)>>i/(len(data)+1))}
			if empty && i == 1 {
				e.Data = nil
			}
			if i == 2 {
				e.Index, e.Type = &index, pb.EntryConfChangeV2.Enum()
			}
			m.Entries = append(m.Entries, e)
		}
		var enc encoder
		for range 2 { // the second time over used buffers
			parts, n, err := enc.encode(m)
			if err != nil {
				t.Fatal(err)
			}
			whole := bytes.Join(parts, nil)
			if len(whole) != n {
				t.Fatalf("%d bytes instead of %d", len(whole), n)
			}
			got, err := decodeMessage(whole)
			if err != nil || !proto.Equal(got, m) {
				t.Fatalf("%v became %v, %v", m, got, err)
			}
		}
	})
}

// Every field that a message of the library can have is carried, also with large
// entries: a new version of the library may bring new ones.
func TestAllFieldsOfAMessage(t *testing.T) {
	m := new(pb.Message)
	fill(m.ProtoReflect(), 3)
	m.Type = pb.MsgSnap.Enum()
	m.Responses = nil // never leave a node
	m.Entries = []*pb.Entry{new(pb.Entry), new(pb.Entry)}
	for i, e := range m.Entries {
		fill(e.ProtoReflect(), 3)
		e.Data = bytes.Repeat([]byte("x"), 3*largeData*i+1)
	}
	var enc encoder
	parts, _, err := enc.encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) < 2 {
		t.Error("large data was copied")
	}
	got, err := decodeMessage(bytes.Join(parts, nil))
	if err != nil || !proto.Equal(got, m) {
		t.Fatalf("%v became %v, %v", m, got, err)
	}
	// withoutEntries has them all but Entries, Responses included.
	fill(m.ProtoReflect(), 3)
	shell := withoutEntries(m)
	m.Entries = nil
	if !proto.Equal(shell, m) {
		t.Fatalf("%v became %v", m, shell)
	}
}

// fill sets every field of a message.
func fill(m protoreflect.Message, depth int) {
	if depth == 0 {
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsList() && fd.Message() != nil:
			fill(m.Mutable(fd).List().AppendMutable().Message(), depth-1)
		case fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfUint64(7))
		case fd.Message() != nil:
			fill(m.Mutable(fd).Message(), depth-1)
		case fd.Kind() == protoreflect.BytesKind:
			m.Set(fd, protoreflect.ValueOfBytes([]byte("bytes")))
		case fd.Kind() == protoreflect.BoolKind:
			m.Set(fd, protoreflect.ValueOfBool(true))
		case fd.Kind() == protoreflect.EnumKind:
			m.Set(fd, protoreflect.ValueOfEnum(1))
		default:
			m.Set(fd, protoreflect.ValueOfUint64(uint64(i)+100))
		}
	}
}

// Messages that never leave a node close the connection.
func TestMalformedMessages(t *testing.T) {
	for _, m := range []*pb.Message{
		{},
		{Type: pb.MsgHup.Enum()},
		{Type: pb.MsgStorageAppendResp.Enum()},
		{Type: pb.MsgApp.Enum(), Responses: []*pb.Message{{}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMessage(b); err == nil {
			t.Errorf("%v is taken", m)
		}
	}
	if _, err := decodeMessage([]byte{0xff}); err == nil {
		t.Error("garbage is taken")
	}
}
