//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// instant is nanoseconds since the history was begun. 0: has not happened.
type instant int64

func (i instant) String() string { return fmt.Sprintf("%.6fs", float64(i)/1e9) }

// attempt is one time that a publisher sends one message. A message whose
// outcome its publisher does not know is sent again as another attempt, with
// another body, so that what is in the log tells which of them it was.
type attempt struct {
	topic   uint8
	size    int32
	message int32  // of the publisher: attempts at the same message share it
	batch   uint32 // attempts of one publish share it
	session uint32 // the publisher's connection
	sent    instant
	acked   instant
	unknown instant // from here on the publisher knows that it does not know

	id        [16]byte // as first delivered anywhere
	timestamp int64    // 0: not delivered yet
}

// seen is what one channel has seen of one attempt.
type seen struct {
	deliveries  uint16
	first, last instant
	finished    instant // FIN sent; 0: not since the last delivery
}

// channelLog is what one channel's consumers have seen.
type channelLog struct {
	topic  uint8
	name   string
	seen   [][]seen
	newest int64 // highest timestamp of a first delivery
	// shared: it has several consumers at once, so nobody sees its order.
	shared bool
}

// late is a first delivery after one of a later message.
type late struct {
	m         rig.Number
	channel   *channelLog
	newest    int64
	delivered instant
}

// again is a delivery of what had been finished.
type again struct {
	m                   rig.Number
	channel             *channelLog
	finished, delivered instant
}

// span is a time in which what was finished may come again.
type span struct {
	from, to instant
	why      string
}

// violation is a broken promise.
type violation struct {
	kind string
	m    rig.Number
	text string
}

// event is one line of the history that is no message's.
type event struct {
	at   instant
	text string
}

// history writes down everything that the clients did and saw, and checks it.
type history struct {
	topics []string
	begun  time.Time

	mu         sync.Mutex
	attempts   [][]attempt // by publisher
	batches    uint32
	channels   []*channelLog
	acks       [][]instant // by topic, rising
	again      []again
	spans      []span
	late       []late
	events     []event
	violations []violation
	tally      tally
}

// tally counts what the figures say.
type tally struct {
	acked, unknown, repeats int // attempts; repeats: messages sent again
	doubled                 int // messages that are in the log more than once, all but one without an answer
	deliveries, redelivered int
	slowest                 time.Duration // acknowledged publish
}

func newHistory(publishers int, topics ...string) *history {
	return &history{
		topics: topics, begun: time.Now().Add(-time.Millisecond),
		attempts: make([][]attempt, publishers), acks: make([][]instant, len(topics)),
	}
}

func (h *history) addChannel(topic int, name string) *channelLog {
	c := &channelLog{topic: uint8(topic), name: name, seen: make([][]seen, len(h.attempts))}
	h.channels = append(h.channels, c)
	return c
}

func (h *history) now() instant { return instant(time.Since(h.begun)) }

// mark notes what the test did, or saw of the cluster.
func (h *history) mark(format string, args ...any) instant {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.now()
	h.events = append(h.events, event{at, fmt.Sprintf(format, args...)})
	return at
}

// excuse notes a time in which what was finished may come again.
func (h *history) excuse(from, to instant, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spans = append(h.spans, span{from, to, why})
}

// --- publishers

// send writes down a publish that is about to be written: the places of its
// messages in their publisher's order, which are those of the first attempts.
func (h *history) send(publisher, topic int, session uint32, messages []int32, sizes []int32) (first rig.Number) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batches++
	at, seq := h.now(), len(h.attempts[publisher])
	for i, m := range messages {
		h.attempts[publisher] = append(h.attempts[publisher], attempt{
			topic: uint8(topic), size: sizes[i], message: m, batch: h.batches, session: session, sent: at,
		})
	}
	for _, c := range h.channels {
		c.seen[publisher] = append(c.seen[publisher], make([]seen, len(messages))...)
	}
	return rig.NumberOf(publisher, seq)
}

