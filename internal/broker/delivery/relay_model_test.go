package delivery

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// at is a message.
type at struct {
	part   int32
	offset int64
}

// rMessage is what the model knows of a message.
type rMessage struct {
	given  map[uint16]int64 // when a leader gave it away last, by number
	ended  map[uint16]bool  // numbers of deliveries that count
	due    map[uint16]bool  // numbers that have come in their turn: these may come again
	holder *rSub
	number uint16
	since  int64 // when the leader gave it to the holder
	// answered: the holder's FIN was taken at its node.
	answered bool
	finished bool // and by the leader
	late     bool // there was a FIN
	gone     bool // emptied, or given up: anything goes
}

// rSub is a consumer.
type rSub struct {
	*Subscription
	node    *fleetNode
	window  int
	have    []at
	stopped bool
	rung    bool
	busy    bool
}

// rModel is a fleet beside its model.
type rModel struct {
	*fleet
	t      *rapid.T
	msgs   map[at]*rMessage
	subs   []*rSub
	paused bool
	abrupt bool // consumers close abnormally
	lossy  bool // requests and replies get lost
	// emptied: a node that follows nobody at that moment does not hear of it, and its
	// consumers' windows are open again only when the time of their messages is over.
	emptied bool
	seen    rCoverage
}

// rCoverage counts what all runs together have reached.
type rCoverage struct{ delivered, relayed, moved, adopted, lost, again, returned int }

func (c *rCoverage) add(x rCoverage) {
	c.delivered += x.delivered
	c.relayed += x.relayed
	c.moved += x.moved
	c.adopted += x.adopted
	c.lost += x.lost
	c.again += x.again
	c.returned += x.returned
}

func newRModel(t *rapid.T, plant func(*fleet)) *rModel {
	nodes := rapid.IntRange(2, 4).Draw(t, "nodes")
	parts := rapid.IntRange(1, 3).Draw(t, "partitions")
	was := defaultLimits
	defaultLimits = limits{ring: 64, old: 40, due: 3, gaps: 6}
	defer func() { defaultLimits = was }()
	m := &rModel{t: t, msgs: make(map[at]*rMessage), fleet: newFleet(nodes, parts, Config{})}
	m.abrupt = rapid.IntRange(0, 3).Draw(t, "abrupt") == 0
	m.lossy = rapid.Bool().Draw(t, "lossy")
	m.trace = t.Logf
	m.delivered = func(part int32, offset int64, n uint16, asked int64) {
		m.give(at{part, offset}, n, asked)
		m.seen.relayed++
	}
	m.answered = func(part int32, offset int64, kind OpKind) {
		switch kind {
		case Finish:
			m.msgs[at{part, offset}].finished = true
		case Return:
			m.seen.returned++
		}
	}
	if plant != nil {
		plant(m.fleet)
	}
	for p := range m.parts {
		m.lead(t, p, rapid.IntRange(0, nodes-1).Draw(t, "leader"))
	}
	m.carry(t)
	return m
}

func (m *rModel) node(t *rapid.T) *fleetNode {
	return m.nodes[rapid.IntRange(0, len(m.nodes)-1).Draw(t, "node")]
}

func (m *rModel) part(t *rapid.T) int { return rapid.IntRange(0, len(m.parts)-1).Draw(t, "partition") }

func (m *rModel) sub(t *rapid.T) *rSub {
	if len(m.subs) == 0 {
		t.Skip("no consumer")
	}
	return m.subs[rapid.IntRange(0, len(m.subs)-1).Draw(t, "consumer")]
}

// link is one of those between nodes that may do something.
func (m *rModel) link(t *rapid.T, may func(*link) bool) *link {
	var ls []*link
	m.all(func(l *link) {
		if may(l) {
			ls = append(ls, l)
		}
	})
	if len(ls) == 0 {
		t.Skip("no link")
	}
	l := ls[rapid.IntRange(0, len(ls)-1).Draw(t, "link")]
	t.Logf("link %d>%d: out %v, answered %v, rests %v, rings %v", l.from.id, l.to.id, l.out, l.reply != nil, l.rests, l.rings)
	return l
}

// patientRounds is how often the model does the same until it takes that for endless.
const patientRounds = 10_000

// settle carries all that is on its way, and has consumers take what there is.
func (m *rModel) settle(t *rapid.T) {
	for round, again := 0, true; again; round++ {
		if round > patientRounds {
			t.Fatalf("consumers never stop taking")
		}
		m.carry(t)
		again = false
		for _, s := range m.subs {
			if s.rung || s.busy {
				m.takeFor(t, s)
				again = true
			}
		}
	}
}

