package delivery

import (
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"pgregory.net/rapid"
)

func (m *rModel) publishSome(t *rapid.T) { m.publishTo(t, m.part(t)) }

func (m *rModel) publishTo(t *rapid.T, p int) {
	n := rapid.IntRange(1, 6).Draw(t, "count")
	from := m.parts[p].log.end
	for i := range int64(n) {
		m.msgs[at{int32(p), from + i}] = &rMessage{given: make(map[uint16]int64), ended: make(map[uint16]bool), due: make(map[uint16]bool)}
	}
	m.publish(p, n)
}

func (m *rModel) subscribe(t *rapid.T) {
	if len(m.subs) >= 4 {
		t.Skip("enough")
	}
	m.subscribeOne(t)
}

func (m *rModel) subscribeOne(t *rapid.T) {
	s := &rSub{node: m.node(t)}
	var err error
	s.Subscription, err = s.node.ch.Subscribe(SubOptions{
		MsgTimeout: testTimeout, MaxMsgTimeout: testMaxTimeout,
		Notify: func() {
			if s.rung {
				m.t.Fatalf("rung twice")
			}
			s.rung = true
		},
		Failed: func(op Op, _ error) {
			part, offset, _ := testCodec.Parse(op.ID)
			if msg := m.msgs[at{part, offset}]; op.Kind == Finish {
				msg.answered = false
			} else if op.Kind == Touch {
				m.leave(at{part, offset}, s)
			}
		},
	})
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	m.subs = append(m.subs, s)
	m.setWindowOf(t, s)
}

func (m *rModel) setWindow(t *rapid.T) { m.setWindowOf(t, m.sub(t)) }

func (m *rModel) setWindowOf(t *rapid.T, s *rSub) {
	n := rapid.SampledFrom([]int{0, 1, 1, 2, 5, 20}).Draw(t, "window")
	s.SetWindow(n)
	if !s.stopped {
		s.window = n
	}
}

// leave takes a message from its holder.
func (m *rModel) leave(x at, s *rSub) *rMessage {
	if i := slices.Index(s.have, x); i >= 0 {
		s.have = slices.Delete(s.have, i, i+1)
	}
	msg := m.msgs[x]
	if msg.holder == s {
		msg.holder = nil
	}
	return msg
}

// holds reports whether the holder's time is not over for sure.
func (m *rModel) holds(msg *rMessage) bool {
	return msg.holder != nil && !msg.gone && m.clock.now < msg.since+int64(testTimeout)
}

func (m *rModel) take(t *rapid.T) { m.takeFor(t, m.sub(t)) }

func (m *rModel) takeFor(t *rapid.T, s *rSub) int {
	s.rung = false
	ds, err := s.Take(nil, rapid.SampledFrom([]int{8, 30, 1 << 20}).Draw(t, "bytes"))
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	s.busy = len(ds) > 0
	if m.paused && s.busy {
		t.Fatalf("delivered while paused")
	}
	for i := range ds {
		m.took(t, s, &ds[i])
	}
	n := 0
	for _, x := range s.have {
		if msg := m.msgs[x]; msg.holder == s && !msg.late && m.holds(msg) {
			n++
		}
	}
	if len(ds) > 0 && n > s.window {
		t.Fatalf("%d in flight, window %d", n, s.window)
	}
	return len(ds)
}

// give notes that a leader gave the message away. Its number is in its turn when the
// delivery before is over.
func (m *rModel) give(x at, number uint16, since int64) {
	msg := m.msgs[x]
	before, ok := msg.given[number-1]
	if number == 1 || msg.ended[number-1] || !ok || m.clock.now >= before+int64(testTimeout) {
		msg.due[number] = true
	}
	msg.given[number] = since
}

// took checks one delivery.
func (m *rModel) took(t *rapid.T, s *rSub, d *Delivery) {
	offsetOf(t, d)
	part, offset, _ := testCodec.Parse(d.ID)
	x := at{part, offset}
	t.Logf("%v/%d to %d of node %d", x, d.Attempts, s.id, s.node.id)
	msg := m.msgs[x]
	m.seen.delivered++
	if d.Attempts > 1 {
		m.seen.again++
	}
	since := int64(0) // not long ago, unless it was taken away while it was read
	l := s.node.ch.lane(part)
	if i := l.find(offset); i != 0 {
		// Its node's time begins when it asked, and the leader may be told of that.
		since = s.node.ch.slots.slots[i].delivered
		m.give(x, d.Attempts, since)
	}
	if !msg.gone {
		m.checkTook(t, x, msg, s, d.Attempts)
	}
	m.leave(x, s)
	msg.holder, msg.number, msg.since, msg.answered = s, d.Attempts, since, false
	s.have = append(s.have, x)
}

