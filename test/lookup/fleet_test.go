package lookup

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/lookup"
)

// consumer subscribes to a node by hand.
func consumer(t *testing.T, tcp, topic, channel string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, "  V2SUB "+topic+" "+channel+"\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 10)
	if _, err := io.ReadFull(nc, answer); err != nil || string(answer) != "\x00\x00\x00\x06\x00\x00\x00\x00OK" {
		t.Fatalf("%q %v", answer, err)
	}
	return nc
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// lookupd is an nsqlookupd that nodes of ours register with.
type lookupd struct {
	t *testing.T
	target
}

// someLookupd is the one that is given, or one of our own.
func someLookupd(t *testing.T) *lookupd {
	if at, ok := given("TIDINGS_LOOKUP"); ok {
		return &lookupd{t, at}
	}
	return &lookupd{t, startAlone(t, lookup.Options{})}
}

// names are the channels of a topic, and the nsqd ports of its producers; nil
// for an unknown topic.
func (l *lookupd) names(topic string) (channels, ports []string) {
	l.t.Helper()
	code, got := ask(l.t, "GET", "http://"+l.http+"/lookup?topic="+topic, "")
	if code == 404 {
		return nil, nil
	}
	var answer struct {
		Channels  []string
		Producers []struct {
			TCP int `json:"tcp_port"`
		}
	}
	if err := json.Unmarshal([]byte(got), &answer); err != nil {
		l.t.Fatalf("%q: %v", got, err)
	}
	ports = []string{}
	for _, p := range answer.Producers {
		ports = append(ports, fmt.Sprint(p.TCP))
	}
	slices.Sort(answer.Channels)
	return answer.Channels, ports
}

// finds waits until a topic has these channels and producers.
func (l *lookupd) finds(topic, channels string, nodes ...ownNode) {
	l.t.Helper()
	want := []string{}
	for _, n := range nodes {
		want = append(want, n.port())
	}
	slices.Sort(want)
	var c, p []string
	until(l.t, "lookup of "+topic, func() bool {
		c, p = l.names(topic)
		slices.Sort(p)
		return strings.Join(c, " ") == channels && p != nil && slices.Equal(p, want)
	})
}

func (n ownNode) port() string { return n.TCP[strings.LastIndex(n.TCP, ":")+1:] }

func (n ownNode) post(t *testing.T, path string) {
	t.Helper()
	if code, got := ask(t, "POST", "http://"+n.HTTP+path, "x"); code != 200 {
		t.Fatalf("%s: %d %s", path, code, got)
	}
}

func registered(l ...*lookupd) config.Config {
	cfg := config.Default()
	for _, l := range l {
		cfg.LookupdTCPAddresses = append(cfg.LookupdTCPAddresses, l.tcp)
	}
	return cfg
}

// TestRegistration holds the nsqd side of section 5: what a node of ours tells
// nsqlookupds.
func TestRegistration(t *testing.T) {
	t.Run("topics and channels as they come and go", func(t *testing.T) {
		l, topic := someLookupd(t), unique()
		n := start(t, registered(l))
		n.post(t, "/topic/create?topic="+topic)
		l.finds(topic, "", n)
		n.post(t, "/channel/create?topic="+topic+"&channel=c")
		l.finds(topic, "c", n)
		tail := consumer(t, n.TCP, topic, "tail#ephemeral")
		l.finds(topic, "c tail#ephemeral", n)
		tail.Close()
		l.finds(topic, "c", n)
		n.post(t, "/topic/delete?topic="+topic)
		l.finds(topic, "c") // its names stay
		n.post(t, "/pub?topic="+topic)
		l.finds(topic, "c", n)
	})
	t.Run("a topic that is made anew is registered again", func(t *testing.T) {
		l, topic := someLookupd(t), unique()
		n := start(t, registered(l))
		n.post(t, "/topic/create?topic="+topic)
		l.finds(topic, "", n)
		for range 20 { // nsqadmin deletes a topic here first, then on its nodes
			if code, got := ask(t, "POST", "http://"+l.http+"/topic/delete?topic="+topic, ""); code != 200 {
				t.Fatal(code, got)
			}
			n.post(t, "/topic/delete?topic="+topic)
			n.post(t, "/topic/create?topic="+topic)
			l.finds(topic, "", n)
		}
	})
	t.Run("what was there before, and the end", func(t *testing.T) {
		l, topic := someLookupd(t), unique()
		cfg := registered(l)
		n := start(t, cfg)
		n.post(t, "/topic/create?topic="+topic)
		n.post(t, "/channel/create?topic="+topic+"&channel=c")
		n.post(t, "/topic/create?topic="+topic+"-2")
		l.finds(topic, "c", n)
		n.stop()
		l.finds(topic, "c")
		cfg.DataPath = n.data
		n = start(t, cfg)
		l.finds(topic, "c", n)
		l.finds(topic+"-2", "", n)
	})
	t.Run("addresses changed by PUT /config", func(t *testing.T) {
		a, b, topic := someLookupd(t), &lookupd{t, startAlone(t, lookup.Options{})}, unique()
		n := start(t, registered(a))
		n.post(t, "/topic/create?topic="+topic)
		a.finds(topic, "", n)
		config := func(method, body string, code int, want string) {
			t.Helper()
			if c, got := ask(t, method, "http://"+n.HTTP+"/config/nsqlookupd_tcp_addresses", body); c != code || got != want {
				t.Fatalf("%s %s: %d %s", method, body, c, got)
			}
		}
		config("GET", "", 200, `["`+a.tcp+`"]`)
		config("PUT", "nonsense", 400, message("INVALID_VALUE"))
		config("PUT", "", 413, message("INVALID_VALUE"))
		config("PUT", `["`+b.tcp+`"]`, 200, `["`+b.tcp+`"]`)
		b.finds(topic, "", n)
		a.finds(topic, "")
		config("PUT", `["`+a.tcp+`","`+b.tcp+`","`+a.tcp+`"]`, 200, `["`+a.tcp+`","`+b.tcp+`"]`)
		a.finds(topic, "", n)
		config("PUT", "[]", 200, "[]")
		config("GET", "", 200, "[]")
		a.finds(topic, "")
		b.finds(topic, "")
	})
	t.Run("a connection that breaks is made anew", func(t *testing.T) {
		l, topic := someLookupd(t), unique()
		cut, addr := bridge(t, l.tcp)
		cfg := registered()
		cfg.LookupdTCPAddresses = config.List{addr}
		n := start(t, cfg)
		n.post(t, "/topic/create?topic="+topic)
		l.finds(topic, "", n)
		cut()
		n.post(t, "/channel/create?topic="+topic+"&channel=c")
		l.finds(topic, "c", n)
	})
	t.Run("broadcast address and ports", func(t *testing.T) {
		l, topic := someLookupd(t), unique()
		cfg := registered(l)
		cfg.BroadcastAddr, cfg.BroadcastTCP, cfg.BroadcastHTTP, cfg.TopologyZone, cfg.TopologyRegion = "node.example", 14150, 14151, "z", "r"
		n := start(t, cfg)
		n.post(t, "/topic/create?topic="+topic)
		until(t, "the addresses", func() bool {
			_, got := ask(t, "GET", "http://"+l.http+"/lookup?topic="+topic, "")
			return strings.Contains(got, `"broadcast_address":"node.example","tcp_port":14150,"http_port":14151,"version":"1.3.0","topology_zone":"z","topology_region":"r"}`)
		})
	})
}

// bridge passes connections on to an address; cut breaks those that there are.
func bridge(t *testing.T, to string) (cut func(), addr string) {
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	open := make(chan net.Conn, 64)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			open <- in
			go func() { io.Copy(out, in); out.Close(); in.Close() }()
			go func() { io.Copy(in, out); out.Close(); in.Close() }()
		}
	}()
	cut = func() {
		for len(open) > 0 {
			(<-open).Close()
		}
	}
	t.Cleanup(cut)
	return cut, l.Addr().String()
}

