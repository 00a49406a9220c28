package bench

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// small is a workload that takes a moment.
func small(name string) Workload {
	w := defaults(name)
	w.Count, w.Publishers, w.Batch, w.InFlight, w.Channels, w.Size = 400, 1, min(w.Batch, 20), min(w.InFlight, 2), min(w.Channels, 3), 64
	w.Rate, w.Duration, w.Patience = 2000, 200*time.Millisecond, 20*time.Second
	w.Deferred, w.Unfinished, w.Delay = 300, 300, 3700*time.Millisecond
	switch name {
	case "timers":
		w.Count = 100
	case "topics":
		w.Topics = 3
	}
	return w
}

func TestHonestServerPasses(t *testing.T) {
	for _, name := range Names() {
		if name == "memory" || clustered(name) {
			continue // they need servers of their own: TestComparisonOfOurselves, TestCluster
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row, err := Run{Workload: small(name), Target: startFake(t, &fake{}), System: "fake"}.Do(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if row.Failure != "" || row.Verdict != (Verdict{}) {
				t.Errorf("honest server fails: %s %+v", row.Failure, row.Verdict)
			}
			if row.Messages == 0 {
				t.Error("no message counted")
			}
		})
	}
}

func TestDishonestServerFails(t *testing.T) {
	mischief := map[string]struct {
		do   func() func(int, []byte) [][]byte
		want string
		of   func(Verdict) int64
	}{
		"loses":      {func() func(int, []byte) [][]byte { return loses }, "lost", func(v Verdict) int64 { return v.Lost }},
		"duplicates": {func() func(int, []byte) [][]byte { return duplicates }, "twice", func(v Verdict) int64 { return v.Duplicated }},
		"reorders":   {reorders, "order", func(v Verdict) int64 { return v.Reordered }},
		"damages":    {func() func(int, []byte) [][]byte { return damages }, "damaged", func(v Verdict) int64 { return v.Damaged }},
	}
	for _, name := range []string{"publish", "batch", "drain", "fanout", "latency", "ephemeral", "topics"} {
		for what, m := range mischief {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				w, want := small(name), int64(4)
				least := want
				w.Channels = 1
				if name == "topics" { // 600 messages through one, 200 through each of the others
					w.Topics, want, least = 2, 10, 10
				}
				if name == "topics" && what == "reorders" { // the one has two consumers: each may get one of a swapped pair
					least = 4
				}
				if what == "loses" || what == "damages" {
					w.Patience = 2 * time.Second // what does not come is waited for
				}
				row, err := Run{Workload: w, Target: startFake(t, &fake{mischief: m.do()}), System: "fake"}.Do(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got := m.of(row.Verdict); got < least || got > want || !strings.Contains(row.Failure, m.want) {
					t.Errorf("got %q, %+v; want %d to %d messages %s", row.Failure, row.Verdict, least, want, m.want)
				}
			})
		}
	}
}

