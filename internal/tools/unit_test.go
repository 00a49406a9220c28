package tools

import (
	"bytes"
	"context"
	"errors"
	"log"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStrftime(t *testing.T) {
	at := time.Date(2026, time.January, 5, 15, 4, 9, 0, time.FixedZone("XST", 2*3600))
	for format, want := range map[string]string{
		"%Y-%m-%d_%H": "2026-01-05_15", "%A %a %B %b": "Monday Mon January Jan", "%I:%M:%S %p": "03:04:09 PM", "%y%j": "26005",
		"%Z%z": "XST+0200", "%%": "%", "%Q": "%Q", "%": "%", "a%": "a%", "2006 Jan 01": "2006 Jan 01", "%F %T": "2026-01-05 15:04:09", "%s": "1767618249", "": "",
	} {
		if got := strftime(format, at); got != want {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
}

func TestFilter(t *testing.T) {
	const message = `{"a": 1, "id": 12345678901234567890, "f": 1.50, "s": "x<y", "n": null, "o": {"k": [1, 2]}}`
	for _, row := range []struct {
		name   string
		filter filter
		body   string
		want   string // empty: does not pass
		err    bool
	}{
		{"nothing asked", filter{}, "no JSON", "no JSON", false},
		{"has field", filter{field: "a"}, message, message, false},
		{"has a null", filter{field: "n"}, message, message, false},
		{"has not", filter{field: "b"}, message, "", false},
		{"number", filter{field: "a", value: "1"}, message, message, false},
		{"number in another form", filter{field: "f", value: "1.5"}, message, message, false},
		{"other number", filter{field: "a", value: "2"}, message, "", false},
		{"number for a word", filter{field: "a", value: "x"}, message, "", false},
		{"string", filter{field: "s", value: "x<y"}, message, message, false},
		{"other string", filter{field: "s", value: "y"}, message, "", false},
		{"a field of another kind", filter{field: "o", value: "1"}, message, "", false},
		{"value of a field that is not there", filter{field: "b", value: "1"}, message, "", false},
		{"kept as they are", filter{keep: list{"id", "o", "absent"}}, message, `{"id":12345678901234567890,"o":{"k":[1,2]}}`, false},
		{"nothing to keep", filter{keep: list{"absent"}}, message, `{}`, false},
		{"both", filter{field: "a", value: "1", keep: list{"f"}}, message, `{"f":1.50}`, false},
		{"no JSON", filter{field: "a"}, "a=1", "", true},
		{"no object", filter{keep: list{"a"}}, `["a"]`, "", true},
		{"null", filter{field: "a"}, `null`, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := row.filter.check(); err != nil {
				t.Fatal(err)
			}
			out, pass, err := row.filter.apply([]byte(row.body))
			if string(out) != row.want && pass || pass != (row.want != "") || (err != nil) != row.err {
				t.Errorf("%s %v %v", out, pass, err)
			}
		})
	}
}

func TestFillIn(t *testing.T) {
	for addr, want := range map[string]string{
		"http://h/?q=%s":       "http://h/?q=a+%26b%25s",
		"http://h/a%20b?q=%s":  "http://h/a%20b?q=a+%26b%25s",
		"http://h/a%%20b?q=%s": "http://h/a%20b?q=a+%26b%25s",
	} {
		if got := fillIn(addr, []byte("a &b%s")); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	got, err := parseHeaders([]string{"x-one: 1", "Two:2:3"})
	if err != nil || got.Get("X-One") != "1" || got.Get("two") != "2:3" {
		t.Error(got, err)
	}
	for _, bad := range []string{"x", "x:", ": v", ""} {
		if _, err := parseHeaders([]string{bad}); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"topic", "topic-pattern", "channel", "n", "max-in-flight"}
	for word, want := range map[string]string{
		"topik": "topic", "Topic": "topic", "max_in_flight": "max-in-flight", "patern": "", "pattern": "topic-pattern", "x": "", "zzzzzz": "", "": "", "chanel": "channel",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func testPool(mode string, c *clock, addrs ...string) *pool {
	p := newPool(mode, addrs)
	p.now, p.rng = c.now, rand.New(rand.NewPCG(1, 2))
	return p
}

func taken(p *pool, n int) (addrs string) {
	for range n {
		addrs += p.take().addr
	}
	return addrs
}

func TestPoolInTurn(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	p := testPool(modeRoundRobin, c, "a", "b", "c")
	p.put(p.targets[1], 0, errors.New("down"))
	if got := taken(p, 6); got != "abcabc" {
		t.Errorf("round-robin: %s", got)
	}
	p = testPool(modeHostpool, c, "a", "b", "c")
	if got := taken(p, 4); got != "abca" {
		t.Errorf("hostpool: %s", got)
	}
}

func TestPoolLeavesOutWhatFails(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	p := testPool(modeHostpool, c, "a", "b", "c")
	fail := func(i int) { p.put(p.targets[i], 0, errors.New("down")) }
	fail(1)
	if got := taken(p, 4); got != "acac" {
		t.Errorf("b failed: %s", got)
	}
	fail(1) // along with the first: no longer
	c.at = c.at.Add(shunFirst)
	if got := taken(p, 3); got != "abc" {
		t.Errorf("after %s: %s", shunFirst, got)
	}
	fail(1)
	c.at = c.at.Add(shunFirst)
	if got := taken(p, 2); got != "ac" {
		t.Errorf("a second failure has to count for longer: %s", got)
	}
	c.at = c.at.Add(shunFirst)
	p.put(p.targets[1], time.Millisecond, nil)
	fail(1)
	c.at = c.at.Add(shunFirst)
	if got := taken(p, 3); got != "abc" {
		t.Errorf("a success has to be the end of it: %s", got)
	}
	fail(0)
	fail(1)
	fail(2)
	if got := taken(p, 3); got != "abc" {
		t.Errorf("all failed: %s", got)
	}
}

func TestPoolGreedy(t *testing.T) {
	p := testPool(modeGreedy, &clock{time.Unix(1000, 0)}, "a", "b", "c")
	took := map[string]time.Duration{"a": 30 * time.Millisecond, "b": time.Millisecond, "c": 20 * time.Millisecond}
	var chosen [3]int
	for range 10000 {
		target := p.take()
		chosen[target.index]++
		p.put(target, took[target.addr], nil)
	}
	if chosen[1] < 9000 || chosen[0] == 0 || chosen[2] == 0 {
		t.Errorf("chosen %v, want b for most, and the others now and then", chosen)
	}
	took["b"] = time.Second
	for range 2000 {
		target := p.take()
		p.put(target, took[target.addr], nil)
	}
	before := chosen
	for range 1000 {
		target := p.take()
		chosen[target.index]++
		p.put(target, took[target.addr], nil)
	}
	if chosen[1]-before[1] > 100 {
		t.Errorf("b has become slow and is still chosen: %v after %v", chosen, before)
	}
	p.put(p.targets[2], 0, errors.New("down"))
	if got := taken(p, 200); strings.Contains(got, "c") {
		t.Error("what failed is chosen")
	}
}

func TestStatus(t *testing.T) {
	var out bytes.Buffer
	s := newStatuses(4, []string{"x", "y"}, log.New(&out, "", 0))
	for i := range 4 {
		s.all.note(time.Duration(i+1) * time.Millisecond)
		s.each[0].note(time.Second)
	}
	want := "[aggregate]: finished 4 - 99th: 3.00ms - 95th: 3.00ms - avg: 2.50ms\n[x]: finished 4 - 99th: 1000.00ms - 95th: 1000.00ms - avg: 1000.00ms\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	out.Reset()
	s = newStatuses(0, []string{"x"}, log.New(&out, "", 0))
	s.all.note(1)
	s.each[0].note(1)
	if out.Len() > 0 {
		t.Errorf("with 0 it logs %q", &out)
	}
}

func TestSplit(t *testing.T) {
	for _, row := range []struct {
		in        string
		delimiter byte
		want      []string
	}{
		{"a\nb\n", '\n', []string{"a", "b"}},
		{"a\nb", '\n', []string{"a", "b"}},
		{"\n\na\n\n", '\n', []string{"a"}},
		{"one,two,three\n", ',', []string{"one", "two", "three"}},
		{"one\n,two\n,", ',', []string{"one\n", "two\n"}},
		{"a\x00b\x00", 0, []string{"a", "b"}},
		{"", '\n', nil},
		{"\n", ',', nil},
		{strings.Repeat("x", 1<<20) + "\ny", '\n', []string{strings.Repeat("x", 1<<20), "y"}},
	} {
		var got []string
		err := split(iotest.HalfReader(strings.NewReader(row.in)), row.delimiter, func(b []byte) bool { got = append(got, string(b)); return true })
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%.20q by %q: %.40q %v", row.in, row.delimiter, got, err)
		}
	}
	err := split(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc"))), '\n', func([]byte) bool { return true })
	if !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("error of the input: %v", err)
	}
}

func TestPacer(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	p := pacer{interval: 100 * time.Millisecond, now: c.now}
	var sent []time.Duration
	for range 4 {
		wait := p.next()
		c.at = c.at.Add(wait)
		sent = append(sent, c.at.Sub(time.Unix(1000, 0)))
	}
	if want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}; !slices.Equal(sent, want) {
		t.Errorf("sent at %v, want %v", sent, want)
	}
	c.at = c.at.Add(time.Hour) // no more than a second's messages come at once
	free := 0
	for p.next() == 0 {
		free++
	}
	if free != 11 {
		t.Errorf("%d at once after a pause, want 11", free)
	}
	if d := (&pacer{now: c.now}).next(); d != 0 {
		t.Errorf("without a bound it waits %s", d)
	}
}

func TestSleepEnds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	if err := sleep(ctx, 1); err != nil {
		t.Error(err)
	}
	stop()
	if sleep(ctx, time.Hour) == nil || sleep(ctx, 0) == nil {
		t.Error("it does not say that it was ended")
	}
}
