package cluster

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/tidings-io/tidings/internal/meta"
	"pgregory.net/rapid"
)

// chooser draws the next of n possibilities: from a seed, or from rapid, which
// can make a failing run small.
type chooser interface{ choose(n int) int }

type seeded struct{ *rand.Rand }

func (s seeded) choose(n int) int { return s.IntN(n) }

type drawn struct{ *rapid.T }

func (d drawn) choose(n int) int { return rapid.IntRange(0, n-1).Draw(d.T, "choice") }

// world is a list of seeds with their disks and processes, and a network that
// loses, doubles and delays.
type world struct {
	chooser
	seeds []Peer
	disks []Identity
	procs []*proc // nil: down
	now   int64
	ids   uint64
	net   []packet
	held  []packet // copies that arrive long after
	calm  bool     // no more faults
	rate  int      // of faults, in 1/4000 per step and kind
	// spite makes the faults that hurt more likely: the disk of the first seed
	// is lost, and what decides arrives late.
	spite bool
	// damage makes disks of members lose what they had promised.
	damage bool

	// voters is the membership of the metadata group since a node was formed by
	// the attempt: Raft ids by seed. What joining asks for needs a majority.
	voters  []uint64
	attempt Attempt
	count   map[string]int
}

type proc struct {
	f    *Former
	seed int
	pend map[uint64]Call // calls not answered yet
}

// packet is a request on its way to a seed, or an answer on its way back.
type packet struct {
	from   *proc
	call   Call
	to     int
	answer bool
	body   []byte
	err    error
}

func newWorld(n int, c chooser) *world {
	w := &world{chooser: c, disks: make([]Identity, n), procs: make([]*proc, n), count: make(map[string]int)}
	for i := range n {
		w.seeds = append(w.seeds, Peer{Addr: fmt.Sprintf("10.0.0.%d:4160", i+1)})
		w.wipe(i)
	}
	return w
}

func (w *world) name(i int) string { return string(rune('a' + i)) }

// wipe gives a seed a new disk.
func (w *world) wipe(i int) {
	w.ids++
	w.procs[i] = nil
	w.disks[i] = Identity{Name: w.name(i), RaftID: w.ids}
}

// Read draws what a Former draws: never the same.
func (w *world) Read(p []byte) (int, error) {
	w.ids++
	for i := range p {
		p[i] = byte(w.ids >> (8 * (i % 8)))
	}
	return len(p), nil
}

var _ io.Reader = (*world)(nil)

func (w *world) start(i int) {
	f, err := NewFormer(FormerOptions{
		Identity: w.disks[i], Seeds: w.seeds, Shards: 2, Random: w, Retry: 10,
		Self: meta.Node{Addr: w.seeds[i].Addr},
	})
	if err != nil {
		panic(err)
	}
	w.procs[i] = &proc{f: f, seed: i, pend: make(map[uint64]Call)}
}

// follow does what a step wants: with a write it may crash before or after it.
// ok is false when it has.
func (w *world) follow(p *proc, out Output) (reply []byte, ok bool) {
	if out.Write != nil {
		crash := -1
		if !w.calm {
			crash = w.choose(2 + 60/w.rate)
		}
		if crash == 0 {
			w.count["crash before a write"]++
			w.procs[p.seed] = nil
			return nil, false
		}
		if old := w.disks[p.seed]; old.Stage == Accepted && old.Attempt != out.Write.Attempt {
			w.count["given up"]++
		}
		w.disks[p.seed] = *out.Write
		if crash == 1 {
			w.count["crash after a write"]++
			w.procs[p.seed] = nil
			return nil, false
		}
		out = p.f.Saved(w.now)
		if out.Write != nil {
			return w.follow(p, out)
		}
	}
	for _, c := range out.Calls {
		p.pend[c.ID] = c
		to := slices.IndexFunc(w.seeds, func(s Peer) bool { return s.Addr == c.To.Addr })
		w.send(packet{from: p, call: c, to: to})
	}
	return out.Reply, true
}

