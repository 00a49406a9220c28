package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Workload says what is measured. A field that a workload has no use for is
// ignored by it.
type Workload struct {
	Name       string        `json:"name"`       // one of Names
	Size       int           `json:"size"`       // bytes of a body, at least MinSize
	Count      int           `json:"count"`      // messages, all publishers together
	Publishers int           `json:"publishers"` // connections
	Batch      int           `json:"batch"`      // messages per command
	InFlight   int           `json:"in_flight"`  // commands of a connection that wait for an answer
	Consumers  int           `json:"consumers"`  // connections on one channel
	Channels   int           `json:"channels"`
	Topics     int           `json:"topics,omitempty"`     // topics: how many are held against one
	Partitions int           `json:"partitions,omitempty"` // cluster-partitions: how many are held against one
	Window     int           `json:"window"`               // unfinished messages of a consumer; 0: as many as the server allows
	Rate       float64       `json:"rate"`                 // messages per second, open loop
	Load       float64       `json:"load,omitempty"`       // latency: the rate is this share of what the server takes in batches
	Duration   time.Duration `json:"duration"`             // open loop: how long; closed loop: stop earlier than Count; cluster-kill: load after each kill
	Deferred   int           `json:"deferred"`             // timers: messages that wait for their time
	Unfinished int           `json:"unfinished"`
	Delay      time.Duration `json:"delay"`           // timers: from publish until due
	Kills      int           `json:"kills,omitempty"` // cluster-kill: how often the leader is killed
	Patience   time.Duration `json:"patience"`        // without a delivery for so long, what is missing is lost
}

// kinds are the workloads, in the order of their numbers.
var kinds = []struct{ name, number, text string }{
	{"publish", "W1", "publish one by one, waiting for every answer"},
	{"batch", "W2", "publish in batches, several in flight"},
	{"drain", "W3", "consume a backlog, finishing every message"},
	{"fanout", "W4", "one topic, many channels, publishing and consuming at once"},
	{"latency", "W5", "from the intended moment of sending to delivery, at a fixed rate"},
	{"memory", "W6", "memory of a backlog; kill -9, and the time to be back (own servers only)"},
	{"stopped", "W7", "what one stopped channel does to the latency of the others"},
	{"timers", "W8", "idle CPU with many deferred and unfinished messages, and accuracy of timers"},
	{"cluster-publish", "W9", "publish one by one, through all nodes of a cluster of three"},
	{"cluster-batch", "W9", "publish in batches, through all nodes of a cluster of three"},
	{"cluster-kill", "W9", "kill -9 of a cluster's leader under load: how long publishing stops"},
	{"cluster-delivery", "", "consume at a node of three that does not lead, against at the one that does"},
	{"cluster-partitions", "", "publish in batches to one hot topic of several partitions, through all nodes of a cluster of three, against one partition"},
	{"topics", "", "publish and consume on many topics, against the same on one"},
	{"ephemeral", "", "publish in batches and consume at once, on an #ephemeral topic and channel"},
}

// Names lists the workloads, W1 first; those without a number come last.
func Names() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// Explain says what a workload measures, in one line.
func Explain(name string) string {
	for _, k := range kinds {
		if k.name == name && k.number != "" {
			return k.number + ": " + k.text
		} else if k.name == name {
			return k.text
		}
	}
	return ""
}

// numbered names the workloads with a number, such as W9; none for another text.
func numbered(number string) (names []string) {
	for _, k := range kinds {
		if k.number != "" && strings.EqualFold(number, k.number) {
			names = append(names, k.name)
		}
	}
	return names
}

// Lookup returns a workload, by name or number, with values that take seconds.
func Lookup(name string) (Workload, error) {
	for _, k := range kinds {
		if strings.EqualFold(name, k.name) {
			return defaults(k.name), nil
		}
	}
	switch names := numbered(name); len(names) {
	case 0:
		return Workload{}, fmt.Errorf("no workload %q: want %s, or W1 to W9", name, strings.Join(Names(), ", "))
	case 1:
		return defaults(names[0]), nil
	default:
		return Workload{}, fmt.Errorf("%s is several workloads: say %s", name, strings.Join(names, ", "))
	}
}

func defaults(name string) Workload {
	w := Workload{
		Name: name, Size: 200, Count: 200_000, Publishers: 4, Batch: 100, InFlight: 4, Consumers: 1, Channels: 1,
		Duration: 10 * time.Second, Patience: 10 * time.Second,
	}
	switch name {
	case "publish", "cluster-publish":
		w.Publishers, w.Batch, w.InFlight, w.Duration = 64, 1, 1, 3*time.Second
	case "cluster-kill":
		w.Publishers, w.Batch, w.InFlight, w.Kills, w.Duration, w.Patience = 64, 1, 1, 5, 4*time.Second, 20*time.Second
	case "batch", "cluster-batch":
		w.Count, w.Duration = 2_000_000, 3*time.Second
	case "cluster-delivery":
		w.Count = 500_000
	case "cluster-partitions":
		w.Count, w.Publishers, w.Partitions, w.Duration = 2_000_000, 24, 6, 3*time.Second
	case "drain":
		w.Size, w.Count = 1024, 300_000
	case "fanout":
		w.Channels = 10
	case "latency":
		w.Publishers, w.Batch, w.Rate, w.Window, w.Duration = 1, 1, 200, 200, 5*time.Second
	case "memory":
		w.Count = 1_000_000
	case "stopped":
		w.Publishers, w.Batch, w.Channels, w.Rate, w.Window, w.Duration = 1, 1, 10, 1000, 200, 5*time.Second
	case "timers":
		w.Size, w.Deferred, w.Unfinished, w.Count, w.Delay, w.Duration = 100, 100_000, 100_000, 1000, 15*time.Second, 5*time.Second
	case "topics":
		w.Count, w.Topics = 800_000, 8
	case "ephemeral":
		w.Count = 1_000_000
	}
	return w
}

