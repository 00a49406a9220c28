package lookup

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"
)

// consumerFile is what go-nsq's consumer and a real nsqd said to each other, in
// the format of recordingFile: > commands of the consumer, < frames of the nsqd.
const consumerFile = "testdata/consumer.txt"

// nsqdStandIn is the recorded nsqd in a fleet: it registers with a lookup as it
// did, and serves consumers as it did.
type nsqdStandIn struct {
	t         *testing.T
	fleet     recording
	consumer  recording
	tcp, http net.Listener
	lookup    net.Conn

	mu       sync.Mutex
	conns    []net.Conn
	finished []string // ids of messages
}

func newNSQDStandIn(t *testing.T, lookupTCP string) *nsqdStandIn {
	t.Helper()
	nc, err := net.Dial("tcp", lookupTCP)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(2 * patience))
	s := &nsqdStandIn{
		t: t, fleet: readRecording(t, recordingFile), consumer: readRecording(t, consumerFile),
		tcp: listen(t), http: listen(t), lookup: nc,
	}
	go func() {
		for {
			nc, err := s.tcp.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, nc)
			s.mu.Unlock()
			go s.serve(nc)
		}
	}()
	server := &http.Server{Handler: s}
	go server.Serve(s.http)
	t.Cleanup(func() { server.Close(); s.closeTCP(); nc.Close() })
	return s
}

// closeTCP ends what consumers have here.
func (s *nsqdStandIn) closeTCP() {
	s.tcp.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nc := range s.conns {
		nc.Close()
	}
}

// says plays the nsqd's part of a stage to the lookup, which has to answer as the
// real one did.
func (s *nsqdStandIn) says(stage string) {
	s.t.Helper()
	for _, e := range s.fleet.by(stage) {
		switch e.kind {
		case ">":
			text := e.text
			if strings.HasPrefix(text, "IDENTIFY\n") {
				text = s.identify(text)
			}
			if _, err := io.WriteString(s.lookup, text); err != nil {
				s.t.Fatal(err)
			}
		case "<":
			sameAnswer(s.t, s.lookup, e.text)
		}
	}
}

// identify is the recorded IDENTIFY with the addresses of the stand-in.
func (s *nsqdStandIn) identify(text string) string {
	var who map[string]any
	if err := json.Unmarshal([]byte(text[len("IDENTIFY\n")+4:]), &who); err != nil {
		s.t.Fatal(err)
	}
	who["broadcast_address"], who["tcp_port"], who["http_port"] = "127.0.0.1", portOf(s.tcp), portOf(s.http)
	b, err := json.Marshal(who)
	if err != nil {
		s.t.Fatal(err)
	}
	return "IDENTIFY\n" + string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + string(b)
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// serve answers a consumer: to each command the frames that followed the
// recorded one of that kind, once.
func (s *nsqdStandIn) serve(nc net.Conn) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	rest := s.consumer
	for first := true; ; first = false {
		c, err := command(in, first)
		if err != nil {
			return
		}
		verb, what, _ := strings.Cut(strings.TrimSuffix(c, "\n"), " ")
		i := slices.IndexFunc(rest, func(e entry) bool {
			recorded, _, _ := strings.Cut(e.text, " ")
			return e.kind == ">" && (e.text == c || strings.HasPrefix(c, "IDENTIFY\n") && strings.HasPrefix(e.text, "IDENTIFY\n") || verb == "RDY" && recorded == "RDY")
		})
		switch {
		case verb == "FIN":
			s.mu.Lock()
			s.finished = append(s.finished, what)
			s.mu.Unlock()
			continue
		case i < 0:
			continue // RDY and CLS again
		}
		for rest = rest[i+1:]; len(rest) > 0 && rest[0].kind == "<"; rest = rest[1:] {
			if _, err := io.WriteString(nc, rest[0].text); err != nil {
				return
			}
		}
	}
}

// ServeHTTP is what nsqadmin does after a tombstone: the nsqd takes itself out of
// the lookup, as it did.
func (s *nsqdStandIn) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/topic/delete" || req.URL.Query().Get("topic") != "orders" {
		s.t.Errorf("nobody would ask %s", req.URL)
		return
	}
	s.closeTCP()
	s.says("the topic is deleted")
}

// ids are those of the recorded messages, in order.
func (s *nsqdStandIn) ids() (out []string) {
	for _, frame := range s.consumer.of("<") {
		if strings.HasPrefix(frame[4:], "\x00\x00\x00\x02") { // a message
			out = append(out, frame[18:34])
		}
	}
	return out
}

