package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// TempSuffix ends the name of a file that WriteFileAtomic has not finished. One
// that is found at start was left by a crash and may be removed.
const TempSuffix = ".tmp"

// WriteFileAtomic makes name hold data, durably: after a crash at any moment
// the name holds the old content or the new one, and the new one for sure once
// nil was returned. Two calls for the same name must not run at the same time.
// An error of a sync is a SyncError.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	tmp := name + TempSuffix
	if err := writeSynced(fsys, tmp, data); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, removeLeft(fsys, tmp)))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, removeLeft(fsys, tmp)))
	}
	if err := SyncError(fsys.SyncDir(path.Dir(clean(name)))); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeSynced(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = SyncError(f.Sync())
	}
	return errors.Join(err, f.Close())
}

// removeLeft removes a file that a failed write may have left.
func removeLeft(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadFile returns all bytes of a file.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if errors.Is(err, io.EOF) {
		err = nil // an empty file, or one that was cut meanwhile
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data[:n], nil
}

// MkdirSynced makes dir and its missing parents, and makes the new names
// durable: MkdirAll alone leaves every level to a SyncDir of the level above.
// A dir that exists already gets its name synced too, because the process that
// made it may have died in between.
func MkdirSynced(fsys FS, dir string) error {
	dir = clean(dir)
	top, err := lowestExisting(fsys, dir)
	if err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	existed := top == dir
	for d := dir; d != top || existed; d = path.Dir(d) {
		err := SyncError(fsys.SyncDir(path.Dir(d)))
		if existed && errors.Is(err, fs.ErrPermission) {
			return nil // the parent of the data folder need not be readable to us
		}
		if err != nil {
			return fmt.Errorf("make folder %s: %w", dir, err)
		}
		if existed {
			return nil
		}
	}
	return nil
}

// lowestExisting is the deepest of dir and its parents that exists.
func lowestExisting(fsys FS, dir string) (string, error) {
	for d := dir; ; d = path.Dir(d) {
		_, err := fsys.Stat(d)
		if err == nil || d == path.Dir(d) {
			return d, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
}