// acknowledge writes down that n attempts were acknowledged.
func (h *history) acknowledge(first rig.Number, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.now()
	for i := range n {
		a := &h.attempts[first.Publisher()][first.Seq()+i]
		a.acked = at
		h.tally.slowest = max(h.tally.slowest, time.Duration(at-a.sent))
		h.tally.acked++
		if i == 0 {
			h.acks[a.topic] = append(h.acks[a.topic], at)
		}
	}
}

// giveUp writes down that the outcome of n attempts stays unknown.
func (h *history) giveUp(first rig.Number, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.now()
	for i := range n {
		h.attempts[first.Publisher()][first.Seq()+i].unknown = at
		h.tally.unknown++
	}
}

// --- consumers

// deliver writes down a delivery and checks what can be checked at once.
func (h *history) deliver(c *channelLog, d rig.Delivered) (rig.Number, error) {
	m, err := rig.ReadBody(d.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && (m.Publisher() >= len(h.attempts) || m.Seq() >= len(h.attempts[m.Publisher()])) {
		err = fmt.Errorf("message %v was never sent", m)
	}
	if err != nil {
		h.violate("alien", m, "%v: %.60q", err, d.Body)
		return m, err
	}
	a, s, at := h.attempt(m), &c.seen[m.Publisher()][m.Seq()], h.now()
	h.tally.deliveries++
	switch {
	case int32(len(d.Body)) != a.size || !bytes.Equal(d.Body, rig.Body(m, len(d.Body))):
		h.violate("alien", m, "body of %d bytes is not the %d bytes that were sent", len(d.Body), a.size)
	case a.topic != c.topic:
		h.violate("alien", m, "sent to topic %s, came from %s", h.topics[a.topic], h.topics[c.topic])
	case a.timestamp == 0:
		a.id, a.timestamp = d.ID, d.Timestamp
	case a.id != d.ID || a.timestamp != d.Timestamp:
		h.violate("doubled", m, "id %s timestamp %d, and id %s timestamp %d", a.id[:], a.timestamp, d.ID[:], d.Timestamp)
	}
	if s.deliveries == 0 {
		if d.Timestamp <= c.newest && !c.shared {
			h.late = append(h.late, late{m, c, c.newest, at})
		}
		c.newest, s.first = max(c.newest, d.Timestamp), at
	} else {
		h.tally.redelivered++
		if s.finished != 0 {
			h.again = append(h.again, again{m, c, s.finished, at})
		}
	}
	s.deliveries++
	s.last, s.finished = at, 0
	return m, nil
}

// finish writes down that FIN is about to be sent.
func (h *history) finish(c *channelLog, m rig.Number) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.seen[m.Publisher()][m.Seq()].finished = h.now()
}

// unfinish writes down that the server has refused the FIN of a message id.
func (h *history) unfinish(c *channelLog, m rig.Number) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.seen[m.Publisher()][m.Seq()].finished = 0
	// it may have come again already
	h.again = slices.DeleteFunc(h.again, func(g again) bool { return g.m == m && g.channel == c })
}

// unsure writes down that a connection has ended: FINs that were sent right
// before may not have arrived.
func (h *history) unsure(c *channelLog, names map[string]rig.Number) {
	h.mu.Lock()
	defer h.mu.Unlock()
	since := h.now() - changeWindow
	for _, m := range names {
		if s := &c.seen[m.Publisher()][m.Seq()]; s.finished > since {
			s.finished = 0
		}
	}
}

// missing is how many messages that were acknowledged by then have not come on
// every channel.
func (h *history) missing(by instant) (count int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.attempts {
		for seq := range h.attempts[p] {
			if a := &h.attempts[p][seq]; a.acked != 0 && a.acked <= by && slices.ContainsFunc(h.channels, func(c *channelLog) bool {
				return c.topic == a.topic && c.seen[p][seq].deliveries == 0
			}) {
				count++
			}
		}
	}
	return count
}

