package spool

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// TestCutOff: an edge that is cut off for a quarter of an hour, is killed meanwhile,
// and comes back to a cluster that was down as well, has refused nothing, and forwards
// each message once and in order.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.size = 64 << 20
		w.up.flaky(w.rng, 1)
		e := w.start()
		begin := time.Now()
		for n := 0; time.Since(begin) < 15*time.Minute; n++ {
			for _, who := range []string{"a", "b"} {
				if !w.publish(e, who, "orders", 1+n%3, nil) {
					t.Fatal("a publish is refused")
				}
			}
			time.Sleep(time.Second)
			if n%400 == 399 {
				w.disk.Kill()
				e.end()
				e = w.start()
			}
		}
		s := e.Stats("")
		if age := s.Oldest; age < 15*time.Minute || age > 16*time.Minute || s.Depth != int64(w.sent["aorders"]+w.sent["borders"]) {
			t.Errorf("after 15 minutes: %+v", s)
		}
		if f := e.f.Stats(); f.Connected || fault.CodeOf(f.Err) != fault.Unreachable || f.Failures > 2000 {
			t.Errorf("cut off: %+v", f)
		}
		w.up.flaky(w.rng, 0)
		w.drain(e)
		if f := e.f.Stats(); !f.Connected || f.Messages == 0 {
			t.Errorf("back: %+v", f)
		}
		e.end()
		for _, p := range w.ledger.verify(t, w.up) {
			t.Error(p)
		}
		if w.full > 0 {
			t.Errorf("%d publishes were refused", w.full)
		}
	})
}

// TestFull: a spool that is full refuses, keeps what it has, and takes more when that
// has been forwarded; how often does not matter.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		e := w.start()
		defer func() { e.end() }()
		for range 3 {
			w.up.flaky(w.rng, 1)
			full := w.full
			for i := 0; w.full == full; i++ {
				if !w.publish(e, "a", "orders", 500, bytes.Repeat([]byte{'k'}, 100)) || i > 100 {
					t.Fatalf("it is never full: %+v", e.Stats(""))
				}
			}
			if s := e.Stats(""); s.Bytes > s.Limit || s.Bytes < s.Limit*9/10 || s.Refused == 0 {
				t.Errorf("full: %+v", s)
			}
			w.up.flaky(w.rng, 0)
			w.drain(e)
			time.Sleep(3 * time.Second)
			if s := e.Stats(""); s.Bytes > s.Limit/4 {
				t.Errorf("empty: %+v", s)
			}
		}
		for _, p := range w.ledger.verify(t, w.up) {
			t.Error(p)
		}
	})
}

// TestStuckTopic: a topic that upstream refuses does not keep the log of the others,
// and comes when it is taken, also behind a crash.
func TestStuckTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		e := w.start()
		defer func() { e.end() }()
		w.up.refuse("stuck")
		for range 5 {
			w.publish(e, "a", "stuck", 3, nil)
		}
		for n := range 200 {
			if !w.publish(e, "a", "orders", 100, bytes.Repeat([]byte{'k'}, 200)) || w.full > 0 {
				t.Fatalf("round %d: %+v", n, e.Stats(""))
			}
			time.Sleep(300 * time.Millisecond)
			if n%80 == 79 {
				w.disk.Crash(w.rng)
				e.end()
				e = w.start()
			}
		}
		if s := e.Stats("stuck"); len(s.Topics) != 1 || s.Topics[0].Depth != 15 || s.Topics[0].Oldest < time.Minute {
			t.Errorf("stuck: %+v", s)
		}
		w.up.refuse("")
		w.drain(e)
		for _, p := range w.ledger.verify(t, w.up) {
			t.Error(p)
		}
	})
}

// TestUpstreamForgets: a topic that is made anew, with fewer partitions, or a cluster
// that has lost what it took, gets what comes from then on.
func TestUpstreamForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.up.count = 3
		e := w.start()
		defer e.end()
		send := func(n int) {
			for i := range n {
				w.publish(e, fmt.Sprint("p", i%5), "orders", 1, fmt.Append(nil, "key", i%5))
			}
			w.drain(e)
		}
		send(20)
		w.up.mu.Lock()
		w.up.topics, w.up.count = make(map[string][]*partitionLog), 2
		w.up.mu.Unlock()
		send(10)
		w.up.mu.Lock()
		for _, p := range w.up.topics["orders"] {
			p.sessions[e.Origin()] = 7 // a backup of long ago
		}
		w.up.mu.Unlock()
		send(10)
		var got []string
		for _, list := range w.up.bodies("orders") {
			got = append(got, list...)
		}
		slices.Sort(got)
		if len(got) != 20 || got[0] != "p0/5" && got[0] != "p0/6" {
			t.Errorf("upstream has %q", got)
		}
	})
}

