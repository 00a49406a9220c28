//go:build linux

package chaos

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// team is consumers of one channel that stay connected to their nodes, and what
// they have seen of each message.
type team struct {
	t       *testing.T
	c       *testCluster
	topic   string
	channel string

	mu       sync.Mutex
	seen     map[uint32]*sighting
	workers  []*worker
	problems []string
}

// sighting is what the team knows of one message.
type sighting struct {
	times    int
	attempts uint16
	by       *worker // who holds it; nil: nobody
	life     int     // the connection it holds it on
	until    time.Time
	finished time.Time
}

// worker is a consumer at one node.
type worker struct {
	team    *team
	name    string
	at      *member
	rdy     int
	timeout time.Duration
	// handle is called for each message, by whoever reads.
	handle func(w *worker, m *message)

	mu       sync.Mutex // guards the writer and the rest
	wire     *rig.Wire
	life     int
	holds    int
	finished int
	failures []string
	gone     chan struct{}
	done     sync.WaitGroup
}

// message is one delivery.
type message struct {
	n        uint32
	id       [16]byte
	attempts uint16
	life     int
	at       time.Time
}

// newTeam is a team without anybody.
func newTeam(t *testing.T, c *testCluster, topic, channel string) *team {
	return &team{t: t, c: c, topic: topic, channel: channel, seen: make(map[uint32]*sighting)}
}

