package replica

import (
	"fmt"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/tidings-io/tidings/internal/shard"
)

// eachMode runs a test in both disciplines of the library, on a cluster that
// nobody disturbs and that has its leaders.
func eachMode(t *testing.T, o Options, test func(t *testing.T, c *Cluster)) {
	for _, async := range []bool{true, false} {
		t.Run(map[bool]string{true: "async", false: "sync"}[async], func(t *testing.T) {
			o.Async = async
			test(t, quiet(t, o))
		})
	}
}

func quiet(t *testing.T, o Options) *Cluster {
	t.Helper()
	cryptotest.SetGlobalRandom(t, o.Seed)
	o.Quiet = true
	c := New(o)
	t.Cleanup(func() {
		if f, ok := recover().(*Failure); ok {
			t.Fatal(f)
		}
	})
	c.settled(t)
	return c
}

func (c *Cluster) settled(t *testing.T) {
	t.Helper()
	if !c.Settle(60e9) {
		t.Fatalf("the cluster does not come to rest: %s", c.describe())
	}
}

// load publishes and consumes through the leaders for some rounds.
func (c *Cluster) load(rounds int) {
	for range rounds {
		for s := range groups {
			if l := c.leader(s); l != nil {
				c.Publish(l, s, 2, 200)
			}
		}
		c.command()
		c.consume()
		c.round()
	}
}

// follower is a node that leads nothing, if there is one, else any.
func (c *Cluster) follower() *node {
	for _, n := range c.nodes {
		leads := false
		for s := range groups {
			leads = leads || c.leader(s) == n
		}
		if !leads {
			return n
		}
	}
	return c.nodes[0]
}

// lag takes a node down until the others' logs do not reach down to it any
// more, and starts it again.
func (c *Cluster) lag(n *node) {
	c.load(20)
	n.crash()
	c.load(200)
	n.restart()
}

func TestLaggingReplicaCatchesUpUnderLoad(t *testing.T) {
	eachMode(t, Options{Seed: 1}, func(t *testing.T, c *Cluster) {
		n := c.follower()
		c.lag(n)
		c.load(300)
		c.Finish()
		if c.Counts.Installs < groups {
			t.Errorf("%d installations", c.Counts.Installs)
		}
		for s, g := range n.groups {
			if g.term > 0 {
				t.Logf("shard %d is led by the node that lagged", s+1)
			}
		}
		t.Logf("%+v", c.Counts)
	})
}

// A replica that keeps what it has is sent only what it lacks.
func TestOnlyTheRestIsSent(t *testing.T) {
	c := quiet(t, Options{Seed: 2, Async: true})
	n := c.follower()
	c.load(400)
	c.settled(t)
	c.held = true
	c.net.isolate(n.id)
	c.load(120)
	c.net.healAll()
	for range 400 {
		c.round()
	}
	if n.groups[0].behind == 0 {
		t.Fatal("the replica does not know that it is behind")
	}
	c.held = false
	whole := c.leader(0).groups[0].log(c.shards[0].kept()).Bytes()
	for i := 0; n.groups[0].Status().CatchUp == nil || n.groups[0].Status().CatchUp.Total == 0; i++ {
		if i == 1000 {
			t.Fatal("no session begins")
		}
		c.round()
	}
	if p := n.groups[0].Status().CatchUp; p.Total > whole*2/3 {
		t.Errorf("the session sends about %d bytes of %d", p.Total, whole)
	}
	c.Finish()
}

// A crash at every operation of a disk while a session runs, on either side.
func TestCrashInEveryStageOfASession(t *testing.T) {
	if testing.Short() {
		*stride = max(*stride, 25)
	}
	for _, side := range []string{"receiver", "sender"} {
		for _, async := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, async %v", side, async), func(t *testing.T) {
				crashes, step := 0, *stride
				if side == "sender" {
					step = min(step, 5) // it writes little
				}
				for op := int64(1 + len(side)%3); ; op += step {
					c := quiet(t, Options{Seed: uint64(op), Async: async})
					n := c.follower()
					c.lag(n)
					victim := n
					if side == "sender" {
						victim = c.leader(0)
					}
					victim.disk.FailAfter(op, nil)
					before := c.Counts.Crashes
					for i := 0; i < 3000 && (c.Counts.Installs < groups || !c.quiet()); i++ {
						c.round()
						if !victim.up() {
							victim.restart()
						}
					}
					if c.Counts.Crashes > before {
						crashes++
					}
					c.Finish()
					if c.Counts.Sessions < groups {
						t.Fatalf("operation %d: %d sessions", op, c.Counts.Sessions)
					}
					if c.Counts.Crashes == before {
						break // everything was done before the operation came
					}
				}
				t.Logf("%d crashes", crashes)
				if crashes < 5 {
					t.Errorf("only %d crashes", crashes)
				}
			})
		}
	}
}

