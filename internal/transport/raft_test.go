package transport

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// overBoth runs a test over loopback TCP and over memory.
func overBoth(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Run("tcp", func(t *testing.T) { f(t, newRig(t, false)) })
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, newRig(t, true)) })
	})
}

func TestRaftMessagesArrive(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		var want []*pb.Message
		for i := range uint64(40) {
			m := app(a, b, i, 10, int(i)*100, 100_000, 0)
			want = append(want, m)
			a.Send(7, m)
		}
		eventually(t, "40 appends", func() bool { return len(b.all()) == 40 })
		for i, got := range b.all() {
			if got.from != a.o.RaftID || got.shard != 7 {
				t.Fatalf("message %d came from %d for shard %d", i, got.from, got.shard)
			}
			if !proto.Equal(want[i], got.m) {
				t.Fatalf("message %d is not what was sent", i)
			}
		}
		b.Send(9, heartbeat(b, a, 5))
		eventually(t, "the way back", func() bool { return len(a.all()) == 1 })
		if s := a.link(b, Append); !s.Connected || s.MessagesOut != 40 || s.Connects != 1 || s.Since.IsZero() || s.BytesOut < 4_000_000 {
			t.Errorf("stats %+v", s)
		}
		if s := b.link(a, Append); s.Connected || !s.Inbound || s.MessagesIn != 40 {
			t.Errorf("stats %+v", s)
		}
		if a.losses(7, b.o.RaftID)+b.losses(9, a.o.RaftID) > 0 {
			t.Error("losses were reported")
		}
	})
}

func TestThreeNodes(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		nodes := []*node{r.start("a", nil), r.start("b", nil), r.start("c", nil)}
		r.meet()
		for i := range uint64(10) {
			for _, from := range nodes {
				for _, to := range nodes {
					from.Send(uint32(i), heartbeat(from, to, i)) // one to oneself is lost
				}
			}
		}
		for _, n := range nodes {
			eventually(t, "heartbeats at "+n.o.Name, func() bool { return len(n.all()) == 20 })
		}
	})
}

// A peer that reads nothing costs neither the caller nor the others anything.
func TestSlowPeerBlocksNobody(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a := r.start("a", func(o *Options) { o.MaxQueuedBytes = 1 << 20 })
		b, c := r.start("b", nil), r.start("c", nil)
		r.meet()
		b.block()
		for i := range uint64(200) { // 20 MB, more than sockets and queue hold
			a.Send(1, app(a, b, i, 100_000))
		}
		eventually(t, "reported loss", func() bool { return a.losses(1, b.o.RaftID) > 0 })
		if s := a.link(b, Append); s.Drops == 0 || s.QueuedBytes > 1<<20 {
			t.Errorf("stats %+v", s)
		}
		for i := range uint64(15) {
			a.Send(2, app(a, c, i, 50_000))
		}
		eventually(t, "appends to the other peer", func() bool { return len(c.all()) == 15 })
		if a.losses(2, c.o.RaftID) > 0 {
			t.Error("a loss was reported for the peer that reads")
		}
		b.release()
		a.Send(3, heartbeat(a, b, 1))
		eventually(t, "control messages to the slow peer", func() bool {
			for _, got := range b.all() {
				if got.shard == 3 {
					return true
				}
			}
			return false
		})
	})
}

// Heartbeats do not queue behind megabytes of entries.
func TestControlPassesAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		release := make(chan struct{})
		heard := make(chan uint64, 100)
		b.mu.Lock()
		b.onRaft = func(m *pb.Message) {
			if m.GetType() == pb.MsgApp {
				<-release
				return
			}
			heard <- m.GetCommit()
		}
		b.mu.Unlock()
		for i := range uint64(30) {
			a.Send(1, app(a, b, i, 100_000))
		}
		for i := range uint64(10) {
			a.Send(1, heartbeat(a, b, i))
			if got := <-heard; got != i {
				t.Fatalf("heartbeat %d came as %d", i, got)
			}
		}
		close(release)
	})
}

