package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/fault"
)

// drawJSON draws an object as a state of a stream has it.
func drawJSON(t *rapid.T, depth int) map[string]any {
	out := make(map[string]any)
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID[string]).Draw(t, "keys") {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			out[k] = json.Number(fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "n")))
		case 1:
			out[k] = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "s")
		case 2:
			out[k] = rapid.Bool().Draw(t, "b")
		case 3:
			out[k] = []any{json.Number("1"), rapid.SampledFrom([]string{"x", "y"}).Draw(t, "e")}
		default:
			if depth > 0 {
				out[k] = drawJSON(t, depth-1)
			} else {
				out[k] = map[string]any{}
			}
		}
	}
	return out
}

// A node that does not know all topics yet does not say that one is not there.
func TestMissingWhileStarting(t *testing.T) {
	recovered := false
	e := &Engine{Recovered: func() bool { return recovered }}
	gone := topicNotFound("orders")
	if got := e.missing(gone); !errors.Is(got, errStarting) {
		t.Errorf("while it starts: %v", got)
	}
	other := fault.New(fault.InvalidRequest, "x")
	if got := e.missing(other); !errors.Is(got, other) {
		t.Errorf("another error while it starts: %v", got)
	}
	recovered = true
	if got := e.missing(gone); errors.Is(got, errStarting) || !errors.Is(got, gone) {
		t.Errorf("when it has started: %v", got)
	}
}

// apply is RFC 7396 as a viewer has it.
func apply(to map[string]any, patch map[string]any) map[string]any {
	out := make(map[string]any)
	for k, v := range to {
		out[k] = v
	}
	for k, v := range patch {
		inner, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, k)
		case isObject:
			was, _ := out[k].(map[string]any)
			out[k] = apply(was, inner)
		default:
			out[k] = v
		}
	}
	return out
}

func TestMergePatchMakesTheNextState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawJSON(t, 2), drawJSON(t, 2)
		patch, some := mergePatch(before, after)
		if some == reflect.DeepEqual(before, after) {
			t.Fatalf("some: %v, %v to %v", some, before, after)
		}
		if got := apply(before, patch); !reflect.DeepEqual(got, after) {
			t.Fatalf("%v patched with %v is %v, want %v", before, patch, got, after)
		}
	})
}

