package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
)

// A key may belong to another partition when a topic has more of them. So that its
// messages keep the order in which each publisher gave them, this node lets those be
// answered that went out by the smaller number, publishes anew what the partitions
// refused of them (fault.Moved), in order, and then what came meanwhile. What has no
// key does not wait.

// reroutePause is how often that is looked for which a rerouting waits.
const reroutePause = time.Millisecond

// rerouting is a topic on its way to more partitions, on this node.
type rerouting struct {
	mu      sync.Mutex
	over    bool // nothing is taken any more
	waiting []waitingPublish
	bytes   int64 // of their bodies
	// moved are publishes that were refused, those of one partition in order.
	moved []*partition.Publish
}

// take lets a publish wait; false: it is over, look at the layout anew.
func (r *rerouting) take(topic string, msgs []Message, done partition.Completion, limit int64) (bool, error) {
	w := waitingPublish{msgs: msgs, done: done, bytes: bodyBytes(msgs)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false, nil
	}
	if r.bytes > 0 && r.bytes+w.bytes > limit {
		return true, fault.New(fault.Overloaded, "publish to topic %s: too much waits while its partitions are raised", topic)
	}
	r.bytes += w.bytes
	r.waiting = append(r.waiting, w)
	return true, nil
}

// keyed is for publishes with a key.
func (t *Topic) keyed(msgs []Message, done partition.Completion, wake bool) error {
	for {
		t.entering.Add(1)
		l := t.layout.Load()
		if l.rerouting == nil || plant.On("raise-holds-nothing") {
			err := t.publishIn(l, msgs, done, wake)
			t.entering.Add(-1)
			return err
		}
		t.entering.Add(-1)
		if taken, err := l.rerouting.take(t.name, msgs, done, t.b.o.MaxCreateBytes); taken {
			return err
		}
	}
}

// entered waits until every publish with a key has gone out that looks at a layout
// from before; none of them waits for anything.
func (t *Topic) entered() {
	for t.entering.Load() != 0 {
		time.Sleep(reroutePause / 20)
	}
}

// movedBack takes back a publish that its partition has refused: the topic has more of
// them by now. It is called under the lock of the partition's upstream.
func (t *Topic) movedBack(p *partition.Publish) { t.reroute(p) }

// reroute has publishes with keys go over to the active partitions: metadata tells of
// more, or a partition does that has refused p.
func (t *Topic) reroute(p *partition.Publish) {
	t.routing.Lock()
	defer t.routing.Unlock()
	l := t.layout.Load()
	r := l.rerouting
	if r == nil {
		if m, ok := t.b.o.Meta.View().TopicID(t.id); p == nil && (!ok || m.Active <= l.active) {
			return
		}
		r = &rerouting{}
		next := *l
		next.rerouting = r
		t.layout.Store(&next)
		t.b.tasks.spawn(func(ctx context.Context) { t.goOver(ctx, r) })
	}
	if p != nil {
		r.mu.Lock()
		r.moved = append(r.moved, p)
		r.mu.Unlock()
	}
}

// catchUp is for a handle that has just been put into the table: partitions that came
// to be active since it was made found no handle there.
func (t *Topic) catchUp() {
	if t.b.o.Peers != nil && t.mem == nil && t.away == nil {
		t.followView()
		t.reroute(nil)
	}
}

// hold has publishes with keys wait until release.
func (t *Topic) hold() *rerouting {
	t.routing.Lock()
	defer t.routing.Unlock()
	r := &rerouting{}
	next := *t.layout.Load()
	next.rerouting = r
	t.layout.Store(&next)
	return r
}

// goOver does a rerouting.
func (t *Topic) goOver(ctx context.Context, r *rerouting) {
	for {
		t.entered()
		next, err := t.nextLayout(ctx, r)
		if err == nil {
			err = t.answered(ctx, t.layout.Load())
		}
		if err != nil {
			t.abandon(r, err)
			return
		}
		if t.release(r, next) {
			return
		}
	}
}

// nextLayout waits until metadata has as many active partitions as those know of that
// have refused something: that is to come soon, because their leaders know it already.
func (t *Topic) nextLayout(ctx context.Context, r *rerouting) (*layout, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		least := 0
		r.mu.Lock()
		for _, p := range r.moved {
			least = max(least, int(p.Mapping)+1)
		}
		r.mu.Unlock()
		m, ok := t.b.o.Meta.View().TopicID(t.id)
		switch {
		case !ok || m.Deleting:
			return nil, fault.New(fault.TopicNotFound, "topic %s is deleted", t.name)
		case m.Active >= least:
			return t.b.layoutOf(m, t.parts()), nil
		}
		if err := pause(ctx, reroutePause); err != nil {
			return nil, fault.New(fault.NotLeader, "publish to topic %s: it has more partitions than this node knows of", t.name)
		}
	}
}