func (m *rModel) rare(t *rapid.T) {
	switch rapid.IntRange(0, 12).Draw(t, "rare") {
	case 0:
		m.stop(t)
	case 1, 2:
		m.close(t)
	case 3:
		m.empty(t)
	case 4:
		m.abandon(t)
	case 5, 6:
		m.pause(t)
	case 7:
		m.lapse(t)
	default:
		m.move(t)
	}
}

// check compares figures.
func (m *rModel) check(t *rapid.T) {
	for _, n := range m.nodes {
		var flying int64
		for _, s := range n.ch.subs {
			if s == nil {
				continue
			}
			count, promised := int64(0), int64(0)
			for _, list := range []slotList{s.inFlight, s.pulled} {
				for i := list.head; i != 0; i = n.ch.slots.slots[i].next {
					if count++; count > int64(len(n.ch.slots.slots)) {
						t.Fatalf("the list of %d has no end", s.id)
					}
					if e := &n.ch.slots.slots[i]; e.sub != s.id || e.state != stateInFlight {
						t.Fatalf("slot %+v in the list of %d", *e, s.id)
					} else if !n.ch.lanes[e.lane].remote {
						flying++
					}
				}
			}
			for _, mi := range s.mirrors {
				promised += mi.want + mi.pulling
			}
			if s.inFlightCount != count || s.promised != promised {
				t.Fatalf("in flight %d of %d, promised %d of %d", s.inFlightCount, count, s.promised, promised)
			}
		}
		for _, l := range n.ch.lanes {
			ahead := int64(0)
			for _, o := range l.looseOffsets() {
				i := l.loose.get(o)
				if n.ch.slots.slots[i].flags&flagAhead != 0 {
					ahead++
				}
			}
			if ahead != l.aheadCount {
				t.Fatalf("%d ahead of %d", l.aheadCount, ahead)
			}
		}
		if n.ch.inFlight != flying || n.ch.claimed < 0 || n.ch.waitingOpen < 0 {
			t.Fatalf("node %d: in flight %d of %d, claimed %d, waiting %d", n.id, n.ch.inFlight, flying, n.ch.claimed, n.ch.waitingOpen)
		}
	}
}

// end: with a network that works everything is finished soon.
func (m *rModel) end(t *rapid.T) {
	m.setPaused(false)
	for _, s := range m.subs {
		s.SetWindow(1)
	}
	if !slices.ContainsFunc(m.subs, func(s *rSub) bool { return !s.stopped }) {
		m.subscribeOne(t)
		m.subs[len(m.subs)-1].SetWindow(1)
	}
	for _, s := range m.subs {
		if s.window = 1; s.stopped {
			s.window = 0
		}
	}
	for p := range m.parts {
		if m.parts[p].leader < 0 {
			m.lead(t, p, 0)
		}
	}
	patience := 3 * time.Second
	if m.abrupt || m.emptied { // what is not the first attempt waits, or what was emptied
		patience = 5 * testTimeout
	}
	for waited := time.Duration(0); ; waited += 100 * time.Millisecond {
		for round, again := 0, true; again; round++ {
			if round > patientRounds {
				t.Fatalf("consumers never stop finishing")
			}
			again = false
			m.settle(t)
			m.check(t)
			for _, s := range m.subs {
				for len(s.have) > 0 {
					again = true
					m.finishOf(s, s.have[0])
				}
			}
			m.collect(t)
		}
		if m.allFinished() {
			break
		}
		if waited > patience {
			m.stuck(t)
		}
		m.clock.advance(100 * time.Millisecond)
	}
	m.check(t)
}

func (m *rModel) allFinished() bool {
	for _, p := range m.parts {
		if p.state.floor != p.limit || len(p.state.parked) > 0 {
			return false
		}
	}
	return true
}

func (m *rModel) stuck(t *rapid.T) {
	for p, part := range m.parts {
		t.Logf("partition %d: leader %d floor %d ranges %v parked %v limit %d cursor %d loose %d ready %d due %d shut %v",
			p, part.leader, part.state.floor, part.state.ranges.Ranges(), part.state.parked, part.limit,
			part.lane.cursor, part.lane.loose.len(), part.lane.readyCount, part.lane.dueCount, part.lane.shut)
	}
	for _, n := range m.nodes {
		for _, s := range n.ch.subs {
			if s != nil {
				t.Logf("node %d sub %d: window %d in flight %d promised %d inbox %d reserved %d state %d relayed %v credit %d",
					n.id, s.id, s.window, s.inFlightCount, s.promised, s.inbox.len(), s.reserved, s.state, s.relayed, s.credit)
				for _, mi := range s.mirrors {
					x := *mi
					x.r, x.s = nil, nil
					t.Logf("  mirror %+v", x)
				}
			}
		}
	}
	t.Fatalf("not all is finished")
}

