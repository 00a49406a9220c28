package importer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/importer"
	"github.com/tidings-io/tidings/internal/nsqdata"
	"github.com/tidings-io/tidings/internal/nsqdata/nsqdatatest"
)

// target is a node, naively: what each channel has to get, and what waits in topics.
type target struct {
	topics map[string]*topic
	calls  int
	fail   func(call int) (before, after error)
}

type topic struct {
	paused   bool
	waiting  []string
	channels map[string]*channel
	sessions map[broker.Session]uint64
}

type channel struct {
	paused bool
	gets   []string
}

func newTarget() *target { return &target{topics: map[string]*topic{}} }

// call does something, unless the test lets it fail.
func (t *target) call(f func() error) error {
	t.calls++
	var before, after error
	if t.fail != nil {
		before, after = t.fail(t.calls)
	}
	if before != nil {
		return before
	}
	err := f()
	if after != nil {
		return after
	}
	return err
}

func (t *target) with(name string, f func(*topic) error) error {
	return t.call(func() error {
		x := t.topics[name]
		if x == nil {
			return fault.TopicNotFound
		}
		return f(x)
	})
}

func (t *target) BeginIngest(_ context.Context, s *broker.IngestStart) error {
	return t.call(func() error {
		x := t.topics[s.Topic]
		if x == nil {
			x = &topic{channels: map[string]*channel{}, sessions: map[broker.Session]uint64{}}
			t.topics[s.Topic] = x
		}
		for _, c := range s.Channels {
			if x.channels[c.Name] == nil {
				x.channels[c.Name] = &channel{gets: slices.Clone(x.waiting)}
			}
			x.channels[c.Name].paused = x.channels[c.Name].paused || c.Paused
		}
		if len(x.channels) > 0 {
			x.waiting = nil
		}
		x.sessions[s.Session] = max(x.sessions[s.Session], 1)
		return nil
	})
}

func (t *target) PauseTopic(_ context.Context, name string, paused bool) error {
	return t.with(name, func(x *topic) error { x.paused = paused; return nil })
}

func (t *target) Ingest(_ context.Context, in *broker.Ingest) error {
	return t.with(in.Topic, func(x *topic) error {
		at := x.sessions[in.Session]
		if in.To <= at {
			return nil
		}
		if in.From != at {
			return fault.OutOfOrder
		}
		x.sessions[in.Session] = in.To
		if in.Handed {
			for _, c := range in.Channels {
				x.channels[c.Name].take(in, c)
			}
			return nil
		}
		for _, m := range in.Messages {
			if x.paused || len(x.channels) == 0 {
				x.waiting = append(x.waiting, string(m.Body))
				continue
			}
			for _, c := range x.channels {
				c.gets = append(c.gets, string(m.Body))
			}
		}
		return nil
	})
}

func (c *channel) take(in *broker.Ingest, x broker.IngestChannel) {
	attempts := map[int64]uint16{}
	for _, a := range x.Attempts {
		attempts[a.Offset] = a.N
	}
	finished := map[int64]bool{}
	for _, r := range x.Finished {
		for o := r.From; o < r.To; o++ {
			finished[o] = true
		}
	}
	for i, m := range in.Messages {
		if !finished[int64(i)] {
			c.gets = append(c.gets, text(string(m.Body), attempts[int64(i)]))
		}
	}
}

func text(body string, attempts uint16) string {
	if attempts > 0 {
		body += fmt.Sprint(" x", attempts)
	}
	return body
}

// facts is all that there is.
func (t *target) facts() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.topics)) {
		x := t.topics[name]
		fmt.Fprintln(&b, name, x.paused, x.waiting)
		for _, c := range slices.Sorted(maps.Keys(x.channels)) {
			fmt.Fprintln(&b, name, c, x.channels[c].paused, x.channels[c].gets)
		}
	}
	return b.String()
}

// folder has different backlogs, files of all kinds, pauses, attempts and damage.
func folder(t *testing.T) *nsqdatatest.Folder {
	f := nsqdatatest.New(t)
	f.Topic("orders", true, "a", "!b", "none")
	a := nsqdatatest.Run(1, 40)
	a[20].Attempts = 3
	f.Queue("orders:a", 300, 11, a...)
	f.Queue("orders:b", 1<<20, 0, append(nsqdatatest.Run(25, 40), nsqdatatest.Run(2, 6)...)...)
	f.Append("orders:b", 0, nsqdatatest.Record(nsqdatatest.Message{N: 1})[:17])
	f.Queue("orders", 200, 2, nsqdatatest.Run(38, 50)...)
	f.Topic("alone", false)
	f.Queue("alone", 1<<20, 0, nsqdatatest.Run(1, 9)...)
	f.Topic("quiet", true, "!x")
	return f
}

