package cluster

import (
	"context"
	"time"
)

// Network carries calls between nodes. What a call returns as an error may
// have happened all the same.
type Network interface {
	// Call asks a node and waits for its answer, until ctx ends at the latest.
	Call(ctx context.Context, to Peer, m Method, request []byte) ([]byte, error)
}

// callTimeout bounds one call.
const callTimeout = time.Second

// UntilNext is the time to the next moment of an interval that all who ask share, in
// this process and, as far as clocks agree, on all nodes: a node that rests wakes up
// once for all that is due then.
func UntilNext(interval time.Duration) time.Duration {
	return interval - time.Duration(time.Now().UnixNano())%interval
}

// clock is the default of the drivers: ns since the process began to ask, on a
// clock that only rises.
func clock() func() int64 {
	began := time.Now()
	return func() int64 { return int64(time.Since(began)) }
}
