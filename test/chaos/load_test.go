//go:build linux

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

const (
	publishers  = 64
	answerLimit = 10 * time.Second // how long a publisher waits for an answer
	sessionTime = 6 * time.Second  // a publisher then connects anew, at home if it can
)

// topicNames: one partition each, one on each data shard when they are made in
// this order.
var topicNames = []string{"orders", "audit", "mail", "clicks"}

// probe is a topic whose messages nobody counts.
const probe = "probe"

// allTopics are those that the cluster has.
var allTopics = append(slices.Clip(topicNames), probe)

// load is everybody who talks to the cluster.
type load struct {
	c       *testCluster
	h       *history
	seed    uint64
	lenient bool          // refusals are no fault: there may be no majority
	pace    time.Duration // between two publishes of a publisher

	publishing, consuming sync.WaitGroup
	stop, leave           chan struct{}
}

// newLoad makes topics and channels. Each topic has two channels that are
// consumed on all nodes, and one that keeps everything.
func newLoad(c *testCluster, seed uint64) (*load, error) {
	l := &load{c: c, h: c.history, seed: seed, pace: 60 * time.Millisecond, stop: make(chan struct{}), leave: make(chan struct{})}
	for topic, name := range allTopics {
		paths := []string{"/topic/create?topic=" + name}
		for _, channel := range []string{"work", "copy", archive} {
			paths = append(paths, "/channel/create?topic="+name+"&channel="+channel)
		}
		for _, path := range paths {
			m := c.members[topic%members]
			if status, text, err := m.Post(path, nil); err != nil || status != 200 {
				return nil, fmt.Errorf("POST %s on node %s: %d %s %w", path, m.host.name, status, text, err)
			}
		}
	}
	return l, nil
}

// archive is the channel that nobody consumes: no message is ever finished, so
// every replica must hold all.
const archive = "archive"

// begin starts consumers and publishers.
func (l *load) begin() {
	for topic := range topicNames {
		work := l.h.addChannel(topic, "work")
		work.shared = true
		for _, m := range l.c.members {
			one := &consumer{load: l, channel: work, at: m}
			l.consuming.Go(one.run)
		}
		alone := &consumer{load: l, channel: l.h.addChannel(topic, "copy"), at: l.c.members[topic%len(l.c.members)], roams: true}
		l.consuming.Go(alone.run)
	}
	for i := range publishers {
		p := newPublisher(l, i)
		l.publishing.Go(p.run)
	}
}

// end stops the publishers and waits for their last answers.
func (l *load) end() {
	close(l.stop)
	l.publishing.Wait()
	l.h.mark("publishers have ended")
}

// leaveAll ends the consumers.
func (l *load) leaveAll() {
	close(l.leave)
	l.consuming.Wait()
}

func (l *load) ended(which chan struct{}) bool {
	select {
	case <-which:
		return true
	default:
		return false
	}
}

// rest waits, or less when the load ends.
func (l *load) rest(d time.Duration) {
	select {
	case <-l.stop:
	case <-time.After(d):
	}
}

// --- publishers

// publish is one publish on its way, or to be sent again.
type publish struct {
	messages, sizes []int32
	first           rig.Number // of the attempts
	sent            instant
}

// publisher publishes to one topic, through the node it is at home or the next
// one that answers.
type publisher struct {
	load     *load
	index    int
	topic    int
	home     int
	pipeline int  // publishes without an answer yet; 1: waits for each
	http     bool // uses nsqd's HTTP API
	stubborn bool // never leaves home
	rng      *rand.Rand
	next     int32     // number of the next message
	session  uint32    // number of the connection
	again    []publish // outcome unknown: to be sent again, in order
}

func newPublisher(l *load, index int) *publisher {
	p := &publisher{
		load: l, index: index, topic: index % len(topicNames), home: index / len(topicNames) % members, pipeline: 1,
		rng: rand.New(rand.NewPCG(l.seed, uint64(index))), stubborn: index%16 == 7,
	}
	switch index / (len(topicNames) * members) % 5 {
	case 0:
		p.pipeline = 16
	case 1:
		p.pipeline = 4
	case 4:
		p.http = true
	}
	return p
}

// run publishes until the load ends.
func (p *publisher) run() {
	at := p.home
	for !p.load.ended(p.load.stop) {
		m := p.load.c.members[at]
		var err error
		if p.http {
			err = p.runHTTP(m)
		} else {
			err = p.runTCP(m)
		}
		if err == nil {
			at = p.home
			continue
		}
		if !p.stubborn {
			at = (at + 1) % members
		}
		p.load.rest(50 * time.Millisecond)
	}
}