// TestNewTopicGetsItsChannels: a node asks every nsqlookupd for the channels of
// a topic that it makes, before it takes a message for it.
func TestNewTopicGetsItsChannels(t *testing.T) {
	make2 := func(t *testing.T, l *lookupd, topic string, channels ...string) {
		for _, c := range channels {
			if code, got := ask(t, "POST", "http://"+l.http+"/channel/create?topic="+topic+"&channel="+c, ""); code != 200 {
				t.Fatal(code, got)
			}
		}
	}
	other := func(t *testing.T) *lookupd { return &lookupd{t, startAlone(t, lookup.Options{})} }
	t.Run("by a publish", func(t *testing.T) {
		a, b, topic := someLookupd(t), other(t), unique()
		make2(t, a, topic, "c", "d", "tail%23ephemeral")
		make2(t, b, topic, "d", "e")
		n := start(t, registered(a, b))
		n.post(t, "/pub?topic="+topic)
		if d := depths(t, n.HTTP, topic); len(d) != 4 || d["c"] != 1 || d["d"] != 1 || d["e"] != 1 || d[""] != 0 {
			t.Errorf("depths are %v", d)
		}
		a.finds(topic, "c d e tail#ephemeral", n)
		b.finds(topic, "c d e", n)
	})
	t.Run("by a consumer", func(t *testing.T) {
		a, topic := someLookupd(t), unique()
		make2(t, a, topic, "c")
		n := start(t, registered(a))
		consumer(t, n.TCP, topic, "mine")
		n.post(t, "/pub?topic="+topic)
		if d := depths(t, n.HTTP, topic); len(d) != 3 || d["c"] != 1 || d["mine"] != 1 {
			t.Errorf("depths are %v", d)
		}
	})
	t.Run("of an ephemeral topic", func(t *testing.T) {
		a, topic := someLookupd(t), unique()+"%23ephemeral"
		make2(t, a, topic, "c")
		n := start(t, registered(a))
		n.post(t, "/pub?topic="+topic)
		if d := depths(t, n.HTTP, topic); len(d) != 2 || d["c"] != 1 {
			t.Errorf("depths are %v", d)
		}
	})
	t.Run("without an nsqlookupd that answers", func(t *testing.T) {
		dead := listen(t)
		dead.Close()
		a, topic := someLookupd(t), unique()
		make2(t, a, topic, "c")
		cfg := registered(a)
		cfg.LookupdTCPAddresses = append(cfg.LookupdTCPAddresses, dead.Addr().String())
		n := start(t, cfg)
		n.post(t, "/pub?topic="+topic)
		if d := depths(t, n.HTTP, topic); len(d) != 2 || d["c"] != 1 {
			t.Errorf("depths are %v", d)
		}
		cfg.LookupdTCPAddresses = config.List{dead.Addr().String()}
		start(t, cfg).post(t, "/pub?topic="+topic)
	})
	t.Run("of a node's own lookup", func(t *testing.T) {
		first, topic := start(t, config.Default()), unique()
		first.post(t, "/topic/create?topic="+topic)
		first.post(t, "/channel/create?topic="+topic+"&channel=c")
		cfg := config.Default()
		cfg.LookupdTCPAddresses = config.List{first.LookupTCP}
		n := start(t, cfg)
		n.post(t, "/pub?topic="+topic)
		if d := depths(t, n.HTTP, topic); len(d) != 2 || d["c"] != 1 {
			t.Errorf("depths are %v", d)
		}
	})
}

