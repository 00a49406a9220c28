package shard

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/fault"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

const (
	// sessionTimeout ends a session that nobody pulls from, or that gets nothing,
	// in ns. It is above what a receiver needs to install.
	sessionTimeout = int64(60e9)
	// signalTimeout is after how long a replica that was told to get a state,
	// and asked nobody here for one, is told again, in ns: the message may be
	// lost.
	signalTimeout = int64(2e9)
)

// Outgoing is a transfer session on the side that sends. It keeps the group's
// log from its state on until it is closed, as far as PinBytes allow.
type Outgoing struct {
	g       *Group
	to      uint64
	head    sessionHead
	started int64

	bytes  atomic.Int64
	pulled atomic.Int64 // unix ns of the last Next
	ended  atomic.Bool  // no more chunks

	mu     sync.Mutex // of Next, Close and expire
	export Export     // nil once closed
	tally  tally
	stage  uint8 // the kind of the last chunk
}

// Export begins a session for the replica whose Incoming made the request. done
// is called once, on the loop: with ErrNotBehind when the log will do, with
// fault.Unsupported when the machine cannot be carried. A session that the same
// replica had before is ended. Any goroutine.
func (g *Group) Export(to uint64, request []byte, done func(*Outgoing, error)) {
	g.call(func() { done(g.export(to, request)) })
}

func (g *Group) export(to uint64, b []byte) (*Outgoing, error) {
	r, err := decodeRequest(b)
	if err != nil {
		return nil, err
	}
	machine, ok := g.o.Machine.(Portable)
	switch {
	case !ok || r.shard != g.o.ID:
		return nil, fault.New(fault.Unsupported, "send state of shard %d: the request is for shard %d", g.o.ID, r.shard)
	case g.p.removed || g.p.installing():
		return nil, fault.New(fault.NotLeader, "send state of shard %d: this replica has none to give", g.o.ID)
	case r.applied >= g.applied || g.leader && !g.awaitsState(to):
		return nil, fmt.Errorf("send state of shard %d to %x: %w", g.o.ID, to, ErrNotBehind)
	}
	for _, o := range g.p.out {
		if o.to == to {
			o.expire()
		}
	}
	export, err := machine.Export(g.applied, r.have)
	if err != nil {
		return nil, fmt.Errorf("send state of shard %d: %w", g.o.ID, err)
	}
	o := &Outgoing{
		g: g, to: to, export: export, started: g.p.now,
		head: sessionHead{shard: g.o.ID, index: g.applied, term: g.appliedTerm, size: export.Size(), conf: g.log.conf},
	}
	o.pulled.Store(g.p.now)
	g.p.out = append(g.p.out, o)
	g.o.Logger.Info("a replica catches up from here", "shard", g.o.ID, "replica", RaftID(to), "index", g.applied, "bytes", o.head.size)
	return o, nil
}

// awaitsState reports whether the library of the leader waits until the replica
// has got a state.
func (g *Group) awaitsState(id uint64) (awaits bool) {
	g.node.WithProgress(func(peer uint64, _ raft.ProgressType, p tracker.Progress) {
		awaits = awaits || peer == id && p.State == tracker.StateSnapshot
	})
	return awaits
}

// Index is the Raft index of the state.
func (o *Outgoing) Index() uint64 { return o.head.index }

// Next appends the next chunk to buf; it reads files. io.EOF: all were sent,
// and the session waits for Close. ErrSession: it was given up. One goroutine
// at a time.
func (o *Outgoing) Next(buf []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.export == nil || o.ended.Load() {
		return buf, fmt.Errorf("send state of shard %d: %w", o.g.o.ID, ErrSession)
	}
	o.pulled.Store(o.g.o.Clock())
	at := len(buf)
	switch o.stage {
	case 0:
		buf, o.stage = o.head.encode(buf), chunkHead
	case chunkEnd:
		return buf, io.EOF
	default:
		var err error
		buf, err = o.export.Next(append(buf, chunkData), o.g.o.ChunkBytes)
		if err == io.EOF { //nolint:errorlint // as io.Reader returns it
			o.stage = chunkEnd
			return o.tally.end(buf[:at]), nil
		}
		if err != nil {
			return buf[:at], fmt.Errorf("send state of shard %d: %w", o.g.o.ID, err)
		}
		o.stage = chunkData
	}
	o.tally.add(buf[at:])
	o.bytes.Add(int64(len(buf) - at))
	return buf, nil
}

// Close ends the session. installed says that the replica has told so. It may
// be called more than once, by any goroutine, while no Next is under way.
func (o *Outgoing) Close(installed bool) {
	o.close()
	o.g.call(func() { o.g.sent(o, installed) })
}

func (o *Outgoing) close() {
	o.ended.Store(true)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut()
}

func (o *Outgoing) shut() {
	if o.export != nil {
		o.export.Close()
		o.export = nil
	}
}

// expire ends the session from the loop. A Next that is under way sees it at
// its end, and whoever calls it closes.
func (o *Outgoing) expire() {
	o.ended.Store(true)
	if o.mu.TryLock() {
		o.shut()
		o.mu.Unlock()
	}
}

// sent takes the session off the list and lets the library probe again.
func (g *Group) sent(o *Outgoing, installed bool) {
	i := slices.Index(g.p.out, o)
	if i < 0 {
		return
	}
	g.p.out = slices.Delete(g.p.out, i, i+1)
	g.unsignal(o.to)
	status := raft.SnapshotFailure
	if installed {
		status = raft.SnapshotFinish
	}
	if !g.p.installing() {
		g.node.ReportSnapshot(o.to, status)
	}
	g.releaseLog()
}

// signal is a replica that was told to get a state.
type signal struct {
	to   uint64
	when int64 // unix ns
}

// signalled notes that a replica is told to get a state.
func (g *Group) signalled(to uint64) {
	g.unsignal(to)
	g.p.signals = append(g.p.signals, signal{to, g.p.now})
}

func (g *Group) unsignal(to uint64) {
	g.p.signals = slices.DeleteFunc(g.p.signals, func(s signal) bool { return s.to == to })
}

// superviseSessions ends sessions without progress, or that keep too much of
// the log, and has the library try again where nothing came of a signal.
func (g *Group) superviseSessions(now int64) {
	for _, o := range slices.Clone(g.p.out) {
		late := now-o.pulled.Load() > sessionTimeout
		if !late && g.o.WAL.BytesAbove(g.o.ID, o.head.index) <= g.o.PinBytes {
			continue
		}
		g.o.Logger.Warn("a replica that catches up from here is too slow, it must begin anew", "shard", g.o.ID,
			"replica", RaftID(o.to), "index", o.head.index, "sent", o.bytes.Load(), "bytes", o.head.size)
		o.expire()
		g.sent(o, false)
	}
	for _, s := range slices.Clone(g.p.signals) {
		if slices.ContainsFunc(g.p.out, func(o *Outgoing) bool { return o.to == s.to }) {
			continue
		}
		if now-s.when > signalTimeout {
			g.unsignal(s.to)
			g.node.ReportSnapshot(s.to, raft.SnapshotFailure)
		}
	}
}

func (o *Outgoing) progress() Progress {
	return Progress{Peer: o.to, Index: o.head.index, Bytes: o.bytes.Load(), Total: o.head.size, Started: o.started, Stage: "send"}
}