func TestSessionThatPinsTooMuchBeginsAnew(t *testing.T) {
	eachMode(t, Options{Seed: 3, PinBytes: 40 << 10}, func(t *testing.T, c *Cluster) {
		n := c.follower()
		c.lag(n)
		c.held = true
		for i := 0; len(c.sess) < groups; i++ {
			if i == 1000 {
				t.Fatal("no sessions begin")
			}
			c.round()
			c.beginSessions()
			for _, x := range c.sess {
				if x.stage < stagePull {
					x.step()
				}
			}
		}
		c.load(200)
		c.held = false
		c.load(50)
		c.Finish()
		if c.Counts.PinsLost == 0 || c.Counts.Installs < groups {
			t.Errorf("%+v", c.Counts)
		}
	})
}

// While the WAL keeps enough for it, a replica that was away needs no session.
func TestMarginSparesTheSession(t *testing.T) {
	eachMode(t, Options{Seed: 4, KeepBytes: 64 << 20}, func(t *testing.T, c *Cluster) {
		n := c.follower()
		c.lag(n)
		c.Finish()
		if c.Counts.Sessions > 0 {
			t.Errorf("%d sessions", c.Counts.Sessions)
		}
	})
}

func TestReplacedMemberIsPromoted(t *testing.T) {
	eachMode(t, Options{Seed: 5}, func(t *testing.T, c *Cluster) {
		c.load(100)
		n := c.follower()
		old := n.raftID
		c.replace(n)
		c.load(300)
		c.Finish()
		for s := range groups {
			members := c.leader(s).groups[s].Status().Members
			if len(members) != len(c.nodes) {
				t.Fatalf("shard %d has members %+v", s+1, members)
			}
			for _, m := range members {
				if m.Learner || m.ID == old {
					t.Errorf("shard %d has members %+v", s+1, members)
				}
			}
		}
	})
}

func TestHandOverUnderLoad(t *testing.T) {
	eachMode(t, Options{Seed: 6}, func(t *testing.T, c *Cluster) {
		unknown := c.Counts.Unknown
		for i := range 30 {
			c.load(20)
			s := i % groups
			l := c.leader(s)
			if l == nil {
				continue
			}
			to := c.nodes[(l.id+1)%len(c.nodes)]
			l.groups[s].HandOver(to.raftID, func(err error) {
				if err != nil {
					t.Errorf("hand over shard %d: %v", s+1, err)
				}
				c.Counts.Transfers++
			})
			c.load(60)
			if now := c.leader(s); now != to {
				t.Errorf("shard %d is not led by who it was given to", s+1)
			}
		}
		c.Finish()
		if c.Counts.Transfers != 30 || c.Counts.Unknown > unknown {
			t.Errorf("%+v", c.Counts)
		}
	})
}

// A replica that is taken out hears of it, stops, and says so; its group goes
// on.
func TestRemovedReplicaSaysSo(t *testing.T) {
	eachMode(t, Options{Seed: 7}, func(t *testing.T, c *Cluster) {
		c.load(20)
		n := c.follower()
		var answer error
		answered := false
		c.leader(0).groups[0].ProposeChange(shard.Change{Op: shard.Remove, ID: n.raftID}, func(err error) { answer, answered = err, true })
		for i := 0; i < 300 && (!answered || !n.groups[0].Status().Removed); i++ {
			c.round()
		}
		st := n.groups[0].Status()
		if answer != nil || !answered || !st.Removed || st.Leader {
			t.Fatalf("answer %v (%v), status %+v", answer, answered, st)
		}
		if got := len(c.leader(0).groups[0].Status().Members); got != len(c.nodes)-1 {
			t.Errorf("%d members are left", got)
		}
		term := st.Term
		for range 500 {
			c.round()
		}
		if st = n.groups[0].Status(); st.Term != term {
			t.Errorf("it stands for election: term %d, was %d", st.Term, term)
		}
	})
}

// A stalled disk gives the leadership away only to a replica that is well.
func TestStallTarget(t *testing.T) {
	list := func(ms ...int64) (l []shard.Candidate) {
		for i, v := range ms {
			l = append(l, shard.Candidate{ID: uint64(i) + 1, Latency: time.Duration(v) * time.Millisecond})
		}
		return l
	}
	for _, tt := range []struct {
		name    string
		current int64 // ms
		list    []shard.Candidate
		want    uint64
	}{
		{"no stall", 1900, list(1), 0},
		{"at the limit", 2000, list(1), 0},
		{"stall", 2100, list(30, 2), 2},
		{"the other stalls too", 2100, list(700), 0},
		{"nobody has reported", 5000, nil, 0},
		{"just under a quarter", 4000, list(999), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := shard.StallTarget(time.Duration(tt.current)*time.Millisecond, tt.list)
			if ok != (tt.want != 0) || ok && got != tt.want {
				t.Errorf("to %d, %v; want %d", got, ok, tt.want)
			}
		})
	}
}