// pause waits; the error says that ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answered waits until all is answered that has gone out to the active partitions of
// a layout up to now. Whatever they have refused of it has come back then.
func (t *Topic) answered(ctx context.Context, l *layout) error {
	marks := make(map[*upstream]uint64)
	for _, p := range l.parts[:l.active] {
		if _, ok := marks[p.up]; !ok && p.up != nil {
			marks[p.up] = p.up.mark()
		}
	}
	for u, mark := range marks {
		for !u.answered(mark) {
			if err := pause(ctx, reroutePause); err != nil {
				return fault.Exiting
			}
		}
	}
	return nil
}

// mark is how many publishes have gone to the shard.
func (u *upstream) mark() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.origin.Added()
}

// answered reports whether the first n of them have their answers, and what was
// refused of them is back.
func (u *upstream) answered(n uint64) bool {
	u.mu.Lock()
	all := u.origin.Answered(n)
	out := u.outcomes(nil)
	u.mu.Unlock()
	tell(out)
	return all
}

// release publishes what a rerouting has gathered, by the next layout, and ends it. It
// returns false when partitions have refused something again, because there are still
// more of them.
func (t *Topic) release(r *rerouting, next *layout) bool {
	t.routing.Lock()
	if now := t.layout.Load(); len(now.parts) > len(next.parts) {
		next.parts = now.parts
	}
	next.rerouting = r
	t.layout.Store(next)
	t.routing.Unlock()
	for _, p := range r.takeMoved() {
		t.publishAgain(next, p.Messages, p.Done)
	}
	for {
		waiting, over, again := t.nextWaiting(r)
		if over || again {
			return over
		}
		for _, w := range waiting {
			t.publishAgain(next, w.msgs, w.done)
		}
	}
}

// abandon answers all that a rerouting has gathered with an error; the layout stays.
func (t *Topic) abandon(r *rerouting, err error) {
	for over := false; !over; {
		for _, p := range r.takeMoved() {
			refuse(p.Done, err)
		}
		var waiting []waitingPublish
		waiting, over, _ = t.nextWaiting(r)
		for _, w := range waiting {
			refuse(w.done, err)
		}
	}
}

// takeMoved takes what partitions have refused.
func (r *rerouting) takeMoved() []*partition.Publish {
	r.mu.Lock()
	defer r.mu.Unlock()
	moved := r.moved
	r.moved = nil
	return moved
}

func refuse(done partition.Completion, err error) {
	if done != nil {
		done.Published(0, err)
	}
}

// releaseAtOnce is how many waiting publishes go out before it is looked whether any
// has been refused.
const releaseAtOnce = 256

// nextWaiting takes some of what waits. over: there is nothing, and nothing comes any
// more; again: partitions have refused something.
func (t *Topic) nextWaiting(r *rerouting) (waiting []waitingPublish, over, again bool) {
	t.routing.Lock()
	defer t.routing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.moved) > 0:
		return nil, false, true
	case len(r.waiting) == 0:
		r.over = true
		next := *t.layout.Load()
		next.rerouting = nil
		t.layout.Store(&next)
		return nil, true, false
	}
	n := min(len(r.waiting), releaseAtOnce)
	waiting = slices.Clone(r.waiting[:n])
	r.waiting = slices.Delete(r.waiting, 0, n)
	for _, w := range waiting {
		r.bytes -= w.bytes
	}
	return waiting, false, false
}

// publishAgain publishes what has waited, or tells why not.
func (t *Topic) publishAgain(l *layout, msgs []Message, done partition.Completion) {
	if err := t.insist(l, msgs, done); err != nil {
		refuse(done, err)
	}
}

// insist publishes, for a while again and again where too much waits.
func (t *Topic) insist(l *layout, msgs []Message, done partition.Completion) error {
	for until := time.Now().Add(patience); ; {
		err := t.publishIn(l, msgs, done, true)
		if fault.CodeOf(err) != fault.Overloaded || time.Now().After(until) || t.b.exiting.Load() {
			if err != nil {
				return fmt.Errorf("publish anew: %w", err)
			}
			return nil
		}
		time.Sleep(reroutePause)
	}
}

func bodyBytes(msgs []Message) (n int64) {
	for i := range msgs {
		n += int64(len(msgs[i].Body))
	}
	return n
}
