package origin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// modelSeeds is how many histories are played; TIDINGS_ORIGIN_SEEDS sets another
// number.
func modelSeeds() int {
	if n, err := strconv.Atoi(os.Getenv("TIDINGS_ORIGIN_SEEDS")); err == nil {
		return n
	}
	return 400
}

// world is an Origin, three nodes of which one leads and others may think so, and
// links that lose, break and reorder what is told. The origin's own node is 1.
type world struct {
	t      *testing.T
	r      *rand.Rand
	origin *Origin
	now    int64

	// The shard as of its log: what is in it, and the last number.
	log        []int
	epoch, seq uint64
	mapping    uint32             // what came by less is refused
	refused    map[[2]uint64]bool // by epoch and number
	leader     int                // 0: none
	nodes      [4]leaderModel

	sent    []*inLink // calls on their way there, per link in order
	replies []func()  // on their way back, in no order
	told    map[int]error
	added   int
	quiet   bool // no more faults

	duplicates, gaps, holes, lost, refusals, moved int
}

// leaderModel is one node: what it has planned if it takes itself for the leader.
type leaderModel struct {
	leads      bool
	epoch, seq uint64
	flight     []inFlight
	link       int // how often its link broke
}

// inFlight is a publish in a leader's log that is not committed, or (dup) one that
// is answered when all before it are.
type inFlight struct {
	link   partition.Link
	id     int
	by     uint32 // mapping
	dup    bool
	answer func(Answer)
}

type inLink struct {
	call *Call
	to   int
	link int
	ids  []int
	by   []uint32
}

func (w *world) LocalDone(*Local, int64, error) {}

type publisher struct {
	w  *world
	id int
}

func (p publisher) Published(_ int64, err error) {
	if before, twice := p.w.told[p.id]; twice {
		p.w.t.Fatalf("publish %d is told %v after %v", p.id, err, before)
	}
	p.w.told[p.id] = err
}

// ackLeader reports whether a publish is acknowledged by the leader alone, and so
// may be lost with it.
func ackLeader(id int) bool { return id%5 == 0 }

// takeBack takes a publish that was moved.
func (w *world) takeBack(p *partition.Publish) {
	id := int(p.Topic)
	publisher{w, id}.Published(0, fault.Moved)
	w.moved++
	for before := 1; before < id; before++ {
		if _, told := w.told[before]; !told {
			w.t.Fatalf("publish %d is given back before %d is answered", id, before)
		}
	}
	if string(p.Messages[0].Body) != "x" || p.Mapping == 0 {
		w.t.Fatalf("publish %d is given back as %+v", id, p)
	}
}

func (w *world) add() {
	w.added++
	id := w.added
	p := &partition.Publish{
		Topic: uint64(id), Messages: []partition.Message{{Body: []byte("x")}}, Done: publisher{w, id}, AckLeader: ackLeader(id),
	}
	if !ackLeader(id) && w.r.IntN(2) == 0 {
		p.Mapping, p.Moved = w.mapping, w.takeBack
	}
	if err := w.origin.Add(p, "orders", w.now); err != nil {
		w.told[id] = err
		return
	}
	w.pass(true)
}

// pass is the shell's pass: what is next goes to the machine of node 1.
func (w *world) pass(adding bool) {
	for l := w.origin.NextLocal(w.now); l != nil; l = w.origin.NextLocal(w.now) {
		if err := w.admission(1); err != nil {
			if id := int(l.Topic); w.origin.RefuseLocal(l, err, adding, w.now) {
				w.told[id] = err
			}
			continue
		}
		w.plan(1, l.Link, int(l.Topic), l.Mapping, func(a Answer) {
			w.origin.AnswerLocal(l, a.Base, a.Err, w.now)
		})
	}
}

// admission is why a node takes nothing now.
func (w *world) admission(n int) error {
	switch {
	case !w.nodes[n].leads:
		return fault.NotLeader
	case w.quiet:
		return nil
	}
	switch w.r.IntN(12) {
	case 0:
		w.refusals++
		return fault.DiskReserve
	case 1:
		return fault.Overloaded
	}
	return nil
}

// plan is what a leader does with a publish that it has taken.
func (w *world) plan(n int, link partition.Link, id int, by uint32, answer func(Answer)) {
	l := &w.nodes[n]
	f := inFlight{link: link, id: id, by: by, answer: answer}
	switch {
	case link.Epoch == l.epoch && link.Seq <= l.seq:
		f.dup = true
		w.duplicates++
	case link.Epoch == l.epoch && (link.Seq == l.seq+1 || link.Oldest), link.Epoch > l.epoch && (link.Seq == 1 || link.Oldest):
		if link.Epoch == l.epoch && link.Seq > l.seq+1 {
			w.holes++
		}
		l.epoch, l.seq = link.Epoch, link.Seq
		if ackLeader(id) {
			answer(Answer{Fate: Done, Base: -1})
			f.answer = func(Answer) {}
		}
	default:
		w.gaps++
		answer(Answer{Fate: NotUsed, Err: fault.OutOfOrder})
		return
	}
	l.flight = append(l.flight, f)
}