// draw is the next publish: one whose outcome is unknown, or a new one.
func (p *publisher) draw() publish {
	if len(p.again) > 0 {
		next := p.again[0]
		p.again = p.again[1:]
		return next
	}
	count := 1
	if p.rng.IntN(4) == 0 {
		count += p.rng.IntN(8)
	}
	var next publish
	for range count {
		next.messages = append(next.messages, p.next)
		next.sizes = append(next.sizes, int32(rig.BodyMin+p.rng.IntN(600)))
		p.next++
	}
	return next
}

// begin writes down that the publish is about to be written.
func (p *publisher) begin(next *publish) {
	next.sent = p.load.h.now()
	next.first = p.load.h.send(p.index, p.topic, p.session, next.messages, next.sizes)
}

// bodies of the publish.
func (next *publish) bodies() (all [][]byte) {
	for i, size := range next.sizes {
		all = append(all, rig.Body(next.first+rig.Number(i), int(size)))
	}
	return all
}

// lost puts publishes without a good answer back, to be sent again before
// anything else. It is a fault unless the node was in trouble since.
func (p *publisher) lost(m *member, since instant, why error, all ...publish) {
	for _, one := range all {
		p.load.h.giveUp(one.first, len(one.messages))
	}
	if len(all) > 0 && !p.load.lenient && !m.excused(since) {
		p.load.h.refused(all[0].first, "publisher %d at node %s, which nothing had happened to: %v", p.index, m.host.name, why)
	}
	p.again = append(all, p.again...)
}

var (
	// errDone ends a consumer's session.
	errDone = errors.New("session is over")
	// errAnswer is in the chain of the error of a publish that the node has
	// refused, or has not answered.
	errAnswer = errors.New("answer")
)

func (p *publisher) runTCP(m *member) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := m.host.dial(ctx, "tcp", m.Addrs.TCP)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(answerLimit)) // a stopped process accepts and says nothing
	w, err := rig.Hello(conn, fmt.Sprintf("publisher-%d", p.index), 0)
	if err != nil {
		return err
	}
	defer w.Close()
	conn.SetDeadline(time.Time{})
	p.session++
	since := p.load.h.now()
	waiting, free := make(chan publish, p.pipeline), make(chan struct{}, p.pipeline)
	for range p.pipeline {
		free <- struct{}{}
	}
	failed := make(chan struct{})
	var lost []publish
	var cause error
	var reader sync.WaitGroup
	reader.Go(func() { lost, cause = p.answers(w, waiting, free, failed) })
	p.writes(w, waiting, free, failed)
	close(waiting)
	reader.Wait()
	if cause != nil {
		// a connection may have ended while nothing was asked of it
		if errors.Is(cause, errAnswer) && len(lost) > 0 {
			since = lost[0].sent
		}
		p.lost(m, since, cause, lost...)
	}
	return cause
}

// writes publishes until the session is long enough, fails, or the load ends.
// free has a place for each publish that may be without an answer.
func (p *publisher) writes(w *rig.Wire, waiting chan<- publish, free, failed <-chan struct{}) {
	until := time.Now().Add(sessionTime/2 + time.Duration(p.rng.Int64N(int64(sessionTime))))
	for time.Now().Before(until) && !p.load.ended(p.load.stop) {
		select {
		case <-free:
		case <-failed:
			return
		}
		next := p.draw()
		p.begin(&next)
		if bodies := next.bodies(); len(bodies) > 1 {
			fmt.Fprintf(w.W, "MPUB %s\n", topicNames[p.topic])
			w.Sized(rig.Multi(bodies...))
		} else {
			fmt.Fprintf(w.W, "PUB %s\n", topicNames[p.topic])
			w.Sized(bodies[0])
		}
		w.Conn.SetWriteDeadline(time.Now().Add(answerLimit))
		w.W.Flush()                      // the reader meets the error
		waiting <- next                  // has room: it is as large as free
		if p.rng.IntN(p.pipeline) == 0 { // ahead by a burst
			p.load.rest(time.Duration(p.pipeline) * time.Duration(p.rng.Int64N(int64(2*p.load.pace))))
		}
	}
}

// answers reads one answer for each publish, until one fails; it returns those
// without a good one.
func (p *publisher) answers(w *rig.Wire, waiting <-chan publish, free chan<- struct{}, failed chan<- struct{}) (lost []publish, cause error) {
	for next := range waiting {
		if cause == nil {
			w.Conn.SetReadDeadline(time.Now().Add(answerLimit))
			if cause = answered(w); cause == nil {
				p.load.h.acknowledge(next.first, len(next.messages))
				free <- struct{}{}
				continue
			}
			close(failed)
			w.Close() // a writer that is stuck in a full socket must end too
		}
		lost = append(lost, next)
	}
	return lost, cause
}