// run imports the folder as one process does; the error is the first.
func run(t *testing.T, path string, to *target, lim nsqdata.Limits) (outs []importer.Outcome, err error) {
	t.Helper()
	f, err := nsqdata.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i := importer.New(importer.Options{Target: to, Limits: lim, Patience: time.Minute, Keep: 20})
	for _, topic := range f.Topics {
		s, err := i.Survey(context.Background(), topic)
		if err != nil {
			t.Fatal(err)
		}
		out, err := i.Import(context.Background(), s)
		outs = append(outs, out)
		if err != nil {
			return outs, err
		}
	}
	return outs, nil
}

var small = nsqdata.Limits{Messages: 5, Bytes: 1 << 20}

func TestImport(t *testing.T) {
	f := folder(t)
	before := f.Files()
	to := newTarget()
	outs, err := run(t, f.Path, to, nsqdata.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	line := func(name string, paused bool, ms ...nsqdatatest.Message) {
		var all []string
		for _, m := range ms {
			all = append(all, text(m.Text(), m.Attempts))
		}
		fmt.Fprintln(&want, name, paused, all)
	}
	a := nsqdatatest.Run(12, 40)
	a[9].Attempts = 3
	line("alone", false, nsqdatatest.Run(1, 9)...)
	line("orders", true, nsqdatatest.Run(40, 50)...)
	line("orders a", false, a...)
	line("orders b", true, append(nsqdatatest.Run(25, 40), nsqdatatest.Run(2, 6)...)...)
	line("orders none", false)
	line("quiet", true)
	line("quiet x", true)
	if d := cmp.Diff(want.String(), to.facts()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if want := []importer.Outcome{{Now: 8}, {Now: 42}, {}}; !slices.Equal(outs, want) {
		t.Errorf("outcomes %+v, want %+v", outs, want)
	}
	outs, err = run(t, f.Path, to, small)
	if want := []importer.Outcome{{Before: 8}, {Before: 42}, {}}; err != nil || !slices.Equal(outs, want) {
		t.Errorf("a second time: %+v, %v, want %+v", outs, err, want)
	}
	if !maps.Equal(before, f.Files()) {
		t.Error("the folder has changed")
	}
}

// TestInterruptedTwice: wherever an import ends, once and again, and whether or not
// what it asked for last was done, the next one makes it whole.
func TestInterruptedTwice(t *testing.T) {
	f := folder(t)
	whole := newTarget()
	if _, err := run(t, f.Path, whole, small); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("killed")
	for first := 1; first <= whole.calls; first++ {
		for _, later := range []int{1, 2, 5, 9} {
			for _, done := range []bool{false, true} {
				to := newTarget()
				at := first
				to.fail = func(call int) (before, after error) {
					switch {
					case call != at:
					case done:
						after = lost
					default:
						before = lost
					}
					return before, after
				}
				if _, err := run(t, f.Path, to, small); err == nil {
					t.Fatal("the first one was not interrupted")
				}
				at += later
				_, _ = run(t, f.Path, to, nsqdata.Limits{Messages: 3, Bytes: 1 << 20})
				to.fail = nil
				if _, err := run(t, f.Path, to, nsqdata.Limits{Messages: 7, Bytes: 1 << 20}); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(whole.facts(), to.facts()); d != "" {
					t.Fatalf("interrupted at %d and %d later, done %v (-want +got):\n%s", first, later, done, d)
				}
			}
		}
	}
}

// TestAsksAgain: what a moment later may succeed is tried again, done or not.
func TestAsksAgain(t *testing.T) {
	f := folder(t)
	whole, to := newTarget(), newTarget()
	if _, err := run(t, f.Path, whole, small); err != nil {
		t.Fatal(err)
	}
	to.fail = func(call int) (before, after error) {
		switch call % 5 {
		case 1:
			return fault.Overloaded, nil
		case 3:
			return nil, fault.New(fault.NotLeader, "nothing is known")
		}
		return nil, nil
	}
	if _, err := run(t, f.Path, to, nsqdata.Limits{}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(whole.facts(), to.facts()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestBesideTraffic: a topic that is in use keeps what it has, and what is published
// during the import comes too.
func TestBesideTraffic(t *testing.T) {
	f := nsqdatatest.New(t)
	f.Topic("t", false, "a")
	f.Queue("t:a", 1<<20, 0, nsqdatatest.Run(1, 5)...)
	to := newTarget()
	ctx := context.Background()
	_ = to.BeginIngest(ctx, &broker.IngestStart{Topic: "t", Channels: []broker.IngestNew{{Name: "b"}}})
	to.topics["t"].channels["b"].gets = []string{"old"}
	if _, err := run(t, f.Path, to, nsqdata.Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := to.topics["t"].channels["b"].gets; !slices.Equal(got, []string{"old"}) {
		t.Errorf("a channel that nsqd did not know gets %q", got)
	}
	if got := to.topics["t"].channels["a"].gets; len(got) != 4 {
		t.Errorf("a gets %q", got)
	}
}
