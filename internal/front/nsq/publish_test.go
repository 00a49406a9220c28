package nsq

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// TestPipelineIsGrouped: publishes of one topic that stand in the read buffer
// together become one call of the broker, and each gets its answer, in order.
func TestPipelineIsGrouped(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	p := r.dial()
	var s strings.Builder
	for i := range 200 {
		fmt.Fprintf(&s, "PUB a\n%s", sized(fmt.Sprint(i)))
	}
	p.send(s.String() + "MPUB a\n" + sized(multi("x", "y")) + "SUB a c\nRDY 1000\n")
	for range 202 {
		p.want("0:OK")
	}
	for i := range 200 {
		p.want(fmt.Sprintf("2:%d", i))
	}
	p.want("2:x", "2:y")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls > 20 {
		t.Errorf("%d calls of the broker for 201 publishes", b.calls)
	}
}

// TestOrderOfTopics: publishes of several topics in turn are answered in order
// and stored in order.
func TestOrderOfTopics(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	p := r.dial()
	p.send("PUB a\n" + sized("1") + "PUB b\n" + sized("2") + "PUB a\n" + sized("3") + "DPUB a 0\n" + sized("4") + "PUB a\n" + sized("5") + "NO\n")
	p.want("0:OK", "0:OK", "0:OK", "0:OK", "0:OK", "1:E_INVALID invalid command NO")
	p.wantClosed()
	p = r.dial()
	p.send("SUB a c\nRDY 10\n")
	p.want("0:OK", "2:1", "2:3", "2:4", "2:5")
}

// TestAnswersWaitForTheBroker: an error behind publishes that are not answered
// yet waits for them.
func TestAnswersWaitForTheBroker(t *testing.T) {
	b := newFakeBroker()
	b.hold = make(chan struct{})
	r := start(t, b, Options{})
	p := r.dial()
	p.send("PUB a\n" + sized("1") + "NOP\nPUB b\n" + sized("2") + "RDY 1\n")
	p.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := p.Read(make([]byte, 1)); err == nil {
		t.Fatalf("%d bytes came before the broker answered", n)
	}
	close(b.hold)
	p.want("0:OK", "0:OK", "1:E_INVALID cannot RDY in current state")
	p.wantClosed()
}

// TestPublishErrors: what the broker refuses, at once or later.
func TestPublishErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		tcp    string // behind E_PUB_FAILED
		status int
		http   string
	}{
		{fault.DiskReserve, " disk reserve reached", 503, "DISK_RESERVE"},
		{fault.New(fault.DiskReserve, "publish to topic x"), " disk reserve reached", 503, "DISK_RESERVE"},
		{fault.Exiting, " PUB failed exiting", 503, "EXITING"},
		{fault.NotLeader, " PUB failed no leader", 503, "NO_LEADER"},
		{
			fault.New(fault.NotLeader, "publish to topic bad: the outcome is unknown"),
			" PUB failed publish to topic bad: the outcome is unknown", 503, "NO_LEADER",
		},
		{fault.Wrap(fault.Storage, io.ErrShortWrite), " PUB failed storage failed", 500, "STORAGE_FAILED"},
		{errors.New("surprise"), " PUB failed internal error", 500, "INTERNAL_ERROR"},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(c.http, late), func(t *testing.T) {
				b := newFakeBroker()
				fails := func(topic string) error {
					if topic == "bad" {
						return c.err
					}
					return nil
				}
				if late {
					b.fail = fails
				} else {
					b.refuse = fails
				}
				r := start(t, b, Options{})
				p := r.dial()
				p.send("PUB a\n" + sized("1") + "PUB bad\n" + sized("2") + "PUB bad\n" + sized("3") + "PUB c\n" + sized("4"))
				p.want("0:OK", "1:E_PUB_FAILED"+c.tcp)
				p.wantClosed()
				p = r.dial()
				p.send("MPUB bad\n" + sized(multi("1", "2")))
				p.want("1:E_MPUB_FAILED" + strings.Replace(c.tcp, " PUB", " MPUB", 1))
				p.wantClosed()
				p = r.dial()
				p.send("DPUB bad 5\n" + sized("1"))
				p.want("1:E_DPUB_FAILED" + strings.Replace(c.tcp, " PUB", " DPUB", 1))
				p.wantClosed()
				for _, path := range []string{"/pub", "/mpub"} {
					status, body := r.post(path+"?topic=bad", "x")
					if status != c.status || body != `{"message":"`+c.http+`"}` {
						t.Errorf("%s: %d %s", path, status, body)
					}
				}
			})
		}
	}
}

