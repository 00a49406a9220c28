package node_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
)

// slowLookupd is an nsqlookupd that knows channels of every topic, and tells of
// them when it is let go.
type slowLookupd struct {
	tcp          net.Listener
	http         *httptest.Server
	nodes, asked atomic.Int64
	letGo        chan struct{}
	channelsJSON string
}

func newSlowLookupd(t *testing.T, channels ...string) *slowLookupd {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]any{"channels": channels})
	if err != nil {
		t.Fatal(err)
	}
	s := &slowLookupd{tcp: l, letGo: make(chan struct{}), channelsJSON: string(list)}
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		select {
		case <-s.letGo:
		case <-r.Context().Done():
		}
		io.WriteString(w, s.channelsJSON)
	}))
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(nc)
		}
	}()
	t.Cleanup(func() { l.Close(); s.http.CloseClientConnections(); s.http.Close() })
	return s
}

// serve takes whatever a node says.
func (s *slowLookupd) serve(nc net.Conn) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	if _, err := in.Discard(len("  V1")); err != nil {
		return
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		answer := "OK"
		if line == "IDENTIFY\n" {
			var size [4]byte
			if _, err := io.ReadFull(in, size[:]); err != nil {
				return
			}
			if _, err := in.Discard(int(binary.BigEndian.Uint32(size[:]))); err != nil {
				return
			}
			port := s.http.Listener.Addr().(*net.TCPAddr).Port
			answer = fmt.Sprintf(`{"broadcast_address":"127.0.0.1","hostname":"l","http_port":%d,"tcp_port":1,"version":"1.3.0"}`, port)
		}
		if _, err := nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return
		}
		if line == "IDENTIFY\n" {
			s.nodes.Add(1)
		}
	}
}

// A topic is made at one member, which asks an nsqlookupd for its channels. What
// other members take for it meanwhile waits too: every channel gets all of it.
func TestClusterPreparesChannels(t *testing.T) {
	t.Parallel()
	l := newSlowLookupd(t, "x", "y")
	c := newTrio(t, "a", "b", "c")
	c.tune = func(cfg *config.Config) {
		cfg.LookupdTCPAddresses = config.List{l.tcp.Addr().String()}
		cfg.HTTPRequestTimeout = time.Minute
	}
	c.startAll()
	c.until(0, "it is healthy", healthy)
	eventually := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("in vain: %s", what)
			}
		}
	}
	eventually("all have registered", func() bool { return l.nodes.Load() >= 3 })
	answers := make(chan string, 3)
	for i, n := range c.nodes {
		go func() {
			resp, err := http.Post("http://"+n.Addrs().HTTP+"/pub?topic=orders", "", strings.NewReader("x"))
			if err != nil {
				answers <- err.Error()
				return
			}
			defer resp.Body.Close()
			answers <- resp.Status
		}()
		eventually("the question of "+c.names[i], func() bool { return l.asked.Load() == int64(i+1) })
		if i < 2 { // the next one has to know the topic
			eventually("the topic", func() bool {
				_, text := c.ask("GET", "http://"+c.nodes[i+1].Addrs().LookupHTTP+"/topics")
				return strings.Contains(text, "orders")
			})
		}
	}
	if len(answers) > 0 {
		t.Errorf("a publish did not wait: %s", <-answers)
	}
	close(l.letGo)
	for range c.nodes {
		if got := <-answers; got != "200 OK" {
			t.Error(got)
		}
	}
	c.publish(1, "orders", "once more")
	if n := l.asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	eventually("both channels have all", func() bool {
		depths := make(map[string]int)
		for _, n := range c.nodes {
			_, text := c.ask("GET", "http://"+n.Addrs().HTTP+"/stats?format=json&topic=orders")
			var stats struct {
				Topics []struct {
					Channels []struct {
						Name  string `json:"channel_name"`
						Depth int
					}
				}
			}
			if err := json.Unmarshal([]byte(text), &stats); err != nil {
				t.Fatal(err)
			}
			for _, topic := range stats.Topics {
				for _, ch := range topic.Channels {
					depths[ch.Name] += ch.Depth
				}
			}
		}
		return depths["x"] == 4 && depths["y"] == 4
	})
}
