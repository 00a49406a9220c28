//go:build unix && !illumos && !solaris && !aix

package nsqdata

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the folder's lock, as nsqd does, but shared: an nsqd that runs has it
// alone, and none can start while it is held. It changes nothing in the folder.
func lock(dir *os.File) (held bool, err error) {
	err = syscall.Flock(int(dir.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
