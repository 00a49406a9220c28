//go:build linux

package kill

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// instant is nanoseconds since the ledger was opened. 0: has not happened.
type instant int64

func (i instant) String() string { return fmt.Sprintf("%.6fs", float64(i)/1e9) }

// message is what a publisher knows.
type message struct {
	topic uint8
	batch uint32 // messages of one publish share it
	size  int32
	delay time.Duration // asked for; 0: none
	sent  instant       // before the first byte was written
	acked instant       // after OK was read

	id        [16]byte // as first delivered anywhere
	timestamp int64    // 0: not delivered yet
}

// answers to a delivery
const (
	held     = iota // no answer (yet)
	finished        // FIN sent
	requeued        // REQ sent
)

// track is what one channel has seen of one message.
type track struct {
	first, last instant // deliveries
	answered    instant
	due         instant // after a REQ with a delay: not before
	deliveries  uint16
	attempts    uint16 // of the last delivery
	low         uint16 // what the count can't be lower than after a crash
	life        uint16 // of the last delivery
	answer      uint8
	dead        bool // counted as finished for certain
	sureRequeue bool // counted as requeued for certain
	parked      bool // it was deferred or requeued with a delay
}

// channelLog is what one channel's consumers have seen.
type channelLog struct {
	topic  uint8
	name   string
	single bool // one consumer: order is checked
	tracks [][]track
	newest int64 // highest timestamp of an ordinary first delivery
	wanted int64 // bytes sent in this life and not delivered here yet
}

func (c *channelLog) track(m rig.Number) *track { return &c.tracks[m.Publisher()][m.Seq()] }

// event is one line of a message's history.
type event struct {
	at       instant
	m        rig.Number
	kind     string
	channel  *channelLog
	attempts uint16
	detail   int64
}

// life is one process from start to end.
type life struct {
	started, served, ended instant
	cutoff                 instant // what the server had counted by then must last
}

// ledger writes down everything that the clients did and saw, and checks it.
type ledger struct {
	seed   uint64
	topics []string
	begun  time.Time

	mu         sync.Mutex
	room       *sync.Cond // rung when messages were delivered, or the load ends
	messages   [][]message
	batches    []uint32 // per publisher: the last batch
	channels   []*channelLog
	lives      []life
	events     []event
	violations []violation
	suspects   []suspect
	calm       bool // consumers finish everything at once
	ended      bool // publishers stop
	tally      tally
	lastAck    instant
	over       chan struct{} // closed when the life's load ends
	late       []lateSpan
	stalls     []lateSpan
	windows    []time.Duration // of each kill: what is redelivered from it is no fault
	patient    []bool          // by publisher: it waits for each answer
	cleared    []int           // per publisher: messages below were complete at a drain
}

// tally counts what the note line says.
type tally struct {
	kills, earlyKills       int
	acked, unknown          int // messages
	deliveries, redelivered int
	dead                    int // finished for certain at a kill
	requeuedSure            int
	deferred                int
	starved                 time.Duration
	slowestStart            time.Duration
	slowestSync             time.Duration
}

// violation is a broken promise.
type violation struct {
	kind string
	m    rig.Number
	text string
}

// suspect is an early delivery after a REQ that may turn out to have failed.
type suspect struct {
	consumer *consumer
	id       [16]byte
	violation
}

func newLedger(seed uint64, publishers int, topics ...string) *ledger {
	l := &ledger{
		seed: seed, topics: topics, begun: time.Now().Add(-time.Millisecond),
		messages: make([][]message, publishers), batches: make([]uint32, publishers), cleared: make([]int, publishers), patient: make([]bool, publishers),
	}
	l.room = sync.NewCond(&l.mu)
	return l
}

func (l *ledger) addChannel(topic int, name string, single bool) *channelLog {
	c := &channelLog{topic: uint8(topic), name: name, single: single, tracks: make([][]track, len(l.messages))}
	l.channels = append(l.channels, c)
	return c
}

func (l *ledger) now() instant { return instant(time.Since(l.begun)) }

// --- publishers

// plan is one publish: the sizes of its bodies, and a delay.
type plan struct {
	topic  int
	sizes  []int
	delay  time.Duration
	parcel int // bytes altogether
}