func (m *rModel) checkTook(t *rapid.T, x at, msg *rMessage, s *rSub, number uint16) {
	switch {
	case msg.finished:
		t.Fatalf("%v is finished, and comes again", x)
	case m.holds(msg):
		t.Fatalf("%v is held by a consumer of node %d with number %d, and comes to one of node %d with %d",
			x, msg.holder.node.id, msg.number, s.node.id, number)
	case msg.answered && m.clock.now < msg.since+int64(testTimeout):
		t.Fatalf("%v was answered, and comes again", x)
	case !msg.due[number]:
		t.Fatalf("%v comes with number %d, but %d has not ended", x, number, number-1)
	}
}

func (m *rModel) mine(t *rapid.T) (*rSub, at) {
	s := m.sub(t)
	if len(s.have) == 0 {
		t.Skip("nothing in flight")
	}
	return s, rapid.SampledFrom(s.have).Draw(t, "message")
}

// do answers, and returns the message if the answer was taken here.
func (m *rModel) do(s *rSub, x at, op Op) *rMessage {
	op.ID = testCodec.ID(x.part, x.offset)
	away := s.node.ch.lane(x.part).away()
	valid := m.msgs[x].holder == s && m.holds(m.msgs[x])
	errs := make([]error, 1)
	s.Do([]Op{op}, errs)
	m.t.Logf("%v: %d from %d of node %d: %v", x, op.Kind, s.id, s.node.id, errs[0])
	if errs[0] != nil {
		// A late answer to an earlier delivery may have been good enough for a new leader.
		if valid && !m.msgs[x].late {
			m.t.Fatalf("answer to %v: %v", x, errs[0])
		}
		m.leave(x, s)
		return nil
	}
	if op.Kind == Finish && !away {
		m.msgs[x].finished = true
	}
	return m.msgs[x]
}

func (m *rModel) finishOne(t *rapid.T) {
	s, x := m.mine(t)
	m.finishOf(s, x)
}

func (m *rModel) finishOf(s *rSub, x at) {
	if msg := m.do(s, x, Op{Kind: Finish}); msg != nil {
		msg.answered, msg.late = true, true
		m.leave(x, s)
	}
}

func (m *rModel) requeue(t *rapid.T) {
	s, x := m.mine(t)
	delay := rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second}).Draw(t, "delay")
	if msg := m.do(s, x, Op{Kind: Requeue, Delay: delay}); msg != nil {
		msg.ended[msg.number] = true
		m.leave(x, s)
	}
}

func (m *rModel) touch(t *rapid.T) {
	s, x := m.mine(t)
	m.do(s, x, Op{Kind: Touch})
}

func (m *rModel) close(t *rapid.T) {
	s := m.sub(t)
	m.subs = slices.DeleteFunc(m.subs, func(x *rSub) bool { return x == s })
	for _, x := range slices.Clone(s.have) {
		msg := m.leave(x, s)
		msg.ended[msg.number] = true
	}
	s.Close(m.abrupt)
}

func (m *rModel) stop(t *rapid.T) {
	s := m.sub(t)
	s.Stop()
	s.stopped, s.window = true, 0
}

func (m *rModel) pause(t *rapid.T) {
	m.setPaused(rapid.IntRange(0, 2).Draw(t, "paused") == 0)
}

func (m *rModel) setPaused(paused bool) {
	m.paused = paused
	for _, n := range m.nodes {
		n.ch.SetPaused(paused)
	}
}

// hop has one link make its next step.
func (m *rModel) hop(t *rapid.T) {
	l := m.link(t, func(l *link) bool { return l.out || l.rests || l.woken || len(l.rings) > 0 })
	switch {
	case len(l.rings) > 0 && rapid.Bool().Draw(t, "ring"):
		l.bring()
	case l.rests:
		l.retry()
	case !l.out:
		l.send(rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "items"))
	case l.reply != nil:
		m.seen.adopted += len(l.sent.Holds)
		l.finish()
	case !l.arrive(t):
		l.fail()
	}
}

// lose fails a request, before it came or after it was done.
func (m *rModel) lose(t *rapid.T) {
	if !m.lossy {
		t.Skip("reliable")
	}
	l := m.link(t, func(l *link) bool { return l.out })
	if l.reply == nil && rapid.Bool().Draw(t, "arrives") {
		l.arrive(t)
	}
	m.seen.lost++
	l.fail()
}

// move gives a partition another leader, or none.
func (m *rModel) move(t *rapid.T) {
	m.seen.moved++
	m.lead(t, m.part(t), rapid.IntRange(-1, len(m.nodes)-1).Draw(t, "leader"))
}

// upset has consumers hold something, and gives the partition another leader, which
// may open before the others have noticed, if it does that.
func (m *rModel) upset(t *rapid.T) {
	p := m.part(t)
	m.publishTo(t, p)
	m.settle(t)
	m.seen.moved++
	m.lead(t, p, rapid.IntRange(0, len(m.nodes)-1).Draw(t, "leader"))
	m.begin(p)
	if rapid.Bool().Draw(t, "open") {
		m.open(p)
	}
	for _, s := range m.subs {
		if rapid.Bool().Draw(t, "take") {
			m.setWindowOf(t, s)
			m.takeFor(t, s)
		}
	}
}

