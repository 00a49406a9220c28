//go:build linux

package kill

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/test/rig"
)

// msgTimeout is what the consumers ask for. They answer well before it or not
// at all.
const msgTimeout = 1500 * time.Millisecond

// sentAnswer is a FIN or REQ in the order of the wire.
type sentAnswer struct {
	m    rig.Number
	id   [16]byte
	kind uint8
	at   instant
}

// sample is what /stats said of a consumer, and when it had said so.
type sample struct {
	at                 instant
	finished, requeued int64
}

// consumer is one connection that consumes a channel through one life.
type consumer struct {
	ledger   *ledger
	channel  *channelLog
	clientID string
	wire     *rig.Wire
	rng      *rand.Rand // the reader's

	mu      sync.Mutex // held around a write to the wire; before the ledger's lock
	answers []sentAnswer
	closed  bool

	seen    sync.Mutex // after every other lock
	failed  map[[16]byte]bool
	samples []sample
}

// consume opens the subscription.
func consume(l *ledger, ch *channelLog, addr, clientID string, rdy int, seed uint64) (*consumer, error) {
	w, err := rig.Dial(addr, clientID, msgTimeout)
	if err != nil {
		return nil, err
	}
	if err := w.Subscribe(l.topics[ch.topic], ch.name, rdy); err != nil {
		w.Close()
		return nil, err
	}
	return &consumer{
		ledger: l, channel: ch, clientID: clientID, wire: w,
		rng: rand.New(rand.NewPCG(seed, 7)), failed: make(map[[16]byte]bool),
	}, nil
}

// run consumes until the connection ends, which is how every life ends.
func (c *consumer) run() {
	defer c.close()
	for {
		kind, data, err := c.wire.Read()
		if err != nil {
			return
		}
		switch kind {
		case rig.FrameResponse:
			if string(data) == rig.Heartbeat {
				c.write(func() { c.wire.W.WriteString("NOP\n") })
			}
		case rig.FrameError:
			c.refused(string(data))
		case rig.FrameMessage:
			if !c.message(data) {
				return
			}
		}
		if c.wire.R.Buffered() == 0 {
			c.write(func() { c.wire.W.Flush() })
		}
	}
}

// write runs do with the writer, unless the connection is closed.
func (c *consumer) write(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		do()
	}
}

// close ends the connection; answers that were put off are not sent any more.
func (c *consumer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.wire.Close()
}

// refused notes an answer that the server did not accept.
func (c *consumer) refused(text string) {
	words := strings.Fields(text) // E_FIN_FAILED FIN <id> failed ...
	if len(words) < 3 || len(words[2]) != 16 {
		c.ledger.mu.Lock()
		c.ledger.violate("refused", 0, "consumer %s: %s", c.clientID, text)
		c.ledger.mu.Unlock()
		return
	}
	c.seen.Lock()
	defer c.seen.Unlock()
	c.failed[[16]byte([]byte(words[2]))] = true
}

func (c *consumer) hasFailed(id [16]byte) bool {
	c.seen.Lock()
	defer c.seen.Unlock()
	return c.failed[id]
}

// message answers a delivery: by its seed the consumer finishes at once or
// later, requeues at once or with a delay, or forgets it until it times out.
func (c *consumer) message(data []byte) bool {
	d, err := rig.ParseMessage(data)
	if err != nil {
		return false
	}
	m, err := c.ledger.deliver(c.channel, c, d)
	if err != nil {
		return false
	}
	roll := c.rng.IntN(1000)
	if d.Attempts > 3 || c.ledger.isCalm() {
		roll = 0
	}
	switch {
	case roll < 880:
		c.finish(m, d.ID, false)
	case roll < 940:
		wait := time.Duration(c.rng.IntN(300)) * time.Millisecond
		time.AfterFunc(wait, func() { c.finish(m, d.ID, true) })
	case roll < 965:
		c.requeue(m, d.ID, 0)
	case roll < 990:
		c.requeue(m, d.ID, time.Duration(20+c.rng.IntN(1200))*time.Millisecond)
	}
	return true
}

func (c *consumer) finish(m rig.Number, id [16]byte, flush bool) {
	c.write(func() {
		at := c.ledger.answer(c.channel, m, finished, 0)
		c.answers = append(c.answers, sentAnswer{m, id, finished, at})
		fmt.Fprintf(c.wire.W, "FIN %s\n", id[:])
		if flush {
			c.wire.W.Flush()
		}
	})
}

func (c *consumer) requeue(m rig.Number, id [16]byte, delay time.Duration) {
	c.write(func() {
		at := c.ledger.answer(c.channel, m, requeued, delay)
		c.answers = append(c.answers, sentAnswer{m, id, requeued, at})
		fmt.Fprintf(c.wire.W, "REQ %s %d\n", id[:], delay.Milliseconds())
	})
}

// sampled notes what /stats says of this consumer.
func (c *consumer) sampled(at instant, s rig.ClientStats) {
	c.seen.Lock()
	defer c.seen.Unlock()
	c.samples = append(c.samples, sample{at, s.Finished, s.Requeued})
}

// counted returns the answers that the server had dealt with, successfully, by
// the given time.
func (c *consumer) counted(by instant) []sentAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Lock()
	defer c.seen.Unlock()
	var fins, reqs int64
	for _, s := range c.samples {
		if s.at <= by {
			fins, reqs = max(fins, s.finished), max(reqs, s.requeued)
		}
	}
	var sure []sentAnswer
	for _, a := range c.answers {
		left := &fins
		if a.kind == requeued {
			left = &reqs
		}
		if *left > 0 && !c.failed[a.id] {
			sure = append(sure, a)
		}
		*left--
	}
	return sure
}

// stockConsumer is go-nsq's consumer: a member of a channel that finishes all.
type stockConsumer struct {
	*nsq.Consumer
}

func consumeStock(l *ledger, ch *channelLog, addr, clientID string, inFlight int) (*stockConsumer, error) {
	cfg := nsq.NewConfig()
	cfg.ClientID, cfg.MsgTimeout, cfg.MaxInFlight = clientID, msgTimeout, inFlight
	c, err := nsq.NewConsumer(l.topics[ch.topic], ch.name, cfg)
	if err != nil {
		return nil, err
	}
	c.SetLogger(nil, nsq.LogLevelMax)
	c.AddHandler(nsq.HandlerFunc(func(msg *nsq.Message) error {
		d := rig.Delivered{Timestamp: msg.Timestamp, Attempts: msg.Attempts, ID: msg.ID, Body: msg.Body}
		m, err := l.deliver(ch, nil, d)
		if err == nil {
			l.answer(ch, m, finished, 0)
		}
		return err
	}))
	if err := c.ConnectToNSQD(addr); err != nil {
		return nil, fmt.Errorf("go-nsq: %w", err)
	}
	return &stockConsumer{c}, nil
}

// run waits for the end of the connection.
func (c *stockConsumer) end() {
	c.Stop()
	select {
	case <-c.StopChan:
	case <-time.After(rig.Patience):
	}
}