// send writes down a publish that is about to be written, and returns its
// messages. It waits while the consumers are too far behind; false: the load
// ends.
func (l *ledger) send(publisher int, p plan) (first rig.Number, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended && l.behind(p.topic) {
		l.room.Wait()
	}
	if l.ended {
		return 0, false
	}
	l.batches[publisher]++
	seq := len(l.messages[publisher])
	at := l.now()
	for i, size := range p.sizes {
		l.messages[publisher] = append(l.messages[publisher], message{
			topic: uint8(p.topic), batch: l.batches[publisher], size: int32(size), delay: p.delay, sent: at,
		})
		l.note(at, rig.NumberOf(publisher, seq+i), "sent", nil, 0, int64(size))
	}
	for _, c := range l.channels {
		c.tracks[publisher] = append(c.tracks[publisher], make([]track, len(p.sizes))...)
		if int(c.topic) == p.topic && p.delay == 0 {
			c.wanted += int64(p.parcel) + int64(len(p.sizes))*perMessage
		}
	}
	return rig.NumberOf(publisher, seq), true
}

// backlog is how many bytes publishers run ahead of a channel, each message
// counted with perMessage more.
const (
	backlog    = 4 << 20
	perMessage = 1 << 10
)

func (l *ledger) behind(topic int) bool {
	return slices.ContainsFunc(l.channels, func(c *channelLog) bool {
		return int(c.topic) == topic && c.wanted > backlog
	})
}

// acknowledge writes down the answer to the publish of n messages.
func (l *ledger) acknowledge(first rig.Number, n int, refusal string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.now()
	for i := range n {
		m := first + rig.Number(i)
		if refusal != "" {
			l.note(at, m, "refused", nil, 0, 0)
			continue
		}
		l.messages[m.Publisher()][m.Seq()].acked = at
		l.note(at, m, "acked", nil, 0, 0)
	}
	if refusal != "" && l.lives[l.current()].ended == 0 {
		l.violate("refused", first, "publish refused while the node serves: %s", refusal)
	}
	if refusal == "" {
		l.tally.acked += n
		l.lastAck = at
	}
}

// --- consumers

