package shard

import (
	"errors"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
	pb "go.etcd.io/raft/v3/raftpb"
)

// lone is a replica of a group of three whose others are the test.
func lone(t *testing.T, async bool) (*rig, *[]*pb.Message) {
	t.Helper()
	r := newRig(t, async, 1)
	sent := &[]*pb.Message{}
	r.options = func(o *Options) {
		o.Voters = []uint64{1, 2, 3}
		o.Send = func(m *pb.Message) { *sent = append(*sent, m) }
	}
	r.mustOpen()
	return r, sent
}

// votes are the answers to vote requests, and takes them out.
func votes(sent *[]*pb.Message) (granted []uint64) {
	for _, m := range *sent {
		if m.GetType() == pb.MsgVoteResp && !m.GetReject() {
			granted = append(granted, m.GetTo())
		}
	}
	*sent = nil
	return granted
}

func askVote(from, term, index, logTerm uint64) *pb.Message {
	return &pb.Message{
		Type: pb.MsgVote.Enum(), From: new(from), To: new(uint64(1)), Term: new(term), Index: new(index), LogTerm: new(logTerm),
		Context: []byte("CampaignTransfer"), // no lease stands in the way
	}
}

// A vote is durable before it is answered: a replica that crashes right after
// its answer gives no other one.
func voteTwice(t *testing.T, async bool) (first, second []uint64) {
	r, sent := lone(t, async)
	r.settle()
	r.groups[0].Receive(askVote(2, 5, 9, 4))
	for range 4 { // all that it does before the log has synced
		if _, _, err := r.groups[0].Step(r.now); err != nil {
			t.Fatal(err)
		}
		if err := r.wal.Write(); err != nil {
			t.Fatal(err)
		}
		r.wal.Finish()
	}
	first = votes(sent)
	if len(first) == 0 {
		if err := r.persist(); err != nil {
			t.Fatal(err)
		}
		r.settle()
		first = votes(sent)
	}
	r.crash(nil)
	r.mustOpen()
	r.groups[0].Receive(askVote(3, 5, 9, 4))
	r.settle()
	return first, votes(sent)
}

func TestVoteIsDurableBeforeItsAnswer(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		first, second := voteTwice(t, async)
		if len(first) != 1 || first[0] != 2 || len(second) != 0 {
			t.Errorf("votes for %v, then for %v, in one term", first, second)
		}
	})
}

func appendFrom(leader, term, prev, prevTerm uint64, terms ...uint64) *pb.Message {
	m := &pb.Message{
		Type: pb.MsgApp.Enum(), From: new(leader), To: new(uint64(1)), Term: new(term), Index: new(prev), LogTerm: new(prevTerm),
		Commit: new(uint64(1)),
	}
	for i, t := range terms {
		m.Entries = append(m.Entries, &pb.Entry{Index: new(prev + uint64(i) + 1), Term: new(t), Data: []byte("x")})
	}
	return m
}

// A replica whose files are older than its answers stops, and says what to do.
func TestForgottenEntriesAreSaid(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r, _ := lone(t, async)
		r.settle()
		r.groups[0].Receive(&pb.Message{
			Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)), Commit: new(uint64(99)),
		})
		if _, _, err := r.groups[0].Step(r.now); !errors.Is(err, ErrForgotten) {
			t.Errorf("%v, want %v", err, ErrForgotten)
		}
	})
}

// What the WAL held when a state was installed is no part of the log any more:
// it neither stands above the state nor does it count in an election.
func TestInstalledStateVoidsTheLog(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r, sent := lone(t, async)
		r.settle()
		r.groups[0].Receive(appendFrom(2, 5, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5)) // up to 10, not committed
		r.settle()
		if last, term := r.wal.Last(0); last != 10 || term != 5 {
			t.Fatalf("the log ends with %d of term %d", last, term)
		}
		r.crash(nil)
		m := &manifest{
			Shard: 0, Seq: 2, Index: 8, Term: 7, Hard: hardState{Term: 7, Commit: 8},
			Conf: &pb.ConfState{Voters: []uint64{1, 2, 3}}, Installed: true, Void: entryID{10, 5},
		}
		f := folder{fs: r.fs, dir: r.dir(0)}
		if err := f.write(m); err != nil {
			t.Fatal(err)
		}
		r.mustOpen()
		r.settle()
		g := r.groups[0]
		if g.log.last != 8 || g.log.base != 8 || g.applied != 8 {
			t.Errorf("last %d, base %d, applied %d", g.log.last, g.log.base, g.applied)
		}
		if seqs, err := f.list(); err != nil || len(seqs) != 1 || seqs[0] != 2 {
			t.Errorf("checkpoints %v: %v", seqs, err)
		}
		votes(sent)
		g.Receive(askVote(3, 9, 100, 6)) // its log ends in a term before the state's
		r.settle()
		if got := votes(sent); len(got) > 0 {
			t.Errorf("it votes for %v", got)
		}
		g.Receive(appendFrom(2, 9, 8, 7, 9))
		r.settle()
		if last, term := r.wal.Last(0); last != 9 || term != 9 {
			t.Errorf("the log ends with %d of term %d", last, term)
		}
		r.crash(nil)
		r.mustOpen()
		if g := r.groups[0]; g.log.last != 9 {
			t.Errorf("after another start the log ends at %d", g.log.last)
		}
	})
}