// --- checks of the whole

// check compares what was promised with what came; call it once, when the
// channels are empty.
func (h *history) check() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.attempts {
		h.checkLost(p)
		h.checkTorn(p)
		h.checkSessions(p)
		h.checkRepeats(p)
	}
	for topic := range h.topics {
		h.checkRealTime(topic)
	}
	h.checkAgain()
	h.checkLate()
}

// goneWindow is how long a message may stay with a node that is gone, or with a
// connection that is, before another consumer gets it: a lease, and some.
const goneWindow = instant(8 * time.Second)

// checkLate wants an excuse for every message that came behind a later one: it may
// have been on its way to a consumer that never got it.
func (h *history) checkLate() {
	for _, l := range h.late {
		if !slices.ContainsFunc(h.spans, func(s span) bool { return s.from <= l.delivered && l.delivered <= s.to+goneWindow }) {
			h.violate("disorder", l.m, "channel %s/%s: first delivery with timestamp %d after %d", h.topics[l.channel.topic], l.channel.name,
				h.attempt(l.m).timestamp, l.newest)
		}
	}
}

func (h *history) attempt(m rig.Number) *attempt { return &h.attempts[m.Publisher()][m.Seq()] }

func (h *history) checkLost(p int) {
	for seq := range h.attempts[p] {
		a := &h.attempts[p][seq]
		for _, c := range h.channels {
			if c.topic == a.topic && a.acked != 0 && c.seen[p][seq].deliveries == 0 {
				h.violate("lost", rig.NumberOf(p, seq), "acknowledged at %v, never came on channel %s/%s", a.acked, h.topics[c.topic], c.name)
			}
		}
	}
}

// checkTorn wants each publish to be in the log whole or not at all, for every
// channel.
func (h *history) checkTorn(p int) {
	for from := 0; from < len(h.attempts[p]); {
		first, to := &h.attempts[p][from], from+1
		for to < len(h.attempts[p]) && h.attempts[p][to].batch == first.batch {
			to++
		}
		came, missing := 0, 0
		for _, c := range h.channels {
			for seq := from; seq < to && c.topic == first.topic; seq++ {
				if c.seen[p][seq].deliveries > 0 {
					came++
				} else {
					missing++
				}
			}
		}
		if first.acked == 0 && came > 0 && missing > 0 {
			h.violate("torn", rig.NumberOf(p, from), "publish of %d messages without an answer: %d deliveries, %d missing", to-from, came, missing)
		}
		from = to
	}
}

// checkSessions wants the order of each connection to be that of the log.
func (h *history) checkSessions(p int) {
	newest := make(map[[2]uint32]int64) // by session and topic
	for seq := range h.attempts[p] {
		a := &h.attempts[p][seq]
		if a.timestamp == 0 {
			continue
		}
		key := [2]uint32{a.session, uint32(a.topic)}
		if a.timestamp <= newest[key] {
			h.violate("disorder", rig.NumberOf(p, seq), "its connection sent a message with timestamp %d before, this one has %d", newest[key], a.timestamp)
		}
		newest[key] = max(newest[key], a.timestamp)
	}
}

// checkRepeats wants messages to be in the log once, unless their publisher did
// not know and sent them again.
func (h *history) checkRepeats(p int) {
	type times struct{ sent, came int }
	all := make(map[int32]times)
	for seq := range h.attempts[p] {
		a := &h.attempts[p][seq]
		n := all[a.message]
		n.sent++
		if a.timestamp != 0 {
			n.came++
		}
		all[a.message] = n
	}
	for _, n := range all {
		if n.sent > 1 {
			h.tally.repeats++
		}
		if n.came > 1 {
			h.tally.doubled++
		}
	}
}

