package delivery

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"pgregory.net/rapid"
)

// Where the model says that a message is.
const (
	inLog    = iota // not delivered, never was by this leader
	inFlight        // a consumer has it
	isReady         // to be delivered again at once
	isParked        // deferred
	isDue           // was deferred, the lane has taken it
	finished
)

// mMessage is a message of the model.
type mMessage struct {
	where    int
	sub      *mSub
	number   uint16 // of this delivery, or the next
	deadline int64
	max      int64 // where TOUCH ends
	due      int64
}

// mSub is a consumer of the model.
type mSub struct {
	*Subscription
	window  int
	have    []int64 // in flight
	stopped bool
	rung    bool
	busy    bool // its last Take returned something
	timeout int64
	last    int64      // highest offset delivered for the first time
	taken   []Delivery // by its last Take
}

// machine is a channel with one lane beside its model.
type machine struct {
	*rig
	cfg    Config
	lim    limits
	msgs   []mMessage
	limit  int64
	subs   []*mSub
	paused bool
	count  uint64 // messages put in
	holding
	seen coverage
}

const (
	testTimeout    = 10 * time.Second
	testMaxTimeout = 13 * time.Second
)

func newMachine(t *rapid.T) *machine {
	m := &machine{
		rig: &rig{log: &memLog{}, shard: newShard(), clock: &handClock{now: int64(time.Hour)}},
		cfg: Config{WaitOnDisconnect: rapid.Bool().Draw(t, "wait on disconnect")},

		lim: limits{ring: 64, old: rapid.SampledFrom([]int{3, 40}).Draw(t, "old"), due: 3, gaps: 6},
	}
	m.cfg.Held = func(int32, uint32) { m.told = true }
	m.begin(partition.Start{})
	return m
}

// begin opens the channel as a new leader does.
func (m *machine) begin(st partition.Start) {
	was := defaultLimits
	defaultLimits = m.lim
	m.open(m.cfg, st)
	defaultLimits = was
	m.ch.SetPaused(m.paused)
	m.count = 0
}

func (m *machine) publish(t *rapid.T) {
	n := rapid.IntRange(1, 30).Draw(t, "count")
	batch := make([]message, n)
	from := m.log.end
	atApply := rapid.Bool().Draw(t, "parked at apply")
	d := m.shard.state(m.lane)
	for i := range batch {
		msg := mMessage{number: 1}
		if rapid.IntRange(0, 9).Draw(t, "defer") == 0 {
			msg.due = m.clock.now + rapid.Int64Range(-2, 20).Draw(t, "due")*int64(time.Second)
			batch[i].due = msg.due
		}
		m.msgs = append(m.msgs, msg)
	}
	m.limit = m.log.append(batch...)
	for i := range batch {
		o := from + int64(i)
		if msg := &m.msgs[o]; atApply && msg.due > m.clock.now {
			m.shardParks(t, d, o, msg)
			m.lane.Skip(o, o+1)
		}
	}
	m.lane.Limit(m.limit)
	m.count += uint64(n)
}

// shardParks is what apply does with a deferred message.
func (m *machine) shardParks(t *rapid.T, d *durable, o int64, msg *mMessage) {
	d.apply(t, &partition.Delta{Parked: entries(o, msg.due, 0)})
	msg.where = isParked
}

func (m *machine) subscribe(t *rapid.T) {
	if len(m.subs) >= 4 {
		return
	}
	s := &mSub{timeout: int64(testTimeout), last: -1}
	var err error
	s.Subscription, err = m.ch.Subscribe(SubOptions{
		MsgTimeout: testTimeout, MaxMsgTimeout: testMaxTimeout, Notify: func() {
			if s.rung && m.ch.closed == nil {
				t.Fatalf("rung twice")
			}
			s.rung = true
		},
	})
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	m.subs = append(m.subs, s)
}

func (m *machine) pickSub(t *rapid.T) *mSub {
	if len(m.subs) == 0 {
		t.Skip("no consumer")
	}
	return rapid.SampledFrom(m.subs).Draw(t, "consumer")
}

