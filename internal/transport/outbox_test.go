package transport

import (
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Only heartbeats and their answers wait for each other, and not those in which
// somebody asks whether the leader still leads.
func TestPatience(t *testing.T) {
	beat := &pb.Message{Type: pb.MsgHeartbeat.Enum()}
	asks := &pb.Message{Type: pb.MsgHeartbeat.Enum(), Context: []byte("who leads?")}
	o := newOutbox(100, 1<<20)
	push := func(m *pb.Message) { _ = o.push(item{msg: m, lazy: isLazy(m), size: 1}) }
	for _, test := range []struct {
		name    string
		push    []*pb.Message
		patient bool
	}{
		{"nothing", nil, false},
		{"heartbeats", []*pb.Message{beat, {Type: pb.MsgHeartbeatResp.Enum()}}, true},
		{"a question", []*pb.Message{beat, asks}, false},
		{"entries", []*pb.Message{beat, {Type: pb.MsgApp.Enum()}, beat}, false},
		{"a vote", []*pb.Message{{Type: pb.MsgVote.Enum()}}, false},
	} {
		for _, m := range test.push {
			push(m)
		}
		if o.patient() != test.patient {
			t.Errorf("%s: patient is %t", test.name, o.patient())
		}
		if n := len(o.take(nil, 100)); n != len(test.push) {
			t.Errorf("%s: %d were taken", test.name, n)
		}
	}
	push(beat)
	o.answer(1)
	if o.patient() {
		t.Error("a ping waits for its answer")
	}
}
