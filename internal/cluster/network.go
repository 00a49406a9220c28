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

// clock is the default of the drivers: ns since the process began to ask, on a
// clock that only rises.
func clock() func() int64 {
	began := time.Now()
	return func() int64 { return int64(time.Since(began)) }
}
