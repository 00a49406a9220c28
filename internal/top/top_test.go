package top

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/front/admin"
)

var update = flag.Bool("update", false, "write the golden views")

// golden compares a view with the one in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), got); d != "" {
		t.Errorf("%s is not what is shown; if it is better, run go test ./internal/top -update\n%s", file, d)
	}
}

// wishes are what the model wanted to watch.
type wishes struct{ list [][]string }

func (w *wishes) watch(watches []string) { w.list = append(w.list, watches) }

func (w *wishes) last() string {
	if len(w.list) == 0 {
		return ""
	}
	return strings.Join(w.list[len(w.list)-1], " ")
}

// screenTest drives a model as a terminal would.
type screenTest struct {
	*model
	t     *testing.T
	wants *wishes
	asked []string // questions for consumers
}

func newScreenTest(t *testing.T, o Options, width, height int) *screenTest {
	t.Helper()
	x := &screenTest{t: t, wants: &wishes{}}
	x.model = newModel(o, x.wants, func(topic, channel, sort, filter string) tea.Cmd {
		x.asked = append(x.asked, topic+"/"+channel+" "+sort+" "+filter)
		return func() tea.Msg { return nil }
	})
	x.Init()
	x.send(tea.WindowSizeMsg{Width: width, Height: height})
	return x
}

func (x *screenTest) send(messages ...tea.Msg) tea.Cmd {
	x.t.Helper()
	var cmd tea.Cmd
	for _, m := range messages {
		_, cmd = x.Update(m)
		x.bounded()
	}
	return cmd
}

// keys presses keys by their names.
func (x *screenTest) keys(names ...string) (cmd tea.Cmd) {
	x.t.Helper()
	special := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft, "right": tea.KeyRight,
		"pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd, "backspace": tea.KeyBackspace,
	}
	for _, name := range names {
		k := tea.KeyPressMsg{Text: name}
		switch code, ok := special[name]; {
		case ok:
			k = tea.KeyPressMsg{Code: code}
		case name == "ctrl+c":
			k = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		default:
			k.Code = rune(name[0])
		}
		cmd = x.send(k)
	}
	return cmd
}

// bounded holds a view against the terminal's size.
func (x *screenTest) bounded() {
	x.t.Helper()
	lines := x.lines()
	if len(lines) > max(x.height, 0) {
		x.t.Fatalf("%d lines on %d×%d:\n%s", len(lines), x.width, x.height, strings.Join(lines, "\n"))
	}
	for _, l := range lines {
		if w := ansi.StringWidth(l); w > x.width {
			x.t.Fatalf("%d characters on %d×%d:\n%s", w, x.width, x.height, l)
		}
	}
}

// view is the terminal without colours.
func (x *screenTest) view() string {
	var b strings.Builder
	for _, l := range x.lines() {
		b.WriteString(strings.TrimRight(ansi.Strip(l), " ") + "\n")
	}
	return b.String()
}

func (x *screenTest) shows(texts ...string) {
	x.t.Helper()
	for _, text := range texts {
		if !strings.Contains(x.view(), text) {
			x.t.Errorf("%q is not in\n%s", text, x.view())
		}
	}
}