// commit makes the oldest in flight of the real leader fact.
func (w *world) commit() {
	l := &w.nodes[w.leader]
	if w.leader == 0 || len(l.flight) == 0 {
		return
	}
	f := l.flight[0]
	l.flight = l.flight[1:]
	f.answer(w.apply(f))
}

func (w *world) apply(f inFlight) Answer {
	if f.dup {
		if w.refused[[2]uint64{f.link.Epoch, f.link.Seq}] && f.by > 0 {
			return Answer{Fate: Refused, Err: fault.Moved}
		}
		if f.link.Epoch == w.epoch && f.link.Seq <= w.seq {
			return Answer{Fate: Done, Base: -1}
		}
		return Answer{Fate: Unknown, Err: fault.NotLeader}
	}
	w.epoch, w.seq = f.link.Epoch, f.link.Seq
	if f.by > 0 && f.by < w.mapping {
		w.refused[[2]uint64{f.link.Epoch, f.link.Seq}] = true
		return Answer{Fate: Refused, Err: fault.Moved}
	}
	w.log = append(w.log, f.id)
	return Answer{Fate: Done, Base: int64(len(w.log))}
}

// elect makes a node the leader: some of what the old one had in flight is in its
// log.
func (w *world) elect(n int) {
	if old := w.leader; old != 0 && old != n {
		flight := w.nodes[old].flight
		keep := w.r.IntN(len(flight) + 1)
		for _, f := range flight[:keep] {
			if !f.dup {
				w.apply(f)
			}
		}
		if w.r.IntN(2) == 0 || n == 0 {
			w.stepDown(old)
		} // else it takes itself for the leader for a while
	}
	w.leader = n
	if n != 0 {
		w.stepDown(n)
		w.nodes[n].leads = true
		w.nodes[n].epoch, w.nodes[n].seq = w.epoch, w.seq
	}
}

// stepDown has a node learn that it leads no more.
func (w *world) stepDown(n int) {
	l := &w.nodes[n]
	l.leads = false
	flight := l.flight
	l.flight = nil
	for _, f := range flight {
		f.answer(Answer{Fate: Unknown, Err: fault.NotLeader})
	}
}

// call takes the next call from the origin and puts it on its link.
func (w *world) call() {
	c := w.origin.Next(w.now)
	if c == nil {
		return
	}
	q, err := DecodeRequest(c.Encode())
	if err != nil || len(q.Publishes) != c.Count() || q.Publishes[0].Link != c.link {
		w.t.Fatalf("request of %d does not come back: %+v, %v", c.Count(), q, err)
	}
	x := &inLink{call: c, to: int(c.Leader), link: w.nodes[c.Leader].link}
	for i := range q.Publishes {
		x.ids = append(x.ids, int(q.Publishes[i].Topic))
		x.by = append(x.by, q.Publishes[i].Mapping)
	}
	if !w.quiet && w.r.IntN(20) == 0 {
		w.origin.Answer(c, nil, errors.New("no link"), true, w.now)
		return
	}
	w.sent = append(w.sent, x)
}

// deliver takes a call off a link, the oldest of its node.
func (w *world) deliver() {
	if len(w.sent) == 0 {
		return
	}
	at := w.r.IntN(len(w.sent))
	for i, x := range w.sent {
		if x.to == w.sent[at].to {
			at = i
			break
		}
	}
	x := w.sent[at]
	w.sent = append(w.sent[:at], w.sent[at+1:]...)
	answers := make([]Answer, len(x.ids))
	left := len(x.ids)
	one := func(i int, a Answer) {
		answers[i] = a
		if left--; left > 0 {
			return
		}
		reply := EncodeAnswers(answers)
		w.replies = append(w.replies, func() {
			back, err := DecodeAnswers(reply, len(answers))
			if err != nil {
				w.t.Fatal(err)
			}
			w.origin.Answer(x.call, back, nil, false, w.now)
		})
	}
	refused := false
	for i, id := range x.ids {
		err := error(fault.OutOfOrder)
		if !refused {
			err = w.admission(x.to)
		}
		if err != nil {
			refused = true
			one(i, Answer{Fate: NotUsed, Err: err})
			continue
		}
		link := x.call.link
		link.Seq += uint64(i)
		link.Oldest = link.Oldest && i == 0
		w.plan(x.to, link, id, x.by[i], func(a Answer) { one(i, a) })
	}
}

// lose breaks the link to a node: what is on it is lost, or comes late, and the
// origin does not know which.
func (w *world) lose() {
	to := 2 + w.r.IntN(2)
	w.nodes[to].link++
	for _, x := range w.sent {
		if x.to == to && w.r.IntN(2) == 0 {
			w.lost++
			w.origin.Answer(x.call, nil, errors.New("link is gone"), false, w.now)
			x.call = &Call{link: x.call.link, run: 0} // its answer goes nowhere
		}
	}
}

