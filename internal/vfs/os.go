package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Modes of what the process makes: the group may read (backups), others not.
const (
	fileMode = 0o640
	dirMode  = 0o750
)

// OS is the file system of the operating system. Its zero value is ready.
type OS struct{}

// Create implements FS.
func (OS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Open implements FS.
func (OS) Open(name string) (File, error) { return openOS(name, os.O_RDONLY) }

// OpenReadWrite implements FS.
func (OS) OpenReadWrite(name string) (File, error) { return openOS(name, os.O_RDWR) }

// Rename implements FS.
func (OS) Rename(oldname, newname string) error {
	return os.Rename(filepath.FromSlash(oldname), filepath.FromSlash(newname))
}

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(filepath.FromSlash(name)) }

// RemoveAll implements FS.
func (OS) RemoveAll(name string) error { return os.RemoveAll(filepath.FromSlash(name)) }

// MkdirAll implements FS.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(filepath.FromSlash(dir), dirMode) }

// ReadDir implements FS.
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Stat implements FS.
func (OS) Stat(name string) (Info, error) {
	st, err := os.Stat(filepath.FromSlash(name))
	if err != nil {
		return Info{}, err
	}
	if st.IsDir() {
		return Info{IsDir: true}, nil
	}
	return Info{Size: st.Size()}, nil
}

// SyncDir implements FS. Windows keeps names durable by itself and cannot sync
// a folder, so there it does nothing.
func (OS) SyncDir(dir string) error { return syncDir(filepath.FromSlash(dir)) }

// Lock implements FS. The file stays after the lock is given up: removing it
// would let two holders lock two files of the same name.
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	return f, nil
}

// Usage implements FS.
func (OS) Usage(dir string) (Usage, error) {
	u, err := usage(filepath.FromSlash(dir))
	if err != nil {
		return Usage{}, &fs.PathError{Op: "usage", Path: dir, Err: err}
	}
	return u, nil
}

// osFile adds to *os.File what File asks for beyond it.
type osFile struct{ *os.File }

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), flag, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// SyncData implements File.
func (f osFile) SyncData() error { return dataSync(f.File) }

// Size implements File.
func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// clean gives a name its one spelling: slashes, no dots, no slash at the end.
func clean(name string) string { return path.Clean(filepath.ToSlash(name)) }