// relayRun is one run of the model.
func relayRun(plant func(*fleet), reached *rCoverage) func(*rapid.T) {
	return func(t *rapid.T) {
		m := newRModel(t, plant)
		m.subscribe(t)
		m.subscribe(t)
		m.publishSome(t)
		t.Repeat(map[string]func(*rapid.T){
			"publish":   m.publishSome,
			"subscribe": m.subscribe,
			"window":    m.setWindow,
			"take":      m.take,
			"settle":    m.settle,
			"finish":    m.finishOne,
			"finish2":   m.finishOne,
			"requeue":   m.requeue,
			"touch":     m.touch,
			"hop":       m.hop,
			"hop2":      m.hop,
			"hop3":      m.hop,
			"forward":   m.forward,
			"upset":     m.upset,
			"lose":      m.lose,
			"begin":     m.beginOne,
			"follow":    m.followOne,
			"follow2":   m.followOne,
			"open":      m.openOne,
			"rare":      m.rare,
			"advance":   m.advance,
			"write":     m.write,
			"offer":     m.offer,
			"":          m.check,
		})
		m.end(t)
		reached.add(m.seen)
	}
}

// setRapid sets a flag of rapid unless the command line did.
func setRapid(t *testing.T, name, value string) {
	t.Helper()
	f := flag.Lookup("rapid." + name)
	was := f.Value.String()
	if was != f.DefValue {
		return
	}
	if err := flag.Set(f.Name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(f.Name, was) })
}

// TestRelaysAgainstModel runs consumers, nodes, leaders, time and a network that
// loses things at random.
func TestRelaysAgainstModel(t *testing.T) {
	setRapid(t, "steps", "150")
	setRapid(t, "checks", "300")
	var reached rCoverage
	rapid.Check(t, relayRun(nil, &reached))
	t.Logf("%+v", reached)
	if reached.relayed == 0 || reached.moved == 0 || reached.adopted == 0 || reached.lost == 0 || reached.again == 0 || reached.returned == 0 {
		t.Errorf("the test does not reach what it should: %+v", reached)
	}
}

// caught is a rapid.TB that only notes that a check failed.
type caught struct {
	testing.TB
	failed bool
}

func (c *caught) Errorf(string, ...any) { c.failed = true }
func (c *caught) Fatalf(string, ...any) { c.FailNow() }
func (c *caught) Fail()                 { c.failed = true }
func (c *caught) FailNow() {
	c.failed = true
	panic(c)
}
func (c *caught) Logf(string, ...any) {}
func (c *caught) Log(...any)          {}
func (c *caught) Failed() bool        { return c.failed }

// catches reports whether a run fails.
func catches(t *testing.T, run func(*rapid.T)) bool {
	t.Helper()
	c := &caught{TB: t}
	runs := 0
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(c) {
				panic(p)
			}
		}()
		rapid.Check(c, func(t *rapid.T) {
			runs++
			run(t)
		})
	}()
	t.Logf("failed: %v, after %d runs", c.failed, runs)
	return c.failed
}

// TestRelayModelFindsPlantedBugs: leaders that do not do their part are found.
func TestRelayModelFindsPlantedBugs(t *testing.T) {
	setRapid(t, "steps", "150")
	setRapid(t, "shrinktime", "0s")
	setRapid(t, "nofailfile", "true")
	for name, plant := range map[string]func(*fleet){
		"none":                         nil,
		"not told what consumers hold": func(f *fleet) { f.noHolds = true },
		"keeps what was lost":          func(f *fleet) { f.noReopen = true },
		"opens before all have told":   func(f *fleet) { f.hasty = true },
		"loses answers":                func(f *fleet) { f.forgetful = true },
	} {
		t.Run(name, func(t *testing.T) {
			// The rarest is found once in some 40 runs, or 150 of half the length with -short,
			// when there is a fifth of them. The first that finds it is the last.
			checks := 3000
			switch {
			case plant == nil:
				checks = 300
			case testing.Short():
				checks *= 5
			}
			setRapid(t, "checks", fmt.Sprint(checks))
			if found := catches(t, relayRun(plant, &rCoverage{})); found != (plant != nil) {
				t.Errorf("failed: %v", found)
			}
		})
	}
}