// alive reports whether the process still runs.
func (w *world) alive(p *proc) bool { return w.procs[p.seed] == p }

// deliver brings a packet where it goes.
func (w *world) deliver(k packet) {
	if k.answer {
		if w.alive(k.from) {
			delete(k.from.pend, k.call.ID)
			w.follow(k.from, k.from.f.Answered(w.now, k.call.ID, k.body, k.err))
		}
		return
	}
	back := packet{from: k.from, call: k.call, answer: true, err: errors.New("connection refused")}
	if to := w.procs[k.to]; to != nil {
		var reply []byte
		var err error
		if k.call.Method == MethodJoin {
			reply, err = w.join(to, k.call.Request)
		} else {
			var out Output
			if out, err = to.f.Serve(w.now, w.name(k.from.seed), k.call.Method, k.call.Request, w.members()); err == nil {
				var ok bool
				if reply, ok = w.follow(to, out); !ok {
					err = errors.New("connection reset")
				}
			}
		}
		back.body, back.err = reply, err
	}
	w.send(back)
}

// send puts a packet on the network.
func (w *world) send(k packet) {
	late := w.spite && !w.calm && (k.call.Method == MethodForm && !k.answer && w.choose(3) == 0 ||
		k.call.Method == MethodHello && k.answer && w.choose(10) == 0)
	if late {
		w.held = append(w.held, k)
		return
	}
	w.net = append(w.net, k)
}

// members is the cluster as metadata has it, once it has begun.
func (w *world) members() []meta.Node {
	if w.voters == nil {
		return nil
	}
	var list []meta.Node
	for i, id := range w.voters {
		list = append(list, meta.Node{Name: w.name(i), ID: id, Addr: w.seeds[i].Addr})
	}
	return list
}

// holds reports whether a voter's disk is there, and belongs to the group or
// will once it hears that the cluster is formed.
func (w *world) holds(i int) bool {
	return w.disks[i].RaftID == w.voters[i] && w.disks[i].Stage != Empty && w.disks[i].Stage != Rejoining
}

// quorum reports whether a majority of the voters is there: of those that run,
// or of the disks alone.
func (w *world) quorum(running bool) bool {
	n := 0
	for i := range w.voters {
		if w.holds(i) && (!running || w.procs[i] != nil && w.disks[i].Stage == Formed) {
			n++
		}
	}
	return n > len(w.voters)/2
}

// join is what the leader of metadata does; it needs a majority.
func (w *world) join(to *proc, request []byte) ([]byte, error) {
	if !to.f.Formed() || w.voters == nil || !w.quorum(true) {
		return nil, errors.New("no leader")
	}
	j, err := decodeJoin(request)
	if err != nil {
		return nil, err
	}
	i := int(j.Node.Name[0] - 'a')
	if w.voters[i] != j.Was && w.voters[i] != j.Node.ID {
		return JoinAnswer{Reason: "the member has changed"}.encode(), nil
	}
	w.voters[i] = j.Node.ID
	w.count["joins"]++
	return JoinAnswer{Attempt: to.f.Identity().Attempt, Members: w.members()}.encode(), nil
}

// fault says whether one of a kind happens now.
func (w *world) fault(what string) bool {
	if w.choose(4000) >= w.rate {
		return false
	}
	w.count[what]++
	return true
}

// spoil has a member find its log damaged.
func (w *world) spoil(i int) {
	w.ids++
	next, err := w.disks[i].Rejoin(w.ids)
	if err != nil {
		panic(err)
	}
	w.procs[i], w.disks[i] = nil, next
	w.count["damaged"]++
}

