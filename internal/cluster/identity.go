package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tidings-io/tidings/internal/meta"
)

// Peer is a node to call. The name is empty while only an address is known;
// whoever answers there, its certificate says who it is.
type Peer struct {
	Name string
	Addr string // host:port
}

// String is "name (host:port)", or what of it is known.
func (p Peer) String() string {
	switch {
	case p.Name == "":
		return p.Addr
	case p.Addr == "":
		return p.Name
	}
	return p.Name + " (" + p.Addr + ")"
}

// ParseSeeds reads a list of seeds, each NAME=HOST:PORT or HOST:PORT. It
// refuses a number of seeds that cannot form a cluster, and says why.
func ParseSeeds(list []string) ([]Peer, error) {
	seeds := make([]Peer, 0, len(list))
	for _, text := range list {
		name, addr, named := strings.Cut(strings.TrimSpace(text), "=")
		if !named {
			name, addr = "", name
		}
		if named && name == "" || len(name) > meta.MaxName || !isAddress(addr) {
			return nil, fmt.Errorf("seed %q is neither NAME=HOST:PORT nor HOST:PORT", text)
		}
		if at, err := netip.ParseAddrPort(addr); err == nil && at.Addr().IsUnspecified() {
			return nil, fmt.Errorf("seed %q says not where other nodes reach it", text)
		}
		for _, s := range seeds {
			if s.Addr == addr || name != "" && s.Name == name {
				return nil, fmt.Errorf("seed %q is there twice", text)
			}
		}
		seeds = append(seeds, Peer{Name: name, Addr: addr})
	}
	switch n := len(seeds); n {
	case 1, 3, 5:
		return seeds, nil
	case 2, 4:
		return nil, fmt.Errorf("%d seeds cannot form a cluster: a majority of %d is %d, so it would survive the loss of no more nodes than one of %d; name 1, 3 or 5",
			n, n, n/2+1, n-1)
	default:
		return nil, fmt.Errorf("%d seeds cannot form a cluster; name 1, 3 or 5", n)
	}
}

// isAddress reports whether text is HOST:PORT.
func isAddress(text string) bool {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 || len(text) > meta.MaxAddress || !isPlain(text) {
		return false
	}
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || port == 0 {
		return false
	}
	host := text[:i]
	if strings.HasPrefix(host, "[") {
		_, err = netip.ParseAddr(strings.Trim(host, "[]"))
		return err == nil
	}
	return !strings.Contains(host, ":")
}

// isPlain reports whether text can stand in a list, a log line and an address:
// it has no blanks, commas and control characters.
func isPlain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r == ',' || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

// checkAddresses reports what is wrong with the addresses that a node says it
// has; nil when nothing is. They go into metadata, and from there to everyone.
func checkAddresses(n *meta.Node) error {
	if !isAddress(n.Addr) {
		return fmt.Errorf("%q is no address where %s can be reached", n.Addr, n.Name)
	}
	for _, addr := range []string{n.TCP, n.HTTP} {
		if addr != "" && !isAddress(addr) {
			return fmt.Errorf("%q is no address where clients can reach %s", addr, n.Name)
		}
	}
	if len(n.Broadcast) > meta.MaxAddress || !isPlain(n.Broadcast) {
		return fmt.Errorf("%q is no host where clients can reach %s", n.Broadcast, n.Name)
	}
	return nil
}

// addresses lists where the seeds are, sorted: lists that differ only in order
// or names are the same.
func addresses(seeds []Peer) []string {
	list := make([]string, len(seeds))
	for i, s := range seeds {
		list[i] = s.Addr
	}
	slices.Sort(list)
	return list
}

// Stage is how far a disk has come.
type Stage uint8

// The stages of a disk.
const (
	Empty    Stage = iota // belongs to no cluster
	Accepted              // has agreed to an attempt to form one
	Formed                // belongs to a cluster: its groups may begin
	// Rejoining: it was formed, and cannot be trusted to know what it has promised
	// any more. Under a new Raft id it asks for the place of the member of its
	// name. To others it is a disk of a formed cluster, so that none is formed
	// beside that.
	Rejoining
)

