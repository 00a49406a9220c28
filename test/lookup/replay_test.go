package lookup

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
)

// TestReplayNSQD plays the part of the recorded nsqd to our lookup, which has
// to answer as the real nsqlookupd did, to it, to tools and to consumers.
func TestReplayNSQD(t *testing.T) {
	if _, ok := given("TIDINGS_LOOKUP"); ok {
		t.Log("not asked of a real nsqlookupd") // whose names of earlier runs stay
		return
	}
	r := readRecording(t, recordingFile)
	for _, at := range targets(t) {
		t.Run(at.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", at.tcp)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			look := ""
			for _, e := range r {
				switch e.kind {
				case "stage":
					if e.text == "the end" {
						nc.Close()
					}
				case ">":
					if _, err := io.WriteString(nc, e.text); err != nil {
						t.Fatal(err)
					}
				case "<":
					sameAnswer(t, nc, e.text)
				case "post":
					if code, got := ask(t, "POST", "http://"+at.http+e.text, ""); code != 200 || got != "" {
						t.Fatalf("%s: %d %s", e.text, code, got)
					}
				case "ask":
					look = strings.Fields(e.text)[1]
				case "told":
					sameHTTP(t, "http://"+at.http+look, e.text)
				case "look":
					look = e.text
				case "found":
					finds(t, at, look, e.text)
				}
			}
		})
	}
}

// sameAnswer wants the next answer to be the recorded one; of JSON, the fields.
func sameAnswer(t *testing.T, nc net.Conn, want string) {
	t.Helper()
	got, err := answer(nc)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(want[4:], "{") {
		if g, w := keys(t, got[4:]), keys(t, want[4:]); !maps.Equal(g, w) {
			t.Fatalf("want the fields %v\n got %v", w, g)
		}
		return
	}
	if got != want {
		t.Fatalf("want %q, got %q", want, got)
	}
}

// sameHTTP wants an HTTP answer to be the recorded one, but for its date.
func sameHTTP(t *testing.T, url, want string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(want)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Body.Close()
	got, err := io.ReadAll(mine.Body)
	if err != nil {
		t.Fatal(err)
	}
	if mine.StatusCode != res.StatusCode || string(got) != string(body) {
		t.Errorf("%s: want %d %s, got %d %s", url, res.StatusCode, body, mine.StatusCode, got)
	}
	for name := range res.Header {
		if g, w := mine.Header.Get(name), res.Header.Get(name); g != w && name != "Date" {
			t.Errorf("%s: %s is %q, want %q", url, name, g, w)
		}
	}
}

// finds waits until a look is answered as it was; the node under test, if it is
// one, is not counted.
func finds(t *testing.T, at target, path, want string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		code, body := ask(t, "GET", "http://"+at.http+path, "")
		got := fmt.Sprintf("%d %s", code, alike(withoutOwn(t, at, body)))
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s:\nwant %s\n got %s", path, want, got)
		}
	}
}

// withoutOwn takes the node under test out of a list of producers.
func withoutOwn(t *testing.T, at target, body string) string {
	t.Helper()
	if at.node == "" || !strings.Contains(body, `"producers":[`) {
		return body
	}
	own := alike(at.node)
	head, list, _ := strings.Cut(alike(body), `"producers":[`)
	var kept []string
	for _, p := range strings.SplitAfter(strings.TrimSuffix(list, "]}"), "},") {
		if p = strings.TrimSuffix(p, ","); p != "" && !strings.HasPrefix(p, own) {
			kept = append(kept, p)
		}
	}
	return head + `"producers":[` + strings.Join(kept, ",") + "]}"
}

// standIn is the recorded nsqlookupd, for a node of ours to register with.
type standIn struct {
	t    *testing.T
	r    recording
	tcp  net.Listener
	http net.Listener

	mu     sync.Mutex
	names  names
	asked  []string // paths of HTTP requests
	pings  int
	ends   int // of connections
	fields map[string]string
}