// Check reports the first value that can't work.
func (w Workload) Check() error {
	if !slices.Contains(Names(), w.Name) {
		return fmt.Errorf("no workload %q", w.Name)
	}
	for _, f := range []struct {
		name     string
		v        int
		min, max int
	}{
		{"size", w.Size, MinSize, 1 << 20},
		{"count", w.Count, 1, 1 << 30},
		{"publishers", w.Publishers, 1, 10_000},
		{"batch", w.Batch, 1, 100_000},
		{"in-flight", w.InFlight, 1, 10_000},
		{"consumers", w.Consumers, 1, 10_000},
		{"channels", w.Channels, 1, 10_000},
		{"topics", w.Topics, 0, 10_000},
		{"partitions", w.Partitions, 0, 4096},
		{"window", w.Window, 0, 1 << 20},
		{"deferred", w.Deferred, 0, 1 << 30},
		{"unfinished", w.Unfinished, 0, 1 << 24},
		{"kills", w.Kills, 0, 10_000},
	} {
		if f.v < f.min || f.v > f.max {
			return fmt.Errorf("%s %d: want %d to %d", f.name, f.v, f.min, f.max)
		}
	}
	if w.Duration <= 0 || w.Patience <= 0 {
		return fmt.Errorf("duration %s and patience %s: want more than nothing", w.Duration, w.Patience)
	}
	if w.Load < 0 || w.Load > 1 {
		return fmt.Errorf("load %g: want a share from 0 to 1", w.Load)
	}
	if w.openLoop() && w.Load == 0 && (w.Rate < 1 || w.Rate > 50e6) {
		return fmt.Errorf("rate %g: want 1 to 50 million messages per second", w.Rate)
	}
	if w.Name == "stopped" && w.Channels < 2 {
		return fmt.Errorf("channels %d: the stopped workload needs 2, one of them to stop", w.Channels)
	}
	if w.leads() && min(w.Publishers*w.Batch, w.Count) > leadMax {
		return fmt.Errorf("batch %d: the %s workload lets %d publishers be %d messages ahead of the consumers, together", w.Batch, w.Name, w.Publishers, leadMax)
	}
	if w.Name == "cluster-kill" && w.Kills < 1 {
		return fmt.Errorf("kills %d: the cluster-kill workload needs one", w.Kills)
	}
	if w.Name == "cluster-partitions" && w.Partitions < 2 {
		return fmt.Errorf("partitions %d: the cluster-partitions workload needs 2, to hold against one", w.Partitions)
	}
	if w.Name == "topics" && w.Topics < 2 {
		return fmt.Errorf("topics %d: the topics workload needs 2, to hold against one", w.Topics)
	}
	return nil
}

func (w Workload) openLoop() bool { return w.Name == "latency" || w.Name == "stopped" }

// leads says that publishers wait for consumers, who must not fall behind.
func (w Workload) leads() bool { return w.Name == "fanout" || w.Name == "ephemeral" }

// crashes says that the workload kills its server.
func (w Workload) crashes() bool { return w.Name == "memory" || w.Name == "cluster-kill" }

// clustered says that the workload with this name needs a cluster.
func clustered(name string) bool { return strings.HasPrefix(name, "cluster-") }

// Clustered says that the workload is for a cluster that the bench has started.
func (w Workload) Clustered() bool { return clustered(w.Name) }

// ID names the row: the workload and what tells its rows apart, as
// requirements name them.
func (w Workload) ID() string {
	switch w.Name {
	case "publish":
		return fmt.Sprintf("publish-%d-%d", w.Publishers, w.Size)
	case "batch":
		return fmt.Sprintf("batch-%d", w.Size)
	case "cluster-publish":
		return fmt.Sprintf("cluster-publish-%d-%d", w.Publishers, w.Size)
	case "cluster-batch":
		return fmt.Sprintf("cluster-batch-%d", w.Size)
	case "cluster-delivery":
		return fmt.Sprintf("cluster-delivery-%d", w.Size)
	case "drain":
		return fmt.Sprintf("drain-%d", w.Consumers)
	case "fanout":
		return fmt.Sprintf("fanout-%d", w.Channels)
	case "latency":
		if w.Load > 0 {
			return fmt.Sprintf("latency-load-%.0f", 100*w.Load)
		}
		return fmt.Sprintf("latency-%.0f", w.Rate)
	case "memory":
		return "memory-" + countText(w.Count)
	case "timers":
		return "timers-" + countText(w.Deferred)
	case "topics":
		return fmt.Sprintf("topics-%d", w.Topics)
	case "cluster-partitions":
		return fmt.Sprintf("cluster-partitions-%d", w.Partitions)
	}
	return w.Name
}

// split divides n over k as evenly as it goes.
func split(n, k int) []int {
	out := make([]int, k)
	for i := range out {
		out[i] = n / k
		if i < n%k {
			out[i]++
		}
	}
	return out
}
