package shard

// job is a checkpoint on its way from the loop to the flusher and back.
type job struct {
	group *Group
	m     manifest // State is filled by the flusher
	state Checkpoint
	// install is set when the state is another replica's.
	install *installation
	older   point // the checkpoint before, which stays
	stage   stage
	err     error // why it was given up
}

// RequestCheckpoint asks for a checkpoint as soon as possible, also when
// nothing has changed: after two of them everything that only older
// checkpoints name is released.
func (g *Group) RequestCheckpoint() {
	g.forced.Store(true)
	g.Wake()
}

// CheckpointDue reports whether a checkpoint was asked for or waits to be
// written.
func (g *Group) CheckpointDue() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.job != nil || g.forced.Load()
}

// checkpoint takes the state when it is due and lays it out for the flusher.
// It returns when the next one will be due by age.
func (g *Group) checkpoint(now int64) (taken bool, due int64) {
	if g.writing {
		return false, Never
	}
	forced := g.forced.Load()
	due = Never
	if g.changedAt != 0 {
		due = g.changedAt + int64(g.o.CheckpointAge)
		if g.bytes >= g.o.CheckpointBytes {
			due = now
		}
	}
	if forced {
		due = now
	}
	if due == Never {
		return false, Never
	}
	if due = max(due, g.retryAt); now < due {
		return false, due
	}
	g.forced.Store(false)
	g.take(now)
	return true, Never
}

// take makes a job of the state as it is.
func (g *Group) take(now int64) {
	g.lastSeq++
	hard := g.hard
	// A follower may know an entry as committed before its own copy is durable.
	hard.Commit = min(hard.Commit, g.applied)
	j := &job{
		group: g,
		m: manifest{
			Shard: g.o.ID, Seq: g.lastSeq, Index: g.applied, Term: g.appliedTerm, Taken: now,
			Hard: hard, Conf: g.log.conf, Void: g.void,
		},
		state: g.o.Machine.Checkpoint(g.applied),
		older: g.newest,
	}
	g.bytes, g.changedAt, g.writing = 0, 0, true
	g.mu.Lock()
	g.job = j
	g.mu.Unlock()
	if g.jobHook != nil {
		g.jobHook()
	}
}

// takeJob gives the waiting checkpoint to the flusher.
func (g *Group) takeJob() *job {
	g.mu.Lock()
	defer g.mu.Unlock()
	j := g.job
	g.job = nil
	return j
}

// finishJob brings a checkpoint back to the loop.
func (g *Group) finishJob(j *job) {
	g.mu.Lock()
	g.in.published = j
	g.mu.Unlock()
	g.Wake()
}

// retryAfter is the pause after a checkpoint that was given up, in ns.
const retryAfter = int64(1e9)

// published takes note of a checkpoint that is durable, or was given up.
func (g *Group) published(j *job, now int64) error {
	if j.install != nil {
		return g.installed(j)
	}
	g.writing = false
	if j.err != nil {
		g.retryAt = now + retryAfter
		g.forced.Store(true)
		return nil
	}
	g.older, g.newest = g.newest, j.m.point()
	g.log.newest = g.newest
	g.releaseLog()
	return nil
}