func newStandIn(t *testing.T, r recording) *standIn {
	s := &standIn{t: t, r: r, tcp: listen(t), http: listen(t), names: names{}}
	go func() {
		for {
			nc, err := s.tcp.Accept()
			if err != nil {
				return
			}
			go s.serve(nc)
		}
	}()
	server := &http.Server{Handler: s}
	go server.Serve(s.http)
	t.Cleanup(func() { s.tcp.Close(); server.Close() })
	return s
}

// serve checks that what comes is what an nsqd would say, and answers it.
func (s *standIn) serve(nc net.Conn) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	for first := true; ; first = false {
		c, err := command(in, first)
		s.mu.Lock()
		switch {
		case err != nil:
			s.ends++
			s.mu.Unlock()
			return
		case first:
			if c != s.r.of(">")[0] {
				s.t.Errorf("it opens with %q", c)
			}
			s.mu.Unlock()
			continue
		case strings.HasPrefix(c, "IDENTIFY\n"):
			s.fields = keys(s.t, c[len("IDENTIFY\n")+4:])
		case c == "PING\n":
			s.pings++
		default:
			s.names.apply(s.t, c)
		}
		s.mu.Unlock()
		reply := "\x00\x00\x00\x02OK"
		if strings.HasPrefix(c, "IDENTIFY\n") {
			reply = s.identity()
		}
		if _, err := io.WriteString(nc, reply); err != nil {
			return
		}
	}
}

// identity is the recorded answer to IDENTIFY, with our own HTTP address.
func (s *standIn) identity() string {
	var who map[string]any
	if err := json.Unmarshal([]byte(s.r.of("<")[0][4:]), &who); err != nil {
		s.t.Error(err)
	}
	host, port, _ := net.SplitHostPort(s.http.Addr().String())
	n, _ := strconv.Atoi(port)
	who["broadcast_address"], who["http_port"] = host, n
	b, _ := json.Marshal(who)
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + string(b)
}

// ServeHTTP answers a request that was recorded, as it was.
func (s *standIn) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	asks, tolds := s.r.of("ask"), s.r.of("told")
	for i, a := range asks {
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(a)))
		if err != nil {
			s.t.Error(err)
			return
		}
		if req.Method != want.Method || req.URL.String() != want.URL.String() || req.Header.Get("Accept") != want.Header.Get("Accept") {
			continue
		}
		s.mu.Lock()
		s.asked = append(s.asked, req.URL.String())
		s.mu.Unlock()
		nc, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			s.t.Error(err)
			return
		}
		defer nc.Close()
		io.WriteString(nc, tolds[i])
		return
	}
	s.t.Errorf("no nsqd would ask %s %s", req.Method, req.URL)
	http.NotFound(w, req)
}

// TestReplayNSQLookupd plays the part of the recorded nsqlookupd to a node of
// ours, to which all is done that was done to the nsqd: at the end of each stage
// it has to be registered for the same names.
func TestReplayNSQLookupd(t *testing.T) {
	r := readRecording(t, recordingFile)
	s := newStandIn(t, r)
	cfg := config.Default()
	cfg.LookupdTCPAddresses = config.List{s.tcp.Addr().String()}
	n := start(t, cfg)
	sc := &scene{t: t, tcp: n.TCP, http: n.HTTP, stop: n.stop}
	want, asked := names{}, []string{}
	for _, st := range stages {
		part := r.by(st.name)
		st.do(sc)
		for _, c := range part.of(">") {
			if c != r.of(">")[0] && !strings.HasPrefix(c, "IDENTIFY") {
				want.apply(t, c)
			}
		}
		for _, a := range part.of("ask") {
			asked = append(asked, strings.Fields(a)[1])
		}
		until(t, st.name, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return maps.Equal(s.names, want) && len(s.asked) == len(asked) && s.fields != nil
		})
	}
	until(t, "the end of the connection", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ends == 1
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if fmt.Sprint(s.asked) != fmt.Sprint(asked) {
		t.Errorf("it asked %v, want %v", s.asked, asked)
	}
	if f := keys(t, r.of(">")[1][len("IDENTIFY\n")+4:]); !maps.Equal(f, s.fields) {
		t.Errorf("it identified itself with %v, want %v", s.fields, f)
	}
}
