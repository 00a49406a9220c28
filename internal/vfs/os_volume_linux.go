package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var _ VolumeSyncer = OS{}

// OpenVolume implements VolumeSyncer.
func (OS) OpenVolume(dir string) (Volume, error) {
	f, err := os.Open(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	if err := syncTells(f); err != nil {
		_ = f.Close()
		return nil, &fs.PathError{Op: "openvolume", Path: dir, Err: err}
	}
	return osVolume{f}, nil
}

// syncTells is an error unless syncfs(2) both makes durable what is on the
// volume of f and reports what could not be written. Before Linux 5.8 it
// reported nothing. Overlays never tell of a failed write-back below them, and
// FUSE does not ask its server to sync; so only what is known to do it counts.
func syncTells(f *os.File) error {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		return err
	}
	switch uint32(stat.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
	default:
		return errors.ErrUnsupported
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if !releaseTells(unix.ByteSliceToString(name.Release[:])) {
		return errors.ErrUnsupported
	}
	return nil
}

// releaseTells reports whether a kernel release, such as 6.1.0-13-amd64, is 5.8
// or later.
func releaseTells(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major > 5 || major == 5 && minor >= 8
}

// osVolume is a folder that stays open: the kernel reports a failed write-back
// once to each descriptor that was open then.
type osVolume struct{ *os.File }

// Sync implements Volume with syncfs(2).
func (v osVolume) Sync() error {
	conn, err := v.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = conn.Control(func(fd uintptr) {
		for {
			syncErr = unix.Syncfs(int(fd))
			if !errors.Is(syncErr, unix.EINTR) {
				return
			}
		}
	})
	if err != nil { // Control refuses only a closed file, with an error of its own
		syncErr = fs.ErrClosed
	}
	if syncErr != nil {
		return &fs.PathError{Op: "syncfs", Path: v.Name(), Err: syncErr}
	}
	return nil
}