func (m *machine) setWindow(t *rapid.T) {
	s := m.pickSub(t)
	n := rapid.SampledFrom([]int{0, 1, 5, 40, 200}).Draw(t, "window")
	s.SetWindow(n)
	if !s.stopped {
		s.window = n
	}
}

func (m *machine) stop(t *rapid.T) {
	s := m.pickSub(t)
	s.Stop()
	s.stopped, s.window = true, 0
}

func (m *machine) pause(t *rapid.T) {
	m.paused = rapid.IntRange(0, 3).Draw(t, "paused") == 0
	m.ch.SetPaused(m.paused)
}

// take checks one Take against the model.
func (m *machine) take(t *rapid.T) { m.takeFor(t, m.pickSub(t)) }

func (m *machine) takeFor(t *rapid.T, s *mSub) int {
	room := rapid.SampledFrom([]int{1, 8, 50, 1 << 20}).Draw(t, "bytes")
	s.rung = false
	for i := range s.taken { // whatever others have done meanwhile
		offsetOf(t, &s.taken[i])
	}
	ds, err := s.Take(nil, room)
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	s.taken = ds
	s.busy = len(ds) > 0
	if m.paused && len(ds) > 0 {
		t.Fatalf("delivered while paused")
	}
	if len(s.have)+len(ds) > max(s.window, len(s.have)) {
		t.Fatalf("window %d, in flight %d, delivered %d", s.window, len(s.have), len(ds))
	}
	if len(ds) > 1 && (len(ds)-1)*8 >= room {
		t.Fatalf("%d deliveries for %d bytes", len(ds), room)
	}
	for i := range ds {
		m.delivered(t, s, &ds[i])
	}
	m.seen.delivered += len(ds)
	m.cursorParked(t, m.lane.cursor)
	return len(ds)
}

// delivered checks one delivery: it is the best there is, and the number is
// right.
func (m *machine) delivered(t *rapid.T, s *mSub, d *Delivery) {
	o := offsetOf(t, d)
	msg := &m.msgs[o]
	switch msg.where {
	case isReady:
		for i := range o {
			if m.msgs[i].where == isReady {
				t.Fatalf("ready %d delivered before ready %d", o, i)
			}
		}
	case isDue:
		if i := m.first(isReady); i >= 0 {
			t.Fatalf("due %d delivered before ready %d", o, i)
		}
	case inLog:
		m.cursorParked(t, o)
		if i := max(m.first(isReady), m.first(isDue)); i >= 0 {
			t.Fatalf("%d delivered from the log before %d", o, i)
		}
		if i := m.first(inLog); i != o {
			t.Fatalf("%d delivered from the log before %d", o, i)
		}
		if msg.due > m.clock.now {
			t.Fatalf("%d delivered before it is due", o)
		}
		if o >= m.hold() {
			t.Fatalf("%d delivered from behind the barrier at %d", o, m.hold())
		}
		if o <= s.last {
			t.Fatalf("first delivery of %d after %d", o, s.last)
		}
		s.last = o
	default:
		t.Fatalf("%d delivered, but it is %d", o, msg.where)
	}
	if d.Attempts != msg.number {
		t.Fatalf("%d delivered with attempts %d, want %d", o, d.Attempts, msg.number)
	}
	msg.where, msg.sub = inFlight, s
	msg.deadline, msg.max = m.clock.now+s.timeout, m.clock.now+int64(testMaxTimeout)
	s.have = append(s.have, o)
}

// first is the lowest offset in that state, or -1.
func (m *machine) first(where int) int64 {
	return int64(slices.IndexFunc(m.msgs, func(x mMessage) bool { return x.where == where }))
}

// cursorParked mirrors that the cursor puts deferred messages aside as it meets
// them.
func (m *machine) cursorParked(t *rapid.T, below int64) {
	for o := range below {
		if msg := &m.msgs[o]; msg.where == inLog {
			if msg.due <= m.clock.now {
				t.Fatalf("%d was left out", o)
			}
			msg.where = isParked
		}
	}
}

// drop takes o out of what its consumer has.
func (m *machine) drop(o int64) *mMessage {
	msg := &m.msgs[o]
	if s := msg.sub; s != nil {
		i := slices.Index(s.have, o)
		s.have = slices.Delete(s.have, i, i+1)
	}
	msg.sub = nil
	return msg
}

