package parked

import (
	"slices"
	"sync"
)

// retired are runs that the set does not need any more, but that a checkpoint
// to which recovery may go back still names.
type retired struct {
	mu    sync.Mutex // runs retire on the owner's goroutine, checkpoints complete on another
	files []retiredRun
	held  int // while above zero no file may go
}

// retiredRun is one of them.
type retiredRun struct {
	seq uint64
	// checkpoints is how many complete ones do not need it; at checkpointsKept
	// it can be removed.
	checkpoints int
}

// checkpointsKept is how many complete checkpoints recovery can use.
const checkpointsKept = 2

// add retires a run.
func (r *retired) add(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = append(r.files, retiredRun{seq: seq})
}

// list returns a copy.
func (r *retired) list() []retiredRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.files)
}

// published notes that a checkpoint is complete which did not need the given
// runs, and takes out those that no kept one needs.
func (r *retired) published(unneeded []retiredRun) (free []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.files[:0]
	for _, f := range r.files {
		if slices.ContainsFunc(unneeded, func(u retiredRun) bool { return u.seq == f.seq }) {
			f.checkpoints = min(f.checkpoints+1, checkpointsKept)
		}
		if f.checkpoints >= checkpointsKept && r.held == 0 {
			free = append(free, f.seq)
			continue
		}
		kept = append(kept, f)
	}
	r.files = kept
	return free
}
