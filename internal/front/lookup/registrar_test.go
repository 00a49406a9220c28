package lookup

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 20 * time.Second

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// fake is an nsqlookupd that behaves as the test says.
type fake struct {
	l    net.Listener
	http net.Listener
	// reply is the answer to a command, false for none; nil: as it should be.
	reply func(command string) (string, bool)
	// web answers /channels.
	web http.HandlerFunc

	mu       sync.Mutex
	heard    []string // commands, of all connections
	sessions int
	conns    []net.Conn
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	for _, l := range []*net.Listener{&f.l, &f.http} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.web(w, r) })}
	go server.Serve(f.http)
	go func() {
		for {
			nc, err := f.l.Accept()
			if err != nil {
				return
			}
			go f.serve(nc)
		}
	}()
	t.Cleanup(func() { f.l.Close(); server.Close(); f.cut() })
	return f
}

func (f *fake) addr() string { return f.l.Addr().String() }

// cut breaks all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, nc := range f.conns {
		nc.Close()
	}
	f.conns = nil
}

func (f *fake) identity() string {
	_, port, _ := net.SplitHostPort(f.http.Addr().String())
	return `{"broadcast_address":"127.0.0.1","http_port":` + port + `}`
}

func say(w io.Writer, text string) {
	w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
}

func (f *fake) serve(nc net.Conn) {
	defer nc.Close()
	f.mu.Lock()
	f.sessions++
	f.conns = append(f.conns, nc)
	f.mu.Unlock()
	in := bufio.NewReader(nc)
	if _, err := in.Discard(4); err != nil {
		return
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		text, ok := "OK", true
		if line == "IDENTIFY" {
			if _, err := readReply(in); err != nil {
				return
			}
			text = f.identity()
		}
		f.mu.Lock()
		f.heard = append(f.heard, line)
		if f.reply != nil {
			if special, answers := f.reply(line); special != "" || !answers {
				text, ok = special, answers
			}
		}
		f.mu.Unlock()
		if ok {
			say(nc, text)
		}
	}
}

// count is how often a command was heard.
func (f *fake) count(command string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.heard {
		if h == command {
			n++
		}
	}
	return n
}

// offer is what a node offers, changed by the test.
type offer struct {
	mu    sync.Mutex
	names map[Name]uint64
}

func (o *offer) set(names map[Name]uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names = names
}

func (o *offer) get() map[Name]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.names
}

// register runs a registrar until the test ends.
func register(t *testing.T, o *offer, change func(*RegistrarOptions), at ...string) *Registrar {
	t.Helper()
	ro := RegistrarOptions{
		Self:      Peer{BroadcastAddress: "node.example", TCPPort: 4150, HTTPPort: 4151, Version: "1.3.0"},
		Addresses: at, Offer: o.get, RetryInterval: time.Millisecond, SettleInterval: time.Millisecond,
	}
	if change != nil {
		change(&ro)
	}
	r := NewRegistrar(ro)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the registrar does not end")
		}
	})
	return r
}

func names(list ...string) map[Name]uint64 {
	out := make(map[Name]uint64)
	for _, n := range list {
		topic, channel, _ := strings.Cut(n, " ")
		out[Name{topic, channel}] = 1
	}
	return out
}

// What a node says, word by word, as its topics come and go.
func TestRegistrarFollows(t *testing.T) {
	f, o := newFake(t), &offer{}
	heard := func(want ...string) {
		t.Helper()
		until(t, strings.Join(want, ", "), func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Equal(f.heard, want)
		})
		f.mu.Lock()
		f.heard = nil
		f.mu.Unlock()
	}
	o.set(names("a", "a x", "a y", "b"))
	r := register(t, o, nil, f.addr())
	heard("IDENTIFY", "REGISTER a x", "REGISTER a y", "REGISTER b")
	now := func(n map[Name]uint64) { o.set(n); r.Changed() }
	now(names("a", "a x", "b", "b z", "c"))
	heard("UNREGISTER a y", "REGISTER b z", "REGISTER c")
	now(names("b", "b z", "c"))
	heard("UNREGISTER a x", "UNREGISTER a")
	anew := names("b", "b z", "c")
	anew[Name{"b", ""}], anew[Name{"b", "z"}], anew[Name{"c", ""}] = 2, 2, 2
	now(anew) // deleted and made anew in between
	heard("REGISTER b z", "REGISTER c")
	f.cut()
	heard("IDENTIFY", "REGISTER b z", "REGISTER c")
	r.SetAddresses(nil)
	r.Changed()
	until(t, "no connection", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.links) == 0 })
}

