package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// Both sides check who the other one is, and both say why they do not go on.
func TestIdentity(t *testing.T) {
	letIn := func(o *Options) { o.Authorize = func(From, Class) error { return nil } }
	tests := []struct {
		name     string
		node     func(t *testing.T, r *rig) func(*Options) // how node b differs
		expect   func(Peer) Peer                           // what a expects of it
		reason   Reason                                    // empty: TLS ends it
		caller   string                                    // in the caller's error
		acceptor string                                    // in the other node's log
	}{
		{
			name:     "unknown node",
			reason:   ReasonUnknown,
			caller:   "refused by the peer: node b knows no node a with Raft id 1",
			acceptor: "node b knows no node a with Raft id 1",
		}, {
			name: "not authorized",
			node: func(*testing.T, *rig) func(*Options) {
				return func(o *Options) { o.Authorize = func(From, Class) error { return errors.New("not now") } }
			},
			reason: ReasonForbidden, caller: "refused by the peer: node b does not let node a in: not now", acceptor: "not now",
		}, {
			name: "other authority",
			node: func(t *testing.T, _ *rig) func(*Options) {
				c := credentials(t, newAuthority(t), "b", time.Now())
				return func(o *Options) { o.Credentials = c }
			},
			caller: "certificate signed by unknown authority", acceptor: "the peer does not accept our certificate",
		}, {
			name: "expired",
			node: func(t *testing.T, r *rig) func(*Options) {
				c := credentials(t, r.authority, "b", time.Now().Add(-48*time.Hour))
				return func(o *Options) { o.Credentials = c }
			},
			caller: "certificate has expired", acceptor: "the peer does not accept our certificate",
		}, {
			name: "not yet valid",
			node: func(t *testing.T, r *rig) func(*Options) {
				c := credentials(t, r.authority, "b", time.Now().Add(2*time.Hour))
				return func(o *Options) { o.Credentials = c }
			},
			caller: "is not yet valid", acceptor: "the peer does not accept our certificate",
		}, {
			name:   "wrong name",
			node:   func(*testing.T, *rig) func(*Options) { return letIn },
			expect: func(p Peer) Peer { p.Name = "c"; return p },
			reason: ReasonName, caller: "node a expected node c here, the certificate says b", acceptor: "refused by the peer: node a expected node c here",
		}, {
			name:   "wrong Raft id",
			node:   func(*testing.T, *rig) func(*Options) { return letIn },
			expect: func(p Peer) Peer { p.ID = 77; return p },
			reason: ReasonRaftID, caller: "node b has Raft id 2, node a expected 77", acceptor: "refused by the peer: node b has Raft id 2",
		}, {
			name: "wrong cluster",
			node: func(*testing.T, *rig) func(*Options) {
				return func(o *Options) { letIn(o); o.Cluster = "c2" }
			},
			reason: ReasonCluster, caller: "refused by the peer: node b belongs to cluster c2, node a to cluster \\\"c1\\\"", acceptor: "node b belongs to cluster c2",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, true)
				a := r.start("a", nil)
				var change func(*Options)
				if tt.node != nil {
					change = tt.node(t, r)
				}
				b := r.start("b", change)
				b.serveEcho()
				to := b.peer()
				if tt.expect != nil {
					to = tt.expect(to)
				}
				_, err := a.Call(within(t, 10*time.Second), to, methodEcho, nil)
				want := strings.ReplaceAll(tt.caller, `\"`, `"`)
				if !errors.Is(err, ErrNotSent) || !strings.Contains(err.Error(), want) {
					t.Errorf("the caller's error: %v", err)
				}
				refused, ok := errors.AsType[*RefusedError](err)
				if tt.reason == "" && ok || tt.reason != "" && (!ok || refused.Reason != tt.reason) {
					t.Errorf("reason: %+v", refused)
				}
				eventually(t, "the log of the other node", func() bool { return strings.Contains(b.log.String(), tt.acceptor) })
				eventually(t, "the log of the caller", func() bool { return strings.Contains(a.log.String(), tt.caller) })
			})
		})
	}
}

