package shard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidings-io/tidings/internal/fault"
	pb "go.etcd.io/raft/v3/raftpb"
)

func TestSingleVoterLeadsAndApplies(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		r.mustOpen()
		g, l := r.groups[0], r.ledgers[0]
		if g.Leader() {
			t.Error("it leads before its no-op is durable")
		}
		r.put(0, 1, 2, 3)
		r.settle()
		if !g.Leader() || len(l.leads) != 1 {
			t.Fatalf("leader %v, Lead was called for %v", g.Leader(), l.leads)
		}
		if diff := cmp.Diff([]uint64{1, 2, 3}, l.list); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(l.list, l.acked); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
		s := g.Status()
		if !s.Leader || s.LeaderID != 1 || s.Applied != s.Commit || s.Inflight != 0 || s.Term != l.leads[0] {
			t.Errorf("status %+v", s)
		}
		if did, next, err := g.Step(r.now); did || err != nil || next != r.now+int64(time.Minute) {
			t.Errorf("a quiet group: did %v, next in %v, %v", did, time.Duration(next-r.now), err)
		}
	})
}

// Nothing is acknowledged before the WAL has synced it.
func TestAcknowledgedOnlyWhenDurable(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		r.mustOpen()
		r.settle()
		r.put(0, 7)
		step := func() {
			t.Helper()
			for did := true; did; {
				var err error
				if did, _, err = r.groups[0].Step(r.now); err != nil {
					t.Fatal(err)
				}
			}
		}
		step()
		if err := r.wal.Write(); err != nil {
			t.Fatal(err)
		}
		step()
		if got := r.ledgers[0].acked; len(got) != 0 {
			t.Fatalf("%v acknowledged before the sync", got)
		}
		if err := r.wal.Sync(); err != nil {
			t.Fatal(err)
		}
		r.wal.Finish()
		step()
		if got := r.ledgers[0].acked; len(got) != 1 {
			t.Fatal("not acknowledged after the sync")
		}
	})
}

// While rounds are in flight, what comes gathers into one entry.
func TestWorkGathersBehindTwoRounds(t *testing.T) {
	r := newRig(t, true, 1)
	r.options = func(o *Options) { o.MaxEntryBytes = 1 << 20 }
	r.mustOpen()
	r.settle()
	for v := range uint64(10) {
		r.put(0, v)
		if _, _, err := r.groups[0].Step(r.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.groups[0].Status().Inflight; got != 2 {
		t.Errorf("%d proposals in flight", got)
	}
	r.settle()
	if diff := cmp.Diff([]int{1, 1, 8}, r.ledgers[0].drains); diff != "" {
		t.Errorf("numbers per entry (-want +got):\n%s", diff)
	}
}

// A commit costs no sync of its own.
func TestOneSyncPerEntry(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		r.mustOpen()
		r.settle()
		before := r.wal.Stats().Syncs
		for v := range uint64(20) {
			r.put(0, v)
			r.settle()
		}
		if got := r.wal.Stats().Syncs - before; got != 20 {
			t.Errorf("20 entries took %d syncs", got)
		}
	})
}

func TestStepStaysBrokenAfterAnError(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		r.mustOpen()
		r.settle()
		r.put(0, 1)
		r.fs.FailAfter(1, errors.New("the disk is on fire"))
		err := r.tryToSettle()
		if err == nil {
			for err == nil {
				_, _, err = r.groups[0].Step(r.now)
			}
		}
		if !strings.Contains(err.Error(), "on fire") {
			t.Fatalf("error %v", err)
		}
		if _, _, again := r.groups[0].Step(r.now); again == nil {
			t.Error("the group went on after a failed sync")
		}
		if len(r.ledgers[0].acked) > 0 {
			t.Error("acknowledged what is not durable")
		}
	})
}

func TestRunStopsClean(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 3)
		r.options = func(o *Options) { o.Clock = nil }
		r.mustOpen()
		stop := r.live(t)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for i, g := range r.groups {
			if err := g.LeadReady(ctx); err != nil {
				t.Fatal(err)
			}
			if err := g.Exec(ctx, func() { r.put(i, 1, 2, 3) }); err != nil {
				t.Fatal(err)
			}
		}
		for _, err := range stop() {
			if err != nil {
				t.Error(err)
			}
		}
		for i, l := range r.ledgers {
			if diff := cmp.Diff([]uint64{1, 2, 3}, l.acked); diff != "" {
				t.Errorf("shard %d, acknowledged (-want +got):\n%s", i, diff)
			}
			if l.follows != 1 {
				t.Errorf("shard %d: Follow was called %d times", i, l.follows)
			}
		}
		if err := r.groups[0].LeadReady(ctx); !errors.Is(err, fault.Exiting) {
			t.Errorf("wait for a stopped group: %v", err)
		}
		if err := r.groups[0].Exec(ctx, func() {}); !errors.Is(err, fault.Exiting) {
			t.Errorf("query a stopped group: %v", err)
		}
	})
}