// TestMixedFleet: a consumer of go-nsq that knows nothing but our lookup's
// address consumes from a real nsqd, which is a recording here, and from a node
// of ours, and goes on when the nsqd is tombstoned, is deregistered, and leaves.
func TestMixedFleet(t *testing.T) {
	if _, ok := given("TIDINGS_LOOKUP"); ok {
		t.Log("not asked of a real nsqlookupd") // whose names of earlier runs stay
		return
	}
	for _, at := range targets(t) {
		t.Run(at.name, func(t *testing.T) {
			if code, got := ask(t, "POST", "http://"+at.http+"/channel/create?topic=orders&channel=audit", ""); code != 200 {
				t.Fatal(code, got)
			}
			l := &lookupd{t, at}
			own := start(t, registered(l))
			s := newNSQDStandIn(t, at.tcp)
			s.says("identify")
			s.says("a topic whose channels are known")
			own.post(t, "/topic/create?topic=orders")
			theirs := strconv.Itoa(portOf(s.tcp))
			named := func(port string) bool { _, ports := l.names("orders"); return slices.Contains(ports, port) }
			until(t, "both are named", func() bool { return named(theirs) && named(own.port()) })

			got := collect(t, "orders", "audit", at.http)
			if code, text := ask(t, "POST", "http://"+own.HTTP+"/pub?topic=orders", "ours"); code != 200 {
				t.Fatal(code, text)
			}
			var bodies []string
			for range 3 {
				select {
				case b := <-got:
					bodies = append(bodies, b)
				case <-time.After(patience):
					t.Fatalf("nothing more comes after %q", bodies)
				}
			}
			slices.Sort(bodies)
			if want := []string{"ours", "recorded 1", "recorded 2"}; !slices.Equal(bodies, want) {
				t.Errorf("%q came, want %q", bodies, want)
			}
			until(t, "the nsqd's messages are finished", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return slices.Equal(slices.Sorted(slices.Values(s.finished)), s.ids())
			})

			if code, text := ask(t, "POST", "http://"+at.http+"/topic/tombstone?topic=orders&node="+s.http.Addr().String(), ""); code != 200 {
				t.Fatal(code, text)
			}
			if named(theirs) || !named(own.port()) {
				t.Error("a tombstone of the nsqd is one of the nsqd")
			}
			if code, text := ask(t, "POST", "http://"+s.http.Addr().String()+"/topic/delete?topic=orders", ""); code != 200 {
				t.Fatal(code, text)
			}
			nodes := func() string { _, text := ask(t, "GET", "http://"+at.http+"/nodes", ""); return text }
			if text := nodes(); !strings.Contains(text, `"tcp_port":`+theirs+`,"http_port":`+strconv.Itoa(portOf(s.http))+`,"version":"1.3.0","topology_zone":"","topology_region":"","tombstones":[],"topics":[]}`) {
				t.Errorf("deregistered, and yet: %s", text)
			}
			arrives(t, got, own, "orders", "ours again")
			s.lookup.Close()
			until(t, "the nsqd has left", func() bool { return !strings.Contains(nodes(), `"tcp_port":`+theirs+`,`) })
		})
	}
}

// TestRecordConsumer makes the recording of the consumer anew, with the nsqd that
// the environment names.
func TestRecordConsumer(t *testing.T) {
	nsqd := os.Getenv("TIDINGS_RECORD_NSQD")
	if nsqd == "" {
		t.Log("TIDINGS_RECORD_NSQD names no program: the recording stays")
		return
	}
	const tcp, web = "127.0.0.1:14150", "http://127.0.0.1:14151"
	spawn(t, nsqd, "-data-path="+t.TempDir(), "-tcp-address="+tcp, "-http-address=127.0.0.1:14151", "-log-level=error")
	until(t, "nsqd", func() bool { _, err := http.Get(web + "/ping"); return err == nil })
	for _, body := range []string{"recorded 1", "recorded 2"} {
		if code, got := ask(t, "POST", web+"/pub?topic=orders", body); code != 200 {
			t.Fatal(code, got)
		}
	}
	r, between := &recorder{}, listen(t)
	defer between.Close()
	go r.tcp(between, tcp)
	cfg := gonsq.NewConfig()
	cfg.MaxInFlight = 10
	c, err := gonsq.NewConsumer("orders", "audit", cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLogger(log.New(io.Discard, "", 0), gonsq.LogLevelMax)
	got := make(chan string, 2)
	c.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error { got <- string(m.Body); return nil }))
	if err := c.ConnectToNSQD(between.Addr().String()); err != nil {
		t.Fatal(err)
	}
	<-got
	<-got
	r.quiet()
	c.Stop()
	<-c.StopChan
	r.quiet()
	if err := os.WriteFile(consumerFile, []byte(r.r.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