// answered reads one answer; only OK is no error.
func answered(w *rig.Wire) error {
	for {
		kind, data, err := w.Read()
		switch {
		case err != nil:
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				return fmt.Errorf("%w: nothing within %s", errAnswer, answerLimit)
			}
			return err
		case kind == rig.FrameResponse && string(data) == rig.Heartbeat:
		case kind == rig.FrameResponse && string(data) == "OK":
			return nil
		default:
			return fmt.Errorf("%w: %q", errAnswer, data)
		}
	}
}

func (p *publisher) runHTTP(m *member) error {
	client := &http.Client{Timeout: answerLimit, Transport: &http.Transport{DialContext: m.host.dial}}
	defer client.CloseIdleConnections()
	p.session++
	until := time.Now().Add(sessionTime)
	for time.Now().Before(until) && !p.load.ended(p.load.stop) {
		next := p.draw()
		p.begin(&next)
		path, body := "/pub?topic=", next.bodies()[0]
		if len(next.sizes) > 1 {
			path, body = "/mpub?binary=true&topic=", rig.Multi(next.bodies()...)
		}
		if err := post(client, "http://"+m.Addrs.HTTP+path+topicNames[p.topic], body); err != nil {
			p.lost(m, next.sent, err, next)
			return err
		}
		p.load.h.acknowledge(next.first, len(next.messages))
		p.load.rest(time.Duration(p.rng.Int64N(int64(2 * p.load.pace))))
	}
	return nil
}

func post(client *http.Client, url string, body []byte) error {
	resp, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || string(text) != "OK") {
		err = fmt.Errorf("answer %d %q", resp.StatusCode, text)
	}
	return err
}

// --- consumers

// consumer is connected to one node for one channel, whenever that is possible,
// and finishes everything at once.
type consumer struct {
	load    *load
	channel *channelLog
	at      *member
	roams   bool // to another node, when a session has ended
}

func (c *consumer) run() {
	for !c.load.ended(c.load.leave) {
		err := c.session()
		if all := c.load.c.members; c.roams {
			c.at = all[(slices.Index(all, c.at)+1)%len(all)]
		}
		if err != nil {
			select {
			case <-c.load.leave:
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// session is one connection from its beginning to its end.
func (c *consumer) session() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := c.at.host.dial(ctx, "tcp", c.at.Addrs.TCP)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // the end of the test ends a read
		select {
		case <-c.load.leave:
			conn.Close()
		case <-over:
		}
	}()
	conn.SetDeadline(time.Now().Add(answerLimit))
	w, err := rig.Hello(conn, "consumer-"+c.channel.name, 0)
	if err != nil {
		return err
	}
	defer w.Close()
	topic := topicNames[c.channel.topic]
	if err := w.Subscribe(topic, c.channel.name, 500); err != nil {
		if strings.Contains(err.Error(), "server says") {
			c.load.h.mark("consumer of %s/%s at node %s: %v", topic, c.channel.name, c.at.host.name, err)
		}
		return err
	}
	conn.SetDeadline(time.Time{})
	names := make(map[string]rig.Number)
	defer func() { c.load.h.unsure(c.channel, names) }()
	return c.consume(w, names)
}

// consume finishes what comes until the connection ends; names are, by id, the
// messages that were finished here.
func (c *consumer) consume(w *rig.Wire, names map[string]rig.Number) error {
	for {
		kind, data, err := w.Read()
		if err != nil {
			return err
		}
		switch kind {
		case rig.FrameResponse:
			if string(data) == rig.Heartbeat {
				w.W.WriteString("NOP\n")
			}
		case rig.FrameError:
			words := strings.Fields(string(data)) // E_FIN_FAILED FIN <id> failed ...
			if len(words) < 3 || words[0] != "E_FIN_FAILED" {
				c.load.h.mark("consumer of %s/%s at node %s: %s", topicNames[c.channel.topic], c.channel.name, c.at.host.name, data)
				return errDone
			}
			c.load.h.unfinish(c.channel, names[words[2]])
		case rig.FrameMessage:
			d, err := rig.ParseMessage(data)
			if err != nil {
				return err
			}
			m, err := c.load.h.deliver(c.channel, d)
			if err != nil {
				return err
			}
			names[string(d.ID[:])] = m
			c.load.h.finish(c.channel, m)
			fmt.Fprintf(w.W, "FIN %s\n", d.ID[:])
		}
		if w.R.Buffered() == 0 {
			if err := w.W.Flush(); err != nil {
				return err
			}
		}
	}
}