// An empty replica waits for the others.
func TestJoinBeginsEmpty(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		asked := uint64(0)
		r.options = func(o *Options) {
			o.RaftID, o.Join = 9, true
			o.Behind = func(leader uint64) { asked = leader }
		}
		r.mustOpen()
		for range 100 {
			r.now += tickInterval
			r.settle()
		}
		if s := r.groups[0].Status(); s.Term != 0 || s.Leader || s.Removed {
			t.Fatalf("%+v", s)
		}
		r.groups[0].Receive(&pb.Message{
			Type: pb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(9)), Term: new(uint64(3)),
			Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(uint64(50)), Term: new(uint64(3)), ConfState: &pb.ConfState{Voters: []uint64{2}}}},
		})
		r.settle()
		if asked != 2 {
			t.Errorf("it is told to get a state from %d", asked)
		}
		// The toy machine cannot be carried.
		var refused error
		r.groups[0].Import(2, func(_ *Incoming, err error) { refused = err })
		r.settle()
		if !errors.Is(refused, fault.Unsupported) {
			t.Errorf("import: %v", refused)
		}
		r.crash(nil)
		r.mustOpen()
		r.settle()
	})
}

func TestChangesThatMakeNoSenseAreRefused(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.settle()
	for _, c := range []Change{{AddLearner, 1}, {AddLearner, 0}, {Promote, 2}, {Remove, 1}, {Remove, 7}} {
		var got error
		r.groups[0].ProposeChange(c, func(err error) { got = err })
		r.settle()
		if !errors.Is(got, fault.InvalidRequest) {
			t.Errorf("%+v: %v", c, got)
		}
	}
	var got error
	r.groups[0].HandOver(2, func(err error) { got = err })
	r.settle()
	if !errors.Is(got, fault.InvalidRequest) {
		t.Errorf("hand over to nobody: %v", got)
	}
}

// A lone replica answers reads by itself; without a leader a read ends with its
// deadline.
func TestRead(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.settle()
	var index uint64
	got := errors.New("not answered")
	r.groups[0].Read(r.now+1e9, func(i uint64, err error) { index, got = i, err })
	r.settle()
	if got != nil || index == 0 {
		t.Errorf("index %d: %v", index, got)
	}
	other, _ := lone(t, true)
	other.settle()
	got = nil
	other.groups[0].Read(other.now+1e9, func(_ uint64, err error) { got = err })
	other.settle()
	other.now += 2e9
	other.settle()
	if !errors.Is(got, fault.Timeout) {
		t.Errorf("without a leader: %v", got)
	}
}

func TestForget(t *testing.T) {
	r := newRig(t, true, 1)
	r.fill()
	r.crash(nil)
	for range 2 {
		if err := Forget(r.fs, r.dir(0)); err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := r.fs.ReadDir("data/shards"); len(names) > 0 {
		t.Errorf("left are %q", names)
	}
	if err := r.open(); err == nil {
		t.Error("a group opens whose log is still there")
	}
}

// askedFor is how many votes a replica asks for before its term is durable, and
// in all.
func askedFor(t *testing.T, async bool) (early, all int) {
	r, sent := lone(t, async)
	r.settle()
	asked := func() (n int) {
		for _, m := range *sent {
			if m.GetType() == pb.MsgVote {
				n++
			}
		}
		return n
	}
	r.groups[0].Receive(&pb.Message{Type: pb.MsgTimeoutNow.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5))})
	for range 4 {
		if _, _, err := r.groups[0].Step(r.now); err != nil {
			t.Fatal(err)
		}
		if err := r.wal.Write(); err != nil {
			t.Fatal(err)
		}
		r.wal.Finish()
	}
	early = asked()
	if err := r.persist(); err != nil {
		t.Fatal(err)
	}
	r.settle()
	return early, asked()
}

// A replica asks for votes when its term is durable: it would stand again in the
// same term after a crash, perhaps with less in its log.
func TestTermIsDurableBeforeVotesAreAsked(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		if early, all := askedFor(t, async); early != 0 || all != 2 {
			t.Errorf("%d votes asked for, %d before the term is durable", all, early)
		}
	})
}
