//go:build linux

package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/test/rig"
)

// What consumers may feel of a leader's death.
const (
	gapMax  = 5 * time.Second
	gapMany = 10 * time.Second // until the last of many has a message again
)

// consumer notes when it was given which number.
type consumer struct {
	name string

	mu   sync.Mutex
	seen map[int]int
	most int // highest number
	last time.Time
	idle time.Duration // the longest time without a message since gap was asked
}

func (c *consumer) took(body []byte) {
	n, err := strconv.Atoi(string(body))
	if err != nil {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = max(c.idle, now.Sub(c.last))
	c.most = max(c.most, n)
	c.seen[n]++
	c.last = now
}

// gap is the longest time without a message since it was asked for last, the time
// since the last message included.
func (c *consumer) gap() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := max(c.idle, time.Since(c.last))
	c.idle = 0
	return idle
}

// highest is the highest number that has come.
func (c *consumer) highest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most
}

// latest is when the last message came.
func (c *consumer) latest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// missing is how many of the first n numbers it has not seen, and how many came more
// than once.
func (c *consumer) missing(n int) (missing, again int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		switch c.seen[i] {
		case 0:
			missing++
		case 1:
		default:
			again++
		}
	}
	return missing, again
}

func newConsumer(name string) *consumer {
	return &consumer{name: name, seen: make(map[int]int), last: time.Now()}
}

// goNSQ is a stock consumer of go-nsq: by lookup, or by the address of node a.
func (c *testCluster) goNSQ(topic, name string, byLookup bool) *consumer {
	c.t.Helper()
	x := newConsumer(name)
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = 10
	q, err := nsq.NewConsumer(topic, name, cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	q.SetLogger(log.New(io.Discard, "", 0), nsq.LogLevelError)
	q.AddHandler(nsq.HandlerFunc(func(m *nsq.Message) error { x.took(m.Body); return nil }))
	if byLookup {
		err = q.ConnectToNSQLookupds([]string{lookup(0), lookup(1), lookup(2)})
	} else {
		err = q.ConnectToNSQD(c.nodes[0].Addrs.TCP)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(q.Stop)
	return x
}

// nsqJS is the same of nsqjs.
func (c *testCluster) nsqJS(topic, name string, byLookup bool) *consumer {
	c.t.Helper()
	x := newConsumer(name)
	by, where := "nsqd", c.nodes[0].Addrs.TCP
	if byLookup {
		by, where = "lookup", strings.Join([]string{lookup(0), lookup(1), lookup(2)}, ",")
	}
	cmd := exec.Command("node", "reader.js", topic, name, by, where)
	cmd.Dir = rig.FromEnv(c.t, "CLIENTS_NSQJS", "test/clients/run")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			x.took(lines.Bytes())
		}
	}()
	return x
}

// all waits until each of the consumers has had a message later than t.
func all(t *testing.T, consumers []*consumer, later time.Time) {
	t.Helper()
	rig.Eventually(t, "all consume", func() (bool, error) {
		waiting := 0
		for _, x := range consumers {
			if !x.latest().After(later) {
				waiting++
			}
		}
		return waiting == 0, fmt.Errorf("%d of %d wait", waiting, len(consumers))
	})
}

// The leader of a topic is killed again and again, while a publisher at another node
// goes on: stock consumers, by lookup or by one address, go on within seconds, and
// miss nothing.
func TestConsumeGap(t *testing.T) {
	c := newCluster(t)
	const topic = "orders"
	c.nodes[0].MustPost(t, "/topic/create?topic="+topic, nil)
	for _, name := range []string{"gonsq-lookup", "gonsq-address", "nsqjs-lookup", "nsqjs-address"} {
		c.nodes[0].MustPost(t, "/channel/create?topic="+topic+"&channel="+name, nil)
	}
	c.leads(1)
	ctx, stop := context.WithCancel(context.Background())
	var published atomic.Int64
	var flow sync.WaitGroup
	flow.Go(func() { c.flow(ctx, topic, 10*time.Millisecond, &published) })
	consumers := []*consumer{
		c.goNSQ(topic, "gonsq-lookup", true), c.goNSQ(topic, "gonsq-address", false),
		c.nsqJS(topic, "nsqjs-lookup", true), c.nsqJS(topic, "nsqjs-address", false),
	}
	all(t, consumers, time.Now())
	kills := number(t, "CLIENTS_KILLS", 2)
	gaps := make(map[string][]time.Duration)
	for i := range kills {
		victim := 1 + i%2
		c.leads(victim)
		all(t, consumers, time.Now())
		for _, x := range consumers {
			x.gap()
		}
		c.nodes[victim].Kill()
		all(t, consumers, time.Now())
		if err := c.nodes[victim].Launch(); err != nil {
			t.Fatal(err)
		}
		served(t, c.nodes[victim])
		all(t, consumers, time.Now())
		for _, x := range consumers {
			gaps[x.name] = append(gaps[x.name], x.gap())
		}
	}
	stop()
	flow.Wait()
	acked := int(published.Load())
	for _, x := range consumers {
		rig.Eventually(t, x.name+" has everything", func() (bool, error) {
			missing, _ := x.missing(acked)
			return missing == 0, fmt.Errorf("%d of %d are missing", missing, acked)
		})
		_, again := x.missing(acked)
		mine := gaps[x.name]
		median, most := rig.Quantile(mine, 0.5), rig.Quantile(mine, 1)
		fmt.Printf("note: %s: %d leaders killed, consume gap median %s max %s, %d messages, %d came again\n",
			x.name, kills, median.Round(10*time.Millisecond), most.Round(10*time.Millisecond), acked, again)
		if most > gapMax {
			slices.Sort(mine)
			t.Errorf("%s: gaps %v: want at most %s", x.name, mine, gapMax)
		}
	}
}

// Many stock consumers, each on a channel of its own, half of them by lookup, go on
// after a leader's death.
func TestManyConsumers(t *testing.T) {
	c := newCluster(t)
	const topic = "events"
	c.nodes[0].MustPost(t, "/topic/create?topic="+topic, nil)
	c.leads(1)
	many := number(t, "CLIENTS_MANY", 100)
	consumers := make([]*consumer, many)
	for i := range consumers {
		consumers[i] = c.goNSQ(topic, fmt.Sprint("c", i), i%2 == 0)
	}
	ctx, stop := context.WithCancel(context.Background())
	var published atomic.Int64
	var flow sync.WaitGroup
	flow.Go(func() { c.flow(ctx, topic, 200*time.Millisecond, &published) })
	defer func() { stop(); flow.Wait() }()
	all(t, consumers, time.Now())
	c.leads(1) // it may have gone back to its preferred leader
	died := time.Now()
	c.nodes[1].Kill()
	next := int(published.Load()) + 1 // that one may have been on its way
	rig.Eventually(t, "all have what was published after the leader's death", func() (bool, error) {
		waiting := 0
		for _, x := range consumers {
			if x.highest() < next {
				waiting++
			}
		}
		return waiting == 0, fmt.Errorf("%d of %d wait", waiting, many)
	})
	took := time.Since(died)
	fmt.Printf("note: %d stock consumers all consume %s after a leader's death\n", many, took.Round(10*time.Millisecond))
	if took > gapMany {
		t.Errorf("it took %s until the last of %d consumers had a message again, want at most %s", took, many, gapMany)
	}
}