// TestRefuses: what can't be taken is refused, and says why.
func TestRefuses(t *testing.T) {
	disk := vfs.NewMem()
	if _, err := Open(Options{FS: disk, Dir: "edge", Size: MinSize - 1}); err == nil {
		t.Error("a spool without room is opened")
	}
	s, err := Open(Options{FS: disk, Dir: "edge", Size: MinSize})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{FS: disk, Dir: "edge", Size: MinSize}); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	msgs := []Message{{Body: []byte("x")}}
	for topic, want := range map[string]fault.Code{"not/a/name": fault.InvalidTopic, "mist#ephemeral": fault.Unsupported} {
		if err := s.Publish(topic, msgs, nil); fault.CodeOf(err) != want {
			t.Errorf("publish to %s: %v", topic, err)
		}
		if err := s.CreateTopic(topic); fault.CodeOf(err) != want {
			t.Errorf("create %s: %v", topic, err)
		}
	}
	large := []Message{{Body: make([]byte, MinSize)}}
	if err := s.Publish("orders", large, nil); !errors.Is(err, fault.SpoolFull) {
		t.Errorf("more than fits: %v", err)
	}
	s.reserved.Store(true)
	if err := s.Publish("orders", msgs, nil); !errors.Is(err, fault.DiskReserve) || !errors.Is(s.Health(), fault.DiskReserve) {
		t.Errorf("a full disk: %v", err)
	}
	s.reserved.Store(false)
	if err := s.Health(); err != nil || s.Stats("").Refused != 4 {
		t.Errorf("%v, %+v", err, s.Stats(""))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFileAtomic(disk, "edge/NODE", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{FS: disk, Dir: "edge", Size: MinSize}); err == nil {
		t.Error("a node's folder is taken")
	}
}

// TestReserve: the spool stops taking when its volume is as full as it may be.
func TestReserve(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetCapacity(64 << 20)
	s, err := Open(Options{FS: disk, Dir: "edge", Size: MinSize, Reserve: 128 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.look()
	if err := s.Health(); !errors.Is(err, fault.DiskReserve) {
		t.Errorf("below the reserve: %v", err)
	}
	disk.SetCapacity(512 << 20)
	s.look()
	if err := s.Health(); err != nil {
		t.Error(err)
	}
}

// TestNewLogNewOrigin: positions begin anew with the log, and so does the origin.
func TestNewLogNewOrigin(t *testing.T) {
	disk := vfs.NewMem()
	var seen []Origin
	for range 2 {
		for range 2 {
			s, err := Open(Options{FS: disk, Dir: "edge", Size: MinSize})
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, s.Origin())
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := disk.RemoveAll("edge/wal"); err != nil {
			t.Fatal(err)
		}
	}
	if seen[0] != seen[1] || seen[2] != seen[3] || seen[0] == seen[2] || seen[0] == (Origin{}) {
		t.Errorf("origins %x", seen)
	}
}

func TestCodec(t *testing.T) {
	msgs := []Message{
		{Body: []byte("x")},
		{Body: []byte("y"), Key: []byte("k"), ID: []byte{}, DueNs: 1 << 60},
		{Body: bytes.Repeat([]byte("z"), 300), Key: []byte{}, ID: []byte("id")},
	}
	b := AppendMessages(nil, msgs)
	got, err := Messages(b, 3)
	if err != nil || !reflect.DeepEqual(got, msgs) {
		t.Errorf("%+v comes back as %+v, %v", msgs, got, err)
	}
	if len(b) > sizeOf(msgs) {
		t.Errorf("%d bytes, said to be at most %d", len(b), sizeOf(msgs))
	}
	if _, err := Messages(b, 2); err == nil {
		t.Error("too many messages are read")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(AppendMessages(nil, []Message{{Body: []byte("x"), Key: []byte("k")}, {Body: []byte("y"), ID: []byte("i"), DueNs: 7}}))
	f.Add([]byte{0x01, 'x', 0, 0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		msgs, err := Messages(b, 1000)
		if err != nil {
			return
		}
		again, err := Messages(AppendMessages(nil, msgs), 1000)
		if err != nil || !reflect.DeepEqual(msgs, again) {
			t.Errorf("%+v comes back as %+v, %v", msgs, again, err)
		}
	})
}

// TestLargeStuckTopic: what a topic holds that upstream refuses is not written again
// and again, beyond the bound of the spool, when it is most of a small one.
func TestLargeStuckTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		e := w.start()
		defer func() { e.end() }()
		w.up.refuse("stuck")
		for range 14 {
			w.publish(e, "a", "stuck", 500, bytes.Repeat([]byte{'k'}, 100))
		}
		written := e.Stats("").Log.Bytes
		for range 10 {
			time.Sleep(time.Second)
			if s := e.Stats(""); s.Bytes > s.Limit || s.Log.Bytes > written+64<<10 {
				t.Fatalf("%d bytes of %d are used, %d were written since", s.Bytes, s.Limit, s.Log.Bytes-written)
			}
		}
		w.up.refuse("")
		w.drain(e)
		for _, p := range w.ledger.verify(t, w.up) {
			t.Error(p)
		}
	})
}