// forward brings what is on its way between two nodes there, and perhaps back.
func (m *rModel) forward(t *rapid.T) {
	m.hop(t)
	for range rapid.IntRange(0, 3).Draw(t, "hops") {
		m.all(func(l *link) {
			switch {
			case !l.out || l.rests:
			case l.reply != nil:
				l.finish()
			case !l.arrive(t):
				l.fail()
			}
		})
	}
}

// one draws one of the places, of n, for which may says yes.
func one(t *rapid.T, what string, n int, may func(i int) bool) int {
	var places []int
	for i := range n {
		if may(i) {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		t.Skip("none")
	}
	return rapid.SampledFrom(places).Draw(t, what)
}

func (m *rModel) beginOne(t *rapid.T) {
	m.begin(one(t, "partition", len(m.parts), func(p int) bool {
		return m.parts[p].lane != nil && !m.parts[p].lane.begun
	}))
}

// lapse: a node believes that nobody leads the partition, while its leader goes on.
// Of several partitions it must not believe that: see Channel.SetRemote.
func (m *rModel) lapse(t *rapid.T) {
	n, p := m.node(t), m.part(t)
	if len(m.parts) > 1 {
		t.Skip("others have the same leader")
	}
	if leader := m.parts[p].leader; leader < 0 || leader == n.id || n.leads[p] != leader {
		t.Skip("it does not follow")
	}
	n.leads[p] = -1
	n.ch.SetRemote(int32(p), nil)
}

func (m *rModel) followOne(t *rapid.T) {
	x := one(t, "who", len(m.nodes)*len(m.parts), func(x int) bool {
		n, p := m.nodes[x/len(m.parts)], x%len(m.parts)
		return !n.follows(p)
	})
	m.nodes[x/len(m.parts)].follow(x % len(m.parts))
}

func (m *rModel) openOne(t *rapid.T) {
	m.open(one(t, "partition", len(m.parts), func(p int) bool {
		return m.parts[p].lane != nil && m.parts[p].lane.begun && m.parts[p].lane.shut
	}))
}

// abandon: a leader takes a node for gone.
func (m *rModel) abandon(t *rapid.T) {
	leader, node := m.node(t), m.node(t)
	if leader == node {
		t.Skip("one node")
	}
	for _, msg := range m.msgs {
		if h := msg.holder; h != nil && h.node == node || msg.answered {
			msg.gone = true
		}
	}
	keys := make([]mirrorKey, 0, len(leader.mirrors))
	for key := range leader.mirrors {
		if key.node == node.id {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b mirrorKey) int { return int(a.id) - int(b.id) })
	for _, key := range keys {
		s := leader.mirrors[key]
		for i := s.inFlight.head; i != 0; i = leader.ch.slots.slots[i].next {
			e := &leader.ch.slots.slots[i]
			m.msgs[at{leader.ch.lanes[e.lane].part, e.offset}].gone = true
		}
		delete(leader.mirrors, key)
		s.Abandon()
	}
	node.links[leader.id].relay.Renew()
}

// empty empties a partition of the channel.
func (m *rModel) empty(t *rapid.T) {
	p := m.part(t)
	part := m.parts[p]
	if part.lane == nil || !part.lane.begun {
		t.Skip("no lane")
	}
	m.emptied = true
	shard := m.nodes[part.leader].shard
	shard.propose()
	shard.pending = slices.DeleteFunc(shard.pending, func(d pendingDelta) bool { return d.lane == part.lane })
	*part.state = *newDurable()
	part.state.floor = part.limit
	part.lane.Reset(partition.Start{Floor: part.limit, Limit: part.limit})
	for x, msg := range m.msgs {
		if int(x.part) == p {
			msg.gone = true
			if msg.holder != nil {
				m.leave(x, msg.holder)
			}
		}
	}
	for _, n := range m.nodes {
		if n.id != part.leader {
			n.links[part.leader].relay.Emptied(int32(p), part.limit)
		}
	}
}

func (m *rModel) advance(t *rapid.T) {
	d := time.Duration(rapid.SampledFrom([]int{1, 1, 10, 1000, 3000, 11000}).Draw(t, "ms")) * time.Millisecond
	if d > time.Second { // no request takes that long
		m.all(func(l *link) {
			if l.out {
				l.fail()
			}
		})
	}
	m.clock.advance(d)
}

func (m *rModel) write(t *rapid.T) {
	n := m.node(t)
	n.shard.propose()
	if rapid.Bool().Draw(t, "commit") {
		n.shard.commit(t)
	}
}

func (m *rModel) offer(t *rapid.T) {
	if p := m.parts[m.part(t)]; p.lane != nil && p.lane.begun {
		m.nodes[p.leader].shard.offer(p.lane, m.clock.now)
	}
}
