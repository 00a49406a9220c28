package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/plant"
)

// FormerOptions of a Former. Zero values mean the default beside the field.
type FormerOptions struct {
	Identity Identity  // as the disk has it
	Self     meta.Node // this node's addresses; name and Raft id are the identity's
	Seeds    []Peer    // as ParseSeeds returned them
	Shards   int       // data shards of a cluster that this node forms; 8
	Replicas int       // voters of each; 3
	Random   io.Reader // crypto/rand

	Retry time.Duration // between rounds of asking; 200 ms
}

// Former decides, from what this disk and the seeds say, whether this node
// forms a cluster, waits for another that does, or joins one. It is a step
// machine without clock, socket and file; one goroutine owns it.
//
// A step that returns a Write must be followed by the write and by Saved, and
// nothing else: what it answered, or calls next, comes with Saved.
type Former struct {
	o    FormerOptions
	id   Identity // durable
	boot uint64   // of this process, in its tickets

	tickets map[string]uint64 // last one given, by name of who asked
	given   uint64

	phase  phase
	next   int64 // unix ns or any clock: when to ask again
	calls  map[uint64]int
	lastID uint64
	round  []reply // of the round under way, by seed
	before []reply // of the round before, while preparing

	write *Identity // under way
	then  func(now int64) Output

	status []string
	first  int // seed at which meet begins: behind the one that last refused to let this node join
}

// phase is what the outstanding calls are for.
type phase uint8

const (
	phaseIdle phase = iota
	phaseAsk
	phasePrepare
	phaseForm
	phaseJoin
)

// reply is what a seed answered, or why it did not.
type reply struct {
	HelloAnswer
	err error
}

// Call is a call to make. It must be answered, through Answered, within a
// second or so: with an error if need be.
type Call struct {
	ID      uint64
	To      Peer
	Method  Method
	Request []byte
}

// Output is what a step wants done.
type Output struct {
	Write *Identity // to make durable before anything else; then call Saved
	Calls []Call
	// Reply answers the request that was served; nil when there was none, or it
	// comes with Saved.
	Reply []byte
	// Next is when Tick has something to do, in its clock.
	Next int64
}

// never is the time that does not come.
const never = int64(math.MaxInt64)

var (
	// ErrBusy says that the step before has asked for a write that is not done.
	ErrBusy = errors.New("a write is under way")
	// ErrMethod says that a request is none that is served at this time.
	ErrMethod = errors.New("not served at this time")
)