func TestGenericLeavesNullsOut(t *testing.T) {
	g, err := generic(map[string]any{"a": nil, "b": []any{map[string]any{"c": nil, "d": 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(g); string(text) != `{"b":[{"d":1}]}` {
		t.Errorf("got %s", text)
	}
}

// Pages joined are the list, in order, whatever the size of a page.
func TestPagesJoinUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*TopicRow
		for i := range rapid.IntRange(0, 40).Draw(t, "topics") {
			all = append(all, &TopicRow{Name: fmt.Sprintf("t%02d", i), Backlog: int64(rapid.IntRange(0, 3).Draw(t, "backlog"))})
		}
		rand.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		sort := rapid.SampledFrom(topicSorts).Draw(t, "sort")
		l := listing{sort: sort, down: rapid.Bool().Draw(t, "down"), limit: rapid.IntRange(1, 50).Draw(t, "limit")}
		o := order[TopicRow]{name: func(r *TopicRow) string { return r.Name }, value: topicValues[sort]}
		var got []TopicRow
		for next := "begin"; next != ""; {
			var items []TopicRow
			var total int
			items, total, next = page(&l, o, all)
			if total != len(all) || len(items) > l.limit {
				t.Fatalf("total %d, %d items", total, len(items))
			}
			got = append(got, items...)
			if next != "" {
				again, err := listingOf(map[string][]string{"cursor": {next}}, topicSorts, nil, 50)
				if err != nil {
					t.Fatal(err)
				}
				l.after = again.after
			}
		}
		o.down = l.down
		if len(got) != len(all) || !slices.IsSortedFunc(got, func(a, b TopicRow) int { return o.compare(o.key(&a), o.key(&b)) }) {
			t.Fatalf("%d of %d, by %s: %v", len(got), len(all), sort, got)
		}
	})
}

func TestReportOnTheWire(t *testing.T) {
	want := &report{at: 5, failed: "shard 1: late", node: NodeFigures{Name: "a", Ready: true, Log: LogSync{Syncs: 7}}}
	want.topics = []topicReport{
		{name: "orders", id: 1 << 63, waiting: -1, records: 1 << 40, channels: []channelReport{
			{name: "audit", flags: flagPaused, backlog: 3, oldest: time.Now().UnixNano()}, {name: "x#ephemeral", flags: flagEphemeral},
		}},
		{name: "quiet", channels: []channelReport{}},
	}
	b, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeReport(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(report{}, topicReport{}, channelReport{})); diff != "" {
		t.Error(diff)
	}
	for i := range b {
		if _, err := decodeReport(b[:i]); err == nil {
			t.Errorf("cut to %d bytes it is read", i)
		}
	}
}

func FuzzReport(f *testing.F) {
	r := &report{node: NodeFigures{Name: "a"}, topics: []topicReport{{name: "t", channels: []channelReport{{name: "c"}}}}}
	b, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{reportFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReport(b); err == nil {
			if _, err := r.encode(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"orders": "orders", "a.b_c-1": "a.b_c-1", "x#ephemeral": "'x#ephemeral'", "": "''", "it's": `'it'\''s'`, "$(rm -rf /)": "'$(rm -rf /)'", "a b": "'a b'", "日本": "'日本'",
	} {
		if got := quote(word); got != want {
			t.Errorf("quote(%q) is %s, want %s", word, got, want)
		}
	}
}

func TestPubLine(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, x := range []struct {
		list []publish
		want string
	}{
		{[]publish{{Text: text("hi there")}}, "tidings pub t 'hi there'"},
		{[]publish{{Text: text("-")}}, "tidings pub t --delimiter '' < FILE"},
		{[]publish{{Body: []byte{0, 1}, Key: "k"}}, "tidings pub t --delimiter '' --key k < FILE"},
		{[]publish{{Text: text("a")}, {Text: text("b")}}, "tidings pub t < FILE"},
		{[]publish{{Text: text(strings.Repeat("x", 300)), Name: "n 1"}}, "tidings pub t --delimiter '' --id 'n 1' < FILE"},
	} {
		if got := pubLine("t", x.list, 0); got != x.want {
			t.Errorf("got %s, want %s", got, x.want)
		}
	}
}

// rated makes two samples of one channel, seconds apart, and looks at the second.
func rated(before, after channelReport, seconds float64) *ChannelRow {
	row := &ChannelRow{Topic: "t", Name: "c"}
	row.add(&after, &before, seconds, 1_000_000)
	return row
}

func TestRates(t *testing.T) {
	row := rated(channelReport{records: 100, backlog: 50, requeued: 1}, channelReport{records: 140, backlog: 60, inFlight: 10, requeued: 5}, 2)
	if *row.InRate != 20 || *row.OutRate != 10 || *row.RequeueRate != 2 || *row.TimeoutRate != 0 {
		t.Errorf("in %v, out %v, requeued %v", *row.InRate, *row.OutRate, *row.RequeueRate)
	}
	if row = rated(channelReport{records: 100}, channelReport{records: 3}, 1); *row.InRate != 0 {
		t.Errorf("a count that fell gives %v", *row.InRate)
	}
}

func TestFindingsOfAChannel(t *testing.T) {
	age := func(d time.Duration) *int64 { ms := d.Milliseconds(); return &ms }
	rate := func(v float64) *float64 { return &v }
	for _, x := range []struct {
		what string
		row  ChannelRow
		want string
	}{
		{"all is well", ChannelRow{Backlog: 5, Consumers: 1, OldestAgeMs: age(time.Second), OutRate: rate(3)}, ""},
		{"stuck", ChannelRow{Backlog: 5, Consumers: 2, OldestAgeMs: age(time.Minute), OutRate: rate(0)}, "channel_stuck"},
		{"stuck in flight", ChannelRow{InFlight: 5, Consumers: 2, OldestAgeMs: age(time.Minute), OutRate: rate(0)}, "channel_stuck"},
		{"it moves", ChannelRow{Backlog: 5, Consumers: 2, OldestAgeMs: age(time.Minute), OutRate: rate(1)}, ""},
		{"not measured", ChannelRow{Backlog: 5, Consumers: 2, OldestAgeMs: age(time.Minute)}, ""},
		{"nobody", ChannelRow{Backlog: 5, OldestAgeMs: age(time.Minute)}, "channel_no_consumers"},
		{"nobody yet", ChannelRow{Backlog: 5, OldestAgeMs: age(time.Second)}, ""},
		{"paused", ChannelRow{Backlog: 5, Paused: true, OldestAgeMs: age(time.Minute)}, "channel_paused"},
		{"timeouts", ChannelRow{Consumers: 1, TimeoutRate: rate(2)}, "channel_timeouts"},
	} {
		x.row.Topic, x.row.Name = "a b", "c"
		var b findings
		(&sample{at: time.Now()}).channelFindings(&b, &x.row)
		got := ""
		if len(b.list) > 0 {
			got = b.list[0].Code
			if b.list[0].Link != "/topics/a%20b/channels/c" {
				t.Errorf("%s: link %s", x.what, b.list[0].Link)
			}
		}
		if got != x.want || len(b.list) > 1 {
			t.Errorf("%s: %+v, want %q", x.what, b.list, x.want)
		}
	}
}

func TestFindingsOfASpool(t *testing.T) {
	for _, x := range []struct {
		what  string
		spool Spool
		want  string
	}{
		{"nothing in it", Spool{Bytes: 90, LimitBytes: 100, OldestAgeMs: 0}, ""},
		{"on its way", Spool{Depth: 5, Bytes: 10, LimitBytes: 100, OldestAgeMs: 2000}, ""},
		{"behind", Spool{Depth: 5, Bytes: 10, LimitBytes: 100, OldestAgeMs: 60_000}, "spool_behind"},
		{"nearly full", Spool{Depth: 5, Bytes: 85, LimitBytes: 100, OldestAgeMs: 60_000}, "spool_full"},
	} {
		var b findings
		r := report{node: NodeFigures{Name: "a", Ready: true, Spool: &x.spool}}
		r.findings(&b, Target{Node: "a"})
		got := ""
		for _, f := range b.list {
			got += f.Code
			if f.Link != "/nodes/a" {
				t.Errorf("%s: link %s", x.what, f.Link)
			}
		}
		if got != x.want {
			t.Errorf("%s: %+v, want %q", x.what, b.list, x.want)
		}
	}
}

func TestGrowingBacklog(t *testing.T) {
	s := sampler{f: &Front{}}
	began := time.Now()
	for i := range 12 {
		in, out := 100.0, 20.0
		x := &sample{at: began.Add(time.Duration(i) * time.Second), topics: []topicSum{{channels: []ChannelRow{
			{Topic: "t", Name: "c", Consumers: 1, Backlog: int64(2000 + 80*i), InRate: &in, OutRate: &out},
		}}}}
		s.trends.follow(x)
		var b findings
		x.channelFindings(&b, &x.topics[0].channels[0])
		if found := len(b.list) == 1 && b.list[0].Code == "channel_growing"; found != (i >= 8) {
			t.Errorf("after %d s: %+v", i, b.list)
		}
	}
}

func TestTop(t *testing.T) {
	var rows []ChannelRow
	for i := range 40 {
		rows = append(rows, ChannelRow{Name: fmt.Sprint(i), Backlog: int64(i * 7 % 40)})
	}
	got := top(rows, func(c *ChannelRow) float64 { return float64(c.Backlog) - 0.5 })
	if len(got) != overviewRows || got[0].Backlog != 39 || got[9].Backlog != 30 {
		t.Errorf("got %+v", got)
	}
	if !slices.IsSortedFunc(got, func(a, b ChannelRow) int { return int(b.Backlog - a.Backlog) }) {
		t.Error("not sorted")
	}
}

func TestPattern(t *testing.T) {
	for _, x := range []struct {
		pattern, name string
		want          bool
	}{
		{"ord", "My-Orders", true},
		{"ord*", "My-Orders", false},
		{"*ord*", "My-Orders", true},
		{"t?", "t1", true},
		{"t?", "t12", false},
		{"[a]*", "a", false},
		{"x#eph", "x#ephemeral", true},
	} {
		match, err := pattern(x.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if match(x.name) != x.want {
			t.Errorf("%s matches %s: %v", x.pattern, x.name, !x.want)
		}
	}
}

// What is wrong with a body is said in the API's words, not in Go's.
func TestBodiesThatAreRefused(t *testing.T) {
	for body, want := range map[string]string{
		``:                          "the body is empty: want JSON",
		`{"name":"a"} {"name":"b"}`: "something follows the JSON",
		`{"name":"a"} x`:            "invalid character 'x' looking for beginning of value",
		`[]`:                        "the body is a JSON array: want an object",
		`{"name":5}`:                "name is not to be a JSON number",
		`{"body":"a"}`:              "a body or key is not base64: illegal base64 data at input byte 0",
		`{"nam":"a"}`:               `json: unknown field "nam"`,
		"{\"name\":\"a\"}\n \t":     "",
	} {
		var into struct {
			Name string `json:"name"`
			Body []byte `json:"body"`
		}
		err := decode(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)), &into, 100)
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && err != nil {
			t.Errorf("%q: %v, want %q", body, err, want)
		}
	}
	none := func(http.ResponseWriter, *http.Request) {}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/x", none)
	mux.HandleFunc("PATCH /api/x", none)
	var e *apiError
	if err := noPath(mux, httptest.NewRequest(http.MethodPut, "/api/x", nil)); !errors.As(err, &e) || e.next != "use GET or PATCH" {
		t.Errorf("%+v", err)
	}
}
