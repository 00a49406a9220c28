package shard

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"go.etcd.io/raft/v3"
)

// readRetry is after how long the library is asked again, in ns: without a
// leader it drops the question without a word.
const readRetry = int64(300e6)

// readContext is the size of what tells a question from all others, also from
// those of earlier lives, whose answers may come late: a random number of this
// life and a count.
const readContext = 16

// read is a question how far one must have applied to see everything that was
// answered before.
type read struct {
	id       uint64
	index    uint64 // 0: not known yet
	asked    int64  // unix ns
	deadline int64
	done     func(index uint64, err error)
}

// Read asks the leader, wherever it is, for the index of what is committed, and
// calls done on the loop once this replica has applied everything up to it:
// what the machine shows then includes all that was answered before Read was
// called. The leader confirms with a quorum that it still is one. After the
// deadline (unix ns) done is called with fault.Timeout. Any goroutine.
func (g *Group) Read(deadline int64, done func(index uint64, err error)) {
	g.call(func() {
		g.p.readID++
		r := &read{id: g.p.readID, deadline: deadline, done: done}
		g.p.reads = append(g.p.reads, r)
		g.ask(r)
	})
}

// ReadIndex is Read that waits, until ctx ends at the latest.
func (g *Group) ReadIndex(ctx context.Context) (uint64, error) {
	deadline := Never
	if d, ok := ctx.Deadline(); ok {
		deadline = d.UnixNano()
	}
	answer := make(chan error, 1)
	var index uint64
	g.Read(deadline, func(i uint64, err error) {
		index = i
		answer <- err
	})
	if err := g.wait(ctx, answer); err != nil {
		return 0, err
	}
	return index, nil
}

func (g *Group) ask(r *read) {
	r.asked = g.p.now
	if g.p.installing() || g.p.removed {
		return
	}
	if g.p.readLife == [8]byte{} {
		_, _ = rand.Read(g.p.readLife[:]) // never fails
	}
	g.node.ReadIndex(binary.BigEndian.AppendUint64(slices.Clone(g.p.readLife[:]), r.id))
}

// readable takes the library's answers.
func (g *Group) readable(states []raft.ReadState) {
	for _, s := range states {
		if len(s.RequestCtx) != readContext || !bytes.Equal(s.RequestCtx[:8], g.p.readLife[:]) {
			continue
		}
		id := binary.BigEndian.Uint64(s.RequestCtx[8:])
		for _, r := range g.p.reads {
			if r.id == id && r.index == 0 {
				r.index = s.Index
			}
		}
	}
}

// serveReads answers the reads that can be, asks anew where nothing came, and
// returns when to look again.
func (g *Group) serveReads() (next int64) {
	next = Never
	if len(g.p.reads) == 0 {
		return next
	}
	for _, r := range slices.Clone(g.p.reads) {
		switch {
		case r.index != 0 && r.index <= g.applied:
			g.answer(r, nil)
			continue
		case g.p.now >= r.deadline:
			g.answer(r, fault.New(fault.Timeout, "read shard %d: no leader has answered in time", g.o.ID))
			continue
		case r.index == 0 && g.p.now >= r.asked+readRetry:
			g.ask(r)
		}
		next = min(next, r.deadline)
		if r.index == 0 {
			next = min(next, r.asked+readRetry)
		}
	}
	return next
}

func (g *Group) answer(r *read, err error) {
	g.p.reads = slices.DeleteFunc(g.p.reads, func(o *read) bool { return o == r })
	r.done(r.index, err)
}
