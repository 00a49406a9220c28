package tools

import (
	"math/rand/v2"
	"sync"
	"time"
)

// The ways to choose among several destinations.
const (
	modeHostpool   = "hostpool"
	modeRoundRobin = "round-robin"
	modeGreedy     = "epsilon-greedy"
	modeMulticast  = "multicast"
)

const modeHelp = "how a destination is chosen: hostpool (in turn, leaving out for a while those that fail), round-robin (in turn) or epsilon-greedy (mostly the fastest)"

// A destination that fails is left out for a while, each time in a row for
// twice as long.
const (
	shunFirst = 30 * time.Second
	shunMost  = 15 * time.Minute
)

// How often epsilon-greedy tries another than the fastest: at first, at last,
// and by how much less with every choice.
const (
	epsilonFirst = 0.3
	epsilonLast  = 0.01
	epsilonDecay = 0.999
)

// pool chooses destinations. It is safe for concurrent use.
type pool struct {
	mode string
	now  func() time.Time

	mu      sync.Mutex
	targets []*target
	next    int
	epsilon float64
	rng     *rand.Rand
}

// target is a destination; all but addr and index is guarded by the pool's mu.
type target struct {
	addr  string
	index int

	shunned time.Duration // how long it was last left out; 0: it is well
	until   time.Time     // until then
	latency float64       // seconds, weighted to the latest; 0: not known
}

func newPool(mode string, addrs []string) *pool {
	p := &pool{mode: mode, now: time.Now, epsilon: epsilonFirst, rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	for i, a := range addrs {
		p.targets = append(p.targets, &target{addr: a, index: i})
	}
	return p
}

// take chooses the destination of one message; put tells what came of it.
func (p *pool) take() *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == modeRoundRobin {
		return p.inTurn(p.targets)
	}
	able := p.able()
	if p.mode != modeGreedy {
		return p.inTurn(able)
	}
	explore := p.rng.Float64() < p.epsilon
	p.epsilon = max(epsilonLast, p.epsilon*epsilonDecay)
	if explore {
		return able[p.rng.IntN(len(able))]
	}
	best := able[0]
	for _, t := range able[1:] {
		if t.latency < best.latency {
			best = t
		}
	}
	return best
}

// inTurn is the first of the list that comes at or after the turn.
func (p *pool) inTurn(list []*target) *target {
	chosen := list[0]
	for _, t := range list {
		if t.index >= p.next {
			chosen = t
			break
		}
	}
	p.next = (chosen.index + 1) % len(p.targets)
	return chosen
}

// able lists the destinations that are not left out now; all, when all are.
func (p *pool) able() []*target {
	now := p.now()
	var out []*target
	for _, t := range p.targets {
		if !now.Before(t.until) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return p.targets
	}
	return out
}

// put tells what came of a message: how long it took, and the error if there
// was one.
func (p *pool) put(t *target, took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if p.now().Before(t.until) {
			return // it failed along with the one that had it left out
		}
		t.shunned = min(max(2*t.shunned, shunFirst), shunMost)
		t.until = p.now().Add(t.shunned)
		return
	}
	t.shunned, t.until = 0, time.Time{}
	if t.latency == 0 {
		t.latency = max(took.Seconds(), 1e-9)
		return
	}
	t.latency += (took.Seconds() - t.latency) / 8
}
