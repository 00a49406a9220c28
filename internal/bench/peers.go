package bench

import (
	"fmt"
	"slices"
	"time"
)

// SyncedBeforeAnswer is the durability of a tidings node.
const SyncedBeforeAnswer = "synced before the answer"

// SyncedByMost is the durability of a cluster of tidings nodes.
const SyncedByMost = "synced by two of three before the answer"

// System is a server that Compare can start: a program, the flags it is started
// with, and what its answers mean.
type System struct {
	Name       string
	Peer       string // the program that must be given; empty: our own
	Durability string
	Promise    Promise
	Workloads  []string // names of those it takes part in
	// Adapt cuts a workload to what a slow system can do in the time of the
	// others, or says that its row there tells nothing new; nil takes all as
	// they are.
	Adapt  func(Workload) (Workload, bool)
	Spec   func(path string) Spec
	Target func(*Server, Workload) Target
	// Cluster, in place of Spec and Target, starts several servers as one system.
	Cluster func(path string) ClusterSpec
}

// takes says whether the system takes part in a workload, and in what size.
func (s System) takes(w Workload) (Workload, bool) {
	if !slices.Contains(s.Workloads, w.Name) {
		return w, false
	}
	if s.Adapt == nil {
		return w, true
	}
	return s.Adapt(w)
}

// Ours and OurCluster are the names of our own systems in rows and ratios: one
// node, and three.
const (
	Ours       = "tidings"
	OurCluster = "tidings-3"
)

func ours(system string) bool { return system == Ours || system == OurCluster }

// alone names the workloads for one server, together those for a cluster.
func alone() (names []string) { return slices.DeleteFunc(Names(), clustered) }

func together() []string {
	return slices.DeleteFunc(Names(), func(n string) bool { return !clustered(n) })
}

// Peers are the programs that Compare knows.
func Peers() []string { return []string{"nsqd", "nats-server", "redis-server"} }

// Systems lists what Compare can start, our own first.
func Systems() []System {
	return slices.Concat([]System{
		{Name: Ours, Durability: SyncedBeforeAnswer, Workloads: alone(), Spec: TidingsSpec, Target: nsqTarget},
		{Name: OurCluster, Durability: SyncedByMost, Workloads: together(), Cluster: TidingsClusterSpec},
	}, nsqdSystems(), natsSystems(), redisSystems())
}

func nsqdSystems() []System {
	promise := Promise{MayReorder: true, MayLose: true, MayRepeat: true}
	unbuffered := func(s *Server, w Workload) Target {
		t := nsqTarget(s, w).(*NSQ)
		t.Unbuffered = true
		return t
	}
	return []System{
		{
			Name: "nsqd", Peer: "nsqd", Durability: "memory, overflow to disk, no sync", Promise: promise, Workloads: alone(),
			Spec: nsqdSpec(), Target: nsqTarget,
		},
		{
			Name: "nsqd-sync", Peer: "nsqd", Durability: "disk, synced after every message", Promise: promise, Workloads: []string{"publish", "batch"},
			// Bound by the number of its syncs, whatever is in a message.
			Adapt: func(w Workload) (Workload, bool) { return w, w.Size <= 512 },
			Spec:  nsqdSpec("--sync-every=1", "--mem-queue-size=0"), Target: nsqTarget,
		},
		{
			Name: "nsqd-unbuffered", Peer: "nsqd", Durability: "memory, overflow to disk, no sync, unbuffered client", Promise: promise,
			Workloads: []string{"latency"},
			// Half of its full rate is a stream that fills every buffer.
			Adapt: func(w Workload) (Workload, bool) { return w, w.Load == 0 },
			Spec:  nsqdSpec(), Target: unbuffered,
		},
	}
}

func natsSystems() []System {
	jet := func(s *Server, _ Workload) Target { return &JetStream{Addr: s.Addr(0)} }
	return []System{
		{
			Name: "nats", Peer: "nats-server", Durability: "none, passes on", Promise: Promise{MayLose: true},
			Workloads: []string{"batch", "fanout", "latency"}, Spec: natsSpec(""),
			Target: func(s *Server, _ Workload) Target { return &NATS{Addr: s.Addr(0), Monitor: s.Addr(1)} },
		},
		{
			Name: "jetstream", Peer: "nats-server", Durability: "file, synced every 2 min", Promise: Promise{MayLose: true},
			Workloads: []string{"publish", "batch", "drain", "fanout", "latency", "memory"},
			// A quarter takes it as long as the others; its pace is the same from the first
			// second on.
			Adapt: func(w Workload) (Workload, bool) {
				if w.Name == "fanout" {
					w.Count = max(1, w.Count/4)
				}
				return w, true
			},
			Spec: natsSpec(`sync_interval: "2m"`), Target: jet,
		},
		{
			Name: "jetstream-always", Peer: "nats-server", Durability: SyncedBeforeAnswer,
			Workloads: []string{"publish", "batch"}, Spec: natsSpec("sync_interval: always"), Target: jet,
		},
		{
			Name: "jetstream-3-always", Peer: "nats-server", Durability: SyncedByMost,
			// A consumer there has a leader of its own, which need not be the stream's.
			Workloads: []string{"cluster-publish", "cluster-batch", "cluster-kill"}, Cluster: natsClusterSpec("sync_interval: always"),
		},
	}
}