func TestPromisesExcuse(t *testing.T) {
	w := small("batch")
	for what, c := range map[string]struct {
		mischief func(int, []byte) [][]byte
		promise  Promise
	}{
		"order": {reorders(), Promise{MayReorder: true}},
		"loss":  {loses, Promise{MayLose: true}},
	} {
		w.Patience = time.Second
		row, err := Run{Workload: w, Target: startFake(t, &fake{mischief: c.mischief}), Promise: c.promise}.Do(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if row.Failure != "" || row.Lost+row.Reordered != 4 {
			t.Errorf("%s: got %q, %+v; want it counted and excused", what, row.Failure, row.Verdict)
		}
	}
}

func TestLoadIsAShareOfTheFullRate(t *testing.T) {
	w := small("latency")
	w.Load, w.Batch, w.Rate = 0.1, 20, 0
	row, err := Run{Workload: w, Target: startFake(t, &fake{}), System: "fake"}.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if row.ID != "latency-load-10" || row.Workload.Rate < 100 || row.Failure != "" {
		t.Errorf("%s at %.0f/s: %s", row.ID, row.Workload.Rate, row.Failure)
	}
}

// TestBatchesFitTheLead: publishers that may not send even their first batch
// would wait in vain, and the server be blamed for what was never sent.
func TestBatchesFitTheLead(t *testing.T) {
	for _, name := range []string{"fanout", "ephemeral"} {
		w := defaults(name)
		w.Batch = leadMax/w.Publishers + 1
		if err := w.Check(); err == nil {
			t.Errorf("%s: batches of %d are taken", name, w.Batch)
		}
		w.Batch--
		if err := w.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.Batch, w.Count = 100_000, leadMax // all at once
		if err := w.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusedPublishIsAnError(t *testing.T) {
	for _, name := range []string{"publish", "drain", "fanout", "latency", "topics", "ephemeral"} {
		_, err := Run{Workload: small(name), Target: startFake(t, &fake{failPubs: true})}.Do(t.Context())
		if err == nil || !strings.Contains(err.Error(), "E_PUB_FAILED") {
			t.Errorf("%s: got %v, want the server's error", name, err)
		}
	}
}

func TestMemoryNeedsAServerOfItsOwn(t *testing.T) {
	_, err := Run{Workload: small("memory"), Target: startFake(t, &fake{})}.Do(t.Context())
	if err == nil || !strings.Contains(err.Error(), "starts itself") {
		t.Errorf("got %v", err)
	}
}

func TestClusterWorkloadsNeedACluster(t *testing.T) {
	for _, name := range together() {
		_, err := Run{Workload: small(name), Target: startFake(t, &fake{})}.Do(t.Context())
		if err == nil || !strings.Contains(err.Error(), "for a cluster") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Lookup("W9"); err == nil || !strings.Contains(err.Error(), "cluster-kill") {
		t.Errorf("W9 is one workload: %v", err)
	}
}

func TestCancelEndsARun(t *testing.T) {
	for _, name := range []string{"publish", "drain", "fanout", "latency", "timers", "topics", "ephemeral"} {
		w := small(name)
		w.Count, w.Rate, w.Duration = 1<<20, 1000, time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := Run{Workload: w, Target: startFake(t, &fake{mischief: loses})}.Do(ctx)
		cancel()
		if err == nil {
			t.Errorf("%s: a cancelled run returned no error", name)
		}
	}
}

func TestStallIsALatency(t *testing.T) {
	// The server stops for a while: the messages that were meant to be sent
	// meanwhile carry the wait, though the publisher could not send them.
	stalled := false
	f := &fake{}
	f.mischief = func(n int, body []byte) [][]byte {
		if n == 100 && !stalled {
			stalled = true
			time.Sleep(300 * time.Millisecond) // under the server's lock
		}
		return [][]byte{body}
	}
	w := small("latency")
	w.Rate, w.Duration = 1000, 600*time.Millisecond
	row, err := Run{Workload: w, Target: startFake(t, f)}.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if row.Latency.P99 < 200e3 || row.Latency.Count != 600 {
		t.Errorf("p99 is %.0f us of %d, want the 300 ms of the stall in about half of 600", row.Latency.P99, row.Latency.Count)
	}
}

func TestTopicsAreHeldAgainstOne(t *testing.T) {
	w := small("topics")
	w.Count = 4000
	row, err := Run{Workload: w, Target: startFake(t, &fake{}), System: "fake", Processes: Processes{os.Getpid()}}.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if row.ID != "topics-3" || row.Messages != 4000 || row.Rate <= 0 {
		t.Errorf("%s: %d messages at %.0f/s", row.ID, row.Messages, row.Rate)
	}
	for _, name := range []string{"rate_ratio", "drain_rate_ratio"} {
		if v, ok := row.metric(name); !ok || v <= 0 {
			t.Errorf("%s is %g", name, v)
		}
	}
}

// A topic that gets nothing has nobody to wait for.
func TestMoreTopicsThanBatches(t *testing.T) {
	w := small("topics")
	w.Topics, w.Count = 50, 40 // one batch in a phase
	row, err := Run{Workload: w, Target: startFake(t, &fake{}), System: "fake"}.Do(t.Context())
	if err != nil || row.Failure != "" || row.Messages != 40 {
		t.Errorf("%+v %v", row, err)
	}
}