// A WAL that does not answer any more does not hold up the end for long, and
// what was in flight is dropped.
func TestStopDropsWhatIsInFlight(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, async, 1)
			r.options = func(o *Options) { o.Clock, o.MaxEntryBytes = nil, 1<<20 }
			r.mustOpen()
			r.settle()
			values := make([]uint64, inlineBytes/8) // too much for the loop to write it itself
			r.put(0, values...)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			begin := time.Now()
			if err := r.groups[0].Run(ctx); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 1100*time.Millisecond {
				t.Errorf("the end took %v", took)
			}
			l := r.ledgers[0]
			if len(l.dropped) != len(values) {
				t.Errorf("dropped %d of %d", len(l.dropped), len(values))
			}
			if !errors.Is(l.dropErr, fault.Exiting) || l.follows != 1 || len(l.acked) > 0 {
				t.Errorf("dropped with %v, Follow %d times, acknowledged %v", l.dropErr, l.follows, l.acked)
			}
		})
	})
}

// An idle group is not woken: no ticks, no timers but the checkpoint's.
func TestIdleGroupSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true, 1)
		looks := 0
		r.options = func(o *Options) {
			o.Clock = func() int64 { looks++; return time.Now().UnixNano() }
		}
		r.mustOpen()
		stop := r.live(t)
		if err := r.groups[0].LeadReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // the bubble's time
		synctest.Wait()
		before := looks
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if n := looks - before; n > 0 {
			t.Errorf("an idle group looked at the clock %d times in half an hour", n)
		}
		if s := r.groups[0].Status(); s.CheckpointIndex != s.Applied {
			t.Errorf("no checkpoint came by age: %+v", s)
		}
		for _, err := range stop() {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestReplayAboveTheCheckpoint(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		r.mustOpen()
		r.settle()
		var want []uint64
		for v := range uint64(300) {
			r.put(0, v)
			r.settle()
			want = append(want, v)
		}
		s := r.groups[0].Status()
		if s.CheckpointSeq < 3 || s.CheckpointIndex == 0 || r.ledgers[0].published == 0 {
			t.Fatalf("no checkpoints were taken: %+v", s)
		}
		r.crash(nil)
		r.mustOpen()
		if got := len(r.ledgers[0].list); got == 0 || got > len(want) {
			t.Errorf("the checkpoint holds %d numbers", got)
		}
		r.settle()
		if diff := cmp.Diff(want, r.ledgers[0].list); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
		if len(r.ledgers[0].acked) > 0 {
			t.Error("a replayed entry came with a token")
		}
		r.put(0, 999)
		r.settle()
		if got := r.ledgers[0].acked; !slices.Equal(got, []uint64{999}) {
			t.Errorf("after the restart: acknowledged %v", got)
		}
	})
}

// trio is three replicas of a group that exchange messages in memory.
type trio struct {
	rigs  []*rig
	alone int // this one is cut off; -1 nobody
}

func newTrio(t *testing.T, async bool) *trio {
	c := &trio{alone: -1}
	for i := range 3 {
		r := newRig(t, async, 1)
		r.options = func(o *Options) {
			o.RaftID, o.Voters = uint64(i)+1, []uint64{1, 2, 3}
			o.Send = func(m *pb.Message) {
				to := int(m.GetTo()) - 1
				if i != c.alone && to != c.alone {
					c.rigs[to].groups[0].Receive(m)
				}
			}
		}
		c.rigs = append(c.rigs, r)
	}
	for _, r := range c.rigs {
		r.mustOpen()
	}
	return c
}

// until lets time pass until ok, for at most a minute of it.
func (c *trio) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		for range 4 {
			for _, r := range c.rigs {
				r.settle()
			}
		}
		if ok() {
			return
		}
		for _, r := range c.rigs {
			r.now += tickInterval
		}
	}
	t.Fatalf("not reached: %s", what)
}

func (c *trio) leader() int {
	for i, r := range c.rigs {
		if i != c.alone && r.groups[0].Leader() {
			return i
		}
	}
	return -1
}

func TestThreeVotersChangeLeader(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		c := newTrio(t, async)
		c.until(t, "a leader", func() bool { return c.leader() >= 0 })
		first := c.leader()
		c.rigs[first].put(0, 1, 2)
		c.until(t, "all have 1, 2", func() bool {
			for _, r := range c.rigs {
				if len(r.ledgers[0].list) != 2 {
					return false
				}
			}
			return true
		})

		old := c.rigs[first].ledgers[0]
		c.alone = first
		c.rigs[first].put(0, 3)
		c.until(t, "another leader", func() bool { return c.leader() >= 0 })
		c.until(t, "the old one has noticed", func() bool { return old.follows == 1 })
		if !slices.Equal(old.dropped, []uint64{3}) || !errors.Is(old.dropErr, fault.NotLeader) {
			t.Errorf("dropped %v with %v", old.dropped, old.dropErr)
		}
		c.rigs[c.leader()].put(0, 4)
		c.until(t, "4 is acknowledged", func() bool {
			l := c.leader()
			return l >= 0 && slices.Contains(c.rigs[l].ledgers[0].acked, 4)
		})
		c.alone = -1
		c.until(t, "all agree", func() bool {
			for _, r := range c.rigs {
				if !slices.Equal(r.ledgers[0].list, []uint64{1, 2, 4}) {
					return false
				}
			}
			return true
		})
		for i, r := range c.rigs {
			if got := len(r.ledgers[0].leads) - r.ledgers[0].follows; (got == 1) != (i == c.leader()) {
				t.Errorf("replica %d leads %d times, the leader is %d", i+1, got, c.leader())
			}
		}
	})
}
