package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Exit codes of every command.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5
	exitConflict    = 6
	exitTimeout     = 7
)

// exitHelp explains the codes to users.
const exitHelp = `Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 denied, 5 unreachable,
6 conflict, 7 timeout.`

// exitError is an error with the code that the process ends with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func failf(code int, format string, args ...any) error {
	return &exitError{code: code, err: fmt.Errorf(format, args...)}
}

func usagef(format string, args ...any) error { return failf(exitUsage, format, args...) }

// settingsError is what config.Load returned: a file that is not there, or a
// value that can't be used.
func settingsError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failf(exitNotFound, "%w", err)
	}
	return usagef("%w", err)
}

// exitCode is the code for an error that a command returned.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	if errors.Is(err, vfs.ErrLocked) {
		return exitConflict
	}
	return exitFailure
}