func (w *world) reply() {
	if len(w.replies) == 0 {
		return
	}
	at := w.r.IntN(len(w.replies))
	f := w.replies[at]
	w.replies = append(w.replies[:at], w.replies[at+1:]...)
	f()
}

// tick is the shell's step.
func (w *world) tick(d time.Duration) {
	w.now += int64(d)
	w.origin.Tick(w.now)
	w.pass(false)
	w.tell()
}

func (w *world) tell() {
	for _, o := range w.origin.Outcomes(nil) {
		o.Tell()
	}
}

// inform tells the origin who leads, perhaps wrongly.
func (w *world) inform() {
	n := w.leader
	if !w.quiet && w.r.IntN(4) == 0 {
		n = w.r.IntN(4)
	}
	w.origin.Lead(uint64(n), n == 1 && w.nodes[1].leads, w.now)
}

func (w *world) step() {
	switch k := w.r.IntN(100); {
	case k < 25:
		w.add()
	case k < 45:
		w.call()
	case k < 60:
		w.deliver()
	case k < 75:
		w.commit()
	case k < 87:
		w.reply()
	case k < 89:
		w.elect(w.r.IntN(4))
	case k < 93:
		w.inform()
	case k < 94:
		w.lose()
	case k < 95:
		w.tick(time.Duration(w.r.IntN(3000)) * time.Millisecond)
	case k < 96 && w.r.IntN(4) == 0:
		w.mapping++
	case k < 96:
		w.stepDown(2 + w.r.IntN(2))
	default:
		w.tick(time.Duration(w.r.IntN(10)) * time.Millisecond)
	}
	w.tell()
}

// check is what must hold at the end.
func (w *world) check() {
	in := make(map[int]bool)
	last := 0
	for _, id := range w.log {
		if in[id] {
			w.t.Fatalf("publish %d is in the log twice", id)
		}
		if id < last {
			w.t.Fatalf("publish %d stands behind %d", id, last)
		}
		in[id], last = true, id
	}
	for id := 1; id <= w.added; id++ {
		err, told := w.told[id]
		switch {
		case !told:
			w.t.Fatalf("publish %d has no answer", id)
		case err == nil && !in[id] && !ackLeader(id):
			w.t.Fatalf("publish %d is acknowledged and not in the log", id)
		case err != nil && !errors.Is(err, ErrUnknown) && in[id]:
			w.t.Fatalf("publish %d is in the log, and was refused: %v", id, err)
		}
	}
}

// TestModel: whatever leaders and links do, nothing that is acknowledged is lost, but
// what the leader alone acknowledged; nothing is doubled or out of order, and what is refused for certain never comes.
func TestModel(t *testing.T) {
	var sum world
	var resent, raised uint64
	acknowledged, unknown := 0, 0
	for seed := range modelSeeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &world{t: t, r: rand.New(rand.NewPCG(uint64(seed), 4)), now: second, told: make(map[int]error), mapping: 1, refused: make(map[[2]uint64]bool)}
			w.origin = New(Options{Shard: 1, Producer: 9, CallBytes: 60}, w, w.now)
			for range 600 {
				w.step()
			}
			w.settle()
			w.check()
			sum.duplicates += w.duplicates
			sum.gaps += w.gaps
			sum.holes += w.holes
			sum.lost += w.lost
			sum.refusals += w.refusals
			sum.moved += w.moved
			resent += w.origin.Resent()
			raised += w.origin.Raised()
			for _, err := range w.told {
				if err == nil {
					acknowledged++
				} else if errors.Is(err, ErrUnknown) {
					unknown++
				}
			}
		})
	}
	t.Logf("%d acknowledged, %d unknown, %d resent, %d epochs given up, %d duplicates, %d gaps, %d holes, %d calls lost, %d refused, %d moved",
		acknowledged, unknown, resent, raised, sum.duplicates, sum.gaps, sum.holes, sum.lost, sum.refusals, sum.moved)
	for what, n := range map[string]int{
		"acknowledged": acknowledged, "unknown": unknown, "resent": int(resent), "epochs": int(raised),
		"duplicates": sum.duplicates, "gaps": sum.gaps, "holes": sum.holes, "lost": sum.lost, "refusals": sum.refusals, "moved": sum.moved,
	} {
		if n == 0 {
			t.Errorf("no %s in any history", what)
		}
	}
}

// settle ends the faults and lets everything come to rest.
func (w *world) settle() {
	w.quiet = true
	w.elect(2)
	for n := 1; n < 4; n++ {
		if n != 2 {
			w.stepDown(n)
		}
	}
	w.origin.Lead(0, false, w.now)
	w.inform()
	for range 5 {
		w.add()
	}
	for range 400 {
		w.call()
		w.deliver()
		w.commit()
		w.reply()
		w.tick(time.Millisecond)
	}
	for id := w.added - 4; id <= w.added; id++ {
		if err, told := w.told[id]; !told || err != nil {
			w.t.Fatalf("publish %d of the quiet time: %v, %v", id, told, err)
		}
	}
}
