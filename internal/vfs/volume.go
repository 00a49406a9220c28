package vfs

import "io"

// VolumeSyncer is an FS that can make everything on a volume durable in one
// call: bytes and names, whoever wrote them. Where many files wait for a sync
// that is far cheaper than one sync each. File systems that have no such call
// do not implement it.
type VolumeSyncer interface {
	// OpenVolume opens the volume that holds dir, which must exist. The error is
	// errors.ErrUnsupported where Sync could not keep its promise.
	OpenVolume(dir string) (Volume, error)
}

// Volume is an open volume. Of what was written before it was opened, a failed
// write-back may go unnoticed by Sync if a sync of the file has reported it.
type Volume interface {
	io.Closer
	// Sync makes everything written to the volume durable. An error means that
	// something of it, of ours or not, could not be written.
	Sync() error
}
