//go:build linux

package kill

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/test/rig"
)

// The figures of the acceptance list. CI runs them small, for what must work;
// test/kill/measure runs them in full and is read by people. Only counts and
// memory beyond one and a half times its limit fail.

// full says whether the sizes of the acceptance list are asked for.
func full() bool { return os.Getenv("KILL_MEASURE") != "" }

// sized returns a size of the acceptance list, or a part of it for CI.
func scale(all, ci int) int {
	if full() {
		return all
	}
	return ci
}

const mb = 1000 * 1000

// fits wants the node's resident memory below one and a half times a limit.
func (n *node) fits(t *testing.T, when string, limit int64) string {
	t.Helper()
	rss, err := n.Memory("VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	peak, err := n.Memory("VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	if rss > limit*3/2 {
		t.Errorf("%s: %d MB resident, the limit is %d MB", when, rss/mb, limit/mb)
	}
	return fmt.Sprintf("RSS %s %d MB (peak %d, limit %d)", when, rss/mb, peak/mb, limit/mb)
}

// diskBytes is what the data folder takes.
func (n *node) diskBytes() int64 {
	var sum int64
	filepath.WalkDir(n.data(), func(path string, d fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && !d.IsDir() && syscall.Stat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

func (n *node) openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// syncFloor is the 99th percentile of fdatasync on the same device.
func syncFloor(t *testing.T, dir string) time.Duration {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	b := make([]byte, 4<<20)
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var all []time.Duration
	for i := range 500 {
		if _, err := f.WriteAt(rig.Filling(4<<10), int64(i)*4<<10); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		all = append(all, time.Since(begin))
	}
	return rig.Quantile(all, 0.99)
}

// feed publishes count messages of 200 bytes in MPUBs of a thousand. Each body
// begins with its number.
func feed(t *testing.T, n *node, topic string, count int) {
	t.Helper()
	w := n.MustDial(t)
	defer w.Close()
	const batch, size = 1000, 200
	var answers sync.WaitGroup
	answers.Go(func() {
		for range (count + batch - 1) / batch {
			if kind, data, err := w.Read(); err != nil || kind != rig.FrameResponse || string(data) != "OK" {
				t.Errorf("publish: %s %v", data, err)
				return
			}
		}
	})
	for i := 0; i < count; i += batch {
		m := min(batch, count-i)
		b := binary.BigEndian.AppendUint32(nil, uint32(m))
		for j := range m {
			b = binary.BigEndian.AppendUint32(b, size)
			b = binary.BigEndian.AppendUint64(b, uint64(i+j))
			b = append(b, rig.Filling(size-8)...)
		}
		fmt.Fprintf(w.W, "MPUB %s\n", topic)
		w.Sized(b)
		if err := w.W.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	answers.Wait()
}

// sink finishes what comes on a channel until the body's number has been seen
// for count messages; hold says which are left unanswered. It returns when the
// first came.
func sink(t *testing.T, n *node, topic, channel string, count int, hold func(uint64) bool) (first time.Time) {
	t.Helper()
	w := n.MustDial(t)
	if err := w.Subscribe(topic, channel, 2500); err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint64]bool, count)
	for len(seen) < count {
		w.Conn.SetReadDeadline(time.Now().Add(rig.Patience))
		kind, data, err := w.Read()
		if err != nil {
			t.Fatalf("%d of %d came: %v", len(seen), count, err)
		}
		if kind == rig.FrameMessage {
			if first.IsZero() {
				first = time.Now()
			}
			d, _ := rig.ParseMessage(data)
			m := binary.BigEndian.Uint64(d.Body)
			seen[m] = true
			if hold == nil || !hold(m) {
				fmt.Fprintf(w.W, "FIN %s\n", d.ID[:])
			}
		} else if string(data) == rig.Heartbeat {
			w.W.WriteString("NOP\n")
		}
		if w.R.Buffered() == 0 {
			w.W.Flush()
		}
	}
	w.W.Flush()
	return first
}

// A backlog lives in files, not in memory, and a start does not depend on it.
func TestBacklog(t *testing.T) {
	count := scale(1_000_000, 150_000)
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	begin := time.Now()
	feed(t, n, "orders", count)
	fed := time.Since(begin)
	memory := n.fits(t, "with the backlog queued", 60*mb)
	disk := n.diskBytes()
	n.Kill()

	n.MustStart(t)
	serves := time.Since(n.Started)
	mustPublish(t, n.MustDial(t), "other", []byte("x"))
	published := time.Since(n.Started)
	begin = time.Now()
	delivered := sink(t, n, "orders", "c", count, nil).Sub(n.Started)
	took := time.Since(begin)
	fmt.Printf("figure: backlog of %d x 200 B: fed in %s, %s, disk %d MB; after kill -9 serves after %s, publish acknowledged after %s, first message after %s (limit 300ms), all of it in %s; %s\n",
		count, fed.Round(time.Millisecond), memory, disk/mb, serves.Round(time.Millisecond), published.Round(time.Millisecond),
		delivered.Round(time.Millisecond), took.Round(time.Millisecond), n.fits(t, "when consumed", 60*mb))
	n.awaitEmpty(t, "orders", "c")
}

// Many small topics.
func TestManyTopics(t *testing.T) {
	count := scale(10_000, 1_000)
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	begin := time.Now()
	manyTopics(t, n, count)
	made := time.Since(begin)
	memory := n.fits(t, "with the topics made", 250*mb)
	files := n.openFiles(t)
	n.Kill()
	n.MustStart(t)
	restart := time.Since(n.Started)
	checkTopics(t, n, count)
	files = max(files, n.openFiles(t))
	if files > 1024 {
		t.Errorf("%d open files, want at most 1,024", files)
	}
	fmt.Printf("figure: %d topics x 2 channels: made in %s, %s, restart %s (limit 2s), %s, at most %d open files\n",
		count, made.Round(time.Millisecond), memory, restart.Round(time.Millisecond), n.fits(t, "after it", 250*mb), files)
	name := fmt.Sprintf("topic-%d", count/2)
	expectBodies(t, n.drain(t, name, "two"), []string{name})
}

func manyTopics(t *testing.T, n *node, count int) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				name := fmt.Sprintf("topic-%d", i)
				for _, path := range []string{
					"/topic/create?topic=" + name, "/channel/create?topic=" + name + "&channel=one",
					"/channel/create?topic=" + name + "&channel=two", "/pub?topic=" + name,
				} {
					if status, text, err := n.Post(path, []byte(name)); err != nil || status != 200 {
						t.Errorf("POST %s: %d %s %v", path, status, text, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

func checkTopics(t *testing.T, n *node, count int) {
	t.Helper()
	s, err := n.Stats("&include_clients=false")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Topics) != count {
		t.Errorf("%d topics after the restart, want %d", len(s.Topics), count)
	}
	for _, topic := range s.Topics {
		if len(topic.Channels) != 2 || topic.Channels[0].Depth != 1 || topic.Channels[1].Depth != 1 {
			t.Errorf("after the restart: %+v", topic)
			return
		}
	}
}

// One message that nobody finishes does not keep what was finished behind it.
func TestMessageNeverFinished(t *testing.T) {
	count := scale(1_000_000, 150_000)
	n := newNode(plainBinary(t), dataDir(t), "--checkpoint-age", "1s")
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	begin := time.Now()
	var feeding sync.WaitGroup
	feeding.Go(func() { feed(t, n, "orders", count) })
	sink(t, n, "orders", "c", count, func(m uint64) bool { return m == 0 })
	feeding.Wait()
	took := time.Since(begin)
	peak := n.diskBytes()
	// What is dead goes two checkpoints later; a checkpoint needs a change.
	settled := settleDisk(t, n)
	c, err := n.Channel("orders", "c")
	if err != nil || c == nil || c.Unfinished() != 1 {
		t.Errorf("want one unfinished message: %+v %v", c, err)
	}
	fmt.Printf("figure: one message never finished, %d behind it in %s: %s, disk %d MB then, %d MB later\n",
		count, took.Round(time.Millisecond), n.fits(t, "then", 60*mb), peak/mb, settled/mb)
	n.Kill()
	n.MustStart(t)
	w := n.MustDial(t)
	if err := w.Subscribe("orders", "c", 10); err != nil {
		t.Fatal(err)
	}
	kind, data, err := w.Read()
	if err != nil || kind != rig.FrameMessage || binary.BigEndian.Uint64(data[26:]) != 0 {
		t.Errorf("the message does not come after a restart: %d %q %v", kind, data, err)
	}
}

// settleDisk goes on with small changes until the data folder shrinks no more.
func settleDisk(t *testing.T, n *node) int64 {
	t.Helper()
	w := n.MustDial(t)
	least, quiet := n.diskBytes(), time.Now()
	rig.Eventually(t, "disk use does not settle", func() (bool, error) {
		for _, topic := range []string{"orders", "a", "b", "c", "d", "e", "f", "g", "h"} {
			if err := w.Publish(topic+"-change", []byte("x")); err != nil {
				return false, err
			}
		}
		if now := n.diskBytes(); now < least*98/100 {
			least, quiet = now, time.Now()
		}
		return time.Since(quiet) > 4*time.Second, nil
	})
	return least
}

// Every tenth message is deferred by an hour.
func TestEveryTenthDeferred(t *testing.T) {
	count := scale(1_000_000, 100_000)
	n := newNode(plainBinary(t), dataDir(t), "--checkpoint-age", "1s")
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	begin := time.Now()
	var feeding sync.WaitGroup
	feeding.Go(func() { feed(t, n, "orders", count*9/10) })
	feeding.Go(func() { deferMany(t, n, "orders", count/10) })
	sink(t, n, "orders", "c", count*9/10, nil)
	feeding.Wait()
	took := time.Since(begin)
	memory, peak := n.fits(t, "then", 60*mb), n.diskBytes()
	settled := settleDisk(t, n)
	deferred := func() {
		t.Helper()
		rig.Eventually(t, "deferred messages are not all there", func() (bool, error) {
			c, err := n.Channel("orders", "c")
			if err != nil || c == nil {
				return false, err
			}
			return c.Deferred == int64(count/10) && c.Depth == 0 && c.InFlight == 0, fmt.Errorf("%+v", *c)
		})
	}
	deferred()
	n.Kill()
	n.MustStart(t)
	restart := time.Since(n.Started)
	deferred()
	fmt.Printf("figure: every tenth of %d deferred by an hour, in %s: %s, disk %d MB then, %d MB later; restart %s, %s\n",
		count, took.Round(time.Millisecond), memory, peak/mb, settled/mb, restart.Round(time.Millisecond), n.fits(t, "after it", 60*mb))
}

// deferMany publishes messages of 200 bytes that are due in an hour.
func deferMany(t *testing.T, n *node, topic string, count int) {
	t.Helper()
	w := n.MustDial(t)
	var answers sync.WaitGroup
	answers.Go(func() {
		for range count {
			if kind, data, err := w.Read(); err != nil || kind != rig.FrameResponse || string(data) != "OK" {
				t.Errorf("deferred publish: %s %v", data, err)
				return
			}
		}
	})
	for range count {
		fmt.Fprintf(w.W, "DPUB %s 3600000\n", topic)
		w.Sized(rig.Filling(200))
	}
	w.W.Flush()
	answers.Wait()
}

// A stock consumer and a stock producer at 200 messages a second.
func TestStockLatency(t *testing.T) {
	count := scale(6000, 400)
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	var mu sync.Mutex
	var all []time.Duration
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = 50
	consumer, err := nsq.NewConsumer("orders", "c", cfg)
	if err != nil {
		t.Fatal(err)
	}
	consumer.SetLogger(nil, nsq.LogLevelMax)
	begin := time.Now()
	consumer.AddHandler(nsq.HandlerFunc(func(m *nsq.Message) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, time.Since(begin)-time.Duration(binary.BigEndian.Uint64(m.Body)))
		return nil
	}))
	if err := consumer.ConnectToNSQD(n.Addrs.TCP); err != nil {
		t.Fatal(err)
	}
	producer, err := nsq.NewProducer(n.Addrs.TCP, cfg)
	if err != nil {
		t.Fatal(err)
	}
	producer.SetLogger(nil, nsq.LogLevelMax)
	tick := time.NewTicker(time.Second / 200)
	defer tick.Stop()
	for range count {
		<-tick.C
		b := make([]byte, 200)
		binary.BigEndian.PutUint64(b, uint64(time.Since(begin)))
		if err := producer.Publish("orders", b); err != nil {
			t.Fatal(err)
		}
	}
	n.awaitEmpty(t, "orders", "c")
	producer.Stop()
	consumer.Stop()
	<-consumer.StopChan
	if len(all) != count {
		t.Errorf("%d of %d messages came", len(all), count)
	}
	fmt.Printf("figure: stock go-nsq at 200 msg/s: p50 %s p99 %s max %s end to end (limit p99 5ms); fdatasync p99 of this disk %s\n",
		rig.Quantile(all, .5), rig.Quantile(all, .99), rig.Quantile(all, 1), syncFloor(t, n.Dir))
}

// Deferred messages on a node with little else to do.
func TestDeferredOnTime(t *testing.T) {
	count := scale(20_000, 2_000)
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	rng := rand.New(rand.NewPCG(1, 1))
	w := n.MustDial(t)
	begin := time.Now()
	due := make([]time.Duration, count) // at the earliest: from before it was sent
	go func() {
		for i := range count {
			delay := time.Duration(rng.IntN(4000)) * time.Millisecond
			due[i] = time.Since(begin) + delay
			fmt.Fprintf(w.W, "DPUB orders %d\n", delay.Milliseconds())
			w.Sized(binary.BigEndian.AppendUint64(nil, uint64(i)))
		}
		w.W.Flush()
	}()
	for range count {
		if _, data, err := w.Read(); err != nil || string(data) != "OK" {
			t.Fatalf("deferred publish: %s %v", data, err)
		}
	}
	// From here on the due times are known, and the node has only these to do.
	start := time.Since(begin)
	c := n.MustDial(t)
	if err := c.Subscribe("orders", "c", 2500); err != nil {
		t.Fatal(err)
	}
	var late []time.Duration
	for range count {
		_, data, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		now := time.Since(begin)
		d, _ := rig.ParseMessage(data)
		i := binary.BigEndian.Uint64(d.Body)
		if now < due[i] {
			t.Errorf("message %d came %s before its time", i, due[i]-now)
		}
		if due[i] > start+200*time.Millisecond {
			late = append(late, now-due[i])
		}
		fmt.Fprintf(c.W, "FIN %s\n", d.ID[:])
		if c.R.Buffered() == 0 {
			c.W.Flush()
		}
	}
	fmt.Printf("figure: %d deferred messages: late p50 %s p99 %s max %s (limit 100ms; counted from before they were sent)\n",
		len(late), rig.Quantile(late, .5), rig.Quantile(late, .99), rig.Quantile(late, 1))
}