// What the acceptor finds wrong with the caller's certificate reaches the caller.
func TestCallerWithBadCertificate(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a := r.start("a", func(o *Options) {
			o.Credentials = credentials(t, r.authority, "a", time.Now().Add(-48*time.Hour))
		})
		b := r.start("b", nil)
		r.meet()
		_, err := a.Call(within(t, 10*time.Second), Peer{ID: b.o.RaftID}, methodEcho, nil)
		if !errors.Is(err, ErrNotSent) || !strings.Contains(err.Error(), "the peer does not accept our certificate") {
			t.Errorf("the caller's error: %v", err)
		}
		eventually(t, "the log of the other node", func() bool { return strings.Contains(b.log.String(), "certificate has expired") })
	})
}

// A node that knows nobody yet may call and be called, but not take part in Raft.
func TestForming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		forming := func(o *Options) {
			o.Cluster = ""
			o.Authorize = func(f From, _ Class) error {
				if f.Cluster != "" && f.Cluster != "c1" {
					return errors.New("not of this cluster")
				}
				return nil
			}
		}
		a, b := r.start("a", forming), r.start("b", forming)
		b.serveEcho()
		b.chunked(1000)
		got, err := a.Call(within(t, time.Second), Peer{Addr: "b"}, methodFrom, nil)
		if want := "1 a 1001  false"; err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
		s, err := a.Fetch(within(t, time.Second), Peer{Addr: "b"}, methodCount, countTo(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Call(within(t, time.Second), Peer{Addr: "a"}, methodFrom, nil); !refusedFor(err, ReasonSelf) {
			t.Errorf("a node that calls itself: %v", err)
		}
		// Peers before the cluster has an id.
		r.meet()
		a.Send(1, heartbeat(a, b, 1))
		eventually(t, "refusal", func() bool { return strings.Contains(a.link(b, Control).Error, "belongs to no cluster yet") })
		a.SetCluster("c1")
		a.Send(1, heartbeat(a, b, 1))
		eventually(t, "refusal", func() bool { return strings.Contains(a.link(b, Control).Error, "node b belongs to no cluster yet") })
		b.SetCluster("c1")
		eventually(t, "a heartbeat", func() bool { a.Send(1, heartbeat(a, b, 1)); return len(b.all()) > 0 })
		// The link from before is that of a known peer now.
		got, err = a.Call(within(t, time.Second), Peer{Addr: "b"}, methodFrom, nil)
		if want := "1 a 1001  true"; err != nil || string(got) != want {
			t.Errorf("got %q, %v", got, err)
		}
		// Somebody turns out to belong elsewhere.
		b.SetCluster("c9")
		eventually(t, "refusal", func() bool {
			a.Send(1, heartbeat(a, b, 1))
			return strings.Contains(a.link(b, Control).Error, "node b belongs to cluster c9")
		})
		if s := b.link(a, Control); s.Inbound {
			t.Error("a link of another cluster is still open")
		}
	})
}

// A cluster id that comes while a connection is made counts for that connection.
func TestClusterSettlesWhileConnecting(t *testing.T) {
	for name, settle := range map[string]func(a, b *node){
		"the side that accepts": func(_, b *node) { b.SetCluster("c1") },
		"the side that dials":   func(a, _ *node) { a.SetCluster("c1") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, true)
				accepts := name == "the side that accepts"
				var a, b *node
				between := func(From, Class) error { settle(a, b); return nil } // the hellos are compared already, or on their way
				a = r.start("a", func(o *Options) {
					if o.Cluster = "c9"; !accepts {
						o.Cluster = ""
					}
				})
				b = r.start("b", func(o *Options) {
					if o.Cluster, o.Authorize = "", between; !accepts {
						o.Cluster = "c9"
					}
				})
				b.serveEcho()
				if _, err := a.Call(within(t, time.Second), Peer{Addr: "b"}, methodEcho, nil); !refusedFor(err, ReasonCluster) {
					t.Errorf("nodes of two clusters talk: %v", err)
				}
			})
		})
	}
}

func refusedFor(err error, reason Reason) bool {
	refused, ok := errors.AsType[*RefusedError](err)
	return ok && refused.Reason == reason
}