// deliver writes down a delivery, checks it, and says what the consumer is to
// do with it.
func (l *ledger) deliver(c *channelLog, by *consumer, d rig.Delivered) (rig.Number, error) {
	m, err := rig.ReadBody(d.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && (m.Publisher() >= len(l.messages) || m.Seq() >= len(l.messages[m.Publisher()])) {
		err = fmt.Errorf("message %v was never sent", m)
	}
	if err != nil {
		l.violate("alien", m, "%v: %.60q", err, d.Body)
		return m, err
	}
	at := l.now()
	msg, tr := &l.messages[m.Publisher()][m.Seq()], c.track(m)
	l.note(at, m, "delivered", c, d.Attempts, d.Timestamp)
	l.tally.deliveries++
	l.checkIdentity(m, msg, c, d)
	l.checkAttempts(m, tr, c, d.Attempts)
	if tr.deliveries == 0 {
		l.firstDelivery(m, msg, tr, c, d, at)
	} else {
		l.repeated(m, tr, c, by, d, at)
	}
	if !tr.before(l, d.Attempts) {
		low := d.Attempts // recovered: it was durable
		if tr.deliveries > 0 && tr.life == l.current() {
			low = tr.low
		}
		*tr = track{
			first: tr.first, last: at, deliveries: tr.deliveries, attempts: d.Attempts, low: low,
			life: l.current(), parked: tr.parked || msg.delay > 0,
		}
	}
	if tr.deliveries == 0 {
		tr.first = at
	}
	tr.deliveries++
	return m, nil
}

// before says that a delivery was overtaken by a later one on another
// connection, which its attempt count gives away.
func (tr *track) before(l *ledger, attempts uint16) bool {
	return tr.deliveries > 0 && tr.life == l.current() && attempts < tr.attempts
}

func (l *ledger) current() uint16 { return uint16(len(l.lives) - 1) }

// checkIdentity sees to it that a message is in the log once, unchanged.
func (l *ledger) checkIdentity(m rig.Number, msg *message, c *channelLog, d rig.Delivered) {
	if int32(len(d.Body)) != msg.size || !bytes.Equal(d.Body, rig.Body(m, len(d.Body))) {
		l.violate("alien", m, "body of %d bytes is not the %d bytes that were sent", len(d.Body), msg.size)
	}
	if msg.topic != c.topic {
		l.violate("alien", m, "sent to topic %s, came from %s", l.topics[msg.topic], l.topics[c.topic])
	}
	if msg.timestamp == 0 {
		msg.id, msg.timestamp = d.ID, d.Timestamp
	} else if msg.id != d.ID || msg.timestamp != d.Timestamp {
		l.violate("doubled", m, "id %s timestamp %d, and id %s timestamp %d", msg.id[:], msg.timestamp, d.ID[:], d.Timestamp)
	}
}

// timeoutSoon is how long a delivery must have been held for a timeout to be
// the reason of the next one.
const timeoutSoon = msgTimeout * 7 / 10

func (l *ledger) checkAttempts(m rig.Number, tr *track, c *channelLog, attempts uint16) {
	low, high := uint16(1), uint16(1)
	switch {
	case tr.deliveries == 0:
	case tr.life == l.current():
		if tr.before(l, attempts) {
			return
		}
		low, high = tr.attempts+1, tr.attempts+1
	default:
		end := l.lives[tr.life]
		low, high = tr.attempts, tr.attempts
		if end.cutoff < tr.last { // what raised it may not have been durable
			low = tr.low
		}
		if tr.parked { // what raised it while it was taken out of the parked set is not kept
			low = 1
		}
		if tr.answer == requeued || end.ended-tr.last > instant(timeoutSoon) {
			high++
		}
		if tr.sureRequeue {
			low = tr.attempts + 1
		}
		// deliveries that never reached us may have timed out in later lives
		for i := tr.life + 1; i < l.current(); i++ {
			if l.lives[i].ended-l.lives[i].served > instant(timeoutSoon) {
				high++
			}
		}
	}
	if attempts < low || attempts > high {
		l.violate("attempts", m, "channel %s/%s: attempts %d, want %d to %d", l.topics[c.topic], c.name, attempts, low, high)
	}
}

func (l *ledger) firstDelivery(m rig.Number, msg *message, tr *track, c *channelLog, d rig.Delivered, at instant) {
	if msg.delay == 0 {
		c.wanted -= int64(msg.size) + perMessage
		if c.wanted <= backlog {
			l.room.Broadcast()
		}
		if c.single && d.Timestamp <= c.newest {
			l.violate("disorder", m, "channel %s/%s: first delivery with timestamp %d after %d", l.topics[c.topic], c.name, d.Timestamp, c.newest)
		}
		c.newest = max(c.newest, d.Timestamp)
		return
	}
	l.tally.deferred++
	if due := msg.sent + instant(msg.delay); at < due {
		l.violate("early", m, "channel %s/%s: deferred to %v, came at %v", l.topics[c.topic], c.name, due, at)
	}
	// The server's clock started between sent and acked. Lateness is measured
	// where the server was up, with consumers, for a while before the due time.
	if now := l.lives[l.current()]; msg.acked != 0 && now.ended == 0 && !l.ended {
		due := msg.acked + instant(msg.delay)
		if now.served != 0 && due > now.served+instant(300*time.Millisecond) {
			l.late = append(l.late, lateSpan{due, at})
		}
	}
}

// lateSpan is a deferred message that came at or after its due time.
type lateSpan struct{ due, came instant }

// stall notes that this process got no processor between two instants.
func (l *ledger) stall(from, to instant) {
	if to-from < instant(10*time.Millisecond) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalls = append(l.stalls, lateSpan{from, to})
	l.tally.starved = max(l.tally.starved, time.Duration(to-from))
}

// lateness returns a quantile of how late deferred messages were, less the time
// in which this process itself could not run.
func (l *ledger) lateness(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []time.Duration
	for _, s := range l.late {
		late := max(s.came-s.due, 0)
		for _, stall := range l.stalls {
			late -= max(min(stall.came, s.came)-max(stall.due, s.due), 0)
		}
		all = append(all, time.Duration(late).Round(100*time.Microsecond))
	}
	return rig.Quantile(all, q)
}

// repeated checks a further delivery of the same message.
func (l *ledger) repeated(m rig.Number, tr *track, c *channelLog, by *consumer, d rig.Delivered, at instant) {
	if tr.life != l.current() && tr.answer == finished {
		l.tally.redelivered++
	}
	if tr.dead {
		l.violate("undead", m, "channel %s/%s: comes again although the server had counted it as finished", l.topics[c.topic], c.name)
	}
	if tr.due == 0 || at >= tr.due {
		return
	}
	v := violation{"early", m, fmt.Sprintf("channel %s/%s: requeued to %v, came at %v", l.topics[c.topic], c.name, tr.due, at)}
	switch {
	case tr.before(l, d.Attempts):
	case tr.life == l.current():
		l.suspects = append(l.suspects, suspect{by, d.ID, v})
	case tr.sureRequeue:
		l.violate(v.kind, v.m, "%s", v.text)
	}
}

// answer writes down what the consumer sends. It is called under the lock of
// the connection's writer, so that the order is the wire's.
func (l *ledger) answer(c *channelLog, m rig.Number, kind uint8, delay time.Duration) (at instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at = l.now()
	tr := c.track(m)
	tr.answer, tr.answered = kind, at
	if kind == requeued {
		if delay > 0 {
			tr.due, tr.parked = at+instant(delay), true
		}
		l.note(at, m, "REQ", c, tr.attempts, int64(delay))
		return at
	}
	l.note(at, m, "FIN", c, tr.attempts, 0)
	return at
}

// isCalm says that everything is to be finished at once.
func (l *ledger) isCalm() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calm
}

