//go:build linux

package rig

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
)

// Keyed publishes under keys of its own, on one connection and ahead of the answers,
// as NSQ's clients do. The messages of a key are its name, a slash and their number,
// from 0 on.
type Keyed struct {
	Wire  *Wire
	Topic string
	Name  string // of the publisher; keys are it, a dash and their number
	Ahead int    // messages on their way

	sent, acked []int // by key
	turn        int
	beats       atomic.Int32
}

// NewKeyed makes a publisher of so many keys.
func NewKeyed(w *Wire, topic, name string, keys, ahead int) *Keyed {
	return &Keyed{Wire: w, Topic: topic, Name: name, Ahead: ahead, sent: make([]int, keys), acked: make([]int, keys)}
}

// Publish publishes n messages, the keys in turn, and waits for all answers.
func (p *Keyed) Publish(n int) error {
	waiting := make(chan int, p.Ahead) // keys
	answers := make(chan error, 1)
	go func() { answers <- p.answers(waiting) }()
	for range n {
		k := p.turn % len(p.sent)
		select {
		case waiting <- k:
		case err := <-answers:
			return err
		}
		for ; p.beats.Load() > 0; p.beats.Add(-1) {
			fmt.Fprint(p.Wire.W, "NOP\n")
		}
		key := p.key(k)
		fmt.Fprintf(p.Wire.W, "PUB %s key=%s\n", p.Topic, key)
		p.Wire.Sized(fmt.Appendf(nil, "%s/%d", key, p.sent[k]))
		if err := p.Wire.W.Flush(); err != nil {
			close(waiting)
			<-answers
			return err
		}
		p.sent[k]++
		p.turn++
	}
	close(waiting)
	return <-answers
}

func (p *Keyed) key(k int) string { return p.Name + "-" + strconv.Itoa(k) }

// answers reads the answers to what waits for them.
func (p *Keyed) answers(waiting <-chan int) error {
	for k := range waiting {
		for answered := false; !answered; {
			kind, data, err := p.Wire.Read()
			switch {
			case err != nil:
				return err
			case kind == FrameError:
				return fmt.Errorf("message %d of key %s: the server says %s", p.acked[k], p.key(k), data)
			case string(data) == Heartbeat:
				p.beats.Add(1)
			default:
				answered = true
			}
		}
		p.acked[k]++
	}
	return nil
}

// Acked adds to all what was acknowledged of each key.
func (p *Keyed) Acked(all map[string]int) {
	for k, n := range p.acked {
		all[p.key(k)] += n
	}
}

// Ordered is what consumers have been given of the messages of Keyed publishers.
type Ordered struct {
	mu       sync.Mutex
	next     map[string]int // number of the next message of each key
	count    int            // messages, each once
	repeats  int            // that came again
	problems []string
}

// Consume takes messages, one after the other, until the connection ends.
func (o *Ordered) Consume(w *Wire) error {
	for {
		kind, data, err := w.Read()
		if err != nil {
			return err
		}
		switch {
		case kind == FrameMessage:
			d, err := ParseMessage(data)
			if err != nil {
				return err
			}
			o.take(d.Body)
			fmt.Fprintf(w.W, "FIN %s\n", d.ID[:])
		case string(data) == Heartbeat:
			fmt.Fprint(w.W, "NOP\n")
		}
		if err := w.W.Flush(); err != nil {
			return err
		}
	}
}

func (o *Ordered) take(body []byte) {
	key, number, _ := bytes.Cut(body, []byte("/"))
	n, err := strconv.Atoi(string(number))
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next == nil {
		o.next = make(map[string]int)
	}
	next := o.next[string(key)]
	switch {
	case err != nil:
		o.problems = append(o.problems, fmt.Sprintf("%q is no message of a keyed publisher", body))
	case n < next:
		o.repeats++
		return
	case n > next:
		o.problems = append(o.problems, fmt.Sprintf("key %s: %d comes where %d is next", key, n, next))
	}
	o.next[string(key)] = n + 1
	o.count++
}

// Count is how many messages have come, each counted once, and how many came again.
func (o *Ordered) Count() (count, repeats int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count, o.repeats
}

// Keys is of how many keys messages have come.
func (o *Ordered) Keys() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.next)
}

// Missing is how many of the acknowledged messages of each key have not come.
func (o *Ordered) Missing(acked map[string]int) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, want := range acked {
		n += max(want-o.next[key], 0)
	}
	return n
}

// Problems are messages that came before older ones of their key.
func (o *Ordered) Problems() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.problems
}
