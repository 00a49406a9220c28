package vfs

import (
	"errors"
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
	return osVolume{f}, nil
}

// osVolume is a folder that stays open: the kernel reports a failed write-back
// once to each descriptor that was open then.
type osVolume struct{ *os.File }

// Sync implements Volume with syncfs(2), which reports write errors since Linux
// 5.8.
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