func (m *machine) pickMine(t *rapid.T) (*mSub, int64) {
	s := m.pickSub(t)
	if len(s.have) == 0 {
		t.Skip("nothing in flight")
	}
	return s, rapid.SampledFrom(s.have).Draw(t, "offset")
}

func (m *machine) finish(t *rapid.T) {
	s, _ := m.pickMine(t)
	n := rapid.IntRange(1, len(s.have)).Draw(t, "count")
	reverse := rapid.Bool().Draw(t, "reverse")
	var ops []Op
	for range n {
		o := s.have[0]
		if reverse {
			o = s.have[len(s.have)-1]
		}
		ops = append(ops, Op{Kind: Finish, ID: id(o)})
		m.drop(o).where = finished
	}
	if failed := s.Do(ops, nil); failed > 0 {
		t.Fatalf("%d FINs failed", failed)
	}
}

func (m *machine) requeue(t *rapid.T) {
	s, o := m.pickMine(t)
	delay := rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second, time.Minute}).Draw(t, "delay")
	if err := s.Requeue(id(o), delay); err != nil {
		t.Fatalf("REQ %d: %v", o, err)
	}
	msg := m.drop(o)
	msg.number++
	msg.where = isReady
	if delay > 0 {
		msg.where, msg.due = isParked, m.clock.now+int64(delay)
	}
}

func (m *machine) touch(t *rapid.T) {
	s, o := m.pickMine(t)
	if err := s.Touch(id(o)); err != nil {
		t.Fatalf("TOUCH %d: %v", o, err)
	}
	msg := &m.msgs[o]
	msg.deadline = min(m.clock.now+s.timeout, msg.max)
}

// wrong answers for what is not in flight or another's.
func (m *machine) wrong(t *rapid.T) {
	s := m.pickSub(t)
	if len(m.msgs) == 0 {
		t.Skip("no message")
	}
	o := rapid.Int64Range(0, int64(len(m.msgs))-1).Draw(t, "offset")
	want := error(fault.NotInFlight)
	switch msg := &m.msgs[o]; {
	case msg.where == inFlight && msg.sub == s:
		t.Skip("right")
	case msg.where == inFlight:
		want = fault.NotOwner
	}
	op := Op{Kind: rapid.SampledFrom([]OpKind{Finish, Requeue, Touch}).Draw(t, "kind"), ID: id(o)}
	errs := make([]error, 1)
	if s.Do([]Op{op}, errs); !errors.Is(errs[0], want) {
		t.Fatalf("answer to %d: %v, want %v", o, errs[0], want)
	}
}

func (m *machine) close(t *rapid.T) {
	s := m.pickSub(t)
	abnormal := rapid.Bool().Draw(t, "abnormal")
	s.Close(abnormal)
	m.subs = slices.DeleteFunc(m.subs, func(x *mSub) bool { return x == s })
	if m.cfg.WaitOnDisconnect {
		return // the messages stay in flight until they time out
	}
	for _, o := range slices.Clone(s.have) {
		msg := m.drop(o)
		msg.number++
		msg.where = isReady
		if abnormal && !s.stopped && msg.number > 2 {
			wait := min(msg.deadline-m.clock.now, int64(time.Second)<<(msg.number-1))
			msg.where, msg.due = isParked, m.clock.now+wait
		}
	}
}

// advance lets time pass: deliveries time out and parked messages come due.
func (m *machine) advance(t *rapid.T) {
	d := time.Duration(rapid.SampledFrom([]int{1, 10, 1000, 3000, 7000, 11000}).Draw(t, "ms")) * time.Millisecond
	m.clock.advance(d)
	for o := range m.msgs {
		if msg := &m.msgs[o]; msg.where == inFlight && msg.deadline <= m.clock.now {
			m.drop(int64(o))
			msg.where = isReady
			msg.number++
		}
	}
}

// propose takes what the lane reports; commit makes it fact some time later.
func (m *machine) propose(*rapid.T) { m.shard.propose() }

// commit applies what the lane reported.
func (m *machine) commit(t *rapid.T) { m.shard.commit(t) }