// figures of a shop: a stuck channel, one without consumers, a paused one.
func overview(at int64) overviewMsg {
	in := 1200 + 900*float64(at%7)
	return overviewMsg{&admin.Overview{
		At: at * 1000, Cluster: "c0ffee", Nodes: []admin.NodeRow{
			{Name: "n1", RaftID: "a1", Self: true, State: "live", Answered: true, Ready: new(true), Leads: 5, Replicas: 9, InRate: new(2100.5), DeliveredRate: new(4000.0), Connections: new(57), Consumers: new(31), SyncMs: new(1.25), DiskFree: new(int64(37) << 30), Memory: new(int64(212) << 20), Version: "0.1.0"},
			{Name: "n2", RaftID: "a2", State: "live", Answered: true, Ready: new(false), Leads: 4, Replicas: 9, InRate: new(900.0), DeliveredRate: new(1.0), Connections: new(12), Consumers: new(9), SyncMs: new(830.0), DiskFree: new(int64(900) << 20), Memory: new(int64(180) << 20), Version: "0.1.0"},
			{Name: "n3", RaftID: "a3", State: "down"},
		},
		Totals: admin.Totals{
			Topics: 4, Channels: 5, Consumers: 40, InRate: new(in), OutRate: new(in * 0.8), Backlog: 1_234_567, Waiting: 12, InFlight: 1204, Deferred: 3,
			OldestAgeMs: new(int64(252_000)), Oldest: &admin.Target{Topic: "orders", Channel: "billing"},
		},
		Shards: admin.ShardTotals{Total: 9},
		Findings: []admin.Finding{
			{ID: "node_down:n3", Severity: "critical", Code: "node_down", Text: "node n3 has not been heard of for 42s", Next: "start it again, or look at its log", Target: admin.Target{Node: "n3"}},
			{ID: "stuck", Severity: "warning", Code: "channel_stuck", Text: "channel billing of topic orders is stuck: 3 consumers finish nothing, 1204 messages wait, the oldest for 4m12s", Next: "look at its messages and its consumers", Target: admin.Target{Topic: "orders", Channel: "billing"}},
			{ID: "nobody", Severity: "warning", Code: "channel_no_consumers", Text: "channel archive of topic clicks has no consumer, 1233000 messages wait, the oldest for 2m1s", Next: "start a consumer, or delete the channel", Target: admin.Target{Topic: "clicks", Channel: "archive"}},
			{ID: "paused", Severity: "info", Code: "channel_paused", Text: "channel audit of topic orders is paused, 363 messages wait", Next: "tidings channel resume orders audit", Target: admin.Target{Topic: "orders", Channel: "audit"}},
		},
	}}
}

func topics(watch string) topicsMsg {
	rows := map[string]admin.TopicRow{
		"clicks":                 {Name: "clicks", Partitions: 8, Channels: 2, Consumers: 12, Backlog: 1_233_000, InFlight: 1100, OldestAgeMs: new(int64(121_000)), InRate: new(5123.4), OutRate: new(4100.0), LogBytes: 700 << 20},
		"orders":                 {Name: "orders", Partitions: 1, Channels: 2, Consumers: 3, Backlog: 1567, InFlight: 104, Deferred: 3, OldestAgeMs: new(int64(252_000)), InRate: new(12.25), OutRate: new(0.0), LogBytes: 3 << 20},
		"session-events.v2.prod": {Name: "session-events.v2.prod", Partitions: 1, Channels: 1, Consumers: 25, InRate: new(0.02), OutRate: new(0.4), LogBytes: 1000},
		"idle#ephemeral":         {Name: "idle#ephemeral", Ephemeral: true, Waiting: 12, Paused: true},
	}
	return topicsMsg{watch, &admin.TopicRows{At: 1, Order: []string{"clicks", "orders", "idle#ephemeral", "session-events.v2.prod"}, Rows: rows, Total: 4}}
}

func channels(watch, only string) channelsMsg {
	m := channelsMsg{watch, &admin.ChannelRows{At: 1, Rows: make(map[string]admin.ChannelRow)}}
	for _, c := range []admin.ChannelRow{
		{Topic: "clicks", Name: "archive", Backlog: 1_233_000, OldestAgeMs: new(int64(121_000)), InRate: new(5123.4), OutRate: new(0.0)},
		{Topic: "clicks", Name: "stats", Consumers: 12, InFlight: 1100, OldestAgeMs: new(int64(40)), InRate: new(5123.4), OutRate: new(4100.0), Requeued: 12, TimedOut: 1},
		{Topic: "orders", Name: "billing", Consumers: 3, Backlog: 1204, InFlight: 104, Deferred: 3, OldestAgeMs: new(int64(252_000)), InRate: new(12.25), OutRate: new(0.0)},
		{Topic: "orders", Name: "audit", Paused: true, Backlog: 363, OldestAgeMs: new(int64(9_000)), InRate: new(12.25)},
	} {
		if only == "" || only == c.Topic {
			m.rows.Order = append(m.rows.Order, c.Topic+"/"+c.Name)
			m.rows.Rows[c.Topic+"/"+c.Name] = c
		}
	}
	m.rows.Total = len(m.rows.Order)
	return m
}