// Connections to nodes that are no peers end when nobody uses them, and their
// number is bounded.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a := r.start("a", func(o *Options) { o.MaxStrangers = 2 })
		letIn := func(o *Options) { o.Authorize = func(From, Class) error { return nil } }
		for _, name := range []string{"b", "c", "d"} {
			r.start(name, letIn).serveEcho()
		}
		call := func(name string) error {
			_, err := a.Call(within(t, time.Second), Peer{Addr: name}, methodEcho, nil)
			return err
		}
		for range 3 {
			for _, name := range []string{"b", "c"} {
				if err := call(name); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := call("d"); !errors.Is(err, ErrNotSent) {
			t.Errorf("beyond the bound: %v", err)
		}
		time.Sleep(a.o.IdleTimeout + 40*time.Second)
		if err := call("d"); err != nil {
			t.Error(err)
		}
		if err := call("b"); err != nil {
			t.Error(err)
		}
	})
}

func TestVersions(t *testing.T) {
	own := &hello{Version: 3, VersionMin: 2, Node: "a", RaftID: 1, Boot: 1}
	for _, tt := range []struct {
		newest, oldest int
		ok             bool
	}{{1, 1, false}, {2, 1, true}, {3, 3, true}, {9, 3, true}, {9, 4, false}} {
		h := &hello{Version: tt.newest, VersionMin: tt.oldest, Node: "b", RaftID: 2, Boot: 2}
		if err := h.check(own, "b"); (err == nil) != tt.ok || err != nil && !refusedFor(err, ReasonVersion) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"n1": true, "a": true, "Node-1.rack_2": true, "": false, "-a": false, ".a": false, "a b": false, "ä": false, "a/b": false,
		strings.Repeat("x", 64): true, strings.Repeat("x", 65): false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v", name, got)
		}
	}
}

