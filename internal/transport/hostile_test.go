package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Connections of programs that are no nodes end soon and do no harm.
func TestGarbageConnections(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a", func(o *Options) { o.MaxInbound, o.HandshakeTimeout = 4, 300*time.Millisecond }), r.start("b", nil)
		r.meet()
		dial := b.Transport.o.Dial
		for _, text := range []string{"", "GET / HTTP/1.0\r\n\r\n", strings.Repeat("\x16\x03\x01", 1000)} {
			c, err := dial(context.Background(), a.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte(text))
			if text != "" {
				c.Close()
				continue
			}
			for err == nil { // one that says nothing
				_, err = c.Read(make([]byte, 100))
			}
		}
		eventually(t, "the connections' ends", func() bool { a.Transport.mu.Lock(); defer a.Transport.mu.Unlock(); return len(a.inbound) == 0 })
		eventually(t, "a heartbeat", func() bool { b.Send(1, heartbeat(b, a, 1)); return len(a.all()) > 0 })
	})
}

// A listener that accepts and never answers, as a stopped process does.
func TestStoppedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a := r.start("a", nil)
		l := r.net.listen("b")
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
			}
		}()
		if err := a.AddPeer(2, "b", "b"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := a.Call(context.Background(), Peer{ID: 2}, 1, nil)
		if d := time.Since(began); !errors.Is(err, ErrNotSent) || err.Error() != "call b: not sent: connect to b: no answer within 2s" || d != 2*time.Second {
			t.Errorf("after %s: %v", d, err)
		}
	})
}

// impostor is a node that holds a good certificate and speaks by hand.
func (r *rig) impostor(t *testing.T, name string, id uint64, to *node, class Class) *wire {
	t.Helper()
	o := &Options{Name: name, RaftID: id, Boot: 7, Credentials: credentials(t, r.authority, name, time.Now())}
	if err := o.fill(); err != nil {
		t.Fatal(err)
	}
	c, err := to.Transport.o.Dial(context.Background(), to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := newWire(o, c, class, new(meter))
	if err := w.handshake(context.Background(), tls.Client(w.raw, o.Credentials.client()), true); err != nil {
		t.Fatal(err)
	}
	own := &hello{Version: 1, VersionMin: 1, Cluster: "c1", Node: name, RaftID: id, Boot: 7, MaxFrame: 1 << 20, Class: class}
	if err := w.hello(own); err != nil {
		t.Fatal(err)
	}
	h, err := w.readHello()
	if err != nil {
		t.Fatal(err)
	}
	w.establish(h)
	return w
}

// What no node sends closes the connection, and is in the log.
func TestMalformedFramesCloseTheLink(t *testing.T) {
	tests := map[string]struct {
		class Class
		frame []byte
		log   string
	}{
		"unknown kind":      {Control, frameOf(header{kind: 200}, nil), "frame of kind 200"},
		"too long":          {Control, frameHead(header{kind: kindRaft, length: 33 << 20}), "at most 33554432 are allowed"},
		"checksum":          {Control, append(frameOf(header{kind: kindPing}, nil)[:23], 9), "checksum"},
		"call on raft link": {Append, frameOf(header{kind: kindCall, method: 1}, nil), "frame of kind 6 on this link"},
		"raft on calls":     {Calls, frameOf(header{kind: kindRaft}, nil), "frame of kind 5 on this link"},
		"no raft message":   {Append, frameOf(header{kind: kindRaft}, []byte{0xff, 0xff}), "raft message"},
		"reply unasked":     {Calls, frameOf(header{kind: kindReply}, nil), "frame of kind 9 on this link"},
		"request twice": {Calls, append(frameOf(header{kind: kindCall, method: methodWait, id: 4}, nil),
			frameOf(header{kind: kindCall, method: methodWait, id: 4}, nil)...), "request 4 is under way already"},
		"second hello": {Bulk, frameOf(header{kind: kindHello}, []byte("{}")), "frame of kind 1 on this link"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, true)
				a := r.start("a", nil)
				a.serveWaiting()
				if err := a.AddPeer(9, "x", "x"); err != nil {
					t.Fatal(err)
				}
				w := r.impostor(t, "x", 9, a, tt.class)
				if _, err := w.bw.Write(tt.frame); err != nil {
					t.Fatal(err)
				}
				if err := w.flush(); err != nil {
					t.Fatal(err)
				}
				for {
					if _, _, err := w.in.next(); err != nil {
						break
					}
				}
				eventually(t, "the log", func() bool { return strings.Contains(a.log.String(), tt.log) })
			})
		})
	}
}