func consumers(at int64, finished uint64) *admin.Page[admin.Consumer] {
	p := &admin.Page[admin.Consumer]{At: at, Total: 3}
	for i := range 3 {
		p.Items = append(p.Items, admin.Consumer{
			ID: fmt.Sprint("c", i), Node: "n1", ClientID: fmt.Sprint("worker-", i), Hostname: "host\x1b[31m.example", RemoteAddress: fmt.Sprint("10.0.0.7:5000", i), UserAgent: "go-nsq/1.1.0",
			ConnectedAt: at - 3_600_000*int64(i+1), Ready: 200, InFlight: int64(30 + i), Finished: finished * uint64(i), Requeued: 7, TimedOut: uint64(i),
		})
	}
	return p
}

// filled is a terminal on which all of it has come.
func filled(t *testing.T, o Options, width, height int) *screenTest {
	t.Helper()
	x := newScreenTest(t, o, width, height)
	for at := range int64(30) {
		x.send(overview(at + 1))
	}
	x.send(topics(x.now().watch()), channels(x.now().watch(), ""))
	return x
}

func TestViews(t *testing.T) {
	for _, size := range []struct{ width, height int }{{80, 24}, {40, 15}, {132, 30}} {
		for _, view := range []string{"topics", "channels", "nodes"} {
			x := filled(t, Options{View: view}, size.width, size.height)
			x.keys("down")
			golden(t, fmt.Sprintf("%s-%dx%d", view, size.width, size.height), x.view())
		}
		x := filled(t, Options{}, size.width, size.height)
		x.keys("4", "down")
		golden(t, fmt.Sprintf("findings-%dx%d", size.width, size.height), x.view())
		x.keys("enter")
		x.channel(1000)
		golden(t, fmt.Sprintf("consumers-%dx%d", size.width, size.height), x.view())
		x.keys("?")
		golden(t, fmt.Sprintf("help-%dx%d", size.width, size.height), x.view())
	}
}

// channel brings what the screen of a channel asks for, twice.
func (x *screenTest) channel(at int64) {
	s := x.now()
	x.send(channelMsg{s.watch(), &admin.ChannelDetail{
		ChannelRow: channels("", "").rows.Rows[s.topic+"/"+s.channel], At: at,
	}})
	for i := range int64(2) {
		x.send(consumersMsg{asking: x.asking, topic: s.topic, channel: s.channel, page: consumers(at+i*2000, uint64(1000+100*i))})
	}
}

// Any size shows something, and none too much; nothing panics on the way.
func TestSizes(t *testing.T) {
	for _, view := range []string{"topics", "channels", "nodes", "findings", "consumers", "help", "typing", "empty"} {
		x := newScreenTest(t, Options{}, 80, 24)
		if view != "empty" {
			x = filled(t, Options{}, 80, 24)
		}
		switch view {
		case "channels":
			x.keys("2")
			x.send(channels(x.now().watch(), ""))
		case "nodes":
			x.keys("3")
		case "findings":
			x.keys("4", "end")
		case "consumers":
			x.keys("4", "down", "enter")
			x.channel(5000)
		case "help":
			x.keys("?")
		case "typing":
			x.keys("/", "c", "l")
		}
		for _, width := range []int{0, 1, 19, 20, 27, 40, 53, 80, 120, 300} {
			for _, height := range []int{0, 1, 3, 4, 5, 7, 10, 12, 14, 20, 60} {
				x.send(tea.WindowSizeMsg{Width: width, Height: height})
			}
		}
		x.send(tea.WindowSizeMsg{Width: -1, Height: -1}, tea.WindowSizeMsg{Width: 80, Height: 24})
	}
}