// step does one thing that can happen.
func (w *world) step() {
	w.now += int64(w.choose(4))
	i := w.choose(len(w.seeds))
	if w.damage && w.disks[i].Stage == Formed && w.choose(200) == 0 {
		w.spoil(i)
		return
	}
	if w.spite && w.choose(400) == 0 && (w.disks[0].Stage != Empty || w.choose(4) == 0) {
		i *= w.choose(2)
		w.wipe(i)
		w.start(i)
		return
	}
	if w.spite && len(w.held) > 0 && w.choose(60) == 0 {
		k := w.choose(len(w.held))
		w.net = slices.Insert(w.net, 0, w.held[k])
		w.held = slices.Delete(w.held, k, k+1)
		return
	}
	switch {
	case w.fault("crash"):
		w.procs[i] = nil
	case w.fault("wipe"):
		w.wipe(i)
	case len(w.net) > 0 && w.fault("late"): // the caller gives up; the packet may still come
		if c := w.net[w.choose(len(w.net))]; !c.answer {
			w.net = append(w.net, packet{from: c.from, call: c.call, answer: true, err: errors.New("timeout")})
		}
	case len(w.net) > 0 && w.fault("lost"):
		k := w.take()
		w.net = append(w.net, packet{from: k.from, call: k.call, answer: true, err: errors.New("timeout")})
	case len(w.net) > 0 && w.fault("doubled"):
		w.net = append(w.net, w.net[w.choose(len(w.net))])
	case len(w.net) > 0 && w.fault("held back"):
		w.held = append(w.held, w.net[w.choose(len(w.net))])
	case len(w.held) > 0 && w.fault("come late"):
		w.net = append(w.net, w.held...)
		w.held = nil
	case w.choose(8) == 0 && (w.procs[i] != nil || w.choose(4) == 0):
		if p := w.procs[i]; p == nil {
			w.start(i)
		} else {
			w.follow(p, p.f.Tick(w.now))
		}
	case len(w.net) > 0:
		w.deliver(w.take())
	}
}

// take takes a packet from the network, mostly the oldest.
func (w *world) take() packet {
	i := 0
	if w.choose(4) == 0 {
		i = w.choose(len(w.net))
	}
	k := w.net[i]
	w.net = slices.Delete(w.net, i, i+1)
	return k
}

// check looks for what must never be; it also notes that the cluster begins.
func (w *world) check() error {
	var holder, formed *Identity
	for i := range w.disks {
		d := &w.disks[i]
		if err := d.Check(); err != nil {
			return err
		}
		if d.Stage == Empty {
			continue
		}
		if holder != nil && holder.Cluster != d.Cluster {
			return fmt.Errorf("two clusters: %s has %s, %s has %s", holder.Name, holder.Cluster, d.Name, d.Cluster)
		}
		holder = d
		if d.Stage != Formed {
			continue
		}
		if formed != nil && (formed.Attempt != d.Attempt || formed.Voters != nil && d.Voters != nil &&
			!slices.Equal(formed.Members, d.Members)) {
			return fmt.Errorf("%s and %s do not agree: %+v, %+v", formed.Name, d.Name, formed.Attempt, d.Attempt)
		}
		formed = d
	}
	if formed != nil && formed.Attempt != w.attempt {
		w.count["formed"]++
		w.attempt, w.voters = formed.Attempt, nil
		for _, m := range formed.Members {
			w.voters = append(w.voters, m.ID)
		}
	}
	return nil
}

// settle ends the faults: all start, and everything arrives.
func (w *world) settle() error {
	w.calm = true
	w.net, w.held = append(w.net, w.held...), nil
	for i := range w.procs {
		if w.procs[i] == nil {
			w.start(i)
		}
	}
	before := slices.Clone(w.disks)
	lost := w.voters != nil && !w.quorum(false) && slices.ContainsFunc(w.disks, func(d Identity) bool { return d.Attempt == w.attempt })
	for round := range 100 {
		w.now += 20
		for _, p := range w.procs {
			w.follow(p, p.f.Tick(w.now))
		}
		for len(w.net) > 0 {
			k := w.net[0]
			w.net = w.net[1:]
			w.deliver(k)
			if err := w.check(); err != nil {
				return err
			}
		}
		if round > 10 && w.formedAll() {
			break
		}
	}
	if !w.formedAll() && !w.hopeless(lost, before) {
		text := ""
		for i, p := range w.procs {
			text += fmt.Sprintf("\n%s: %s; it was %+v, is %+v", w.name(i), p.f.Status(), before[i], w.disks[i])
		}
		return fmt.Errorf("not all are members:%s", text)
	}
	return nil
}