// --- lives

// begin opens the next life.
func (l *ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.calm, l.over = false, false, make(chan struct{})
	l.lives = append(l.lives, life{started: l.now()})
	l.note(l.now(), 0, "node started", nil, 0, int64(len(l.lives)-1))
	for _, c := range l.channels {
		c.wanted = 0
		for p := range c.tracks {
			for seq := l.cleared[p]; seq < len(c.tracks[p]); seq++ {
				if msg := &l.messages[p][seq]; msg.topic == c.topic && msg.delay == 0 && c.tracks[p][seq].deliveries == 0 && msg.acked != 0 {
					c.wanted += int64(msg.size) + perMessage
				}
			}
		}
	}
}

// serves is called when the consumers of the life are subscribed.
func (l *ledger) serves() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := &l.lives[l.current()]
	now.served = l.now()
	l.note(now.served, 0, "node serves", nil, 0, 0)
}

// kills is called right before the process is killed; longest is the longest
// sync that the server knows of.
func (l *ledger) kills(longest time.Duration, consumers []*consumer) {
	l.keep(l.endLife(func(at instant) time.Duration {
		l.tally.kills++
		l.tally.slowestSync = max(l.tally.slowestSync, longest)
		cut := max(longest+l.stalled(at), l.slowestPublish(at))
		open := 50*time.Millisecond + cut + l.starvedSince(at-instant(time.Second))
		l.windows = append(l.windows, open)
		return open
	}), consumers)
}

// stops is called right before the process is asked to end: all that it has
// counted must last.
func (l *ledger) stops(consumers []*consumer) {
	l.keep(l.endLife(func(instant) time.Duration { return 0 }), consumers)
}

// keep notes which answers must outlive the end of the process.
func (l *ledger) keep(cutoff instant, consumers []*consumer) {
	for _, c := range consumers { // before our own lock: see answer
		sure := c.counted(cutoff)
		l.mu.Lock()
		for _, a := range sure {
			l.certain(c.channel, a)
		}
		l.mu.Unlock()
	}
}

// endLife ends the life; what the server had counted longer ago than the
// window must last.
func (l *ledger) endLife(window func(at instant) time.Duration) (cutoff instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := &l.lives[l.current()]
	now.ended = l.now()
	open := window(now.ended)
	now.cutoff = max(now.ended-instant(open), 1)
	l.note(now.ended, 0, "node ended, window", nil, 0, int64(open))
	return now.cutoff
}

// certain notes that an answer outlives the kill.
func (l *ledger) certain(c *channelLog, a sentAnswer) {
	tr := c.track(a.m)
	if tr.answer != a.kind || tr.answered != a.at {
		return // delivered again since: the answer had come too late
	}
	if a.kind == finished {
		tr.dead = true
		l.tally.dead++
	} else {
		tr.sureRequeue = true
		l.tally.requeuedSure++
	}
}

// stalled is how long no publish was acknowledged although some waited: a sync
// may have been under way all that time.
func (l *ledger) stalled(at instant) time.Duration {
	since := at
	for p := range l.messages {
		if n := len(l.messages[p]); n > 0 && l.messages[p][n-1].acked == 0 && l.messages[p][n-1].sent > l.lives[l.current()].started {
			since = min(since, max(l.lastAck, l.lives[l.current()].served))
		}
	}
	return time.Duration(at - since)
}

// slowestPublish is the longest that a publisher which waits for each answer
// has waited in this life. What the server answers a FIN with goes the same way
// as a publish: more than one sync when segments of the log end or an entry gets
// one of its own.
func (l *ledger) slowestPublish(at instant) (most time.Duration) {
	for p, patient := range l.patient {
		if !patient {
			continue
		}
		for seq := len(l.messages[p]) - 1; seq >= l.cleared[p]; seq-- {
			msg := &l.messages[p][seq]
			if msg.sent < l.lives[l.current()].started {
				break
			}
			end := msg.acked
			if end == 0 {
				end = at
			}
			most = max(most, time.Duration(end-msg.sent))
		}
	}
	return most
}

// starvedSince is how long this process, and so most likely the node too, got no
// processor since an instant.
func (l *ledger) starvedSince(since instant) (sum time.Duration) {
	for _, s := range l.stalls {
		sum += time.Duration(max(s.came-max(s.due, since), 0))
	}
	return sum
}