func TestKeys(t *testing.T) {
	x := filled(t, Options{}, 80, 24)
	if got := x.wants.last(); got != "overview topics?limit=200&sort=-backlog" {
		t.Errorf("watched at first: %s", got)
	}
	x.keys("down", "down")
	if x.now().selected != "idle#ephemeral" {
		t.Errorf("selected %s", x.now().selected)
	}
	moved := topics(x.now().watch()) // the selection stays on its row
	moved.rows.Order = []string{"idle#ephemeral", "clicks", "orders", "session-events.v2.prod"}
	x.send(moved)
	if s := x.now(); s.selected != "idle#ephemeral" || s.at != 0 {
		t.Errorf("selected %s at %d", s.selected, s.at)
	}
	gone := topics(x.now().watch()) // or at its place
	gone.rows.Order = gone.rows.Order[:1]
	x.send(gone)
	if s := x.now(); s.selected != "clicks" || s.at != 0 {
		t.Errorf("selected %s at %d", s.selected, s.at)
	}
	x.keys("right", "r")
	if got := x.wants.last(); got != "overview topics?limit=200&sort=oldest" {
		t.Errorf("sorted: %s", got)
	}
	x.keys("left", "left", "/", "o", "r", "*", "x", "backspace")
	if got := x.wants.last(); got != "overview topics?limit=200&q=or%2A&sort=-out_rate" {
		t.Errorf("filtered: %s", got)
	}
	x.send(topicsMsg{"topics?of=another", &admin.TopicRows{Order: []string{"late"}, Rows: map[string]admin.TopicRow{}}})
	if strings.Contains(x.view(), "late") {
		t.Error("an answer to another question is shown")
	}
	x.keys("enter", "esc")
	if got := x.wants.last(); got != "overview topics?limit=200&sort=-out_rate" {
		t.Errorf("filter cleared: %s", got)
	}
	x.send(topics(x.now().watch()))
	x.keys("home", "enter")
	if got := x.wants.last(); got != "overview channels?limit=200&sort=-backlog&topic=clicks" {
		t.Errorf("a topic's channels: %s", got)
	}
	x.send(channels(x.now().watch(), "clicks"))
	x.shows("Topics › clicks", "archive", "stats")
	x.keys("down", "enter")
	if got := x.wants.last(); got != "overview channel:clicks/stats" || len(x.asked) != 1 || x.asked[0] != "clicks/stats -in_flight " {
		t.Errorf("a channel's consumers: %s, asked %q", got, x.asked)
	}
	x.channel(9000)
	x.shows("clicks › stats", "worker-2@host?[31m.exam", "in flight 1100", "$ tidings channel peek clicks stats --state in-flight")
	x.keys("esc", "esc")
	if len(x.stack) != 1 || x.now().kind != topicsKind {
		t.Errorf("back at %+v", x.stack)
	}
	x.keys("tab")
	if x.now().kind != channelsKind {
		t.Errorf("the next list: %+v", x.now())
	}
	for _, k := range []string{"q", "ctrl+c"} {
		if cmd := x.keys(k); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%s does not quit", k)
		}
	}
}

// Pausing closes the stream; what is gone to meanwhile is still fetched, once.
func TestPause(t *testing.T) {
	x := filled(t, Options{}, 80, 24)
	x.keys("p")
	if got := x.wants.last(); got != "" {
		t.Errorf("watched while it is paused: %s", got)
	}
	x.shows("PAUSED")
	x.keys("2")
	if got := x.wants.last(); got != "overview channels?limit=200&sort=-backlog" {
		t.Errorf("another list while it is paused: %s", got)
	}
	x.send(overview(99))
	if got := x.wants.last(); got == "" {
		t.Error("closed before the list has come")
	}
	x.send(channels(x.now().watch(), ""))
	if got := x.wants.last(); got != "" {
		t.Errorf("still watched: %s", got)
	}
	x.keys("enter")
	s := x.now()
	x.send(channelMsg{s.watch(), &admin.ChannelDetail{}})
	if cmd := x.send(consumersMsg{asking: x.asking, topic: s.topic, channel: s.channel, page: consumers(1, 1)}); cmd != nil || x.wants.last() != "" {
		t.Errorf("goes on while it is paused: %v, %s", cmd != nil, x.wants.last())
	}
	asked := len(x.asked)
	x.keys("p")
	if got := x.wants.last(); got != "overview channel:clicks/archive" || len(x.asked) != asked+1 {
		t.Errorf("going on: %s, asked %q", got, x.asked)
	}
}