// String is the stage in lower case.
func (s Stage) String() string {
	switch s {
	case Empty:
		return "empty"
	case Accepted:
		return "accepted"
	case Formed:
		return "formed"
	case Rejoining:
		return "rejoining"
	}
	return "stage " + strconv.Itoa(int(s))
}

// Attempt tells the attempts to form a cluster apart. A higher number replaces a
// lower one as long as no node is formed.
type Attempt struct {
	Number uint64 // from 1
	Draw   uint64 // random: two attempts of one number are not the same
}

// Identity is what a disk says about its node: the file NODE. It is written
// whole, and durable before anyone is told.
type Identity struct {
	Name   string // of the node
	RaftID uint64 // drawn anew for every disk
	Stage  Stage

	// From Accepted on.
	Cluster string  // id, 32 hex characters
	Attempt Attempt // that formed it, or may
	// Members of the cluster, by name: those that agreed, or as they were when
	// this node joined. One that is rejoining stands there under the Raft id that
	// it had.
	Members []meta.Node
	// Voters of every group of the new cluster, index 0 metadata: what each
	// founding member begins its groups with. Nil for a node that joined: its
	// groups begin empty, and get what they need from the others.
	Voters [][]uint64
	Shards int // data shards of the cluster
}

// Founding is what the first leader of metadata begins the cluster with; nil
// for a node that is not formed, or joined later.
func (id *Identity) Founding() *meta.Founding {
	if id.Stage != Formed || len(id.Voters) == 0 {
		return nil
	}
	return &meta.Founding{Cluster: id.Cluster, Nodes: id.Members, Voters: id.Voters}
}

// Check reports what is wrong with an identity; nil when nothing is.
func (id *Identity) Check() error {
	if id.RaftID == 0 || id.Name == "" || len(id.Name) > meta.MaxName || id.Stage > Rejoining {
		return fmt.Errorf("check identity: name %q, Raft id %d, %s", id.Name, id.RaftID, id.Stage)
	}
	if id.Stage == Empty {
		if id.Cluster != "" {
			return fmt.Errorf("check identity: empty, with the cluster %s", id.Cluster)
		}
		return nil
	}
	if err := checkCluster(id.Cluster); err != nil {
		return err
	}
	if id.Stage == Accepted || len(id.Voters) > 0 {
		f := meta.Founding{Cluster: id.Cluster, Nodes: id.Members, Voters: id.Voters}
		if err := f.Check(); err != nil {
			return err
		}
	}
	m, ok := memberNamed(id.Members, id.Name)
	switch {
	case !ok || m.ID != id.RaftID && id.Stage != Rejoining:
		return fmt.Errorf("check identity: node %s is not one of the members", id.Name)
	case id.Stage == Rejoining && (m.ID == id.RaftID || len(id.Members) == 1 || len(id.Voters) > 0):
		return fmt.Errorf("check identity: node %s has nobody to come back to, or its old Raft id", id.Name)
	}
	return nil
}

// Rejoin returns what the disk of a member has to say that lost what it had
// promised: damage in its log below what was durable. raftID is a new one; the
// old one must never speak again. It is an error for a node that is no member of
// a cluster with others, who could give it back what it held.
func (id *Identity) Rejoin(raftID uint64) (Identity, error) {
	next := *id
	next.RaftID, next.Stage, next.Voters = raftID, Rejoining, nil
	if id.Stage != Formed {
		return *id, fmt.Errorf("rejoin: node %s is %s", id.Name, id.Stage)
	}
	if err := next.Check(); err != nil {
		return *id, fmt.Errorf("rejoin: %w", err)
	}
	return next, nil
}

// checkCluster reports whether text is a cluster id.
func checkCluster(text string) error {
	if len(text) != 32 || strings.Trim(text, "0123456789abcdef") != "" {
		return fmt.Errorf("%q is not a cluster id", text)
	}
	return nil
}

func memberNamed(members []meta.Node, name string) (meta.Node, bool) {
	i := slices.IndexFunc(members, func(n meta.Node) bool { return n.Name == name })
	if i < 0 {
		return meta.Node{}, false
	}
	return members[i], true
}

func byName(a, b meta.Node) int { return cmp.Compare(a.Name, b.Name) }