// stopLoad lets publishers end.
func (l *ledger) stopLoad() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.over)
	l.room.Broadcast()
}

// settle is called when the life's connections are closed.
func (l *ledger) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.suspects {
		if s.consumer == nil || !s.consumer.hasFailed(s.id) {
			l.violate(s.kind, s.m, "%s", s.text)
		}
	}
	l.suspects = nil
}

// drained checks that everything has come, when all channels are empty.
func (l *ledger) drained() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.messages {
		l.checkPublisher(p)
		l.cleared[p] = len(l.messages[p])
	}
	l.note(l.now(), 0, "node drained", nil, 0, 0)
	if len(l.events) > eventsMax {
		l.events = l.events[:copy(l.events, l.events[len(l.events)/2:])]
	}
}

// eventsMax bounds the history that is kept from before the last drain.
const eventsMax = 2 << 20

func (l *ledger) checkPublisher(p int) {
	var newest [256]int64 // by topic
	for seq := l.cleared[p]; seq < len(l.messages[p]); {
		end := seq + 1
		for end < len(l.messages[p]) && l.messages[p][end].batch == l.messages[p][seq].batch {
			end++
		}
		l.checkBatch(p, seq, end)
		for ; seq < end; seq++ {
			msg := &l.messages[p][seq]
			if msg.timestamp == 0 {
				continue
			}
			if msg.timestamp <= newest[msg.topic] {
				l.violate("disorder", rig.NumberOf(p, seq), "its connection sent a message with timestamp %d before, this one has %d", newest[msg.topic], msg.timestamp)
			}
			newest[msg.topic] = msg.timestamp
		}
	}
}

// checkBatch checks the messages of one publish.
func (l *ledger) checkBatch(p, from, to int) {
	first := &l.messages[p][from]
	if first.acked == 0 {
		l.tally.unknown += to - from
	}
	came, missing := 0, 0
	for _, c := range l.channels {
		if c.topic != first.topic {
			continue
		}
		for seq := from; seq < to; seq++ {
			if c.tracks[p][seq].deliveries > 0 {
				came++
				continue
			}
			missing++
			if first.acked != 0 {
				l.violate("lost", rig.NumberOf(p, seq), "acknowledged at %v, never came on channel %s/%s", first.acked, l.topics[c.topic], c.name)
			}
		}
	}
	if first.acked == 0 && came > 0 && missing > 0 {
		l.violate("torn", rig.NumberOf(p, from), "publish of %d messages without an answer: %d deliveries, %d missing", to-from, came, missing)
	}
}

// --- report

func (l *ledger) note(at instant, m rig.Number, kind string, c *channelLog, attempts uint16, detail int64) {
	l.events = append(l.events, event{at, m, kind, c, attempts, detail})
}

func (l *ledger) violate(kind string, m rig.Number, format string, args ...any) {
	l.violations = append(l.violations, violation{kind, m, fmt.Sprintf(format, args...)})
}

// broken says whether anything is wrong so far.
func (l *ledger) broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.violations) > 0
}

// kinds counts the violations by kind.
func (l *ledger) kinds() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := make(map[string]int)
	for _, v := range l.violations {
		n[v.kind]++
	}
	return n
}

// report describes the first violations with the history of their messages.
func (l *ledger) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d violations\n", l.seed, len(l.violations))
	for _, v := range l.violations[:min(len(l.violations), 5)] {
		fmt.Fprintf(&b, "%s: message %v: %s\n", v.kind, v.m, v.text)
		l.history(&b, v.m)
	}
	return b.String()
}

// history prints what happened to a message, between the first and the last
// event of it.
func (l *ledger) history(b *strings.Builder, m rig.Number) {
	from, to := -1, -1
	for i, e := range l.events {
		if e.m == m && !e.ofNode() {
			if from < 0 {
				from = i
			}
			to = i
		}
	}
	for _, e := range l.events[max(from, 0) : to+1] {
		switch {
		case e.ofNode():
			fmt.Fprintf(b, "    %v  -- %s %d\n", e.at, e.kind, e.detail)
		case e.m == m:
			where := ""
			if e.channel != nil {
				where = fmt.Sprintf(" on %s/%s attempts %d", l.topics[e.channel.topic], e.channel.name, e.attempts)
			}
			fmt.Fprintf(b, "    %v  %s%s %d\n", e.at, e.kind, where, e.detail)
		}
	}
}

// ofNode says that the event is no message's.
func (e event) ofNode() bool { return strings.HasPrefix(e.kind, "node") }