func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a := r.start("a", nil)
		b := &node{o: Options{RaftID: 99}}
		if err := a.AddPeer(99, "b", "b"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for time.Since(began) < time.Minute {
			a.Send(4, heartbeat(a, b, 1))
			time.Sleep(100 * time.Millisecond)
		}
		if n := a.losses(4, 99); n < 500 {
			t.Errorf("%d of 600 losses were reported", n)
		}
		if n := r.net.dialed("b"); n < 55 || n > 130 {
			t.Errorf("dialed %d times in a minute", n)
		}
		s := a.link(b, Control)
		if s.Connected || s.Error != "dial b: nobody listens" {
			t.Errorf("stats %+v", s)
		}
		// Somebody comes: the next dial is at most a second away.
		b = r.start("b", func(o *Options) { o.RaftID = 99 })
		if err := b.AddPeer(a.o.RaftID, "a", "nowhere"); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		eventually(t, "a heartbeat", func() bool { a.Send(4, heartbeat(a, b, 1)); return len(b.all()) > 0 })
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %s", d)
		}
	})
}

// A peer that is cut off without a reset is noticed within about two seconds, on
// both sides, whichever way is lost, and is back soon after.
func TestSilentCut(t *testing.T) {
	for _, way := range []string{"both ways", "a to b", "b to a"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, true)
				a, b := r.start("a", nil), r.start("b", nil)
				r.meet()
				a.Send(1, heartbeat(a, b, 1))
				b.Send(1, heartbeat(b, a, 1))
				eventually(t, "links", func() bool { return a.link(b, Control).Connected && b.link(a, Control).Connected })
				time.Sleep(3 * time.Second) // an idle link stays
				if s := a.link(b, Control); s.Connects != 1 || !s.Connected || s.RTT == 0 {
					t.Fatalf("idle link: %+v", s)
				}
				r.net.setDark(func(from, _ string) bool {
					return way == "both ways" || way == "a to b" && from == "a" || way == "b to a" && from == "b"
				})
				cut := time.Now()
				eventually(t, "links to fall", func() bool {
					x, y := a.link(b, Control), b.link(a, Control)
					return !x.Connected && !x.Inbound && !y.Connected && !y.Inbound
				})
				if d := time.Since(cut); d > 2600*time.Millisecond {
					t.Errorf("noticed after %s", d)
				}
				time.Sleep(10 * time.Second)
				r.net.setDark(func(string, string) bool { return false })
				healed := time.Now()
				eventually(t, "links to come back", func() bool {
					a.Send(1, heartbeat(a, b, 2))
					b.Send(1, heartbeat(b, a, 2))
					return a.link(b, Control).Connected && b.link(a, Control).Connected
				})
				if d := time.Since(healed); d > 3*time.Second { // an attempt that has begun takes 2 s to fail
					t.Errorf("back after %s", d)
				}
			})
		})
	}
}

// A connection that ends anywhere, also within a frame, delivers whole messages
// only, and the next one goes on.
func TestCutWithinFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		for cut := 2_000; cut < 60_000; cut += 1_777 {
			r.net.setTaken(cut)
			before := len(b.all())
			a.Send(1, app(a, b, 1, 20_000))
			a.Send(1, app(a, b, 2, 20_000, 4_000))
			eventually(t, "the end of the connection", func() bool { return a.losses(1, b.o.RaftID) > 0 || len(b.all()) == before+2 })
			r.net.setTaken(0)
			r.net.breakAll()
			eventually(t, "a message over the next connection", func() bool {
				a.Send(2, app(a, b, 3, 1000))
				got := b.all()
				return len(got) > 0 && got[len(got)-1].shard == 2
			})
			eventually(t, "quiet", func() bool { return a.link(b, Append).QueuedMessages == 0 })
			r.net.breakAll()
			eventually(t, "the link to fall", func() bool { return !a.link(b, Append).Connected })
			a.mu.Lock()
			clear(a.lost)
			a.mu.Unlock()
		}
		for _, got := range b.all() {
			for i, e := range got.m.GetEntries() {
				for _, x := range e.GetData() {
					if x != byte(got.m.GetIndex()) && x != byte(i) {
						t.Fatalf("message %d is damaged", got.m.GetIndex())
					}
				}
			}
		}
	})
}

