package shard

// Entry is one committed command list, as it stands in the log.
type Entry struct {
	Index uint64 // raft index; unique in the group, rises without holes except for no-ops
	Term  uint64 // term of the leader that proposed it
	Data  []byte // what Drain returned; immutable, may be kept
}

// Machine is the replicated state of one group. The group's loop calls it, one
// method at a time; no method may block or do I/O.
type Machine interface {
	// Drain returns the payload of the next entry, built from everything that
	// waits, at most about maxBytes (a larger single command is alone in its
	// entry); nil when nothing waits. It is called only while the group leads
	// in term, after Lead. now is the leader's clock in unix ns. The bytes are
	// copied at once: the machine may reuse their buffer. The token comes back
	// exactly once, with Apply or with Drop.
	Drain(term uint64, now int64, maxBytes int) (data []byte, token any)
	// Apply makes the entry fact. Entries come in index order, each once per
	// life of the machine; no-ops and membership changes do not come here. The
	// token is non-nil when this node proposed the entry in this term and life.
	// An error stops the node.
	Apply(e Entry, token any) error
	// Drop says that what went out under the token will not be applied under it:
	// the leadership is lost, the proposal was refused, or the node stops. For
	// an entry that was already in the log the outcome is unknown.
	Drop(token any, err error)
	// Lead says that the group's own no-op of this term is applied: it may serve.
	Lead(term uint64)
	// Follow says that the group does not lead any more. Only after Lead.
	Follow()
	// Tick does due work and returns when it wants to be called again (unix ns;
	// math.MaxInt64 = not by itself). It is called on every pass of the loop.
	Tick(now int64) (next int64)
	// Checkpoint takes the state as of index (all entries up to it are applied,
	// none above), copy-on-write and cheap.
	Checkpoint(index uint64) Checkpoint
	// Restore sets the state that a checkpoint's Write returned; it is called
	// once, before the loop runs. A nil state is the empty state of a new group.
	Restore(index uint64, state []byte) error
}

// Syncer is a Machine that wants to know when an entry of its own is durable on
// this node, which may be long before a majority has it.
type Syncer interface {
	Machine
	// Synced says that the entry that went out under the token is durable in this
	// node's log, while it is in flight: before its Apply or Drop, at most once,
	// and not at all for one that is applied first. It may still be lost with this
	// node. The group's loop calls it.
	Synced(token any)
}

// Checkpoint is a state on its way to disk. The flusher's goroutine calls it.
type Checkpoint interface {
	// Write flushes and syncs every file that the state names, and returns the
	// body of the manifest.
	Write() (state []byte, err error)
	// Published says that the manifest is durable (renamed, directory synced).
	Published()
}