// checkRealTime wants every message to stand in the log behind those that had
// been acknowledged before it was sent, whoever sent them and wherever.
func (h *history) checkRealTime(topic int) {
	log := h.logOf(topic)
	earliest, by := instant(1<<62), rig.Number(0) // acknowledged, of those behind
	for _, m := range slices.Backward(log) {
		a := h.attempt(m)
		if a.sent > earliest {
			h.violate("disorder", m, "sent at %v, stands before %v, which was acknowledged at %v", a.sent, by, earliest)
		}
		if a.acked != 0 && a.acked < earliest {
			earliest, by = a.acked, m
		}
	}
}

// logOf is a topic's partition as it was delivered.
func (h *history) logOf(topic int) (log []rig.Number) {
	for p := range h.attempts {
		for seq := range h.attempts[p] {
			if a := &h.attempts[p][seq]; int(a.topic) == topic && a.timestamp != 0 {
				log = append(log, rig.NumberOf(p, seq))
			}
		}
	}
	slices.SortFunc(log, func(x, y rig.Number) int {
		return int(min(max(h.attempt(x).timestamp-h.attempt(y).timestamp, -1), 1))
	})
	return log
}

// firstRead is when a message was first delivered on any channel; 0: never.
func (h *history) firstRead(p, seq int) (first instant) {
	for _, c := range h.channels {
		if c.topic != h.attempts[p][seq].topic {
			continue
		}
		if at := c.seen[p][seq].first; at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// checkAgain wants an excuse for every message that came again after it was
// finished.
func (h *history) checkAgain() {
	for _, g := range h.again {
		if !slices.ContainsFunc(h.spans, func(s span) bool { return s.from <= g.finished && g.finished <= s.to }) {
			h.violate("undead", g.m, "channel %s/%s: finished at %v, came again at %v", h.topics[g.channel.topic], g.channel.name, g.finished, g.delivered)
		}
	}
}

// gap is the longest time in [from, to] in which no publish of the topic was
// acknowledged.
func (h *history) gap(topic int, from, to instant) (longest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := from
	for _, at := range h.acks[topic] {
		if at > last && at < to {
			longest, last = max(longest, time.Duration(at-last)), at
		}
	}
	return max(longest, time.Duration(to-last))
}

// --- report

func (h *history) violate(kind string, m rig.Number, format string, args ...any) {
	h.violations = append(h.violations, violation{kind, m, fmt.Sprintf(format, args...)})
}

// refused notes an answer that the cluster should not have given.
func (h *history) refused(m rig.Number, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.violate("refused", m, format, args...)
}

// kinds counts the violations by kind.
func (h *history) kinds() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := make(map[string]int)
	for _, v := range h.violations {
		n[v.kind]++
	}
	return n
}

// report describes the first violations of each kind and what happened around
// them.
func (h *history) report() string {
	n := h.kinds()
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "violations: %v\n", n)
	told := make(map[string]int)
	for _, v := range h.violations {
		if told[v.kind]++; told[v.kind] > 3 {
			continue
		}
		fmt.Fprintf(&b, "%s: message %v: %s\n", v.kind, v.m, v.text)
		if v.m.Publisher() < len(h.attempts) && v.m.Seq() < len(h.attempts[v.m.Publisher()]) {
			a := h.attempt(v.m)
			fmt.Fprintf(&b, "    topic %s, session %d, batch %d: sent %v, acknowledged %v, given up %v, timestamp %d\n",
				h.topics[a.topic], a.session, a.batch, a.sent, a.acked, a.unknown, a.timestamp)
			for _, c := range h.channels {
				if c.topic == a.topic {
					s := c.seen[v.m.Publisher()][v.m.Seq()]
					fmt.Fprintf(&b, "    channel %s: %d deliveries, last %v, finished %v\n", c.name, s.deliveries, s.last, s.finished)
				}
			}
		}
	}
	b.WriteString("what happened:\n")
	for _, e := range h.events[max(0, len(h.events)-500):] {
		fmt.Fprintf(&b, "    %v  %s\n", e.at, e.text)
	}
	return b.String()
}