func TestRegistrarPings(t *testing.T) {
	f := newFake(t)
	register(t, &offer{}, func(o *RegistrarOptions) { o.PingInterval = time.Millisecond }, f.addr())
	until(t, "pings", func() bool { return f.count("PING") > 3 })
	if n := f.count("IDENTIFY"); n != 1 {
		t.Errorf("identified %d times", n)
	}
}

// Many names are sent in batches: an nsqlookupd may be far away.
func TestRegistrarSendsManyNames(t *testing.T) {
	f, o := newFake(t), &offer{}
	many := make(map[Name]uint64)
	for i := range 5000 {
		many[Name{Topic: fmt.Sprint("t", i)}] = 1
	}
	o.set(many)
	register(t, o, nil, f.addr())
	until(t, "registrations", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.heard) == 5001
	})
}

// An nsqlookupd that misbehaves is tried again, and holds up no other.
func TestRegistrarTriesAgain(t *testing.T) {
	for name, reply := range map[string]func(string) (string, bool){
		"refuses the node":  func(c string) (string, bool) { return map[string]string{"IDENTIFY": "E_INVALID"}[c], true },
		"refuses a name":    func(c string) (string, bool) { return map[string]string{"REGISTER a": "E_BAD_TOPIC"}[c], true },
		"says nothing":      func(string) (string, bool) { return "", false },
		"stops at the end":  func(c string) (string, bool) { return "", c != "PING" },
		"talks by itself":   func(c string) (string, bool) { return map[string]string{"PING": "OK\x00\x00\x00\x02OK"}[c], true },
		"says no good JSON": func(c string) (string, bool) { return map[string]string{"IDENTIFY": "[1]"}[c], true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, good, o := newFake(t), newFake(t), &offer{}
			bad.reply = reply
			o.set(names("a"))
			register(t, o, func(o *RegistrarOptions) {
				o.CallTimeout, o.PingInterval = 50*time.Millisecond, 10*time.Millisecond
			}, bad.addr(), good.addr())
			until(t, "another attempt", func() bool { bad.mu.Lock(); defer bad.mu.Unlock(); return bad.sessions > 2 })
			until(t, "the other one", func() bool { return good.count("REGISTER a") > 0 && good.count("PING") > 0 })
		})
	}
}

// Channels returns what good answers say, and fails for none of the bad ones.
func TestRegistrarAsksForChannels(t *testing.T) {
	web := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	good := web(200, `{"channels":["a","b"]}`)
	for name, bad := range map[string]http.HandlerFunc{
		"another": web(200, `{"channels":["b","c"]}`),
		"status":  web(500, `{"channels":["d"]}`),
		"text":    web(200, "OK"),
		"null":    web(200, `{"channels":null}`),
		"silence": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, y := newFake(t), newFake(t)
			x.web, y.web = good, bad
			r := register(t, &offer{}, func(o *RegistrarOptions) { o.RequestTimeout = 300 * time.Millisecond }, x.addr(), y.addr(), "127.0.0.1:1")
			until(t, "both", func() bool { return x.count("IDENTIFY") > 0 && y.count("IDENTIFY") > 0 })
			want := []string{"a", "b"}
			if name == "another" {
				want = append(want, "c")
			}
			var got []string
			until(t, "channels", func() bool {
				got = r.Channels(t.Context(), "orders")
				return slices.Equal(got, want)
			})
		})
	}
	if got := NewRegistrar(RegistrarOptions{}).Channels(t.Context(), "orders"); got != nil {
		t.Errorf("without any nsqlookupd: %v", got)
	}
}