// problem notes what must not be. x.mu is held.
func (x *team) problem(format string, args ...any) {
	if len(x.problems) < 50 {
		x.problems = append(x.problems, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	}
}

// add starts a consumer, and waits until it is subscribed.
func (x *team) add(at *member, rdy int, timeout time.Duration, handle func(*worker, *message)) *worker {
	x.mu.Lock()
	w := &worker{team: x, name: fmt.Sprintf("%s.%d@%s", x.channel, len(x.workers), at.host.name), at: at, rdy: rdy, timeout: timeout, handle: handle, gone: make(chan struct{})}
	x.workers = append(x.workers, w)
	x.mu.Unlock()
	first := make(chan struct{})
	w.done.Go(func() {
		for {
			wire, err := w.connect()
			if err == nil {
				if first != nil {
					close(first)
					first = nil
				}
				w.read(wire)
			}
			select {
			case <-w.gone:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	select {
	case <-first:
	case <-time.After(rig.Patience):
		x.t.Errorf("%s is not subscribed", w.name)
	}
	return w
}

// connect is one connection, subscribed.
func (w *worker) connect() (*rig.Wire, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := w.at.host.dial(ctx, "tcp", w.at.Addrs.TCP)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(answerLimit))
	wire, err := rig.Hello(conn, w.name, w.timeout)
	if err != nil {
		return nil, err
	}
	if err := wire.Subscribe(w.team.topic, w.team.channel, w.rdy); err != nil {
		w.mu.Lock()
		w.failures = append(w.failures, err.Error())
		w.mu.Unlock()
		wire.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.gone:
		wire.Close()
	default:
	}
	w.wire = wire
	w.life++
	w.holds = 0
	return wire, nil
}

// read has messages handled until the connection ends.
func (w *worker) read(wire *rig.Wire) {
	defer func() {
		wire.Close()
		x := w.team
		x.mu.Lock()
		w.mu.Lock()
		w.wire = nil
		w.mu.Unlock()
		for _, s := range x.seen {
			if s.by == w && s.life == w.life {
				s.by = nil
			}
		}
		x.mu.Unlock()
	}()
	for {
		kind, data, err := wire.Read()
		if err != nil {
			return
		}
		switch kind {
		case rig.FrameResponse:
			if string(data) == rig.Heartbeat {
				w.say("NOP\n")
			}
		case rig.FrameError:
			w.mu.Lock()
			w.failures = append(w.failures, string(data))
			w.mu.Unlock()
		case rig.FrameMessage:
			d, err := rig.ParseMessage(data)
			if err != nil {
				return
			}
			m := &message{n: binary.BigEndian.Uint32(d.Body), id: d.ID, attempts: d.Attempts, life: w.life, at: time.Now()}
			w.took(m)
			w.handle(w, m)
		}
	}
}

// took checks one delivery.
func (w *worker) took(m *message) {
	x := w.team
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.seen[m.n]
	if s == nil {
		s = &sighting{}
		x.seen[m.n] = s
	}
	s.times++
	if !s.finished.IsZero() {
		x.problem("message %d comes to %s %s after its FIN, attempts %d", m.n, w.name, time.Since(s.finished), m.attempts)
	} else if s.by != nil && m.at.Before(s.until.Add(-20*time.Millisecond)) {
		x.problem("message %d, attempts %d, comes to %s while %s holds it for %s more", m.n, m.attempts, w.name, s.by.name, s.until.Sub(m.at))
	}
	if m.attempts < s.attempts {
		x.problem("message %d: attempts %d after %d", m.n, m.attempts, s.attempts)
	}
	timeout := w.timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	s.by, s.life, s.until, s.attempts = w, m.life, m.at.Add(timeout), m.attempts
	w.mu.Lock()
	w.holds++
	if w.holds > w.rdy {
		x.problem("%s holds %d with RDY %d", w.name, w.holds, w.rdy)
	}
	w.mu.Unlock()
}

// say writes to the node.
func (w *worker) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wire != nil {
		fmt.Fprintf(w.wire.W, format, args...)
		w.wire.W.Flush()
	}
}

// answer sends FIN or REQ for a message, and forgets that it holds it.
func (w *worker) answer(m *message, finish bool, line string) {
	x := w.team
	x.mu.Lock()
	defer x.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.life != m.life || w.wire == nil {
		return
	}
	s := x.seen[m.n]
	w.holds--
	if s.by == w && s.life == m.life {
		s.by = nil
	}
	if finish {
		s.finished = time.Now()
		w.finished++
	}
	if _, err := w.wire.Conn.Write([]byte(line)); err != nil { // nobody has heard it
		s.finished = time.Time{}
	}
}

// fin finishes a message, req sends it back.
func (w *worker) fin(m *message) { w.answer(m, true, fmt.Sprintf("FIN %s\n", m.id[:])) }

func (w *worker) req(m *message, d time.Duration) {
	w.answer(m, false, fmt.Sprintf("REQ %s %d\n", m.id[:], d.Milliseconds()))
}

// leave ends a consumer, if that is not done.
func (w *worker) leave() {
	select {
	case <-w.gone:
		return
	default:
		close(w.gone)
	}
	w.mu.Lock()
	if w.wire != nil {
		w.wire.Close()
		w.wire = nil
	}
	w.mu.Unlock()
	w.done.Wait()
}

// leave ends all of the team.
func (x *team) leave() {
	for _, w := range x.workers {
		w.leave()
	}
}

// finishAtOnce and the others are what consumers do.
func finishAtOnce(w *worker, m *message) { w.fin(m) }

func finishAfter(d time.Duration) func(*worker, *message) {
	return func(w *worker, m *message) { time.AfterFunc(d, func() { w.fin(m) }) }
}

// count is how many messages were finished, and how many seen.
func (x *team) count() (finished, seen int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.seen {
		if !s.finished.IsZero() {
			finished++
		}
	}
	return finished, len(x.seen)
}

// numbered are bodies that name messages.
func numbered(from, n, size int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = make([]byte, max(size, 4))
		binary.BigEndian.PutUint32(all[i], uint32(from+i))
	}
	return all
}

// publishNumbered publishes messages from..from+n-1 at a node.
func publishNumbered(t *testing.T, m *member, topic string, from, n, size int) {
	t.Helper()
	for n > 0 {
		k := min(n, 1000)
		m.MustPost(t, "/mpub?binary=true&topic="+topic, rig.Multi(numbered(from, k, size)...))
		from, n = from+k, n-k
	}
}

// sums adds up what all nodes say of a channel.
func (c *testCluster) sums(topic, channel string) (sum rig.ChannelStats, each string, err error) {
	for _, m := range c.members {
		if m.Cmd == nil || !m.Alive() {
			continue
		}
		s, err := m.Channel(topic, channel)
		if err != nil {
			return sum, each, err
		}
		if s == nil {
			continue
		}
		sum.Depth += s.Depth
		sum.InFlight += s.InFlight
		sum.Deferred += s.Deferred
		each += fmt.Sprintf(" %s: depth %d in flight %d deferred %d;", m.host.name, s.Depth, s.InFlight, s.Deferred)
	}
	return sum, each, nil
}

// transfer hands a shard to a node.
func (c *testCluster) transfer(t *testing.T, shard int, to *member) {
	t.Helper()
	args := append(to.host.through()[1:], to.Bin, "cluster", "transfer", "--shard", fmt.Sprint(shard), "--to", to.host.name)
	if out, code := rig.Command(t, "ip", args...); code != 0 {
		t.Errorf("transfer shard %d to %s: %s", shard, to.host.name, out)
	}
}

// report fails the test if anything was wrong.
func (x *team) report(t *testing.T) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.workers {
		w.mu.Lock()
		if len(w.failures) > 0 {
			t.Logf("%s: %d failures: %s", w.name, len(w.failures), strings.Join(w.failures[:min(5, len(w.failures))], "; "))
		}
		w.mu.Unlock()
	}
	if len(x.problems) > 0 {
		t.Errorf("%d problems:\n%s", len(x.problems), strings.Join(x.problems, "\n"))
	}
}
