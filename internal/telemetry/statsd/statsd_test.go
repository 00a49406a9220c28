package statsd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func lines(packets [][]byte) []string {
	var out []string
	for _, p := range packets {
		out = append(out, strings.Split(strings.TrimSuffix(string(p), "\n"), "\n")...)
	}
	return out
}

func TestNames(t *testing.T) {
	b := newBuilder(&Options{Prefix: "p.", PacketSize: 508, MemStats: true})
	got := lines(b.packets(&Report{
		Topics: []Topic{{
			ID: 1, Name: "t", MessageCount: 5, MessageBytes: 50, Depth: 1, BackendDepth: 2, Latency: []Quantile{{1, 9}, {0.99, 8}, {0.5, 7}},
			Channels: []Channel{{
				ID: 1, Name: "c", MessageCount: 4, Depth: 3, BackendDepth: 2, InFlight: 6, Deferred: 7, RequeueCount: 8, TimeoutCount: 9, Clients: 10,
				Latency: []Quantile{{0.95, 11}},
			}},
		}},
		Memory: Memory{1, 2, 3, 4, 5, 6, 7, 8, 9},
	}))
	want := strings.Split(strings.TrimSpace(`
p.topic.t.message_count:5|c
p.topic.t.message_bytes:50|c
p.topic.t.depth:1|g
p.topic.t.backend_depth:2|g
p.topic.t.e2e_processing_latency_100:9|g
p.topic.t.e2e_processing_latency_99:8|g
p.topic.t.e2e_processing_latency_50:7|g
p.topic.t.channel.c.message_count:4|c
p.topic.t.channel.c.depth:3|g
p.topic.t.channel.c.backend_depth:2|g
p.topic.t.channel.c.in_flight_count:6|g
p.topic.t.channel.c.deferred_count:7|g
p.topic.t.channel.c.requeue_count:8|c
p.topic.t.channel.c.timeout_count:9|c
p.topic.t.channel.c.clients:10|g
p.topic.t.channel.c.e2e_processing_latency_95:11|g
p.mem.heap_objects:1|g
p.mem.heap_idle_bytes:2|g
p.mem.heap_in_use_bytes:3|g
p.mem.heap_released_bytes:4|g
p.mem.gc_pause_usec_100:5|g
p.mem.gc_pause_usec_99:6|g
p.mem.gc_pause_usec_95:7|g
p.mem.next_gc_bytes:8|g
p.mem.gc_runs:9|c`), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestCounts: a report has what was added since the last one, never less than
// nothing, and twice nothing.
func TestCounts(t *testing.T) {
	b := newBuilder(&Options{PacketSize: 508})
	for i, c := range []struct {
		id    uint64
		count int64
		want  string
	}{
		{1, 10, "topic.t.message_count:10|c"},
		{1, 10, "topic.t.message_count:0|c"},
		{1, 15, "topic.t.message_count:5|c"},
		{1, 0, "topic.t.message_count:0|c"}, // another node leads it
		{1, 17, "topic.t.message_count:2|c"},
		{2, 3, "topic.t.message_count:3|c"}, // deleted, and made anew
		{2, 4, "topic.t.message_count:1|c"},
	} {
		got := lines(b.packets(&Report{Topics: []Topic{{ID: c.id, Name: "t", MessageCount: c.count}}}))
		if got[0] != c.want {
			t.Errorf("report %d: %s, want %s", i, got[0], c.want)
		}
	}
}

// TestGaugesThatLeave end at 0, once.
func TestGaugesThatLeave(t *testing.T) {
	b := newBuilder(&Options{PacketSize: 508})
	topic := Topic{ID: 1, Name: "t", Depth: 5, Channels: []Channel{{ID: 1, Name: "c", Depth: 6, Clients: 1}}}
	b.packets(&Report{Topics: []Topic{topic}})
	topic.Channels = nil
	got := lines(b.packets(&Report{Topics: []Topic{topic}}))
	for _, want := range []string{"topic.t.channel.c.depth:0|g", "topic.t.channel.c.clients:0|g", "topic.t.depth:5|g"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in %q", want, got)
		}
	}
	if strings.Contains(strings.Join(got, " "), "c.message_count") {
		t.Errorf("a counter that is gone is sent: %q", got)
	}
	got = lines(b.packets(&Report{}))
	slices.Sort(got)
	if d := cmp.Diff([]string{"topic.t.backend_depth:0|g", "topic.t.depth:0|g"}, got); d != "" {
		t.Error(d)
	}
	if got := b.packets(&Report{}); len(got) != 0 {
		t.Errorf("zeros are sent again: %q", got)
	}
}

func TestEphemeral(t *testing.T) {
	r := &Report{Topics: []Topic{
		{ID: 1, Name: "t", Channels: []Channel{{ID: 1, Name: "c#ephemeral", Ephemeral: true}, {ID: 2, Name: "d"}}},
		{ID: 2, Name: "e#ephemeral", Ephemeral: true},
	}}
	for _, exclude := range []bool{false, true} {
		b := newBuilder(&Options{PacketSize: 508, ExcludeEphemeral: exclude})
		all := string(bytes.Join(b.packets(r), nil))
		if strings.Contains(all, "#ephemeral") == exclude || !strings.Contains(all, "channel.d.depth") {
			t.Errorf("exclude %v: %s", exclude, all)
		}
	}
}

// TestPackets are full lines, as many as fit.
func TestPackets(t *testing.T) {
	const size = 100
	b := newBuilder(&Options{PacketSize: size, Prefix: "x."})
	r := &Report{}
	for i := range 20 {
		r.Topics = append(r.Topics, Topic{ID: uint64(i), Name: fmt.Sprintf("topic%d", i)})
	}
	r.Topics = append(r.Topics, Topic{ID: 99, Name: strings.Repeat("n", 120)})
	packets := b.packets(r)
	long := 0
	for i, p := range packets {
		if p[len(p)-1] != '\n' {
			t.Errorf("packet %d does not end a line: %q", i, p)
		}
		if len(p) > size {
			if bytes.Count(p, []byte("\n")) != 1 {
				t.Errorf("packet %d is %d bytes: %q", i, len(p), p)
			}
			long++
		}
		if next := i + 1; next < len(packets) && long == 0 {
			first, _, _ := bytes.Cut(packets[next], []byte("\n"))
			if len(p)+len(first)+1 <= size {
				t.Errorf("packet %d has room for %q", i, first)
			}
		}
	}
	if long != 4 || len(lines(packets)) != 21*4 {
		t.Errorf("%d long packets, %d lines", long, len(lines(packets)))
	}
}

func TestPrefix(t *testing.T) {
	for _, c := range [][4]string{
		{"nsq.%s", "10.0.0.5", "4151", "nsq.10_0_0_5_4151."},
		{"nsq.%s.", "host.example", "4151", "nsq.host_example_4151."},
		{"a.%s.%s", "h", "1", "a.h_1.h_1."},
		{"plain", "h", "1", "plain."},
		{"", "h", "1", ""},
		{"%s", "::1", "1", "[__1]_1."},
	} {
		if got := Prefix(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%q: %q, want %q", c[0], got, c[3])
		}
	}
}

// daemon listens where a sender sends.
func daemon(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestRun(t *testing.T) {
	conn := daemon(t)
	var reports atomic.Int64
	s := New(Options{
		Address: conn.LocalAddr().String(), Prefix: "p.", Interval: 20 * time.Millisecond, PacketSize: 64,
		Source: func(context.Context) (*Report, error) {
			if n := reports.Add(1); n == 2 {
				return nil, fmt.Errorf("this time not")
			} else {
				return &Report{Topics: []Topic{{ID: 1, Name: "t", MessageCount: n}}}, nil
			}
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var counts []string
	buf := make([]byte, 1<<16)
	for len(counts) < 3 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines([][]byte{buf[:n]}) {
			if strings.Contains(l, "message_count") {
				counts = append(counts, l)
			}
		}
	}
	if d := cmp.Diff([]string{"p.topic.t.message_count:1|c", "p.topic.t.message_count:2|c", "p.topic.t.message_count:1|c"}, counts); d != "" {
		t.Error(d)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStopInsideAReport: what is left of it is sent at once.
func TestStopInsideAReport(t *testing.T) {
	conn := daemon(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s := New(Options{
		Address: conn.LocalAddr().String(), Interval: time.Hour, PacketSize: 64,
		Source: func(context.Context) (*Report, error) {
			return &Report{Topics: make([]Topic, 50)}, nil
		},
	})
	go func() { _ = s.report(ctx) }()
	buf := make([]byte, 1<<16)
	seen := 0
	for seen < 200 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %d lines: %v", seen, err)
		}
		seen += len(lines([][]byte{buf[:n]}))
		stop()
	}
}
