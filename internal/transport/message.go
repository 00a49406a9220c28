package transport

import (
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Field numbers of raft.proto.
const (
	fieldEntries = 7 // of Message
	fieldData    = 4 // of Entry
)

// largeData is from how many bytes on an entry's data is sent from where it
// lies.
const largeData = 4 << 10

// encoder encodes Raft messages as proto.Marshal does, without copying large
// data. Protobuf lets fields stand in any order, so the entries follow the rest
// of the message, and the data the rest of its entry.
type encoder struct {
	buf   []byte
	parts [][]byte
}

// encode returns the message in pieces that are valid until the next call.
func (e *encoder) encode(m *pb.Message) (parts [][]byte, size int, err error) {
	if cap(e.buf) > maxReused {
		e.buf = nil
	}
	clear(e.parts) // or they keep entries alive
	e.buf, e.parts = e.buf[:0], e.parts[:0]
	if !hasLargeData(m) {
		if e.buf, err = (proto.MarshalOptions{}).MarshalAppend(e.buf, m); err != nil {
			return nil, 0, fmt.Errorf("encode raft message: %w", err)
		}
		e.parts = append(e.parts, e.buf)
		return e.parts, len(e.buf), nil
	}
	if e.buf, err = (proto.MarshalOptions{}).MarshalAppend(e.buf, withoutEntries(m)); err != nil {
		return nil, 0, fmt.Errorf("encode raft message: %w", err)
	}
	start := 0
	for _, entry := range m.GetEntries() {
		if start, err = e.entry(entry, start); err != nil {
			return nil, 0, err
		}
	}
	if start < len(e.buf) {
		e.parts = append(e.parts, e.buf[start:])
	}
	for _, p := range e.parts {
		size += len(p)
	}
	return e.parts, size, nil
}

// entry encodes one entry; what stands in buf from start on is in no part yet.
func (e *encoder) entry(entry *pb.Entry, start int) (int, error) {
	head := &pb.Entry{Term: entry.Term, Index: entry.Index, Type: entry.Type}
	size := proto.Size(head)
	if entry.Data != nil {
		size += protowire.SizeTag(fieldData) + protowire.SizeBytes(len(entry.Data))
	}
	e.buf = protowire.AppendTag(e.buf, fieldEntries, protowire.BytesType)
	e.buf = protowire.AppendVarint(e.buf, uint64(size))
	var err error
	if e.buf, err = (proto.MarshalOptions{}).MarshalAppend(e.buf, head); err != nil {
		return start, fmt.Errorf("encode raft entry: %w", err)
	}
	if entry.Data == nil {
		return start, nil
	}
	e.buf = protowire.AppendTag(e.buf, fieldData, protowire.BytesType)
	e.buf = protowire.AppendVarint(e.buf, uint64(len(entry.Data)))
	if len(entry.Data) < largeData {
		e.buf = append(e.buf, entry.Data...)
		return start, nil
	}
	e.parts = append(e.parts, e.buf[start:], entry.Data)
	return len(e.buf), nil
}

func hasLargeData(m *pb.Message) bool {
	for _, e := range m.GetEntries() {
		if len(e.GetData()) >= largeData {
			return true
		}
	}
	return false
}

// withoutEntries is the message with all its fields but Entries. The message
// itself is not touched: the library and tests may still look at it.
func withoutEntries(m *pb.Message) *pb.Message {
	return &pb.Message{
		Type: m.Type, To: m.To, From: m.From, Term: m.Term, LogTerm: m.LogTerm, Index: m.Index, Commit: m.Commit,
		Vote: m.Vote, Snapshot: m.Snapshot, Reject: m.Reject, RejectHint: m.RejectHint, Context: m.Context, Responses: m.Responses,
	}
}

// decodeMessage reads a Raft message; it holds on to nothing of b. Messages that
// never leave a node are malformed.
func decodeMessage(b []byte) (*pb.Message, error) {
	m := new(pb.Message)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, malformed("raft message: %v", err)
	}
	if m.Type == nil || raft.IsLocalMsg(m.GetType()) || len(m.GetResponses()) > 0 {
		return nil, malformed("raft message of type %v", m.GetType())
	}
	return m, nil
}

// messageSize is about what a message takes of a queue's bytes.
func messageSize(m *pb.Message) int {
	n := 64 + len(m.GetContext())
	for _, e := range m.GetEntries() {
		n += 16 + len(e.GetData())
	}
	return n + len(m.GetSnapshot().GetData())
}

// isLazy reports whether a message may wait a moment: heartbeats and their answers, but
// for those in which somebody asks whether the leader still leads.
func isLazy(m *pb.Message) bool {
	switch m.GetType() {
	case pb.MsgHeartbeat, pb.MsgHeartbeatResp:
		return len(m.GetContext()) == 0
	}
	return false
}

// classOf is the class of a Raft message. All that a leader says about its log
// shares one link: a commit index that overtakes its entries would be rejected
// and put the leader back to probing.
func classOf(m *pb.Message) Class {
	switch m.GetType() {
	case pb.MsgApp, pb.MsgSnap:
		return Append
	}
	return Control
}