// TestOverloaded: a publish waits for room, and is refused when none comes.
func TestOverloaded(t *testing.T) {
	b := newFakeBroker()
	var mu sync.Mutex
	left := 5
	b.refuse = func(topic string) error {
		mu.Lock()
		defer mu.Unlock()
		if topic == "never" {
			return fault.Overloaded
		}
		if left--; left >= 0 {
			return fault.Overloaded
		}
		return nil
	}
	r := start(t, b, Options{PublishPatience: 200 * time.Millisecond})
	p := r.dial()
	p.send("PUB a\n" + sized("1"))
	p.want("0:OK")
	p.send("PUB a\n" + sized("2") + "PUB never\n" + sized("1"))
	p.want("0:OK", "1:E_PUB_FAILED PUB failed overloaded")
	p.wantClosed()
	if status, body := r.post("/pub?topic=never", "x"); status != 503 || body != `{"message":"OVERLOADED"}` {
		t.Errorf("%d %s", status, body)
	}
	if r.Snapshot().BackPressureTotal < 5 {
		t.Error("back-pressure was not counted")
	}
}

// TestKeysAndIDs: the extension words and parameters reach the broker.
func TestKeysAndIDs(t *testing.T) {
	type message struct {
		Body, Key, ID string
		Deferred      bool
	}
	var mu sync.Mutex
	var got []message
	b := newFakeBroker()
	b.seen = func(_ string, msgs []partition.Message) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range msgs {
			got = append(got, message{string(m.Body), string(m.Key), string(m.ID), m.DueNs != 0})
		}
	}
	r := start(t, b, Options{})
	p := r.dial()
	p.send("PUB a\n" + sized("0") + "PUB a key=k1 id=i1\n" + sized("1") + "PUB a other id=i2 words key=\n" + sized("2") +
		"MPUB a key=k3 id=i3\n" + sized(multi("3", "4")) + "DPUB a 60000 key=k5 id=i5\n" + sized("5"))
	p.want("0:OK", "0:OK", "0:OK", "0:OK", "0:OK")
	// In pieces, so that the words' bytes move while the body is awaited.
	p.send("PUB a key=k6 id=i6\n")
	time.Sleep(10 * time.Millisecond)
	p.send(sized("6")[:2])
	time.Sleep(10 * time.Millisecond)
	p.send(sized("6")[2:])
	p.want("0:OK")
	p.send("PUB a key=k7 id=i7\n" + sized(strings.Repeat("7", 100000)))
	p.want("0:OK")
	r.post("/pub?topic=a&key=k8&id=i8", "8")
	r.post("/pub?topic=a&defer=60000", "9", "Idempotency-Key", "i9")
	r.post("/mpub?topic=a&id=i10&key=k10", "10\n11")
	want := []message{
		{"0", "", "", false},
		{"1", "k1", "i1", false},
		{"2", "", "i2", false},
		{"3", "k3", "i3/0", false},
		{"4", "k3", "i3/1", false},
		{"5", "k5", "i5", true},
		{"6", "k6", "i6", false},
		{strings.Repeat("7", 100000), "k7", "i7", false},
		{"8", "k8", "i8", false},
		{"9", "", "i9", true},
		{"10", "k10", "i10/0", false},
		{"11", "k10", "i10/1", false},
	}
	mu.Lock()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	mu.Unlock()

	long := strings.Repeat("k", keyBytesMax+1)
	p = r.dial()
	p.send("PUB a key=" + long + "\n")
	p.want("1:E_INVALID PUB key too big 1025 > 1024")
	p.wantClosed()
	if status, body := r.post("/pub?topic=a&id="+long, "x"); status != 400 || body != `{"message":"INVALID_ID"}` {
		t.Errorf("%d %s", status, body)
	}
}