// hopeless reports whether a majority of the disks of the cluster that some
// belong to was lost before the faults ended: nothing can be promised then.
func (w *world) hopeless(lost bool, before []Identity) bool {
	if !slices.ContainsFunc(w.disks, func(d Identity) bool { return d.Stage >= Formed }) {
		return false // none has heard of it: they can still form one
	}
	kept := 0
	for i, id := range w.voters {
		if before[i].RaftID == id {
			kept++
		}
	}
	return lost || kept <= len(w.voters)/2
}

func (w *world) formedAll() bool {
	return !slices.ContainsFunc(w.disks, func(d Identity) bool { return d.Stage != Formed })
}

// play runs a world through faults and then lets it settle.
func play(nodes, steps int, c chooser, count map[string]int) error {
	return playOn(newWorld(nodes, c), steps, count)
}

func playOn(w *world, steps int, count map[string]int) error {
	c := w.chooser
	w.rate = []int{1, 3, 8, 20, 60}[c.choose(5)]
	w.spite = c.choose(2) == 0
	if count != nil {
		w.count = count
	}
	for range steps {
		w.step()
		if err := w.check(); err != nil {
			return err
		}
	}
	return w.settle()
}

func TestRapidForming(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				if err := play(nodes, rapid.IntRange(0, 1500).Draw(rt, "steps"), drawn{rt}, nil); err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}

// formingSeeds plays many seeds and returns the first failure.
func formingSeeds(from, to uint64, count map[string]int) error {
	for seed := from; seed < to; seed++ {
		nodes := 3 + 2*int(seed%2)
		r := rand.New(rand.NewPCG(seed, 1))
		if err := play(nodes, 100+r.IntN(2500), seeded{r}, count); err != nil {
			return fmt.Errorf("seed %d, %d nodes: %w", seed, nodes, err)
		}
	}
	return nil
}

// Whatever is lost, a disk that was in a cluster never becomes part of another,
// and comes back once a majority of the others is there.
func TestDamagedMembersComeBack(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 100
	}
	count := make(map[string]int)
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(3+2*int(seed%2), seeded{r})
		w.damage = true
		if err := playOn(w, 500+r.IntN(2500), count); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, d := range w.disks {
			if d.Stage == Formed && w.voters != nil && d.RaftID != w.voters[i] {
				t.Fatalf("seed %d: %s is a member under the Raft id %d, metadata has %d", seed, d.Name, d.RaftID, w.voters[i])
			}
			if d.Stage == Formed {
				count["members at the end"]++
			}
		}
	}
	for _, what := range []string{"damaged", "joins", "wipe", "crash", "members at the end"} {
		if count[what] == 0 {
			t.Errorf("nothing was seen of: %s", what)
		}
	}
	t.Log(count)
}

func TestFormingSurvivesFaults(t *testing.T) {
	seeds := uint64(2000)
	if testing.Short() {
		seeds = 500
	}
	// for a long run by hand: FORMING_SEEDS=100000 takes three minutes
	if n, err := strconv.ParseUint(os.Getenv("FORMING_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	count := make(map[string]int)
	if err := formingSeeds(0, seeds, count); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{
		"crash before a write", "crash after a write", "crash", "wipe", "late", "lost", "doubled", "come late", "formed", "joins", "given up",
	} {
		if count[what] == 0 {
			t.Errorf("nothing was seen of: %s", what)
		}
	}
	t.Log(count)
}
