// Package vfs is the seam between tidings and the file system. Every byte that
// must survive a crash goes through it, so that tests can lose, tear, flip and
// refuse bytes at will.
//
// A process takes Default. OS is the real thing; Mem is a disk in memory that
// loses power on demand, for the simulator; Fault plants errors, delays and
// flipped bits into any of them; Volatile (builds with the tag faults) makes a
// killed process lose what it did not sync.
package vfs

import (
	"errors"
	"io"
)

// ErrLocked says that another process (or another holder) has the lock file.
var ErrLocked = errors.New("locked by another process")

// FS is a file system. Names are slash-separated paths, absolute or relative
// to the process; implementations convert them. A file's bytes are durable
// after File.Sync or File.SyncData; a name (after Create, Rename, Remove or
// MkdirAll) is durable after SyncDir of the directory that holds it.
// All methods are safe for concurrent use.
type FS interface {
	// Create makes the file, or truncates it, open for reading and writing.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	// Rename replaces newname with oldname atomically.
	Rename(oldname, newname string) error
	// Remove removes a file or an empty directory. A missing one is an error
	// that matches fs.ErrNotExist.
	Remove(name string) error
	// RemoveAll removes a folder with all it holds; a missing one is no error.
	RemoveAll(name string) error
	// MkdirAll makes a folder and its parents.
	MkdirAll(dir string) error
	// ReadDir lists the base names in dir, sorted.
	ReadDir(dir string) ([]string, error)
	// Stat describes a file or folder; a missing one matches fs.ErrNotExist.
	Stat(name string) (Info, error)
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, made if missing, until the
	// returned Closer is closed or the process dies. ErrLocked when taken.
	Lock(name string) (io.Closer, error)
	// Usage says how many bytes the volume of dir has, and how many are free
	// to this process.
	Usage(dir string) (Usage, error)
}

// File is an open file. ReadAt, WriteAt and SyncData may be called from
// several goroutines.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes bytes and metadata durable (fsync).
	Sync() error
	// SyncData makes bytes, and the size where it changed, durable (fdatasync).
	SyncData() error
	// Truncate sets the size in bytes.
	Truncate(size int64) error
	// Size is the current size in bytes.
	Size() (int64, error)
}

// Info describes a file or folder.
type Info struct {
	Size  int64 // bytes
	IsDir bool
}

// Usage describes a volume, in bytes.
type Usage struct {
	Total int64
	Free  int64
}