// Only answers of the last run of questions count, and only they go on.
func TestLateAnswers(t *testing.T) {
	x := filled(t, Options{View: "channels"}, 80, 24)
	x.keys("enter")
	first := x.asking
	x.keys("right")
	if cmd := x.send(consumersMsg{asking: first, topic: "clicks", channel: "archive", page: consumers(1, 1)}); cmd != nil || x.consumers != nil {
		t.Error("an answer to an earlier question counts")
	}
	if cmd := x.send(pollMsg{first}); cmd != nil {
		t.Error("an earlier run goes on")
	}
	if cmd := x.send(consumersMsg{asking: x.asking, topic: "clicks", channel: "archive", page: consumers(1, 1)}); cmd == nil || x.consumers == nil {
		t.Error("the run does not go on")
	}
	if cmd := x.send(consumersMsg{asking: x.asking, topic: "clicks", channel: "archive", err: errors.New("away\x1b[2J")}); cmd == nil {
		t.Error("the run ends with an error")
	}
	x.shows("no answer, trying again: away?[2J")
}

func TestTrouble(t *testing.T) {
	x := newScreenTest(t, Options{}, 80, 24)
	x.shows("… asking")
	x.send(lostMsg{errors.New("connection refused")})
	x.shows("✖ no answer, trying again: connection refused")
	x.send(lostMsg{errors.New("can't reach a node at 127.0.0.1:4180: connect: connection refused; start one with `tidings dev`")})
	x.shows("✖ no answer, trying again: can't reach a node at 127.0.0.1")
	x.send(tea.WindowSizeMsg{Width: 40, Height: 15})
	x.shows("✖ no answer, trying again: …")
	x.send(tea.WindowSizeMsg{Width: 80, Height: 24})
	x.send(overview(1), topicsMsg{x.now().watch(), &admin.TopicRows{}})
	x.shows("1 critical ▲ 2 warnings", "2 of 3 nodes", "no topic; `tidings pub TOPIC MESSAGE` makes one")
	x.keys("4", "down", "enter")
	x.send(goneMsg{x.now().watch(), "channel billing of topic orders not found"})
	x.shows("channel billing of topic orders not found")
	x.keys("3", "/", "n", "2", "enter")
	x.shows("n2", "unready", "/n2  1–1 of 1")
	if strings.Contains(x.view(), " down ") {
		t.Errorf("a node that the filter leaves out:\n%s", x.view())
	}
	x.keys("/", "z")
	x.shows("nothing matches n2z")
}

// What is beyond what the node tells is not hidden.
func TestMore(t *testing.T) {
	x := filled(t, Options{}, 80, 24)
	o := overview(50)
	o.overview.FindingsMore = 297
	rows := topics(x.now().watch())
	rows.rows.Total = 12_345
	x.send(o, rows)
	x.shows("✖ 1 critical ▲ 2 warnings +297", "+298 more", "1–4 of 12345, the first 4")
}

func TestColours(t *testing.T) {
	coloured := strings.Join(filled(t, Options{}, 80, 24).lines(), "\n")
	if !strings.Contains(coloured, "\x1b[1;31m") || !strings.Contains(coloured, "\x1b[33m") {
		t.Error("there are no colours")
	}
	without := strings.Join(filled(t, Options{Plain: true}, 80, 24).lines(), "\n")
	for _, code := range []string{"31m", "32m", "33m", "34m", "36m"} {
		if strings.Contains(without, code) {
			t.Errorf("colour %s where there are to be none", code)
		}
	}
	if ansi.Strip(coloured) != ansi.Strip(without) {
		t.Error("the text depends on the colours")
	}
}