// collect is a consumer of go-nsq that knows nothing but a lookup's address. It
// hands out the bodies that it gets.
func collect(t *testing.T, topic, channel, lookupHTTP string) <-chan string {
	t.Helper()
	cfg := gonsq.NewConfig()
	if !stock() {
		cfg.LookupdPollInterval, cfg.LookupdPollJitter = 50*time.Millisecond, 0
	}
	cfg.MaxInFlight = 10
	c, err := gonsq.NewConsumer(topic, channel, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLogger(log.New(io.Discard, "", 0), gonsq.LogLevelMax)
	got := make(chan string, 1000)
	c.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error {
		got <- string(m.Body)
		return nil
	}))
	if err := c.ConnectToNSQLookupd(lookupHTTP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(); <-c.StopChan })
	return got
}

// stock says that consumers keep go-nsq's own intervals, which takes minutes.
func stock() bool { return os.Getenv("TIDINGS_LOOKUP_STOCK") != "" }

// arrives publishes a message to a node and waits until it comes.
func arrives(t *testing.T, got <-chan string, n ownNode, topic, body string) {
	t.Helper()
	began, patience := time.Now(), patience
	if stock() {
		patience = 80 * time.Second // 60 s and up to 30 % of jitter
		defer func() { t.Logf("%s: after %.1f s", body, time.Since(began).Seconds()) }()
	}
	if code, text := ask(t, "POST", "http://"+n.HTTP+"/pub?topic="+topic, body); code != 200 {
		t.Fatal(code, text)
	}
	for end := time.After(patience); ; {
		select {
		case b := <-got:
			if b == body {
				return
			}
		case <-end:
			t.Fatalf("%s does not come", body)
		}
	}
}

// TestConsumersFollow: go-nsq finds a topic on two nodes that stand alone, by
// nothing but our lookup's address, and follows when one stops and another
// comes. go-nsq itself sometimes waits five seconds before it gives a second
// connection a share of its max-in-flight.
func TestConsumersFollow(t *testing.T) {
	follow := func(t *testing.T, l *lookupd, cfg config.Config, a ownNode) {
		topic := unique()
		b := start(t, cfg)
		a.post(t, "/topic/create?topic="+topic)
		b.post(t, "/topic/create?topic="+topic)
		l.finds(topic, "", a, b)
		got := collect(t, topic, "c", l.http)
		arrives(t, got, a, topic, "1 by a")
		arrives(t, got, b, topic, "1 by b")
		b.stop()
		l.finds(topic, "c", a)
		arrives(t, got, a, topic, "2 by a")
		b = start(t, cfg)
		arrives(t, got, b, topic, "2 by c")
		arrives(t, got, a, topic, "3 by a")
	}
	t.Run("a lookup that stands alone", func(t *testing.T) {
		l := someLookupd(t)
		follow(t, l, registered(l), start(t, registered(l)))
	})
	t.Run("the lookup of a node", func(t *testing.T) {
		a := start(t, config.Default())
		l := &lookupd{t, target{tcp: a.LookupTCP, http: a.LookupHTTP}}
		follow(t, l, registered(l), a)
	})
}
