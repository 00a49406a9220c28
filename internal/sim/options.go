package sim

import (
	"math/rand/v2"
	"time"
)

// options of one seed: small sizes everywhere, so that a short run meets every
// boundary.
type options struct {
	steps  int
	async  bool
	shards int
	topics int // to begin with, in each shard

	walSegment, logSegment int64
	spares                 int
	tailBytes              int64
	openFiles              int
	wholeSyncFrom          int
	checkpointBytes        int64
	checkpointAge          time.Duration
	entryBytes, inflight   int
	inboxBytes             int64
	inboxCount             int
	parkedMax              int

	window   int // messages in flight of a lane
	deltaMax int // items of a delta
	uniform  int // size of all messages; 0: they differ
	bursts   bool
	weights  [actions]int // running sums
	total    int
	big      int // a message in so many is larger than a WAL segment
}

// action is what a step may be.
type action int

const (
	actPublish action = iota
	actGroup
	actWrite
	actSync
	actFinish
	actMaintain
	actFlush
	actClock
	actPump
	actDone
	actRequeue
	actCommand
	actAttach
	actCheckpoint
	actLook
	actRead
	actPass
	actMark
	actCapacity
	actArm
	actCrash
	actStop
	actions
)

// usual is how often actions come; each seed bends it.
var usual = [actions]int{
	actPublish: 2000, actGroup: 2600, actWrite: 1000, actSync: 900, actFinish: 900, actMaintain: 350, actFlush: 900,
	actClock: 500, actPump: 900, actDone: 900, actRequeue: 250, actCommand: 120, actAttach: 150, actCheckpoint: 60,
	actLook: 100, actRead: 100, actPass: 500, actMark: 40, actCapacity: 15, actArm: 50, actCrash: 12, actStop: 12,
}

// pick returns one of the values.
func pick[T any](rng *rand.Rand, values ...T) T { return values[rng.IntN(len(values))] }

// choose draws the options of a seed.
func choose(rng *rand.Rand, seed uint64, steps int) options {
	o := options{
		steps:  steps,
		async:  seed%2 == 0,
		shards: 2 + rng.IntN(2),
		topics: 1 + rng.IntN(2),

		walSegment:      pick[int64](rng, 4<<10, 8<<10, 16<<10, 64<<10),
		logSegment:      pick[int64](rng, 2<<10, 8<<10, 64<<10),
		spares:          pick(rng, -1, 1, 2, 2),
		tailBytes:       pick[int64](rng, 2<<10, 8<<10, 32<<10),
		openFiles:       1 + rng.IntN(6),
		wholeSyncFrom:   pick(rng, 1, 2, 64),
		checkpointBytes: pick[int64](rng, 2<<10, 8<<10, 32<<10),
		checkpointAge:   pick(rng, 20*time.Millisecond, time.Second, time.Minute),
		entryBytes:      pick(rng, 256, 2<<10, 8<<10, 32<<10),
		inflight:        1 + rng.IntN(3),
		inboxBytes:      pick[int64](rng, 16<<10, 1<<20),
		inboxCount:      pick(rng, 8, 64, 1024),
		parkedMax:       pick(rng, 256, 1<<18),

		window:   pick(rng, 4, 32, 512),
		deltaMax: pick(rng, 3, 64, 4096),
		bursts:   rng.IntN(4) == 0,
		big:      pick(rng, 40, 200, 1000),
	}
	if rng.IntN(5) == 0 {
		o.uniform = pick(rng, 10, 100, 400)
	}
	for a := range o.weights {
		w := usual[a] * pick(rng, 1, 2, 4, 4, 4, 6) / 4
		if rng.IntN(4) == 0 && action(a) >= actMark {
			w = 0
		}
		o.total += w
		o.weights[a] = o.total
	}
	return o
}
