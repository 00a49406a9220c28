package nsq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const patience = 10 * time.Second

// running is a front that serves a broker until the test ends.
type running struct {
	*Front
	t    *testing.T
	tcp  string
	http string
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, b Broker, o Options) *running {
	t.Helper()
	for _, l := range []*net.Listener{&o.TCP, &o.HTTP} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	return startOn(t, b, o)
}

// startOn is start with listeners.
func startOn(t *testing.T, b Broker, o Options) *running {
	t.Helper()
	o.LogLevel = new(slog.LevelVar)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Front: New(b, o), t: t, tcp: o.TCP.Addr().String(), http: o.HTTP.Addr().String(), stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-r.done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the front does not stop")
		}
		r.done <- nil
	})
	return r
}

// peer is a client.
type peer struct {
	t *testing.T
	net.Conn
}

func (r *running) dial() *peer {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.tcp)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	p := &peer{r.t, nc}
	p.send("  V2")
	return p
}

func (p *peer) send(s string) {
	p.t.Helper()
	p.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p, s); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// frame returns the next frame as "type:data", a message's without its head.
func (p *peer) frame() (string, error) {
	p.SetReadDeadline(time.Now().Add(patience))
	var head [8]byte
	if _, err := io.ReadFull(p, head[:]); err != nil {
		return "", err
	}
	data := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(p, data); err != nil {
		return "", err
	}
	kind := binary.BigEndian.Uint32(head[4:])
	if kind == frameMessage {
		data = data[26:]
	}
	return fmt.Sprintf("%d:%s", kind, data), nil
}

func (p *peer) want(frames ...string) {
	p.t.Helper()
	for _, want := range frames {
		got, err := p.frame()
		if err != nil || got != want {
			p.t.Fatalf("want %q, got %q, %v", want, got, err)
		}
	}
}

func (p *peer) wantClosed() {
	p.t.Helper()
	if f, err := p.frame(); err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
		p.t.Fatalf("want the connection closed, got %q, %v", f, err)
	}
}

func sized(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }

func multi(bodies ...string) string {
	s := string(binary.BigEndian.AppendUint32(nil, uint32(len(bodies))))
	for _, b := range bodies {
		s += sized(b)
	}
	return s
}

// post returns the status and body of a POST.
func (r *running) post(path, body string, header ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest("POST", "http://"+r.http+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return r.do(req)
}

func (r *running) get(path string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest("GET", "http://"+r.http+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(req)
}

func (r *running) do(req *http.Request) (int, string) {
	r.t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
