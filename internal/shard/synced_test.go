package shard

import (
	"slices"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

// observer is a ledger that wants to know what is durable here.
type observer struct {
	*ledger
	synced []uint64
}

func (o *observer) Synced(token any) {
	values := token.([]uint64)
	for _, v := range values {
		if slices.Contains(o.acked, v) || slices.Contains(o.dropped, v) || slices.Contains(o.synced, v) {
			panic("an entry is synced that is not in flight, or twice")
		}
	}
	o.synced = append(o.synced, values...)
}

// leading is a replica that the test, which is the two others, lets lead.
type leading struct {
	*rig
	o    *observer
	sent *[]*pb.Message
	term uint64
}

func lead(t *testing.T, async bool) *leading {
	t.Helper()
	l := &leading{}
	l.rig, l.sent = lone(t, async)
	was := l.options
	l.options = func(o *Options) {
		was(o)
		l.o = &observer{ledger: o.Machine.(*ledger)}
		o.Machine = l.o
	}
	l.mustOpen()
	l.settle()
	l.groups[0].Receive(&pb.Message{Type: pb.MsgTimeoutNow.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5))})
	l.settle()
	l.term = l.groups[0].Status().Term
	l.groups[0].Receive(&pb.Message{Type: pb.MsgVoteResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(l.term)})
	l.settle()
	l.acknowledge()
	l.settle()
	if !l.groups[0].Leader() {
		t.Fatalf("it does not lead: %+v", l.groups[0].Status())
	}
	return l
}

// acknowledge has another replica answer for all that was sent to it.
func (l *leading) acknowledge() {
	for _, m := range *l.sent {
		if m.GetType() == pb.MsgApp && m.GetTo() == 2 {
			l.groups[0].Receive(&pb.Message{
				Type: pb.MsgAppResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(l.term),
				Index: new(m.GetIndex() + uint64(len(m.GetEntries()))),
			})
		}
	}
	*l.sent = nil
}

// step lets the group do what it can, without the log.
func (l *leading) step() {
	l.t.Helper()
	for range 4 {
		if _, _, err := l.groups[0].Step(l.now); err != nil {
			l.t.Fatal(err)
		}
	}
}

// An entry is synced when the log has synced it, whoever else has it.
func TestSyncedBeforeTheMajority(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		l := lead(t, async)
		l.put(0, 1, 2)
		l.step()
		if err := l.wal.Write(); err != nil {
			t.Fatal(err)
		}
		l.wal.Finish()
		l.step()
		if len(l.o.synced) > 0 {
			t.Fatal("synced before the sync")
		}
		if err := l.wal.Sync(); err != nil {
			t.Fatal(err)
		}
		l.wal.Finish()
		l.step()
		if !slices.Equal(l.o.synced, []uint64{1, 2}) || len(l.o.acked) > 0 {
			t.Fatalf("synced %v, applied %v", l.o.synced, l.o.acked)
		}
		l.put(0, 3)
		l.settle()
		if !slices.Equal(l.o.synced, []uint64{1, 2, 3}) || len(l.o.acked) > 0 {
			t.Fatalf("synced %v, applied %v", l.o.synced, l.o.acked)
		}
		l.acknowledge()
		l.settle()
		if !slices.Equal(l.o.acked, []uint64{1, 2, 3}) || len(l.o.synced) != 3 {
			t.Fatalf("synced %v, applied %v", l.o.synced, l.o.acked)
		}
	})
}

// What is dropped before the log has synced it is not synced any more. In the
// synchronous discipline a replica takes no notice of another leader before its
// log has synced.
func TestSyncedIsNotSaidOfWhatWasDropped(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		l := lead(t, async)
		l.put(0, 1)
		l.step()
		l.groups[0].Receive(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(3)), To: new(uint64(1)), Term: new(l.term + 1)})
		l.step()
		l.settle()
		if async && len(l.o.synced) > 0 || !slices.Equal(l.o.dropped, []uint64{1}) {
			t.Errorf("synced %v, dropped %v", l.o.synced, l.o.dropped)
		}
	})
}

// Alone, what is synced is applied next.
func TestSyncedAlone(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		var o *observer
		r.options = func(opts *Options) {
			o = &observer{ledger: opts.Machine.(*ledger)}
			opts.Machine = o
		}
		r.mustOpen()
		r.settle()
		for v := range uint64(20) {
			r.put(0, v)
			r.settle()
		}
		if len(o.synced) != 20 || len(o.acked) != 20 {
			t.Errorf("%d synced, %d applied", len(o.synced), len(o.acked))
		}
	})
}
