package shard

// Portable is a Machine whose state can be carried to another replica, as a
// stream of bounded chunks that mean nothing to the group. A replica that has
// fallen behind the log keeps what it has and takes only what it lacks.
type Portable interface {
	Machine
	// Have describes what this replica holds, for the Export of another one.
	// The group's loop calls it.
	Have() []byte
	// Export takes the state as of index (all entries up to it are applied, none
	// above) less what the replica with have holds already; an empty have is
	// that of a new replica. Copy-on-write and cheap, as Checkpoint is; the
	// group's loop calls it.
	Export(index uint64, have []byte) (Export, error)
	// Import prepares to take what another replica's Export yields for this
	// one's Have, which was called at the same moment; nothing is applied from
	// then to Replace. Files are staged below dir, which is not there yet.
	// The group's loop calls it.
	Import(dir string) Import
	// Replace sets the state that Import's Install returned in place of the
	// present one. The machine does not lead. The group's loop calls it and does
	// nothing else meanwhile, so it may read files.
	Replace(index uint64, state []byte) error
}

// Export is a state on its way to another replica. One goroutine at a time uses
// it.
type Export interface {
	// Size is about how many bytes the chunks will hold altogether.
	Size() int64
	// Next appends the next chunk to buf: about maxBytes, more only for a single
	// item that is larger. io.EOF: there is none. Any other error is final.
	Next(buf []byte, maxBytes int) ([]byte, error)
	// Close lets go of what the export has kept. It is called once.
	Close()
}

// Import is a state on its way in. One goroutine at a time calls Put, Sync and
// Discard; the flusher's calls Install, Fail and Published.
type Import interface {
	// Put takes the next chunk. Its bytes are the caller's again afterwards.
	Put(chunk []byte) error
	// Sync ends the stream: what was staged is checked, complete and durable
	// when it returns.
	Sync() error
	// Install moves what was staged to where it belongs, durably, without harm
	// to what the last checkpoint names, and returns the body of the manifest.
	// index is that of the state.
	Install(index uint64) (state []byte, err error)
	// Fail says that no checkpoint with the state will come: the machine goes on
	// as it was. Only after Install was called.
	Fail()
	// Published says that the manifest with the state is durable, and that no
	// older checkpoint will be used.
	Published()
	// Discard removes what was staged.
	Discard() error
}