func frameHead(h header) []byte {
	var head [headerSize]byte
	h.put(&head)
	return head[:]
}

// A link that its peer has given up without our hearing of it does not stay
// beside the new one.
func TestNewConnectionReplacesOld(t *testing.T) {
	inMemory(t, func(o *Options) { o.DeadAfter = time.Hour }, func(t *testing.T, r *rig, a, b *node) {
		a.Send(1, heartbeat(a, b, 1))
		eventually(t, "a heartbeat", func() bool { return len(b.all()) == 1 })
		r.net.setDark(func(string, string) bool { return true })
		a.known(b.o.RaftID).links[Control].reset(net.ErrClosed)
		eventually(t, "the link to fall", func() bool { return !a.link(b, Control).Connected })
		r.net.setDark(func(string, string) bool { return false })
		eventually(t, "another heartbeat", func() bool { a.Send(1, heartbeat(a, b, 2)); return len(b.all()) > 1 })
		synctest.Wait()
		b.Transport.mu.Lock()
		defer b.Transport.mu.Unlock()
		if n := len(b.inbound); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestConnected(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, _ *rig, a, b *node) {
		id := b.o.RaftID
		if a.Connected(id, Calls) || a.Connected(77, Calls) {
			t.Error("connected before the first call")
		}
		b.serveEcho()
		if _, err := a.Call(within(t, time.Second), Peer{ID: id}, methodEcho, nil); err != nil || !a.Connected(id, Calls) || a.Connected(id, Bulk) {
			t.Error("not connected after a call", err)
		}
	})
}

// A peer that is removed while its connection is being greeted does not get in
// as the stranger that it has become, and one whose Raft id has got another name
// not at all.
func TestPeerRemovedWhileItConnects(t *testing.T) {
	r := newRig(t, true)
	a := r.start("a", nil)
	for _, class := range []Class{Control, Append, Calls, Bulk} {
		if err := a.AddPeer(9, "x", "x"); err != nil {
			t.Fatal(err)
		}
		in := &inbound{t: a.Transport}
		h := &hello{Version: 1, VersionMin: 1, Cluster: "c1", Node: "x", RaftID: 9, Boot: 7, MaxFrame: 1 << 20, Class: class}
		if err := in.judge(h, a.self(class, 0), "x", a.Addr()); err != nil {
			t.Fatal(err)
		}
		for reason, change := range map[Reason]func(){
			ReasonUnknown: func() { a.RemovePeer(9) },
			ReasonName: func() {
				if err := a.AddPeer(9, "y", "y"); err != nil {
					t.Error(err)
				}
			},
		} {
			a.RemovePeer(9)
			change()
			err := a.admit(in, h, nil)
			if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Reason != reason {
				t.Errorf("%s: %v, want %s", class, err, reason)
			}
			a.RemovePeer(9)
		}
	}
}

// A peer that sends calls which fail, and reads none of the answers, is cut off
// before they fill the memory.
func TestPeerThatReadsNoReplies(t *testing.T) {
	for name, fill := range map[string]func(*node){
		"failing": func(n *node) {
			n.HandleAsync(methodFail, func(_ context.Context, _ From, _ []byte, respond func([]byte, error)) {
				respond(nil, errors.New("no"))
			})
		},
		"answered": func(n *node) {
			n.HandleAsync(methodFail, func(_ context.Context, _ From, _ []byte, respond func([]byte, error)) { respond(nil, nil) })
		},
		"unknown": func(*node) {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			a := r.start("a", func(o *Options) { o.MaxCalls, o.WriteTimeout = 3, time.Hour })
			fill(a)
			if err := a.AddPeer(9, "x", "x"); err != nil {
				t.Fatal(err)
			}
			w := r.impostor(t, "x", 9, a, Calls)
			var err error
			for id := uint64(1); err == nil; id++ {
				if _, err = w.bw.Write(frameOf(header{kind: kindCall, method: methodFail, id: id}, nil)); err == nil {
					err = w.flush()
				}
			}
			eventually(t, "the log", func() bool { return strings.Contains(a.log.String(), "reads no replies") })
		})
	}
}
