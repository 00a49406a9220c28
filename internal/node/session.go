package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/transport"
)

// The methods of the links beside those of package cluster. The numbers stand on
// the wire.
const (
	methodBroker     transport.Method = 16 // + broker.Method
	methodSession    transport.Method = 64 // stream: a session for a replica that is behind
	methodSessionEnd transport.Method = 65 // call: the session has ended, and how
	methodTransfer   transport.Method = 66 // call: hand the leadership of a shard over
	methodMend       transport.Method = 67 // stream: batches that are damaged on the other side
	methodPresence   transport.Method = 68 // call: what a member says of itself for lookups
	methodAdmin      transport.Method = 69 // call: a question of the admin API, see admin
	methodStats      transport.Method = 70 // call: a node's part of /stats?scope=cluster
)

// sessionHead begins a request for a session: the shard, and a number that tells
// this session from all others.
const sessionHead = 4 + 8

// sessions are those that this node serves, by number: who waits for their end.
type sessions struct {
	mu   sync.Mutex
	open map[uint64]chan bool
}

func (s *sessions) begin(number uint64) (ended chan bool, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.open[number]; taken {
		return nil, false
	}
	if s.open == nil {
		s.open = make(map[uint64]chan bool)
	}
	ended = make(chan bool, 1)
	s.open[number] = ended
	return ended, true
}

func (s *sessions) end(number uint64, installed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ended, ok := s.open[number]; ok {
		ended <- installed
		delete(s.open, number)
	}
}

func (s *sessions) forget(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, number)
}

// handleSessions serves the sessions of other replicas.
func (mb *member) handleSessions() {
	mb.transport.HandleStream(methodSession, func(ctx context.Context, from transport.From, request []byte, send func([]byte) error) error {
		if !from.Known || len(request) < sessionHead {
			return fault.New(fault.Forbidden, "serve session: %s is no member, or asks wrongly", from.Name)
		}
		id, number := binary.LittleEndian.Uint32(request), binary.LittleEndian.Uint64(request[4:])
		g := mb.group(id)
		if g == nil {
			return fault.New(fault.NotLeader, "serve session: shard %d is not open", id)
		}
		ended, ok := mb.sessions.begin(number)
		if !ok {
			return fault.New(fault.InvalidRequest, "serve session: the number is in use")
		}
		defer mb.sessions.forget(number)
		return g.Serve(ctx, from.ID, request[sessionHead:], send, func() bool {
			select {
			case installed := <-ended:
				return installed
			case <-ctx.Done():
				return false
			}
		})
	})
	mb.transport.Handle(methodSessionEnd, func(_ context.Context, from transport.From, request []byte) ([]byte, error) {
		if !from.Known || len(request) != 9 {
			return nil, fault.New(fault.Forbidden, "end session: %s is no member, or asks wrongly", from.Name)
		}
		mb.sessions.end(binary.LittleEndian.Uint64(request), request[8] == 1)
		return nil, nil
	})
}

// fellBehind notes that a replica of this node has fallen behind a leader's log;
// it is told again as long as that lasts.
func (mb *member) fellBehind(id uint32, leader uint64) {
	behind, _ := mb.behind.At(int(id))
	select {
	case behind <- leader:
	default:
	}
}

// catchUp runs the sessions of one group, one after the other.
func (mb *member) catchUp(ctx context.Context, id uint32) {
	behind, _ := mb.behind.At(int(id))
	for {
		select {
		case <-ctx.Done():
			return
		case leader := <-behind:
			g, _ := mb.n.groups.At(int(id))
			if err := g.CatchUp(ctx, leader, mb); err != nil && ctx.Err() == nil {
				mb.n.log.Info("a replica did not catch up, and tries again", "shard", id, "from", fmt.Sprintf("%016x", leader), "error", err)
			}
		}
	}
}

// Pull begins a session at another replica.
func (mb *member) Pull(ctx context.Context, id uint32, replica uint64, request []byte) (shard.Source, error) {
	var raw [8]byte
	rand.Read(raw[:])
	head := binary.LittleEndian.AppendUint32(nil, id)
	head = append(append(head, raw[:]...), request...)
	ctx, cancel := context.WithCancel(ctx)
	stream, err := mb.transport.Fetch(ctx, transport.Peer{ID: replica}, methodSession, head)
	if err != nil {
		cancel()
		return nil, err
	}
	return &source{mb: mb, ctx: ctx, cancel: cancel, stream: stream, replica: replica, number: raw}, nil
}

// source is a session as the side that receives sees it.
type source struct {
	mb      *member
	ctx     context.Context
	cancel  context.CancelFunc
	stream  *transport.Stream
	replica uint64
	number  [8]byte
}

// Next is the next chunk.
func (s *source) Next(context.Context) ([]byte, error) {
	chunk, err := s.stream.Next()
	if err != nil && errors.Is(err, context.Canceled) {
		return nil, context.Cause(s.ctx)
	}
	return chunk, err
}

// endTimeout bounds how long the other side is told of the end; when it does not
// hear of it, its stream ends, which counts as "not installed".
const endTimeout = 2 * time.Second

// Close ends the session and tells the other side.
func (s *source) Close(installed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), endTimeout)
	defer cancel()
	how := byte(0)
	if installed {
		how = 1
	}
	_, err := s.mb.transport.Call(ctx, transport.Peer{ID: s.replica}, methodSessionEnd, append(s.number[:], how))
	if err != nil {
		s.mb.n.log.Debug("the end of a session was not told", "error", err)
	}
	s.stream.Close()
	s.cancel()
}