// TestHealth: what /ping and /stats say while publishes are refused.
func TestHealth(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	b.mu.Lock()
	b.health = fault.DiskReserve
	b.mu.Unlock()
	if status, body := r.get("/ping"); status != 500 || body != "NOK - disk reserve reached" {
		t.Errorf("%d %s", status, body)
	}
	if _, body := r.get("/stats?format=json"); !strings.Contains(body, `"health":"NOK - disk reserve reached"`) {
		t.Error(body)
	}
	if _, body := r.get("/stats"); !strings.Contains(body, "\nHealth: NOK - disk reserve reached\n") {
		t.Error(body)
	}
}

// TestWarning: what /ping says of trouble that does not keep the node from
// serving.
func TestWarning(t *testing.T) {
	var warning string
	r := start(t, newFakeBroker(), Options{Warning: func() string { return warning }})
	for _, warning = range []string{"", "3 damaged places"} {
		want := strings.TrimSuffix("OK - "+warning, " - ")
		if status, body := r.get("/ping"); status != 200 || body != want {
			t.Errorf("%d %q, want %q", status, body, want)
		}
	}
}

// TestBodiesOfAllSizes: bodies around the sizes where they take another way in.
func TestBodiesOfAllSizes(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	p := r.dial()
	c := r.dial()
	c.send("SUB a c\nRDY 1\n")
	c.want("0:OK")
	sizes := []int{1, 4091, 4092, inputBytesMin, inlineBytesMax - 1, inlineBytesMax, inlineBytesMax + 1, inputBytesMax - 1, inputBytesMax, inputBytesMax + 1, 3*inputBytesMax + 7, 1 << 20}
	check := func(i int, n int) {
		t.Helper()
		want := strings.Repeat(string(rune('a'+i%26)), n)
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 26+n)
		if _, err := io.ReadFull(c, body); err != nil {
			t.Fatal(err)
		}
		if string(body[26:]) != want {
			t.Fatalf("body of %d bytes changed on its way", n)
		}
		c.send("FIN " + string(body[10:26]) + "\n")
	}
	for i, n := range sizes {
		body := strings.Repeat(string(rune('a'+i%26)), n)
		p.send("PUB a\n" + sized(body))
		p.want("0:OK")
		check(i, n)
		p.send("MPUB a\n" + sized(multi(body, "x", body)))
		p.want("0:OK")
		check(i, n)
		check('x'-'a', 1)
		check(i, n)
		if status, _ := r.post("/pub?topic=a", body); status != http.StatusOK {
			t.Fatal(status)
		}
		check(i, n)
	}
	if n := r.Snapshot().BufferedBytes; n != 0 {
		t.Errorf("%d bytes stay charged", n)
	}
}

// TestWithoutLeaderSayWhenToTryAgain: a refusal for lack of a leader says when to
// come back, and a consumer learns where a topic lives.
func TestWithoutLeaderSayWhenToTryAgain(t *testing.T) {
	b := newFakeBroker()
	b.refuse = func(string) error { return fault.NotLeader }
	r := start(t, b, Options{})
	answer, err := http.Post("http://"+r.http+"/pub?topic=a", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "1" {
		t.Fatalf("%s, Retry-After %q", answer.Status, answer.Header.Get("Retry-After"))
	}
	err = subRefusal(nil, nil, fault.New(fault.NotLeader, "topic a#ephemeral lives on node n2"))
	if err.Error() != "E_SUB_FAILED SUB failed topic a#ephemeral lives on node n2" {
		t.Fatal(err)
	}
}
