// Package host tells what the operating system gives this process, as far as it
// is known how to ask: what is not known is zero, or empty.
package host

// Process is what this process uses and may use.
type Process struct {
	OpenFiles    int64 // file descriptors, sockets included
	OpenFilesMax int64 // most that it may have open
	Resident     int64 // bytes of memory
}

// Self asks for this process.
func Self() Process { return self() }

// Filesystem is the kind of file system that dir is on: ext4, xfs, btrfs, tmpfs,
// overlay, nfs and so on, as Linux names them.
func Filesystem(dir string) string { return filesystem(dir) }