func TestFigures(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 99_999: "99999", 100_000: "100k", 999_499: "999k", 999_500: "1.00M", 1_234_567: "1.23M", 12_345_678: "12.3M", 1 << 62: "4612P", -5: "-5"} {
		if got := count(n); got != want {
			t.Errorf("count %d: %s, want %s", n, got, want)
		}
	}
	for r, want := range map[float64]string{0: "0", 0.01: "<0.1", 0.55: "0.6", 9.9: "9.9", 12.4: "12", 999: "999", 1234: "1.23k", 99_990: "100k"} {
		if got := rate(&r); got != want {
			t.Errorf("rate %v: %s, want %s", r, got, want)
		}
	}
	for ms, want := range map[int64]string{-1: "0s", 40: "0.0s", 9_900: "9.9s", 12_000: "12s", 60_000: "1m", 61_000: "1m01s", 3_600_000: "1h", 7_320_000: "2h02m", 90_000_000: "1d01h", 86_400_000 * 400: "400d"} {
		if got := age(&ms); got != want {
			t.Errorf("age %d: %s, want %s", ms, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 120 << 20: "120 MiB", 3 << 50: "3.0 PiB"} {
		if got := size(n); got != want {
			t.Errorf("size %d: %s, want %s", n, got, want)
		}
	}
	if got := spark([]float64{0, 1, 4, 8, 9}, 6, 8); got != " ▁▂▅██" {
		t.Errorf("spark %q", got)
	}
}

// fakeSource plays streams that a test wrote, and answers what it knows.
type fakeSource struct {
	streams chan []string // kind, data, kind, data …; then the stream breaks
	watched chan []string
	answers map[string]any
}

func (f *fakeSource) Watch(ctx context.Context, watches []string, on func(string, []byte)) error {
	f.watched <- watches
	select {
	case events := <-f.streams:
		for i := 0; i+1 < len(events); i += 2 {
			on(events[i], []byte(events[i+1]))
		}
		return errors.New("broken")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeSource) Get(_ context.Context, path string, _ url.Values, v any) error {
	answer, ok := f.answers[path]
	if !ok {
		return errors.New(path + " not found")
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

func TestFeed(t *testing.T) {
	src := &fakeSource{streams: make(chan []string), watched: make(chan []string)}
	f := newFeed(src)
	told := make(chan any, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		f.run(ctx, func(m any) { told <- m })
		close(done)
	}()
	f.watch([]string{"overview", "topics"})
	<-src.watched
	src.streams <- []string{
		"patch", `{"watch": "topics", "data": {"total": 7}}`, // to nothing
		"state", `{"watch": "topics", "data": {"order": ["a"], "rows": {"a": {"name": "a", "backlog": 1, "oldest_age_ms": 5}}, "total": 1}}`,
		"patch", `{"watch": "topics", "data": {"rows": {"a": {"backlog": 2, "oldest_age_ms": null}}}}`,
		"news", `{"watch": "topics", "data": {}}`, "state", `no JSON`, "state", `{"watch": "weather", "data": {}}`,
		"gone", `{"watch": "topics", "data": {"code": "X", "message": "it is gone"}}`,
	}
	first := (<-told).(topicsMsg).rows.Rows["a"]
	second := (<-told).(topicsMsg).rows.Rows["a"]
	if first.Backlog != 1 || *first.OldestAgeMs != 5 || second.Backlog != 2 || second.OldestAgeMs != nil || second.Name != "a" {
		t.Errorf("told %+v, %+v", first, second)
	}
	if g := (<-told).(goneMsg); g.text != "it is gone" {
		t.Errorf("told %+v", g)
	}
	if l := (<-told).(lostMsg); l.err.Error() != "broken" {
		t.Errorf("told %+v", l)
	}
	if got := <-src.watched; len(got) != 2 { // again by itself
		t.Errorf("watched %q", got)
	}
	f.watch([]string{"overview"})
	if got := <-src.watched; len(got) != 1 {
		t.Errorf("watched %q", got)
	}
	f.watch(nil)
	select {
	case got := <-src.watched:
		t.Errorf("watched %q", got)
	case <-time.After(10 * time.Millisecond):
	}
	cancel()
	<-done
}

func TestSnapshot(t *testing.T) {
	src := &fakeSource{answers: map[string]any{
		"overview": overview(3).overview,
		"topics":   admin.Page[admin.TopicRow]{Items: []admin.TopicRow{topics("").rows.Rows["clicks"], topics("").rows.Rows["orders"]}, Total: 4},
		"channels": admin.Page[admin.ChannelRow]{Items: []admin.ChannelRow{channels("", "").rows.Rows["orders/billing"]}, Total: 1},
	}}
	for _, view := range Views() {
		o := Options{Source: src, View: view, Limit: 2}
		snap, err := Take(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := snap.Print(&b, o); err != nil {
			t.Fatal(err)
		}
		golden(t, "once-"+view, b.String())
	}
	delete(src.answers, "topics")
	if _, err := Take(t.Context(), Options{Source: src}); err == nil {
		t.Error("no error where there is no answer")
	}
	for _, o := range []Options{{View: "weather"}, {Sort: "weather"}, {View: "nodes", Sort: "backlog"}} {
		if _, err := Take(t.Context(), o); err == nil {
			t.Errorf("%+v is no error", o)
		}
	}
}
