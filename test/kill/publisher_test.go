//go:build linux

package kill

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// publisher publishes through one life; it knows what was acknowledged.
type publisher struct {
	ledger   *ledger
	index    int
	topic    int
	rng      *rand.Rand
	pipeline int  // publishes without an answer yet; 1: waits for each
	http     bool // uses nsqd's HTTP API
	due      time.Time
}

func newPublisher(l *ledger, index, topic int, seed uint64) *publisher {
	p := &publisher{ledger: l, index: index, topic: topic, rng: rand.New(rand.NewPCG(seed, uint64(index))), due: time.Now()}
	switch index % 4 {
	case 0:
		p.pipeline = 32
	case 1:
		p.pipeline = 8
	case 2:
		p.pipeline = 1
	case 3:
		p.pipeline, p.http = 1, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.patient[index] = p.pipeline == 1
	return p
}

// run publishes until the node is gone or the load ends.
func (p *publisher) run(n *node) error {
	if p.http {
		return p.runHTTP(n)
	}
	w, err := rig.Dial(n.Addrs.TCP, fmt.Sprintf("publisher-%d", p.index), 0)
	if err != nil {
		return err
	}
	defer w.Close()
	waiting := make(chan publish, p.pipeline)
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		p.answers(w, waiting)
	}()
	for {
		next, ok := p.next()
		if !ok {
			break
		}
		// the answer's place first: at most pipeline publishes wait
		waiting <- next
		if p.writeTCP(w, next) != nil || w.W.Flush() != nil {
			break
		}
	}
	close(waiting)
	<-answers
	return nil
}

// publish is one publish on its way.
type publish struct {
	plan
	first rig.Number
}

// answers reads one answer for each publish.
func (p *publisher) answers(w *rig.Wire, waiting <-chan publish) {
	for next := range waiting {
		kind, data, err := w.Read()
		for err == nil && kind == rig.FrameResponse && string(data) == rig.Heartbeat {
			kind, data, err = w.Read()
		}
		if err != nil {
			w.Close() // a writer that is stuck in a full socket must end too
			for range waiting {
			}
			return
		}
		refusal := ""
		if kind != rig.FrameResponse || string(data) != "OK" {
			refusal = string(data)
		}
		p.ledger.acknowledge(next.first, len(next.sizes), refusal)
	}
}

// A publisher's pace: bursts as deep as its pipeline, and on average so much
// that two cores which also run the consumers are busy and not swamped. Were
// they swamped, timers would be late for want of a processor.
const (
	pacePublish = 7 * time.Millisecond
	paceBytes   = 1 << 20 // per second
)

// next draws a publish, waits for its time and writes it down.
func (p *publisher) next() (publish, bool) {
	plan := p.draw()
	if p.due = p.due.Add(pacePublish + time.Duration(plan.parcel)*time.Second/paceBytes); time.Until(p.due) > 0 {
		if p.rng.IntN(p.pipeline) == 0 { // ahead by a burst
			select {
			case <-p.ledger.over:
			case <-time.After(time.Until(p.due)):
			}
		}
	}
	first, ok := p.ledger.send(p.index, plan)
	return publish{plan, first}, ok
}

// draw decides what to publish next: singles, batches and deferred messages of
// 10 B to 900 KB, small ones most of the time.
func (p *publisher) draw() plan {
	d := plan{topic: p.topic, sizes: []int{p.size()}}
	switch roll := p.rng.IntN(100); {
	case roll < 40:
	case roll < 55:
		d.delay = time.Duration(10+p.rng.IntN(2500)) * time.Millisecond
	case roll < 99 || p.rng.IntN(4) > 0:
		for range 1 + p.rng.IntN(40) {
			d.sizes = append(d.sizes, rig.BodyMin+p.rng.IntN(400))
		}
	default: // larger than a segment of the log
		for range p.rng.IntN(4) {
			d.sizes = append(d.sizes, rig.BodyMax-p.rng.IntN(1000))
		}
	}
	for _, size := range d.sizes {
		d.parcel += size
	}
	return d
}

func (p *publisher) size() int {
	switch roll := p.rng.IntN(1000); {
	case roll < 600:
		return rig.BodyMin + p.rng.IntN(200)
	case roll < 850:
		return rig.BodyMin + p.rng.IntN(4<<10)
	case roll < 985:
		return rig.BodyMin + p.rng.IntN(64<<10)
	default:
		return rig.BodyMin + p.rng.IntN(rig.BodyMax-rig.BodyMin+1)
	}
}

func (p *publisher) writeTCP(w *rig.Wire, next publish) error {
	topic := p.ledger.topics[next.topic]
	if len(next.sizes) > 1 {
		multi := next.multi()
		fmt.Fprintf(w.W, "MPUB %s\n", topic)
		w.Sized(multi)
		return nil
	}
	if next.delay > 0 {
		fmt.Fprintf(w.W, "DPUB %s %d\n", topic, next.delay.Milliseconds())
	} else {
		fmt.Fprintf(w.W, "PUB %s\n", topic)
	}
	w.Sized(rig.Body(next.first, next.sizes[0]))
	return nil
}

// multi is the body of an MPUB.
func (next publish) multi() []byte {
	var b bytes.Buffer
	b.Grow(next.parcel + 4*len(next.sizes) + 4)
	size := func(n int) { b.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	size(len(next.sizes))
	for i, n := range next.sizes {
		size(n)
		b.Write(rig.Body(next.first+rig.Number(i), n))
	}
	return b.Bytes()
}

func (p *publisher) runHTTP(n *node) error {
	for {
		next, ok := p.next()
		if !ok {
			return nil
		}
		topic := p.ledger.topics[next.topic]
		path, text := "/pub?topic="+topic, []byte(nil)
		if len(next.sizes) > 1 {
			path, text = "/mpub?binary=true&topic="+topic, next.multi()
		} else {
			text = rig.Body(next.first, next.sizes[0])
		}
		if next.delay > 0 {
			path += fmt.Sprintf("&defer=%d", next.delay.Milliseconds())
		}
		status, answer, err := n.Post(path, text)
		if err != nil {
			return nil // the node is gone
		}
		refusal := ""
		if status != 200 || answer != "OK" {
			refusal = fmt.Sprintf("%d %s", status, answer)
		}
		p.ledger.acknowledge(next.first, len(next.sizes), refusal)
	}
}