// collect does both, and compares.
func (m *machine) collect(t *rapid.T) {
	m.shard.collect(t)
	for o, e := range m.shard.state(m.lane).parked {
		if msg := &m.msgs[o]; msg.where == isParked && (e.DueNs != msg.due || e.Attempts != msg.number-1) {
			t.Fatalf("%d parked as %+v, due is %d, number %d", o, e, msg.due, msg.number)
		}
	}
}

// offer brings the lane what is due.
func (m *machine) offer(*rapid.T) {
	for _, e := range m.shard.offer(m.lane, m.clock.now) {
		if msg := &m.msgs[e.Offset]; msg.where == isParked && e.DueNs == msg.due {
			msg.where = isDue
		}
	}
}

// settle lets the consumers take until nobody is rung or busy.
func (m *machine) settle(t *rapid.T) {
	for again := true; again; {
		again = false
		for _, s := range m.subs {
			if s.rung || s.busy {
				m.takeFor(t, s)
				again = true
			}
		}
	}
}

func (m *machine) empty(t *rapid.T) {
	d := m.shard.state(m.lane)
	m.shard.propose()
	m.shard.pending = nil // of an epoch that has passed
	*d = *newDurable()
	d.floor = m.limit
	m.lane.Reset(partition.Start{Floor: m.limit, Limit: m.limit, Barriers: slices.Clone(m.barriers)})
	for o := range m.msgs {
		m.drop(int64(o)).where = finished
	}
}

// restart begins with a new leader: nothing finished comes again, and
// deliveries that were under way have the same number again.
func (m *machine) restart(t *rapid.T) {
	m.collect(t)
	d := m.shard.state(m.lane)
	m.ch.Close(nil)
	for _, s := range m.subs {
		select {
		case <-s.Done():
		default:
			t.Fatalf("a consumer was not told")
		}
		s.Close(true)
	}
	m.shard.collect(t)
	m.lane.Stop(nil)
	m.subs = nil
	m.shard = newShard()
	st := d.start(m.limit)
	st.Barriers = slices.Clone(m.barriers)
	m.released, m.told = 0, false
	m.begin(st)
	m.shard.lanes[m.lane] = d
	for i := range m.msgs {
		o := int64(i)
		msg := m.drop(o)
		e, isParkedNow := d.parked[o]
		switch {
		case o < d.floor && !isParkedNow, !isParkedNow && d.ranges.Contains(o):
			if msg.where != finished {
				t.Fatalf("unfinished %d is lost: %d", o, msg.where)
			}
		case msg.where == finished:
			t.Fatalf("finished %d comes again", o)
		case isParkedNow:
			if e.Attempts+1 != msg.number {
				t.Fatalf("%d is parked with %d attempts, number is %d", o, e.Attempts, msg.number)
			}
			msg.where, msg.due, msg.number = isParked, e.DueNs, e.Attempts+1
		default:
			if n := d.attempts[o]; n+1 != msg.number {
				t.Fatalf("%d had %d attempts, number is %d", o, n, msg.number)
			}
			msg.where = inLog
		}
	}
}

// check compares figures and looks for a lost wake-up.
func (m *machine) check(t *rapid.T) {
	var flying, waiting int64
	for i := range m.msgs {
		switch m.msgs[i].where {
		case inFlight:
			flying++
		case isReady, isDue:
			waiting++
		}
	}
	st := m.ch.Stats()
	if st.InFlight != flying {
		t.Fatalf("%d in flight, want %d", st.InFlight, flying)
	}
	if st.MessageCount != m.count {
		t.Fatalf("%d messages, want %d", st.MessageCount, m.count)
	}
	for _, s := range m.subs {
		if n := s.Stats().InFlight; n != int64(len(s.have)) {
			t.Fatalf("consumer has %d in flight, want %d", n, len(s.have))
		}
	}
	if m.ch.claimed < 0 || m.ch.waitingOpen < 0 || len(m.lane.table.old) > m.lim.old+m.lim.ring {
		t.Fatalf("claimed %d, waiting %d, old %d", m.ch.claimed, m.ch.waitingOpen, len(m.lane.table.old))
	}
	m.seen.held = max(m.seen.held, int(st.Held))
	m.seen.old = max(m.seen.old, len(m.lane.table.old))
	if !m.lane.table.hasRoom(&m.ch.slots, m.lane.cursor) {
		m.seen.aged++
	}
	m.checkFloor(t)
	m.checkBell(t, waiting)
	m.checkHold(t, m.waits())
}