func TestAuthority(t *testing.T) {
	now := time.Now()
	a, err := NewAuthority(now, 10*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseAuthority(cert, key)
	if err != nil || !again.Expires().Equal(a.Expires()) {
		t.Fatal(again, err)
	}
	other, otherKey, err := newAuthority(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	nodeCert, nodeKey, err := again.Issue("n1", []string{"n1.example", "10.0.0.1"}, now, 365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2][]byte{{cert, otherKey}, {other, key}, {nil, key}, {cert, nil}, {nodeCert, nodeKey}, {key, cert}} {
		if _, err := ParseAuthority(pair[0], pair[1]); err == nil {
			t.Errorf("%.20s and %.20s are an authority", pair[0], pair[1])
		}
	}
	c, err := NewCredentials(cert, nodeCert, nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name() != "n1" || !c.Expires().Equal(a.Expires()) {
		t.Errorf("certificate of %s until %s, that of the authority until %s", c.Name(), c.Expires(), a.Expires())
	}
	if _, err := NewCredentials(cert, cert, key); err == nil {
		t.Error("the authority's certificate passes for a node's")
	}
	if _, _, err := a.Issue("n/1", nil, now, time.Hour); err == nil {
		t.Error("issued for a bad name")
	}
	if _, _, err := a.Issue("n1", nil, now.Add(11*24*time.Hour), time.Hour); err == nil {
		t.Error("issued by an expired authority")
	}
}

// certFiles writes a node's files as `tidings cluster cert` does.
func certFiles(t *testing.T, dir string, authorities []*Authority, by *Authority, name string, hour int) (ca, cert, key string) {
	t.Helper()
	var pem []byte
	for _, a := range authorities {
		text, _, err := a.PEM()
		if err != nil {
			t.Fatal(err)
		}
		pem = append(pem, text...)
	}
	c, k, err := by.Issue(name, nil, time.Now(), time.Duration(hour)*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, cert, key = filepath.Join(dir, "ca.crt"), filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	stamp := time.Now().Add(time.Duration(hour) * time.Minute) // so that the times differ whatever the file system keeps
	for file, text := range map[string][]byte{ca: pem, cert: c, key: k} {
		if err := errors.Join(os.WriteFile(file, text, 0o600), os.Chtimes(file, stamp, stamp)); err != nil {
			t.Fatal(err)
		}
	}
	return ca, cert, key
}

// Certificates and authorities are rotated under running nodes.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		old, young := newAuthority(t), newAuthority(t)
		load := func() *Credentials {
			c, err := LoadTLS(certFiles(t, dir, []*Authority{old}, old, "a", 1))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		r := newRig(t, true)
		a := r.start("a", func(o *Options) { o.Credentials = load() })
		began := time.Now()
		with := func(authority *Authority, trusted ...*Authority) func(*Options) {
			return func(o *Options) {
				var pem []byte
				for _, x := range trusted {
					text, _, err := x.PEM()
					if err != nil {
						t.Fatal(err)
					}
					pem = append(pem, text...)
				}
				cert, key, err := authority.Issue("b", nil, time.Now(), 20*time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				if o.Credentials, err = NewCredentials(pem, cert, key); err != nil {
					t.Fatal(err)
				}
			}
		}
		b := r.start("b", with(old, old, young))
		r.meet()
		works := func() bool {
			r.net.breakAll()
			_, err := a.Call(within(t, 10*time.Second), Peer{ID: b.o.RaftID}, 99, nil)
			return fault.CodeOf(err) == fault.Unsupported
		}
		eventually(t, "a call with the first certificate", works)

		// A new certificate by the new authority.
		time.Sleep(2 * time.Second)
		certFiles(t, dir, []*Authority{old, young}, young, "a", 10)
		time.Sleep(2 * time.Second)
		if got := a.o.Credentials.Expires(); got.Before(began.Add(9 * time.Hour)) {
			t.Fatalf("the certificate in force ends at %s", got)
		}
		eventually(t, "a call with the second certificate", works)

		// Half-written files leave the ones before in force.
		if err := os.WriteFile(filepath.Join(dir, "a.crt"), []byte("-----BEGIN"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if a.o.Credentials.Err() == nil {
			t.Error("a broken file goes unnoticed")
		}
		eventually(t, "a call beside a broken file", works)
		certFiles(t, dir, []*Authority{old, young}, young, "b", 11)
		for _, ext := range []string{".crt", ".key"} {
			if err := os.Rename(filepath.Join(dir, "b"+ext), filepath.Join(dir, "a"+ext)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		if err := a.o.Credentials.Err(); err == nil || !strings.Contains(err.Error(), `it is for node "b" now, this is node "a"`) {
			t.Errorf("another node's certificate: %v", err)
		}
		certFiles(t, dir, []*Authority{young}, young, "a", 12)
		time.Sleep(2 * time.Second)
		if err := a.o.Credentials.Err(); err != nil {
			t.Error(err)
		}
		// The old authority is gone: the peer that still has a certificate of it is
		// not accepted any more.
		eventually(t, "a refusal", func() bool { return !works() && strings.Contains(a.link(b, Calls).Error, "unknown authority") })
	})
}

func TestBadOptions(t *testing.T) {
	r := newRig(t, true)
	good := Options{Name: "a", RaftID: 1, Boot: 1, Credentials: credentials(t, r.authority, "a", time.Now()), Listener: r.net.listen("a")}
	for text, change := range map[string]func(*Options){
		`build transport: "a b" is not a node name`:                                func(o *Options) { o.Name = "a b" },
		`build transport: Raft id and boot id are needed`:                          func(o *Options) { o.RaftID = 0 },
		`build transport: no certificate`:                                          func(o *Options) { o.Credentials = nil },
		`build transport: the certificate is for node "a", this is node "b"`:       func(o *Options) { o.Name = "b" },
		`listen for cluster: listen tcp: address nowhere: missing port in address`: func(o *Options) { o.Listener, o.Address = nil, "nowhere" },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || err.Error() != text {
			t.Errorf("got %v, want %s", err, text)
		}
	}
	tr, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.SetPeers([]Peer{{ID: 2, Name: "b"}}); err == nil {
		t.Error("a peer without address")
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tr.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := tr.Run(ctx); err == nil {
		t.Error("ran twice")
	}
}

// The same trouble is logged once in a while, not each time.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &safeLog{}
		q := newQuiet(slog.New(slog.NewTextHandler(log, nil)))
		for range 100 {
			q.warn("link is down", "b", io.EOF)
			time.Sleep(time.Second)
		}
		q.warn("link is down", "c", io.EOF)
		if got := strings.Count(log.String(), "\n"); got != 5 || !strings.Contains(log.String(), "repeated=29") {
			t.Errorf("%d lines:\n%s", got, log)
		}
	})
}