func redisSystems() []System {
	target := func(s *Server, _ Workload) Target { return &Redis{Addr: s.Addr(0)} }
	return []System{
		{
			Name: "redis", Peer: "redis-server", Durability: "append-only file, synced every second", Promise: Promise{MayLose: true},
			Workloads: []string{"publish", "batch", "drain"}, Spec: redisSpec("everysec"), Target: target,
		},
		{
			Name: "redis-always", Peer: "redis-server", Durability: SyncedBeforeAnswer,
			Workloads: []string{"publish", "batch"}, Spec: redisSpec("always"), Target: target,
		},
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// TidingsSpec starts a node of our own with default settings. Its ports are NSQ
// TCP and HTTP.
func TidingsSpec(path string) Spec {
	return Spec{
		Name: Ours, Path: path, Ports: 2,
		Args: func(dir string, ports []int) []string {
			return []string{
				"serve", "--data-path", dir + "/data", "--tcp-address", loopback(ports[0]),
				"--http-address", loopback(ports[1]), "--admin-address=", "--lookup-tcp-address=", "--lookup-http-address=", "--nsqadmin-http-address=", "--log-level", "warn",
			}
		},
	}
}

func nsqTarget(s *Server, w Workload) Target {
	t := &NSQ{TCP: s.Addr(0), HTTP: s.Addr(1)}
	t.For(w)
	return t
}

func nsqdSpec(extra ...string) func(path string) Spec {
	return func(path string) Spec {
		return Spec{Name: "nsqd", Path: path, Ports: 2, Args: func(dir string, ports []int) []string {
			return append([]string{
				"--data-path", dir, "--tcp-address", loopback(ports[0]), "--http-address", loopback(ports[1]), "--log-level", "error",
			}, extra...)
		}}
	}
}

// natsSpec starts nats-server; jetStream is JetStream's own setting, empty for
// none of it.
func natsSpec(jetStream string) func(path string) Spec {
	return func(path string) Spec {
		return Spec{
			Name: "nats-server", Path: path, Ports: 2,
			Args: func(dir string, _ []int) []string { return []string{"-c", dir + "/config"} },
			File: func(dir string, ports []int) string {
				text := fmt.Sprintf("listen: %q\nhttp: %q\nlogtime: false\n", loopback(ports[0]), loopback(ports[1]))
				if jetStream != "" {
					text += fmt.Sprintf("jetstream { store_dir: %q, %s }\n", dir+"/store", jetStream)
				}
				return text
			},
		}
	}
}

func redisSpec(sync string) func(path string) Spec {
	return func(path string) Spec {
		return Spec{Name: "redis-server", Path: path, Ports: 1, Args: func(dir string, ports []int) []string {
			return []string{
				"--bind", "127.0.0.1", "--port", fmt.Sprint(ports[0]), "--dir", dir, "--appendonly", "yes",
				"--appendfsync", sync, "--save", "", "--loglevel", "warning",
			}
		}}
	}
}

// Standard lists the rows of a comparison: W1 to W9 with the numbers that the
// published tables have, cut to sizes that take seconds each.
func Standard() []Workload {
	vary := func(name string, set func(*Workload)) Workload {
		w := defaults(name)
		set(&w)
		return w
	}
	size := func(n int) func(*Workload) { return func(w *Workload) { w.Size = n } }
	consumers := func(n int) func(*Workload) { return func(w *Workload) { w.Consumers = n } }
	topics := func(n int) func(*Workload) { return func(w *Workload) { w.Topics = n } }
	return []Workload{
		vary("publish", func(w *Workload) { w.Publishers = 1 }),
		vary("publish", size(200)),
		vary("publish", size(1024)),
		vary("batch", size(200)),
		vary("batch", func(w *Workload) { w.Size, w.Count = 1024, 1_000_000 }),
		vary("drain", consumers(1)),
		vary("drain", consumers(2)),
		vary("drain", consumers(8)),
		vary("fanout", size(200)),
		vary("fanout", func(w *Workload) { w.Channels, w.Count = 100, 30_000 }),
		vary("latency", size(200)),
		vary("latency", func(w *Workload) { w.Rate, w.Duration = 5000, 3*time.Second }),
		vary("latency", func(w *Workload) {
			w.Load, w.Publishers, w.Batch, w.Window, w.Duration = 0.5, 4, 100, 0, 2*time.Second
		}),
		vary("topics", topics(8)),
		vary("topics", topics(1000)),
		defaults("ephemeral"),
		defaults("memory"),
		vary("memory", func(w *Workload) { w.Count = 10_000_000 }),
		defaults("stopped"),
		defaults("timers"),
		vary("timers", func(w *Workload) {
			w.Deferred, w.Unfinished, w.Delay = 1_000_000, 1_000_000, 45*time.Second
		}),
		defaults("cluster-publish"),
		defaults("cluster-batch"),
		defaults("cluster-kill"),
		defaults("cluster-delivery"),
		defaults("cluster-partitions"),
	}
}

// Select returns the standard rows whose ID is name or begins with it.
func Select(name string) []Workload {
	names := numbered(name) // W3 is drain
	if len(names) == 0 {
		names = []string{name}
	}
	var out []Workload
	for _, w := range Standard() {
		if slices.ContainsFunc(names, func(n string) bool { return matchesRow(w.ID(), n) }) {
			out = append(out, w)
		}
	}
	return out
}
