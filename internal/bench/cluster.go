package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// ClusterSpec says how servers are started that work as one.
type ClusterSpec struct {
	Name  string // for messages
	Nodes int
	Ports int // how many free ports each node needs; at the first it must answer
	// Files, when not nil, writes what all share into their folder.
	Files func(dir string) error
	// Node is how the node with this number, from 0, is started, given the folder
	// that all share, and everybody's ports.
	Node func(i int, dir string, ports [][]int) Spec
	// Target speaks to one node.
	Target func(s *Server) Target
	// Whole waits until all nodes are there, everything has a leader, and all
	// copies have what there was when it was called.
	Whole func(ctx context.Context, c *Cluster) error
	// Leader is the number of the node that leads the part which carries the topic,
	// or, with no other, carries most; below 0 when there is none.
	Leader func(ctx context.Context, c *Cluster, topic string) (int, error)
	// Answers is the time after which a client has to give an answer up.
	Answers time.Duration
}

// Cluster is started servers that know of each other. Its data is in one folder.
type Cluster struct {
	spec  ClusterSpec
	dir   string
	nodes []*Server
}

const (
	wholeTimeout = time.Minute // for all nodes of a cluster to be there
	wholeLook    = 20 * time.Millisecond
	clusterTries = 5 // starts of a cluster whose ports are taken meanwhile
)

// StartCluster starts the servers with their data in a new folder under dir, and
// waits until they are a whole. Their ports are free when they are chosen; when a
// server ends because another program was quicker, all begin again with others.
func StartCluster(ctx context.Context, spec ClusterSpec, dir string) (*Cluster, error) {
	for try := 1; ; try++ {
		c, err := startCluster(ctx, spec, dir)
		if err == nil || try == clusterTries || !errors.Is(err, errEnded) {
			return c, err
		}
	}
}

func startCluster(ctx context.Context, spec ClusterSpec, dir string) (_ *Cluster, err error) {
	c := &Cluster{spec: spec}
	if c.dir, err = os.MkdirTemp(dir, "bench-"+spec.Name+"-"); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return nil, err
	}
	if spec.Files != nil {
		if err := spec.Files(c.dir); err != nil {
			return nil, err
		}
	}
	all, err := freePorts(spec.Nodes * spec.Ports)
	if err != nil {
		return nil, err
	}
	ports := make([][]int, spec.Nodes)
	for i := range ports {
		ports[i] = all[i*spec.Ports : (i+1)*spec.Ports]
	}
	for i := range ports {
		s := &Server{spec: spec.Node(i, c.dir, ports), dir: filepath.Join(c.dir, nodeName(i)), ports: ports[i]}
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data folder: %w", err)
		}
		if err := errors.Join(s.configure(), s.start(ctx)); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, s)
	}
	return c, c.Whole(ctx)
}

// nodeName is the name of the node with this number, from 0: n1, n2, n3.
func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

// Whole waits until the cluster is whole, for at most a minute.
func (c *Cluster) Whole(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	err := c.spec.Whole(limited, c)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("wait for all nodes of %s: %w", c.spec.Name, err)
}

// await asks until there is no reason against it any more. A node that has ended
// ends it too.
func (c *Cluster) await(ctx context.Context, missing func(ctx context.Context) error) error {
	for {
		err := missing(ctx)
		if err == nil {
			return nil
		}
		for _, s := range c.nodes {
			if !s.running() {
				return s.ended()
			}
		}
		if sleep(ctx, wholeLook) != nil {
			return err
		}
	}
}

// Leader is the number of the node that leads what carries the topic.
func (c *Cluster) Leader(ctx context.Context, topic string) (int, error) {
	i, err := c.spec.Leader(ctx, c, topic)
	if err == nil && (i < 0 || i >= len(c.nodes)) {
		err = fmt.Errorf("%s has no leader", topic)
	}
	if err != nil {
		return 0, fmt.Errorf("ask %s for the leader: %w", c.spec.Name, err)
	}
	return i, nil
}

// Target speaks to all nodes: publishers and consumers connect to them in turn.
func (c *Cluster) Target() Target {
	t := &nodes{each: make([]Target, len(c.nodes))}
	for i, s := range c.nodes {
		t.each[i] = c.spec.Target(s)
	}
	return t
}

// Processes are the running processes of all nodes.
func (c *Cluster) Processes() Processes {
	var ps Processes
	for _, s := range c.nodes {
		ps = append(ps, s.Processes()...)
	}
	return ps
}

// Command is how the first node was started, for people.
func (c *Cluster) Command() string {
	return fmt.Sprintf("%s (and %d more like it)", c.nodes[0].Command(), len(c.nodes)-1)
}

// Config is the file that the first node was given, if any.
func (c *Cluster) Config() string { return c.nodes[0].Config() }

// Stop ends all processes and removes their data.
func (c *Cluster) Stop() error {
	errs := make(chan error, len(c.nodes))
	for _, s := range c.nodes {
		go func() { errs <- s.halt() }()
	}
	var err error
	for range c.nodes {
		err = errors.Join(err, <-errs)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// nodes is a cluster as a Target.
type nodes struct {
	each                  []Target
	publishers, consumers atomic.Uint32
}

// Prepare implements Target.
func (t *nodes) Prepare(ctx context.Context, topic string, channels []string) error {
	if err := t.each[0].Prepare(ctx, topic, channels); err != nil {
		return err
	}
	for _, n := range t.each {
		if n, ok := n.(learner); ok {
			if err := n.learn(ctx, topic); err != nil {
				return err
			}
		}
	}
	return nil
}

// learner is a server that hears of what another has made some time after that.
type learner interface {
	// learn waits until messages for the topic are taken here.
	learn(ctx context.Context, topic string) error
}

// Publisher implements Target.
func (t *nodes) Publisher(ctx context.Context, topic string) (Publisher, error) {
	return t.turn(&t.publishers).Publisher(ctx, topic)
}

// Consumer implements Target. A node may deliver only what it leads: it takes as
// many as everywhere says to get all.
func (t *nodes) Consumer(ctx context.Context, topic, channel string, window int) (Consumer, error) {
	return t.turn(&t.consumers).Consumer(ctx, topic, channel, window)
}

func (t *nodes) turn(n *atomic.Uint32) Target {
	return t.each[(n.Add(1)-1)%uint32(len(t.each))]
}

// everywhere implements wide.
func (t *nodes) everywhere() int { return len(t.each) }

// Drop implements Target.
func (t *nodes) Drop(ctx context.Context, topic string) error { return t.each[0].Drop(ctx, topic) }
