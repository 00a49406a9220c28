package vfs

import (
	"errors"
	"syscall"
)

// SyncError gives the error of a sync on, nil as nil. It is not known as
// syscall.ENOSPC any more, whatever the sync said: what a full disk has refused
// to take is tried again, but a failed sync never is. The kernel may have dropped
// the bytes, and a second one would lie.
func SyncError(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return errors.New(err.Error())
	}
	return err
}
