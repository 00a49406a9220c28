package lookup

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const patience = 20 * time.Second // how long a row waits for what must come

var serial atomic.Int64

// unique returns a topic name that no other row and no earlier run uses.
func unique() string { return fmt.Sprintf("lookup_%d_%d", time.Now().UnixNano()%1e12, serial.Add(1)) }

// talk is one row's conversation. Step text may hold $t (the row's topic), $h
// (its nsqd's host) and $r (where its present connection comes from).
type talk struct {
	t     *testing.T
	at    target
	topic string
	conn  net.Conn
	main  net.Conn // the row's own connection while conn is another one
}

func (k *talk) expand(s string) string {
	return strings.NewReplacer("$t", k.topic, "$h", k.topic+".example", "$r", k.conn.LocalAddr().String(), "$n", k.at.node).Replace(s)
}

func (k *talk) dial() net.Conn {
	k.t.Helper()
	conn, err := net.Dial("tcp", k.at.tcp)
	if err != nil {
		k.t.Fatalf("dial: %v", err)
	}
	k.t.Cleanup(func() { conn.Close() })
	return conn
}

func (k *talk) write(s string) {
	k.t.Helper()
	k.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.conn, s); err != nil {
		k.t.Fatalf("write: %v", err)
	}
}

func (k *talk) read() (string, error) {
	k.conn.SetReadDeadline(time.Now().Add(patience))
	var size [4]byte
	if _, err := io.ReadFull(k.conn, size[:]); err != nil {
		return "", err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 1<<20 {
		return "", fmt.Errorf("answer of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(k.conn, b)
	return string(b), err
}

// step is one line of a row.
type step func(*talk)

// row is one rule: its name and the conversation that shows it.
type row struct {
	name  string
	steps []step
	// alone: the rule is an nsqlookupd's that stands alone. A node makes a topic
	// or channel of its own there, and has rows of its own for that.
	alone bool
}

func rule(name string, steps ...step) row  { return row{name: name, steps: steps} }
func alone(name string, steps ...step) row { return row{name, steps, true} }

// differs marks a rule in which we differ on purpose: what a real nsqlookupd
// does, and what we do.
func differs(why string, real, ours []step) step {
	return func(k *talk) {
		k.t.Helper()
		k.t.Logf("deliberate difference: %s", why)
		steps := ours
		if k.at.real {
			steps = real
		}
		for _, s := range steps {
			s(k)
		}
	}
}

func runRows(t *testing.T, targets []target, rows []row) {
	for _, at := range targets {
		t.Run(at.name, func(t *testing.T) {
			seen := map[string]bool{}
			for _, r := range rows {
				if seen[r.name] {
					t.Errorf("two rows are named %q", r.name)
				}
				seen[r.name] = true
				if r.alone && at.node != "" {
					continue
				}
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					k := &talk{t: t, at: at, topic: unique()}
					k.conn = k.dial()
					k.main = k.conn
					for _, s := range r.steps {
						s(k)
					}
				})
			}
		})
	}
}

// --- steps over TCP

// hello opens the protocol.
func hello(k *talk) { k.t.Helper(); k.write("  V1") }

// send writes text, expanded.
func send(s string) step { return func(k *talk) { k.t.Helper(); k.write(k.expand(s)) } }

// half closes our writing side.
func half(k *talk) {
	k.t.Helper()
	if err := k.conn.(*net.TCPConn).CloseWrite(); err != nil {
		k.t.Fatal(err)
	}
}

// says wants an answer.
func says(want string) step {
	return func(k *talk) {
		k.t.Helper()
		got, err := k.read()
		if err != nil || got != k.expand(want) {
			k.t.Fatalf("want %q\n got %q, %v", k.expand(want), got, err)
		}
	}
}

var ok = says("OK")

// fails wants an error, and the connection closed behind it.
func fails(want string) step {
	return func(k *talk) { k.t.Helper(); says(want)(k); closed(k) }
}

// closed wants the connection to end without a further answer.
func closed(k *talk) {
	k.t.Helper()
	got, err := k.read()
	switch {
	case err == nil:
		k.t.Fatalf("want the connection closed, got %q", got)
	case errors.Is(err, os.ErrDeadlineExceeded):
		k.t.Fatal("want the connection closed, it stays open")
	case !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
		k.t.Fatalf("want the connection closed, got %v", err)
	}
}

func sized(s string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
}

// identify sends IDENTIFY with a JSON body.
func identify(body string) step {
	return func(k *talk) { k.t.Helper(); k.write("IDENTIFY\n" + sized(k.expand(body))) }
}

// self is the body of IDENTIFY that nsqds of rows send.
const self = `{"broadcast_address":"$h","tcp_port":4150,"http_port":4151,"version":"1.3.0","hostname":"$t-host","topology_zone":"z1","topology_region":"r1"}`

// shown is the nsqd of self as answers name it.
const shown = `{"remote_address":"$r","hostname":"$t-host","broadcast_address":"$h","tcp_port":4150,"http_port":4151,"version":"1.3.0","topology_zone":"z1","topology_region":"r1"`

// identified wants the answer to IDENTIFY.
func identified(k *talk) {
	k.t.Helper()
	got, err := k.read()
	if err != nil {
		k.t.Fatal(err)
	}
	var who map[string]any
	if err := json.Unmarshal([]byte(got), &who); err != nil {
		k.t.Fatalf("%q: %v", got, err)
	}
	_, tcp, _ := net.SplitHostPort(k.at.tcp)
	_, http, _ := net.SplitHostPort(k.at.http)
	if fmt.Sprint(who["tcp_port"]) != tcp || fmt.Sprint(who["http_port"]) != http || len(who) != 5 {
		k.t.Fatalf("got %s", got)
	}
	for _, key := range []string{"broadcast_address", "hostname", "version"} {
		if s, ok := who[key].(string); !ok || s == "" {
			k.t.Fatalf("got %s", got)
		}
	}
}

// nsqd is a connection that has identified itself as self.
func nsqd(k *talk) { k.t.Helper(); hello(k); identify(self)(k); identified(k) }

// does sends a command that answers OK.
func does(command string) step {
	return func(k *talk) { k.t.Helper(); send(command + "\n")(k); ok(k) }
}

// other continues on a further connection of the same row; mine goes back.
func other(k *talk) { k.t.Helper(); k.conn = k.dial() }
func mine(k *talk)  { k.conn = k.main }

// gone ends the present connection.
func gone(k *talk) { k.conn.Close() }

// --- steps over HTTP

var client = &http.Client{
	Timeout:       patience,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (k *talk) do(line string) (*http.Response, string) {
	k.t.Helper()
	method, path, _ := strings.Cut(k.expand(line), " ")
	req, err := http.NewRequest(method, "http://"+k.at.http+path, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return res, channelList.ReplaceAllStringFunc(string(got), sorted)
}

// channelList is a list of which a real nsqlookupd makes no order.
var channelList = regexp.MustCompile(`"channels":\[[^\]]*\]`)

func sorted(list string) string {
	names, _ := strings.CutPrefix(strings.TrimSuffix(list, "]"), `"channels":[`)
	each := strings.Split(names, ",")
	slices.Sort(each)
	return `"channels":[` + strings.Join(each, ",") + "]"
}

// request makes one HTTP request ("METHOD /path?query") and wants a status and
// an exact body.
func request(line string, status int, want string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do(line)
		if res.StatusCode != status || got != k.expand(want) {
			k.t.Fatalf("%s:\nwant %d %s\n got %d %s", k.expand(line), status, k.expand(want), res.StatusCode, got)
		}
		k.headers(line, res, got)
	}
}

// headers checks what stock clients need.
func (k *talk) headers(line string, res *http.Response, body string) {
	k.t.Helper()
	plain := strings.Contains(line, "/ping") || strings.Contains(line, "/debug/")
	if plain && k.at.real && res.StatusCode == 200 {
		return // nsqlookupd leaves it out there
	}
	if got := res.Header.Get("X-NSQ-Content-Type"); got != "nsq; version=1.0" {
		k.t.Errorf("%s: X-NSQ-Content-Type is %q", line, got)
	}
	if got := res.Header.Get("Content-Type"); strings.HasPrefix(body, "{") && got != "application/json; charset=utf-8" {
		k.t.Errorf("%s: Content-Type is %q", line, got)
	}
}

// eventually repeats a request until it is answered so.
func eventually(line string, status int, want string) step {
	return func(k *talk) {
		k.t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			res, got := k.do(line)
			if res.StatusCode == status && got == k.expand(want) {
				return
			}
			if time.Now().After(end) {
				k.t.Fatalf("%s:\nwant %d %s\n got %d %s", k.expand(line), status, k.expand(want), res.StatusCode, got)
			}
		}
	}
}

// has wants a list of an answer to hold a text, or not.
func has(line, field, want string, there bool) step {
	return func(k *talk) {
		k.t.Helper()
		_, got := k.do(line)
		var answer map[string][]json.RawMessage
		if err := json.Unmarshal([]byte(got), &answer); err != nil {
			k.t.Fatalf("%s: %q: %v", line, got, err)
		}
		n := 0
		for _, v := range answer[field] {
			if string(v) == k.expand(want) {
				n++
			}
		}
		if there != (n == 1) || n > 1 {
			k.t.Fatalf("%s: %s is there %d times in\n%s", k.expand(line), k.expand(want), n, got)
		}
	}
}

func get(path string, status int, want string) step  { return request("GET "+path, status, want) }
func post(path string, status int, want string) step { return request("POST "+path, status, want) }

// found wants the row's topic to have channels and producers, both as JSON.
func found(channels, producers string) step {
	return get("/lookup?topic=$t", 200, `{"channels":[`+channels+`],"producers":[`+producers+`]}`)
}

func message(code string) string { return `{"message":"` + code + `"}` }

// TestMain runs many rows at once: most of their time they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
