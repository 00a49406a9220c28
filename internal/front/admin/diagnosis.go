package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

type (
	// HostFigures are what a node has of its machine, and what could keep it
	// from working: `tidings doctor` judges them. Zero is unknown.
	HostFigures struct {
		Version      string  `json:"version"`
		FeatureLevel uint32  `json:"feature_level"` // highest that its program knows
		ClockUs      int64   `json:"clock_us"`      // unix µs when it told this
		PID          int     `json:"pid"`
		DataPath     string  `json:"data_path"` // absolute
		Filesystem   string  `json:"filesystem,omitempty"`
		DiskFree     int64   `json:"disk_free_bytes"`
		DiskReserve  int64   `json:"disk_reserve_bytes"`
		SyncP50Ms    float64 `json:"sync_p50_ms"` // since its process started
		SyncP99Ms    float64 `json:"sync_p99_ms"`
		OpenFiles    int64   `json:"open_files"`
		OpenFilesMax int64   `json:"open_files_max"`
		Resident     int64   `json:"resident_bytes"`
		GroupLimit   int64   `json:"control_group_limit_bytes"` // 0: none
		MemoryLimit  int64   `json:"memory_limit_bytes"`        // that it tries to stay below; 0: none

		Certificates []Certificate `json:"certificates"`
	}

	// Certificate is one that the node uses.
	Certificate struct {
		Use       string `json:"use"` // clients, cluster, or cluster_authority
		File      string `json:"file"`
		ExpiresAt int64  `json:"expires_at"` // unix ms; 0: the file can't be read
		Error     string `json:"error,omitempty"`
	}

	// NodeDiagnosis is one node's part of a Diagnosis.
	NodeDiagnosis struct {
		Node string `json:"node"`
		Self bool   `json:"self"`
		// ClockOffsetMs is how far the node's clock is ahead of the one of the
		// node that answers, give or take ClockErrorMs.
		ClockOffsetMs float64 `json:"clock_offset_ms"`
		ClockErrorMs  float64 `json:"clock_error_ms"`

		HostFigures
	}

	// Diagnosis is what the nodes have of their machines.
	Diagnosis struct {
		At           int64           `json:"at"`
		Cluster      string          `json:"cluster"`
		FeatureLevel uint32          `json:"feature_level"` // of the commands that all members know
		Nodes        []NodeDiagnosis `json:"nodes"`
		Missing      []Missing       `json:"missing"`
	}
)

// diagnosis asks all nodes, each once, and compares their clocks with this
// node's meanwhile.
func (f *Front) diagnosis(ctx context.Context, e *Engine, _ *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	status := f.o.Cluster()
	out := Diagnosis{At: time.Now().UnixMilli(), Cluster: status.Cluster, FeatureLevel: status.Feature, Missing: []Missing{}}
	out.Nodes = []NodeDiagnosis{{Node: e.Meta.Node().Name, Self: true, HostFigures: e.Host()}}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, p := range e.others() {
		all.Go(func() {
			asked := time.Now()
			h, err := ask[HostFigures](ctx, e, p.ID, &question{Op: opHost})
			took := time.Since(asked)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Missing = append(out.Missing, Missing{Node: p.Name, Reason: err.Error()})
				return
			}
			// its clock's time lies somewhere between the two of ours
			middle := asked.Add(took / 2).UnixMicro()
			out.Nodes = append(out.Nodes, NodeDiagnosis{
				Node: p.Name, ClockOffsetMs: float64(h.ClockUs-middle) / 1000, ClockErrorMs: float64(took.Microseconds()) / 2000, HostFigures: h,
			})
		})
	}
	all.Wait()
	slices.SortFunc(out.Nodes, func(a, b NodeDiagnosis) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(out.Missing, func(a, b Missing) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}