// NewFormer returns a Former, to be started by its first Tick.
func NewFormer(o FormerOptions) (*Former, error) {
	if err := o.Identity.Check(); err != nil {
		return nil, err
	}
	if o.Shards <= 0 {
		o.Shards = 8
	}
	if o.Replicas <= 0 {
		o.Replicas = 3
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Retry <= 0 {
		o.Retry = 200 * time.Millisecond
	}
	o.Self.Name, o.Self.ID = o.Identity.Name, o.Identity.RaftID
	o.Self.Boot, o.Self.State = 0, meta.NodeMember // an attempt outlives processes
	f := &Former{o: o, id: o.Identity, tickets: make(map[string]uint64), status: []string{"asking the seeds"}}
	var err error
	if f.boot, err = f.random(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Former) random() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(f.o.Random, b[:]); err != nil {
		return 0, fmt.Errorf("read random: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Identity is what is durable.
func (f *Former) Identity() Identity { return f.id }

// Formed reports whether the node belongs to a cluster: the Former's work is
// done but for Serve.
func (f *Former) Formed() bool { return f.id.Stage == Formed }

// Status says what the node waits for, a line each: for the log and `cluster
// status`.
func (f *Former) Status() []string { return f.status }

// Tick begins a round of asking when it is due.
func (f *Former) Tick(now int64) Output {
	if f.write != nil || f.Formed() || f.phase != phaseIdle || now < f.next {
		return f.output(nil)
	}
	return f.ask(phaseAsk)
}

// output adds when to come again.
func (f *Former) output(calls []Call) Output {
	o := Output{Calls: calls, Next: never}
	if !f.Formed() && f.phase == phaseIdle {
		o.Next = f.next
	}
	return o
}

// rest ends a round; the next begins after a pause.
func (f *Former) rest(now int64, status ...string) Output {
	f.phase, f.calls, f.next = phaseIdle, nil, now+int64(f.o.Retry)
	if len(status) > 0 {
		f.status = status
	}
	return f.output(nil)
}

// ask calls Hello on every seed, this node among them: so it sees whether its
// address in the list leads to itself.
func (f *Former) ask(p phase) Output {
	h := Hello{RaftID: f.id.RaftID, Prepare: p == phasePrepare}
	f.begin(p, len(f.o.Seeds))
	calls := make([]Call, len(f.o.Seeds))
	for i := range calls {
		calls[i] = f.call(i, f.o.Seeds[i], MethodHello, h.encode())
	}
	return f.output(calls)
}

func (f *Former) begin(p phase, seeds int) {
	f.phase, f.calls, f.round = p, make(map[uint64]int, seeds), make([]reply, seeds)
}

func (f *Former) call(seed int, to Peer, m Method, request []byte) Call {
	f.lastID++
	f.calls[f.lastID] = seed
	return Call{ID: f.lastID, To: to, Method: m, Request: request}
}

// Answered takes the answer to a call. One to a call that is of no interest any
// more is passed over.
func (f *Former) Answered(now int64, id uint64, answer []byte, err error) Output {
	seed, ok := f.calls[id]
	if !ok || f.write != nil {
		return f.output(nil)
	}
	delete(f.calls, id)
	r := &f.round[seed]
	r.err = err
	switch {
	case err != nil:
	case f.phase == phaseAsk || f.phase == phasePrepare:
		r.HelloAnswer, r.err = decodeHelloAnswer(answer)
	case f.phase == phaseForm:
		var a FormAnswer
		if a, r.err = decodeFormAnswer(answer); r.err == nil && a.Reason != "" {
			r.err = errors.New(a.Reason)
		}
	case f.phase == phaseJoin:
		return f.joined(now, answer)
	}
	if len(f.calls) > 0 {
		return f.output(nil)
	}
	switch f.phase {
	case phaseAsk:
		return f.asked(now)
	case phasePrepare:
		return f.prepared(now)
	case phaseForm:
		return f.agreed(now)
	}
	f.first++
	return f.rest(now, fmt.Sprintf("waiting for the cluster to let this node join: %v", r.err))
}

// asked decides what to do after a round of Hello.
func (f *Former) asked(now int64) Output {
	if out, done := f.meet(now); done {
		return out
	}
	if f.id.Stage == Rejoining {
		return f.rest(now, fmt.Sprintf("waiting for a member of the cluster %s to come back to: this node's log was damaged", f.id.Cluster))
	}
	if waits := f.waits(); len(waits) > 0 {
		return f.rest(now, waits...)
	}
	first := slices.MinFunc(f.round, func(a, b reply) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	if first.Node.Name != f.id.Name {
		return f.rest(now, fmt.Sprintf("waiting for seed %s, the first by name, to form the cluster", first.Node.Name))
	}
	f.before = f.round
	return f.ask(phasePrepare)
}

// meet looks for a formed cluster among the answers: this node becomes or joins
// it, or must not go on.
func (f *Former) meet(now int64) (Output, bool) {
	for k := range f.round {
		i := (f.first + k) % len(f.round)
		r := f.round[i]
		if r.err != nil || r.Stage != Formed || r.Node.ID == f.id.RaftID {
			continue
		}
		switch {
		case f.id.Stage == Empty:
			return f.join(now, i), true
		case r.Cluster != f.id.Cluster:
			return f.rest(now, fmt.Sprintf("seed %s belongs to the cluster %s, this node has accepted %s: "+
				"empty the data folder of the one that is wrong", f.seed(i), r.Cluster, f.id.Cluster)), true
		case r.Attempt == f.id.Attempt && f.id.Stage == Accepted:
			next := f.id
			next.Stage = Formed
			return f.save(next, f.done), true
		}
		return f.join(now, i), true // what this node accepted was given up
	}
	return Output{}, false
}

func (f *Former) done(now int64) Output {
	return f.rest(now, "formed")
}

// seed is a seed as a reader knows it.
func (f *Former) seed(i int) string {
	p := f.o.Seeds[i]
	if r := f.round[i]; p.Name == "" && r.err == nil {
		p.Name = r.Node.Name
	}
	return p.String()
}

// waits lists why the seeds cannot form a cluster now; nil when they can.
func (f *Former) waits() (list []string) {
	own := false
	want := addresses(f.o.Seeds)
	for i, r := range f.round {
		if r.err != nil {
			list = append(list, fmt.Sprintf("waiting for seed %s: %v", f.seed(i), r.err))
			continue
		}
		if name := f.o.Seeds[i].Name; name != "" && name != r.Node.Name {
			list = append(list, fmt.Sprintf("waiting for seed %s: the node %s answers there", f.seed(i), r.Node.Name))
		}
		if !slices.Equal(r.Seeds, want) {
			list = append(list, fmt.Sprintf("waiting for seed %s: its seeds are %s, this node's are %s",
				f.seed(i), strings.Join(r.Seeds, ","), strings.Join(want, ",")))
		}
		for k := range i {
			if o := f.round[k]; o.err == nil && (o.Node.Name == r.Node.Name || o.Node.ID == r.Node.ID) {
				list = append(list, fmt.Sprintf("waiting for seeds %s and %s to be two nodes: both answer as %s", f.o.Seeds[k], f.o.Seeds[i], r.Node.Name))
			}
		}
		if r.Stage == Accepted && f.conflicts(r) {
			list = append(list, fmt.Sprintf("waiting for seed %s: it has accepted the cluster %s, another has not", f.seed(i), r.Cluster))
		}
		own = own || r.Node.ID == f.id.RaftID && r.Node.Name == f.id.Name
	}
	if !own && len(list) == 0 {
		list = append(list, fmt.Sprintf("waiting: none of the seeds %s leads to this node, %s", strings.Join(want, ","), f.id.Name))
	}
	return list
}

// conflicts reports whether another seed has accepted another cluster.
func (f *Former) conflicts(r reply) bool {
	return slices.ContainsFunc(f.round, func(o reply) bool {
		return o.err == nil && o.Stage != Empty && o.Cluster != r.Cluster
	})
}

// prepared goes on when the second round has brought what the first did.
func (f *Former) prepared(now int64) Output {
	if out, done := f.meet(now); done {
		return out
	}
	if waits := f.waits(); len(waits) > 0 {
		return f.rest(now, waits...)
	}
	for i, r := range f.round {
		b := f.before[i]
		if r.Node != b.Node || r.Stage != b.Stage || r.Cluster != b.Cluster || r.Attempt != b.Attempt {
			return f.rest(now, fmt.Sprintf("waiting for seed %s: it has just changed", f.seed(i)))
		}
	}
	return f.decide(now)
}

// decide makes an attempt durable, and goes on with it.
func (f *Former) decide(now int64) Output {
	next := f.id
	next.Members = nil
	var highest uint64
	same := f.id.Stage == Accepted
	for _, r := range f.round {
		next.Members = append(next.Members, r.Node)
		if r.Stage == Accepted {
			next.Cluster = r.Cluster
			highest = max(highest, r.Attempt.Number)
			same = same && (r.Attempt.Number < f.id.Attempt.Number || r.Attempt == f.id.Attempt)
		}
	}
	slices.SortFunc(next.Members, byName)
	if same && slices.Equal(next.Members, f.id.Members) {
		return f.form(now)
	}
	var id [16]byte
	draw, err := f.random()
	if err == nil && next.Cluster == "" {
		if _, err = io.ReadFull(f.o.Random, id[:]); err == nil {
			next.Cluster = hex.EncodeToString(id[:])
		}
	}
	if err != nil {
		return f.rest(now, fmt.Sprintf("cannot draw a cluster id: %v", err))
	}
	next.Stage, next.Attempt = Accepted, Attempt{Number: highest + 1, Draw: draw}
	next.Voters, next.Shards = meta.Layout(next.Members, f.o.Shards, f.o.Replicas), f.o.Shards
	return f.save(next, f.form)
}

// form sends the attempt that this node has accepted to the others.
func (f *Former) form(now int64) Output {
	asked := f.round
	f.begin(phaseForm, len(f.o.Seeds))
	calls := make([]Call, 0, len(asked))
	for i, r := range asked {
		f.round[i].HelloAnswer = r.HelloAnswer
		if r.Node.ID == f.id.RaftID {
			continue
		}
		m := Form{Ticket: r.Ticket, Cluster: f.id.Cluster, Attempt: f.id.Attempt, Members: f.id.Members, Voters: f.id.Voters}
		calls = append(calls, f.call(i, Peer{Name: r.Node.Name, Addr: f.o.Seeds[i].Addr}, MethodForm, m.encode()))
	}
	if len(calls) == 0 {
		return f.agreed(now)
	}
	f.status = []string{"forming the cluster " + f.id.Cluster}
	return f.output(calls)
}

// agreed ends the forming when all have accepted.
func (f *Former) agreed(now int64) Output {
	var waits []string
	accepted := 0
	for i, r := range f.round {
		if r.err != nil {
			waits = append(waits, fmt.Sprintf("waiting for seed %s to accept the cluster: %v", f.seed(i), r.err))
		} else {
			accepted++
		}
	}
	if len(waits) > 0 && (!plant.On("cluster-form-by-majority") || accepted <= len(f.round)/2) {
		return f.rest(now, waits...)
	}
	next := f.id
	next.Stage = Formed
	return f.save(next, f.done)
}

// join asks a formed node for the place of the member of this name.
func (f *Former) join(now int64, seed int) Output {
	r := f.round[seed]
	was, ok := memberNamed(r.Members, f.id.Name)
	if !ok {
		return f.rest(now, fmt.Sprintf("seed %s belongs to the cluster %s, which has no member %s: adding nodes is not supported yet",
			f.seed(seed), r.Cluster, f.id.Name))
	}
	to := Peer{Name: r.Node.Name, Addr: f.o.Seeds[seed].Addr}
	f.begin(phaseJoin, 1)
	f.round[0].HelloAnswer = r.HelloAnswer
	self := f.o.Self
	f.status = []string{fmt.Sprintf("joining the cluster %s through %s", r.Cluster, to)}
	return f.output([]Call{f.call(0, to, MethodJoin, Join{Cluster: r.Cluster, Was: was.ID, Node: self}.encode())})
}

// joined takes the answer to Join.
func (f *Former) joined(now int64, answer []byte) Output {
	cluster := f.round[0].Cluster
	a, err := decodeJoinAnswer(answer)
	if err == nil && a.Reason != "" {
		err = errors.New(a.Reason)
	}
	if m, ok := memberNamed(a.Members, f.id.Name); err == nil && (!ok || m.ID != f.id.RaftID) {
		err = errors.New("the answer does not name this node as a member")
	}
	if err != nil {
		f.first++
		return f.rest(now, fmt.Sprintf("waiting for the cluster %s to let this node join: %v", cluster, err))
	}
	next := f.id
	next.Stage, next.Cluster, next.Attempt = Formed, cluster, a.Attempt
	next.Members, next.Voters, next.Shards = a.Members, nil, a.Shards
	slices.SortFunc(next.Members, byName)
	return f.save(next, f.done)
}

// save asks for a write; then comes after it.
func (f *Former) save(next Identity, then func(now int64) Output) Output {
	f.write, f.then = &next, then
	return Output{Write: &next, Next: never}
}

// Saved says that the write is durable.
func (f *Former) Saved(now int64) Output {
	if f.write == nil {
		return f.output(nil)
	}
	f.id = *f.write
	f.write = nil
	return f.then(now)
}