// checkFloor compares the lane's floor with the lowest message that needs the
// log and is not parked durably.
func (m *machine) checkFloor(t *rapid.T) {
	floor := m.lane.Floor()
	for o := range floor {
		msg := &m.msgs[o]
		if msg.where != finished && msg.where != isParked && msg.where != isDue {
			i := m.lane.find(o)
			if i == 0 || m.ch.slots.slots[i].flags&flagParked == 0 {
				if msg.where != inLog { // the cursor has parked it
					t.Fatalf("floor is %d, but %d is %d", floor, o, msg.where)
				}
			}
		}
	}
}

// checkBell: while there is work and a consumer waits with an open window,
// somebody has been rung or comes by himself.
func (m *machine) checkBell(t *rapid.T, waiting int64) {
	if m.paused {
		return
	}
	backlog := m.lane.table.hasRoom(&m.ch.slots, m.lane.cursor) && m.workBefore(m.hold())
	if waiting == 0 && !backlog {
		return
	}
	open := false
	for _, s := range m.subs {
		if s.rung || s.busy {
			return
		}
		open = open || len(s.have) < s.window
	}
	if open {
		t.Fatalf("a consumer waits beside %d messages, backlog %v", waiting, backlog)
	}
}

// workBefore reports whether a message below the offset can be delivered for the
// first time.
func (m *machine) workBefore(offset int64) bool {
	for o := m.lane.cursor; o < min(offset, m.limit); o++ {
		if m.msgs[o].where == inLog {
			return true
		}
	}
	return false
}

// waits reports whether a consumer with an open window has nothing to come for.
func (m *machine) waits() bool {
	return slices.ContainsFunc(m.subs, func(s *mSub) bool { return !s.rung && !s.busy && len(s.have) < s.window })
}

// rare does what ends much of what the other actions need, now and then.
func (m *machine) rare(t *rapid.T) {
	switch rapid.IntRange(0, 15).Draw(t, "rare") {
	case 0, 1:
		m.stop(t)
	case 2, 3, 4:
		m.close(t)
	case 5:
		m.empty(t)
	case 6, 7:
		m.restart(t)
		m.subscribe(t)
	case 8:
		m.pause(t)
	default:
		m.settle(t)
	}
}

// TestChannelAgainstModel runs consumers, time and leaders at random.
func TestChannelAgainstModel(t *testing.T) {
	setRapid(t, "steps", "200")
	setRapid(t, "checks", "300")
	var reached coverage
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		m.subscribe(t)
		m.setWindow(t)
		t.Repeat(map[string]func(*rapid.T){
			"publish":   m.publish,
			"publish2":  m.publish,
			"subscribe": m.subscribe,
			"window":    m.setWindow,
			"take":      m.take,
			"settle":    m.settle,
			"settle2":   m.settle,
			"finish":    m.finish,
			"finish2":   m.finish,
			"requeue":   m.requeue,
			"touch":     m.touch,
			"wrong":     m.wrong,
			"rare":      m.rare,
			"advance":   m.advance,
			"propose":   m.propose,
			"commit":    m.commit,
			"collect":   m.collect,
			"offer":     m.offer,
			"offer2":    m.offer,
			"raise":     m.raise,
			"release":   m.release,
			"":          m.check,
		})
		reached.add(m)
	})
	t.Logf("%+v", reached)
	if reached.held == 0 || reached.old == 0 || reached.aged == 0 || reached.delivered == 0 || reached.stood == 0 {
		t.Errorf("the test does not reach what it should: %+v", reached)
	}
}

// coverage counts what all runs together have reached.
type coverage struct{ delivered, held, old, aged, stood int }

func (c *coverage) add(m *machine) {
	c.delivered += m.seen.delivered
	c.held += m.seen.held
	c.old += m.seen.old
	c.aged += m.seen.aged
	c.stood += m.seen.stood
}