func TestRestartOnTheSameAddress(t *testing.T) {
	r := newRig(t, false)
	a := r.start("a", nil)
	addr := freeAddress(t)
	at := func(o *Options) { o.Address, o.RaftID = addr, 50 }
	b := r.start("b", at)
	r.meet()
	for range 3 {
		eventually(t, "a message", func() bool { a.Send(1, heartbeat(a, b, 1)); return len(b.all()) > 0 })
		b.stop()
		eventually(t, "the loss", func() bool { a.Send(1, heartbeat(a, b, 1)); return a.losses(1, 50) > 0 })
		b = r.start("b", at)
		r.meet()
	}
	if s := a.link(b, Control); s.Connects < 3 {
		t.Errorf("stats %+v", s)
	}
}

// A peer that connects to us is dialed at once, whatever is left of the back-off.
func TestConnectingPeerEndsBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a := r.start("a", func(o *Options) { o.BackoffMax = time.Hour })
		if err := a.AddPeer(2, "b", "b"); err != nil {
			t.Fatal(err)
		}
		for range 10_000 {
			a.Send(1, heartbeat(a, &node{o: Options{RaftID: 2}}, 1))
			time.Sleep(time.Second)
		}
		b := r.start("b", nil)
		r.meet()
		began := time.Now()
		b.Send(1, heartbeat(b, a, 1))
		eventually(t, "a message", func() bool { a.Send(1, heartbeat(a, b, 1)); return len(b.all()) > 0 })
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestPeersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		eventually(t, "a message", func() bool { a.Send(1, heartbeat(a, b, 1)); return len(b.all()) > 0 })
		b.stop()
		moved := r.start("b", func(o *Options) { o.RaftID, o.Listener = b.o.RaftID, r.net.listen("elsewhere") })
		r.meet()
		began := time.Now()
		eventually(t, "a message at the new address", func() bool { a.Send(1, heartbeat(a, b, 1)); return len(moved.all()) > 0 })
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("took %s", d)
		}
		a.RemovePeer(b.o.RaftID)
		eventually(t, "the links to fall", func() bool { s := moved.link(a, Control); return !s.Connected && !s.Inbound })
		n := len(moved.all())
		a.Send(1, heartbeat(a, b, 1))
		time.Sleep(5 * time.Second)
		if len(moved.all()) != n || len(a.Stats()) != 0 {
			t.Error("a removed peer is still a peer")
		}
		moved.Send(1, heartbeat(moved, a, 1))
		eventually(t, "refusal", func() bool {
			return moved.link(a, Control).Error == "connect to a: refused by the peer: node a knows no node b with Raft id 2"
		})
	})
}

// A message that no frame can hold is lost alone.
func TestTooLargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a := r.start("a", nil)
		b := r.start("b", func(o *Options) { o.MaxFrameBytes = 10_000 })
		r.meet()
		a.Send(1, app(a, b, 1, 9_000))
		a.Send(2, app(a, b, 2, 12_000))
		a.Send(3, app(a, b, 3, 9_000))
		eventually(t, "the small ones", func() bool { return len(b.all()) == 2 })
		eventually(t, "the report", func() bool { return a.losses(2, b.o.RaftID) == 1 })
		if s := a.link(b, Append); s.Connects != 1 || s.Drops != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestClassNames(t *testing.T) {
	if got := fmt.Sprint(Control, Append, Calls, Bulk, classes); got != "control append calls bulk unknown" {
		t.Error(got)
	}
}
