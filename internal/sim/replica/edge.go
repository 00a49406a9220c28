package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/spool"
	"github.com/tidings-io/tidings/internal/vfs"
)

// edge is a process beside publishers, on a disk of its own: the spool and its
// forwarder, stepped.
type edge struct {
	x    *edges
	id   int
	disk *vfs.Mem
	life int
	made [edgeTopics]int // messages so far

	size   int64  // of the spool
	window int    // bytes
	down   []bool // nodes that can't be reached
	turn   int    // whose it is among nodes

	// of this life; spool is nil while the edge is down
	spool *spool.Spool
	f     *spool.Forwarder
	calls []*edgeCall // without an answer
	open  int         // publishes without one
}

func newEdge(x *edges, id int) *edge {
	c := x.c
	e := &edge{
		x: x, id: id, disk: vfs.NewMem(), size: spool.MinSize << c.rng.IntN(2), window: 1 << (9 + c.rng.IntN(4)),
		down: make([]bool, len(c.nodes)),
	}
	c.check(e.start())
	return e
}

func (e *edge) up() bool { return e.spool != nil }

func (e *edge) clock() time.Time { return time.Unix(0, e.x.c.now) }

// start starts a life.
func (e *edge) start() error {
	e.life++
	e.turn = e.x.c.rng.IntN(len(e.down))
	s, err := spool.Open(spool.Options{FS: e.disk, Dir: "edge", Size: e.size, Window: e.window, Clock: e.clock})
	if err != nil {
		return err
	}
	e.spool, e.f = s, spool.NewForwarder(s, nil, nil)
	return nil
}

// restart starts the edge after a crash.
func (e *edge) restart() {
	c := e.x.c
	for {
		if c.net.lossy && c.chance(6) {
			e.disk.FailAfter(1+c.rng.Int64N(20), nil)
		}
		err := e.start()
		if err == nil {
			if e.spool.Stats("").Depth > 0 {
				c.Counts.EdgeReturns++
			}
			return
		}
		if !e.disk.Tripped() {
			c.failf("open edge %d: %v", e.id, err)
		}
		e.lose()
	}
}

// lose is what a power failure does to the disk.
func (e *edge) lose() {
	if loss := e.disk.Crash(e.x.c.rng); loss.Torn > 0 {
		e.x.c.Counts.EdgeTorn++
	}
}

// crash is a power failure; or the end of the process alone, which a disk survives.
func (e *edge) crash(killed bool) {
	c := e.x.c
	c.note(21, uint64(e.id))
	c.Counts.EdgeCrashes++
	for _, m := range e.x.msgs {
		if m.edge == e.id && m.outcome == open {
			m.outcome = unknown
			c.Counts.EdgeUnknown++
		}
	}
	e.spool, e.f, e.calls, e.open = nil, nil, nil, 0
	if killed {
		c.Counts.EdgeKills++
		e.disk.Kill()
		return
	}
	e.lose()
}

// did looks at the outcome of a step: an error is a crash within an operation, or a
// finding.
func (e *edge) did(what string, err error) bool {
	if e.disk.Tripped() {
		e.x.c.Counts.EdgeInOp++
		e.crash(false)
		return false
	}
	if err != nil {
		e.x.c.failf("%s at edge %d: %v", what, e.id, err)
	}
	return true
}

// publish gives the edge some publishes.
func (e *edge) publish(n int) {
	c := e.x.c
	topic, size := c.rng.IntN(edgeTopics), 20+c.rng.IntN(300)
	if n > 10 {
		size *= 3 // to fill it
	}
	for range n {
		if !e.up() {
			return
		}
		p := &edgePub{e: e, life: e.life}
		msgs := p.messages(topic, 1+c.rng.IntN(3), size)
		name := fmt.Sprintf("edges%d", topic)
		var err error
		e.open++
		if driven := c.chance(4); driven {
			if err = e.spool.Enqueue(name, msgs, p); err == nil {
				e.spool.Drive()
			}
		} else {
			err = e.spool.Publish(name, msgs, p)
		}
		if err != nil {
			p.Published(0, err)
			return
		}
		if !e.did("publish", nil) {
			return
		}
	}
}

// edgePub is a publish to an edge. It implements partition.Completion.
type edgePub struct {
	e    *edge
	life int
	msgs []*edgeMsg
}

// messages makes the publish's messages, of which each begins with its place among all.
func (p *edgePub) messages(topic, count, size int) (out []spool.Message) {
	x, e := p.e.x, p.e
	var m spool.Message
	key := x.c.rng.IntN(edgeKeys + 2)
	switch {
	case key < edgeKeys:
		m.Key = []byte{byte(key)}
	case key == edgeKeys:
		m.ID = binary.BigEndian.AppendUint32(nil, x.c.rng.Uint32())
	}
	name := m.Key
	if name == nil {
		name = m.ID
	}
	for range count {
		e.made[topic]++
		r := &edgeMsg{edge: e.id, topic: topic, number: e.made[topic], name: name}
		m.Body = make([]byte, 8+size)
		binary.BigEndian.PutUint64(m.Body, uint64(len(x.msgs)))
		if m.DueNs = 0; x.c.chance(8) {
			m.DueNs = x.c.now + x.c.rng.Int64N(20e9)
		}
		x.msgs, p.msgs = append(x.msgs, r), append(p.msgs, r)
		out = append(out, m)
	}
	return out
}

// Published implements partition.Completion.
func (p *edgePub) Published(_ int64, err error) {
	c := p.e.x.c
	if p.life != p.e.life || !p.e.up() {
		c.failf("edge %d answers for a life that has ended", p.e.id)
	}
	p.e.open--
	outcome := acked
	switch {
	case err == nil:
		c.Counts.EdgeAcked += int64(len(p.msgs))
		if c.edges.dark != 0 {
			c.Counts.EdgeInDark += int64(len(p.msgs))
		}
	case errors.Is(err, fault.SpoolFull):
		outcome = refused
		c.Counts.EdgeFull++
	case fault.CodeOf(err) == fault.Storage:
		outcome = unknown
	default:
		c.failf("publish to edge %d: %v", p.e.id, err)
	}
	for _, m := range p.msgs {
		if m.outcome != open {
			c.failf("%s is answered twice", m)
		}
		m.outcome = outcome
		c.note(22, uint64(m.edge), uint64(m.topic), uint64(m.number), uint64(outcome))
	}
}

func (e *edge) stepLog(k int) {
	if !e.up() {
		return
	}
	var err error
	log := e.spool.Log()
	switch k {
	case 0, 1:
		err = log.Write()
	case 2:
		err = log.Sync()
	case 3:
		log.Finish()
	case 4:
		_, err = log.Maintain()
	}
	e.did("step spool", err)
}

func (e *edge) tick() {
	if e.up() {
		e.did("tick", e.spool.Tick())
	}
}

// forward gives up calls that take too long, and sends what is next.
func (e *edge) forward() {
	if !e.up() {
		return
	}
	c := e.x.c
	for len(e.calls) > 0 && e.calls[0].deadline < c.now {
		c.Counts.EdgeTimeouts++
		e.calls[0].reply(0, fault.Timeout)
	}
	for {
		call, err := e.f.Next(e.clock())
		if !e.did("forward", err) || call == nil {
			return
		}
		e.send(call)
	}
}

// cut takes the link to a node down, or to all.
func (e *edge) cut() {
	e.x.c.Counts.EdgeCuts++
	all, n := e.x.c.chance(2), e.x.c.rng.IntN(len(e.down))
	for i := range e.down {
		e.down[i] = e.down[i] || all || i == n
	}
}

func (e *edge) heal() { clear(e.down) }
